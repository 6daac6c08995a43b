"""Failed loads wait longer each time, and end with a reason."""

import pytest

from shards.errors import Unavailable
from shards.load_attempts import AttemptLimits, LoadAttempts

LIMITS = AttemptLimits(attempts=4, backoff_s=1.0, max_backoff_s=3.0)


def test_waits_double_up_to_a_limit_until_it_is_given_up() -> None:
    attempts = LoadAttempts()
    attempts.check(0.0, "model a@1")
    waits = []
    for _ in range(3):
        attempts = attempts.failed(10.0, "full", LIMITS)
        waits.append(attempts.retry_s - 10.0)
        with pytest.raises(Unavailable, match=r"model a@1 failed to load and is tried again in .* s: full"):
            attempts.check(10.0, "model a@1")
        attempts.check(attempts.retry_s, "model a@1")
    assert waits == [1.0, 2.0, 3.0]
    attempts = attempts.failed(20.0, "empty", LIMITS)
    with pytest.raises(Unavailable, match="model a@1 failed to load 4 times, the last time: empty"):
        attempts.check(1e9, "model a@1")


@pytest.mark.parametrize("wrong", [{"attempts": 0}, {"backoff_s": -1.0}, {"max_backoff_s": 0.5}])
def test_limits_must_make_sense(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be at least 1"):
        AttemptLimits(**wrong)  # type: ignore[arg-type]
