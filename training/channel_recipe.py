"""A channel's recipe: what it is made from, and how it takes part in the merge."""

from dataclasses import dataclass, field
from typing import Literal

from shards.ann_index import AnnKnobs
from shards.geo import GeoParams
from shards.interests import InterestParams
from shards.lexical import LexicalParams
from training.neural_cf import NeuralCFTraining

Source = Literal[
    "two_tower",
    "deep_retrieval",
    "suggestions",
    "item_vectors",
    "lexical",
    "query_memory",
    "token_memory",
    "title_popularity",
    "item_cf",
    "swing",
    "successors",
    "user_cf",
    "geo",
    "author",
    "own",
    "cached",
    "neural_cf",
    "popular",
    "trending",
    "new",
]

EMBEDDING_SOURCES: tuple[Source, ...] = ("two_tower", "deep_retrieval", "suggestions")
"""Those that a trained embedding serves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelRecipe:
    """One retrieval channel: what it is made from and how it takes part in the merge."""

    name: str
    source: Source
    k: int = 200
    quota: int = 20
    weight: float = 1.0
    gated: bool = False
    half_life_days: float = 60.0
    """How fast what "query_memory", "token_memory", "own", "cached" and "trending" remember fades."""
    top: int = 200
    """Items that a table keeps for each key."""
    popularity: str = "popularity_30d"
    """The item column that "popular" and "title_popularity" go by."""
    text: tuple[str, ...] = ("title",)
    """The item columns whose words "title_popularity" goes by."""
    actions: tuple[str, ...] = ()
    """What item_cf, swing, successors, author, cached, neural_cf and item_vectors go by; none: all events."""
    like_half_life_days: float | None = None
    """How fast likes fade in "item_cf", "swing", "user_cf" and "author"; None: never."""
    interest_half_life_days: float | None = None
    """How fast the user's own likes fade where "item_cf", "swing", "successors" and "author" answer; None:
    never, and every event of an item counts."""
    fresh_half_life_days: float | None = None
    """How fast what is recommended fade in "user_cf" and, for discovery, in "item_cf"; None: never."""
    discovery: bool = False
    """Whether "item_cf", "user_cf" and "trending" go by when users met an item first: for next new items."""
    window_days: float | None = None
    """How far back "item_cf" and "swing" look; None: all the way."""
    shrink: float = 5.0
    """How many common users it takes for "item_cf" and "successors" to count in full."""
    gap_decay: float = 0.8
    """What each step between two items of a user leaves of what they tell "successors"."""
    most_steps: int = 20
    """How many steps on "successors" looks."""
    alpha: float = 1.0
    """What "swing" adds to the items that two users share."""
    user_weights: bool = False
    """Whether "swing" has users of many items count for less."""
    neighbours: int = 100
    """Similar users that "user_cf" asks."""
    within_days: float = 30.0
    """For how long an item is "new", and when what "cached" holds expires."""
    column: str = ""
    """The item column that "author" goes by, say "brand"."""
    followed: str = ""
    """The user feature that lists the authors that a user follows, for "author"."""
    similar_weight: float = 0.3
    """What an item of a similar author counts for "author", beside 1 for one of the author's own."""
    neural_cf: NeuralCFTraining = field(default_factory=NeuralCFTraining)
    radius: float | None = None
    """The least cosine of what "two_tower" finds; None: the `k` nearest however far."""
    stored_vectors: bool = False
    """Whether "two_tower" asks with the vector that `headrace users embed` has stored with the user, where
    there is one."""
    active_within_days: float | None = None
    """The index of "two_tower" holds what was acted on within so many days; None: every item."""
    clusters: int = 0
    """So many clusters are what items of "two_tower" are put into."""
    nearest_clusters: int = 1
    """The nearest of them that share an answer of "two_tower"; 1: the nearest items of all."""
    index: str = ""
    """The FAISS factory string of the index of "two_tower", say IVF64,PQ32x4fs,RFlat; empty: by its size."""
    ann: AnnKnobs = field(default_factory=AnnKnobs)
    """How far a search looks in that index."""
    newest: int = 20
    """The user's newest items that "item_vectors" asks with, where it knows no interests."""
    interests: InterestParams | None = None
    """How "item_vectors" cuts a history into interests, whose medoids ask then."""
    geo: GeoParams = field(default_factory=GeoParams)
    lexical: LexicalParams = field(default_factory=LexicalParams)

    def __post_init__(self) -> None:
        if not 0 < self.gap_decay <= 1:
            raise ValueError(f"gap_decay must be a share above 0, not {self.gap_decay:g}")
        if self.most_steps < 1:
            raise ValueError(f"most_steps must be at least 1, not {self.most_steps}")
        if not 1 <= self.nearest_clusters <= max(self.clusters, 1):
            raise ValueError(f"nearest_clusters must be 1 to {max(self.clusters, 1)}, the clusters")
        if self.index and self.source != "two_tower":
            raise ValueError(f"index is for channels of source two_tower, not {self.source}")
