"""Who may call what: callers known by the SHA-256 of their tokens, and the roles that methods ask for.

Tokens themselves are stored nowhere and never shown. Pure but for reading the file of the rules.
"""

import enum
import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from shards.errors import FieldViolation, InvalidInput, PermissionDenied, Unauthenticated
from shards.json_codec import from_json, parse

AUTHORIZATION_KEY = "authorization"
"""Metadata of a request: `Bearer TOKEN`."""


class Role(enum.Enum):
    """What a caller may do."""

    SEARCH = "search"
    EVENTS = "events"
    OPERATOR = "operator"
    INTERNAL = "internal"


_ROLES: Mapping[str, tuple[Role, ...]] = {
    "headrace.v1.SearchService": (Role.SEARCH,),
    "headrace.v1.RetrievalService": (Role.SEARCH,),
    "headrace.v1.PreRankingService": (Role.SEARCH,),
    "headrace.v1.RankingService": (Role.SEARCH,),
    "headrace.v1.EventService": (Role.EVENTS,),
    "headrace.v1.ClusterService": (Role.OPERATOR,),
    "headrace.v1.ClusterService/GetPlacement": (Role.OPERATOR, Role.INTERNAL),
    "headrace.v1.ClusterService/WatchPlacement": (Role.OPERATOR, Role.INTERNAL),
    "headrace.v1.ClusterService/ReportShadow": (Role.INTERNAL,),
    "headrace.v1.CascadeService": (Role.INTERNAL,),
    "headrace.v1.ShardService": (Role.INTERNAL,),
}
"""Any of these roles opens the service or, where it is named, the method."""

_SHA256 = re.compile("[0-9a-f]{64}")
# RFC 6750: the scheme in any case, one space or more, and the characters of a token.
_BEARER = re.compile(r"bearer +([A-Za-z0-9._~+/-]+=*)", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Somebody who may call; `token_sha256` is the lower-case hex digest of the token."""

    name: str
    token_sha256: str
    roles: tuple[Role, ...]

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("name is empty")
        if not _SHA256.fullmatch(self.token_sha256):
            raise ValueError("token_sha256 is not 64 lower-case hex digits")
        if not self.roles:
            raise ValueError("roles is empty")


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessRules:
    """All callers; no two share a name or a token."""

    callers: tuple[Caller, ...]

    def __post_init__(self) -> None:
        if not self.callers:
            raise ValueError("callers is empty: nobody could call")
        for i, caller in enumerate(self.callers):
            for earlier in self.callers[:i]:
                if caller.name == earlier.name:
                    raise ValueError(f"callers[{i}].name {caller.name!r} is there twice")
                if caller.token_sha256 == earlier.token_sha256:
                    raise ValueError(f"callers[{i}].token_sha256 is that of {earlier.name!r}")

    def with_caller(self, name: str, token: str, *roles: Role) -> Self:
        """Return the rules with one more caller; raises ValueError if the name is taken."""
        caller = Caller(name=name, token_sha256=digest(token), roles=roles)
        return type(self)(callers=(*self.callers, caller))


def read_rules(path: Path) -> AccessRules:
    """Return the rules in a JSON file; raises `InvalidInput` naming the file and the field at fault."""
    try:
        return from_json(AccessRules, parse(path.read_bytes()))
    except OSError as error:
        raise InvalidInput(FieldViolation(str(path), f"cannot be read: {error.strerror}")) from error
    except ValueError as error:
        raise InvalidInput(FieldViolation(str(path), f"has no access rules: {error}")) from error


def digest(token: str) -> str:
    """Return what the rules hold of a token."""
    return hashlib.sha256(token.encode()).hexdigest()


def roles_for(method: str) -> tuple[Role, ...]:
    """Return the roles of which a caller of /SERVICE/METHOD needs one; none where nobody may call it."""
    name = method.removeprefix("/")
    return _ROLES.get(name) or _ROLES.get(service_of(method), ())


def service_of(method: str) -> str:
    """Return the service of /SERVICE/METHOD."""
    return method.removeprefix("/").partition("/")[0]


def authorise(rules: AccessRules, authorization: str | None, required: tuple[Role, ...]) -> str:
    """Return the name of the caller who sends this header and has one of the required roles.

    Raises `Unauthenticated` for no, a malformed or an unknown token and `PermissionDenied` for a caller
    without such a role; neither says anything of the token.
    """
    caller = _caller(rules, authorization)
    if not set(caller.roles) & set(required):
        needed = " or ".join(repr(role.value) for role in required) or "that nobody has"
        raise PermissionDenied(f"caller {caller.name!r} lacks the role {needed}")
    return caller.name


def _caller(rules: AccessRules, authorization: str | None) -> Caller:
    if authorization is None:
        raise Unauthenticated("no token came with the call; send the metadata 'authorization: Bearer …'")
    bearer = _BEARER.fullmatch(authorization)
    if bearer is None:
        raise Unauthenticated("the authorization is not 'Bearer' and a token")
    token_sha256 = digest(bearer[1])
    # Every caller is compared, so that the time taken tells nothing of who it is either.
    known = [c for c in rules.callers if hmac.compare_digest(c.token_sha256, token_sha256)]
    if not known:
        raise Unauthenticated("the token is not known")
    return known[0]
