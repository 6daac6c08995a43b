"""A candidate in a process of its own, to be killed; its arguments are the agent's HOST:PORT and a prefix."""

import asyncio
import random
import sys

from services.consul_client import ConsulClient
from services.consul_leadership import candidacy
from services.consul_session import SessionSettings
from services.consul_settings import ConsulSettings


async def stand(address: str, prefix: str) -> None:
    """Print a line once it leads, and lead until killed."""
    settings = SessionSettings(name="doomed", lock_delay_s=0.5)
    async with (
        ConsulClient(ConsulSettings(address=address, prefix=prefix)) as client,
        candidacy(client, settings, random.Random()) as leadership,
    ):
        async for leading in leadership.changes():
            if leading:
                sys.stdout.write("leading\n")
                sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(stand(*sys.argv[1:]))
