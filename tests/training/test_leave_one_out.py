"""Leave-one-out splits, and ranking among sampled items."""

import numpy as np
import pyarrow as pa
import pytest

from shards.candidates import Candidates
from shards.search_context import Filter, SearchContext
from training.datasets.contexts import search_contexts
from training.datasets.leave_one_out import LAST, leave_one_out
from training.datasets.splits import known_until_ms, rows_of
from training.datasets.tables import TIMESTAMP, Dataset, sort_tables, timestamps_ms
from training.evaluation.sampled_ranking import figures_among, sampled

DAY_MS = 86_400_000

EVENTS = (
    ("u", "a", "like", 1), ("u", "b", "watch", 2), ("u", "c", "like", 3), ("u", "d", "like", 9),
    ("v", "a", "like", 5), ("v", "b", "like", 6), ("v", "c", "watch", 7), ("v", "d", "like", 8),
    ("v", "e", "like", 9), ("v", "f", "watch", 10),
    ("w", "a", "like", 1), ("w", "b", "like", 2),
)  # fmt: skip


def films() -> Dataset:
    """Return three users; the last one likes too little to be tested on."""
    users, items, actions, days = zip(*EVENTS, strict=True)
    made = Dataset(
        name="films",
        items=pa.table({"item_id": list("abcdefgh"), "title": list("abcdefgh")}),
        users=pa.table({"user_id": list("uvw")}),
        events=pa.table(
            {
                "event_id": [f"{u}-{i}" for u, i in zip(users, items, strict=True)],
                "user_id": users,
                "item_id": items,
                "action": actions,
                "timestamp": pa.array([day * DAY_MS for day in days], TIMESTAMP),
            }
        ),
        queries=pa.table({"timestamp": pa.array([], TIMESTAMP)}),
        queries_are_proxies=True,
    )
    return leave_one_out(made, "like", name="likes")


def asked(split: str) -> list[tuple[str, tuple[str, ...], str]]:
    queries = rows_of(films().queries, split)
    contexts = search_contexts(films(), queries, history_limit=9)
    targets = queries.column("item_id").to_pylist()
    return sorted(
        (c.user.user_id, c.user.history.item_ids, item) for c, item in zip(contexts, targets, strict=True)
    )


def test_the_last_liked_item_is_test_and_the_one_before_valid() -> None:
    assert asked("test") == [("u", tuple("abc"), "d"), ("v", tuple("abcd"), "e")]
    assert asked("valid") == [("u", tuple("ab"), "c"), ("v", tuple("abc"), "d")]
    assert asked("train") == [("v", ("a",), "b")]


def test_positions_count_from_the_end_and_what_came_after_it_is_gone() -> None:
    dataset = films()
    last_ms = int(LAST.timestamp() * 1000)
    ages = ((last_ms - timestamps_ms(dataset.events)) / DAY_MS).tolist()
    assert dict(zip(dataset.events.column("event_id").to_pylist(), ages, strict=True)) == {
        "u-a": 2.0, "u-b": 1.5, "u-c": 1.0, "u-d": 0.0,
        "v-a": 3.0, "v-b": 2.0, "v-c": 1.5, "v-d": 1.0, "v-e": 0.0,
    }  # fmt: skip
    assert known_until_ms(dataset) == last_ms
    assert dataset.users.column("user_id").to_pylist() == ["u", "v"]
    assert sort_tables(dataset).events == dataset.events


class Fixed:
    """A channel that ranks items by letter, or backwards."""

    def __init__(self, letters: str) -> None:
        self.letters = letters

    def retrieve(
        self, _context: SearchContext, k: int, allowed: Filter, _names: tuple[str, ...], _count: int, /
    ) -> Candidates:
        (only,) = allowed
        return Candidates(item_ids=tuple(letter for letter in self.letters if letter in only.any_of)[:k])


def test_the_item_is_ranked_among_what_its_user_never_met() -> None:
    drawn = sampled(films(), "test", others=3)
    assert [user.item_ids[0] for user in drawn] == [user.judged.relevant for user in drawn]
    for user in drawn:
        met = set(user.judged.context.user.history.item_ids)
        assert len(set(user.item_ids)) == 4
        assert not met & set(user.item_ids)
    first, last = (figures_among(Fixed(letters), drawn) for letters in ("abcdefgh", "hgfedcba"))
    assert (first.users, first.hit_rate_10, first.ndcg_10) == (2, 1.0, 1.0)
    assert last.ndcg_10 == pytest.approx(1 / np.log2(5))
