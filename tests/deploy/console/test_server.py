"""The console on a port: who is silent is hung up on."""

import asyncio

import pytest

from deploy.console.console_settings import ConsoleSettings
from deploy.console.server import Door, serve_console
from shards.errors import Unavailable

NOBODY = ConsoleSettings(router="127.0.0.1:1", controller="127.0.0.1:1")
WHOLE = b"GET /login HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.mark.parametrize("said", [b"", b"GET / HT", WHOLE + b"GET /"])
def test_who_does_not_finish_a_request_is_hung_up_on(said: bytes) -> None:
    async def main() -> bytes:
        address: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        serving = asyncio.create_task(serve_console(NOBODY, Door(patience_s=0.2), address.set_result))
        host, _, port = (await address).partition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(said)
        async with asyncio.timeout(20):
            answer = await reader.read()
            with pytest.raises(Unavailable, match="cannot listen"):
                await serve_console(NOBODY, Door(port=int(port)), lambda _: None)
            serving.cancel()
            with pytest.raises(asyncio.CancelledError):
                await serving
        writer.close()
        return answer

    answer = asyncio.run(main())
    assert answer.startswith(b"HTTP/1.1 200 OK" if said.startswith(WHOLE) else b"")
    assert bool(answer) == said.startswith(WHOLE)
