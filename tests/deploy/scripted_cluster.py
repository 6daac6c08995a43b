"""A controller without a cluster: a real ClusterService on loopback that says what a test tells it to."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, asynccontextmanager
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import Message

from protos.headrace.v1 import cluster_service_pb2 as pb
from services.followed_rules import RulesSource
from tests.deploy.background import in_background
from tests.deploy.scripted_service import scripted_service

SERVICE = "headrace.v1.ClusterService"

Answer = Message | Exception | Callable[[Any], Message]


class ScriptedCluster:
    """Answers each method with what `answers` holds for it, once it is served.

    Changes answer with the next of `operation`'s states, GetOperation with the one after, and the last
    for ever. `asked` holds the requests in the order they came.
    """

    def __init__(self) -> None:
        self.address = ""
        self.asked: list[Message] = []
        self.answers: dict[str, Answer] = {}
        self.states: list[pb.Operation] = []

    def named(self, method: str) -> list[Any]:
        """Return the requests of one method."""
        return [request for request in self.asked if type(request).__name__ == f"{method}Request"]

    def handler(self, method: str) -> "grpc.RpcMethodHandler[Any, Any]":
        """Return what answers one method."""
        request_type = getattr(pb, f"{method}Request")

        async def answer(request: Message, _: "grpc.aio.ServicerContext[Any, Any]") -> Message:
            self.asked.append(request)
            found = self.answers.get(method)
            if isinstance(found, Exception):
                raise found
            if found is not None:
                return found if isinstance(found, Message) else found(request)
            response: Message = getattr(pb, f"{method}Response")()
            if "operation" in response.DESCRIPTOR.fields_by_name:
                state = self.states.pop(0) if len(self.states) > 1 else self.states[0]
                response.operation.CopyFrom(state)  # type: ignore[attr-defined]
            return response

        return grpc.unary_unary_rpc_method_handler(
            answer,
            request_deserializer=request_type.FromString,
            response_serializer=lambda response: response.SerializeToString(),
        )


@asynccontextmanager
async def _serving(access: RulesSource | None) -> AsyncIterator[ScriptedCluster]:
    cluster = ScriptedCluster()
    methods = [m.name for m in pb.DESCRIPTOR.services_by_name["ClusterService"].methods]
    handlers = {method: cluster.handler(method) for method in methods if method != "WatchPlacement"}
    async with scripted_service(SERVICE, handlers, access) as cluster.address:
        yield cluster


def scripted_cluster(access: RulesSource | None = None) -> AbstractContextManager[ScriptedCluster]:
    """Serve a scripted cluster in the background, to whom the rules allow it where there are any."""
    return in_background(_serving(access))
