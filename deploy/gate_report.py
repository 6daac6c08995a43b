"""The gate's report: every query answered with the gate closed and open, and what each policy makes of it."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from math import isnan

import numpy as np
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from router.gate import decide
from shards.gate_model import GateModel
from training.evaluation.gate_curve import (
    FIGURES,
    NDCG,
    RECALL,
    Outcomes,
    Policy,
    chance_band,
    gain_of,
    ordered,
    outcomes_of,
    random,
    single,
)
from training.evaluation.judgements import Judged
from training.evaluation.offline import Cascade, ranks_by_gate, retrieve

BEFORE, AFTER, RULES = "learned, before", "learned, after", "rules"
LEARNED = (BEFORE, AFTER)
TITLES = {RECALL: "Recall@100 of the candidates", NDCG: "NDCG@10 of the page"}

_SHOWN_RATES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
_HALF = 0.5
_CERTAIN, _BARRED = 2.0, -1.0
"""Scores of searches that a rule decides: before and behind all probabilities."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GateReport:
    """All that one run of `headrace gate report` found."""

    dataset: str
    split: str
    release: str
    queries_are_proxies: bool
    outcomes: Outcomes
    policies: tuple[Policy, ...]

    def policy(self, name: str) -> Policy:
        """Return a policy by its name."""
        return next(policy for policy in self.policies if policy.name == name)


@dataclass(frozen=True, slots=True)
class _Answered:
    """Ranks of one query's item, and what each policy thinks of the query."""

    ranks: tuple[int, int, int, int]
    scores: tuple[float, float]
    rules_open: bool


def measure(
    cascade: Cascade,
    gate: GateModel,
    judged: Sequence[Judged],
    *,
    on_query: Callable[[], None] = lambda: None,
) -> tuple[Outcomes, tuple[Policy, ...]]:
    """Answer every query with the gate closed and open, and follow each policy over all rates."""
    answered = []
    for query in judged:
        answered.append(_answer(cascade, gate, query))
        on_query()
    ranks = np.array([one.ranks for one in answered], np.int64).reshape(-1, 4)
    scores = np.array([one.scores for one in answered], np.float64).reshape(-1, 2)
    outcomes = outcomes_of(ranks)
    none = np.zeros(len(answered), np.bool_)
    return outcomes, (
        single("never", outcomes, none),
        single("always", outcomes, ~none),
        single(RULES, outcomes, np.array([one.rules_open for one in answered], np.bool_)),
        random(outcomes),
        ordered(BEFORE, outcomes, scores[:, 0]),
        ordered(AFTER, outcomes, scores[:, 1]),
    )


def _answer(cascade: Cascade, gate: GateModel, query: Judged) -> _Answered:
    retrieved = retrieve(cascade, query.context)
    rules = replace(cascade.release.gate, mode="rules")
    by_rules = decide(rules, query.context, model=gate)
    lexical = retrieved[gate.params.channel]
    facts = gate.facts(query.context)
    return _Answered(
        ranks=ranks_by_gate(cascade, query.context, retrieved, query.relevant),
        scores=(
            _score(by_rules.reason, by_rules.open, gate.expected_gain(facts, None)[0]),
            _score(by_rules.reason, by_rules.open, gate.expected_gain(facts, lexical)[0]),
        ),
        rules_open=by_rules.open,
    )


def _score(reason: str, opened: bool, probability: float) -> float:
    """Return where a search stands in the order in which the gate opens: rules come before the model."""
    if reason != "default_open":
        return _CERTAIN if opened else _BARRED
    return _BARRED if isnan(probability) else probability


def verdict(report: GateReport) -> tuple[str, ...]:
    """Return where a learned gate is within what chance gives, keeps too little at half, or has no say."""
    found = []
    gains = {figure: gain_of(report.outcomes, figure) for figure in FIGURES}
    for figure, (gain, error) in gains.items():
        if abs(gain) <= error:
            found.append(f"embedding adds nothing measurable to {TITLES[figure]}: {gain:+.4f} ± {error:.4f}")
    for name in LEARNED:
        policy = report.policy(name)
        for figure in (f for f, (gain, error) in gains.items() if abs(gain) > error):
            lost = [rate for rate in _SHOWN_RATES if not _is_clear(report, policy, figure, rate)]
            if lost:
                rates = ", ".join(f"{rate:.0%}" for rate in lost)
                found.append(f"{name}: {TITLES[figure]} is no better than chance gives at {rates}")
            kept = policy.at(_HALF).kept[figure]
            if not kept >= 0.9:
                found.append(f"{name}: keeps {kept:.0%} of what embedding adds to {TITLES[figure]} at 50 %")
    return tuple(found)


def _is_clear(report: GateReport, policy: Policy, figure: str, rate: float) -> bool:
    """Return whether fewer than 1 in 40 random choices of as many searches are as good."""
    by_chance = report.policy("random").at(rate).figures[figure]
    return policy.at(rate).figures[figure] > by_chance + chance_band(report.outcomes, figure, rate)


def render(report: GateReport) -> RenderableType:
    """Return one table for each figure, and the verdict."""
    title = f"{report.dataset}, {report.split}: {report.outcomes.queries:,} queries, release {report.release}"
    parts: list[RenderableType] = [Text(title, style="bold")]
    parts += [_table(report, figure) for figure in FIGURES]
    if report.queries_are_proxies:
        parts.append(Text("The queries are proxies made from what users then took, not a search log."))
    problems = verdict(report)
    parts += [Text(problem, style="bold red") for problem in problems]
    if not problems:
        parts.append(
            Text("The learned gates beat chance at every rate and keep 90 % at 50 %.", style="green")
        )
    return Group(*parts)


def _table(report: GateReport, figure: str) -> Table:
    table = Table(title=TITLES[figure], title_justify="left")
    table.add_column("triggered", justify="right")
    for name in ("random", *LEARNED):
        table.add_column(name, justify="right")
    table.add_column("kept, before", justify="right")
    table.add_column("kept, after", justify="right")
    never, always = report.policy("never").at(0.0), report.policy("always").at(1.0)
    rules = report.policy(RULES).points[0]
    table.add_row("never", f"{never.figures[figure]:.4f}")
    for rate in _SHOWN_RATES:
        points = [report.policy(name).at(rate) for name in LEARNED]
        band = chance_band(report.outcomes, figure, rate)
        table.add_row(
            f"{rate:.0%}",
            f"{report.policy('random').at(rate).figures[figure]:.4f} ± {band:.4f}",
            *(f"{point.figures[figure]:.4f}" for point in points),
            *(_share(point.kept[figure]) for point in points),
        )
    table.add_row("always", f"{always.figures[figure]:.4f}")
    table.add_section()
    kept = rules.kept[figure]
    table.add_row(f"rules: {rules.rate:.0%}", f"{rules.figures[figure]:.4f}", "", "", _share(kept))
    return table


def as_document(report: GateReport) -> dict[str, object]:
    """Return everything as plain values for JSON; NaN, which JSON lacks, becomes null."""
    return {
        "dataset": report.dataset,
        "split": report.split,
        "release": report.release,
        "queries": report.outcomes.queries,
        "queries_are_proxies": report.queries_are_proxies,
        "policies": [_plain(asdict(policy)) for policy in report.policies],
        "chance_band": {
            figure: {f"{rate:g}": chance_band(report.outcomes, figure, rate) for rate in _SHOWN_RATES}
            for figure in FIGURES
        },
        "problems": list(verdict(report)),
    }


def _plain(value: object) -> object:
    if isinstance(value, dict):
        return {key: _plain(held) for key, held in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(held) for held in value]
    return None if isinstance(value, float) and isnan(value) else value


def _share(kept: float) -> str:
    """Return a share as a reader sees it; a dash where embedding adds nothing that could be kept."""
    return "-" if isnan(kept) else f"{kept:.0%}"
