"""What `make bench-cascade` makes of evaluations."""

from typing import Any

import pytest

from tests.bench.cascade import AIMS, DEMO, GROUPS, SHOP, checks_of, spread
from training.evaluation.report import HYBRID, RANKED


def evaluation(ndcg_10: float, *, agree: bool | None = None) -> dict[str, Any]:
    def row(ranking: str, lower: float) -> dict[str, Any]:
        figures = {"ndcg_10": ndcg_10 - lower, "mrr_10": ndcg_10 - 0.05, "recall_100": 0.99}
        return {"ranking": ranking, **dict.fromkeys(GROUPS, figures)}

    return {"offline": [row(HYBRID, 0.03), row(RANKED, 0.0)], "agree": agree}


def figures(*ndcg_10: float, agree: bool = True) -> dict[str, Any]:
    runs = [{"seed": s, "training_s": 9.0, "evaluation": evaluation(n)} for s, n in enumerate(ndcg_10)]
    return {"runs": runs, "online": evaluation(ndcg_10[0], agree=agree), "spread": spread(runs)}


def test_the_mean_of_seeds_is_held_to_the_aims() -> None:
    found = figures(0.77, 0.80)
    assert found["spread"]["overall"]["ndcg_10"] == {
        "mean": 0.785,
        "deviation": pytest.approx(0.0212, abs=1e-4),
        "runs": [0.77, 0.80],
    }
    checks = {check.name: check for check in checks_of(SHOP, found)}
    for users in GROUPS.values():
        assert checks[f"{SHOP}: NDCG@10 of {users}, mean of seeds"].ok
        assert not checks[f"{SHOP}: NDCG@10 of {users}, deviation"].ok
    below = {check.name: check.ok for check in checks_of(SHOP, figures(AIMS["ndcg_10"] - 0.001))}
    assert not below[f"{SHOP}: NDCG@10 of all users, mean of seeds"]
    assert not any("deviation" in name for name in below), "one seed has none"


def test_a_cluster_that_ranks_otherwise_fails() -> None:
    for recipe in (DEMO, SHOP):
        agreed, apart = (
            {check.name: check.ok for check in checks_of(recipe, figures(0.9, agree=agree))}
            for agree in (True, False)
        )
        name = f"{recipe}: rankings that agree online and offline"
        assert (agreed[name], apart[name]) == (True, False)
