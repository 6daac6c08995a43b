"""What Prometheus may know of a router."""

import time
from collections.abc import Callable, Mapping, Sequence

from router.admission import Admission
from router.coalescing import Coalescing
from router.event_measures import EventMeasures
from router.gatekeeper import Gatekeepers
from router.outcome_log import OutcomeLog
from router.replicas import ReplicaHealth
from router.routing_table import RoutingTable
from router.search_measures import SearchMeasures
from router.shard_calls import ShardCalls
from services.instruments import Counter, Gauge, Instrument, counter, gauge, histogram


def routing_instruments(
    calls: ShardCalls,
    replicas: ReplicaHealth,
    doors: Mapping[str, Admission],
    table: Callable[[], RoutingTable],
) -> Sequence[Instrument]:
    """Return the instruments of who is let in, and sent where; `doors` admit searches and other calls."""
    return (
        counter(
            "headrace_router_extra_attempts_total",
            "Shards asked beyond the first for a call: hedge (beside one that is silent), retry.",
            calls.extra_attempts,
        ),
        Gauge(
            "headrace_router_in_flight",
            "Requests in flight, by what was asked: search, stage, event.",
            ("door",),
            lambda: [((name,), door.in_flight) for name, door in doors.items()],
        ),
        Gauge(
            "headrace_router_limit",
            "Requests that may be in flight now, by how many are answered a second.",
            ("door",),
            lambda: [((name,), door.limit) for name, door in doors.items()],
        ),
        Counter(
            "headrace_router_shed_total",
            "Requests refused at once, as too many were in flight.",
            ("door",),
            lambda: [((name,), door.refused) for name, door in doors.items()],
        ),
        gauge(
            "headrace_router_shard_calls_in_flight",
            "Calls of shards under way, hedges included.",
            lambda: replicas.in_flight,
        ),
        gauge(
            "headrace_router_ejected_shards",
            "Shards left out for a while, as they answer with faults of their own.",
            lambda: sum(replicas.ejected(shard, time.monotonic()) for shard in table().endpoints.values()),
        ),
        gauge(
            "headrace_router_generation",
            "Generation of the placement that it routes by.",
            lambda: table().generation,
        ),
        gauge(
            "headrace_router_shards",
            "Shards in that placement.",
            lambda: len(table().endpoints),
        ),
    )


def search_instruments(
    measures: SearchMeasures, coalescing: Coalescing, gatekeepers: Gatekeepers
) -> Sequence[Instrument]:
    """Return the instruments of what searches are counted in."""
    return (
        counter("headrace_router_searches_total", "Searches by surface and status.", measures.searches),
        histogram("headrace_router_search_seconds", "Time that answered searches took.", measures.search_s),
        Counter(
            "headrace_router_shared_answers_total",
            "Searches answered with the answer to an equal one that was under way.",
            (),
            lambda: [((), coalescing.shared)],
        ),
        histogram(
            "headrace_router_stage_seconds",
            "Time of stage calls as the router saw it; within a cascade on one shard, what the stage took.",
            measures.stage_s,
        ),
        histogram(
            "headrace_router_stage_queue_seconds",
            "Of that, time waiting for a worker of the shard.",
            measures.queue_s,
        ),
        histogram(
            "headrace_router_stage_compute_seconds",
            "Of that, time computing on the shard.",
            measures.compute_s,
        ),
        counter(
            "headrace_router_gate_decisions_total",
            "Decisions of the gate (open, closed) by reason and version, of answered searches.",
            measures.gates,
        ),
        histogram(
            "headrace_router_gate_probability",
            "Gain that the gate's model expects of embedding retrieval.",
            measures.gate_probability,
        ),
        Gauge(
            "headrace_router_gate_closed_share",
            "Share of searches by expected gain for which a release's gate stays closed now.",
            ("release",),
            lambda: [((name,), share) for name, share in gatekeepers.closed_shares().items()],
        ),
        counter(
            "headrace_router_gaps_total",
            "What answers could not include, by stage, channel and reason.",
            measures.gaps,
        ),
    )


def event_instruments(measures: EventMeasures, outcomes: OutcomeLog | None) -> Sequence[Instrument]:
    """Return the instruments of events that users' frontends send, and of what is written of them."""
    return (
        Counter(
            "headrace_router_events_total",
            "Events of answered requests: recorded, or duplicate where they were known.",
            ("outcome",),
            lambda: [(("recorded",), measures.recorded), (("duplicate",), measures.duplicates)],
        ),
        counter(
            "headrace_router_recordings_total",
            "Requests to record events by status.",
            measures.requests,
        ),
        histogram(
            "headrace_router_recording_seconds",
            "Time that answered requests to record events took, the disk's included.",
            measures.request_s,
        ),
        Counter(
            "headrace_router_outcomes_dropped_total",
            "Searches and events that the read-out lacks: too many waited, or the disk took no more.",
            (),
            lambda: [((), outcomes.dropped if outcomes else 0)],
        ),
    )
