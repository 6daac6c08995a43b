"""The FeatureSpec that training and serving share: `features.json`."""

import hashlib
from dataclasses import dataclass
from typing import Any, get_args

from shards.cross_kinds import CrossKind, QueryOverlap
from shards.feature_kinds import (
    ITEM_ID_COLUMN,
    HistoryCategories,
    HistoryCategory,
    HistoryKind,
    ItemId,
    ItemKind,
    Side,
    Tokens,
    ValueKind,
)
from shards.json_codec import from_json, parse, plain, render, to_json
from shards.tokenizer import Tokenizer

FEATURES_FILE = "features.json"

Feature = ValueKind | HistoryKind | ItemKind | CrossKind

OfEvents = HistoryCategory | HistoryCategories

_KINDS: dict[str, type[Feature]] = {kind.__name__: kind for kind in get_args(Feature)}


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureSpec:
    """The features of a model in order; vocabularies and scales are fixed at training time."""

    features: tuple[Feature, ...]

    def __post_init__(self) -> None:
        # 1 for 1.0 or a list for a tuple would read back as something else, with another hash.
        object.__setattr__(self, "features", tuple(plain(feature) for feature in self.features))
        names = [feature.name for feature in self.features]
        if repeated := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"feature name {repeated[0]!r} occurs twice")

    def on(self, side: Side) -> tuple[Feature, ...]:
        """Return the features of one side, in the order of the spec."""
        return tuple(feature for feature in self.features if side_of(feature) == side)

    @property
    def cross_names(self) -> tuple[str, ...]:
        """Return what the columns of `RequestEncoder.encode_cross` mean, in order."""
        return tuple(feature.name for feature in self.on("cross"))

    @property
    def item_columns(self) -> tuple[str, ...]:
        """Return the columns of items.parquet that the spec reads, sorted."""
        sources = {getattr(feature, "source", "") for feature in self.features}
        columns = {source.removeprefix("item.") for source in sources if source.startswith("item.")}
        if any(isinstance(feature, ItemId) for feature in self.features):
            columns.add(ITEM_ID_COLUMN)
        return tuple(sorted(columns))

    @property
    def history_columns(self) -> tuple[str, ...]:
        """Return the columns of items.parquet that features of histories read, sorted."""
        histories = (feature for feature in self.features if isinstance(feature, OfEvents))
        return tuple(sorted({feature.source.removeprefix("item.") for feature in histories}))

    @property
    def needs_tokenizer(self) -> bool:
        """Say whether a feature reads tokens."""
        return any(isinstance(feature, Tokens | QueryOverlap) for feature in self.features)

    def to_bytes(self) -> bytes:
        """Return the canonical features.json."""
        documents = [{"kind": type(feature).__name__, **to_json(feature)} for feature in self.features]
        return render({"features": documents})

    @classmethod
    def from_bytes(cls, data: bytes) -> "FeatureSpec":
        """Return the spec in `data`; ValueError that says where the document is wrong."""
        document = parse(data)
        if not isinstance(document, dict) or document.keys() != {"features"}:
            raise ValueError("must hold one list: features")
        if not isinstance(document["features"], list):
            raise ValueError("features is not a list")
        return cls(features=tuple(_feature(i, part) for i, part in enumerate(document["features"])))

    def hash(self, tokenizer: Tokenizer | None = None) -> str:
        """Return the sha256 of the canonical JSON and the tokeniser's checksum: what a bundle must match."""
        digest = hashlib.sha256(self.to_bytes())
        digest.update(tokenizer.sha256.encode() if tokenizer else b"")
        return digest.hexdigest()


def side_of(feature: Feature) -> Side:
    """Return the side that a feature describes."""
    if isinstance(feature, ValueKind):
        return "item" if feature.source.startswith("item.") else "request"
    return feature.side


def _feature(index: int, document: Any) -> Feature:
    if not isinstance(document, dict) or document.get("kind") not in _KINDS:
        raise ValueError(f"features[{index}] has no known kind")
    fields = {name: value for name, value in document.items() if name != "kind"}
    return from_json(_KINDS[document["kind"]], fields, f"features[{index}]")
