"""How the models of a recipe are trained one after another: with early stopping, and again on everything."""

from dataclasses import dataclass, field, replace

import torch

from training.checkpoints import Checkpoints
from training.feature_groups import weight_penalty
from training.models.group_gate import GroupGate
from training.ranking import RankingSet, RankingTraining, ndcg_at_10, predict, train_ranker
from training.task_losses import FittedTasks
from training.trainer import Observer


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """What they are trained with."""

    tasks: FittedTasks
    generator: torch.Generator
    observe: Observer
    checkpoints: Checkpoints
    _epochs: dict[str, int] = field(default_factory=dict, init=False)
    """The best epoch of each model that was stopped by requests held out."""

    def train(
        self,
        name: str,
        model: torch.nn.Module,
        training: RankingTraining,
        examples: RankingSet,
        judged: RankingSet,
    ) -> float:
        """Train one model and return its NDCG@10 on the requests held out, which stop it."""
        fitted = train_ranker(
            name,
            model,
            training,
            examples,
            self.tasks,
            self.generator,
            evaluate=lambda: ndcg_at_10(predict(model, judged)[..., 0], judged),
            observe=self.observe,
            checkpoint=self.checkpoints.next(name, self.generator),
        )
        self._epochs[name] = fitted.best_epoch
        return fitted.best_metric

    def train_again(
        self, name: str, model: torch.nn.Module, training: RankingTraining, examples: RankingSet
    ) -> None:
        """Train a new model like the one of this name on all examples, for as long as that one was best."""
        again = f"{name}_again"
        train_ranker(
            again,
            model,
            replace(training, fit=replace(training.fit, epochs=self._epochs[name])),
            examples,
            self.tasks,
            self.generator,
            observe=self.observe,
            checkpoint=self.checkpoints.next(again, self.generator),
        )

    def weigh(self, gate: GroupGate, training: RankingTraining, examples: RankingSet) -> None:
        """Train a pre-ranker of all features whose groups are weighed; nothing stops it early."""
        name = "pre_ranker_groups"
        train_ranker(
            name,
            gate,
            training,
            examples,
            self.tasks,
            self.generator,
            penalty=lambda batch: weight_penalty(gate, batch),
            observe=self.observe,
            checkpoint=self.checkpoints.next(name, self.generator),
        )
