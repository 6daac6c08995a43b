"""A console's line to its cluster: the public services, with the token of whoever looks."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

from deploy.caller_channel import naming_certificates
from deploy.controller_client import TIMEOUT_S, asked
from protos.headrace.v1 import cluster_service_pb2 as pb
from router.client import Clause, HeadraceClient
from router.client_results import SearchResult
from router.credentials import Credentials
from shards.errors import Unauthenticated

if TYPE_CHECKING:  # The stub of an aio channel exists for the type checker only.
    from protos.headrace.v1.cluster_service_pb2_grpc import ClusterServiceAsyncStub

T = TypeVar("T")

SEARCH_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """What to search for; see `HeadraceClient.search`."""

    surface: str
    query: str = ""
    user_id: str = ""
    page_size: int = 10
    filter: Sequence[Clause] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """Where a cluster is, HOST:PORT each, and whom it is asked for.

    A channel lives as long as a question: a controller that came back answers the next one at once.
    """

    router: str
    controller: str
    credentials: Credentials

    async def ask(self, question: "Callable[[ClusterServiceAsyncStub], Awaitable[T]]") -> T:
        """Return the controller's answer; raises the error that it answered with, or `Unavailable`."""
        return await asked(self.controller, self.credentials, question)

    async def search(self, search: Search, *, contributions: int) -> SearchResult:
        """Return an explained page, with what features add for the first items; raises `SearchError`."""
        shown = self.credentials
        with naming_certificates():
            client = HeadraceClient(self.router, shown.token, tls=shown.tls, timeout_s=SEARCH_TIMEOUT_S)
        async with client:
            return await client.search(
                search.surface,
                search.query,
                user_id=search.user_id,
                page_size=search.page_size,
                filter=search.filter,
                explain=True,
                contributions=contributions,
            )

    async def asks_for_tokens(self) -> bool:
        """Return whether the controller turns away who shows no token; raises `Unavailable`."""
        request = pb.ListOperationsRequest()
        try:
            nobody = replace(self.credentials, token=None)
            await asked(self.controller, nobody, lambda stub: stub.ListOperations(request, timeout=TIMEOUT_S))
        except Unauthenticated:
            return True
        return False
