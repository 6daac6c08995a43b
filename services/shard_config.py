"""How a shard serves. Needs neither torch nor faiss, as those who only start shards do not."""

from dataclasses import dataclass
from pathlib import Path

from services.access import AccessRules
from services.telemetry_settings import SILENT, Telemetry
from shards.live_quality import QualitySettings


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardConfig:
    """Where a shard serves and what it may use.

    `port` 0 takes the port of its life before, or any. `advertise_host` is where callers on other
    hosts reach it, and `node` the id of its Ray node; a shard under Ray learns both there. `threads`
    work on one request (torch, FAISS), `workers` requests are computed at a time, `max_queue` more may
    wait. With one worker on a CPU, requests that usually take less than `inline_s` are computed on the event
    loop, which hears nothing else for so long; 0 leaves them all to the worker. Once the queue was not empty
    for `queue_standing_s`, what will have to wait for `queue_share` of its time is refused, but nothing that
    waits less than `queue_target_s`. Where a router shares the cores, the shard gives way to it by
    `niceness`, 0 to 19.

    Bundles may use `memory_bytes`, and `gpu_memory_bytes` on its GPU; 0 sets no limit. Those held on demand
    stay for `min_residence_s` once loaded and `min_idle_s` after their last request. One that fails to load
    is tried again after `load_backoff_s`, twice as long each time, `load_attempts` times in all. A shard
    that uses `leak_limit_bytes` more than its bundles account for, for `leak_patience_s`, asks to be
    restarted; 0 never asks.
    """

    shard_id: str
    state_dir: Path
    host: str = "127.0.0.1"
    port: int = 0
    advertise_host: str = ""
    node: str = ""
    tls_path: str = ""
    """Folder of certificates, as on the node where the shard runs; empty for none."""
    access: AccessRules | None = None
    """Whom the shard answers; None for everybody."""
    access_path: str = ""
    """The operator's file, from which a change of them is read where the node has it."""
    reflection: bool = True
    trusted_keys: tuple[str, ...] = ()
    """Public keys of which one must have signed a bundle; none trusts all."""
    device: str = "cpu"
    workers: int = 1
    threads: int = 1
    max_queue: int = 64
    inline_s: float = 0.02
    queue_standing_s: float = 1.0
    queue_target_s: float = 0.02
    queue_share: float = 0.5
    niceness: int = 0
    max_message_bytes: int = 16 * 2**20
    grace_s: float = 2.0
    memory_bytes: int = 0
    gpu_memory_bytes: int = 0
    min_idle_s: float = 2.0
    min_residence_s: float = 15.0
    load_attempts: int = 3
    load_backoff_s: float = 1.0
    leak_limit_bytes: int = 1 << 30
    leak_patience_s: float = 10.0
    telemetry: Telemetry = SILENT
    quality: QualitySettings = QualitySettings()  # noqa: RUF009 (frozen)
    """What of the answers is looked at again, beside the request path."""

    def __post_init__(self) -> None:
        if not self.shard_id or Path(self.shard_id).name != self.shard_id:
            raise ValueError(f"shard_id {self.shard_id!r} must be fit for the name of a file")
        if self.workers < 1 or self.threads < 1 or self.max_queue < 0 or self.grace_s < 0:
            raise ValueError("workers and threads must be at least 1, max_queue and grace_s at least 0")
        if not 0 <= self.niceness <= 19:
            raise ValueError("niceness must be 0 to 19")
        if min(self.memory_bytes, self.gpu_memory_bytes, self.leak_limit_bytes) < 0:
            raise ValueError("memory_bytes, gpu_memory_bytes and leak_limit_bytes must be at least 0")
        times_s = (
            self.inline_s,
            self.min_idle_s,
            self.min_residence_s,
            self.load_backoff_s,
            self.leak_patience_s,
        )
        if self.load_attempts < 1 or min(times_s) < 0:
            raise ValueError("load_attempts must be at least 1, and times at least 0")

    @property
    def record_path(self) -> Path:
        """Return the file from which the shard takes up its models after a restart."""
        return self.state_dir / "shards" / f"{self.shard_id}.json"
