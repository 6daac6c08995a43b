"""A leak is what lasts, and what no bundle accounts for."""

from shards.leak_guard import LeakGuard, LeakLimits

MIB = 2**20
LIMITS = LeakLimits(limit_bytes=100 * MIB, baseline_bytes=200 * MIB, patience_s=10)


def test_it_tells_what_lasts() -> None:
    guard = LeakGuard(LIMITS)
    assert guard.look(0, 500 * MIB, 250 * MIB, loading=False) == ""
    assert guard.look(100, 401 * MIB, 100 * MIB, loading=False) == ""
    assert guard.look(109, 401 * MIB, 100 * MIB, loading=False) == ""
    reason = guard.look(110, 401 * MIB, 100 * MIB, loading=False)
    assert reason == "101 MiB more memory than its bundles account for, 100 MiB allowed"


def test_loads_and_moments_begin_the_time_anew() -> None:
    guard = LeakGuard(LIMITS)
    for interruption in ({"used_bytes": 900 * MIB, "loading": True}, {"used_bytes": 0, "loading": False}):
        assert guard.look(0, 900 * MIB, 0, loading=False) == ""
        assert guard.look(9, bundle_bytes=0, **interruption) == ""  # type: ignore[arg-type]
        assert guard.look(11, 900 * MIB, 0, loading=False) == ""
        assert guard.look(12, 0, 0, loading=False) == ""


def test_without_a_limit_it_never_asks() -> None:
    guard = LeakGuard(LeakLimits(limit_bytes=0, baseline_bytes=0, patience_s=0))
    assert guard.look(0, 10**12, 0, loading=False) == ""
