"""Groups of cross features, and which of them a pre-ranker keeps (COLD).

Legend: Q = requests, C = candidates, K = cross features, M = groups.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from shards.cross_kinds import ChannelColumn, HistoryCount, HistoryRecency, ItemNumber, ReciprocalRank
from shards.features import Feature, FeatureSpec
from training.models.fields import ModelInputs
from training.models.group_gate import GroupGate
from training.models.three_tower import ThreeTower
from training.ranking import CandidateModel, RankingSet, predict
from training.tensors import rows_of

_BATCH = 256
_PENALTY = 0.03


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptGroups:
    """What a pre-ranker reads: the spec with the features of the groups kept, and their columns of all."""

    weights: Mapping[str, float]
    """Of every group, the mean over candidates; the highest first."""
    kept: tuple[str, ...]
    spec: FeatureSpec
    columns: tuple[int, ...]


def feature_groups(spec: FeatureSpec) -> dict[str, tuple[int, ...]]:
    """Return the columns of each group: what a channel says, items' statistics, the history, each overlap."""
    groups: dict[str, list[int]] = {}
    for column, feature in enumerate(spec.on("cross")):
        groups.setdefault(_group_of(feature), []).append(column)
    return {name: tuple(columns) for name, columns in groups.items()}


def _group_of(feature: Feature) -> str:
    match feature:
        case ChannelColumn() | ReciprocalRank():
            return f"channel {feature.column.partition('.')[0]}"
        case ItemNumber():
            return "item statistics"
        case HistoryCount() | HistoryRecency():
            return "history"
        case _:
            return feature.name


def weight_penalty(gate: GroupGate, batch: RankingSet) -> torch.Tensor:
    """Return what the weights of a batch cost.

    COLD has no such thing. Without it the layer behind a weight takes back what the weight says, and
    the means tell nothing: a group must be worth its weight.
    """
    return _PENALTY * _weights(gate, batch)[batch.present_QC].mean()


@torch.inference_mode()
def group_weights(gate: GroupGate, examples: RankingSet, names: Sequence[str]) -> dict[str, float]:
    """Return the mean weight of each group over all candidates, the highest first."""
    gate.eval()
    total_M, count = torch.zeros(len(names), dtype=torch.float64), 0
    for rows in torch.arange(len(examples)).split(_BATCH):  # type: ignore[no-untyped-call]
        batch = examples[rows]
        total_M += _weights(gate, batch)[batch.present_QC].sum(dim=0)
        count += int(batch.present_QC.sum())
    means = (total_M / max(count, 1)).tolist()
    return dict(sorted(zip(names, means, strict=True), key=lambda each: -each[1]))


def _weights(gate: GroupGate, batch: RankingSet) -> torch.Tensor:
    unique_N, inverse_BC = torch.unique(batch.row_QC, return_inverse=True)
    return gate.weigh(batch.request, rows_of(batch.item, unique_N), inverse_BC, batch.cross_QCK)


def kept_groups(spec: FeatureSpec, weights: Mapping[str, float], keep: int) -> KeptGroups:
    """Return the `keep` groups of the highest weight; ValueError where there are not so many."""
    groups = feature_groups(spec)
    if not 1 <= keep <= len(groups):
        raise ValueError(f"kept_groups must be 1 to {len(groups)}, not {keep}")
    kept = tuple(sorted(weights, key=lambda name: -weights[name])[:keep])
    columns = tuple(sorted(column for name in kept for column in groups[name]))
    dropped = {name for k, name in enumerate(spec.cross_names) if k not in columns}
    left = tuple(feature for feature in spec.features if feature.name not in dropped)
    return KeptGroups(weights=weights, kept=kept, spec=FeatureSpec(features=left), columns=columns)


def narrowed(inputs: ModelInputs, columns: Sequence[int]) -> ModelInputs:
    """Return the inputs with these cross features alone."""
    return ModelInputs(
        request=inputs.request,
        item=inputs.item,
        tables=inputs.tables,
        history=inputs.history,
        cross=tuple(inputs.cross[column] for column in columns),
    )


class Narrowed:
    """A model of some cross features, as one that is given all of them."""

    def __init__(self, model: ThreeTower, columns: Sequence[int]) -> None:
        self.model = model
        self._columns = list(columns)

    def __call__(
        self,
        request: Mapping[str, torch.Tensor],
        item: Mapping[str, torch.Tensor],
        row_BC: torch.Tensor,
        cross_BCK: torch.Tensor,
        /,
    ) -> torch.Tensor:
        """Return the logits [B, C, T]."""
        return self.model(request, item, row_BC, cross_BCK[..., self._columns])  # type: ignore[no-any-return]


def alignment(model: CandidateModel, ranker: CandidateModel, examples: RankingSet, k: int, m: int) -> float:
    """Return which share of the ranker's first m are among the pre-ranker's first k, the mean over requests.

    |top-k(pre-rank) ∩ top-m(rank)| / m: what the ranker likes most must have come through pre-ranking.
    """
    first_QC = _places(model, examples) < k
    best_QC = (_places(ranker, examples) < m) & examples.present_QC
    wanted_Q = best_QC.sum(dim=1).clamp(min=1)
    return float(((first_QC & best_QC).sum(dim=1) / wanted_Q).mean())


@torch.inference_mode()
def _places(model: CandidateModel, examples: RankingSet) -> torch.Tensor:
    """Return the place of each candidate [Q, C], from 0, by the first task."""
    logit_QC = predict(model, examples)[..., 0].masked_fill(~examples.present_QC, float("-inf"))
    return logit_QC.argsort(dim=1, descending=True, stable=True).argsort(dim=1, stable=True)
