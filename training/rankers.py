"""The scoring stages trained: the pre-ranker and the ranker share features, candidates and labels.

A recipe may have one of them alone: a ranker without a pre-ranker is given what the channels merge to.

Legend: Q = requests, T = tasks.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, repeat

import pyarrow as pa
import torch
from torch import Tensor

from shards.candidates import Candidates
from shards.feature_encoder import RequestEncoder
from shards.features import FeatureSpec
from shards.forward_index import ForwardIndex
from shards.tokenizer import Tokenizer
from training.checkpoints import Checkpoints
from training.feature_groups import (
    KeptGroups,
    Narrowed,
    feature_groups,
    group_weights,
    kept_groups,
    narrowed,
    weight_penalty,
)
from training.features import FittingData, fit_spec, model_inputs
from training.hard_negatives import HardNegatives, ranks, rejected
from training.models.fields import ModelInputs
from training.models.group_gate import GroupGate
from training.models.multi_task_ranker import MultiTaskRanker
from training.models.task_links import TaskLinks
from training.models.three_tower import ThreeTower, ThreeTowerConfig
from training.ranking import (
    CandidateModel,
    RankingSet,
    RankingTraining,
    ndcg_at_10,
    predict,
    ranking_set,
    train_ranker,
)
from training.recipe import RankerRecipe, Recipe
from training.snapshot import Requests, Snapshot
from training.task_labels import TaskLabels
from training.task_losses import FittedTasks, fitted_tasks
from training.task_serving import TaskServing, calibrated, fitted_serving
from training.trainer import Observer, Seeded, ignore


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Rankers:
    """The trained models that the recipe has and what encodes their features."""

    pre_ranker: ThreeTower | None
    ranker: MultiTaskRanker | None
    spec: FeatureSpec
    tokenizer: Tokenizer
    tasks: tuple[str, ...]
    links: TaskLinks
    serving: TaskServing
    """How the ranker's predictions are served, where there is one."""
    pre_ranker_ndcg: float
    ranker_ndcg: float
    """NDCG@10 on the requests that training did not see; NaN for a model that there is not."""
    groups: KeptGroups | None = None
    """The groups of cross features that the pre-ranker reads; None for all."""
    rejected_QR: Tensor | None = None
    """Candidates of each request, trained on or held out, that the rankers had no use for, where those are
    hard negatives; rows of the items, -1 behind the last."""


def train_rankers(
    recipe: Recipe,
    snapshot: Snapshot,
    tokenizer: Tokenizer,
    train: Judgements,
    held_out: Judgements,
    *,
    seeded: Seeded,
    observe: Observer = ignore,
    checkpoints: Checkpoints | None = None,
) -> Rankers:
    """Train the rankers of the recipe on candidates found from the snapshot's channels or fresher ones."""
    items = ForwardIndex(snapshot.items)
    columns = items.columns(snapshot.items.column_names)
    data = FittingData(contexts=train.requests.contexts, item_columns=columns, candidates=train.candidates)
    spec = fit_spec(recipe.features.ranking, data)
    inputs = model_inputs(spec, tokenizer, len(items))
    examples, judged = (encoded(spec, tokenizer, items, part) for part in (train, held_out))
    generator = seeded.apply()
    checkpoints = checkpoints or Checkpoints()
    fitted = fitted_tasks(recipe.tasks, examples.label_QCT, examples.weight_QCT)
    groups = None
    if recipe.pre_ranker and recipe.pre_ranker.model.kept_groups:
        groups = _weighed_groups(
            recipe.pre_ranker, spec, inputs, examples, fitted, generator, observe, checkpoints
        )
    pre_ranker = None
    if recipe.pre_ranker:
        read = narrowed(inputs, groups.columns) if groups else inputs
        pre_ranker = ThreeTower(recipe.pre_ranker.model, read)
    first: CandidateModel | None = (
        Narrowed(pre_ranker, groups.columns) if pre_ranker and groups else pre_ranker
    )
    ranker = MultiTaskRanker(recipe.ranker.model, inputs) if recipe.ranker else None
    pre_ranker_ndcg = ranker_ndcg = float("nan")
    serving = TaskServing()
    links = fitted.links()
    if pre_ranker and recipe.pre_ranker:
        fit = recipe.pre_ranker.training
        own, held = (part.columns(groups.columns) if groups else part for part in (examples, judged))
        pre_ranker_ndcg = _train(
            "pre_ranker", pre_ranker, fit, own, fitted, held, generator, observe, checkpoints
        )
    both = (examples, judged)
    if ranker and recipe.ranker:
        keep = recipe.ranker.candidates
        examples, judged = (_passed_on(first, part, keep) for part in (examples, judged))
        _train(
            "ranker",
            ranker,
            recipe.ranker.training,
            examples,
            fitted,
            judged,
            generator,
            observe,
            checkpoints,
        )
        with torch.inference_mode():
            logit_QCT = predict(ranker, judged)
        if recipe.ranker.training.calibrate:
            links = calibrated(links, recipe.tasks, logit_QCT, judged)
        serving, ranker_ndcg = fitted_serving(recipe.tasks, items, examples, judged, links(logit_QCT))
    return Rankers(
        pre_ranker=pre_ranker,
        ranker=ranker,
        spec=spec,
        tokenizer=tokenizer,
        tasks=tuple(task.name for task in recipe.tasks),
        links=links,
        serving=serving,
        pre_ranker_ndcg=pre_ranker_ndcg,
        ranker_ndcg=ranker_ndcg,
        rejected_QR=_rejected(recipe, first, ranker, both, generator),
        groups=groups,
    )


def _weighed_groups(
    config: RankerRecipe[ThreeTowerConfig],
    spec: FeatureSpec,
    inputs: ModelInputs,
    examples: RankingSet,
    fitted: FittedTasks,
    generator: torch.Generator,
    observe: Observer,
    checkpoints: Checkpoints,
) -> KeptGroups:
    """Train a pre-ranker of all features with their groups weighed, and keep the groups of most weight."""
    groups = feature_groups(spec)
    if config.model.kept_groups > len(groups):
        raise ValueError(f"kept_groups must be at most {len(groups)}, the groups: {', '.join(groups)}")
    gate = GroupGate(config.model, inputs, list(groups.values()))
    name = "pre_ranker_groups"
    checkpoint = checkpoints.next(name, generator)
    train_ranker(
        name,
        gate,
        config.training,
        examples,
        fitted,
        generator,
        penalty=lambda batch: weight_penalty(gate, batch),
        observe=observe,
        checkpoint=checkpoint,
    )
    return kept_groups(spec, group_weights(gate, examples, list(groups)), config.model.kept_groups)


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


def _passed_on(pre_ranker: CandidateModel | None, examples: RankingSet, keep: int) -> RankingSet:
    """Return the candidates that the ranker is given when serving: the pre-ranker's best, or the first."""
    if pre_ranker is None:
        return examples.first(keep)
    with torch.inference_mode():
        return examples.best(predict(pre_ranker, examples)[..., 0], keep)


def _train(
    name: str,
    model: torch.nn.Module,
    training: RankingTraining,
    examples: RankingSet,
    fitted: FittedTasks,
    judged: RankingSet,
    generator: torch.Generator,
    observe: Observer,
    checkpoints: Checkpoints,
) -> float:
    """Train one model and return its NDCG@10 on the requests held out."""

    def evaluate() -> float:
        return ndcg_at_10(predict(model, judged)[..., 0], judged)

    return train_ranker(
        name,
        model,
        training,
        examples,
        fitted,
        generator,
        evaluate=evaluate,
        observe=observe,
        checkpoint=checkpoints.next(name, generator),
    ).best_metric


def _rejected(
    recipe: Recipe,
    pre_ranker: CandidateModel | None,
    ranker: CandidateModel | None,
    parts: Sequence[RankingSet],
    generator: torch.Generator,
) -> Tensor | None:
    config = recipe.two_tower.hard
    if not (config.per_positive and config.source == "rejected"):
        return None
    keep = recipe.ranker.candidates if recipe.ranker else 0
    return torch.cat([_useless(config, pre_ranker, ranker, part, keep, generator) for part in parts])


@torch.inference_mode()
def _useless(
    config: HardNegatives,
    pre_ranker: CandidateModel | None,
    ranker: CandidateModel | None,
    examples: RankingSet,
    keep: int,
    generator: torch.Generator,
) -> Tensor:
    """Return [Q, R] rows of candidates that the pre-ranker drops or the ranker puts last."""
    dropped_QC = logit_QC = None
    if pre_ranker is not None:
        logit_QC = predict(pre_ranker, examples)[..., 0].masked_fill(~examples.present_QC, float("-inf"))
        dropped_QC = ranks(logit_QC) >= keep if ranker is not None else None
    if ranker is not None:
        logit_QC = predict(ranker, examples)[..., 0]
    open_QC = examples.present_QC & (examples.label_QCT[..., 0] <= 0)
    return rejected(config, examples.row_QC, open_QC, dropped_QC, logit_QC, generator)
