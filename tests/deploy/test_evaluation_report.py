"""Reports of evaluations as folders, read back and compared."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from deploy.evaluation_report import comparison, read_report, write_report
from deploy.evaluation_table import Evaluation
from shards.errors import InvalidInput
from tests.deploy.running_cluster import run
from training.evaluation.report import Gain, Ranks, gain, recall_by_depth


def evaluation(*hybrid: int, release: str = "gifts 7") -> Evaluation:
    size = len(hybrid)
    return Evaluation(
        dataset="online_retail",
        split="test",
        release=release,
        queries_are_proxies=True,
        offline=Ranks(
            query_ids=tuple(f"q{i}" for i in range(size)),
            with_history=np.arange(size) < 2,
            by_ranking={"lexical": np.full(size, 3), "hybrid": np.array(hybrid)},
        ),
    )


def test_a_report_holds_the_table_the_curves_and_every_rank(tmp_path: Path) -> None:
    wrote = evaluation(1, 2, 0)
    write_report(tmp_path / "run", wrote)
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"eval.json", "eval.txt", "eval.png"}
    assert "users with a history: 2" in (tmp_path / "run" / "eval.txt").read_text()
    assert (tmp_path / "run" / "eval.png").read_bytes()[1:4] == b"PNG"
    report = read_report(tmp_path / "run")
    assert (report.name, report.release) == ("run", "gifts 7")
    assert report.ranks.query_ids == wrote.offline.query_ids
    assert report.ranks.by_ranking["hybrid"].tolist() == [1, 2, 0]
    assert report.ranks.with_history.tolist() == [True, True, False]


def test_runs_are_compared_query_by_query(tmp_path: Path) -> None:
    write_report(tmp_path / "old", evaluation(1, 2, 0, 4))
    write_report(tmp_path / "new", evaluation(1, 1, 0, 2, release="gifts 8"))
    folders = (str(tmp_path / "old"), str(tmp_path / "new"))
    done = run("compare", *folders, "--metric", "mrr_10")
    assert done.returncode == 0, done.stderr
    assert "MRR@10: 4 queries" in done.stdout
    assert "0.6250 (+0.1875" in done.stdout.replace("\n", " ")
    as_json = json.loads(run("compare", *folders, "--metric", "mrr_10", "--json").stdout)
    assert as_json["reports"] == ["old", "new"]
    old, new = as_json["rankings"]["hybrid"]
    assert (old["mean"], old["gain"], old["gain_error"]) == (0.4375, 0.0, 0.0)
    assert (new["mean"], new["gain"]) == (0.625, 0.1875)
    assert new["gain_error"] == pytest.approx(1.96 * np.std([0, 0.5, 0, 0.25]) / 2)
    assert as_json["rankings"]["lexical"][1]["gain"] == 0


def test_what_cannot_be_compared_is_said(tmp_path: Path) -> None:
    write_report(tmp_path / "three", evaluation(1, 2, 0))
    write_report(tmp_path / "four", evaluation(1, 2, 0, 4))
    reports = [read_report(tmp_path / name) for name in ("three", "four")]
    with pytest.raises(InvalidInput, match="four: is not of the same queries as three"):
        comparison(reports, "ndcg_10")
    renamed = replace(reports[0], ranks=replace(reports[0].ranks, by_ranking={"other": np.ones(3, np.int64)}))
    with pytest.raises(InvalidInput, match="reports: have no ranking in common"):
        comparison([reports[0], renamed], "ndcg_10")
    missing = run("compare", str(tmp_path / "none"))
    assert missing.returncode == 1
    assert "none/eval.json: cannot be read: No such file" in missing.stderr
    (tmp_path / "four" / "eval.json").write_text('{"query_ids": 3}')
    with pytest.raises(InvalidInput, match=r"eval\.json: is no report"):
        read_report(tmp_path / "four")


def test_curves_and_gains_by_hand() -> None:
    assert recall_by_depth(np.array([1, 3, 0, 100]))[[0, 1, 2, 99]].tolist() == [0.25, 0.25, 0.5, 0.75]
    assert gain(np.array([11, 1]), np.array([10, 2]), "recall_10") == Gain(
        mean=1.0, gain=0.5, gain_error=1.96 * 0.5 / float(np.sqrt(2))
    )
    with pytest.raises(ValueError, match="'auc_1' is no metric"):
        gain(np.array([1]), np.array([1]), "auc_1")
