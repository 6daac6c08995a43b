"""Reads a text's tokens in order: one vector for a title.

A transformer over token vectors that other encoders share, as the title encoder of the listing tower of Jha
et al., "Unified Embedding Based Personalized Retrieval in Etsy Search" (arXiv 2306.04833), which starts from
a pre-trained T5; this one learns with the towers alone.

Legend: N = texts, L = tokens, D = width.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.models.history import mean_pool
from training.models.transformer_block import TransformerPool


class TextTransformer(nn.Module):
    """The mean of a text's tokens asks, tokens with their places answer."""

    def __init__(self, width: int, heads: int, *, layers: int, max_len: int, dropout: float) -> None:
        """Read the first `max_len` tokens of a text."""
        super().__init__()
        self.max_len = max_len
        self.places = nn.Embedding(max_len, width)
        nn.init.normal_(self.places.weight, std=0.02)
        self.pool = TransformerPool(width, heads, layers=layers, dropout=dropout)

    def forward(self, token_NL: Tensor, weight_VD: Tensor) -> Tensor:
        """Return vectors [N, D] of texts from those of all tokens; 0 pads, and an empty text is zero."""
        token_NL = token_NL[:, : self.max_len]
        present_NL = token_NL > 0
        vector_NLD = F.embedding(token_NL, weight_VD, padding_idx=0)
        place_NLD = vector_NLD + self.places.weight[: token_NL.shape[1]]
        read_ND = self.pool(mean_pool(vector_NLD, present_NL), place_NLD, present_NL)
        some_N1: Tensor = present_NL.any(dim=1, keepdim=True)
        return torch.where(some_N1, read_ND, torch.zeros_like(read_ND))
