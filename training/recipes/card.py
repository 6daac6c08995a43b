"""What a reader is told of a recipe: which published system it is, and what its authors say that it does."""

from dataclasses import dataclass

from training.recipe import Recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """A recipe, the systems that it has and their source; texts for `headrace recipes list`."""

    recipe: Recipe
    systems: tuple[str, ...]
    """Rows of the systems' table: "R7", "C1" …"""
    source: str
    """Authors' name for it, and the paper with its arXiv id or venue."""
    effect: str
    """What the authors claim."""
