"""One search on its way through the cascade, and the seam through which it reaches the stages."""

from dataclasses import dataclass
from typing import Protocol

from router.budget import Deadline
from services.codec import CascadeAnswer, Explaining, Retrieval, Scoring, SearchRequest, StageAnswer
from shards.cascade import CascadeCall
from shards.exclusion import exclusion
from shards.release import ModelVersion, Release
from shards.search_context import Filter, SearchContext


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """What was asked, by whom, the release that answers and the time it has. It never sees two releases."""

    request: SearchRequest
    context: SearchContext
    release: Release
    deadline: Deadline

    @property
    def depth(self) -> int:
        """Return how many items of the last stage the page is made of."""
        return self.release.depth(self.request.page_size)

    @property
    def filter(self) -> Filter:
        """Return what the caller asks of items and what the release leaves out for this user."""
        return self.request.filter + exclusion(self.release, self.context)


class Stages(Protocol):
    """Answers stage calls within a time; raises `HeadraceError` and nothing else."""

    async def retrieve(self, call: Retrieval, timeout_s: float) -> StageAnswer: ...  # noqa: D102
    async def pre_rank(self, call: Scoring, timeout_s: float) -> StageAnswer: ...  # noqa: D102
    async def rank(self, call: Scoring, timeout_s: float) -> StageAnswer: ...  # noqa: D102

    async def explain(self, call: Explaining, timeout_s: float) -> StageAnswer: ...  # noqa: D102

    async def run(self, call: CascadeCall, timeout_s: float) -> CascadeAnswer: ...  # noqa: D102

    def held_together(self, models: tuple[ModelVersion, ...]) -> bool:
        """Return whether one shard can be asked for all the models without giving up other replicas."""
