"""When not to try again: a budget that stops retry storms."""


class RetryBudget:
    """Lets a client retry only while most of its calls succeed.

    A token bucket as in gRPC's retry throttling (gRFC A6): a failure costs one token, a success gives
    back `refill`, and retries stop while half of the tokens or fewer are left.
    """

    def __init__(self, *, tokens: float = 10.0, refill: float = 0.1) -> None:
        self._most = tokens
        self._tokens = tokens
        self._refill = refill

    def failed(self) -> bool:
        """Pay for a failure; returns whether a retry is affordable."""
        self._tokens = max(0.0, self._tokens - 1)
        return self._tokens > self._most / 2

    def succeeded(self) -> None:
        """Earn for a success."""
        self._tokens = min(self._most, self._tokens + self._refill)
