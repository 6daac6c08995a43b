"""Gate models made by hand: small, deterministic, with a knowledge of a few queries and titles."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from shards.bundle import write_bundle
from shards.candidates import Candidates
from shards.gate_features import AFTER, BEFORE
from shards.gate_knowledge import GateKnowledge, keys_of
from shards.gate_model import ENGINE, GateModel, GateParams, GateScorer, save_gate
from shards.golden import GOLDEN_FILE, golden_of, write_golden
from shards.json_codec import to_json
from shards.manifest import Manifest
from shards.release import ModelVersion, Stage
from shards.search_context import History, SearchContext, UserState
from shards.words import words

TITLES = {"m1": "red mug", "m2": "blue mug", "c1": "christmas candle holder", "85123A": "white heart"}
LOG = {"red mug": ("m1", 8.0, 0.9), "mug": ("m1", 40.0, 0.3)}
"""Query to its foremost item, its takes and that item's share."""

VERSION = ModelVersion("gifts-gate", "1")


def knowledge(
    titles: Mapping[str, str] = TITLES, log: Mapping[str, tuple[str, float, float]] = LOG
) -> GateKnowledge:
    vocabulary = sorted({word for title in titles.values() for word in words(title)})
    counts = [sum(word in words(title) for title in titles.values()) for word in vocabulary]
    word_keys, item_keys, query_keys = keys_of(vocabulary), keys_of(titles), keys_of(log)
    by_word, by_item, by_query = np.argsort(word_keys), np.argsort(item_keys), np.argsort(query_keys)
    ordered = [list(titles.values())[row] for row in by_item]
    stats = np.array([(takes, share, 1.0 - share) for _, takes, share in log.values()], np.float32)
    return GateKnowledge(
        query_Q=query_keys[by_query],
        query_stats_QS=stats.reshape(-1, 3)[by_query],
        top_item_Q=keys_of(item for item, _, _ in log.values())[by_query],
        word_W=word_keys[by_word],
        word_stats_WS=np.zeros((len(vocabulary), 3), np.float32),
        idf_W=np.log1p(len(titles) / np.array(counts, np.float32))[by_word].astype(np.float32),
        item_N=item_keys[by_item],
        starts_N1=np.cumsum([0, *(len(words(title)) for title in ordered)]).astype(np.int64),
        title_words_T=keys_of(word for title in ordered for word in words(title)),
    )


def scorer(names: Sequence[str], feature: str, *, at: float = 0.0, sign: float = 1.0) -> GateScorer:
    """Return a scorer whose probability rises (falls) with one feature and is one half `at` it."""
    hidden = np.zeros((len(names), 2), np.float32)
    hidden[names.index(feature)] = (1.0, -1.0)
    return GateScorer(
        mean_F=np.full(len(names), at, np.float32) * (np.array(names) == feature),
        scale_F=np.ones(len(names), np.float32),
        hidden_FD=hidden,
        hidden_bias_D=np.zeros(2, np.float32),
        out_D=np.array([sign, -sign], np.float32),
        out_bias=np.zeros((), np.float32),
        quantiles=np.linspace(0.0, 1.0, 11, dtype=np.float32),
    )


def gate_model(version: ModelVersion = VERSION, *, sign: float = 1.0) -> GateModel:
    """Return a gate that expects more the more words a query has, and after retrieval the less was found."""
    return GateModel(
        version=version,
        params=GateParams(channel="lexical", depths=(10,)),
        knowledge=knowledge(),
        before=scorer(BEFORE, "words", at=2.0, sign=sign),
        after=scorer(AFTER, "lexical_found", at=1.0, sign=-sign),
    )


def golden_contexts() -> tuple[SearchContext, ...]:
    user = UserState(user_id="u", history=History(("m1", "c1"), ("buy", "buy"), (1, 2)))
    return (SearchContext(query="red mug", now_ms=10), SearchContext(query="candle", user=user, now_ms=10))


def write_gate(root: Path, gate: GateModel | None = None, *, stage: Stage = Stage.GATE) -> Path:
    """Write the bundle of a gate with goldens; returns its folder."""
    gate = gate or gate_model()
    found = Candidates(item_ids=("m1", "m2"), columns={"score": np.array([3.0, 1.0], np.float32)})
    contexts = golden_contexts()
    answers = [gate.score(context, found, 0, {}, (), 0) for context in contexts]

    def fill(folder: Path) -> None:
        save_gate(folder, gate)
        write_golden(folder / GOLDEN_FILE, golden_of(contexts, answers, [found] * len(contexts)))

    manifest = Manifest(
        name=gate.version.model,
        version=gate.version.version,
        stage=stage,
        engine=ENGINE,
        params=to_json(gate.params),
    )
    return write_bundle(root, manifest, fill)
