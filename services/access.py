"""Who may call what: callers, known by digests of their tokens or by certificates, and roles of methods.

Tokens themselves are stored nowhere and never shown. Pure but for reading the file of the rules.
"""

import enum
import hashlib
import hmac
import math
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
    "grpc.channelz.v1.Channelz": (Role.OPERATOR,),
    "grpc.reflection.v1alpha.ServerReflection": (Role.OPERATOR,),
}
"""Any of these roles opens the service or, where it is named, the method."""

OPEN_SERVICES = frozenset({"grpc.health.v1.Health"})
"""What asks nobody who he is: load balancers look whether a process serves."""

_SHA256 = re.compile("[0-9a-f]{64}")
# RFC 6750: the scheme in any case, one space or more, and the characters of a token.
_BEARER = re.compile(r"bearer +([A-Za-z0-9._~+/-]+=*)", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """What one caller may take of one process; 0 sets no limit.

    `burst` calls may come at once before `requests_per_s` holds; 0 is what a second allows.
    """

    requests_per_s: float = 0.0
    burst: int = 0
    in_flight: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.requests_per_s < math.inf or min(self.burst, self.in_flight) < 0:
            raise ValueError("requests_per_s, burst and in_flight must be 0 or more")
        if self.burst and not self.requests_per_s:
            raise ValueError("burst needs requests_per_s")


UNLIMITED = Quota()


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Somebody who may call, known by a token, a certificate or either.

    `token_sha256` is the lower-case hex digest of the token; `certificate` a subject alternative name of the
    certificate, or the common name of one that has none.
    """

    name: str
    token_sha256: str = ""
    certificate: str = ""
    roles: tuple[Role, ...]
    quota: Quota = UNLIMITED

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("name is empty")
        if not self.token_sha256 and not self.certificate:
            raise ValueError("token_sha256 and certificate are both empty: nobody could tell who it is")
        if self.token_sha256 and not _SHA256.fullmatch(self.token_sha256):
            raise ValueError("token_sha256 is not 64 lower-case hex digits")
        if not self.roles:
            raise ValueError("roles is empty")


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessRules:
    """All callers; no two share a name, a token or a certificate."""

    callers: tuple[Caller, ...]

    def __post_init__(self) -> None:
        if not self.callers:
            raise ValueError("callers is empty: nobody could call")
        for field in ("name", "token_sha256", "certificate"):
            seen: dict[str, str] = {}
            for i, caller in enumerate(self.callers):
                value = getattr(caller, field)
                if value and value in seen:
                    what = f"{value!r} is there twice" if field == "name" else f"is that of {seen[value]!r}"
                    raise ValueError(f"callers[{i}].{field} {what}")
                seen[value] = caller.name

    def with_callers(self, *more: Caller) -> Self:
        """Return the rules with more callers; raises ValueError if a name is taken."""
        return type(self)(callers=(*self.callers, *more))


@dataclass(frozen=True, slots=True)
class Shown:
    """What came with a call: the authorization header, and the names in the certificate of its connection."""

    authorization: str | None = None
    certificate_names: tuple[str, ...] = ()


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


def internal_only(_: str) -> tuple[Role, ...]:
    """Return the role of which callers of a shard need one, whatever they call."""
    return (Role.INTERNAL,)


def authorise(rules: AccessRules, shown: Shown, required: tuple[Role, ...]) -> Caller:
    """Return the caller who shows this and has one of the required roles; a token counts first.

    Raises `Unauthenticated` for who cannot be told, by a malformed or unknown token above all, and
    `PermissionDenied` for a caller without such a role; neither says anything of the token.
    """
    caller = _caller(rules, shown)
    if not set(caller.roles) & set(required):
        needed = " or ".join(repr(role.value) for role in required) or "that nobody has"
        raise PermissionDenied(f"caller {caller.name!r} lacks the role {needed}")
    return caller


def _caller(rules: AccessRules, shown: Shown) -> Caller:
    if shown.authorization is not None:
        return _by_token(rules, shown.authorization)
    if not shown.certificate_names:
        raise Unauthenticated("no token came with the call; send the metadata 'authorization: Bearer …'")
    for caller in rules.callers:
        if caller.certificate and caller.certificate in shown.certificate_names:
            return caller
    raise Unauthenticated(f"the rules know nobody by the certificate of {shown.certificate_names[0]!r}")


def _by_token(rules: AccessRules, authorization: str) -> Caller:
    bearer = _BEARER.fullmatch(authorization)
    if bearer is None:
        raise Unauthenticated("the authorization is not 'Bearer' and a token")
    token_sha256 = digest(bearer[1])
    # Every caller is compared, so that the time taken tells nothing of who it is either.
    known = [c for c in rules.callers if hmac.compare_digest(c.token_sha256, token_sha256)]
    if not known:
        raise Unauthenticated("the token is not known")
    return known[0]
