"""A part of `make bench-quality`: what a user's vector loses by being a day old, on amazon_beauty.

The data tells no times but an order, a day a step: a vector that was made a day ago knows all but the newest
event. PinnerFormer (arXiv 2205.04507) claims that training on all actions of the next days loses less than
training on the next action: 8.3 % against 13.9 %.
"""

from dataclasses import replace
from typing import Any

from shards.search_context import SearchContext
from tests.bench.beauty_recall import fit_of, left_out, recall_10, trained
from tests.bench.quality_run import QualityRun
from tests.bench.result import Check, at_most
from tests.bench.spread import spread_of
from training.datasets.statistics import DAY_MS
from training.recipes import RECIPES

CLAIMED_LOSS = {"sasrec": 0.139, "pinnerformer": 0.083}
"""By the recipe of the objective: next action, and dense all-action."""


def staleness(run: QualityRun) -> tuple[dict[str, Any], list[Check]]:
    """Return R@10 of both objectives with fresh vectors and with those of the day before."""
    users = left_out(run)
    fresh = users.asked.contexts
    stale = [a_day_old(context) for context in fresh]
    figures: dict[str, Any] = {"seeds": run.seeds, "users": len(fresh), "claimed_loss": CLAIMED_LOSS}
    for name in CLAIMED_LOSS:
        models = [trained(RECIPES[name], users, fit_of(run), seed) for seed in range(run.seeds)]
        realtime = [recall_10(model, users, fresh) for model in models]
        daily = [recall_10(model, users, stale) for model in models]
        lost = [1 - late / now if now else 0.0 for late, now in zip(daily, realtime, strict=True)]
        figures[name] = {"realtime": spread_of(realtime), "daily": spread_of(daily), "loss": spread_of(lost)}
    losses = {name: figures[name]["loss"]["mean"] for name in CLAIMED_LOSS}
    return figures, [
        at_most("a day old, share of R@10 lost by all-action", losses["pinnerformer"], losses["sasrec"])
    ]


def a_day_old(context: SearchContext) -> SearchContext:
    """Return the same search of a user of whom nothing of the last day is known."""
    history = context.user.history
    past = history.before(context.now_ms - DAY_MS, limit=len(history.item_ids))
    return replace(context, user=replace(context.user, history=past))
