"""What a servable must be able to do; engines satisfy one of these, a file each."""

from collections.abc import Callable, Mapping
from typing import Protocol, runtime_checkable

from shards.candidates import Candidates
from shards.search_context import Filter, SearchContext


@runtime_checkable
class Retriever(Protocol):
    """Finds candidates in the whole catalogue."""

    def retrieve(
        self,
        context: SearchContext,
        k: int,
        allowed: Filter,
        attributes: tuple[str, ...],
        attribute_count: int,
        /,
    ) -> Candidates:
        """Return at most `k` allowed items with column "score", best first, and attributes of the first."""


@runtime_checkable
class Scorer(Protocol):
    """Scores candidates that earlier stages found."""

    def score(
        self,
        context: SearchContext,
        candidates: Candidates,
        keep: int,
        task_exponents: Mapping[str, float],
        attributes: tuple[str, ...],
        attribute_count: int,
        /,
    ) -> Candidates:
        """Return the best `keep` known items, or all of them where it is 0, by column "score", best first.

        There is one column per task besides. Empty `task_exponents` mean the bundle's own.
        """


@runtime_checkable
class Explainer(Protocol):
    """Tells why it scores candidates as it does."""

    def explain(
        self,
        context: SearchContext,
        candidates: Candidates,
        count: int,
        task_exponents: Mapping[str, float],
        wanted: Callable[[], bool],
        /,
    ) -> Candidates:
        """Return the first `count` known items in their order, with "score" and a column for each feature.

        Raises DeadlineExceeded where the answer is no longer `wanted`.
        """


Servable = Retriever | Scorer
