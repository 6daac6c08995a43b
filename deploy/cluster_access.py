"""Who may call a cluster: those in the operator's file, and the cluster's own processes.

With certificates the latter are known by theirs. Without, the supervisor gives them new tokens each time the
cluster comes up, in files of the workspace that only its owner can read. The token that shards ask for stays
from one time to the next, as shards of a joined Ray do.
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from deploy.secret_file import keep_secret, write_secret
from deploy.settings import TOKEN_VARIABLE, ClusterSettings, caller_token, process_certificates
from router.credentials import Credentials
from services.access import AccessRules, Caller, Role, digest, read_rules
from services.followed_rules import FollowedRules, RulesSource
from services.shard_access import ROUTER, SHARD_CALLER, SUPERVISOR, cluster_callers
from services.tls import Party
from shards.errors import FieldViolation, InvalidInput

_OWN_TOKENS: Mapping[str, tuple[Role, ...]] = {
    ROUTER: (Role.INTERNAL,),
    SUPERVISOR: (Role.OPERATOR, Role.SEARCH),
}
"""A router follows the placement; the supervisor deploys releases and tries a search."""

_BY_CERTIFICATE = AccessRules(
    callers=(
        Caller(
            name=Party.OPERATOR.word,
            certificate=Party.OPERATOR.value,
            roles=(Role.OPERATOR, Role.SEARCH, Role.EVENTS),
        ),
        Caller(name=Party.CLIENT.word, certificate=Party.CLIENT.value, roles=(Role.SEARCH, Role.EVENTS)),
    )
)
"""Who may call where there are certificates and no file of rules."""


def issue_tokens(settings: ClusterSettings) -> None:
    """Give the cluster's own callers new tokens.

    Raises `InvalidInput` for rules or certificates that cannot be used, before anything has started.
    """
    if settings.ruled:
        for name in _OWN_TOKENS:
            write_secret(settings.folders.caller_token_path(name))
        keep_secret(settings.folders.caller_token_path(SHARD_CALLER))
        _rules(settings)
        shard_rules(settings)


def access_rules(settings: ClusterSettings) -> RulesSource | None:
    """Return who may call routers and controllers, None for everybody; the file is read again as it changes.

    Raises `InvalidInput` naming the file and the field.
    """
    if not settings.ruled:
        return None
    paths = (Path(settings.access_path),) if settings.access_path else ()
    return FollowedRules(partial(_rules, settings), paths)


def shard_rules(settings: ClusterSettings) -> AccessRules | None:
    """Return who may call shards, None for everybody; raises `InvalidInput` where that would be nobody."""
    if not settings.ruled:
        return None
    try:
        return AccessRules(callers=_internal(settings))
    except ValueError as error:
        problem = f"names nobody with the role 'internal', whom shards would answer: {error}"
        raise InvalidInput(FieldViolation(settings.access_path, problem)) from error


def shard_token(settings: ClusterSettings) -> str | None:
    """Return the token that shards are shown; None where they ask for none, or for a certificate.

    Raises `InvalidInput` where they ask for one and the environment has none.
    """
    if settings.tls_path:
        return None
    if settings.supervised:
        return _read(settings, SHARD_CALLER) if settings.ruled else None
    token = caller_token()
    if settings.ruled and token is None:
        problem = "is missing: shards answer who shows a token with the role 'internal'"
        raise InvalidInput(FieldViolation(TOKEN_VARIABLE, problem))
    return token


def own_token(settings: ClusterSettings, name: str) -> str | None:
    """Return the token of one of the cluster's own callers, None where nobody asks for one.

    Without a supervisor it is the operator who gives a process its token.
    """
    if not settings.supervised:
        return caller_token()
    return _read(settings, name) if settings.ruled else None


def supervisor_credentials(settings: ClusterSettings) -> Credentials:
    """Return what the supervisor shows: its token, over a connection with the controller's certificate."""
    return Credentials(
        token=own_token(settings, SUPERVISOR), tls=process_certificates(settings, Party.CONTROLLER)
    )


def _rules(settings: ClusterSettings) -> AccessRules:
    rules = read_rules(Path(settings.access_path)) if settings.access_path else _BY_CERTIFICATE
    own = [caller for name in _OWN_TOKENS if (caller := _own_caller(settings, name))]
    try:
        return rules.with_callers(*own)
    except ValueError as error:
        problem = f"{', '.join(_OWN_TOKENS)} are the cluster's own callers: {error}"
        raise InvalidInput(FieldViolation(settings.access_path, problem)) from error


def _own_caller(settings: ClusterSettings, name: str) -> Caller | None:
    token_sha256 = digest(_read(settings, name)) if settings.supervised else ""
    certificate = Party.ROUTER.value if name == ROUTER and settings.tls_path else ""
    if not token_sha256 and not certificate:
        return None
    return Caller(name=name, token_sha256=token_sha256, certificate=certificate, roles=_OWN_TOKENS[name])


def _internal(settings: ClusterSettings) -> tuple[Caller, ...]:
    others = read_rules(Path(settings.access_path)).callers if settings.access_path else ()
    by_token = settings.supervised and not settings.tls_path
    token_sha256 = digest(_read(settings, SHARD_CALLER)) if by_token else ""
    return cluster_callers(token_sha256, others, certificates=bool(settings.tls_path))


def _read(settings: ClusterSettings, name: str) -> str:
    return settings.folders.caller_token_path(name).read_text()
