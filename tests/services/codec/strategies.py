"""Hypothesis strategies for every value that the codec carries."""

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from shards.candidates import Candidates
from shards.changes import (
    ApplyPlan,
    Change,
    DeployRelease,
    DrainShard,
    DropModel,
    FreezeCluster,
    HoldModel,
    ModelPolicy,
    RestartShards,
    RollbackRelease,
    ScaleShards,
    SetAlias,
    SetTraffic,
    UndrainShard,
)
from shards.diversity import AttributeQuota, Diversity
from shards.intent import Intent, Operation, OperationState
from shards.live_quality import Drift, LiveQuality, Recall
from shards.placement import Assignment, Placement
from shards.planner import PlannedMove
from shards.release import (
    GATE_MODES,
    LEARNED_MODES,
    GateRules,
    ModelVersion,
    Release,
    ReleaseChannel,
    ReleaseRole,
    ReleaseScorer,
    Stage,
    Traffic,
)
from shards.release_quality import Measure, ReleaseQuality
from shards.replica import Replica, ReplicaState
from shards.search_context import FilterClause, History, RawValue, SearchContext, UserState

words = st.text(min_size=1, max_size=12)
finite = st.floats(allow_nan=False, allow_infinity=False)
# What travels as float32 comes back as the decimal a person would write.
decimals = st.integers(-9999, 9999).map(lambda n: n / 1000)
moments_ms = st.integers(-62_135_596_800_000, 253_402_300_799_999)
counts = st.integers(0, 10_000)

raw_values: st.SearchStrategy[RawValue] = st.one_of(st.text(), finite, st.lists(st.text()).map(tuple))
features = st.dictionaries(words, raw_values, max_size=4)
models = st.builds(ModelVersion, words, words)


@st.composite
def histories(draw: st.DrawFn) -> History:
    times = sorted(draw(st.lists(st.integers(-(2**63), 2**63 - 1), max_size=6)))
    lists = st.lists(st.text(max_size=5), min_size=len(times), max_size=len(times)).map(tuple)
    return History(draw(lists), draw(lists), tuple(times))


users = st.builds(UserState, user_id=st.text(), features=features, history=histories())
contexts = st.builds(
    SearchContext, query=st.text(max_size=50), user=users, features=features, now_ms=moments_ms
)


@st.composite
def ranges(draw: st.DrawFn) -> FilterClause:
    low, high = sorted((draw(finite), draw(finite)))
    open_end = draw(st.sampled_from(("min", "max", None)))
    return FilterClause(
        attribute=draw(words),
        min=None if open_end == "min" else low,
        max=None if open_end == "max" else high,
        negate=draw(st.booleans()),
    )


choices = st.builds(
    FilterClause,
    attribute=words,
    any_of=st.lists(st.text(), min_size=1).map(tuple),
    min=st.none(),
    max=st.none(),
    negate=st.booleans(),
)
filters = st.lists(choices | ranges(), max_size=4).map(tuple)


@st.composite
def candidates(draw: st.DrawFn) -> Candidates:
    item_ids = tuple(draw(st.lists(words, unique=True, max_size=300)))
    column = arrays.arrays(
        np.float32, len(item_ids), elements=st.floats(width=32, allow_infinity=False, allow_nan=True)
    )
    texts = st.lists(st.text(), max_size=len(item_ids)).map(tuple)
    return Candidates(
        item_ids=item_ids,
        columns=draw(st.dictionaries(words, column, max_size=3)),
        attributes=draw(st.dictionaries(words, texts, max_size=2)),
    )


def scorers(most: int) -> st.SearchStrategy[ReleaseScorer]:
    return st.builds(
        ReleaseScorer, model=models, candidates=st.integers(1, most), budget_ms=st.integers(1, 60_000)
    )


channels = st.builds(
    ReleaseChannel,
    name=words,
    model=models,
    k=st.integers(1, 10_000),
    quota=counts,
    weight=decimals.map(abs),
    gated=st.booleans(),
    partitions=st.integers(1, 256),
)
ratios = st.floats(0, 1)
finite = st.floats(allow_nan=False, allow_infinity=False)


@st.composite
def gates(draw: st.DrawFn) -> GateRules:
    mode = draw(st.sampled_from(GATE_MODES))
    return GateRules(
        mode=mode,
        item_id_pattern=draw(st.sampled_from(("", r"\d{5}[a-z]?"))),
        allow=draw(st.lists(words).map(tuple)),
        block=draw(st.lists(words).map(tuple)),
        min_query_chars=draw(counts),
        navigational=draw(st.lists(words).map(tuple)),
        navigational_share=draw(ratios),
        refinding_cover=draw(ratios),
        model=draw(models if mode in LEARNED_MODES else st.none() | models),
        target_rate=draw(ratios),
        least_rate=draw(ratios),
        shadow_percent=draw(st.floats(0, 100)),
    )


@st.composite
def diversities(draw: st.DrawFn) -> Diversity:
    attributes = draw(st.lists(words, max_size=2).map(tuple))
    return Diversity(
        relevance=draw(ratios) if attributes else 1.0,
        attributes=attributes,
        quotas=draw(st.lists(quotas(), max_size=2).map(tuple)),
        candidates=draw(st.integers(1, 500)),
    )


@st.composite
def quotas(draw: st.DrawFn) -> AttributeQuota:
    at_most, within = sorted((draw(st.integers(1, 100)), draw(st.integers(1, 100))))
    return AttributeQuota(attribute=draw(words), at_most=at_most, within=within, each=draw(st.booleans()))


measures = st.builds(
    Measure,
    name=words,
    live=finite,
    candidate=finite,
    gain=finite,
    error=finite,
    tolerated=finite,
)
qualities = st.builds(
    ReleaseQuality,
    live_version=st.text(),
    queries=counts,
    measures=st.lists(measures, max_size=2).map(tuple),
    override_reason=st.text(),
)
releases = st.builds(
    Release,
    surface=words,
    version=words,
    gate=gates(),
    channels=st.lists(channels, min_size=1, max_size=3, unique_by=lambda channel: channel.name).map(tuple),
    pre_ranker=st.none() | scorers(20_000),
    ranker=st.none() | scorers(5_000),
    merged=st.integers(1, 20_000),
    task_exponents=st.dictionaries(words, decimals, max_size=3),
    attributes=st.lists(words).map(tuple),
    retrieval_budget_ms=st.integers(1, 60_000),
    history_limit=counts,
    as_of_ms=st.none() | moments_ms,
    on_demand=st.booleans(),
    diversity=st.none() | diversities(),
    quality=st.none() | qualities,
)
shares = st.floats(0.001, 99.999)
traffics = st.builds(
    Traffic,
    canary=st.none() | releases,
    canary_percent=shares,
    shadow=st.none() | releases,
    shadow_percent=shares,
    previous=st.none() | releases,
)


@st.composite
def policies(draw: st.DrawFn) -> ModelPolicy:
    least, most = sorted((draw(st.integers(1, 100)), draw(st.integers(1, 100))))
    pinned = draw(st.booleans())
    return ModelPolicy(
        model=draw(models),
        min_replicas=draw(st.none() | st.just(least)),
        max_replicas=draw(st.none() | st.just(most)),
        pinned=pinned,
        on_demand=draw(st.booleans()),
        standalone=draw(st.booleans()),
    )


@st.composite
def moves(draw: st.DrawFn) -> PlannedMove:
    from_shard, to_shard = draw(st.lists(st.text(max_size=5), min_size=2, max_size=2, unique=True))
    return PlannedMove(
        model=draw(models),
        from_shard=from_shard,
        to_shard=to_shard,
        memory_bytes=draw(st.integers(0, 2**60)),
        reason=draw(words),
    )


deploys = st.one_of(
    st.builds(DeployRelease, release=releases, role=st.just(ReleaseRole.LIVE), percent=st.just(100.0)),
    st.builds(
        DeployRelease,
        release=releases,
        role=st.sampled_from((ReleaseRole.CANARY, ReleaseRole.SHADOW)),
        percent=shares,
    ),
)
changes: st.SearchStrategy[Change] = st.one_of(
    deploys,
    st.builds(RollbackRelease, surface=words),
    st.builds(
        SetTraffic,
        surface=words,
        version=words,
        percent=st.floats(0, 100),
        quality=st.none() | qualities,
    ),
    st.builds(SetAlias, alias=words.filter(lambda alias: "@" not in alias), target=st.text()),
    st.builds(
        ApplyPlan, generation=st.integers(0, 2**64 - 1), moves=st.lists(moves(), min_size=1).map(tuple)
    ),
    st.builds(DrainShard, shard_id=words),
    st.builds(UndrainShard, shard_id=words),
    st.builds(ScaleShards, shards=st.integers(1, 10_000), gpu_fraction=st.none() | st.floats(0.01, 1)),
    st.builds(
        RestartShards,
        shard_ids=st.lists(words, unique=True).map(tuple),
        incarnations=st.dictionaries(words, words),
    ),
    st.builds(HoldModel, policy=policies()),
    st.builds(DropModel, model=models),
    st.builds(FreezeCluster, frozen=st.booleans()),
)
operations = st.builds(
    Operation,
    operation_id=words,
    change=changes,
    state=st.sampled_from(OperationState),
    steps_done=counts,
    steps_total=counts,
    detail=st.text(),
    start_ms=moments_ms,
    end_ms=st.none() | moments_ms,
)
intents = st.builds(
    Intent,
    shard_ids=st.lists(words).map(tuple),
    gpu_fraction=st.none() | st.floats(0.01, 1),
    drained=st.lists(words).map(tuple),
    frozen=st.booleans(),
    policies=st.lists(policies(), max_size=2).map(lambda held: {policy.model: policy for policy in held}),
    operations=st.lists(operations, max_size=3).map(tuple),
)


@st.composite
def placements(draw: st.DrawFn) -> Placement:
    assignments = draw(
        st.lists(
            st.builds(
                Assignment, model=models, stage=st.sampled_from(Stage), shard_ids=st.lists(words).map(tuple)
            ),
            max_size=4,
        )
    )
    live = draw(st.lists(releases, max_size=2))
    return Placement(
        generation=draw(st.integers(0, 2**64 - 1)),
        endpoints=draw(st.dictionaries(words, words, max_size=3)),
        assignments={assignment.model: assignment for assignment in assignments},
        releases={release.surface: release for release in live},
        traffic=draw(st.dictionaries(words, traffics, max_size=1)),
        aliases=draw(st.dictionaries(words, words, max_size=2)),
        intent=draw(intents),
    )


_SHARES = st.floats(0.0, 1.0)
_RECALLS = st.none() | st.builds(
    Recall, mean=_SHARES, low=_SHARES, high=_SHARES, searches=st.integers(1, 2**40)
)
_DRIFTS = st.builds(
    Drift,
    column=words,
    psi=st.floats(0.0, 100.0),
    ks=_SHARES,
    searches=st.integers(0, 2**40),
    drifted=st.booleans(),
)

replicas = st.builds(
    Replica,
    model=models,
    stage=st.sampled_from(Stage),
    state=st.sampled_from(ReplicaState),
    memory_bytes=st.integers(0, 2**60),
    error=st.text(max_size=40),
    load_time_ms=st.integers(0, 10**9),
    gpu_memory_bytes=st.integers(0, 2**60),
    requests=st.integers(0, 2**60),
    loads=st.integers(0, 2**60),
    evictions=st.integers(0, 2**60),
    quality=st.builds(
        LiveQuality,
        golden=_RECALLS,
        live=_RECALLS,
        recall_alarm=st.booleans(),
        drifts=st.lists(_DRIFTS, max_size=3).map(tuple),
    ),
)
