"""A token as the metadata of a call."""

import re

_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")


def bearer(token: str | None) -> tuple[tuple[str, str], ...]:
    """Return the metadata that shows the token, none without one.

    Raises ValueError, which does not repeat it, for what cannot be sent as a token (RFC 6750).
    """
    if not token:
        return ()
    if not _TOKEN.fullmatch(token):
        raise ValueError("a token is made of letters, digits and -._~+/ alone, with = at its end")
    return (("authorization", f"Bearer {token}"),)
