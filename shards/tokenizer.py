"""The one tokeniser that training and serving share: lower-cased, accent-free byte-pair pieces.

Pieces carry no mark of where a word starts, so "lunchbag" can share the pieces of "lunch bag".

Legend: N = texts, L = tokens a text.
"""

import hashlib
from collections.abc import Iterable, Sequence
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import tokenizers
from numpy.typing import NDArray
from tokenizers import models, normalizers, pre_tokenizers, trainers

from shards.words import readable

TOKENIZER_FILE = "tokenizer.json"
PAD = 0
UNKNOWN = 1

_REMEMBERED = 1024
_SPECIAL_TOKENS = ["[PAD]", "[UNK]"]


class Tokenizer:
    """Text to ids; 0 = padding, 1 = unknown. Its identity is the JSON it is made from."""

    def __init__(self, document: str) -> None:
        self._document = document
        try:
            self._inner = tokenizers.Tokenizer.from_str(document)
        except Exception as error:  # The library raises nothing narrower.
            raise ValueError(f"is not a tokeniser: {error}") from error
        # One search is encoded for several features of several bundles. No method of this object, which
        # would be a ring of references.
        self._remembered = lru_cache(maxsize=_REMEMBERED)(partial(_ids_of, self._inner))

    @classmethod
    def train(cls, texts: Iterable[str], *, vocab_size: int) -> "Tokenizer":
        """Return the tokeniser of at most `vocab_size` tokens that fits `texts`; same texts, same result."""
        # Trained with a "##" prefix, as WordPiece is, ids differ from run to run: tokenizers issue 1794.
        inner = tokenizers.Tokenizer(models.BPE(unk_token="[UNK]"))
        inner.normalizer = normalizers.Sequence(
            [normalizers.NFKD(), normalizers.Lowercase(), normalizers.StripAccents()]
        )
        inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size, special_tokens=_SPECIAL_TOKENS, show_progress=False
        )
        inner.train_from_iterator((readable(text) for text in texts), trainer)
        return cls(inner.to_str(pretty=True))

    @classmethod
    def open(cls, path: Path) -> "Tokenizer":
        """Return the tokeniser saved at `path`; ValueError where the file is none."""
        return cls(path.read_text(encoding="utf-8"))

    def save(self, path: Path) -> None:
        """Write tokenizer.json; `sha256` is that of the file."""
        path.write_bytes(self._document.encode())

    @property
    def sha256(self) -> str:
        """Return the checksum of the saved file."""
        return hashlib.sha256(self._document.encode()).hexdigest()

    @property
    def vocab_size(self) -> int:
        """Return how many ids there are, padding and unknown among them."""
        return self._inner.get_vocab_size()

    def encode(self, text: str, max_len: int) -> NDArray[np.int64]:
        """Return ids [L] of the first `max_len` tokens, padded with 0."""
        ids_L: NDArray[np.int64] = self.encode_batch([text], max_len)[0]
        return ids_L

    def encode_batch(self, texts: Sequence[str], max_len: int) -> NDArray[np.int64]:
        """Return ids [N, L] of the first `max_len` tokens of each text, padded with 0."""
        ids_NL = np.full((len(texts), max_len), PAD, dtype=np.int64)
        clean = [readable(text) for text in texts]
        # One text goes round the library's thread pool, which costs more than the work.
        found = (
            [self._remembered(clean[0])]
            if len(clean) == 1
            else [encoding.ids for encoding in self._inner.encode_batch(clean)]
        )
        for ids_L, ids in zip(ids_NL, found, strict=True):
            ids_L[: len(ids)] = ids[:max_len]
        return ids_NL


def _ids_of(inner: tokenizers.Tokenizer, text: str) -> tuple[int, ...]:
    return tuple(inner.encode(text).ids)
