import numpy as np
import pytest

from shards.release_quality import Measure
from training.evaluation.release_quality import Answered, compare

TOLERATED = {"ndcg_10": 0.005, "auc": 0.005, "gauc": 0.005, "ece": 0.01, "coverage": 0.1}


def answered(rank: int, *, page: int = 10, probability: float | None = None, first: int = 0) -> Answered:
    """Return a page of falling scores on which the relevant item stands at `rank`; 0 is nowhere."""
    relevant = np.arange(1, page + 1) == rank
    return Answered(
        rank=rank,
        top=tuple(f"item-{first + place}" for place in range(page)),
        relevant=relevant,
        score=np.linspace(1, 0, page),
        probability=None if probability is None else np.full(page, probability),
    )


def measured(live: list[Answered], candidate: list[Answered]) -> dict[str, Measure]:
    found = compare(live, candidate, live_version="r1", tolerated=TOLERATED)
    assert found.queries == len(live)
    return {measure.name: measure for measure in found.measures}


def test_equal_releases_are_equal() -> None:
    live = [answered(1 + q % 10, probability=0.1) for q in range(60)]
    found = measured(live, live)
    assert found.keys() == TOLERATED.keys()
    assert all((each.gain, each.error, each.worse) == (0.0, 0.0, False) for each in found.values())
    assert found["ece"].live == pytest.approx(0.0)
    assert found["gauc"].live == pytest.approx(0.5)


def test_a_release_that_finds_items_further_down_is_worse_in_what_ranks() -> None:
    rng = np.random.default_rng(0)
    ranks = rng.integers(1, 4, 100)
    found = measured([answered(int(r)) for r in ranks], [answered(int(r) + 4) for r in ranks])
    assert {name for name, each in found.items() if each.worse} == {"ndcg_10", "auc", "gauc"}
    assert "ece" not in found, "without a ranker there are no probabilities"
    back = measured([answered(int(r) + 4) for r in ranks], [answered(int(r)) for r in ranks])
    assert not any(each.worse for each in back.values())


def test_a_loss_that_chance_explains_is_none() -> None:
    live = [answered(1) for _ in range(40)]
    found = measured(live, [answered(2), *live[1:]])
    assert found["ndcg_10"].gain < -TOLERATED["ndcg_10"]
    assert not found["ndcg_10"].worse


def test_overconfidence_and_narrow_pages_are_worse() -> None:
    live = [answered(1, probability=0.1, first=q) for q in range(60)]
    found = measured(live, [answered(1, probability=0.6) for _ in range(60)])
    assert found["ece"].gain == pytest.approx(-0.5)
    assert found["ece"].worse
    assert (found["coverage"].candidate, found["coverage"].worse) == (9.0, True)
    assert -1 < found["coverage"].gain < -0.8


def test_answers_to_other_queries_are_not_compared() -> None:
    with pytest.raises(ValueError, match="same queries"):
        compare([answered(1)], [], live_version="r1", tolerated=TOLERATED)
