"""Rules with a caller for every role, whose token is its name with "-token" behind."""

from services.access import AccessRules, Caller, Role, digest

RULES = AccessRules(
    callers=tuple(
        Caller(name=role.value, token_sha256=digest(f"{role.value}-token"), roles=(role,)) for role in Role
    )
)


def access() -> AccessRules:
    """Return the rules, as a source of them that never changes."""
    return RULES


def showing(token: str | None) -> tuple[tuple[str, str], ...]:
    """Return the metadata of a call with this token, or without one."""
    return () if token is None else (("authorization", f"Bearer {token}"),)
