"""Servables that turn what they are asked into a call, and have somebody else answer it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from services.codec import Retrieval, Scoring
from shards.candidates import Candidates
from shards.release import ModelVersion
from shards.search_context import Filter, SearchContext


@dataclass(frozen=True, slots=True)
class AskedRetriever:
    """Retrieves by `ask`."""

    model: ModelVersion
    ask: Callable[[Retrieval], Candidates]

    def retrieve(
        self,
        context: SearchContext,
        k: int,
        allowed: Filter,
        attributes: tuple[str, ...],
        attribute_count: int,
        /,
    ) -> Candidates:
        """Ask for candidates."""
        call = Retrieval(
            model=self.model,
            context=context,
            k=k,
            filter=allowed,
            attributes=attributes,
            attribute_count=attribute_count,
        )
        return self.ask(call)


@dataclass(frozen=True, slots=True)
class AskedScorer:
    """Scores by `ask`."""

    model: ModelVersion
    ask: Callable[[Scoring], Candidates]

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
        """Ask for scores."""
        call = Scoring(
            model=self.model,
            context=context,
            candidates=candidates,
            keep=keep,
            task_exponents=task_exponents,
            attributes=attributes,
            attribute_count=attribute_count,
        )
        return self.ask(call)
