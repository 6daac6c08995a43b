"""When to let a store that has been silent alone: pure; times are monotonic seconds."""


class Outage:
    """Says who may ask. After a failure nobody may for `rest_s`; then one caller tries for all."""

    def __init__(self, rest_s: float) -> None:
        self._rest_s = rest_s
        self._until_s: float | None = None

    def may_ask(self, now_s: float) -> bool:
        """Return whether to ask; who may, of those that come after a failure, is the one that tries."""
        if self._until_s is None:
            return True
        if now_s < self._until_s:
            return False
        self._until_s = now_s + self._rest_s
        return True

    def failed(self, now_s: float) -> bool:
        """Note a failure; returns whether it is news."""
        news = self._until_s is None
        self._until_s = now_s + self._rest_s
        return news

    def answered(self) -> bool:
        """Note an answer; returns whether it is news."""
        news = self._until_s is not None
        self._until_s = None
        return news
