"""A two-tower model of gift titles, untrained but for its tokeniser, and more items than it was made with."""

import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from shards.feature_encoder import RequestEncoder
from shards.feature_kinds import HistoryAges, HistoryItems, ItemId, Tokens
from shards.features import FeatureSpec
from shards.forward_index import ForwardIndex
from shards.release import ModelVersion
from shards.search_context import History, SearchContext, UserState
from shards.tokenizer import Tokenizer
from shards.two_tower import TwoTowerParams
from training.channels import Destination
from training.datasets.tables import TIMESTAMP
from training.embedding import Embedding
from training.embedding_bundle import write_embedding
from training.features import model_inputs
from training.models.two_tower import TwoTower, TwoTowerConfig
from training.snapshot import Snapshot
from training.tensors import as_tensors

MODEL = ModelVersion("gifts-embedding", "1")
KNOWN = 500
"""Items that the model was made with."""
NOW_MS = 1_288_000_000_000
RADIUS = -1.0
"""The least cosine of an answer, which leaves nothing out."""

SPEC = FeatureSpec(
    features=(
        Tokens(name="query_tokens", source="query", max_len=8),
        HistoryItems(name="history_items", max_len=5),
        HistoryAges(name="history_ages", max_len=5, boundaries_days=(7.0,)),
        Tokens(name="title_tokens", source="item.title", max_len=12),
        ItemId(name="item_row"),
    )
)


def real_items() -> pa.Table:
    """Return the items of online_retail; skips the test where they are not there."""
    folder = os.environ.get("HEADRACE_DATA_DIR")
    if not folder:
        pytest.skip("HEADRACE_DATA_DIR is not set")
    items = pq.read_table(Path(folder) / "online_retail" / "items.parquet", columns=["item_id", "title"])
    return items.filter(pa.compute.is_valid(items.column("title")))


def context(query: str, *bought: str) -> SearchContext:
    """Return a search of a shopper who bought these items, one a day, the last one yesterday."""
    times_ms = tuple(NOW_MS - day * 86_400_000 for day in range(len(bought), 0, -1))
    history = History(bought, ("purchase",) * len(bought), times_ms)
    return SearchContext(query=query, user=UserState(user_id="u", history=history), now_ms=NOW_MS)


def write_model(models_dir: Path, items: pa.Table) -> None:
    """Write `MODEL` as made with the first of these items."""
    known, nothing = items.slice(0, KNOWN), pa.table({"timestamp": pa.array([], TIMESTAMP)})
    titles = known.column("title").to_pylist()
    tokenizer = Tokenizer.train(titles, vocab_size=500)
    index = ForwardIndex(known)
    encoder = RequestEncoder(SPEC, tokenizer, index.rows)
    torch.manual_seed(0)
    model = TwoTower(TwoTowerConfig(width=16, hidden=32), model_inputs(SPEC, tokenizer, KNOWN)).eval()
    with torch.no_grad():
        # Untrained, what is not text is noise.
        for tower in (model.query_tower, model.item_tower):
            for parameter in tower.perceptron[-1].parameters():
                parameter.mul_(0.1)
    embedding = Embedding(
        model=model,
        spec=SPEC,
        tokenizer=tokenizer,
        encoder=encoder,
        item=as_tensors(encoder.encode_items(index.columns(("item_id", "title")))),
        epochs=0,
        recall=float("nan"),
    )
    asked = [context(" ".join(title.split()[:2]), *index.item_ids[:3]) for title in titles[:4]]
    write_embedding(
        "embedding",
        embedding,
        Snapshot(now_ms=NOW_MS, items=known, events=nothing, queries=nothing),
        asked,
        Destination(root=models_dir, prefix="gifts", version=MODEL.version),
        TwoTowerParams(radius=RADIUS),
    )
