"""How often and where a stage call is tried: after a refusal, and beside a replica that is silent. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

import grpc
import grpc.aio

from router.routing_table import Endpoint, RoutingTable
from services.status import DETAILS_KEY, from_rpc_error
from shards.errors import (
    DeadlineExceeded,
    FailedModel,
    HeadraceError,
    NotFound,
    NotOwner,
    Overloaded,
    Unavailable,
)
from shards.release import ModelVersion

MOST_ATTEMPTS = 3
"""One for the replica chosen, one for another, one for the owner that this one may name."""

HEDGE_SHARE = 0.3
"""Of a call's time, what a replica has for itself before another one is asked as well."""

_SHORTEST_HEDGE_S, _LONGEST_HEDGE_S = 0.02, 1.0
_NEWS_SHARE, _LONGEST_NEWS_S = 0.3, 0.5

_TRANSPORT_CODES = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.INTERNAL,
    }
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
    """Return whether no other replica can do better: a mistake of the caller's, a fault of the model."""
    return not isinstance(refusal.error, NotOwner | Unavailable | DeadlineExceeded | Overloaded)


def hedge_after_s(remaining_s: float) -> float:
    """Return how long to wait for one replica before another is asked as well.

    Source: Dean and Barroso, "The Tail at Scale", CACM 2013: hedged requests.
    """
    return min(max(_SHORTEST_HEDGE_S, HEDGE_SHARE * remaining_s), _LONGEST_HEDGE_S)


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
        case Unavailable():
            return others
        case _:
            return ()


def news_may_help(refusal: Refused) -> bool:
    """Return whether a newer placement may know where to go: a shard that lives sent the call away."""
    return (
        refusal.told
        and isinstance(refusal.error, NotOwner | Unavailable)
        and not isinstance(refusal.error, FailedModel)
    )
