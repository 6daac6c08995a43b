"""What a shard asks of Ray. Needs no Ray itself, as those who only write settings down do not."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardResources:
    """What each shard takes of a node, and the labels of the nodes that it may run on.

    Ray's CPUs and GPUs are logical: they decide where a shard fits, not what it can use. 0 CPUs fit
    everywhere. Labels select as Ray's `label_selector` does: "a100", "!spot", "in(a, b)".
    """

    num_cpus: float = 1.0
    num_gpus: float = 0.0
    labels: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.num_cpus < 0 or self.num_gpus < 0:
            raise ValueError("num_cpus and num_gpus must not be negative")
        if self.num_gpus > 1 and self.num_gpus != int(self.num_gpus):
            raise ValueError("num_gpus above 1 must be whole, as Ray divides single GPUs only")

    def bundle(self) -> dict[str, float]:
        """Return what one shard takes as a bundle of Ray; empty for a shard that fits everywhere."""
        taken = {"CPU": self.num_cpus, "GPU": self.num_gpus}
        return {name: amount for name, amount in taken.items() if amount}
