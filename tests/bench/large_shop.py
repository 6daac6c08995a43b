"""A shop of any size for benchmarks: seeded titles, prices, shoppers and searches, without a data set.

Titles are words of one of a few hundred topics, drawn by Zipf's law, and a number: texts cluster and share
n-grams as real ones do, and hardly two are equal.
The models are those of the recipe `online_retail` with random weights, exported as `headrace train` exports
them: what they answer means little, what it costs is the same.
Legend: N = items, W = words of a title.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from shards.candidates import Candidates
from shards.features import FeatureSpec
from shards.forward_index import ForwardIndex
from shards.release import ModelVersion
from shards.search_context import History, SearchContext, UserState
from shards.tokenizer import Tokenizer
from training.channels import Destination
from training.datasets.tables import TIMESTAMP
from training.features import FittingData, fit_spec, model_inputs
from training.models.multi_task_ranker import MultiTaskRanker
from training.models.task_links import probabilities
from training.models.three_tower import ThreeTower
from training.ranker_bundles import PRE_RANKER, RANKER, write_rankers
from training.rankers import Rankers
from training.recipe import Recipe
from training.recipes.online_retail import ONLINE_RETAIL
from training.snapshot import Snapshot
from training.task_serving import TaskServing

NOW_MS = 1_320_000_000_000
_DAY_MS = 86_400_000
AISLES = 200
_TOPICS, _WORDS_OF_TOPIC, _TITLE_WORDS = 400, 30, 5
_SYLLABLES = [c + v for c in "bcdfghjklmnprstvwz" for v in "aeiou"]
_CHANNELS = ("lexical", "embedding", "memory", "word_memory", "title_popular", "neighbours", "own", "popular")
_GOLDENS, _GOLDEN_CANDIDATES = 8, 50

PRE_RANKER_MODEL = ModelVersion(f"bench-{PRE_RANKER}", "1")
RANKER_MODEL = ModelVersion(f"bench-{RANKER}", "1")


@dataclass(frozen=True)
class LargeShop:
    """Equal sizes and seeds give equal shops."""

    size: int
    seed: int = 0

    @cached_property
    def item_ids(self) -> list[str]:
        """Return an id for each item [N]."""
        return [f"{row:07d}" for row in range(self.size)]

    @cached_property
    def topics(self) -> NDArray[np.object_]:
        """Return the words of each topic, the most frequent first; a word is of about two topics."""
        rng = np.random.default_rng(self.seed + 3)
        return rng.choice(_vocabulary(rng), size=(_TOPICS, _WORDS_OF_TOPIC))

    @cached_property
    def titles(self) -> list[str]:
        """Return a title for each item [N]."""
        rng = np.random.default_rng(self.seed)
        topic_N1 = rng.integers(_TOPICS, size=(self.size, 1))
        # The n-th word of a topic is met in proportion to 1 / n.
        place_NW = (
            np.exp(rng.random((self.size, _TITLE_WORDS)) * np.log(_WORDS_OF_TOPIC)).astype(np.int64) - 1
        )
        number_N = rng.integers(1000, size=self.size).tolist()
        words = self.topics[topic_N1, place_NW].tolist()
        return [f"{' '.join(some)} {number}" for some, number in zip(words, number_N, strict=True)]

    @cached_property
    def items(self) -> pa.Table:
        """Return the items with the columns that the recipe reads, and the aisle that each stands in."""
        rng = np.random.default_rng(self.seed + 1)
        columns: dict[str, NDArray[Any]] = {
            "item_id": np.array(self.item_ids, object),
            "title": np.array(self.titles, object),
            "aisle": np.array([f"aisle {row % AISLES}" for row in range(self.size)], object),
            "price_gbp": np.round(np.exp(rng.normal(1.0, 1.0, self.size)), 2),
        }
        columns |= {name: rng.integers(0, 500, self.size) for name in ("age_days", "idle_days")}
        read = FeatureSpec(features=ONLINE_RETAIL.features.ranking).item_columns
        columns |= {name: rng.pareto(1.2, self.size) for name in read if name not in columns}
        return pa.table(columns)

    def context(self, number: int, *, bought: int = 50) -> SearchContext:
        """Return a search for some words of a title by a shopper who bought so many items."""
        rng = np.random.default_rng((self.seed, number))
        words = self.titles[int(rng.integers(self.size))].split()
        item_ids = tuple(self.item_ids[row] for row in rng.integers(self.size, size=bought).tolist())
        times_ms = np.sort(NOW_MS - rng.integers(_DAY_MS, 200 * _DAY_MS, size=bought))
        history = History(item_ids, ("purchase",) * bought, tuple(times_ms.tolist()))
        user = UserState(user_id=f"u{number}", features={"country": "France"}, history=history)
        return SearchContext(query=" ".join(words[:3]), user=user, now_ms=NOW_MS)

    def candidates(self, number: int, count: int) -> Candidates:
        """Return different items as channels and their merge give them, each found by about two of them."""
        rng = np.random.default_rng((self.seed + 2, number))
        columns: dict[str, NDArray[np.float32]] = {}
        for name in _CHANNELS:
            found = rng.random(count) < 0.25
            columns[f"{name}.score"] = np.where(found, rng.random(count), np.nan).astype(np.float32)
            columns[f"{name}.rank"] = np.where(found, np.cumsum(found), np.nan).astype(np.float32)
        columns["merge.score"] = np.sort(rng.random(count)).astype(np.float32)[::-1].copy()
        rows = rng.choice(self.size, count, replace=False)
        return Candidates(item_ids=tuple(self.item_ids[row] for row in rows.tolist()), columns=columns)

    def snapshot(self) -> Snapshot:
        """Return the shop as what bundles are made from."""
        nothing = pa.table({"timestamp": pa.array([], TIMESTAMP)})
        return Snapshot(now_ms=NOW_MS, items=self.items, events=nothing, queries=nothing)

    def tokenizer(self, vocab_size: int = ONLINE_RETAIL.features.vocab_size) -> Tokenizer:
        """Return a tokeniser made from titles."""
        return Tokenizer.train(self.titles[:20_000], vocab_size=vocab_size)

    def requests(self) -> Sequence[tuple[SearchContext, Candidates]]:
        """Return what the goldens of scorers ask."""
        return [(self.context(g), self.candidates(g, _GOLDEN_CANDIDATES)) for g in range(_GOLDENS)]


def write_scorers(root: Path, shop: LargeShop, recipe: Recipe = ONLINE_RETAIL, *, version: str = "1") -> None:
    """Write the pre-ranker and the ranker of a recipe for the shop below `root`."""
    torch.manual_seed(shop.seed)
    items, tokenizer, requests = ForwardIndex(shop.items), shop.tokenizer(), shop.requests()
    data = FittingData(
        contexts=[context for context, _ in requests],
        item_columns=items.columns(items.names),
        candidates=[candidates for _, candidates in requests],
    )
    spec = fit_spec(recipe.features.ranking, data)
    inputs = model_inputs(spec, tokenizer, shop.size)
    pre_ranker, ranker = recipe.pre_ranker, recipe.ranker
    rankers = Rankers(
        pre_ranker=ThreeTower(pre_ranker.model, inputs).eval() if pre_ranker else None,
        ranker=MultiTaskRanker(ranker.model, inputs).eval() if ranker else None,
        spec=spec,
        tokenizer=tokenizer,
        tasks=("purchase", "basket"),
        links=probabilities(2),
        serving=TaskServing(exponents={"purchase": 1.0, "basket": 0.1}),
        pre_ranker_ndcg=0.0,
        ranker_ndcg=0.0,
    )
    write_rankers(rankers, shop.snapshot(), requests, Destination(root=root, prefix="bench", version=version))


def _vocabulary(rng: np.random.Generator) -> NDArray[np.object_]:
    """Return made-up words of two to four syllables."""
    words = ["".join(rng.choice(_SYLLABLES, size=int(rng.integers(2, 5)))) for _ in range(6000)]
    return np.array(sorted(set(words)), dtype=object)
