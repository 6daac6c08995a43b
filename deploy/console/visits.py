"""Who looks at a console: a cookie for each browser, behind which a token may be kept.

The token stays in this process; the browser holds a random id, which is a new one after each login.
"""

import hashlib
import hmac
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

_ID_BYTES = 32


@dataclass(frozen=True, slots=True)
class Visitor:
    """A browser; `token` is what it logged in with."""

    visit_id: str
    token: str | None
    csrf: str
    """What a form of this browser's own pages carries, and no other site can know."""


class Visits:
    """The tokens of those who logged in; the oldest go where there are more than `most`."""

    def __init__(
        self, *, life_s: float = 12 * 3600.0, most: int = 1000, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._life_s = life_s
        self._most = most
        self._clock = clock
        self._key = secrets.token_bytes(_ID_BYTES)
        self._tokens: OrderedDict[str, tuple[str, float]] = OrderedDict()

    def visitor(self, visit_id: str) -> Visitor:
        """Return the browser of a cookie."""
        token, began_s = self._tokens.get(visit_id, (None, 0.0))
        if token is not None and self._clock() - began_s > self._life_s:
            self.log_out(visit_id)
            token = None
        return Visitor(visit_id, token, self._csrf(visit_id))

    def newcomer(self) -> Visitor:
        """Return a browser that has no cookie yet; nothing is kept of it."""
        return self.visitor(secrets.token_urlsafe(_ID_BYTES))

    def log_in(self, token: str) -> Visitor:
        """Keep a token, and return the browser under a new id."""
        visitor = self.newcomer()
        self._tokens[visitor.visit_id] = (token, self._clock())
        while len(self._tokens) > self._most:
            self._tokens.popitem(last=False)
        return Visitor(visitor.visit_id, token, visitor.csrf)

    def log_out(self, visit_id: str) -> None:
        """Forget a token."""
        self._tokens.pop(visit_id, None)

    def _csrf(self, visit_id: str) -> str:
        return hmac.new(self._key, visit_id.encode(), hashlib.sha256).hexdigest()


def same_secret(given: str, known: str) -> bool:
    """Compare in a time that tells nothing of where they differ."""
    return hmac.compare_digest(given.encode(), known.encode())
