"""Fits a FeatureSpec to tables: vocabularies and scales come from training data, then never change.

A recipe names features with empty vocabularies and scales of mean 0 and deviation 1; `fit_spec` returns
them fitted. `model_inputs` tells a model what it has to know about the result.

Legend: B = requests, N = items, R = requests with candidates.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from shards.candidates import Candidates
from shards.column_encoder import Ids, numbers, scale, text_of, texts
from shards.cross_kinds import ChannelColumn, HistoryGap, ItemNumber, WordPlaces
from shards.feature_encoder import read_source
from shards.feature_kinds import (
    Categories,
    Category,
    HashedId,
    HistoryAges,
    HistoryCategories,
    HistoryCategory,
    HistoryItems,
    ItemId,
    ItemRows,
    Ngrams,
    Number,
    Quantile,
    Tokens,
)
from shards.features import Feature, FeatureSpec
from shards.search_context import SearchContext
from shards.tokenizer import Tokenizer
from training.models.fields import Field, HistoryField, ModelInputs
from training.word_places import place_lifts

RESERVED = frozenset(["user", "item", "cross"])
"""Inputs of exported programs that are no features; see `training.programs`."""

TOKEN_TABLE = "tokens"
ITEM_TABLE = "items"

_MIN_COUNT = 5
"""A category met less often is unknown, so that the unknown one is trained too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FittingData:
    """What features are fitted on: requests, item columns [N] and candidates as the channels gave them."""

    contexts: Sequence[SearchContext]
    item_columns: Mapping[str, Sequence[object]]
    candidates: Sequence[Candidates] = ()
    taken_R: Ids = field(default_factory=lambda: np.empty(0, np.int64))
    """The row of what each request took, -1 where it is none of the items; empty where nothing is known."""


VocabularyKind = Category | Categories | HistoryCategory | HistoryCategories

Shared = Sequence[Sequence[str]]
"""Groups of categories with one vocabulary and one embedding table, say places of users and of items."""


def fit_spec(features: Iterable[Feature], data: FittingData, *, shared: Shared = ()) -> FeatureSpec:
    """Return the spec of these features with vocabularies and scales from `data`.

    Raises ValueError where an item feature reads a column that is not there.
    """
    features = tuple(features)
    vocabularies = _shared_vocabularies(features, data, shared)
    return FeatureSpec(
        features=tuple(_fitted(_with_vocabulary(feature, vocabularies), data) for feature in features)
    )


def _shared_vocabularies(
    features: Sequence[Feature], data: FittingData, shared: Shared
) -> Mapping[str, tuple[str, ...]]:
    """Return the vocabulary of each category of a group: what any of them meets often enough."""
    sources = {f.name: f.source for f in features if isinstance(f, VocabularyKind)}
    found: dict[str, tuple[str, ...]] = {}
    for group in shared:
        if unknown := [name for name in group if name not in sources]:
            raise ValueError(f"{unknown[0]!r} shares a vocabulary and is no category")
        met = {text for name in group for text in _vocabulary(_values(sources[name], data))}
        found |= dict.fromkeys(group, tuple(sorted(met)))
    return found


def _with_vocabulary(feature: Feature, vocabularies: Mapping[str, tuple[str, ...]]) -> Feature:
    if isinstance(feature, VocabularyKind) and feature.name in vocabularies:
        return replace(feature, vocabulary=vocabularies[feature.name])
    return feature


def _fitted(feature: Feature, data: FittingData) -> Feature:
    match feature:
        case Category() | Categories() | HistoryCategory() | HistoryCategories() if not feature.vocabulary:
            return replace(feature, vocabulary=_vocabulary(_values(feature.source, data)))
        case Number() | ItemNumber() | HistoryGap():
            mean, std = _moments(numbers(_values(feature.source, data)), log1p=feature.log1p)
            return replace(feature, mean=mean, std=std)
        case Quantile() if not feature.boundaries:
            return replace(
                feature, boundaries=_boundaries(numbers(_values(feature.source, data)), feature.buckets)
            )
        case ChannelColumn():
            return _fitted_column(feature, data.candidates)
        case WordPlaces() if not feature.lifts:
            item_texts = texts(_values(feature.source, data))
            return replace(feature, lifts=place_lifts(item_texts, data.contexts, data.taken_R))
        case _:
            return feature


def _values(source: str, data: FittingData) -> Sequence[object]:
    if not source.startswith("item."):
        return [read_source(context, source) for context in data.contexts]
    column = source.removeprefix("item.")
    if column not in data.item_columns:
        raise ValueError(f"the item table has no column {column!r}")
    return data.item_columns[column]


def _vocabulary(values: Sequence[object]) -> tuple[str, ...]:
    """Return the values that are met often enough, sorted, so that equal data gives an equal spec."""
    counts = Counter(
        text_of(part)
        for value in values
        if value is not None
        for part in (value if isinstance(value, list | tuple) else (value,))
    )
    return tuple(sorted(text for text, count in counts.items() if text and count >= _MIN_COUNT))


def _moments(raw: NDArray[np.floating], *, log1p: bool) -> tuple[float, float]:
    known = raw[np.isfinite(raw)].astype(np.float64)
    if not len(known):
        return 0.0, 1.0
    known = np.sign(known) * np.log1p(np.abs(known)) if log1p else known
    std = float(known.std())
    return float(known.mean()), std if std > 1e-6 else 1.0


def _boundaries(raw: NDArray[np.floating], buckets: int) -> tuple[float, ...]:
    """Return where about equally full buckets meet; fewer where many numbers are equal."""
    known = raw[np.isfinite(raw)].astype(np.float64)
    if not len(known):
        return ()
    cuts = np.unique(np.quantile(known, np.arange(1, buckets) / buckets, method="higher"))
    return tuple(cuts[cuts > known.min()].tolist())


def _fitted_column(feature: ChannelColumn, candidates: Sequence[Candidates]) -> ChannelColumn:
    """Return a channel's column scaled; a candidate that the channel lacks counts as its lowest value."""
    columns = [c.columns[feature.column] for c in candidates if feature.column in c.columns]
    raw = np.concatenate(columns) if columns else np.empty(0, np.float32)
    raw = raw[np.isfinite(raw)]
    if not len(raw):
        return feature
    mean, std = _moments(raw, log1p=feature.log1p)
    lowest = scale(np.quantile(raw, [0.01]), log1p=feature.log1p, mean=mean, std=std)
    return replace(feature, mean=mean, std=std, missing=float(lowest[0]))


def model_inputs(
    spec: FeatureSpec, tokenizer: Tokenizer | None, items: int, *, shared: Shared = ()
) -> ModelInputs:
    """Return what a model has to know about a fitted spec over a table of `items` items.

    Texts share one table of tokens and one of n-grams; item ids, lists of them and histories share the items'
    table; a category has a table of its own, or that of the first of its group. Raises ValueError for ages
    without the history that they go with, and for a feature with a name that programs use themselves.
    """
    if taken := RESERVED.intersection(feature.name for feature in spec.features):
        raise ValueError(f"programs have inputs of their own called {', '.join(sorted(taken))}")
    table_of = {name: group[0] for group in shared for name in group}
    history = _history(spec)
    tables: dict[str, int] = {ITEM_TABLE: items + 1} if history else {}
    sides: dict[str, list[Field]] = {"request": [], "item": []}
    for side, fields in sides.items():
        for feature in spec.on(side):  # type: ignore[arg-type]
            if history and feature.name == history.items:
                continue
            field, rows = _field(feature, tokenizer, items)
            if field is not None and field.name in table_of:
                field = replace(field, table=table_of[field.name])
            if field is not None:
                fields.append(field)
                tables |= {field.table: rows} if field.table else {}
    return ModelInputs(
        request=tuple(sides["request"]),
        item=tuple(sides["item"]),
        tables=tables,
        history=history,
        cross=spec.cross_names,
    )


def _field(feature: Feature, tokenizer: Tokenizer | None, items: int) -> tuple[Field | None, int]:
    """Return a feature's field and its table's rows; no field for the parts of a history."""
    match feature:
        case Tokens():
            assert tokenizer is not None, "a spec with tokens comes with a tokeniser"
            return Field(name=feature.name, kind="bag", table=TOKEN_TABLE), tokenizer.vocab_size
        case Ngrams():
            table = f"ngrams_{feature.n}_{feature.buckets}"
            return Field(name=feature.name, kind="bag", table=table), feature.cardinality
        case Category() | HashedId() | Quantile() | HistoryCategory():
            return Field(name=feature.name, kind="id", table=feature.name), feature.cardinality
        case Categories():
            return Field(name=feature.name, kind="bag", table=feature.name), feature.cardinality
        case ItemId():
            return Field(name=feature.name, kind="id", table=ITEM_TABLE), items + 1
        case ItemRows() | HistoryItems():
            # Of a history without ages: the mean of the newest items, its last-N average.
            return Field(name=feature.name, kind="bag", table=ITEM_TABLE), items + 1
        case Number():
            return Field(name=feature.name, kind="number"), 0
        case _:
            return None, 0


def _history(spec: FeatureSpec) -> HistoryField | None:
    """Return the history that has ages; other `HistoryItems` are bags of the newest."""
    ages = [feature for feature in spec.features if isinstance(feature, HistoryAges)]
    if not ages:
        return None
    if len(ages) > 1:
        raise ValueError(f"a model reads one history: {ages[1].name!r} is a second one with ages")
    alike = [
        feature
        for feature in spec.features
        if isinstance(feature, HistoryItems | HistoryCategories)
        and (feature.max_len, feature.actions) == (ages[0].max_len, ages[0].actions)
    ]
    items = [feature.name for feature in alike if isinstance(feature, HistoryItems)]
    if len(items) != 1:
        raise ValueError(f"{ages[0].name!r} needs one HistoryItems of its length and actions")
    categories = next((feature for feature in alike if isinstance(feature, HistoryCategories)), None)
    return HistoryField(
        items=items[0],
        ages=ages[0].name,
        table=ITEM_TABLE,
        age_buckets=ages[0].cardinality,
        categories=categories.name if categories else "",
        item_category=_item_category(spec, categories) if categories else "",
    )


def _item_category(spec: FeatureSpec, events: HistoryCategories) -> str:
    """Return the feature of items with the ids that the events have; ValueError where there is none."""
    same = (events.source, events.vocabulary)
    for feature in spec.on("item"):
        if isinstance(feature, Category) and (feature.source, feature.vocabulary) == same:
            return feature.name
    raise ValueError(f"{events.name!r} needs a Category of {events.source} with its vocabulary")
