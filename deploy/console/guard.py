"""What stands before every page: names by which it may be asked for, sizes of bodies, headers of answers."""

from collections.abc import Iterable

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MOST_BODY_BYTES = 2 * 2**20
"""A plan of some thousand moves."""

_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}


class Guard:
    """Wraps an application.

    A page that is asked for under a name which is not the console's own comes from a site that has its name
    point here (DNS rebinding), so it is refused, as is a form that another site sends.
    """

    def __init__(self, app: ASGIApp, names: Iterable[str]) -> None:
        self._app = app
        self._names = frozenset(names)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        refusal = self._refusal(headers, scope["method"])
        if refusal:
            await refusal(scope, receive, _with_headers(send, cached=False))
            return
        cached = scope["path"].startswith("/static/")
        await self._app(scope, _limited(receive), _with_headers(send, cached=cached))

    def _refusal(self, headers: Headers, method: str) -> PlainTextResponse | None:
        host = headers.get("host", "")
        if self._names and _name(host) not in self._names:
            return PlainTextResponse("This console does not answer to that name.\n", 421)
        if method == "POST" and not _own_origin(headers, host):
            return PlainTextResponse("This form came from another site.\n", 403)
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > MOST_BODY_BYTES:
            return PlainTextResponse("That is more than a form of this console holds.\n", 413)
        return None


def _name(host: str) -> str:
    """Return the name in NAME[:PORT]."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].lower()


def _own_origin(headers: Headers, host: str) -> bool:
    """Return whether a form comes from a page of ours, as far as the browser says where it comes from."""
    if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        return False
    origin = headers.get("origin")
    return origin is None or origin.partition("://")[2] == host


def _limited(receive: Receive) -> Receive:
    """Return a `receive` that ends bodies which turn out longer than they said, or said nothing."""
    got = 0

    async def limited() -> Message:
        nonlocal got
        message = await receive()
        got += len(message.get("body", b""))
        return {"type": "http.disconnect"} if got > MOST_BODY_BYTES else message

    return limited


def _with_headers(send: Send, *, cached: bool) -> Send:
    async def sent(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in _HEADERS.items():
                headers[name] = value
            headers["cache-control"] = "public, max-age=300" if cached else "no-store"
        await send(message)

    return sent
