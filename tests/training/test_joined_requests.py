"""Requests joined from memory: the same as encoded one by one, in a fraction of the memory."""

from dataclasses import replace

import pytest
import torch

from shards.feature_encoder import RequestEncoder
from shards.feature_kinds import Category, HashedId, HistoryAges, HistoryItems, Number, Tokens
from shards.features import Feature
from shards.forward_index import ForwardIndex
from shards.tokenizer import Tokenizer
from tests.training.retail_slice import retail
from tests.training.shop_dataset import shop_dataset
from training.datasets.splits import known_until_ms
from training.datasets.tables import Dataset
from training.features import FittingData, fit_spec
from training.joined_requests import JoinedRequests, history_log, join_requests
from training.recipes import RECIPES
from training.snapshot import Requests, requests_between, snapshot
from training.tensors import Tensors, as_tensors

EVERY_PART = (
    Tokens(name="query_tokens", source="query", max_len=4),
    Category(name="country", source="user.country", vocabulary=()),
    HashedId(name="user", source="user_id", buckets=100),
    Number(name="hour", source="now.hour"),
    HistoryItems(name="history_items", max_len=6),
    HistoryAges(name="history_ages", max_len=6, boundaries_days=(1.0, 7.0)),
    HistoryItems(name="bought", max_len=3, actions=("purchase",)),
    HistoryItems(name="viewed", max_len=3, actions=("view",)),
)


def joined(
    dataset: Dataset, features: tuple[Feature, ...], *, newest: int, history_limit: int
) -> tuple[JoinedRequests, RequestEncoder, Requests, Tensors]:
    """Return the newest requests joined, what encodes them, and the item features."""
    now_ms = known_until_ms(dataset)
    known = snapshot(dataset, now_ms)
    requests = requests_between(dataset, 0, now_ms, newest=newest, history_limit=history_limit)
    items = ForwardIndex(known.items)
    columns = items.columns(known.items.column_names)
    spec = fit_spec(features, FittingData(contexts=requests.contexts[:500], item_columns=columns))
    tokenizer = Tokenizer.train(known.items.column("title").to_pylist(), vocab_size=500)
    encoder = RequestEncoder(spec, tokenizer, items.rows, columns)
    log = history_log(known.events, items)
    return (
        join_requests(encoder, spec, requests.contexts, log),
        encoder,
        requests,
        as_tensors(encoder.encode_items(columns)),
    )


def test_a_batch_is_what_the_encoder_gives() -> None:
    dataset = shop_dataset()
    dataset = replace(dataset, items=dataset.items.slice(3))
    request, encoder, requests, _ = joined(dataset, EVERY_PART, newest=400, history_limit=10)
    batch = torch.randperm(400, generator=torch.Generator().manual_seed(0))[:64]
    expected = encoder.encode_requests([requests.contexts[q] for q in batch.tolist()])
    rows = request.rows(batch)
    assert rows.keys() == expected.keys()
    for name, array in expected.items():
        torch.testing.assert_close(rows[name], torch.from_numpy(array), rtol=0, atol=0, msg=name)


@pytest.mark.data
def test_joined_requests_take_a_fifth_of_the_memory_at_most() -> None:
    features = RECIPES["dpsr"].features.two_tower
    request, encoder, requests, item = joined(retail(), features, newest=100_000, history_limit=50)
    line = sum(array.nbytes for array in encoder.encode_request(requests.contexts[0]).values())
    positive = sum(tensor[0].nbytes for tensor in item.values())
    duplicated_bytes = len(requests) * (line + positive)
    joined_bytes = request.size_bytes + sum(tensor.nbytes for tensor in item.values())
    assert len(requests) > 50_000
    assert joined_bytes <= duplicated_bytes / 5
