import dataclasses
import io
import json

import numpy as np
from rich.console import Console

from deploy.evaluation import Tolerance, disagreements
from deploy.evaluation_table import Evaluation, as_document, render
from training.evaluation.baselines import BASELINES
from training.evaluation.report import Ranks, compare


def ranks(*hybrid: int) -> Ranks:
    """Return two rankings, of which only "hybrid" varies; the last user has no history."""
    size = len(hybrid)
    return Ranks(
        query_ids=tuple(f"q{i}" for i in range(size)),
        with_history=np.arange(size) < size - 1,
        by_ranking={"lexical": np.ones(size, np.int64), "hybrid": np.array(hybrid)},
    )


EVALUATION = Evaluation(
    dataset="online_retail",
    split="test",
    release="gifts 7",
    queries_are_proxies=True,
    offline=ranks(1, 2, 0),
    baselines=BASELINES["online_retail"],
)


def text(evaluation: Evaluation) -> str:
    """Return what a terminal of 80 columns shows."""
    console = Console(file=io.StringIO(), width=80)
    console.print(render(evaluation))
    return str(console.file.getvalue())  # type: ignore[attr-defined]


def test_the_table_has_every_group_and_says_what_the_queries_are() -> None:
    shown = text(EVALUATION)
    for expected in ("all users: 3", "users with a history: 2", "users without one: 1", "proxies", "gifts 7"):
        assert expected in shown
    assert "online\n" not in shown


def test_published_figures_stand_apart() -> None:
    shown = text(EVALUATION)
    assert "published, all test queries" in shown
    assert "0.751" in shown
    assert "published" not in text(dataclasses.replace(EVALUATION, baselines=()))


def test_agreement_is_said() -> None:
    shown = text(dataclasses.replace(EVALUATION, online=ranks(1, 2, 0)))
    assert "online" in shown
    assert "agree: in no ranking more than 0.00%" in shown


def test_disagreement_names_ranking_and_gap() -> None:
    online = ranks(1, 5, 0)
    found = disagreements(compare(EVALUATION.offline, online), Tolerance())
    assert len(found) == 2
    assert all(sentence.startswith("hybrid: ") for sentence in found)
    shown = text(dataclasses.replace(EVALUATION, online=online, disagreements=found))
    assert "DISAGREE" in shown


def test_a_tie_that_swaps_is_no_disagreement() -> None:
    # The figures stay within the tolerance because ranks 40 and 41 count the same.
    differences = compare(ranks(1, 40, 0), ranks(1, 41, 0))
    assert differences[1].moved > 0
    assert disagreements(differences, Tolerance()) == ()


def test_the_document_is_json_without_nan() -> None:
    everyone_known = dataclasses.replace(EVALUATION, offline=ranks(1), online=None)
    document = json.loads(json.dumps(as_document(everyone_known), allow_nan=False))
    assert document["agree"] is None
    assert document["online"] is None
    assert document["offline"][0]["with_history"]["ndcg_10"] is None
    agreed = as_document(dataclasses.replace(EVALUATION, online=ranks(1, 2, 0)))
    assert agreed["agree"] is True
