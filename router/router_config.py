"""What a router is told: how it listens, whom it follows and what it admits."""

from dataclasses import dataclass, field
from pathlib import Path

from router import replicas, shard_calls
from router.answer_rate import LimitSettings
from router.budget import Deadline
from router.outcome_log import OutcomeSettings
from router.replicas import ReplicaSettings
from router.shard_calls import CallSettings
from services import chassis
from services.codec.search import MAX_PAGE_SIZE
from services.consul_settings import ConsulSettings
from services.followed_rules import RulesSource
from services.telemetry_settings import ROUTER, ProcessTelemetry
from services.tls import TlsFiles
from services.user_store_settings import UserStoreSettings

_LIMIT = LimitSettings()
_OUTCOMES = OutcomeSettings()

_UNSEEN = ProcessTelemetry(role=ROUTER, name=ROUTER)


@dataclass(frozen=True, slots=True, kw_only=True)
class RouterConfig:
    """How a router listens, whom it follows and what it admits.

    It follows a `controller`, `consul` or both; without either the placement in `cache_path` is served as it
    is. Users are in `user_store`, and a search waits at most `user_timeout_s` for one. Models of gates are in
    `bundle_root`, the folder of bundles. Port 0 stands for any. Without `access` everybody may call; the
    controller is shown the `controller_token`, shards the `shard_token`. At most `max_shadows` shadow
    searches run at once, and how they compare is reported every `shadow_report_s`.

    At most `max_in_flight` searches are worked on at once, and as many stage calls by proxy; `limit` says how
    many fewer under load. `replicas` and `calls` are about shards: docs/robustness.md.
    """

    host: str = "127.0.0.1"
    port: int = 0
    controller: str = ""
    consul: ConsulSettings | None = None
    cache_path: Path | None = None
    user_store: UserStoreSettings = field(default_factory=UserStoreSettings)
    user_timeout_s: float = 0.5
    bundle_root: Path | None = None
    max_in_flight: int = 256
    max_recordings: int = 64
    """Requests to record events that are worked on at once."""
    max_shadows: int = 8
    shadow_report_s: float = 3.0
    default_deadline_s: float = 1.0
    max_deadline_s: float = 10.0
    limit: LimitSettings = _LIMIT
    replicas: ReplicaSettings = replicas.DEFAULTS
    calls: CallSettings = shard_calls.DEFAULTS
    max_message_bytes: int = chassis.MAX_MESSAGE_BYTES
    keepalive_s: float = chassis.KEEPALIVE_S
    max_pending: int = 0
    """Calls that have come and were not looked at yet; gRPC itself turns away what exceeds them."""
    max_streams: int = 256
    """Calls that one connection may have open; 0 for any number."""
    max_connection_age_s: float = 0.0
    """After which callers connect anew, so that they spread over the routers of a port; 0 for never."""
    grace_s: float = 5.0
    reuse_port: bool = False
    access: RulesSource | None = None
    tls: TlsFiles | None = None
    """What is shown to callers, shards and the controller."""
    mutual_tls: bool = True
    """Whether callers must show a certificate too."""
    controller_token: str | None = field(default=None, repr=False)
    trusted_keys: tuple[str, ...] = ()
    """Public keys of which one must have signed the models of gates; none trusts all."""
    shard_token: str | None = field(default=None, repr=False)
    max_metadata_bytes: int = chassis.MAX_METADATA_BYTES
    max_page_size: int = MAX_PAGE_SIZE
    """Items of a page that callers may ask for."""
    reflection: bool = True
    telemetry: ProcessTelemetry = _UNSEEN
    outcomes: OutcomeSettings = _OUTCOMES
    """Whether searches and events are written down; docs/live-quality.md."""
    outcomes_dir: Path | None = None
    """Where; None for nowhere."""

    def __post_init__(self) -> None:
        if not 0 < self.default_deadline_s <= self.max_deadline_s:
            raise ValueError("0 < default_deadline_s <= max_deadline_s does not hold")
        if not 1 <= self.max_page_size <= MAX_PAGE_SIZE:
            raise ValueError(f"max_page_size must be 1 to {MAX_PAGE_SIZE}")
        if min(self.max_in_flight, self.max_recordings, self.max_message_bytes) < 1 or self.grace_s < 0:
            raise ValueError("limits must be positive, grace_s not negative")
        if self.user_timeout_s <= 0:
            raise ValueError("user_timeout_s must be positive")
        if self.keepalive_s <= 0:
            raise ValueError("keepalive_s must be positive")
        if min(self.max_connection_age_s, self.max_pending, self.max_streams) < 0:
            raise ValueError("max_connection_age_s, max_pending and max_streams must not be negative")
        if self.max_shadows < 0 or self.shadow_report_s <= 0:
            raise ValueError("max_shadows must not be negative, shadow_report_s must be positive")
        if not self.controller and self.consul is None and self.cache_path is None:
            raise ValueError("a router needs a controller, Consul or the cache of a placement")

    def deadline_of(self, remaining_s: float | None) -> Deadline:
        """Return the deadline of a call whose caller waits so long; None when the caller did not say."""
        asked_s = self.default_deadline_s if remaining_s is None else remaining_s
        return Deadline.after(min(asked_s, self.max_deadline_s))
