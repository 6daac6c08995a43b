"""Why the first items of a page have their scores: asked of the ranker once the page is made.

A call of its own, so that neither the page nor its order ever waits for it; what does not come is a gap.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import isnan

from router.answer import Item
from router.budget import allow
from router.coverage import Gap, GapReason, reason_of
from router.patience import ask_patiently
from router.search import Search, Stages
from services.codec import Explaining
from shards.candidates import SCORE, Candidates
from shards.diversity import PLACE, SIMILARITY
from shards.errors import HeadraceError
from shards.merging import PREFIXES
from shards.release import ReleaseScorer, Stage

_RANKED = f"{PREFIXES[Stage.RANKING]}."


@dataclass(frozen=True, slots=True, kw_only=True)
class Contributions:
    """By item and feature, the largest first; empty where nothing was asked for or came."""

    by_item: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    gaps: tuple[Gap, ...] = ()

    def on(self, items: tuple[Item, ...]) -> tuple[Item, ...]:
        """Return the items of a page with what is known of them."""
        return tuple(
            replace(item, contributions=self.by_item[item.item_id]) if item.item_id in self.by_item else item
            for item in items
        )


async def contributions(search: Search, ordered: Candidates, stages: Stages) -> Contributions:
    """Return why the first of the candidates have the scores that the ranker gave them.

    Nothing is asked where the ranker did not run, which is a gap of its own.
    """
    ranker, count = search.release.ranker, min(search.request.contributions, search.request.page_size)
    if ranker is None or not count or f"{_RANKED}{SCORE}" not in ordered.columns:
        return Contributions()
    allowance = allow(
        remaining_s=search.deadline.remaining_s(), budget_s=ranker.budget_ms / 1e3, wanted=count, least=count
    )
    if allowance is None:
        return Contributions(gaps=(_gap(ranker, GapReason.SKIPPED, "no time was left to ask"),))
    call = Explaining(
        model=ranker.model,
        context=search.context,
        candidates=_as_ranked(ordered),
        count=count,
        task_exponents=search.release.task_exponents,
    )
    try:
        answer = await ask_patiently(
            lambda within_s: stages.explain(call, within_s), allowance.timeout_s, search.deadline
        )
    except HeadraceError as error:
        return Contributions(gaps=(_gap(ranker, reason_of(error), str(error)),))
    return Contributions(by_item=_by_item(answer.candidates))


def _as_ranked(ordered: Candidates) -> Candidates:
    """Return the candidates with the columns that the ranker was given."""
    columns = {
        name: column
        for name, column in ordered.columns.items()
        if not name.startswith(_RANKED) and name not in (PLACE, SIMILARITY)
    }
    return Candidates(item_ids=ordered.item_ids, columns=columns)


def _by_item(answered: Candidates) -> dict[str, dict[str, float]]:
    found = {}
    for row, item_id in enumerate(answered.item_ids):
        values = {name: float(column[row]) for name, column in answered.columns.items() if name != SCORE}
        known = [(name, value) for name, value in values.items() if not isnan(value)]
        found[item_id] = dict(sorted(known, key=lambda each: -abs(each[1])))
    return found


def _gap(ranker: ReleaseScorer, reason: GapReason, detail: str) -> Gap:
    return Gap(stage=Stage.RANKING, model=ranker.model, reason=reason, detail=f"contributions: {detail}")
