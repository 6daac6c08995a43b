"""Whom a shard answers: the routers and controllers of its cluster, and nobody else."""

from collections.abc import Iterable
from pathlib import Path

from services.access import AccessRules, Caller, Role, read_rules
from services.followed_rules import FollowedRules, RulesSource
from services.shard_config import ShardConfig
from services.tls import Party

ROUTER, CONTROLLER, SUPERVISOR, SHARD_CALLER = "router", "controller", "supervisor", "shard"
_OWN = frozenset({ROUTER, CONTROLLER, SHARD_CALLER})


def cluster_callers(token_sha256: str, others: Iterable[Caller], *, certificates: bool) -> tuple[Caller, ...]:
    """Return the cluster's own processes and those of the others that have the role internal."""
    internal = (Role.INTERNAL,)
    own = []
    if certificates:
        own = [
            Caller(name=ROUTER, certificate=Party.ROUTER.value, roles=internal),
            Caller(name=CONTROLLER, certificate=Party.CONTROLLER.value, roles=internal),
        ]
    if token_sha256:
        own.append(Caller(name=SHARD_CALLER, token_sha256=token_sha256, roles=internal))
    return (*own, *(caller for caller in others if Role.INTERNAL in caller.roles))


def followed(config: ShardConfig) -> RulesSource | None:
    """Return whom the shard answers, None for everybody.

    Where its node has the operator's file, a change of it is noticed; else what the shard was started with
    holds until it is started again. The cluster's own processes stay as they are.
    """
    access, path = config.access, Path(config.access_path)
    if access is None:
        return None
    if not config.access_path or not path.is_file():
        return lambda: access
    own = tuple(caller for caller in access.callers if caller.name in _OWN)

    def read() -> AccessRules:
        return AccessRules(callers=(*own, *cluster_callers("", read_rules(path).callers, certificates=False)))

    return FollowedRules(read, (path,))
