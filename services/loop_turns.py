"""Turns for short computations on the event loop, one a pass, so that it hears what comes between them."""

import asyncio
from collections import deque


class Turns:
    """Gives turns in the order in which they are asked for; used from one event loop."""

    __slots__ = ("_given", "_waiting")

    def __init__(self) -> None:
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._given = False
        """Whether this pass of the loop has had its turn."""

    async def turn(self) -> None:
        """Return when the caller may compute, which it then does without another `await`."""
        loop = asyncio.get_running_loop()
        if not self._given:
            self._given = True
            loop.call_soon(self._pass_on, loop)
            return
        turn = loop.create_future()
        self._waiting.append(turn)
        await turn

    def _pass_on(self, loop: asyncio.AbstractEventLoop) -> None:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():  # Its caller still waits for it.
                turn.set_result(None)
                loop.call_soon(self._pass_on, loop)
                return
        self._given = False
