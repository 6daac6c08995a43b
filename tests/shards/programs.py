"""Tiny models with random weights, and how the test bundles export them.

Legend: B = requests, C = candidates, D = width of a vector, K = cross features, L = ids of a text.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from shards.manifest import ProgramSpec, TensorSpec

WIDTH = 16
BUCKETS = 512


class Words(nn.Module):
    """Texts as the mean of their n-grams' random vectors, of unit length."""

    def __init__(self) -> None:
        super().__init__()
        self.vectors = nn.Embedding(BUCKETS + 1, WIDTH, padding_idx=0)

    def forward(self, ids_BL: Tensor) -> Tensor:
        return nn.functional.normalize(self.vectors(ids_BL).sum(dim=1), dim=-1)


class QueryTower(nn.Module):
    """The query, and a little of the items bought before."""

    def __init__(self, words: Words, items: int) -> None:
        super().__init__()
        self.words = words
        self.bought = nn.Embedding(items + 1, WIDTH, padding_idx=0)

    def forward(self, query_ngrams: Tensor, history_items: Tensor) -> Tensor:
        vector_BD = self.words(query_ngrams) + 0.05 * self.bought(history_items).sum(dim=1)
        return nn.functional.normalize(vector_BD, dim=-1)


class UserTower(nn.Module):
    """The query alone."""

    def __init__(self, words: Words) -> None:
        super().__init__()
        self.words = words

    def forward(self, query_ngrams: Tensor) -> Tensor:
        return self.words(query_ngrams)  # type: ignore[no-any-return]


class Interaction(nn.Module):
    """The cosine of user and item, and a random weight for each cross feature."""

    def __init__(self, cross: int) -> None:
        super().__init__()
        self.cross = nn.Linear(cross, 1)

    def forward(self, user: Tensor, item: Tensor, cross: Tensor) -> Tensor:
        score_C: Tensor = (user * item).sum(dim=-1) + 0.1 * self.cross(cross).squeeze(-1)
        return score_C


class Scorer(nn.Module):
    """A probability for each of two tasks, from the texts, the price and the cross features."""

    def __init__(self, words: Words, cross: int) -> None:
        super().__init__()
        self.words = words
        self.head = nn.Linear(2 + cross, 2)

    def forward(self, query_ngrams: Tensor, title_ngrams: Tensor, price: Tensor, cross: Tensor) -> Tensor:
        cosine_C = (self.words(query_ngrams) * self.words(title_ngrams)).sum(dim=-1)
        inputs_CK = torch.cat([4 * cosine_C.unsqueeze(-1), price.unsqueeze(-1), cross], dim=-1)
        return torch.sigmoid(self.head(inputs_CK))


def export(
    model: nn.Module, example: Mapping[str, Tensor], path: Path, *, varying: tuple[str, ...] = ()
) -> None:
    """Save a model as a program whose `varying` inputs have any number of rows."""
    rows = torch.export.Dim("rows", min=1, max=100_000)
    shapes = {name: {0: rows} if name in varying else {} for name in example}
    with torch.no_grad():
        program = torch.export.export(model.eval(), (), dict(example), dynamic_shapes=shapes)
    torch.export.save(program, path)


def spec(
    file: str, example: Mapping[str, Tensor], *, output: str, varying: tuple[str, ...] = ()
) -> ProgramSpec:
    """Return what the manifest says of a program."""
    return ProgramSpec(
        file=file,
        inputs=tuple(
            TensorSpec(
                name=name,
                dtype=str(value.dtype).removeprefix("torch."),
                shape=(None, *value.shape[1:]) if name in varying else tuple(value.shape),
            )
            for name, value in example.items()
        ),
        outputs=(output,),
    )
