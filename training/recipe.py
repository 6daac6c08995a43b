"""A recipe: everything that decides how a surface's models are trained, as frozen values.

`training.overrides` changes single settings by path, `version_of` names what a recipe makes of a dataset.
"""

import hashlib
from dataclasses import dataclass, field, replace
from typing import Generic, TypeVar

from shards.diversity import Diversity
from shards.feature_kinds import Tokens
from shards.features import Feature
from shards.json_codec import render, to_json
from shards.release import GateRules
from training.channel_recipe import EMBEDDING_SOURCES, ChannelRecipe
from training.ensembles import EnsembleTraining
from training.gate import GateTraining
from training.glmix_recipe import GLMixRecipe, check_features
from training.item_graph import ItemGraph
from training.item_pairs import ItemPairTraining
from training.models.hydrated import Hydration
from training.models.multi_task_ranker import MultiTaskRankerConfig
from training.models.three_tower import ThreeTowerConfig
from training.paths import PathTraining
from training.prod2vec import Prod2VecTraining
from training.ranking import RankingTraining
from training.sequences import SequenceTraining
from training.tasks import Task
from training.two_tower_training import TwoTowerTraining
from training.updates import UpdateTraining

EMBEDDING_RECALL = "embedding recall@100"
"""The figure by which a two_tower channel is judged."""

M = TypeVar("M")
"""The settings of a ranker's model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureRecipe:
    """The features of the three models, vocabularies and scales still to be fitted; rankers share theirs."""

    two_tower: tuple[Feature, ...] = ()
    ranking: tuple[Feature, ...] = ()
    vocab_size: int = 4000
    """Tokens of the tokeniser."""
    token_sources: tuple[str, ...] = ("title",)
    """Item columns that the tokeniser learns from, beside the queries."""
    shared: tuple[tuple[str, ...], ...] = ()
    """Groups of categories of `two_tower` with one vocabulary and one embedding, say places."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RankerRecipe(Generic[M]):
    """A model of candidates and how it is trained and used."""

    model: M
    training: RankingTraining = field(default_factory=RankingTraining)
    candidates: int = 200
    """Candidates that the stage takes in."""
    budget_ms: int = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Searched:
    """A setting that tuning changes: a number between two, or one of `choices`."""

    path: str
    """As `--set` takes it, say two_tower.fit.learning_rate."""
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    """Whether it is drawn by its logarithm."""
    integer: bool = False
    choices: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.choices and not self.low < self.high:
            raise ValueError(f"{self.path}: low must be below high, or there must be choices")
        if self.log and self.low <= 0:
            raise ValueError(f"{self.path}: low must be positive where it is drawn by its logarithm")


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchSpace:
    """What `headrace tune recipe` tries, and the figure of a run, on held-out queries, that it goes by."""

    settings: tuple[Searched, ...] = ()
    metric: str = EMBEDDING_RECALL


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How to train all models of a surface: its channels and, where it has them, its rankers and its gate."""

    name: str
    surface: str
    dataset: str = ""
    """The data set that it trains on where none is named; empty for the one of the recipe's name."""
    channels: tuple[ChannelRecipe, ...]
    tasks: tuple[Task, ...] = ()
    """What the rankers predict; those that there are predict all of them."""
    features: FeatureRecipe = field(default_factory=FeatureRecipe)
    two_tower: TwoTowerTraining = field(default_factory=TwoTowerTraining)
    updates: UpdateTraining = field(default_factory=UpdateTraining)
    """How the two-tower model of a release goes on learning from what came since."""
    sequences: SequenceTraining | None = None
    """Makes the two_tower channel a history transformer, trained on events in place of queries."""
    ensemble: EnsembleTraining | None = None
    """Makes the two_tower channel several models in one bundle, in place of the one of `two_tower`."""
    prod2vec: Prod2VecTraining | None = None
    """Makes the two_tower channel vectors of items learned from sessions."""
    paths: PathTraining | None = None
    """Paths that are learned with the two-tower model, for a deep_retrieval channel."""
    hydration: Hydration | None = None
    """Numbers of items that the two_tower channel's vectors carry, by weights fitted after training."""
    item_graph: ItemGraph | None = None
    """Columns of the item table that hold each item's neighbours among queries, items and places."""
    item_pairs: ItemPairTraining | None = None
    """Trains the vectors of channels "item_vectors" from the item features of `features.two_tower`."""
    pre_ranker: RankerRecipe[ThreeTowerConfig] | None = None
    ranker: RankerRecipe[MultiTaskRankerConfig] | None = None
    glmix: GLMixRecipe | None = None
    """Makes the ranker a GLMix, fitted to labels of events in place of candidates of queries."""
    gate: GateRules = field(default_factory=GateRules)
    gate_model: GateTraining | None = None
    """None for a gate of rules alone."""
    merged: int = 400
    fit_merge: bool = False
    """Whether the channels' weights are fitted to what users of the valid split take next."""
    exclude_actions: tuple[str, ...] = ()
    """Items that the user's history holds with one of these actions are left out of the answer."""
    diversity: Diversity = field(default_factory=Diversity)
    """Puts the first items of a page in another order; this one leaves them: docs/diversity.md."""
    attributes: tuple[str, ...] = ("title",)
    history_limit: int = 200
    ranking_days: float = 60.0
    """Rankers train on the queries of this long before the test; the channels that find their candidates saw
    none of them."""
    ranking_queries: int = 20_000
    """At most this many of those queries, the newest, are used."""
    holdout: float = 0.2
    """Last share of the rankers' queries that early stopping and tuning look at and training does not."""
    start_at_rate: bool = False
    """Whether rankers foretell each task's rate before they learn anything, not even odds: pays where they
    learn from each candidate by itself and few are taken."""
    train_again: bool = False
    """Whether rankers, once those queries have chosen the epochs and given the figures, are trained again on
    all: what is newest is nearest to what will be asked. The gate learns from the rankers before."""
    refresh_days: float | None = None
    """How often the release is refreshed between trainings (`headrace refresh`): rankers and gates learn from
    candidates and statistics as fresh; None: they are as old as the training."""
    two_tower_queries: int = 200_000
    """At most this many of the newest queries train the two-tower model."""

    search: SearchSpace = field(default_factory=SearchSpace)
    """What can be tuned; it changes nothing of what a run makes."""

    def __post_init__(self) -> None:
        names = [channel.name for channel in self.channels]
        if len(set(names)) != len(names):
            raise ValueError("channel names must differ")
        self._check_tasks()
        if any(c.source == "item_vectors" for c in self.channels) != (self.item_pairs is not None):
            raise ValueError("channels of source item_vectors and item_pairs go together")
        if sum(channel.source == "two_tower" for channel in self.channels) > 1:
            raise ValueError("at most one channel can be a two_tower")
        self._check_embedding()
        self._check_glmix()
        self._check_gate()
        stored = any(channel.stored_vectors for channel in self.channels)
        if stored and not all(_of_user(feature) for feature in self.features.two_tower):
            raise ValueError("stored_vectors are for query towers that read nothing but the user")
        if self.fit_merge and self.judges:
            raise ValueError("fit_merge is for channels alone, without rankers and without a gate's model")
        if self.refresh_days is not None and self.refresh_days <= 0:
            raise ValueError("refresh_days must be positive")
        if not 0 < self.holdout < 1:
            raise ValueError("holdout must be a share between 0 and 1")
        for path, problem in self.diversity.problems():
            raise ValueError(f"diversity.{path} {problem}")

    def _check_tasks(self) -> None:
        names = tuple(task.name for task in self.tasks)
        if len(set(names)) != len(names):
            raise ValueError("task names must differ")
        if self.ranks and (not names or not self.tasks[0].of_all):
            raise ValueError("the first task of rankers must be binary, and defined of all candidates")
        for stage in (self.pre_ranker, self.ranker):
            if stage is not None and stage.model.tasks != names:
                raise ValueError(f"the tasks are {', '.join(names)}; those of a ranker's model differ")

    def _check_embedding(self) -> None:
        follows_paths = any(channel.source == "deep_retrieval" for channel in self.channels)
        others = self.sequences or self.prod2vec or self.hydration
        if follows_paths != (self.paths is not None) or (follows_paths and others is not None):
            raise ValueError("paths are for a deep_retrieval channel and go with a plain two-tower model")
        if self.sequences is not None and self.prod2vec is not None:
            raise ValueError("sequences and prod2vec are two models for one channel")
        if self.hydration is not None and not self.embeds:
            raise ValueError("hydration is for a two_tower channel")
        if self.ensemble is not None and (others is not None or self.paths is not None):
            raise ValueError("an ensemble is of two-tower models alone")
        several = self.two_tower.model.heads > 1
        if several and any(each is not None for each in (self.paths, self.hydration, self.ensemble)):
            raise ValueError("paths, hydration and ensembles are for query towers of one head")
        hard = self.two_tower.hard
        if hard.per_positive and hard.source == "rejected" and not self.ranks:
            raise ValueError("hard negatives that rankers rejected need a pre_ranker or a ranker")

    def _check_glmix(self) -> None:
        if self.glmix is None:
            return
        if self.ranks or self.gate_model is not None:
            raise ValueError("a glmix ranks alone, without other rankers and without a gate's model")
        check_features(self.features.ranking)

    def _check_gate(self) -> None:
        if self.gate_model is None:
            if self.gate.learned:
                raise ValueError(f"gate mode {self.gate.mode!r} needs a gate_model")
            return
        if self.gate_model.channel not in {c.name for c in self.channels if not c.gated}:
            raise ValueError(
                f"the gate cannot wait for {self.gate_model.channel!r}, which is no open channel"
            )
        if self.gate_model.label == "page" and not self.ranks:
            raise ValueError("gate_model.label 'page' needs rankers, which make the pages")

    @property
    def embeds(self) -> bool:
        """Return whether a channel is a two-tower model, or follows paths learned with one."""
        return any(channel.source in EMBEDDING_SOURCES for channel in self.channels)

    def embedding_alone(self) -> "Recipe":
        """Return the recipe of what the embedding model makes and nothing else, always asked."""
        embedded = [c for c in self.channels if c.source in EMBEDDING_SOURCES]
        return replace(
            self,
            channels=tuple(replace(channel, gated=False) for channel in embedded),
            pre_ranker=None,
            ranker=None,
            gate=GateRules(),
            gate_model=None,
        )

    def searched(self) -> "Recipe":
        """Return as much of the recipe as the figure takes that tuning goes by."""
        return self.embedding_alone() if self.search.metric == EMBEDDING_RECALL else self

    @property
    def reads_texts(self) -> bool:
        """Return whether a model reads texts, so that there has to be a tokeniser."""
        reading = self.embeds and self.sequences is None and self.prod2vec is None
        paired = self.item_pairs is not None
        paired = paired and any(isinstance(feature, Tokens) for feature in self.features.two_tower)
        return self.judges or paired or reading

    @property
    def ranks(self) -> bool:
        """Return whether there is a pre-ranker or a ranker."""
        return self.pre_ranker is not None or self.ranker is not None

    @property
    def judges(self) -> bool:
        """Return whether something learns from the candidates that early channels find."""
        return self.ranks or self.gate_model is not None

    @property
    def dataset_name(self) -> str:
        """Return the data set that it trains on where none is named."""
        return self.dataset or self.name


def _of_user(feature: Feature) -> bool:
    """Return whether a feature is the same for all searches of a user, or of an item."""
    source = getattr(feature, "source", "user")
    return source.partition(".")[0] in ("user", "user_id", "item")


def version_of(recipe: Recipe, dataset_digest: str, seed: int) -> str:
    """Return a short name that depends on the recipe, the data and the seed alone."""
    digest = hashlib.sha256(render(to_json(replace(recipe, search=SearchSpace()))))
    digest.update(f"{dataset_digest}:{seed}".encode())
    return digest.hexdigest()[:10]
