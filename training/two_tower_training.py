"""How a two-tower model is trained: its losses, negatives and positives, as settings."""

from dataclasses import dataclass, field

from training.augmentations import SelfSupervised
from training.hard_negatives import HardNegatives
from training.hard_positives import HardPositives
from training.models.two_tower import TwoTowerConfig
from training.trainer import FitConfig
from training.weighted_sources import SourceWeights

LOSSES = ("softmax", "pointwise", "hinge", "logistic")
"""Listwise, pointwise and two pairwise trainings of one model."""

COUNTED = ("all", "random", "hardest")


@dataclass(frozen=True, slots=True, kw_only=True)
class TwoTowerTraining:
    """How to train the two-tower model."""

    model: TwoTowerConfig = field(default_factory=TwoTowerConfig)
    fit: FitConfig = field(default_factory=lambda: FitConfig(batch_size=512, epochs=12))
    loss: str = "softmax"
    margin: float = 1.0
    """By how much the "hinge" wants an item above its negatives, in logits: cosines over the temperature."""
    negatives: int = 1024
    """Negatives drawn for each batch beside its own items."""
    negative_power: float = 0.0
    """Drawn in proportion to popularity to this power: 0 is uniform."""
    in_batch: bool = True
    """Whether items of a batch are negatives of each other."""
    counted: str = "all"
    """Which of them count for a positive: "all", `per_positive` at "random", or as many of the "hardest"."""
    per_positive: int = 3
    log_q: bool = True
    """Whether scores are corrected for how often sampling meets each item."""
    streaming: bool = False
    """Whether that is estimated from the batches that stream by, or counted."""
    rare_power: float = 0.0
    """Examples are drawn in proportion to the popularity of their item to minus this power; 0: each once an
    epoch."""
    sources: SourceWeights | None = None
    """Has a loss against the negatives of each source, and their weighted sum; None for one against all."""
    hard: HardNegatives = field(default_factory=HardNegatives)
    hard_positives: HardPositives = field(default_factory=HardPositives)
    self_supervised: SelfSupervised = field(default_factory=SelfSupervised)

    def __post_init__(self) -> None:
        if self.loss not in LOSSES:
            raise ValueError(f"loss must be one of {', '.join(LOSSES)}, not {self.loss!r}")
        if self.counted not in COUNTED:
            raise ValueError(f"counted must be one of {', '.join(COUNTED)}, not {self.counted!r}")
        if self.margin <= 0:
            raise ValueError("margin must be above 0")
        if self.model.heads > 1 and self.hard.per_positive:
            raise ValueError("hard negatives are for a query tower of one head")
        if self.per_positive < 1:
            raise ValueError("per_positive must be at least 1")
        if not self.in_batch and not self.negatives:
            raise ValueError("without in_batch there must be negatives to draw")
        if not 0 <= self.rare_power <= 1:
            raise ValueError("rare_power must be between 0 and 1")
        easy = self.in_batch and self.negatives and self.counted == "all" and not self.hard.alone
        if self.sources is not None and not easy:
            raise ValueError("sources need negatives, in_batch, counted 'all' and hard negatives not alone")
