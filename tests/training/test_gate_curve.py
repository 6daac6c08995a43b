"""The curve of trigger rate against quality."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.evaluation.gate_curve import (
    NDCG,
    RECALL,
    Outcomes,
    chance_band,
    ordered,
    outcomes_of,
    point,
    random,
    single,
)

CLOSED = np.array([0, 1, 0, 5, 1, 0, 2, 1, 0, 0])
OPEN = np.array([3, 1, 1, 2, 1, 0, 2, 1, 50, 0])
"""Embedding helps the queries 0, 2, 3 and 8."""


def outcomes() -> Outcomes:
    return outcomes_of(np.stack([CLOSED, OPEN, CLOSED, OPEN], axis=1))


def test_ranks_become_recall_and_ndcg() -> None:
    made = outcomes()
    assert made.closed[RECALL].tolist() == [0, 1, 0, 1, 1, 0, 1, 1, 0, 0]
    assert made.opened[RECALL].sum() == made.closed[RECALL].sum() + 3
    assert made.opened[NDCG][2] == 1.0
    assert made.opened[NDCG][8] == 0.0, "below the first ten"


def test_whoever_opens_the_gate_where_it_helps_keeps_everything_early() -> None:
    made = outcomes()
    gain = made.opened[RECALL] - made.closed[RECALL]
    knowing = ordered("knowing", made, gain, rates=(0.0, 0.3, 1.0))
    assert [p.kept[RECALL] for p in knowing.points] == pytest.approx([0.0, 1.0, 1.0])
    perverse = ordered("perverse", made, -gain, rates=(0.5, 0.7, 1.0))
    assert [p.kept[RECALL] for p in perverse.points] == pytest.approx([0.0, 0.0, 1.0])


def test_chance_is_the_line_between_never_and_always() -> None:
    made = outcomes()
    points = random(made, rates=(0.0, 0.5, 1.0)).points
    assert [p.kept[RECALL] for p in points] == pytest.approx([0.0, 0.5, 1.0])
    assert chance_band(made, RECALL, 0.0) == chance_band(made, RECALL, 1.0) == 0.0


def test_the_band_holds_most_random_choices() -> None:
    rng = np.random.default_rng(1)
    closed, opened = rng.integers(0, 200, 1000), rng.integers(0, 150, 1000)
    made = outcomes_of(np.stack([closed, opened, closed, opened], axis=1))
    middle, band = random(made, rates=(0.3,)).points[0].figures[NDCG], chance_band(made, NDCG, 0.3)
    within = 0
    for _ in range(400):
        chosen = np.zeros(1000, np.bool_)
        chosen[rng.permutation(1000)[:300]] = True
        within += abs(point(made, chosen).figures[NDCG] - middle) <= band
    assert 0.91 < within / 400 < 0.985


@given(st.lists(st.integers(-3, 3), min_size=10, max_size=10), st.floats(0, 1))
def test_every_policy_starts_at_never_and_ends_at_always(scores: list[int], rate: float) -> None:
    made = outcomes()
    policy = ordered("any", made, np.array(scores, np.float64), rates=(0.0, rate, 1.0))
    never, always = policy.points[0], policy.points[-1]
    assert never == single("never", made, np.zeros(10, np.bool_)).points[0]
    assert always == single("always", made, np.ones(10, np.bool_)).points[0]
    assert [p.rate for p in policy.points] == sorted(p.rate for p in policy.points)
    assert policy.at(1.0) == always


def test_where_embedding_adds_nothing_nothing_can_be_kept() -> None:
    made = outcomes_of(np.stack([CLOSED] * 4, axis=1))
    assert np.isnan(random(made, rates=(0.5,)).points[0].kept[NDCG])
