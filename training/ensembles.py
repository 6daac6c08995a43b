"""Several two-tower models trained on one log and served as one: weighted and concatenated, or as a cascade.

Huang et al., "Embedding-based Retrieval in Facebook Search" (KDD 2020, arXiv 2006.11632, section 6.2).
"""

from dataclasses import dataclass

from training.two_tower_training import TwoTowerTraining


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One model of an ensemble: how it is trained, and what it counts beside the others."""

    training: TwoTowerTraining
    weight: float = 1.0

    def __post_init__(self) -> None:
        if self.weight <= 0:
            raise ValueError("weight must be above 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class EnsembleTraining:
    """Models that share features, requests and one bundle.

    With `first` they are a cascade: the first model finds so many neighbours, the second puts them in order.
    """

    members: tuple[Member, ...]
    first: int = 0

    def __post_init__(self) -> None:
        if len(self.members) < 2:
            raise ValueError("members must be two at least")
        if self.first < 0 or (self.first and len(self.members) != 2):
            raise ValueError("first must not be negative, and a cascade has two members")
