"""How a shard serves. Needs neither torch nor faiss, as those who only start shards do not."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardConfig:
    """Where a shard serves and what it may use.

    `port` 0 takes the port of its life before, or any. `advertise_host` is where callers on other
    hosts reach it, and `node` the id of its Ray node; a shard under Ray learns both there. `threads`
    work on one request (torch, FAISS), `workers` requests are computed at a time, `max_queue` more may
    wait.
    """

    shard_id: str
    state_dir: Path
    host: str = "127.0.0.1"
    port: int = 0
    advertise_host: str = ""
    node: str = ""
    device: str = "cpu"
    workers: int = 1
    threads: int = 1
    max_queue: int = 64
    grace_s: float = 2.0

    def __post_init__(self) -> None:
        if not self.shard_id or Path(self.shard_id).name != self.shard_id:
            raise ValueError(f"shard_id {self.shard_id!r} must be fit for the name of a file")
        if self.workers < 1 or self.threads < 1 or self.max_queue < 0 or self.grace_s < 0:
            raise ValueError("workers and threads must be at least 1, max_queue and grace_s at least 0")

    @property
    def record_path(self) -> Path:
        """Return the file from which the shard takes up its models after a restart."""
        return self.state_dir / "shards" / f"{self.shard_id}.json"
