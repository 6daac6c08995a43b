"""Errors of a cluster as visitors read them: what is wrong, and what to do about it."""

from collections.abc import Awaitable
from dataclasses import dataclass
from typing import TypeVar

import grpc

from router.call_error import CallError
from shards.errors import (
    Conflict,
    DeadlineExceeded,
    HeadraceError,
    InvalidInput,
    NotFound,
    Overloaded,
    PermissionDenied,
    Refused,
    Unauthenticated,
    Unavailable,
)

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Something that a page has instead of what was asked for; `status` is HTTP's."""

    title: str
    text: str
    hint: str = ""
    status: int = 502
    log_in: bool = False


_KINDS: tuple[tuple[type[HeadraceError], str, int], ...] = (
    (Unauthenticated, "Log in to see this", 401),
    (PermissionDenied, "Your token does not allow this", 403),
    (InvalidInput, "That cannot be asked for", 400),
    (NotFound, "There is no such thing", 404),
    (Conflict, "The placement has moved on", 409),
    (Refused, "The cluster does not allow this now", 409),
    (Overloaded, "The cluster has too much to do", 503),
    (Unavailable, "No answer", 503),
    (DeadlineExceeded, "The answer took too long", 504),
)

_CODES = {
    grpc.StatusCode.UNAUTHENTICATED: ("Log in to search", 401),
    grpc.StatusCode.PERMISSION_DENIED: ("Your token does not allow this", 403),
    grpc.StatusCode.INVALID_ARGUMENT: ("That cannot be searched for", 400),
    grpc.StatusCode.NOT_FOUND: ("There is no such thing", 404),
    grpc.StatusCode.RESOURCE_EXHAUSTED: ("The router has too much to do", 503),
    grpc.StatusCode.UNAVAILABLE: ("No answer from the router", 503),
    grpc.StatusCode.DEADLINE_EXCEEDED: ("The answer took too long", 504),
}

_WHO = "The cluster asks for a token, and knows none of yours."

_HINTS: dict[type[HeadraceError], str] = {
    PermissionDenied: "Log in with a token of that role.",
    Conflict: "Plan again: what you saw was made for a placement that is no more.",
    Unavailable: "Searches are answered without a controller. This page looks again by itself.",
}


def problem_of(error: HeadraceError | CallError) -> Problem:
    """Return what to tell a visitor; nothing of where in a program it happened."""
    if isinstance(error, CallError):
        return _of_call(error)
    title, status = next(
        ((title, status) for kind, title, status in _KINDS if isinstance(error, kind)),
        ("The cluster could not do it", 502),
    )
    if isinstance(error, Unauthenticated):
        return Problem(title=title, text=_WHO, hint=str(error), status=status, log_in=True)
    hint = next((hint for kind, hint in _HINTS.items() if isinstance(error, kind)), "")
    return Problem(title=title, text=str(error), hint=hint, status=status)


def _of_call(error: CallError) -> Problem:
    title, status = _CODES.get(error.code, ("The router could not do it", 502))
    fields = "; ".join(f"{each.field}: {each.description}" for each in error.violations)
    if error.code is grpc.StatusCode.UNAUTHENTICATED:
        return Problem(title=title, text=_WHO, hint=error.message, status=status, log_in=True)
    later = f"Try again in {error.retry_after_s:.1f} s." if error.retry_after_s else ""
    return Problem(
        title=title,
        text=fields or error.message,
        hint=later,
        status=status,
    )


async def tried(asked: Awaitable[T]) -> T | Problem:
    """Return what was asked for, or why there is none."""
    try:
        return await asked
    except (HeadraceError, CallError) as error:
        return problem_of(error)
