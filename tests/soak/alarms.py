"""Alarms of quality in a running cluster: what raises them, and whether they come and go."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import grpc

from protos.headrace.v1 import cluster_service_pb2 as pb
from shards.release_quality import ReleaseQuality
from tests.chaos.cluster import ChaosCluster
from tests.soak.watched_surface import BAD, COARSE, SCORER, SURFACE, UNUSUAL, USUAL, Shopper

_WITHIN_S = 150.0
_LOOK_EVERY_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One thing that was to happen, and after how many seconds it had; None where it had not in time."""

    name: str
    after_s: float | None


def alarms(cluster: ChaosCluster) -> set[tuple[str, str]]:
    """Return the alarms that replicas raise now: model and "recall", or model and column."""
    try:
        models = cluster.desk.stub.ListModels(pb.ListModelsRequest(), timeout=5.0).models
    except grpc.RpcError:
        return set()
    found = set()
    for model in models:
        for held in model.replicas:
            if held.replica.quality.recall_alarm:
                found.add((model.model.model, "recall"))
            drifted = (drift.column for drift in held.replica.quality.drifts if drift.drifted)
            found.update((model.model.model, column) for column in drifted)
    return found


def recall_lowered(cluster: ChaosCluster) -> list[Seen]:
    """Bring a release live whose index misses much: refused first, then for a reason, then rolled back."""
    began_s = time.monotonic()
    try:
        cluster.desk.deploy(BAD)
        refused = None
    except RuntimeError as error:
        refused = time.monotonic() - began_s if f"recall of {COARSE}" in str(error) else None
    cluster.desk.deploy(replace(BAD, quality=ReleaseQuality(override_reason="a soak wants to see it")))
    raised = _after(lambda: (COARSE.model, "recall") in alarms(cluster))
    cluster.desk.roll_back(SURFACE)
    ended = _after(lambda: (COARSE.model, "recall") not in alarms(cluster))
    return [
        Seen(name="a release of low recall is refused", after_s=refused),
        Seen(name="low recall raises its alarm", after_s=raised),
        Seen(name="it ends after the rollback", after_s=ended),
    ]


def drift_injected(cluster: ChaosCluster, shopper: Shopper) -> list[Seen]:
    """Search for what nobody searched for in training, and then as usual again."""

    def drifted() -> bool:
        return any(model == SCORER.model and column != "recall" for model, column in alarms(cluster))

    shopper.queries = UNUSUAL
    raised = _after(drifted)
    shopper.queries = USUAL
    ended = _after(lambda: not drifted())
    return [
        Seen(name="other searches raise the drift alarm", after_s=raised),
        Seen(name="it ends with them", after_s=ended),
    ]


def _after(condition: Callable[[], bool]) -> float | None:
    began_s = time.monotonic()
    while time.monotonic() - began_s < _WITHIN_S:
        if condition():
            return time.monotonic() - began_s
        time.sleep(_LOOK_EVERY_S)
    return None
