"""What the cluster under test holds, what it is asked, and what each answer must be."""

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import pyarrow.parquet as pq

from deploy.release_files import write_release
from deploy.workspace import Workspace
from shards.lookup_table import TABLE_FILE
from shards.release import ModelVersion, Release, ReleaseChannel, ReleaseScorer, Stage
from tests.shards.bundles import RELEASE, build_models, lookup, manifest, write, write_items

TABLES = 6
SURFACES = ("t0", "t1", "t2")
"""Surfaces of two look-up tables each; nothing answers quicker."""

FLIPPED = SURFACES[0]
RANKED = "ranked"
CASCADE = RELEASE.surface
PAGE_SIZE = 6

_QUERIES = 20
_ITEMS = 100
"""Version 1 knows the first so many items and version 2 the others: no answer is of both by chance."""

_TOP = 3
_PATIENCE_MS = 3_000
"""A busy machine is no failure of the cluster."""

_SHARES = {"t0": 50, "t1": 15, "t2": 15, RANKED: 15, CASCADE: 5}
_CASCADE_QUERIES = ("red mug", "vintage lantern", "silver", "item-042")


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A search and, for each release that may answer it, the one right page of item ids."""

    surface: str
    query: str
    weight: float
    answers: Mapping[str, Sequence[str]]

    def verdict(self, release: str, item_ids: Sequence[str]) -> str:
        """Return what is wrong with an answer, or nothing."""
        expected = self.answers.get(release)
        if expected is None:
            return f"release {release!r} was never deployed"
        if list(item_ids) != list(expected):
            return f"{release} must answer {list(expected)}, not {list(item_ids)}"
        return ""


def make_workspace(root: Path) -> Workspace:
    """Return a workspace with two versions of every table, one bundle of every engine, and releases."""
    workspace = Workspace(root)
    workspace.models_dir.mkdir(parents=True)
    build_models(workspace.models_dir)
    for number in range(TABLES):
        for version in ("1", "2"):
            _write_table(workspace.models_dir, number, version)
    for release in releases():
        write_release(workspace, release)
    return workspace


def releases() -> list[Release]:
    """Return the releases that the cluster starts with."""
    return [*(table_release(surface, "1") for surface in SURFACES), _ranked(), _cascade()]


def table_release(surface: str, version: str) -> Release:
    """Return version "1" or "2" of a surface of two tables; the first one's items come first."""
    first, second = _tables_of(surface)
    return Release(
        surface=surface,
        version=f"r{version}",
        channels=(
            ReleaseChannel(name="first", model=ModelVersion(_table(first), version), k=_TOP),
            ReleaseChannel(name="second", model=ModelVersion(_table(second), version), k=_TOP, weight=0.5),
        ),
        retrieval_budget_ms=_PATIENCE_MS,
    )


def questions(measured: Mapping[tuple[str, str], tuple[str, Sequence[str]]]) -> list[Question]:
    """Return what is asked; `measured` holds the release and the page of each search of `to_measure`."""
    asked = [
        Question(
            surface=surface,
            query=_query(row),
            weight=_SHARES[surface] / _QUERIES,
            answers={f"r{version}": _page(surface, row, version) for version in ("1", "2")},
        )
        for surface in SURFACES
        for row in range(_QUERIES)
    ]
    for (surface, query), (release, item_ids) in measured.items():
        count = sum(other == surface for other, _ in measured)
        weight = _SHARES[surface] / count
        asked.append(Question(surface=surface, query=query, weight=weight, answers={release: list(item_ids)}))
    return asked


def to_measure() -> list[tuple[str, str]]:
    """Return the searches whose answers are those of the calm cluster, as models score them."""
    return [(RANKED, _query(row)) for row in range(4)] + [(CASCADE, query) for query in _CASCADE_QUERIES]


def write_questions(path: Path, asked: Sequence[Question]) -> None:
    """Write the questions for the load generator."""
    path.write_text(json.dumps([asdict(question) for question in asked]))


def read_questions(path: Path) -> list[Question]:
    """Read them."""
    return [Question(**question) for question in json.loads(path.read_text())]


def _ranked() -> Release:
    return replace(
        table_release("t1", "1"),
        surface=RANKED,
        ranker=ReleaseScorer(model=ModelVersion("ranker", "1"), candidates=20, budget_ms=_PATIENCE_MS),
    )


def _cascade() -> Release:
    assert RELEASE.pre_ranker
    assert RELEASE.ranker
    return replace(
        RELEASE,
        pre_ranker=replace(RELEASE.pre_ranker, budget_ms=_PATIENCE_MS),
        ranker=replace(RELEASE.ranker, budget_ms=_PATIENCE_MS),
        retrieval_budget_ms=_PATIENCE_MS,
    )


def _write_table(root: Path, number: int, version: str) -> None:
    rows = [
        (_query(row), item_id, 1.0 / (1 + rank))
        for row in range(_QUERIES)
        for rank, item_id in enumerate(_top(number, row, version))
    ]

    def fill(folder: Path) -> None:
        write_items(folder)
        pq.write_table(lookup(rows), folder / TABLE_FILE)

    described = manifest(_table(number), Stage.RETRIEVAL, "table", params={"key": "query"})
    write(root, replace(described, version=version), fill)


def _top(number: int, row: int, version: str) -> list[str]:
    """Return the items of a query: tables of odd number never have those of even number."""
    drawn = random.Random(f"{number // 2} {row}").sample(range(_ITEMS), 2 * _TOP)
    mine = drawn[:_TOP] if number % 2 == 0 else drawn[_TOP:]
    return [f"item-{item + _ITEMS * (version == '2'):03d}" for item in mine]


def _page(surface: str, row: int, version: str) -> list[str]:
    return [item_id for number in _tables_of(surface) for item_id in _top(number, row, version)]


def _tables_of(surface: str) -> tuple[int, int]:
    place = SURFACES.index(surface)
    return 2 * place, 2 * place + 1


def _table(number: int) -> str:
    return f"table-{number}"


def _query(row: int) -> str:
    return f"query {row:02d}"
