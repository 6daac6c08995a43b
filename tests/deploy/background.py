"""A server in an event loop of its own thread, as commands under test run event loops themselves."""

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import TypeVar

T = TypeVar("T")

_START_TIMEOUT_S = 60.0


@contextmanager
def in_background(server: AbstractAsyncContextManager[T]) -> Iterator[T]:
    """Enter the server in a thread and give what it gives; leave it there at the end of the block."""
    entered: Future[tuple[T, asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def serve() -> None:
        done = asyncio.Event()
        try:
            async with server as given:
                entered.set_result((given, asyncio.get_running_loop(), done))
                await done.wait()
        except BaseException as error:
            if entered.done():
                raise
            entered.set_exception(error)

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    given, loop, done = entered.result(_START_TIMEOUT_S)
    try:
        yield given
    finally:
        loop.call_soon_threadsafe(done.set)
        thread.join()
