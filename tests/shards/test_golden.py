from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from shards.candidates import Candidates
from shards.errors import CorruptBundle, MismatchedBundle
from shards.golden import Golden, golden_of, read_golden, replay, write_golden
from shards.search_context import Filter, History, SearchContext, UserState


@dataclass(frozen=True)
class FixedRetriever:
    """Answers each query from a table, as an engine that knows few queries would."""

    answers: Mapping[str, Candidates]

    def retrieve(
        self,
        context: SearchContext,
        k: int,
        allowed: Filter,  # noqa: ARG002
        attributes: tuple[str, ...],  # noqa: ARG002
        attribute_count: int,  # noqa: ARG002
    ) -> Candidates:
        answer = self.answers[context.query]
        return answer.take(np.arange(min(k, len(answer))))


@dataclass(frozen=True)
class PriceScorer:
    """Scores candidates by a column they carry."""

    factor: float = 1.0

    def score(
        self,
        context: SearchContext,  # noqa: ARG002
        candidates: Candidates,
        keep: int,
        task_exponents: Mapping[str, float],  # noqa: ARG002
        attributes: tuple[str, ...],  # noqa: ARG002
        attribute_count: int,  # noqa: ARG002
    ) -> Candidates:
        assert keep == 0
        score = np.nan_to_num(candidates.columns["lexical.score"]) * np.float32(self.factor)
        scored = Candidates(item_ids=candidates.item_ids, columns={"score": score, "click": score})
        return scored.take(np.argsort(-score, kind="stable"))


NPY = b"\x93NUMPY\x01\x00v\x00{'descr': '<f4', 'fortran_order': False, 'shape': (0,), }" + b" " * 60 + b"\n"


def answer(**scores: float) -> Candidates:
    return Candidates(item_ids=tuple(scores), columns={"score": np.array(list(scores.values()), np.float32)})


MUG = SearchContext(
    query="mug",
    user=UserState(
        user_id="u",
        features={"age": 3.5, "likes": ("a", "b"), "country": "GB"},
        history=History(("x",), ("v",), (5,)),
    ),
    features={"device": "phone"},
    now_ms=9,
)
BAG = SearchContext(query="bag", now_ms=10)
RETRIEVED = golden_of([MUG, BAG], [answer(a=3, b=2, c=2), answer()])
ASKED = Candidates(item_ids=("a", "b", "c"), columns={"lexical.score": np.array([1, np.nan, 3], np.float32)})
SCORED = golden_of([MUG], [PriceScorer().score(MUG, ASKED, 0, {}, (), 0)], [ASKED])


def check_retrieval(given: Candidates, *, atol: float = 1e-3) -> None:
    replay(FixedRetriever({"mug": given, "bag": answer()}), RETRIEVED, 0.0, atol)


@pytest.mark.parametrize("golden", [RETRIEVED, SCORED, golden_of([], [])])
def test_survives_the_disk(tmp_path: Path, golden: Golden) -> None:
    write_golden(tmp_path / "golden.npz", golden)
    again = read_golden(tmp_path / "golden.npz")
    assert (again.contexts, again.item_ids) == (golden.contexts, golden.item_ids)
    for old, new in zip(golden.scores, again.scores, strict=True):
        np.testing.assert_equal(dict(new), dict(old))
    assert (again.candidates is None) == (golden.candidates is None)
    for asked, read in zip(golden.candidates or (), again.candidates or (), strict=True):
        assert read.item_ids == asked.item_ids
        np.testing.assert_equal(dict(read.columns), dict(asked.columns))


def test_same_golden_same_bytes(tmp_path: Path) -> None:
    for name in ("one.npz", "two.npz"):
        write_golden(tmp_path / name, SCORED)
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()


def test_equal_answers_pass() -> None:
    check_retrieval(answer(a=3, b=2, c=2))
    replay(PriceScorer(), SCORED, 0.0, 0.0)


def test_ties_may_change_places_even_at_the_end() -> None:
    check_retrieval(answer(a=3, c=2, b=2))
    check_retrieval(answer(a=3, b=2, d=2))


def test_within_tolerance_passes() -> None:
    check_retrieval(answer(a=3.0005, b=2, c=2))
    replay(PriceScorer(factor=1.01), SCORED, rtol=0.02, atol=0.0)


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        (answer(a=3, b=2), r"request 0 of 2 \('mug'\): the replica gave 2 items, not 3"),
        (answer(a=3.5, b=2, c=2), "'score' of item 'a' is 3.5, not 3: off by 0.5"),
        (answer(b=3, a=2, c=2), "'score' of item 'a' is 2, not 3: off by 1"),
        (answer(z=3, b=2, c=2), "did not give item 'a', expected at place 1"),
        (answer(a=3, z=2.5, b=2), "score at place 2 is 2.5, not 2: off by 0.5"),
        (answer(a=3, b=2, c=float("nan")), "'score' of item 'c' is nan, not 2"),
        (Candidates(item_ids=("a", "b", "c")), "gave no column 'score'"),
    ],
)
def test_other_answers_are_refused(given: Candidates, problem: str) -> None:
    with pytest.raises(MismatchedBundle, match=problem) as caught:
        check_retrieval(given)
    assert caught.value.file == "golden.npz"


def test_scorers_may_drop_nothing_and_change_nothing() -> None:
    with pytest.raises(MismatchedBundle, match=r"off by 0\.06"):
        replay(PriceScorer(factor=1.02), SCORED, rtol=0.01, atol=0.0)
    ones = Candidates(item_ids=("a", "z"), columns={"lexical.score": np.ones(2, np.float32)})
    expected = PriceScorer().score(MUG, replace(ones, item_ids=("a", "b")), 0, {}, (), 0)
    with pytest.raises(MismatchedBundle, match="did not give item 'b'"):
        replay(PriceScorer(), golden_of([MUG], [expected], [ones]), rtol=0.0, atol=0.0)


def test_the_wrong_kind_of_engine_is_refused() -> None:
    with pytest.raises(MismatchedBundle, match="for a retriever"):
        replay(PriceScorer(), RETRIEVED, 0.0, 0.0)
    with pytest.raises(MismatchedBundle, match="for a scorer"):
        replay(FixedRetriever({}), SCORED, 0.0, 0.0)


@pytest.mark.parametrize("content", [b"", b"PK", b"PK\x03\x04 truncated", b"\x80\x04N.", NPY])
def test_unreadable_files_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "golden.npz").write_bytes(content)
    with pytest.raises(CorruptBundle, match=r"golden\.npz: cannot be read"):
        read_golden(tmp_path / "golden.npz")


def test_a_golden_with_a_part_missing_is_refused(tmp_path: Path) -> None:
    write_golden(tmp_path / "golden.npz", SCORED)
    with np.load(tmp_path / "golden.npz") as arrays:
        parts = {name: arrays[name] for name in arrays.files}
    for broken in (
        {name: array for name, array in parts.items() if name != "score/click"},
        {name: array for name, array in parts.items() if name != "document"},
        parts | {"score/click": parts["score/click"][1:]},
        parts | {"document": np.frombuffer(b"{}", np.uint8)},
    ):
        np.savez(tmp_path / "golden.npz", **broken)
        with pytest.raises(CorruptBundle, match=r"golden\.npz"):
            read_golden(tmp_path / "golden.npz")


def test_what_does_not_fit_together_is_no_golden(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="one length"):
        golden_of([MUG], [])
    with pytest.raises(ValueError, match="as many as contexts"):
        golden_of([MUG], [answer(a=1)], [])
    with pytest.raises(ValueError, match="no column 'score'"):
        golden_of([MUG], [Candidates(item_ids=("a",))])
    with pytest.raises(ValueError, match="do not fit its 2 items"):
        replace(golden_of([MUG], [answer(a=1)]), item_ids=(("a", "b"),))
    uneven = golden_of([MUG, BAG], [answer(a=1), PriceScorer().score(BAG, ASKED, 0, {}, (), 0)])
    with pytest.raises(ValueError, match="the same columns"):
        write_golden(tmp_path / "golden.npz", uneven)
