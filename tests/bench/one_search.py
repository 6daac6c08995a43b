"""One search without a router: the arithmetic that the systems of `make bench-search` share.

What a router does around the stages is here a few lines: read the user, ask the gate, say what the stages are
asked, make the page. One process runs it over open bundles in one go; Ray Serve's deployments run its parts.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from router.answer import Item
from router.budget import Deadline
from router.gate import GateDecision, decide
from router.page import page
from router.search import Search
from router.together import HeldTogether, Unit, call_of, units_of
from services.codec import SearchRequest
from services.user_store import UserStore
from shards import cascade
from shards.bundle import open_bundle
from shards.candidates import EMPTY, Candidates
from shards.cascade import CascadeCall
from shards.merging import PREFIXES
from shards.release import ModelVersion, Release, Stage
from shards.search_context import SearchContext
from shards.servable import open_servable
from shards.stages import Servable

_LONG_S = 3_600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One search as the gate decided it, and the units in which its stages are asked."""

    search: Search
    gate: GateDecision
    channels: tuple[str, ...]
    units: tuple[Unit, ...]

    def call(self, unit: Unit, candidates: Candidates = EMPTY) -> CascadeCall:
        """Return the call for a unit, with what the units before it left."""
        merged = max(self.search.release.merged, self.search.request.page_size)
        return call_of(self.search, unit, candidates, merged)

    def items(self, ordered: Candidates) -> tuple[Item, ...]:
        """Return the page of what the last stage left."""
        return page(
            ordered,
            size=self.search.request.page_size,
            score_column=f"{PREFIXES[Stage.RANKING]}.score",
            channels=self.channels,
            attribute_sources=(ordered,),
            shown=self.search.release.attributes,
        )


async def question(
    asked: SearchRequest, release: Release, users: UserStore, held_together: HeldTogether
) -> Question:
    """Read the user and ask the gate."""
    assert asked.now_ms is not None
    user = await users.get(asked.user_id, asked.now_ms, release.history_limit)
    context = SearchContext(query=asked.query, user=user, features=asked.context, now_ms=asked.now_ms)
    gate = decide(release.gate, context)
    channels = [channel for channel in release.channels if gate.open or not channel.gated]
    search = Search(request=asked, context=context, release=release, deadline=Deadline.after(_LONG_S))
    return Question(
        search=search,
        gate=gate,
        channels=tuple(channel.name for channel in channels),
        units=units_of(search, channels, held_together),
    )


def run(call: CascadeCall, servables: Mapping[ModelVersion, Servable]) -> Candidates:
    """Run a call over open bundles."""
    held = [servables[step.model] for step in call.steps]
    return cascade.run(call, held, until_s=math.inf).candidates


def open_servables(models: Sequence[ModelVersion], models_dir: Path) -> dict[ModelVersion, Servable]:
    """Verify and open bundles, on the CPU."""
    return {
        model: open_servable(open_bundle(models_dir / model.model / model.version, expect=model), "cpu")
        for model in models
    }
