"""Whatever operators, shards, controllers and the store do: routers are never left without."""

from dataclasses import replace

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from shards.changes import (
    Change,
    DeployRelease,
    DrainShard,
    FreezeCluster,
    HoldModel,
    ModelPolicy,
    RestartShards,
    RollbackRelease,
    ScaleShards,
    SetTraffic,
    UndrainShard,
)
from shards.cluster_events import (
    Action,
    CancelRequested,
    ChangeRequested,
    CommitFailed,
    CommitPlacement,
    Event,
    LoadDone,
    LoadFailed,
    LoadModel,
    PlacementCommitted,
    RestartShard,
    ShardSeen,
    ShardSilent,
    ShardStopped,
    StartShard,
    StopShard,
    UnloadDone,
    UnloadModel,
)
from shards.cluster_state import BundleFacts
from shards.controller import step
from shards.observation import initial_state
from shards.placement import Placement
from shards.planner import Limits
from shards.release import ModelVersion, ReleaseRole, Stage
from shards.replica import Replica
from tests.shards.controller_rig import SETTINGS, ready, release, version

IDS = ("shard-0", "shard-1", "shard-2")

changes: st.SearchStrategy[Change] = st.one_of(
    st.builds(
        DeployRelease,
        release=st.builds(
            lambda n: release(str(n), retriever=f"towers{n % 2}", ranker=f"ranker{n}"), st.integers(1, 4)
        ),
        role=st.sampled_from(ReleaseRole),
        percent=st.just(10.0),
    ),
    st.builds(RollbackRelease, surface=st.just("web")),
    st.builds(
        SetTraffic,
        surface=st.just("web"),
        version=st.integers(1, 4).map(str),
        percent=st.sampled_from([0.0, 100.0]),
    ),
    st.builds(DrainShard, shard_id=st.sampled_from(IDS)),
    st.builds(UndrainShard, shard_id=st.sampled_from(IDS)),
    st.builds(ScaleShards, shards=st.integers(1, 5)),
    st.builds(RestartShards, shard_ids=st.sampled_from([(), ("shard-0",), ("shard-1",)])),
    st.builds(
        HoldModel, policy=st.builds(ModelPolicy, model=st.just(version("solo")), min_replicas=st.just(1))
    ),
    st.builds(FreezeCluster, frozen=st.booleans()),
)


class Control(RuleBasedStateMachine):
    """One store, shards that live and die, and a controller that is now and then another one."""

    def __init__(self) -> None:
        super().__init__()
        self.now_ms = 1_000_000
        self.held: dict[str, dict[ModelVersion, Replica]] = {shard_id: {} for shard_id in IDS}
        self.lives = dict.fromkeys(IDS, 1)
        self.dead: set[str] = set()
        self.stored = Placement()
        self.todo: list[Action] = []
        self.asked = 0
        self.settings = replace(SETTINGS, limits=Limits(min_replicas=1, max_replicas=2))
        self.described = {
            version("solo"): BundleFacts(model=version("solo"), stage=Stage.RANKING, size_bytes=10)
        }
        self._new_controller()
        self.look()
        self.request(DeployRelease(release=release("0", retriever="towers0", ranker="ranker0")))
        self.calm()

    def _new_controller(self) -> None:
        known = tuple(self.described.values())
        self.state = initial_state(self.settings, IDS, self.stored, known, self.now_ms)
        self.todo = []

    def feed(self, event: Event) -> None:
        before = self.state
        self.state, actions = step(self.state, event, self.now_ms)
        self.todo += actions
        assert self.state.placement.generation >= before.placement.generation
        loading = list(self.state.loading)
        assert len({shard_id for shard_id, _ in loading}) == len(loading)
        assert len({model for _, model in loading}) == len(loading)
        self._check_routers(before.placement)

    def _check_routers(self, before: Placement) -> None:
        """No live bundle is taken from where it answers while it answers nowhere else."""
        after = self.state.placement
        for release_ in after.releases.values():
            for model in release_.models():
                was = before.assignments.get(model)
                if was is None or after is before:
                    continue
                assert after.assignments[model].shard_ids
                if any(self._answers(shard_id, model) for shard_id in was.shard_ids):
                    assert any(
                        self._answers(shard_id, model) or shard_id in self.dead
                        for shard_id in after.assignments[model].shard_ids
                    )

    def _answers(self, shard_id: str, model: ModelVersion) -> bool:
        return shard_id not in self.dead and model in self.held.get(shard_id, {})

    def act(self, action: Action, *, fail: bool = False) -> None:
        match action:
            case LoadModel() if fail or action.shard_id in self.dead or action.shard_id not in self.held:
                self.feed(LoadFailed(shard_id=action.shard_id, model=action.model, error="e", refused=False))
            case LoadModel():
                self.held[action.shard_id][action.model] = ready(action.model)
                self.feed(LoadDone(shard_id=action.shard_id, replica=ready(action.model)))
            case UnloadModel():
                self.held.get(action.shard_id, {}).pop(action.model, None)
                self.feed(UnloadDone(shard_id=action.shard_id, model=action.model))
            case StartShard():
                self.held.setdefault(action.shard_id, {})
                self.lives[action.shard_id] = self.lives.get(action.shard_id, 0) + action.restart
                self.dead.discard(action.shard_id)
            case RestartShard():
                self._check_unused(action.shard_id)
                self.lives[action.shard_id] += 1
                self.dead.discard(action.shard_id)
            case StopShard():
                self._check_unused(action.shard_id)
                self.held.pop(action.shard_id, None)
                self.dead.discard(action.shard_id)
                self.feed(ShardStopped(shard_id=action.shard_id))
            case CommitPlacement() if fail:
                self.feed(CommitFailed(error="No space left on device"))
            case CommitPlacement():
                if action.expected_generation == self.stored.generation:
                    self.stored = action.placement
                self.feed(PlacementCommitted(placement=self.stored))
            case _:
                pass

    def _check_unused(self, shard_id: str) -> None:
        named = {s for a in self.state.placement.assignments.values() for s in a.shard_ids}
        assert shard_id not in named, f"{shard_id} is ended under what it serves"

    @rule(change=changes)
    def request(self, change: Change) -> None:
        models = change.release.models() if isinstance(change, DeployRelease) else {}
        facts = tuple(BundleFacts(model=m, stage=s, size_bytes=10) for m, s in models.items())
        self.described |= {bundle.model: bundle for bundle in facts}
        self.asked += 1
        self.feed(ChangeRequested(operation_id=f"op-{self.asked}", change=change, bundles=facts))

    @rule(number=st.integers(0, 20))
    def cancel(self, number: int) -> None:
        self.feed(CancelRequested(operation_id=f"op-{number}"))

    @rule()
    def look(self) -> None:
        for shard_id in list(self.state.shards):
            if shard_id in self.held and shard_id not in self.dead:
                self.feed(
                    ShardSeen(
                        shard_id=shard_id,
                        address=f"127.0.0.1:{shard_id[-1]}",
                        incarnation=str(self.lives[shard_id]),
                        replicas=dict(self.held[shard_id]),
                    )
                )
            else:
                self.feed(ShardSilent(shard_id=shard_id, refused=True))

    @rule(after_ms=st.sampled_from([100, 2_000, 6_000, 70_000]))
    def wait(self, after_ms: int) -> None:
        self.now_ms += after_ms
        self.look()

    @rule(fail=st.booleans(), count=st.integers(1, 8))
    def work(self, fail: bool, count: int) -> None:
        done, self.todo = self.todo[:count], self.todo[count:]
        for action in done:
            self.act(action, fail=fail)

    @rule(shard_id=st.sampled_from(IDS))
    def die(self, shard_id: str) -> None:
        """End a shard's process; it comes back with what it held, as its record says."""
        if shard_id in self.held:
            self.dead.add(shard_id)
            self.lives[shard_id] += 1
            self.feed(ShardSilent(shard_id=shard_id, refused=True))

    @rule(shard_id=st.sampled_from(IDS), empty=st.booleans())
    def come_back(self, shard_id: str, empty: bool) -> None:
        if shard_id in self.dead:
            self.dead.discard(shard_id)
            self.held[shard_id] = {} if empty else self.held[shard_id]

    @rule()
    def replace_controller(self) -> None:
        self._new_controller()
        self.look()

    @rule()
    def commit_of_another(self) -> None:
        """Let another controller commit, so that ours is in conflict."""
        self.stored = replace(self.stored, generation=self.stored.generation + 1)

    def calm(self) -> None:
        """Let everything answer and work for a while."""
        self.dead.clear()
        for _ in range(400):
            while self.todo:
                self.work(fail=False, count=len(self.todo))
            if not any(operation.running for operation in self.state.operations.values()):
                break
            self.now_ms += 2_000
            self.look()

    def teardown(self) -> None:
        self.feed(ChangeRequested(operation_id="unfreeze", change=FreezeCluster(frozen=False)))
        self.calm()
        left = [o for o in self.state.operations.values() if o.running]
        assert not left, [(o.kind, o.detail) for o in left]

    @invariant()
    def the_store_never_lags_behind(self) -> None:
        assert self.state.placement.generation <= self.stored.generation


Control.TestCase.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
TestControl = Control.TestCase
