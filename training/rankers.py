"""The scoring stages trained: the pre-ranker and the ranker share features, candidates and labels.

A recipe may have one of them alone: a ranker without a pre-ranker is given what the channels merge to.

Legend: Q = requests, T = tasks.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

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
)
from training.features import fit_spec, model_inputs
from training.hard_negatives import HardNegatives, ranks, rejected
from training.judgements import Judgements, encoded, fitting_data
from training.models.averaged import Averaged
from training.models.fields import ModelInputs
from training.models.group_gate import GroupGate
from training.models.multi_task_ranker import MultiTaskRanker, MultiTaskRankerConfig
from training.models.task_links import TaskLinks
from training.models.three_tower import ThreeTower, ThreeTowerConfig
from training.ranker_course import Course
from training.ranking import CandidateModel, RankingSet, joined, predict
from training.recipe import RankerRecipe, Recipe
from training.snapshot import Snapshot
from training.task_losses import fitted_tasks
from training.task_serving import TaskServing, calibrated, fitted_serving
from training.trainer import Observer, Seeded, ignore


@dataclass(frozen=True, slots=True, kw_only=True)
class Rankers:
    """The trained models that the recipe has and what encodes their features."""

    pre_ranker: ThreeTower | None
    ranker: MultiTaskRanker | Averaged | None
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
    again: "Rankers | None" = None
    """Those trained again on what was held out as well, where the recipe does so: what is served."""


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
    spec = fit_spec(recipe.features.ranking, fitting_data(items, train))
    inputs = model_inputs(spec, tokenizer, len(items))
    examples, judged = (encoded(spec, tokenizer, items, part) for part in (train, held_out))
    course = Course(
        tasks=fitted_tasks(
            recipe.tasks, examples.label_QCT, examples.weight_QCT, at_rate=recipe.start_at_rate
        ),
        generator=seeded.apply(),
        observe=observe,
        checkpoints=checkpoints or Checkpoints(),
    )
    first = _untrained(recipe.pre_ranker, spec, inputs, examples, course) if recipe.pre_ranker else None
    ranker: MultiTaskRanker | Averaged | None = None
    pre_ranker_ndcg = ranker_ndcg = float("nan")
    serving, links = TaskServing(), course.tasks.links()
    if first and recipe.pre_ranker:
        own, held = (first.read(part) for part in (examples, judged))
        pre_ranker_ndcg = course.train("pre_ranker", first.model, recipe.pre_ranker.training, own, held)
    scored = first.of_all if first else None
    both = (examples, judged)
    if recipe.ranker:
        training = recipe.ranker.training
        examples, judged = (_passed_on(scored, part, recipe.ranker.candidates) for part in both)
        ranker = _trained_ranker(recipe.ranker, inputs, examples, judged, course)
        with torch.inference_mode():
            logit_QCT = predict(ranker, judged)
        if training.calibrate:
            links = calibrated(links, recipe.tasks, logit_QCT, judged)
        serving, ranker_ndcg = fitted_serving(recipe.tasks, items, examples, judged, links(logit_QCT))
    found = Rankers(
        pre_ranker=first.model if first else None,
        ranker=ranker,
        spec=spec,
        tokenizer=tokenizer,
        tasks=tuple(task.name for task in recipe.tasks),
        links=links,
        serving=serving,
        pre_ranker_ndcg=pre_ranker_ndcg,
        ranker_ndcg=ranker_ndcg,
        rejected_QR=_rejected(recipe, scored, ranker, both, course.generator),
        groups=first.groups if first else None,
    )
    again = _trained_again(recipe, found, inputs, joined(both), course) if recipe.train_again else None
    return replace(found, again=again)


def _trained_again(
    recipe: Recipe, found: Rankers, inputs: ModelInputs, examples: RankingSet, course: Course
) -> Rankers:
    """Return the rankers with models trained on all examples, for the epochs that the found ones took."""
    first: _PreRanker | None = None
    if recipe.pre_ranker:
        first = _PreRanker.untrained(recipe.pre_ranker, inputs, found.groups)
        course.train_again("pre_ranker", first.model, recipe.pre_ranker.training, first.read(examples))
        found = replace(found, pre_ranker=first.model)
    if recipe.ranker:
        examples = _passed_on(first.of_all if first else None, examples, recipe.ranker.candidates)
        found = replace(found, ranker=_trained_ranker(recipe.ranker, inputs, examples, None, course))
    return found


def _trained_ranker(
    config: RankerRecipe[MultiTaskRankerConfig],
    inputs: ModelInputs,
    examples: RankingSet,
    judged: RankingSet | None,
    course: Course,
) -> MultiTaskRanker | Averaged:
    """Return the ranker, or the mean of several, each trained by itself from a beginning of its own.

    Without requests to be judged by, each lasts as long as the one before it did.
    """
    members = []
    for number in range(1, config.model.members + 1):
        member = MultiTaskRanker(config.model, inputs)
        name = "ranker" if number == 1 else f"ranker_{number}"
        if judged is None:
            course.train_again(name, member, config.training, examples)
        else:
            course.train(name, member, config.training, examples, judged)
        members.append(member)
    return members[0] if len(members) == 1 else Averaged(members)


@dataclass(frozen=True, slots=True, kw_only=True)
class _PreRanker:
    """A pre-ranker and the groups of cross features that it reads; None for all."""

    model: ThreeTower
    groups: KeptGroups | None

    @classmethod
    def untrained(
        cls, config: RankerRecipe[ThreeTowerConfig], inputs: ModelInputs, groups: KeptGroups | None
    ) -> "_PreRanker":
        """Return one that has learnt nothing."""
        read = narrowed(inputs, groups.columns) if groups else inputs
        return cls(model=ThreeTower(config.model, read), groups=groups)

    @property
    def of_all(self) -> CandidateModel:
        """Return the model as one that is given all features."""
        return Narrowed(self.model, self.groups.columns) if self.groups else self.model

    def read(self, part: RankingSet) -> RankingSet:
        """Return the features that it reads."""
        return part.columns(self.groups.columns) if self.groups else part


def _untrained(
    config: RankerRecipe[ThreeTowerConfig],
    spec: FeatureSpec,
    inputs: ModelInputs,
    examples: RankingSet,
    course: Course,
) -> _PreRanker:
    """Return the pre-ranker to train; the groups that it reads are chosen first, where not all are kept."""
    groups = _weighed_groups(config, spec, inputs, examples, course) if config.model.kept_groups else None
    return _PreRanker.untrained(config, inputs, groups)


def _weighed_groups(
    config: RankerRecipe[ThreeTowerConfig],
    spec: FeatureSpec,
    inputs: ModelInputs,
    examples: RankingSet,
    course: Course,
) -> KeptGroups:
    """Weigh the groups of features by a pre-ranker that reads all, and keep those of most weight."""
    groups = feature_groups(spec)
    if config.model.kept_groups > len(groups):
        raise ValueError(f"kept_groups must be at most {len(groups)}, the groups: {', '.join(groups)}")
    gate = GroupGate(config.model, inputs, list(groups.values()))
    course.weigh(gate, config.training, examples)
    return kept_groups(spec, group_weights(gate, examples, list(groups)), config.model.kept_groups)


def _passed_on(pre_ranker: CandidateModel | None, examples: RankingSet, keep: int) -> RankingSet:
    """Return the candidates that the ranker is given when serving: the pre-ranker's best, or the first."""
    if pre_ranker is None:
        return examples.first(keep)
    with torch.inference_mode():
        return examples.best(predict(pre_ranker, examples)[..., 0], keep)


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
