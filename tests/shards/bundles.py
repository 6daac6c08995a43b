"""Small real bundles of every engine, made in about a second, for tests of whatever serves them.

Their models have random weights but are no nonsense: texts are means of n-gram vectors that both sides
share, so "red mug" retrieves red mugs. Items are "item-000" to "item-199"; see `ITEMS` for attributes.
Legend: N = items, D = width of a vector.
"""

import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from torch import Tensor

from shards.bundle import open_bundle, write_bundle
from shards.candidates import Candidates
from shards.cross_kinds import ChannelColumn, HistoryCount, NgramOverlap, ReciprocalRank
from shards.feature_kinds import HistoryItems, Ngrams, Number
from shards.features import FEATURES_FILE, Feature, FeatureSpec
from shards.forward_index import ITEMS_FILE
from shards.golden import GOLDEN_FILE, golden_of, write_golden
from shards.lookup_table import TABLE_FILE
from shards.manifest import Manifest
from shards.release import ModelVersion, Release, ReleaseChannel, ReleaseScorer, Stage
from shards.search_context import History, SearchContext, UserState
from shards.servable import open_servable
from shards.stages import Retriever
from shards.words import encode_ngrams
from tests.shards.programs import (
    BUCKETS,
    WIDTH,
    Interaction,
    QueryTower,
    Scorer,
    UserTower,
    Words,
    export,
    spec,
)

SURFACE = "shop"
VERSION = "1"
TASKS = ("click", "purchase")
NOW_MS = 1_288_000_000_000
DAY_MS = 86_400_000

_COLOURS = ("red", "blue", "green", "ivory", "pink", "black", "silver", "yellow", "white", "purple")
_THINGS = (
    "mug",
    "lantern",
    "cushion",
    "candle",
    "doormat",
    "teapot",
    "garland",
    "lunch bag",
    "clock",
    "frame",
)
_STYLES = ("", "vintage")

ITEMS = pa.table(
    {
        "item_id": [f"item-{row:03d}" for row in range(200)],
        "title": [
            f"{style} {colour} {thing}".strip().upper()
            for style in _STYLES
            for colour in _COLOURS
            for thing in _THINGS
        ],
        "colour": [colour for _ in _STYLES for colour in _COLOURS for _ in _THINGS],
        "price_gbp": [round(0.5 + row * 0.05, 2) for row in range(200)],
        "popularity": [(row * 37 % 200) / 200 for row in range(200)],
    }
)
"""Two styles, ten colours and ten things: every combination once."""

QUERIES = ("red mug", "vintage lantern", "lunchbag", "item-042", "silver", "teapto")


def context(query: str = "red mug", *bought: str, now_ms: int = NOW_MS) -> SearchContext:
    """Return a search of a user who bought these items, one a day, the last one yesterday."""
    days = range(len(bought), 0, -1)
    history = History(bought, ("purchase",) * len(bought), tuple(now_ms - day * DAY_MS for day in days))
    return SearchContext(query=query, user=UserState(user_id="u1", history=history), now_ms=now_ms)


def contexts() -> list[SearchContext]:
    """Return searches of every sort: with and without history, with and without a query."""
    own = ("item-003", "item-117", "item-042", "item-003")
    return [context(query) for query in QUERIES] + [context("red", *own), context("", *own)]


def all_items(**columns: Sequence[float]) -> Candidates:
    """Return every item as a candidate, with these columns."""
    item_ids = tuple(ITEMS.column("item_id").to_pylist())
    return Candidates(
        item_ids=item_ids,
        columns={name: np.asarray(values, np.float32) for name, values in columns.items()},
    )


def build_models(root: Path, seed: int = 0) -> Release:
    """Write a bundle of every engine below `root` and return the release that pins them all.

    Equal seeds give equal scores; the version is always "1".
    """
    words = seeded_words(seed)
    write_lexical(root)
    write_table(root, "memory", {"key": "query"}, query_table())
    write_table(root, "neighbours", {"key": "history", "half_life_days": 30.0}, neighbour_table())
    write_table(root, "again", {"key": "user_items", "half_life_days": 30.0})
    write_two_tower(root, words)
    write_three_tower(root, words)
    write_multi_task(root, words)
    return RELEASE


RELEASE = Release(
    surface=SURFACE,
    version="r1",
    channels=(
        ReleaseChannel(name="lexical", model=ModelVersion("lexical", VERSION), k=100, quota=10),
        ReleaseChannel(name="memory", model=ModelVersion("memory", VERSION), k=50),
        ReleaseChannel(name="neighbours", model=ModelVersion("neighbours", VERSION), k=50),
        ReleaseChannel(name="again", model=ModelVersion("again", VERSION), k=50),
        ReleaseChannel(name="two_tower", model=ModelVersion("two_tower", VERSION), k=100, gated=True),
    ),
    pre_ranker=ReleaseScorer(model=ModelVersion("pre_ranker", VERSION), candidates=150),
    ranker=ReleaseScorer(model=ModelVersion("ranker", VERSION), candidates=60),
    merged=150,
    attributes=("title", "colour"),
    as_of_ms=NOW_MS,
)


def manifest(name: str, stage: Stage, engine: str, **fields: object) -> Manifest:
    """Return the manifest of a bundle before it is written."""
    return Manifest(name=name, version=VERSION, stage=stage, engine=engine, **fields)  # type: ignore[arg-type]


def write(root: Path, described: Manifest, fill: Callable[[Path], None]) -> Path:
    """Write a bundle whose goldens are what its own engine answers."""
    asked = None if described.stage is Stage.RETRIEVAL else [all_items().first(40)] * len(contexts())
    with tempfile.TemporaryDirectory() as scratch:
        draft = write_bundle(Path(scratch), described, fill)
        servable = open_servable(open_bundle(draft), "cpu")
        answers = [
            servable.retrieve(asking, 10, (), (), 0)
            if isinstance(servable, Retriever)
            else servable.score(asking, all_items().first(40), 0, {}, (), 0)
            for asking in contexts()
        ]

        def complete(folder: Path) -> None:
            shutil.copytree(draft, folder, dirs_exist_ok=True)
            write_golden(folder / GOLDEN_FILE, golden_of(contexts(), answers, asked))

        return write_bundle(root, described, complete)


def seeded_words(seed: int = 0) -> Words:
    """Return the text encoder that all models of a release share, and seed what they add to it."""
    torch.manual_seed(seed)
    return Words()


def write_items(folder: Path) -> None:
    """Write the forward index."""
    pq.write_table(ITEMS, folder / ITEMS_FILE)


def write_lexical(root: Path, **params: object) -> Path:
    """Write the bundle "lexical"."""
    described = manifest("lexical", Stage.RETRIEVAL, "lexical", params={"prior": "popularity", **params})
    return write(root, described, write_items)


def write_table(root: Path, name: str, params: dict[str, object], table: pa.Table | None = None) -> Path:
    """Write a bundle of the engine "table"; without `table` it has no index."""

    def fill(folder: Path) -> None:
        write_items(folder)
        if table is not None:
            pq.write_table(table, folder / TABLE_FILE)

    return write(root, manifest(name, Stage.RETRIEVAL, "table", params=params), fill)


def query_table() -> pa.Table:
    """Return what was bought after two queries."""
    rows = [("red mug", "item-000", 0.6), ("red mug", "item-100", 0.3), ("silver", "item-068", 0.5)]
    return lookup(rows)


def neighbour_table() -> pa.Table:
    """Return for every item the next two, the nearer one first."""
    ids = ITEMS.column("item_id").to_pylist()
    return lookup([(ids[row], ids[(row + step) % 200], 1.0 / step) for row in range(200) for step in (1, 2)])


def lookup(rows: Sequence[tuple[str, str, float]]) -> pa.Table:
    """Return the table of (key, item id, score) rows."""
    keys, item_ids, scores = zip(*rows, strict=True)
    return pa.table({"key": keys, "item_id": item_ids, "score": pa.array(scores, pa.float64())})


QUERY_NGRAMS = Ngrams(name="query_ngrams", source="query", buckets=BUCKETS, max_len=24)
TITLE_NGRAMS = Ngrams(name="title_ngrams", source="item.title", buckets=BUCKETS, max_len=48)
HISTORY = HistoryItems(name="history_items", max_len=8)
PRICE = Number(name="price", source="item.price_gbp", log1p=True)
CROSS = (
    ReciprocalRank(name="lexical_rank", column="lexical.rank"),
    ChannelColumn(name="two_tower_score", column="two_tower.score"),
    HistoryCount(name="bought_before"),
    NgramOverlap(name="title_overlap", source="item.title"),
)


def write_spec(folder: Path, *features: Feature) -> None:
    """Write the forward index and the features."""
    write_items(folder)
    (folder / FEATURES_FILE).write_bytes(FeatureSpec(features=features).to_bytes())


def write_two_tower(root: Path, words: Words, *, index: str = "Flat", name: str = "two_tower") -> Path:
    """Write a two-tower bundle with an index of this FAISS factory string."""
    tower = QueryTower(words, len(ITEMS))
    example = {"query_ngrams": ids(2, QUERY_NGRAMS.max_len), "history_items": ids(2, HISTORY.max_len)}
    file = "query_tower.pt2"
    programs = {"query_tower": spec(file, example, output="vector", varying=tuple(example))}

    def fill(folder: Path) -> None:
        write_spec(folder, QUERY_NGRAMS, HISTORY, TITLE_NGRAMS)
        export(tower, example, folder / file, varying=tuple(example))
        item_index = faiss.index_factory(WIDTH, index, faiss.METRIC_INNER_PRODUCT)
        item_index.train(item_vectors(words))
        item_index.add(item_vectors(words))
        faiss.write_index(item_index, str(folder / "index.faiss"))

    return write(root, manifest(name, Stage.RETRIEVAL, "two_tower", programs=programs), fill)


def write_three_tower(root: Path, words: Words, *, name: str = "pre_ranker") -> Path:
    """Write a pre-ranker."""
    user = {"query_ngrams": ids(1, QUERY_NGRAMS.max_len)}
    pair = {
        "user": torch.zeros(1, WIDTH),
        "item": torch.zeros(3, WIDTH),
        "cross": torch.zeros(3, len(CROSS)),
    }
    programs = {
        "user_tower": spec("user_tower.pt2", user, output="user"),
        "interaction": spec("interaction.pt2", pair, output="score", varying=("item", "cross")),
    }
    head = Interaction(len(CROSS))

    def fill(folder: Path) -> None:
        write_spec(folder, QUERY_NGRAMS, TITLE_NGRAMS, *CROSS)
        export(UserTower(words), user, folder / "user_tower.pt2")
        export(head, pair, folder / "interaction.pt2", varying=("item", "cross"))
        np.save(folder / "item_vectors.npy", item_vectors(words))

    return write(root, manifest(name, Stage.PRE_RANKING, "three_tower", programs=programs), fill)


def write_multi_task(root: Path, words: Words, *, name: str = "ranker") -> Path:
    """Write a ranker for `TASKS`, whose second task counts half."""
    example = {
        "query_ngrams": ids(1, QUERY_NGRAMS.max_len),
        "title_ngrams": ids(3, TITLE_NGRAMS.max_len),
        "price": torch.zeros(3),
        "cross": torch.zeros(3, len(CROSS)),
    }
    varying = ("title_ngrams", "price", "cross")
    scorer = Scorer(words, len(CROSS))

    def fill(folder: Path) -> None:
        write_spec(folder, QUERY_NGRAMS, TITLE_NGRAMS, PRICE, *CROSS)
        export(scorer, example, folder / "scorer.pt2", varying=varying)

    described = manifest(
        name,
        Stage.RANKING,
        "multi_task",
        programs={"scorer": spec("scorer.pt2", example, output="probabilities", varying=varying)},
        tasks=TASKS,
        params={"task_exponents": {"click": 1.0, "purchase": 0.5}},
    )
    return write(root, described, fill)


def ids(*shape: int) -> Tensor:
    """Return example ids, all padding."""
    return torch.zeros(*shape, dtype=torch.int64)


def item_vectors(words: Words) -> NDArray[np.float32]:
    """Return the vector of every title [N, D]."""
    title_NL = encode_ngrams(
        ITEMS.column("title").to_pylist(),
        n=TITLE_NGRAMS.n,
        buckets=TITLE_NGRAMS.buckets,
        max_len=TITLE_NGRAMS.max_len,
    )
    with torch.no_grad():
        return words(torch.from_numpy(title_NL)).numpy()  # type: ignore[no-any-return]
