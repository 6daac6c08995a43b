"""Two-tower retrieval: a query tower and an item tower whose cosine ranks the whole catalogue.

Covington et al., "Deep Neural Networks for YouTube Recommendations" (RecSys 2016) for the user side; Yi et
al., "Sampling-Bias-Corrected Neural Modeling for Large Corpus Item Recommendations" (RecSys 2019) for the
towers and the training; encoders of texts and places shared by both towers, a transformer over what the user
did, one over titles and a graph encoder as in Etsy's Unified Embedding (arXiv 2306.04833). With several heads
the query tower gives a vector for each of the things that a query may mean: Zhang et al., "Towards
Personalized and Semantic Retrieval" (DPSR, SIGIR 2020, arXiv 2006.02282).

Legend: B = requests, N = items, L = events, H = heads, D = width of the output.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.models.fields import FieldEncoder, ModelInputs, embedding_tables, table_weight
from training.models.history import AttentionPool, HistoryEncoder, mean_pool
from training.models.mlp import mlp
from training.models.neighbours import NeighbourEncoder
from training.models.text_transformer import TextTransformer
from training.models.transformer_block import TransformerPool

HISTORIES = ("transformer", "attention", "mean", "none")


@dataclass(frozen=True, slots=True, kw_only=True)
class TwoTowerConfig:
    """Sizes of the towers, and what reads the parts that are no plain fields."""

    width: int = 64
    hidden: int = 128
    dropout: float = 0.1
    history: str = "attention"
    """What makes one vector of the user's newest events: a "transformer" or "attention", both asked by the
    query's text, their "mean", or "none"."""
    history_text: str = ""
    """The item's feature of tokens that events are known by beside the item; empty for none."""
    history_dropout: float = 0.0
    """How often, in training, a request is shown without its events, which tell who asks."""
    title: str = ""
    """The item's feature of tokens that a transformer reads too; empty for none."""
    title_places: int = 32
    """How many tokens it reads at most."""
    neighbours: tuple[str, ...] = ()
    """The item's features that list neighbours in the graph, for an encoder of their own."""
    neighbour_dropout: float = 0.0
    """How often, in training, an item is shown without them."""
    layers: int = 1
    """Layers of each transformer."""
    transformer_heads: int = 2
    temperature: float = 0.07
    """Where the learned temperature starts."""
    learned_temperature: bool = True
    """Whether it is learned at all, or stays as it is."""
    heads: int = 1
    """Vectors that the query tower gives; a search looks up each."""
    head_temperature: float = 0.1
    """How sharply training attends to the head that suits an item best: beta of DPSR."""

    def __post_init__(self) -> None:
        if self.heads < 1:
            raise ValueError("heads must be at least 1")
        if not self.head_temperature > 0:
            raise ValueError("head_temperature must be above 0")
        if self.history not in HISTORIES:
            raise ValueError(f"history must be one of {', '.join(HISTORIES)}, not {self.history!r}")
        if self.title_places < 1:
            raise ValueError("title_places must be at least 1")
        if self.layers < 1 or self.transformer_heads < 1 or self.width % self.transformer_heads:
            raise ValueError("layers must be at least 1, and width a multiple of transformer_heads")
        if not (0 <= self.neighbour_dropout < 1 and 0 <= self.history_dropout < 1):
            raise ValueError("history_dropout and neighbour_dropout must be shares below 1")


class Tower(nn.Module):
    """The sum of a tower's text vectors, if it reads texts, plus a perceptron over everything it knows.

    The perceptron has an output a head.
    """

    def __init__(
        self, encoder: FieldEncoder, extra_width: int, config: TwoTowerConfig, *, heads: int = 1
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.heads = heads
        self.perceptron = mlp(
            encoder.out_width + extra_width, (config.hidden, heads * config.width), dropout=config.dropout
        )
        self.bags = tuple(k for k, field in enumerate(encoder.fields) if field.kind == "bag")
        self.width = config.width

    def text(self, parts: Sequence[Tensor], like_BX: Tensor) -> Tensor:
        """Return the sum of the bags' mean vectors [B, D]; without any, zeros for each row of `like`."""
        if not self.bags:
            return like_BX.new_zeros(like_BX.shape[0], self.width)
        return torch.stack([parts[k] for k in self.bags]).sum(dim=0)

    def forward(self, parts: Sequence[Tensor], *extra_BW: Tensor) -> Tensor:
        """Return unit vectors [B, D], or [B, H, D] of several heads, from the encoded fields, one each."""
        return F.normalize(self.summed(parts, *extra_BW), dim=-1)

    def summed(self, parts: Sequence[Tensor], *extra_BW: Tensor) -> Tensor:
        """Return the vectors at the length that they come to."""
        out_BW: Tensor = self.perceptron(torch.cat([*parts, *extra_BW], dim=-1))
        if self.heads == 1:
            return out_BW + self.text(parts, out_BW)
        out_BHD = out_BW.reshape(*out_BW.shape[:-1], self.heads, -1)
        return out_BHD + self.text(parts, out_BW).unsqueeze(-2)


class TwoTower(nn.Module):
    """Scores items by cosine over a learned temperature of at least 0.01 (as in arXiv 2205.04507)."""

    def __init__(
        self, config: TwoTowerConfig, inputs: ModelInputs, item: Mapping[str, Tensor] | None = None
    ) -> None:
        """Make the towers; `item` holds the features of all items [N, …], where `history_text` reads one."""
        super().__init__()
        self.width = config.width
        self.config = config
        self.tables = embedding_tables(inputs.tables, config.width)
        self.history = None
        self.pool: AttentionPool | TransformerPool | None = None
        if inputs.history and config.history != "none":
            self.history = _history_encoder(config, inputs, self.tables, item or {})
            self.pool = _pool(config)
        request = FieldEncoder(inputs.request, self.tables, config.width)
        plain = FieldEncoder(inputs.item_but(config.neighbours), self.tables, config.width)
        self.title = None
        if config.title:
            (self.title_field,) = inputs.item_fields((config.title,))
            self.title = _title_transformer(config)
        self.neighbours = _neighbour_encoder(config, inputs, self.tables)
        self.query_tower = Tower(request, config.width if self.history else 0, config, heads=config.heads)
        read = sum(part is not None for part in (self.title, self.neighbours))
        self.item_tower = Tower(plain, read * config.width, config)
        log_temperature = torch.tensor(math.log(config.temperature))
        self.log_temperature = nn.Parameter(log_temperature, requires_grad=config.learned_temperature)

    def encode_query(self, request: Mapping[str, Tensor]) -> Tensor:
        """Return query vectors [B, D], or [B, H, D] of several heads, of unit length."""
        parts = self.query_tower.encoder.parts(request)
        if self.history is None:
            return self.query_tower(parts)  # type: ignore[no-any-return]
        event_BLD, present_BL = self.history(request)
        if self.training and self.config.history_dropout:
            present_BL = present_BL & (torch.rand(len(present_BL), 1) >= self.config.history_dropout)
        if isinstance(self.pool, TransformerPool):
            history_BD = self.pool(self.query_tower.text(parts, event_BLD), event_BLD, present_BL)
        elif self.pool is not None:
            text_B1D = self.query_tower.text(parts, event_BLD).unsqueeze(1)
            history_BD = self.pool(text_B1D, event_BLD, present_BL).squeeze(1)
        else:
            history_BD = mean_pool(event_BLD, present_BL)
        return self.query_tower(parts, history_BD)  # type: ignore[no-any-return]

    def encode_item(self, item: Mapping[str, Tensor]) -> Tensor:
        """Return item vectors [N, D] of unit length."""
        read = []
        if self.title is not None:
            tokens = table_weight(self.tables, self.title_field.table)
            read.append(self.title(item[self.config.title], tokens))
        if self.neighbours is not None:
            read.append(self.neighbours(item))
        return self.item_tower(self.item_tower.encoder.parts(item), *read)  # type: ignore[no-any-return]

    def forward(self, request: Mapping[str, Tensor], item: Mapping[str, Tensor]) -> Tensor:
        """Return the scaled cosines [B, N] of each request with each item."""
        return self.compare(self.encode_query(request), item)

    def compare(self, vector_BHD: Tensor, item: Mapping[str, Tensor]) -> Tensor:
        """Return the scaled cosines [B, N] of query vectors with each item.

        Heads are attended to: the sum of their cosines z weighed by softmax(z / head_temperature) (DPSR).
        """
        temperature = self.log_temperature.exp().clamp(min=0.01)
        cosine = vector_BHD @ self.encode_item(item).T
        if self.config.heads > 1:
            attention_BHN = (cosine / self.config.head_temperature).softmax(dim=1)
            cosine = (attention_BHN * cosine).sum(dim=1)
        return cosine / temperature


def _history_encoder(
    config: TwoTowerConfig, inputs: ModelInputs, tables: nn.ModuleDict, item: Mapping[str, Tensor]
) -> HistoryEncoder:
    assert inputs.history is not None
    if not config.history_text:
        return HistoryEncoder(inputs.history, tables, config.width)
    (text,) = inputs.item_fields((config.history_text,))
    token_NT = item[text.name]
    return HistoryEncoder(inputs.history, tables, config.width, text=text, token_NT=token_NT)


def _pool(config: TwoTowerConfig) -> AttentionPool | TransformerPool | None:
    """Return what pools a history; None for its mean."""
    if config.history == "transformer":
        return TransformerPool(
            config.width, config.transformer_heads, layers=config.layers, dropout=config.dropout
        )
    return AttentionPool(config.width) if config.history == "attention" else None


def _title_transformer(config: TwoTowerConfig) -> TextTransformer:
    return TextTransformer(
        config.width,
        config.transformer_heads,
        layers=config.layers,
        max_len=config.title_places,
        dropout=config.dropout,
    )


def _neighbour_encoder(
    config: TwoTowerConfig, inputs: ModelInputs, tables: nn.ModuleDict
) -> NeighbourEncoder | None:
    if not config.neighbours:
        return None
    encoder = FieldEncoder(inputs.item_fields(config.neighbours), tables, config.width)
    return NeighbourEncoder(encoder, config.width, dropout=config.neighbour_dropout)
