"""Small models' inputs and random batches of them, for the model tests.

Legend: B = requests, C = candidates, N = items, L = events.
"""

import torch
from torch import Tensor, nn

from training.models.fields import Field, HistoryField, ModelInputs

ITEMS = 20
GROUPS = 4
TABLES = {"tokens": 30, "items": ITEMS + 1, "genders": 3, "groups": GROUPS}
REQUEST = (
    Field(name="query_tokens", kind="bag", table="tokens"),
    Field(name="gender", kind="id", table="genders"),
    Field(name="age", kind="number"),
)
ITEM = (
    Field(name="title_tokens", kind="bag", table="tokens"),
    Field(name="item_id", kind="id", table="items"),
    Field(name="sales", kind="number"),
    Field(name="group", kind="id", table="groups"),
)
HISTORY = HistoryField(
    items="history_items",
    ages="history_ages",
    table="items",
    age_buckets=4,
    categories="history_groups",
    item_category="group",
)
CROSS = ("lexical.score", "count")


def model_inputs(*, history: bool = True) -> ModelInputs:
    return ModelInputs(
        request=REQUEST, item=ITEM, tables=TABLES, history=HISTORY if history else None, cross=CROSS
    )


def request_batch(size: int, *, seed: int = 0) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(seed)
    history = torch.randint(0, ITEMS + 1, (size, 5), generator=g)
    history[0] = 0
    return {
        "query_tokens": torch.randint(1, 30, (size, 4), generator=g),
        "gender": torch.randint(1, 3, (size,), generator=g),
        "age": torch.randn(size, generator=g),
        "history_items": history,
        "history_ages": torch.randint(1, 4, (size, 5), generator=g) * (history > 0),
        "history_groups": groups_of(history),
    }


def item_batch(*, seed: int = 1) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(seed)
    return {
        "title_tokens": torch.randint(1, 30, (ITEMS, 6), generator=g),
        "item_id": torch.arange(1, ITEMS + 1),
        "sales": torch.randn(ITEMS, generator=g),
        "group": groups_of(torch.arange(1, ITEMS + 1)),
    }


def groups_of(item: Tensor) -> Tensor:
    """Return the category of each item id; that of padding, and of some items, is unknown."""
    return item % GROUPS * (item > 0)


def candidate_batch(requests: int, candidates: int, *, seed: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    """Return rows [B, C], cross features [B, C, 2] and labels [B, C, 2] with one relevant candidate each."""
    g = torch.Generator().manual_seed(seed)
    rows = torch.stack([torch.randperm(ITEMS, generator=g)[:candidates] for _ in range(requests)])
    cross = torch.randn(requests, candidates, len(CROSS), generator=g)
    labels = torch.zeros(requests, candidates, 2)
    labels[torch.arange(requests), torch.randint(0, candidates, (requests,), generator=g)] = 1.0
    return rows, cross, labels


def assert_every_parameter_learns(model: nn.Module) -> None:
    silent = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert not silent, f"no gradient reaches {silent}"
