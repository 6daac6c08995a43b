"""A controller without a network: a clock, and shards that do what they are asked."""

from collections.abc import Iterable
from dataclasses import replace
from typing import TypeVar

from shards.changes import Change, DeployRelease
from shards.cluster_events import (
    Action,
    ChangeRequested,
    CommitPlacement,
    Event,
    LoadDone,
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
from shards.cluster_state import BundleFacts, ControllerSettings
from shards.controller import step
from shards.intent import Operation
from shards.live_quality import UNKNOWN, LiveQuality
from shards.observation import initial_state
from shards.placement import Placement
from shards.planner import Limits
from shards.release import ModelVersion, Release, ReleaseChannel, ReleaseRole, ReleaseScorer, Stage
from shards.replica import Replica, ReplicaState

Kind = TypeVar("Kind")

SETTINGS = ControllerSettings(limits=Limits(), shard_capacity_bytes=1_000, decide_every_ms=0)


def version(name: str) -> ModelVersion:
    return ModelVersion(name, "1")


def release(number: str, surface: str = "web", retriever: str = "towers", ranker: str = "ranker") -> Release:
    return Release(
        surface=surface,
        version=number,
        channels=(ReleaseChannel(name="embedding", model=version(retriever)),),
        ranker=ReleaseScorer(model=version(ranker), candidates=100),
    )


def ready(model: ModelVersion) -> Replica:
    return Replica(model=model, stage=Stage.RANKING, state=ReplicaState.READY, memory_bytes=10)


class Rig:
    """A controller, a clock, and shards that do what they are asked as soon as `work` is called."""

    def __init__(self, *shard_ids: str, placement: Placement | None = None, **settings: int) -> None:
        self.now_ms = 1_000_000
        self.held: dict[str, dict[ModelVersion, Replica]] = {shard_id: {} for shard_id in shard_ids}
        self.lives = dict.fromkeys(shard_ids, 1)
        self.quality: dict[ModelVersion, LiveQuality] = {}
        self.state = initial_state(
            replace(SETTINGS, **settings),  # type: ignore[arg-type]
            shard_ids,
            placement or Placement(),
            (),
            self.now_ms,
        )
        self.log: list[Action] = []
        self.stopped: list[str] = []
        self.generations: list[Placement] = []

    def feed(self, event: Event, *, after_ms: int = 0) -> tuple[Action, ...]:
        """Feed an event, commit what is to be committed, and return what else is to be done."""
        self.now_ms += after_ms
        self.state, actions = step(self.state, event, self.now_ms)
        for action in actions:
            if isinstance(action, CommitPlacement):
                assert action.expected_generation == self.state.placement.generation
                self.generations.append(action.placement)
                actions += self.feed(PlacementCommitted(placement=action.placement))
        self.log += [action for action in actions if action not in self.log]
        return actions

    def see(self, *shard_ids: str, after_ms: int = 0) -> tuple[Action, ...]:
        """Let shards (all when none is named) answer with what they hold."""
        self.now_ms += after_ms
        actions: tuple[Action, ...] = ()
        for shard_id in shard_ids or self.held:
            actions += self.feed(
                ShardSeen(
                    shard_id=shard_id,
                    address=f"127.0.0.1:{shard_id[-1]}",
                    incarnation=str(self.lives[shard_id]),
                    replicas=dict(self.held[shard_id]),
                )
            )
        return actions

    def deploy(
        self,
        wanted: Release,
        operation_id: str = "op",
        size_bytes: int = 10,
        role: ReleaseRole = ReleaseRole.LIVE,
        percent: float = 100.0,
    ) -> tuple[Action, ...]:
        bundles = tuple(
            BundleFacts(model=model, stage=stage, size_bytes=size_bytes)
            for model, stage in wanted.models().items()
        )
        change = DeployRelease(release=wanted, role=role, percent=percent)
        return self.feed(ChangeRequested(operation_id=operation_id, change=change, bundles=bundles))

    def work(self, actions: Iterable[Action]) -> None:
        """Carry out loads, unloads, restarts and stops, and those that follow from them."""
        for action in actions:
            if isinstance(action, RestartShard):
                self.lives[action.shard_id] += 1
                self.held[action.shard_id] = dict(self.held[action.shard_id])
                self.work(self.feed(ShardSilent(shard_id=action.shard_id, refused=True)))
                self.work(self.see(action.shard_id))
            if isinstance(action, StopShard):
                self.stopped.append(action.shard_id)
                self.held.pop(action.shard_id, None)
                self.work(self.feed(ShardStopped(shard_id=action.shard_id)))
            if isinstance(action, StartShard) and action.shard_id not in self.held:
                self.held[action.shard_id] = {}
                self.lives.setdefault(action.shard_id, 0)
                self.lives[action.shard_id] += 1
            if isinstance(action, LoadModel):
                replica = replace(ready(action.model), quality=self.quality.get(action.model, UNKNOWN))
                self.held[action.shard_id][action.model] = replica
                self.work(self.feed(LoadDone(shard_id=action.shard_id, replica=replica)))
            if isinstance(action, UnloadModel):
                self.held[action.shard_id].pop(action.model, None)
                self.work(self.feed(UnloadDone(shard_id=action.shard_id, model=action.model)))

    def change(
        self, change: Change, operation_id: str = "op", bundles: tuple[BundleFacts, ...] = ()
    ) -> tuple[Action, ...]:
        """Ask for a change, and commit what follows."""
        return self.feed(ChangeRequested(operation_id=operation_id, change=change, bundles=bundles))

    def run(self, for_ms: int, every_ms: int = 1_000) -> "Rig":
        """Let time pass, every shard answering and doing what it is asked."""
        for _ in range(0, for_ms, every_ms):
            self.work(self.see(after_ms=every_ms))
        return self

    def restarted(self) -> "Rig":
        """Give a new controller over the same shards, which knows the committed placement only."""
        after = Rig(*self.held, placement=self.state.placement)
        after.held, after.lives, after.now_ms = self.held, self.lives, self.now_ms
        after.state = initial_state(
            self.state.settings, self.state.configured, self.state.placement, (), self.now_ms
        )
        after.state = replace(after.state, bundles=self.state.bundles)
        return after

    def live(self, wanted: Release) -> "Rig":
        """See every shard and deploy."""
        self.see()
        self.work(self.deploy(wanted))
        assert self.state.placement.releases[wanted.surface] == wanted
        return self

    def silence(self, shard_id: str, for_ms: int, *, refused: bool = True) -> tuple[Action, ...]:
        self.feed(ShardSilent(shard_id=shard_id, refused=refused))
        return self.feed(ShardSilent(shard_id=shard_id, refused=refused), after_ms=for_ms)

    def holders(self, name: str) -> tuple[str, ...]:
        return self.state.placement.assignments[version(name)].shard_ids

    def operation(self, operation_id: str = "op") -> Operation:
        return self.state.operations[operation_id]


def only(kind: type[Kind], actions: Iterable[Action]) -> list[Kind]:
    return [action for action in actions if isinstance(action, kind)]
