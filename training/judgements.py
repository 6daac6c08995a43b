"""Requests with what channels found for them and what was relevant, and how rankers read that.

Legend: Q = requests, T = tasks.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, repeat

import pyarrow as pa

from shards.candidates import Candidates
from shards.feature_encoder import RequestEncoder
from shards.features import FeatureSpec
from shards.forward_index import ForwardIndex
from shards.tokenizer import Tokenizer
from training.features import FittingData
from training.ranking import RankingSet, ranking_set
from training.snapshot import Requests
from training.task_labels import TaskLabels


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgements:
    """Requests with the candidates that the channels found and the items relevant to each task.

    `known` is for each request the item table with the statistics that rankers read then.
    """

    requests: Requests
    candidates: Sequence[Candidates]
    labels: Sequence[Sequence[TaskLabels]]
    known: Sequence[pa.Table]

    def __len__(self) -> int:
        return len(self.requests)

    def __getitem__(self, kept: slice) -> "Judgements":
        return Judgements(
            requests=self.requests[kept],
            candidates=self.candidates[kept],
            labels=self.labels[kept],
            known=self.known[kept],
        )


def fitting_data(items: ForwardIndex, part: Judgements) -> FittingData:
    """Return what features of rankers are fitted on."""
    return FittingData(
        contexts=part.requests.contexts,
        item_columns=items.columns(items.names),
        candidates=part.candidates,
        taken_R=items.rows_of(part.requests.item_ids),
    )


def encoded(spec: FeatureSpec, tokenizer: Tokenizer, items: ForwardIndex, part: Judgements) -> RankingSet:
    """Return the judgements as models take them."""
    encoders = _encoders(spec, tokenizer, items, part.known)
    return ranking_set(encoders, items, part.requests.contexts, part.candidates, part.labels)


def _encoders(
    spec: FeatureSpec, tokenizer: Tokenizer, items: ForwardIndex, known: Sequence[pa.Table]
) -> Iterator[RequestEncoder]:
    """Yield for each request the encoder that knows of items what was known then."""
    for _, tables in groupby(known, key=id):
        table, *others = tables
        encoder = RequestEncoder(spec, tokenizer, items.rows, ForwardIndex(table).columns(spec.item_columns))
        yield from repeat(encoder, 1 + len(others))
