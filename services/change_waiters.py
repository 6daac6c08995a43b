"""Those who asked for a change and wait until it is committed, or refused."""

import asyncio
from dataclasses import dataclass, field

from shards.cluster_state import ClusterState
from shards.errors import HeadraceError, Unavailable


@dataclass(frozen=True, slots=True)
class ChangeWaiters:
    """Futures by operation id: of changes asked for, and of cancels."""

    _requests: dict[str, asyncio.Future[None]] = field(default_factory=dict)
    _cancels: dict[str, list[asyncio.Future[None]]] = field(default_factory=dict)

    def request(self, operation_id: str) -> asyncio.Future[None]:
        """Return what is done once a committed generation holds the operation."""
        waiter = asyncio.get_running_loop().create_future()
        self._requests[operation_id] = waiter
        waiter.add_done_callback(lambda _: self._requests.pop(operation_id, None))
        return waiter

    def cancel(self, operation_id: str) -> asyncio.Future[None]:
        """Return what is done once a committed generation holds the operation's end."""
        waiter = asyncio.get_running_loop().create_future()
        self._cancels.setdefault(operation_id, []).append(waiter)
        return waiter

    def look(self, state: ClusterState) -> None:
        """Let those go on whose change is committed now."""
        if not self._requests and not self._cancels:
            return
        for operation in state.placement.intent.operations:
            _resolve(self._requests.get(operation.operation_id))
            if not operation.running:
                for waiter in self._cancels.pop(operation.operation_id, ()):
                    _resolve(waiter)

    def refuse(self, operation_id: str, error: HeadraceError) -> None:
        """Tell who asked for an operation that it was refused."""
        waiter = self._requests.get(operation_id)
        if waiter and not waiter.done():
            waiter.set_exception(error)

    def lose(self, error: str) -> None:
        """Tell those who wait for a cancel that it could not be committed."""
        for waiters in self._cancels.values():
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_exception(Unavailable(f"the placement cannot be stored: {error}"))
        self._cancels.clear()


def _resolve(waiter: asyncio.Future[None] | None) -> None:
    if waiter and not waiter.done():
        waiter.set_result(None)
