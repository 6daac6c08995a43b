"""Training beside a loop written by hand, over one model and equal batches: `make bench-training`.

The two-tower model of `online_retail` is trained on the newest queries before the test by the engine
(`training.retrieval`, `training.trainer`) and by the least PyTorch that learns the same: AdamW, clipped
gradients, in-batch and drawn negatives with logQ. No evaluation, no checkpoints. They take turns of one
epoch, and the fastest of each counts, since what else the machine does only adds to it.
"""

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deploy.folders import cache_dir
from shards.column_encoder import texts
from shards.feature_encoder import RequestEncoder
from shards.forward_index import ForwardIndex
from shards.tokenizer import Tokenizer
from tests.bench.data_dir import data_dir
from tests.bench.result import at_most, publish
from training.datasets import sources
from training.datasets.splits import known_until_ms
from training.embedding import examples_of
from training.features import FittingData, fit_spec, model_inputs
from training.models.two_tower import TwoTower
from training.recipes.online_retail import ONLINE_RETAIL
from training.retrieval import RetrievalSet, train_two_tower
from training.snapshot import requests_between, snapshot
from training.tensors import Tensors, as_tensors, rows_of
from training.trainer import Seeded

RATIO_AIM = 1.3


@dataclass(frozen=True)
class Prepared:
    """Examples and items, encoded, and what makes a model for them."""

    examples: RetrievalSet
    item: Tensors
    new_model: Callable[[], TwoTower]


def prepare(folder: Path, queries: int) -> Prepared:
    """Return the newest queries of the recipe's data before the test."""
    recipe = ONLINE_RETAIL
    dataset = sources.load(recipe.dataset_name, cache_dir=cache_dir(), data_dir=folder)
    known = snapshot(dataset, known_until_ms(dataset))
    requests = requests_between(dataset, 0, known.now_ms, newest=queries, history_limit=recipe.history_limit)
    items = ForwardIndex(known.items)
    columns = items.columns(known.items.column_names)
    tokenizer = Tokenizer.train(texts(columns["title"]), vocab_size=recipe.features.vocab_size)
    data = FittingData(contexts=requests.contexts, item_columns=columns)
    spec = fit_spec(recipe.features.two_tower, data)
    encoder = RequestEncoder(spec, tokenizer, items.rows, columns)
    inputs = model_inputs(spec, tokenizer, len(items))
    return Prepared(
        examples=examples_of(encoder, items, requests),
        item=as_tensors(encoder.encode_items(columns)),
        new_model=lambda: TwoTower(recipe.two_tower.model, inputs),
    )


def by_engine(prepared: Prepared, seeded: Seeded) -> float:
    """Train for an epoch; returns its seconds."""
    training = replace(ONLINE_RETAIL.two_tower, fit=replace(ONLINE_RETAIL.two_tower.fit, epochs=1))
    generator, model = seeded.apply(), prepared.new_model()
    started = time.perf_counter()
    train_two_tower(model, training, prepared.examples, prepared.item, generator)
    return time.perf_counter() - started


def by_hand(prepared: Prepared, seeded: Seeded) -> float:
    """Train the same for an epoch by the least code; returns its seconds."""
    config, examples = ONLINE_RETAIL.two_tower, prepared.examples
    seeded.apply()
    model = prepared.new_model()
    started = time.perf_counter()
    items = len(next(iter(prepared.item.values())))
    share_N = torch.bincount(examples.row_Q, minlength=items) / len(examples)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=config.fit.learning_rate, weight_decay=config.fit.weight_decay
    )
    model.train()
    for batch_B in torch.randperm(len(examples)).split(config.fit.batch_size):  # type: ignore[no-untyped-call]
        row_M = torch.cat([examples.row_Q[batch_B], torch.randint(items, (config.negatives,))])
        log_q_M = (len(batch_B) * share_N[row_M] + config.negatives / items).log()
        optimizer.zero_grad()
        loss = _loss(model, rows_of(examples.request, batch_B), rows_of(prepared.item, row_M), log_q_M)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
    return time.perf_counter() - started


def _loss(model: TwoTower, request: Tensors, item: Tensors, log_q_M: Tensor) -> Tensor:
    logit_BM = model(request, item) - log_q_M
    return F.cross_entropy(logit_BM, torch.arange(len(logit_BM)))


def main() -> int:
    """Measure and publish; 1 where the aim is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--queries", type=int, default=40_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    prepared = prepare(data_dir(parser), options.queries)
    seeded = Seeded(seed=0, threads=options.threads)
    took_s: dict[str, list[float]] = {"engine": [], "hand": []}
    for _ in range(options.rounds):
        took_s["engine"].append(by_engine(prepared, seeded))
        took_s["hand"].append(by_hand(prepared, seeded))
    engine_s, hand_s = min(took_s["engine"]), min(took_s["hand"])
    figures: dict[str, Any] = {
        "seconds": took_s,
        "engine_examples_a_second": round(options.queries / engine_s),
        "hand_examples_a_second": round(options.queries / hand_s),
    }
    checks = [at_most("an epoch against one by hand", engine_s / hand_s, RATIO_AIM)]
    publish("training", settings=vars(options), figures=figures, checks=checks)
    return 0 if all(check.ok for check in checks) else 1


if __name__ == "__main__":
    sys.exit(main())
