"""The gate's report as table, JSON and picture, and what it finds wanting."""

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from deploy.gate_picture import draw
from deploy.gate_report import AFTER, BEFORE, RULES, GateReport, as_document, render, verdict
from deploy.views.releases import gates_table, releases_table
from protos.headrace.v1 import cluster_service_pb2 as pb
from training.evaluation.gate_curve import ordered, outcomes_of, random, single

QUERIES = 2000
RNG = np.random.default_rng(5)
NEEDED = RNG.random(QUERIES) < 0.1
"""The queries that only embedding answers."""


def report(knows: float) -> GateReport:
    """Return the report of a gate that knows (1), guesses (0) or mistakes (-1) who needs embedding."""
    closed, opened = np.where(NEEDED, 0, 3), np.full(QUERIES, 2)
    outcomes = outcomes_of(np.stack([closed, opened, closed, opened], axis=1))
    score = knows * NEEDED + 0.1 * RNG.random(QUERIES)
    none = np.zeros(QUERIES, np.bool_)
    return GateReport(
        dataset="shop",
        split="test",
        release="shop 1",
        queries_are_proxies=True,
        outcomes=outcomes,
        policies=(
            single("never", outcomes, none),
            single("always", outcomes, ~none),
            single(RULES, outcomes, RNG.random(QUERIES) < 0.9),
            random(outcomes),
            ordered(BEFORE, outcomes, score),
            ordered(AFTER, outcomes, score),
        ),
    )


def rendered(*parts: object) -> str:
    console = Console(file=io.StringIO(), width=140)
    for part in parts:
        console.print(part)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_gate_that_knows_passes_and_one_that_guesses_is_told_what_it_lacks() -> None:
    knowing = [problem for problem in verdict(report(1.0)) if "Recall" in problem]
    assert knowing == []
    guessing = verdict(report(0.0))
    assert any("no better than chance" in problem for problem in guessing)
    assert any("at 50 %" in problem for problem in guessing)


def test_what_embedding_does_not_add_no_gate_can_keep() -> None:
    same = np.full(QUERIES, 2)
    nothing = replace(report(1.0), outcomes=outcomes_of(np.stack([same] * 4, axis=1)))
    assert [problem.partition(" to ")[0] for problem in verdict(nothing)] == [
        "embedding adds nothing measurable"
    ] * 2


@pytest.mark.parametrize("knows", [1.0, -1.0])
def test_the_table_names_rates_policies_and_what_is_wrong(knows: float) -> None:
    text = rendered(render(report(knows)))
    for shown in ("Recall@100 of the candidates", "NDCG@10 of the page", BEFORE, AFTER, "never", "always"):
        assert shown in text
    assert "proxies" in text
    assert ("no better than chance" in text) == (knows < 0)


def test_the_document_is_json_with_every_point() -> None:
    document = json.loads(json.dumps(as_document(report(1.0)), allow_nan=False))
    names = [policy["name"] for policy in document["policies"]]
    assert names == ["never", "always", RULES, "random", BEFORE, AFTER]
    assert len(document["policies"][-1]["points"]) == 21
    assert document["queries"] == QUERIES


def test_the_picture_is_a_png(tmp_path: Path) -> None:
    draw(report(1.0), tmp_path / "gate.png")
    assert (tmp_path / "gate.png").read_bytes().startswith(b"\x89PNG")


def test_what_gates_save_and_what_they_are_is_shown() -> None:
    gate = pb.GateRules(mode="after", target_rate=0.6)
    gate.model.model, gate.model.version = "shop-gate", "1"
    surface = pb.SurfaceReleases(
        surface="shop",
        live=pb.Release(surface="shop", version="r1", gate=gate),
        gate_report=pb.GateReport(
            surface="shop",
            release_version="r1",
            searches=200,
            other_items_sum=5.0,
            changed_pages=30,
            saved_seconds_sum=0.8,
        ),
    )
    text = rendered(gates_table([surface]), releases_table([surface]))
    for shown in ("200", "2.5 %", "15.0 %", "+4.0 ms", "shop-gate@1 (after lexical, 60% triggered)"):
        assert shown in text
