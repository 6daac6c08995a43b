"""What gRPC's interceptors take and give. Methods of any service pass them: nothing is known of messages."""

from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import grpc

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any] | None"
"""None where no service has the method."""

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"

Continuation: TypeAlias = "Callable[[grpc.HandlerCallDetails], Awaitable[Handler]]"
"""Asks the next interceptor, and the services after the last one."""
