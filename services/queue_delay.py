"""How long work may wait for a worker: a queue that is bounded in time, not only in length. Pure.

Source: CoDel (Nichols and Jacobson, "Controlling Queue Delay", ACM Queue 2012), in the form that Facebook
gave it for servers (Maurer, "Fail at Scale", ACM Queue 2015). A burst may wait; a queue that does not
become empty any more is one in which all work grows old, and then what has waited too long is dropped.
"""

from dataclasses import dataclass

_BEGINS = 3.0
"""Times the wait for which work is refused, that for which it is dropped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueSettings:
    """A queue stands once it was not empty for `standing_s`.

    Then what will have to wait for a `share` of its time is refused as it comes, while another shard may
    still have room, and what has waited three times as long is dropped; but nothing before `target_s`.
    """

    standing_s: float = 0.3
    target_s: float = 0.02
    share: float = 0.25

    def __post_init__(self) -> None:
        if self.standing_s <= 0 or self.target_s < 0 or not 0 < self.share <= 1:
            raise ValueError("standing_s must be positive, target_s not negative, share above 0, at most 1")


def too_long(
    wait_s: float, *, within_s: float, not_empty_s: float, settings: QueueSettings, begins: bool = False
) -> bool:
    """Return whether work of `within_s` waits too long: refused as it comes, dropped where it `begins`.

    `not_empty_s` is how long ago the queue was last empty.
    """
    standing = not_empty_s >= settings.standing_s
    share = _BEGINS * settings.share if begins else settings.share
    return standing and wait_s > max(settings.target_s, share * within_s)


def expected_wait_s(*, usual_s: float | None, ahead: int, workers: int) -> float:
    """Return how long work will wait behind so many others, each of which usually takes so long.

    `usual_s` is None where that is not known yet; then nobody waits, for all that is known.
    """
    return 0.0 if usual_s is None or ahead < workers else ahead / workers * usual_s


def hopeless(wait_s: float, *, usual_s: float | None, within_s: float) -> bool:
    """Return whether work that waits so long, and then takes what is usual, cannot be done in its time."""
    return wait_s > 0 and wait_s + (usual_s or 0.0) > within_s
