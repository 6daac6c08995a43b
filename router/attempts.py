"""How often and where a stage call is tried: after a refusal, and beside a replica that is silent. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

import grpc
import grpc.aio

from router.routing_table import Endpoint, RoutingTable
from services.status import DETAILS_KEY, from_rpc_error
from shards import errors
from shards.errors import (
    DeadlineExceeded,
    FailedModel,
    HeadraceError,
    NoRoomYet,
    NotFound,
    NotOwner,
    Unavailable,
)
from shards.release import ModelVersion

MOST_ATTEMPTS = 3
"""One for the replica chosen, one for another, one for the owner that this one may name."""

_NEWS_SHARE, _LONGEST_NEWS_S = 0.3, 0.5

_TRANSPORT_CODES = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.INTERNAL,
    }
)

_FINAL = (
    errors.InvalidInput,
    errors.NotFound,
    errors.Refused,
    errors.Conflict,
    errors.Unauthenticated,
    errors.PermissionDenied,
)


@dataclass(frozen=True, slots=True)
class Refused:
    """A replica that did not answer a call: the status that came, and what it means."""

    replica: Endpoint
    status: grpc.aio.AioRpcError
    error: HeadraceError
    told: bool
    """Whether the shard itself said so; else gRPC found that it cannot be reached."""


def refused(replica: Endpoint, status: grpc.aio.AioRpcError) -> Refused:
    """Return what a failed call means.

    Shards send details with every error of theirs. What comes without is gRPC's own, say of a connection
    that broke in the middle of an answer, and the replica is no longer there.
    """
    told = any(key == DETAILS_KEY for key, _ in status.trailing_metadata() or ())
    error = from_rpc_error(status)
    if not told and status.code() in _TRANSPORT_CODES:
        error = Unavailable(status.details() or status.code().name)
    return Refused(replica, status, error, told)


def is_final(refusal: Refused) -> bool:
    """Return whether no other replica can do better: a mistake of the caller's, or of the release's.

    A fault of the shard (INTERNAL, DATA_LOSS, bytes that cannot be read) is its own until others have it too.
    """
    if refusal.status.code() is grpc.StatusCode.UNIMPLEMENTED:
        return True
    return isinstance(refusal.error, _FINAL)


def is_rerouted(refusal: Refused) -> bool:
    """Return whether the shard has no part in the work: then to ask another adds no load."""
    return isinstance(refusal.error, NotOwner | Unavailable)


def unreadable(replica: Endpoint, error: HeadraceError) -> Refused:
    """Return the refusal that an answer amounts to which cannot be read."""
    return _own(replica, grpc.StatusCode.INTERNAL, error)


def unanswered(replica: Endpoint) -> Refused:
    """Return the refusal of a replica for which time is up, though gRPC has not said so."""
    return _own(replica, grpc.StatusCode.DEADLINE_EXCEEDED, DeadlineExceeded("no answer in time"))


def _own(replica: Endpoint, code: grpc.StatusCode, error: HeadraceError) -> Refused:
    """Return a refusal that this router found itself."""
    metadata = grpc.aio.Metadata()
    return Refused(replica, grpc.aio.AioRpcError(code, metadata, metadata, str(error)), error, told=False)


def news_within_s(remaining_s: float) -> float:
    """Return how long to wait for a newer placement when the one that is known leads nowhere."""
    return min(_NEWS_SHARE * remaining_s, _LONGEST_NEWS_S)


def untried(
    models: Sequence[ModelVersion], tried: Sequence[Endpoint], table: RoutingTable, newest: RoutingTable
) -> tuple[Endpoint, ...]:
    """Return the other shards that hold the models, by the newest table unless that has dropped one."""
    try:
        replicas = newest.replicas(*models)
    except NotFound:
        replicas = table.replicas(*models)
    return tuple(replica for replica in replicas if replica not in tried)


def next_choices(
    refusal: Refused,
    tried: Sequence[Endpoint],
    models: Sequence[ModelVersion],
    table: RoutingTable,
    newest: RoutingTable,
) -> tuple[Endpoint, ...]:
    """Return the replicas that may answer after the last of those tried refused; none when no other can.

    A shard that is no longer the owner names the new one, or the newest table knows others. A sole replica
    that could not be reached is asked again, because its connection may only have been an old one.
    """
    others = untried(models, tried, table, newest)
    match refusal.error:
        case NotOwner() as error if error.owner:
            owner = newest.endpoints.get(error.owner)
            if owner is None and error.generation > newest.generation:
                return ()  # The newest table is behind; the others may have lost the model as well.
            return (owner,) if owner is not None and owner not in tried else others
        case NotOwner():
            return others
        case Unavailable() if not others and not refusal.told and len(tried) == 1:
            return (refusal.replica,)
        case DeadlineExceeded() | NoRoomYet():
            return ()  # Nobody has more time, and room for a cold model is worth the wait.
        case _:
            return others


def news_may_help(refusal: Refused) -> bool:
    """Return whether a newer placement may know where to go: a shard that lives sent the call away."""
    return (
        refusal.told
        and isinstance(refusal.error, NotOwner | Unavailable)
        and not isinstance(refusal.error, FailedModel)
    )
