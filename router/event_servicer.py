"""The door for fresh events: admits them, writes them to the user store, says what became of them."""

import time
from collections.abc import Callable

import grpc.aio

from protos.headrace.v1 import event_service_pb2, event_service_pb2_grpc
from router.admission import Admission
from router.budget import RESERVE_S, Deadline
from router.event_measures import EventMeasures
from router.outcome_log import OutcomeLog
from services.codec import events_from_proto, recorded_to_proto
from services.user_store import UserStore

Context = grpc.aio.ServicerContext[
    event_service_pb2.RecordEventsRequest, event_service_pb2.RecordEventsResponse
]


class EventServicer(event_service_pb2_grpc.EventServiceServicer):
    """Records events; none is answered for before the store has it."""

    def __init__(
        self,
        *,
        users: UserStore,
        admission: Admission,
        deadline_of: Callable[[float | None], Deadline],
        measures: EventMeasures,
        outcomes: OutcomeLog | None,
    ) -> None:
        self._users = users
        self._admission = admission
        self._deadline_of = deadline_of
        self._measures = measures
        self._outcomes = outcomes

    async def RecordEvents(  # noqa: N802
        self, request: event_service_pb2.RecordEventsRequest, context: Context
    ) -> event_service_pb2.RecordEventsResponse:
        """Record all of the events or none; raises `HeadraceError`, which the chassis maps to a status."""
        deadline = self._deadline_of(context.time_remaining())
        with self._measures.watching(), self._admission.admitted(deadline):
            events = events_from_proto(request, time.time_ns() // 1_000_000)
            recorded = await self._users.record(events, timeout_s=deadline.remaining_s() - RESERVE_S)
            self._measures.became(recorded)
            if self._outcomes is not None:
                self._outcomes.recorded(events)
            return recorded_to_proto(recorded)
