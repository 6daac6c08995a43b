"""The cascade as a Ray Serve application: a gRPC ingress and the three stages as deployments.

It opens the same bundles and runs the same arithmetic as a shard; what differs is how requests travel. Each
stage computes in its replica's event loop, one request after the other, as one core is what it has: threads
would only contend for Python's lock. `max_ongoing_requests` is far above what is in flight, so that no
request ever waits for a replica to be told that it is free.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import torch
from ray import serve
from ray.serve.handle import DeploymentHandle

from protos.headrace.v1 import search_service_pb2 as pb
from router.answer import Answer, Explanation
from router.answer_codec import answer_to_proto
from services.codec import search_from_proto
from services.lmdb_user_store import LmdbUserStore
from shards.candidates import EMPTY, Candidates
from shards.cascade import CascadeCall
from shards.release import ModelVersion, Release, Stage
from tests.bench import ray_servicer  # noqa: F401  Names the messages as pickle looks for them.
from tests.bench.one_search import open_servables, question, run

_OPTIONS: Mapping[str, Any] = {
    "max_ongoing_requests": 256,
    "ray_actor_options": {"num_cpus": 0.1},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """What the application serves, and from where."""

    release: Release
    models_dir: Path
    users_path: Path


class CascadeStage:
    """One stage of the release: all channels and their merge, or one scorer."""

    def __init__(self, served: Served, stage: Stage) -> None:
        torch.set_num_threads(1)
        faiss.omp_set_num_threads(1)
        models = [model for model, of in served.release.models().items() if of is stage]
        self._servables = open_servables(models, served.models_dir)

    async def run(self, call: CascadeCall) -> Candidates:
        """Return the candidates that the stage leaves."""
        return run(call, self._servables)


class SearchIngress:
    """Answers `headrace.v1.SearchService`: user, gate, stages, page."""

    def __init__(
        self,
        served: Served,
        retrieval: DeploymentHandle[Any],
        pre_ranking: DeploymentHandle[Any],
        ranking: DeploymentHandle[Any],
    ) -> None:
        self._release = served.release
        self._models = served.release.models()
        self._stages = (retrieval, pre_ranking, ranking)
        self._users = LmdbUserStore.open(served.users_path)

    async def Search(self, request: pb.SearchRequest) -> pb.SearchResponse:  # noqa: N802
        """Answer one search."""
        asked = search_from_proto(request)
        asking = await question(asked, self._release, self._users, self._of_one_stage)
        candidates = EMPTY
        for stage, unit in zip(self._stages, asking.units, strict=True):
            candidates = await stage.run.remote(asking.call(unit, candidates))
        answer = Answer(
            items=asking.items(candidates),
            gate=asking.gate,
            release=self._release,
            gaps=(),
            timings=(),
            explanation=Explanation(channels={}, merged=EMPTY),
        )
        return answer_to_proto(answer, request_id=asked.request_id, generation=1, explain=False)

    def _of_one_stage(self, models: tuple[ModelVersion, ...]) -> bool:
        return len({self._models[model] for model in models}) == 1


def application(served: Served, replicas: int) -> serve.Application:
    """Return the application with so many replicas of each deployment."""

    def bound(of: type, name: str, *arguments: object) -> serve.Application:
        deployment = serve.deployment(name=name, num_replicas=replicas, **_OPTIONS)(of)
        return deployment.bind(served, *arguments)

    stages = [
        bound(CascadeStage, stage.value, stage) for stage in dict.fromkeys(served.release.models().values())
    ]
    return bound(SearchIngress, "search", *stages)
