"""One run of a recipe: what all its steps share."""

from dataclasses import dataclass, field

from shards.column_encoder import texts
from shards.tokenizer import Tokenizer
from training.checkpoints import Checkpoints
from training.datasets.splits import split_of
from training.datasets.statistics import DAY_MS
from training.datasets.tables import Dataset, timestamps_ms
from training.evaluation.offline import GateRule
from training.recipe import Recipe
from training.snapshot import Requests, Snapshot, browsing_at, requests_between, snapshot
from training.trainer import Observer, PhaseStarted, Seeded, ignore

GOLDENS = 8
"""Golden requests of a bundle."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A recipe with the data and the seed that it is trained with.

    `gate` says whether a search runs the gated channels, so that rankers meet candidates as they will when
    serving.
    """

    recipe: Recipe
    dataset: Dataset
    seed: int
    gate: GateRule
    threads: int = 1
    observe: Observer = ignore
    checkpoints: Checkpoints = field(default_factory=Checkpoints)
    """Where a run that was broken off goes on from; steps that train nothing are done again."""

    def seeded(self) -> Seeded:
        """Return what fixes the random choices of a step."""
        return Seeded(seed=self.seed, threads=self.threads)

    def early_ms(self, test_ms: int) -> int:
        """Return the early moment: `ranking_days` before the test, later if that holds queries enough.

        Where the merge is fitted it is the start of the valid split.
        """
        if self.recipe.fit_merge:
            return split_of(self.dataset.queries).valid_from_ms
        times_ms = timestamps_ms(self.dataset.queries)
        recent = times_ms[(times_ms >= test_ms - self.recipe.ranking_days * DAY_MS) & (times_ms < test_ms)]
        if not len(recent) or len(recent) == int((times_ms < test_ms).sum()):
            raise ValueError("ranking_days must leave queries on both sides of the early moment")
        return int(recent[-self.recipe.ranking_queries :][0])

    def snapshot(self, now_ms: int) -> Snapshot:
        """Return what was known at a moment, with the neighbours of items where the recipe has them."""
        known = snapshot(self.dataset, now_ms)
        return known.with_neighbours(self.recipe.item_graph, self.dataset.users)

    def tokenizer(self, early: Snapshot) -> Tokenizer:
        """Return a tokeniser made from the texts and queries known then."""
        columns = [early.items.column(name).to_pylist() for name in self.recipe.features.token_sources]
        some = [text for column in columns for text in texts(column)]
        return Tokenizer.train(
            [*some, *early.queries.column("query").to_pylist()], vocab_size=self.recipe.features.vocab_size
        )

    def requests_between(self, start_ms: int, end_ms: int, *, newest: int) -> Requests:
        """Return at most the `newest` queries in [start, end), each as of its own time."""
        return requests_between(
            self.dataset, start_ms, end_ms, newest=newest, history_limit=self.recipe.history_limit
        )

    def requests_until(self, now_ms: int) -> Requests:
        """Return what the two-tower model learns from, or what the goldens of other channels ask."""
        self.observe(PhaseStarted(phase="encoding queries"))
        newest = self.recipe.two_tower_queries if self.recipe.embeds else GOLDENS
        return self.requests_between(0, now_ms, newest=newest)

    def browsing(self, known: Snapshot) -> Requests:
        """Return requests without a query, of the newest users known."""
        return browsing_at(
            self.dataset, known.now_ms, newest=GOLDENS, history_limit=self.recipe.history_limit
        )
