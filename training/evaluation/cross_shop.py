"""Sessions that cross shops: what is taken in the second shop, told from what was met in the first.

Bianchi et al. (arXiv 2007.14906): the session's part in one shop is the history, its part in the other what
is relevant, ranked among that shop's items alone; or the queries that led there, among that shop's queries.

Legend: Q = sessions, K = places of a list.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from shards.search_context import FilterClause, History, SearchContext, UserState
from shards.stages import Retriever
from training.datasets.tables import TIMESTAMP, timestamps_ms
from training.evaluation import metrics
from training.suggestions import suggestion_id

DEPTH = 10
"""Places of a list that are judged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Crossing:
    """A session: its part in one shop as a search, and what it took in the other."""

    session_id: str
    context: SearchContext
    shop: str
    relevant: frozenset[str]


def crossings(
    items: pa.Table, events: pa.Table, start_ms: int, end_ms: int, *, source: str, target: str
) -> list[Crossing]:
    """Return the sessions in [start, end) with items of both shops, in order of time.

    The history is the part in the shop `source`, an instant before the session.
    """
    shops = dict(zip(*(items.column(name).to_pylist() for name in ("item_id", "shop")), strict=True))
    found: dict[str, tuple[int, list[str]]] = {}
    between = pc.and_(
        pc.greater_equal(events.column("timestamp"), pa.scalar(start_ms, TIMESTAMP)),
        pc.less(events.column("timestamp"), pa.scalar(end_ms, TIMESTAMP)),
    )
    kept = events.filter(between)
    columns = (kept.column(name).to_pylist() for name in ("session_id", "item_id"))
    for session, item_id, time_ms in zip(*columns, timestamps_ms(kept).tolist(), strict=True):
        found.setdefault(session, (time_ms, []))[1].append(item_id)
    made = [
        _crossing(session, time_ms, _of(source, item_ids, shops), _of(target, item_ids, shops), target)
        for session, (time_ms, item_ids) in found.items()
    ]
    return [crossing for crossing in made if crossing.relevant and crossing.context.user.history.item_ids]


def _of(shop: str, item_ids: list[str], shops: dict[str, str]) -> list[str]:
    return [item_id for item_id in item_ids if shops[item_id] == shop]


def _crossing(session: str, time_ms: int, met: list[str], taken: list[str], target: str) -> Crossing:
    history = History(tuple(met), ("purchase",) * len(met), (time_ms - 1,) * len(met))
    return Crossing(
        session_id=session,
        context=SearchContext(user=UserState(history=history), now_ms=time_ms),
        shop=target,
        relevant=frozenset(taken),
    )


def asking(crossings: Sequence[Crossing], queries: pa.Table) -> list[Crossing]:
    """Return the sessions that searched for what they took; relevant are now those queries.

    A query that is never suggested counts as one that was missed.
    """
    made: dict[str, list[tuple[str, str]]] = {}
    columns = (queries.column(name).to_pylist() for name in ("session_id", "item_id", "query"))
    for session, item_id, query in zip(*columns, strict=True):
        made.setdefault(session, []).append((item_id, query))
    asked = [
        replace(
            crossing,
            relevant=frozenset(
                suggestion_id(crossing.shop, query)
                for item_id, query in made.get(crossing.session_id, ())
                if item_id in crossing.relevant
            ),
        )
        for crossing in crossings
    ]
    return [crossing for crossing in asked if crossing.relevant]


def cross_ndcg(retriever: Retriever, asked: Sequence[Crossing]) -> float:
    """Return the NDCG@10 of a channel that is asked for the other shop's items only."""
    hit_QK = np.zeros((len(asked), DEPTH), np.bool_)
    for row, crossing in enumerate(asked):
        only = (FilterClause(attribute="shop", any_of=(crossing.shop,)),)
        found = retriever.retrieve(crossing.context, DEPTH, only, (), 0).item_ids
        hit_QK[row, : len(found)] = [item_id in crossing.relevant for item_id in found]
    relevant_Q = np.array([len(crossing.relevant) for crossing in asked], np.int64)
    return float(metrics.ndcg_at(hit_QK, relevant_Q, DEPTH).mean())
