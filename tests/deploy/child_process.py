"""A process for tests of whoever keeps processes: `settings.device` says how it behaves."""

import asyncio
import os
from collections.abc import Callable

from deploy import child
from deploy.settings import ClusterSettings
from shards.errors import Unavailable


async def serve(settings: ClusterSettings, announce: Callable[[str], None]) -> None:
    if settings.device == "refuse":
        raise Unavailable("no such luck")
    if settings.device == "crash":
        os._exit(3)
    announce(f"{settings.host}:{os.getpid()}")
    if settings.device == "leave":
        return
    try:
        await asyncio.Event().wait()
    finally:
        settings.folders.root.joinpath("stopped").touch()


if __name__ == "__main__":
    child.run(child.enter(), serve)
