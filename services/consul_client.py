"""A line to Consul: py-consul's API, carried by an asynchronous HTTP client.

py-consul's own asynchronous transport warns of deprecations of its library; its blocking one cannot be
cancelled in the midst of a blocking query. Both sit behind a small seam, which `_Transport` fills.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Self

import httpx2
from consul.base import Consul, Response
from consul.exceptions import ACLDisabled, ACLPermissionDenied, ConsulException
from consul.exceptions import NotFound as NotThere

from services.consul_settings import ConsulSettings
from shards.errors import NotFound, PermissionDenied, Unauthenticated, Unavailable

Parameters = Sequence[tuple[str, Any]]

_JITTER = 1 / 16
"""Consul holds a blocking query longer than asked by up to this share."""


class ConsulClient:
    """Asks one agent, between entry and exit of its `async with` block; many tasks may share it.

    Raises OSError on entry when a file of the TLS settings does not serve.
    """

    def __init__(self, settings: ConsulSettings) -> None:
        self.settings = settings

    async def __aenter__(self) -> Self:
        settings = self.settings
        host, _, port = settings.address.rpartition(":")
        scheme = "https" if settings.tls else "http"
        self._http = httpx2.AsyncClient(
            base_url=f"{scheme}://{settings.address}",
            verify=settings.tls.context() if settings.tls else False,
            timeout=None,
            trust_env=False,
        )
        self._api: Any = Consul(
            host=host, port=int(port), scheme=scheme, verify=True, dc=settings.datacenter or None
        )
        # The library lets an environment variable win; settings are settings.
        self._api.token = settings.token or None
        self._api.http = _Transport(self._http)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    async def ask(self, request: Callable[[Any], Awaitable[Any]], *, wait_s: float = 0.0) -> Any:
        """Return what `request` gets from py-consul's API; `wait_s` is how long a blocking query may block.

        Raises `Unavailable` when no agent or no leader answers in time, `PermissionDenied` and
        `Unauthenticated` for what the token does not allow, `NotFound` for a session that is gone.
        """
        try:
            async with asyncio.timeout(self.settings.timeout_s + wait_s * (1 + _JITTER)):
                return await request(self._api)
        except (OSError, httpx2.HTTPError) as error:
            raise Unavailable(f"Consul at {self.settings.address} does not answer: {error!r}") from error
        except ACLPermissionDenied as error:
            raise PermissionDenied(f"Consul's ACL does not allow this: {error}") from error
        except ACLDisabled as error:
            raise Unauthenticated(f"Consul takes no token: {error}") from error
        except NotThere as error:
            raise NotFound("Consul object", str(error)) from error
        except ConsulException as error:
            raise Unavailable(f"Consul at {self.settings.address} fails: {error}") from error


class _Transport:
    """What py-consul calls `HTTPClient`: each method returns an awaitable of what `callback` makes of it."""

    def __init__(self, http: httpx2.AsyncClient) -> None:
        self._http = http

    async def get(
        self,
        callback: Callable[[Response], Any],
        path: str,
        params: Parameters = (),
        headers: dict[str, str] | None = None,
    ) -> Any:
        answer = await self._http.get(path, params=list(params or ()), headers=headers)
        return callback(Response(answer.status_code, answer.headers, answer.text))

    async def put(
        self,
        callback: Callable[[Response], Any],
        path: str,
        params: Parameters = (),
        data: str | bytes = "",
        headers: dict[str, str] | None = None,
    ) -> Any:
        answer = await self._http.put(path, params=list(params or ()), content=data, headers=headers)
        return callback(Response(answer.status_code, answer.headers, answer.text))
