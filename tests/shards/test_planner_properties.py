"""What every plan keeps, whatever the cluster: GPU, drains, groups, budgets, load, on demand, optional."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from shards.planner import Assigned, Churn, Limits, Mode, ModelFacts, Plan, ShardFacts, plan
from shards.release import ModelVersion

NOW_MS = 1_000_000


@dataclass(frozen=True)
class Case:
    shards: tuple[ShardFacts, ...]
    models: tuple[ModelFacts, ...]
    load: Mapping[ModelVersion, float]
    previous: Assigned
    limits: Limits

    def plan(self, **changed: object) -> Plan:
        case = replace(self, **changed)  # type: ignore[arg-type]
        return plan(NOW_MS, case.shards, case.models, case.load, case.previous, case.limits)


def version(n: int) -> ModelVersion:
    return ModelVersion(f"m{n}", "1")


shards_drawn = st.builds(
    ShardFacts,
    shard_id=st.sampled_from([f"s{n}" for n in range(8)]),
    node=st.sampled_from(["n0", "n1", "n2", "n3"]),
    capacity_bytes=st.integers(0, 200),
    gpu_capacity_bytes=st.sampled_from([0, 40, 80]),
    lost_since_ms=st.sampled_from([None, None, None, NOW_MS - 1, NOW_MS - 90_000]),
    drained=st.sampled_from([False, False, False, True]),
)
models_drawn = st.builds(
    ModelFacts,
    model=st.builds(version, st.integers(0, 9)),
    memory_bytes=st.integers(0, 60),
    gpu_memory_bytes=st.sampled_from([0, 0, 0, 10, 30]),
    releases=st.frozensets(st.sampled_from(["x", "y", "z"]), max_size=2),
    min_replicas=st.sampled_from([None, None, 1, 3]),
    max_replicas=st.sampled_from([None, None, None, 1, 4]),
    group=st.sampled_from(["", "", "p", "q"]),
    optional=st.sampled_from([False, False, True]),
    on_demand=st.sampled_from([False, False, True]),
)
holders_drawn = st.lists(st.sampled_from([f"s{n}" for n in range(9)]), unique=True, max_size=4).map(tuple)
churn_drawn = st.builds(
    Churn, moves=st.sampled_from([None, 0, 1, 3]), size_bytes=st.sampled_from([None, 30, 90])
)
unlimited = st.builds(
    Limits,
    min_replicas=st.integers(1, 2),
    max_replicas=st.integers(2, 3),
    headroom=st.sampled_from([0.0, 0.1, 0.5]),
    load_per_replica=st.sampled_from([float("inf"), 10.0]),
    mode=st.sampled_from(Mode),
)
budgeted = st.builds(
    lambda limits, churn, shard, node: replace(
        limits, churn=churn, churn_per_shard=shard, churn_per_node=node
    ),
    unlimited,
    churn_drawn,
    churn_drawn,
    churn_drawn,
)


def cases(limits: st.SearchStrategy[Limits]) -> st.SearchStrategy[Case]:
    return st.builds(
        Case,
        shards=st.lists(shards_drawn, max_size=7, unique_by=lambda s: s.shard_id).map(tuple),
        models=st.lists(models_drawn, max_size=9, unique_by=lambda m: m.model).map(tuple),
        load=st.dictionaries(st.builds(version, st.integers(0, 9)), st.floats(0, 60), max_size=9),
        previous=st.dictionaries(st.builds(version, st.integers(0, 11)), holders_drawn, max_size=9),
        limits=limits,
    )


def open_shards(case: Case) -> list[ShardFacts]:
    return [s for s in case.shards if s.lost_since_ms is None and not s.drained]


def used(case: Case, assignments: Assigned, shard_id: str, *, optional: bool = True) -> tuple[int, int]:
    """Return the host and GPU bytes that a shard must have; of what is on demand, the biggest."""
    held = [m for m in case.models if shard_id in assignments[m.model] and (optional or not m.optional)]
    fixed, shared = [m for m in held if not m.on_demand], [m for m in held if m.on_demand]
    return (
        sum(m.memory_bytes for m in fixed) + max((m.memory_bytes for m in shared), default=0),
        sum(m.gpu_memory_bytes for m in fixed) + max((m.gpu_memory_bytes for m in shared), default=0),
    )


def takes(case: Case, assignments: Assigned, shard: ShardFacts, model: ModelFacts) -> bool:
    """Return whether a shard has room for one more replica, if it lets go what is optional."""
    more = {**assignments, model.model: (*assignments[model.model], shard.shard_id)}
    host, gpu = used(case, more, shard.shard_id, optional=False)
    share = 1 - case.limits.headroom
    gpu_fits = not model.gpu_memory_bytes or gpu <= int(shard.gpu_capacity_bytes * share)
    return gpu_fits and host <= int(shard.capacity_bytes * share)


@settings(deadline=None)
@given(cases(budgeted))
def test_what_is_required_has_its_minimum_unless_no_shard_can_take_it(case: Case) -> None:
    answer = case.plan()
    told = {unplaced.model for unplaced in answer.unplaced}
    for facts in (m for m in case.models if not m.optional):
        holders = answer.assignments[facts.model]
        least, _ = case.limits.bounds(facts)
        if len(holders) < least:
            assert facts.model in told
            others = [s for s in open_shards(case) if s.shard_id not in holders]
            # Only the balance may have made room since, and it has found no better use for it.
            if case.limits.mode is Mode.EMERGENCY:
                assert not any(takes(case, answer.assignments, s, facts) for s in others)


@settings(deadline=None)
@given(cases(budgeted))
def test_no_shard_holds_more_than_its_memory(case: Case) -> None:
    answer = case.plan()
    for shard in case.shards:
        host, gpu = used(case, answer.assignments, shard.shard_id)
        assert host <= shard.capacity_bytes
        assert gpu <= shard.gpu_capacity_bytes


@settings(deadline=None)
@given(cases(unlimited))
def test_a_replica_shares_a_node_only_where_no_other_node_has_room(case: Case) -> None:
    fresh = replace(case, previous={}, limits=replace(case.limits, mode=Mode.EMERGENCY))
    answer = fresh.plan()
    node = {s.shard_id: s.node for s in case.shards}
    for facts in (m for m in case.models if not m.optional):
        nodes = [node[shard_id] for shard_id in answer.assignments[facts.model]]
        if len(set(nodes)) < len(nodes):
            others = [s for s in open_shards(case) if s.node not in nodes]
            assert not any(takes(fresh, answer.assignments, s, facts) for s in others)


@settings(deadline=None)
@given(cases(unlimited))
def test_losing_a_shard_moves_only_what_it_held(case: Case) -> None:
    limits = replace(case.limits, mode=Mode.EMERGENCY, load_per_replica=float("inf"))
    models = tuple(replace(m, optional=False) for m in case.models)
    roomy = tuple(
        replace(s, capacity_bytes=2_000, gpu_capacity_bytes=2_000, drained=False) for s in case.shards
    )
    case = replace(case, models=models, limits=limits, shards=roomy)
    before = case.plan()
    lost = next(iter(case.shards), None)
    if lost is not None:
        after = case.plan(shards=case.shards[1:], previous=before.assignments)
        held = {m for m, holders in before.assignments.items() if lost.shard_id in holders}
        short = {unplaced.model for unplaced in before.unplaced}
        assert {move.model for move in after.moves} <= held | short
        assert sum(bool(move.to_shard) for move in after.moves) <= len(held)


@settings(deadline=None)
@given(cases(unlimited))
def test_a_repair_carried_out_asks_for_nothing_more(case: Case) -> None:
    case = replace(case, limits=replace(case.limits, mode=Mode.EMERGENCY))
    assert case.plan(previous=case.plan().assignments).moves == ()


@settings(deadline=None)
@given(cases(budgeted))
def test_rounds_under_a_budget_come_to_rest(case: Case) -> None:
    case = replace(case, limits=replace(case.limits, mode=Mode.PERIODIC))
    for _ in range(60):
        answer = case.plan()
        if not answer.moves:
            return
        case = replace(case, previous=answer.assignments)
    raise AssertionError(f"still moving: {answer.moves}")


@settings(deadline=None)
@given(cases(budgeted))
def test_what_is_not_a_repair_keeps_to_the_budgets(case: Case) -> None:
    answer = case.plan()
    node = {s.shard_id: s.node for s in case.shards}
    free = [m for m in answer.moves if m.to_shard and not m.reason.startswith("repair: ")]
    per_shard: Counter[str] = Counter()
    per_node: Counter[str] = Counter()
    for move in free:
        ends = [s for s in (move.from_shard, move.to_shard) if s in node]
        per_shard.update(ends)
        per_node.update({node[s] for s in ends})
    for counts, churn in (
        ([len(free)], case.limits.churn),
        (per_shard.values(), case.limits.churn_per_shard),
        (per_node.values(), case.limits.churn_per_node),
    ):
        assert churn.moves is None or max(counts, default=0) <= churn.moves
    size_bytes = case.limits.churn.size_bytes
    assert size_bytes is None or sum(m.memory_bytes for m in free) <= size_bytes


@settings(deadline=None)
@given(cases(unlimited), st.sampled_from([Churn(moves=1), Churn(moves=2), Churn()]))
def test_drains_come_to_an_end_and_never_go_below_the_minimum(case: Case, churn: Churn) -> None:
    limits = replace(case.limits, mode=Mode.EMERGENCY, churn=churn)
    roomy = tuple(
        replace(s, capacity_bytes=2_000, gpu_capacity_bytes=2_000, lost_since_ms=None) for s in case.shards
    )
    case = replace(case, limits=limits, shards=roomy)
    for _ in range(40):
        answer = case.plan()
        for facts in (m for m in case.models if not m.optional):
            least, _ = limits.bounds(facts)
            had = len({s.shard_id for s in roomy} & set(case.previous.get(facts.model, ())))
            assert len(answer.assignments[facts.model]) >= min(had, least)
        case = replace(case, previous=answer.assignments)
        if not answer.moves:
            break
    stuck = {unplaced.model for unplaced in answer.unplaced}
    drained = {s.shard_id for s in roomy if s.drained}
    for model, holders in answer.assignments.items():
        assert not drained & set(holders) or model in stuck


@settings(deadline=None)
@given(cases(budgeted), st.randoms())
def test_the_order_of_the_facts_does_not_matter(case: Case, random: Random) -> None:
    previous = list(case.previous.items())
    shuffled = replace(
        case,
        shards=tuple(random.sample(case.shards, len(case.shards))),
        models=tuple(random.sample(case.models, len(case.models))),
        previous=dict(random.sample(previous, len(previous))),
    )
    assert shuffled.plan() == case.plan()


@settings(deadline=None)
@given(cases(budgeted))
def test_every_change_has_its_reason_and_is_a_move(case: Case) -> None:
    answer = case.plan()
    after = {m: set(case.previous.get(m, ())) for m in {*case.previous, *answer.assignments}}
    for move in answer.moves:
        assert move.reason
        after[move.model] -= {move.from_shard}
        after[move.model] |= {move.to_shard} - {""}
    assert {m: s for m, s in after.items() if s} == {m: set(h) for m, h in answer.assignments.items() if h}
