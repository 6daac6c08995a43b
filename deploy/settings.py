"""What a cluster on this machine is like, and what its processes get from the environment."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from deploy.ports import is_loopback
from deploy.workspace import Workspace
from router.credentials import Credentials
from services.bearer import bearer
from services.consul_settings import ConsulSettings, ConsulTls
from services.redis_settings import RedisSettings, is_redis_url
from services.shard_resources import ShardResources
from services.tls import Party, TlsFiles
from services.user_history import KEPT_EVENT_IDS, KEPT_EVENTS, EventLimits
from services.user_store_settings import UserStoreSettings
from shards.errors import FieldViolation, InvalidInput
from shards.json_codec import from_json, parse, render, to_json
from shards.signature import read_trusted_keys

_MEMORY_SHARE = 0.7
"""Of this host's memory, what bundles may use; the rest is for processes, page cache and Ray."""

_CONTAINER_LIMIT = Path("/sys/fs/cgroup/memory.max")

TOKEN_VARIABLE = "HEADRACE_TOKEN"
_TLS_VARIABLE = "HEADRACE_TLS"
_IDENTITY_VARIABLE = "HEADRACE_TLS_IDENTITY"

_HTTPS = "https://"

PROJECT_ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterSettings:
    """A cluster, or one process of it; port 0 stands for any.

    All `routers` listen on the one port, so that the kernel passes callers of a dead one on to the others.
    `shard_memory_bytes` is what bundles may use on each shard; 0 divides most of the host's memory.
    `access_path` is the file that says who may call; without one everybody may.
    """

    workspace: str
    host: str = "127.0.0.1"
    router_port: int = 0
    controller_port: int = 0
    routers: int = 2
    controllers: int = 1
    """Candidates, of whom Consul lets one lead."""
    shards: int = 2
    replicas: int = 2
    device: str = "cpu"
    shard_memory_bytes: int = 0
    ray_address: str = ""
    joins_ray: bool = False
    """Whether that Ray was there before, and stays; otherwise it is the cluster's own."""
    supervised: bool = True
    """Whether `headrace up` runs the processes, and gives them tokens of their own."""
    controller_address: str = ""
    """HOST:PORT of the controller that a router without a supervisor follows."""
    user_store: str = ""
    """Folder or redis://HOST:PORT of the users; empty for the folder of the workspace."""
    user_store_ca_path: str = ""
    models_path: str = ""
    """Folder of bundles in which routers find the models of gates; empty for that of the workspace."""
    kept_events: int = KEPT_EVENTS
    """Newest events that are kept of each user."""
    kept_event_ids: int = KEPT_EVENT_IDS
    """Newest ids, of all users, by which an event that comes again is known."""
    shard_host: str = "127.0.0.1"
    """What shards listen on; on every interface they tell callers their node's address."""
    shard_cpus: float = 0.0
    """Logical CPUs of Ray that a shard takes; 0 fits everywhere, however many shards there are."""
    gpu_fraction: float = 0.0
    """Share of a GPU that a shard on one takes; 0 divides what Ray has."""
    shard_labels: Mapping[str, str] = field(default_factory=dict)
    """Labels of the Ray nodes on which shards may run."""
    consul_address: str = ""
    """HOST:PORT of the agent that keeps the placement, after https:// where it speaks TLS; empty for none."""
    consul_prefix: str = "headrace"
    consul_ca_path: str = ""
    consul_cert_path: str = ""
    consul_key_path: str = ""
    access_path: str = ""
    console_port: int | None = None
    """Port of the console on this machine's loopback; None for no console."""
    console_operate: bool = False
    """Whether the console may change a cluster that asks nobody for a token."""
    trusted_keys_path: str = ""
    """File of public keys of which one must have signed a bundle; empty trusts all bundles."""
    tls_path: str = ""
    """Folder of certificates, as `headrace certs make` writes it; empty for no encryption."""
    router_mutual_tls: bool = True
    """Whether routers ask their callers for certificates too; else those are known by tokens alone."""
    reflection: bool = True
    """Whether servers describe their methods to those who may ask."""
    insecure: bool = False
    """Whether ports that other hosts reach may be open to everybody there."""
    planning_path: str = ""
    """File over the planner's defaults; see docs/planning.md."""
    serving_path: str = ""
    """File over the defaults of how routers and shards bear load; see docs/robustness.md."""
    telemetry_path: str = ""
    """File over the defaults of metrics, traces and logs; see docs/observability.md."""
    process: str = ""
    """What the supervisor calls this process; empty without one."""

    def __post_init__(self) -> None:
        if self.routers < 1:
            raise ValueError("a cluster needs a router")
        if not 1 <= self.replicas <= self.shards:
            raise ValueError(f"{self.replicas} replicas do not fit {self.shards} shards")
        if self.controllers < 1:
            raise ValueError("a cluster needs a controller")
        if self.controllers > 1 and not self.consul_address:
            raise ValueError("several controllers need Consul, which says who of them leads")
        ports = (self.router_port, self.controller_port, self.console_port or 0)
        if not all(0 <= port <= 65_535 for port in ports):
            raise ValueError("a port must be 0 to 65535")
        if self.shard_memory_bytes < 0:
            raise ValueError("shard_memory_bytes must not be negative")
        if self.joins_ray and not self.ray_address:
            raise ValueError("the address of the Ray to join is missing")
        check_exposure(self)
        ShardResources(num_cpus=self.shard_cpus, num_gpus=self.gpu_fraction, labels=self.shard_labels)
        consul_settings(self)
        user_store_settings(self)

    @property
    def folders(self) -> Workspace:
        """Return the workspace's folders."""
        return Workspace(Path(self.workspace))

    @property
    def ruled(self) -> bool:
        """Return whether callers are asked who they are."""
        return bool(self.access_path or self.tls_path)

    @property
    def shard_ids(self) -> tuple[str, ...]:
        """Return the ids of the shards."""
        return tuple(f"shard-{n}" for n in range(self.shards))

    @property
    def shard_capacity_bytes(self) -> int:
        """Return the memory that bundles may use on each shard."""
        return self.shard_memory_bytes or round(memory_bytes() * _MEMORY_SHARE / self.shards)

    def to_argument(self) -> str:
        """Return the settings as an argument for a process of the cluster."""
        return render(to_json(self)).decode()

    @classmethod
    def from_argument(cls, argument: str) -> Self:
        """Return the settings in such an argument."""
        return from_json(cls, parse(argument.encode()))


def consul_settings(settings: ClusterSettings) -> ConsulSettings | None:
    """Return how the cluster reaches Consul, or None; the token is `HEADRACE_CONSUL_TOKEN`."""
    if not settings.consul_address:
        return None
    return agent_settings(
        settings.consul_address,
        settings.consul_prefix,
        ca_path=settings.consul_ca_path,
        cert_path=settings.consul_cert_path,
        key_path=settings.consul_key_path,
    )


def agent_settings(
    address: str, prefix: str, *, ca_path: str = "", cert_path: str = "", key_path: str = ""
) -> ConsulSettings:
    """Return how to reach an agent at [https://]HOST:PORT; raises ValueError for what contradicts itself."""
    paths = {"ca_path": ca_path, "cert_path": cert_path, "key_path": key_path}
    files = {name: Path(path) for name, path in paths.items() if path}
    plain = address.removeprefix(_HTTPS)
    if files and plain == address:
        raise ValueError(f"certificates are for an agent that speaks TLS: {_HTTPS}{address}")
    return ConsulSettings(
        address=plain,
        prefix=prefix,
        token=os.environ.get("HEADRACE_CONSUL_TOKEN", ""),
        tls=None if plain == address else ConsulTls(**files),
    )


def user_store_settings(settings: ClusterSettings) -> UserStoreSettings:
    """Return where the cluster keeps its users; the password of a Redis is `HEADRACE_REDIS_PASSWORD`."""
    limits = EventLimits(events=settings.kept_events, event_ids=settings.kept_event_ids)
    return UserStoreSettings(
        place=user_store_place(settings.user_store, settings.user_store_ca_path)
        or settings.folders.users_path,
        limits=limits,
    )


def user_store_place(location: str, ca_path: str = "") -> Path | RedisSettings | None:
    """Return the place of a folder or URL, None for none; raises ValueError for what contradicts itself."""
    if is_redis_url(location):
        return RedisSettings.from_url(
            location,
            password=os.environ.get("HEADRACE_REDIS_PASSWORD", ""),
            ca_path=Path(ca_path) if ca_path else None,
        )
    if "://" in location:
        raise ValueError("a user store is a folder, redis://HOST:PORT/DATABASE or rediss://…")
    if ca_path:
        raise ValueError("an authority's certificate is for a user store at rediss://HOST:PORT")
    return Path(location) if location else None


def check_exposure(settings: ClusterSettings) -> None:
    """Raise ValueError where other hosts would reach what asks nobody who he is, unless that is wanted."""
    if not settings.router_mutual_tls and not (settings.tls_path and settings.access_path):
        raise ValueError("callers without certificates need --tls, and --access to know them by their tokens")
    exposed = [host for host in (settings.host, settings.shard_host) if not is_loopback(host)]
    if exposed and not settings.tls_path and not settings.insecure:
        raise ValueError(
            f"other hosts reach {exposed[0]}, where nothing would be encrypted, and anybody could take over"
            " shards: give --tls (see docs/access.md), or --insecure where the network is trusted"
        )


def caller_credentials() -> Credentials:
    """Return what commands show to routers and controllers.

    HEADRACE_TOKEN is a token; HEADRACE_TLS a folder of certificates, of which HEADRACE_TLS_IDENTITY
    ("operator") is shown. Raises `InvalidInput` for what cannot be used.
    """
    folder = os.environ.get(_TLS_VARIABLE, "")
    word = os.environ.get(_IDENTITY_VARIABLE, "") or Party.OPERATOR.word
    return Credentials(token=caller_token(), tls=TlsFiles.in_folder(Path(folder), word) if folder else None)


def trusted_keys(settings: ClusterSettings) -> tuple[str, ...]:
    """Return the keys whose bundles are opened, none for all; raises `InvalidInput` for a wrong file."""
    path = settings.trusted_keys_path
    return read_trusted_keys(Path(path)) if path else ()


def process_certificates(settings: ClusterSettings, party: Party) -> TlsFiles | None:
    """Return the certificate of a process of the cluster, None without TLS."""
    return TlsFiles.in_folder(Path(settings.tls_path), party.word) if settings.tls_path else None


def caller_token() -> str | None:
    """Return the token that commands show to routers and controllers, None where the environment has none.

    Raises `InvalidInput`, which does not repeat it, for what cannot be sent as a token.
    """
    token = os.environ.get(TOKEN_VARIABLE, "").strip()
    try:
        bearer(token)
    except ValueError as error:
        raise InvalidInput(FieldViolation(TOKEN_VARIABLE, str(error))) from error
    return token or None


def child_environment(ray_token_path: Path | None) -> dict[str, str]:
    """Return the environment of a cluster's processes: this one's, so that they find the same code.

    The cluster's own Ray lets in only who knows the token in this file; None for a Ray that was there
    before, to which the operator's variables belong. The operator's own token is nothing they need.
    """
    ray_access = {} if ray_token_path is None else _ray_token(ray_token_path)
    paths: Sequence[str] = (str(PROJECT_ROOT), os.environ.get("PYTHONPATH", ""))
    return {
        **{name: value for name, value in os.environ.items() if name != TOKEN_VARIABLE},
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "PYTHONUNBUFFERED": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        # Ray's workers give way to all else on a host, unless told otherwise; but shards serve.
        "RAY_worker_niceness": "0",
        # Without it, a Ray that finds an address here joins that cluster instead of starting its own.
        "RAY_ADDRESS": "",
        **ray_access,
    }


def _ray_token(path: Path) -> dict[str, str]:
    return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(path)}


def memory_bytes() -> int:
    """Return the memory of this host, or of the container where that has less."""
    host_bytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:
        return min(host_bytes, int(_CONTAINER_LIMIT.read_text()))
    except (OSError, ValueError):  # No container, or one without a limit: "max".
        return host_bytes
