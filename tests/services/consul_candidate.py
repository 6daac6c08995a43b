"""A candidate in a process of its own, to be killed; its arguments are the agent's HOST:PORT and a prefix."""

import asyncio
import random
import sys

from services.consul_leadership import candidacy
from services.consul_session import SessionSettings
from services.consul_settings import ConsulSettings


async def stand(address: str, prefix: str) -> None:
    """Print a line once it leads, and lead until killed."""
    consul = ConsulSettings(address=address, prefix=prefix)
    async with candidacy(consul, SessionSettings(name="doomed"), random.Random()) as leadership:
        async for leading in leadership.changes():
            if leading:
                sys.stdout.write("leading\n")
                sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(stand(*sys.argv[1:]))
