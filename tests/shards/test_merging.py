import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shards.candidates import Candidates
from shards.merging import RRF_K, ChannelResult, fuse, merge, with_columns


def retrieved(*item_ids: str) -> Candidates:
    return Candidates(
        item_ids=item_ids, columns={"score": np.linspace(9, 1, len(item_ids), dtype=np.float32)}
    )


def channel(name: str, *item_ids: str, weight: float = 1.0, quota: int = 0) -> ChannelResult:
    return ChannelResult(name=name, weight=weight, quota=quota, candidates=retrieved(*item_ids))


def test_an_item_of_two_channels_comes_first_and_once() -> None:
    merged = merge([channel("a", "x", "y"), channel("b", "z", "y")], limit=10)
    assert merged.item_ids == ("y", "x", "z")
    np.testing.assert_array_equal(merged.columns["a.rank"], np.array([2, 1, np.nan], np.float32))
    np.testing.assert_array_equal(merged.columns["b.score"], np.array([1, np.nan, 9], np.float32))
    np.testing.assert_allclose(merged.columns["merge.score"], [2 / 62, 1 / 61, 1 / 61], rtol=1e-6)


def test_weight_decides() -> None:
    assert merge([channel("a", "x"), channel("b", "y", weight=2)], limit=1).item_ids == ("y",)


def test_quota_survives_a_strong_channel() -> None:
    strong = channel("a", *"mnopqr", weight=10)
    assert merge([strong, channel("b", "x", "y", "z", quota=2)], limit=4).item_ids == ("m", "n", "x", "y")


def test_quotas_beyond_the_limit_all_survive() -> None:
    assert merge([channel("a", "x", quota=1), channel("b", "y", quota=1)], limit=1).item_ids == ("x", "y")


def test_an_item_repeated_by_a_channel_keeps_its_best_rank() -> None:
    merged = merge([channel("a", "x", "y", "x")], limit=10)
    assert merged.columns["a.rank"].tolist() == [1, 2]
    assert merged.columns["a.score"].tolist() == [9, 5]


def test_nothing_retrieved_gives_nothing() -> None:
    assert len(merge([], limit=5)) == 0
    assert len(merge([channel("a")], limit=5)) == 0


item_lists = st.lists(st.sampled_from([f"i{n}" for n in range(12)]), unique=True, max_size=12)
channels = st.lists(
    st.tuples(item_lists, st.integers(0, 4), st.sampled_from([0.5, 1.0, 2.0])), min_size=1, max_size=4
).map(lambda drawn: [channel(f"c{n}", *ids, quota=q, weight=w) for n, (ids, q, w) in enumerate(drawn)])


@given(channels, st.integers(1, 20))
def test_merging_is_complete_sorted_and_honours_quotas(results: list[ChannelResult], limit: int) -> None:
    merged = merge(results, limit=limit)
    union = {i for r in results for i in r.candidates.item_ids}
    protected = {i for r in results for i in r.candidates.item_ids[: r.quota]}
    assert len(set(merged.item_ids)) == len(merged) == min(len(union), max(limit, len(protected)))
    assert protected <= set(merged.item_ids) <= union
    keys = (
        [(-s, i) for s, i in zip(merged.columns["merge.score"].tolist(), merged.item_ids, strict=True)]
        if len(merged)
        else []
    )
    assert keys == sorted(keys)


@given(channels)
def test_merge_score_is_weighted_reciprocal_rank_fusion(results: list[ChannelResult]) -> None:
    merged = merge(results, limit=100)
    for row, item_id in enumerate(merged.item_ids):
        expected = sum(
            r.weight / (RRF_K + 1 + r.candidates.item_ids.index(item_id))
            for r in results
            if item_id in r.candidates.item_ids
        )
        assert math.isclose(merged.columns["merge.score"][row], expected, rel_tol=1e-6)


@given(channels, st.integers(1, 20))
def test_order_of_channels_does_not_matter(results: list[ChannelResult], limit: int) -> None:
    forward, backward = merge(results, limit=limit), merge(results[::-1], limit=limit)
    np.testing.assert_allclose(
        forward.columns.get("merge.score", []), backward.columns.get("merge.score", []), rtol=1e-6
    )


def test_fuse_is_the_product_of_powers() -> None:
    tasks = {"click": np.array([0.5, 0.9], np.float32), "buy": np.array([0.1, 0.01], np.float32)}
    np.testing.assert_allclose(fuse(tasks, {"click": 1, "buy": 0.5}), [0.5 * 0.1**0.5, 0.09], rtol=1e-5)
    np.testing.assert_allclose(fuse(tasks, {"click": 2}), [0.25, 0.81], rtol=1e-5)
    np.testing.assert_allclose(fuse(tasks, {}), [1, 1])


def test_fuse_refuses_an_unknown_task() -> None:
    with pytest.raises(ValueError, match="no such task: like; there are click"):
        fuse({"click": np.ones(1, np.float32)}, {"like": 1.0})


@given(st.lists(st.floats(0, 1, width=32), min_size=1, max_size=8), st.floats(-1e3, 1e3, allow_nan=False))
def test_fuse_stays_finite(probabilities: list[float], exponent: float) -> None:
    fused = fuse({"t": np.array(probabilities, np.float32)}, {"t": exponent})
    assert np.isfinite(fused).all()
    assert (fused > 0).all()


def test_fuse_keeps_nan() -> None:
    assert np.isnan(fuse({"t": np.array([np.nan], np.float32)}, {"t": 1.0})).all()


def test_a_stage_joins_in_its_own_order() -> None:
    flowing = merge([channel("a", "x", "y", "z")], limit=3)
    scored = Candidates(
        item_ids=("z", "x"),
        columns={"score": np.array([7, 6], np.float32)},
        attributes={"title": ("Zed", "Ex")},
    )
    joined = with_columns(flowing, "pre_rank", scored)
    assert joined.item_ids == ("z", "x")
    assert joined.columns["a.rank"].tolist() == [3, 1]
    assert joined.columns["pre_rank.score"].tolist() == [7, 6]
    assert "score" not in joined.columns
    assert joined.attributes == {"title": ("Zed", "Ex")}


def test_a_stage_may_not_invent_items() -> None:
    with pytest.raises(ValueError, match="rank returned the item 'q'"):
        with_columns(retrieved("x"), "rank", retrieved("q"))
