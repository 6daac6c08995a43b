"""Channels that show what a caller has: its certificate, and its token with every call."""

from collections.abc import Callable
from typing import Any

import grpc.aio

from router.credentials import Credentials
from services.bearer import bearer
from services.chassis import channel_options
from services.tls import Certificates, Party, open_channel


def caller_channel(target: str, credentials: Credentials, expected: Party) -> grpc.aio.Channel:
    """Return a channel to HOST:PORT whose unary calls carry the token, where there is one.

    Raises ValueError for what cannot be sent as a token, `CertificateError` for files that cannot be used.
    """
    return open_channel(
        target,
        Certificates(credentials.tls) if credentials.tls else None,
        expected.value,
        options=channel_options(),
        interceptors=[_ShowToken(bearer(credentials.token))] if credentials.token else [],
    )


class _ShowToken(grpc.aio.UnaryUnaryClientInterceptor):
    def __init__(self, metadata: tuple[tuple[str, str], ...]) -> None:
        self._metadata = metadata

    async def intercept_unary_unary(
        self,
        continuation: Callable[..., Any],
        client_call_details: grpc.aio.ClientCallDetails,
        request: Any,
    ) -> Any:
        """Add the metadata to the call's own."""
        given = client_call_details
        details = grpc.aio.ClientCallDetails(
            method=given.method,
            timeout=given.timeout,
            metadata=grpc.aio.Metadata(*(given.metadata or ()), *self._metadata),
            credentials=given.credentials,
            wait_for_ready=given.wait_for_ready,
        )
        return await continuation(details, request)
