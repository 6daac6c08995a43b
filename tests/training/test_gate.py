"""The gate's model in training: its label, its net, and that it learns and serves what it learnt."""

from collections.abc import Mapping

import numpy as np
import pytest
import torch
from torch.nn import functional

from shards.candidates import EMPTY, Candidates
from shards.gate_knowledge import key_of
from shards.release import ModelVersion, Release, ReleaseChannel
from shards.search_context import SearchContext
from tests.shards.gates import knowledge
from tests.training.shop_dataset import shop_dataset
from training.datasets.statistics import DAY_MS
from training.gate import GateLog, GateTraining, train_gate
from training.gate_knowledge import gate_knowledge
from training.gate_labels import recall_gain
from training.models.gate_scorer import GateNet, exported
from training.snapshot import snapshot
from training.trainer import FitConfig, Seeded

RELEASE = Release(
    surface="s",
    version="1",
    channels=(
        ReleaseChannel(name="words", model=ModelVersion("words", "1")),
        ReleaseChannel(name="popular", model=ModelVersion("popular", "1")),
        ReleaseChannel(name="ann", model=ModelVersion("ann", "1"), gated=True),
    ),
)


def found(words: str, popular: str, ann: str) -> Mapping[str, Candidates]:
    lists = {"words": words, "popular": popular, "ann": ann}
    return {name: Candidates(item_ids=tuple(items)) for name, items in lists.items()}


@pytest.mark.parametrize(
    ("retrieved", "depths", "expected"),
    [
        (found("abc", "", "xyz"), (1,), 1.0),
        (found("abc", "", "axz"), (1,), 0.0),
        (found("abc", "", "axz"), (2,), 1.0),
        (found("abx", "", "x"), (1, 2, 3, 4), 0.5),
        (found("abc", "x", "x"), (3, 5), 0.0),
        (found("abc", "def", "ghi"), (10,), 0.0),
        (found("", "", "x"), (1, 100), 1.0),
    ],
)
def test_the_label_is_what_only_gated_channels_find_within_a_depth(
    retrieved: Mapping[str, Candidates], depths: tuple[int, ...], expected: float
) -> None:
    assert recall_gain(RELEASE, retrieved, "x", depths) == expected


def net(features: int = 5, hidden: int = 4) -> GateNet:
    torch.manual_seed(3)
    spread = np.random.default_rng(1).normal(2.0, 3.0, (50, features)).astype(np.float32)
    spread[:, 0] = 7.0
    return GateNet(spread, hidden)


def test_the_net_gives_a_logit_for_each_search_and_trains_all_parameters() -> None:
    model, features = net(), torch.randn(6, 5)
    logits = model(features)
    assert logits.shape == (6,)
    loss = functional.binary_cross_entropy_with_logits(logits, torch.tensor([1.0, 0, 1, 0, 1, 0]))
    loss.backward()  # type: ignore[no-untyped-call]
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_the_net_overfits_one_batch() -> None:
    model, features = net(hidden=16), torch.randn(16, 5) * 3
    labels = (torch.arange(16) % 2).float()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    for _ in range(500):
        optimizer.zero_grad()
        loss = functional.binary_cross_entropy_with_logits(model(features), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert loss.item() < 0.05


def test_numpy_computes_what_torch_does() -> None:
    model = net()
    scorer = exported(model, np.linspace(0, 1, 5, dtype=np.float32))
    features = np.random.default_rng(2).normal(0, 40, (20, 5)).astype(np.float32)
    with torch.inference_mode():
        expected = torch.sigmoid(model(torch.from_numpy(features))).numpy()
    got = [scorer.probability(row) for row in features]
    assert got == pytest.approx(expected.tolist(), rel=1e-5, abs=1e-7)


def log_of(queries: list[str]) -> GateLog:
    """Return a log in which embeddings gain where the words are in no title."""
    return GateLog(
        contexts=[SearchContext(query=query, now_ms=n) for n, query in enumerate(queries)],
        lexical=[EMPTY for _ in queries],
        gain_Q=np.array([float("mug" not in query) for query in queries]),
    )


def test_training_learns_from_the_log_what_words_do_not_find() -> None:
    queries = ["red mug", "blue mug", "mgu", "kettel", "mug", "lmap"] * 30
    config = GateTraining(fit=FitConfig(epochs=20, batch_size=32, learning_rate=0.01, patience=5))
    trained = train_gate(
        config, knowledge(), log_of(queries[:120]), log_of(queries[120:]), seeded=Seeded(seed=1)
    )
    assert trained.figures["auc_before"] == trained.figures["auc_after"] == 1.0
    assert trained.figures["gain"] == pytest.approx(0.5)
    assert trained.before.at_quantile(1.0) > 0.9 > 0.1 > trained.before.at_quantile(0.0)


def test_what_is_known_is_of_before_the_moment_and_by_decayed_takes() -> None:
    data = shop_dataset()
    early, late = (
        gate_knowledge(snapshot(data, days * DAY_MS), text=("title",), half_life_days=10.0, max_queries=100)
        for days in (5, 60)
    )
    takes, top = late.query_stats(key_of("mug"))
    assert top is not None
    assert takes[0] > early.query_stats(key_of("mug"))[0][0] > 0
    assert takes[0] < 900 / 8, "old takes count for less"
    assert 0 < takes[1] < 1 < takes[2]
    assert len(late.item_N) == len(data.items)
    assert early.query_stats(key_of("nonsense"))[1] is None


def test_only_the_queries_with_the_most_takes_are_kept() -> None:
    known = gate_knowledge(
        snapshot(shop_dataset(), 60 * DAY_MS), text=("title",), half_life_days=1000.0, max_queries=3
    )
    assert len(known.query_Q) == 3


def test_a_number_of_searches_below_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="searches must not be negative, but is -1"):
        GateTraining(searches=-1)
