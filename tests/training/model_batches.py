"""Small models' inputs and random batches of them, for the model tests.

Legend: B = requests, C = candidates, N = items, L = events.
"""

from dataclasses import replace

import torch
from torch import Tensor, nn

from training.models.fields import Field, HistoryField, ModelInputs

ITEMS = 20
GROUPS = 4
TABLES = {"tokens": 30, "items": ITEMS + 1, "genders": 3}
GROUP = Field(name="group", kind="id", table="groups")
"""The category of an item, of which inputs with categories know."""
REQUEST = (
    Field(name="query_tokens", kind="bag", table="tokens"),
    Field(name="gender", kind="id", table="genders"),
    Field(name="age", kind="number"),
)
ITEM = (
    Field(name="title_tokens", kind="bag", table="tokens"),
    Field(name="item_id", kind="id", table="items"),
    Field(name="sales", kind="number"),
)
HISTORY = HistoryField(items="history_items", ages="history_ages", table="items", age_buckets=4)
CROSS = ("lexical.score", "count")


def model_inputs(*, history: bool = True) -> ModelInputs:
    return ModelInputs(
        request=REQUEST, item=ITEM, tables=TABLES, history=HISTORY if history else None, cross=CROSS
    )


def inputs_with_categories(*, history: bool = True) -> ModelInputs:
    """Return inputs that know the category of each item and of each event."""
    field = replace(HISTORY, categories="history_groups", item_category=GROUP.name)
    return replace(
        model_inputs(),
        item=(*ITEM, GROUP),
        tables={**TABLES, GROUP.table: GROUPS},
        history=field if history else None,
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
    }


def item_batch(*, seed: int = 1) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(seed)
    return {
        "title_tokens": torch.randint(1, 30, (ITEMS, 6), generator=g),
        "item_id": torch.arange(1, ITEMS + 1),
        "sales": torch.randn(ITEMS, generator=g),
    }


def with_categories(request: dict[str, Tensor], item: dict[str, Tensor]) -> tuple[dict[str, Tensor], ...]:
    """Return both with the categories of events and of items; those of padding and of some are unknown."""

    def groups_of(item_ids: Tensor) -> Tensor:
        return item_ids % GROUPS * (item_ids > 0)

    return (
        request | {"history_groups": groups_of(request["history_items"])},
        item | {GROUP.name: groups_of(item["item_id"])},
    )


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
