"""The gate's curve, as `headrace gate report --out` left it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from deploy.console.charts import Axis, Line, chart, fitted

_TITLES = {"recall_100": "Recall@100 of the candidates", "ndcg_10": "NDCG@10 of the page"}
_KINDS = {
    "random": "other",
    "learned, before": "accent",
    "learned, after": "pre-ranking",
    "never": "dim",
    "always": "dim",
    "rules": "warn",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class GateCurve:
    """A figure over the share of searches that trigger embedding retrieval."""

    title: str
    picture: Markup
    lines: Sequence[Line]


@dataclass(frozen=True, slots=True, kw_only=True)
class GateCurves:
    """What a report found, for whom."""

    dataset: str
    release: str
    queries: int
    curves: Sequence[GateCurve]
    problems: Sequence[str]


def read_curves(path: Path | None) -> GateCurves | None:
    """Return the curves of a report; None where there is none, or what is there is none."""
    if path is None or not path.is_file():
        return None
    try:
        return _curves(json.loads(path.read_bytes()))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _curves(document: Mapping[str, Any]) -> GateCurves:
    policies = {policy["name"]: policy["points"] for policy in document["policies"]}
    return GateCurves(
        dataset=str(document["dataset"]),
        release=str(document["release"]),
        queries=int(document["queries"]),
        curves=[
            _curve(figure, title, policies, document["chance_band"].get(figure, {}))
            for figure, title in _TITLES.items()
        ],
        problems=[str(problem) for problem in document["problems"]],
    )


def _band(
    points: Sequence[tuple[float, float]], bands: Mapping[str, float]
) -> list[tuple[float, float, float]]:
    """Return what 95 % of random choices give at the rates of which the report says it, and at the ends."""
    known = {**bands, "0": 0.0, "1": 0.0}
    return [(rate, value, known[f"{rate:g}"]) for rate, value in points if f"{rate:g}" in known]


def _curve(figure: str, title: str, policies: Mapping[str, Any], bands: Mapping[str, float]) -> GateCurve:
    lines = []
    for name, points in policies.items():
        found = [(float(p["rate"]), float(p["figures"][figure])) for p in points]
        lines.append(
            Line(
                name=name,
                kind=_KINDS.get(name, "other"),
                points=found,
                band=_band(found, bands) if name == "random" else (),
                dotted=name == "random",
            )
        )
    x = Axis(
        low=0.0,
        high=1.0,
        ticks=[0.0, 0.25, 0.5, 0.75, 1.0],
        words="{:.0%}".format,
        title="searches that trigger embedding retrieval",
    )
    y = fitted([value for line in lines for _, value in line.points], least=0.01, words="{:.3f}".format)
    label = f"{title} by the share of searches that trigger embedding retrieval"
    return GateCurve(title=title, picture=chart(lines, x, y, label=label), lines=lines)
