"""Turns encoded features into vectors, with embedding tables that several fields share.

Legend: … = any leading dimensions, L = ids in a bag, D = embedding width, W = width of all fields together.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Kind = Literal["bag", "id", "number"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One input of a model: a bag of ids […, L], an id […] or a number […]; 0 pads or means unknown."""

    name: str
    kind: Kind
    table: str = ""
    """Name of the embedding table; fields of one table share their vectors."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryField:
    """The aligned inputs that hold a user's newest events: item rows [B, L] and age buckets [B, L]."""

    items: str
    ages: str
    table: str
    age_buckets: int
    categories: str = ""
    """The ids [B, L] of the events' categories, where there are any."""
    item_category: str = ""
    """The field of items that holds ids of the same vocabulary."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInputs:
    """All that a model has to know about a FeatureSpec."""

    request: tuple[Field, ...]
    item: tuple[Field, ...]
    tables: Mapping[str, int]
    """Rows of each embedding table, padding included."""
    history: HistoryField | None = None
    cross: tuple[str, ...] = ()
    """Names of the cross features, in the order of their columns."""

    def __post_init__(self) -> None:
        needed = {f.table for f in (*self.request, *self.item) if f.kind != "number"}
        needed |= {self.history.table} if self.history else set()
        if missing := needed - self.tables.keys():
            raise ValueError(f"fields use tables that have no size: {sorted(missing)}")

    def item_fields(self, names: Sequence[str]) -> tuple[Field, ...]:
        """Return the item's bags of these names; ValueError for one that is none."""
        bags = {field.name: field for field in self.item if field.kind == "bag"}
        if unknown := [name for name in names if name not in bags]:
            raise ValueError(f"{unknown[0]!r} is no feature of the item that holds ids")
        return tuple(bags[name] for name in names)

    def item_but(self, names: Sequence[str]) -> tuple[Field, ...]:
        """Return the item's other fields."""
        return tuple(field for field in self.item if field.name not in names)


def embedding_tables(tables: Mapping[str, int], width: int) -> nn.ModuleDict:
    """Return one table per name with vectors of about unit length; row 0 pads and stays zero."""
    modules = nn.ModuleDict()
    for name, rows in tables.items():
        table = nn.Embedding(rows, width, padding_idx=0)
        with torch.no_grad():
            table.weight.mul_(width**-0.5)
        modules[_key(name)] = table
    return modules


def _key(name: str) -> str:
    # A module dictionary refuses names of its own methods, such as "items".
    return f"{name}_table"


def table_weight(tables: nn.ModuleDict, name: str) -> Tensor:
    """Return the vectors [rows, D] of a table."""
    table = tables[_key(name)]
    assert isinstance(table, nn.Embedding)
    return table.weight


class FieldEncoder(nn.Module):
    """Concatenates the fields: the mean vector of a bag, the vector of an id, the number itself."""

    def __init__(self, fields: tuple[Field, ...], tables: nn.ModuleDict, width: int) -> None:
        super().__init__()
        self.fields = fields
        self.tables = tables
        self.out_width = sum(1 if field.kind == "number" else width for field in fields)

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return the concatenated fields […, W]."""
        return torch.cat(self.parts(inputs), dim=-1)

    def parts(self, inputs: Mapping[str, Tensor]) -> list[Tensor]:
        """Return each field's vectors […, D], or […, 1] for a number."""
        return [self._encode(field, inputs[field.name]) for field in self.fields]

    def _encode(self, field: Field, value: Tensor) -> Tensor:
        if field.kind == "number":
            return value.unsqueeze(-1)
        weight = table_weight(self.tables, field.table)
        if field.kind == "id":
            return F.embedding(value, weight, padding_idx=0)
        return mean_of_bag(value, weight)


class FieldVectors(nn.Module):
    """One vector for each field: those of `FieldEncoder`, and a number as so much of a vector of its own."""

    def __init__(self, fields: tuple[Field, ...], tables: nn.ModuleDict, width: int) -> None:
        super().__init__()
        self.encoder = FieldEncoder(fields, tables, width)
        numbers = sum(field.kind == "number" for field in fields)
        self.number_FD = nn.Parameter(torch.randn(numbers, width) * width**-0.5)

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return the fields' vectors […, F, D]."""
        directions = iter(self.number_FD)
        parts = [
            part * next(directions) if field.kind == "number" else part
            for field, part in zip(self.encoder.fields, self.encoder.parts(inputs), strict=True)
        ]
        return torch.stack(parts, dim=-2)


def mean_of_bag(id_L: Tensor, weight: Tensor) -> Tensor:
    """Return the mean vector […, D] of the ids […, L]; 0 pads."""
    if torch.compiler.is_exporting():
        # In operators that every runtime has: a bag would become a loop of ONNX Runtime's.
        present = (id_L > 0).to(weight.dtype).unsqueeze(-1)
        total = (F.embedding(id_L, weight, padding_idx=0) * present).sum(dim=-2)
        return total / present.sum(dim=-2).clamp(min=1.0)
    flat = F.embedding_bag(id_L.reshape(-1, id_L.shape[-1]), weight, mode="mean", padding_idx=0)
    return flat.reshape(*id_L.shape[:-1], -1)
