"""The searches of `make bench-search`: real held-out queries, each of a user at a moment, in a file.

Every request is another one: no two of them have user, query and moment in common, so that no cache can
answer for a model. The file holds serialised `SearchRequest`s behind four bytes of length each.
"""

import random
import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from deploy.folders import cache_dir
from deploy.release_files import read_release
from deploy.workspace import Workspace
from services.codec import SearchRequest, search_to_proto
from shards.release import GateRules, Release, ReleaseScorer
from training.datasets import sources
from training.evaluation.judgements import judged_queries

SURFACE = "movielens"
_HELD_OUT = "test", "valid"
_PATIENCE_MS = 5_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """What all systems serve: the bundles and users of a trained workspace, its release, and the requests."""

    workspace: Workspace
    release: Release
    requests_path: Path
    requests: int


def material(workspace: Workspace, folder: Path) -> Material:
    """Write the requests into the folder and return what there is to serve.

    The release gives every stage seconds, and its gate goes by rules, as a learned one lets in less under
    load: every system does all of the work, and this compares speed at equal answers.
    """
    release = _comparable(read_release(workspace, SURFACE))
    dataset = sources.load(SURFACE, cache_dir=cache_dir(), data_dir=None)
    judged = [
        query
        for split in _HELD_OUT
        for query in judged_queries(dataset, split, limit=0, history_limit=release.history_limit)
    ]
    distinct = {
        (query.context.user.user_id, query.context.query, query.context.now_ms): query.context
        for query in judged
    }
    asked = [
        SearchRequest(
            surface=SURFACE, query=context.query, user_id=context.user.user_id, now_ms=context.now_ms
        )
        for context in distinct.values()
    ]
    random.Random(0).shuffle(asked)
    path = folder / "requests"
    _write(path, [search_to_proto(request).SerializeToString() for request in asked])
    return Material(workspace=workspace, release=release, requests_path=path, requests=len(asked))


def read_requests(path: Path) -> list[bytes]:
    """Return the serialised requests of a file."""
    data, at, found = path.read_bytes(), 0, []
    while at < len(data):
        (size,) = struct.unpack_from(">I", data, at)
        found.append(data[at + 4 : at + 4 + size])
        at += 4 + size
    return found


def _write(path: Path, requests: Sequence[bytes]) -> None:
    path.write_bytes(b"".join(struct.pack(">I", len(request)) + request for request in requests))


def _comparable(release: Release) -> Release:
    def patient(scorer: ReleaseScorer | None) -> ReleaseScorer | None:
        return None if scorer is None else replace(scorer, budget_ms=_PATIENCE_MS)

    return replace(
        release,
        gate=GateRules(),
        retrieval_budget_ms=_PATIENCE_MS,
        pre_ranker=patient(release.pre_ranker),
        ranker=patient(release.ranker),
    )
