"""Channels that show what a caller has: its certificate, and its token with every call."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc.aio

from router.credentials import Credentials
from services.bearer import bearer
from services.chassis import channel_options
from services.tls import CertificateError, Certificates, Party, open_channel
from shards.errors import FieldViolation, InvalidInput


def caller_channel(target: str, credentials: Credentials, expected: Party) -> grpc.aio.Channel:
    """Return a channel to HOST:PORT whose unary calls carry the token, where there is one.

    Raises ValueError for what cannot be sent as a token, `InvalidInput` for certificates that cannot be used.
    """
    with naming_certificates():
        certificates = Certificates(credentials.tls) if credentials.tls else None
    return open_channel(
        target,
        certificates,
        expected.value,
        options=channel_options(),
        interceptors=[_ShowToken(bearer(credentials.token))] if credentials.token else [],
    )


@contextmanager
def naming_certificates() -> Iterator[None]:
    """Raise `InvalidInput` with the file, for certificates that cannot be used inside the block."""
    try:
        yield
    except CertificateError as error:
        raise InvalidInput(FieldViolation(str(error.path), error.problem)) from error


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
