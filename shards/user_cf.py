"""Engine "user_cf": what similar users like, found from the history that the search brings (channel C3).

sim(u, v) = Σ over common items of like(u,i) · like(v,i) / log(1 + n_i), divided by √(|J_u| |J_v|): J are the
items that a user met, n_i the users who met item i, so that what everybody has says little. The score of an
item is Σ sim · like over the most similar users. A like fades with the time since the user last met the
item; where the channel is for discovery, what similar users like fades with the time since they met it first.
Source: Breese, Heckerman and Kadie, "Empirical Analysis of Predictive Algorithms for Collaborative
Filtering", UAI 1998, for neighbours and the inverse user frequency.

Nothing is precomputed for a user: who is new to the bundle is answered like anybody else, and an event
counts in the next search. Files: met.parquet with columns user_id, item_id, newest_days and first_days (since
they last and since they first met, as of the bundle), one row for each pair; items.parquet.
Legend: U = users, N = items, E = pairs.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from shards.bundle import Bundle
from shards.candidates import Candidates
from shards.catalogue import best_allowed, best_first, item_rows_of, open_items, read_params, read_rows
from shards.errors import MismatchedBundle
from shards.event_weights import EventWeights
from shards.forward_index import ForwardIndex
from shards.lookup_table import Floats, Table
from shards.search_context import Filter, SearchContext

MET_FILE = "met.parquet"


@dataclass(frozen=True, slots=True, kw_only=True)
class UserCFParams:
    """How many similar users count, and how fast likes fade: in who is similar, and in what those like."""

    neighbours: int = 100
    half_life_days: float | None = None
    fresh_half_life_days: float | None = None
    discovery: bool = False

    def __post_init__(self) -> None:
        if self.neighbours < 1:
            raise ValueError("neighbours must be at least 1")
        for days in (self.half_life_days, self.fresh_half_life_days):
            if days is not None and not days > 0:
                raise ValueError("a half life must be above 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class UserCF:
    """Answers from the users who are most like the one who asks."""

    items: ForwardIndex
    params: UserCFParams
    user_rows: dict[str, int]
    met_U: Floats
    """√|J_v| of each user."""
    users_of: Table
    """For each item, the users who met it, scored like / log(1 + n_i)."""
    items_of: Table
    """For each user, what they like now."""

    def retrieve(
        self,
        context: SearchContext,
        k: int,
        allowed: Filter,
        attributes: tuple[str, ...],
        attribute_count: int,
        /,
    ) -> Candidates:
        """Return the best `k` allowed items of similar users, ties in the order of the items."""
        rows, scores = self.items_of.sums_at(*self._similar(context), len(self.items))
        return best_allowed(self.items, rows, scores, k, allowed, attributes, attribute_count)

    def _similar(self, context: SearchContext) -> tuple[NDArray[np.int64], Floats]:
        """Return the rows of the most similar users, and how similar they are."""
        weights = EventWeights(half_life_days=self.params.half_life_days, once=True)
        likes = weights.of(context.user.history, context.now_ms)
        users, overlaps = self.users_of.sums(likes, len(self.met_U))
        known = sum(item_id in self.items.rows for item_id in likes)
        similarity = overlaps / (self.met_U[users] * max(known, 1) ** 0.5)
        similarity[users == self.user_rows.get(context.user.user_id, -1)] = 0.0
        nearest = best_first(similarity, self.params.neighbours)
        nearest = nearest[similarity[nearest] > 0]
        return users[nearest], similarity[nearest]


def open_user_cf(bundle: Bundle, _device: str) -> UserCF:
    """Open the engine; BundleError names the file at fault."""
    items = open_items(bundle)
    params = read_params(UserCFParams, bundle)
    met, item_E = _read(bundle.file(MET_FILE), items)
    users = met.column("user_id").combine_chunks().dictionary_encode()
    user_ids, user_E = users.dictionary.to_pylist(), users.indices.to_numpy().astype(np.int64)
    newest_E, first_E = (met.column(name).to_numpy() for name in ("newest_days", "first_days"))
    user_rows = {user_id: row for row, user_id in enumerate(user_ids)}
    count_N = np.bincount(item_E, minlength=len(items))
    like_E = _faded(newest_E, params.half_life_days) / np.log1p(count_N[item_E])
    return UserCF(
        items=items,
        params=params,
        user_rows=user_rows,
        met_U=np.sqrt(np.bincount(user_E, minlength=len(user_ids))),
        users_of=Table.grouped(items.rows, item_E, user_E, like_E),
        items_of=Table.grouped(
            user_rows,
            user_E,
            item_E,
            _faded(first_E if params.discovery else newest_E, params.fresh_half_life_days),
        ),
    )


def _faded(age_E: Floats, half_life_days: float | None) -> Floats:
    return np.ones_like(age_E) if half_life_days is None else np.exp2(-age_E / half_life_days)


def _read(path: Path, items: ForwardIndex) -> tuple[pa.Table, NDArray[np.int64]]:
    """Return the pairs [E] and the rows of their items."""
    schema = pa.schema(
        [
            ("user_id", pa.string()),
            ("item_id", pa.string()),
            ("newest_days", pa.float64()),
            ("first_days", pa.float64()),
        ]
    )
    table = read_rows(path, schema)
    finite = all(np.isfinite(table.column(name).to_numpy()).all() for name in ("newest_days", "first_days"))
    if table.column("user_id").null_count or not finite:
        raise MismatchedBundle(path.name, "holds a missing user or an age that is not a finite number")
    return table, item_rows_of(table, items, path)
