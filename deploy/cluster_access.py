"""Who may call a cluster: those in the operator's file, and the cluster's own processes.

The supervisor gives the latter a new token each time the cluster comes up, in files of the workspace that
only its owner can read.
"""

from collections.abc import Mapping
from pathlib import Path

from deploy.secret_file import write_secret
from deploy.settings import ClusterSettings, caller_token
from services.access import AccessRules, Role, read_rules
from shards.errors import FieldViolation, InvalidInput

ROUTER = "router"
SUPERVISOR = "supervisor"

_OWN_CALLERS: Mapping[str, tuple[Role, ...]] = {
    ROUTER: (Role.INTERNAL,),
    SUPERVISOR: (Role.OPERATOR, Role.SEARCH),
}
"""A router follows the placement; the supervisor deploys releases and tries a search."""


def issue_tokens(settings: ClusterSettings) -> None:
    """Give the cluster's own callers new tokens.

    Raises `InvalidInput` for a file of rules that cannot be used, before anything has started.
    """
    if settings.access_path:
        for name in _OWN_CALLERS:
            write_secret(settings.folders.caller_token_path(name))
        access_rules(settings)


def access_rules(settings: ClusterSettings) -> AccessRules | None:
    """Return who may call, None for everybody; raises `InvalidInput` naming the file and the field."""
    if not settings.access_path:
        return None
    rules = read_rules(Path(settings.access_path))
    if not settings.supervised:
        return rules
    try:
        for name, roles in _OWN_CALLERS.items():
            rules = rules.with_caller(name, _read(settings, name), *roles)
    except ValueError as error:
        problem = f"{', '.join(_OWN_CALLERS)} are the cluster's own callers: {error}"
        raise InvalidInput(FieldViolation(settings.access_path, problem)) from error
    return rules


def own_token(settings: ClusterSettings, name: str) -> str | None:
    """Return the token of one of the cluster's own callers, None where nobody asks for one.

    Without a supervisor it is the operator who gives a process its token.
    """
    if not settings.supervised:
        return caller_token()
    return _read(settings, name) if settings.access_path else None


def _read(settings: ClusterSettings, name: str) -> str:
    return settings.folders.caller_token_path(name).read_text()
