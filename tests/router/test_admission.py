import asyncio
import contextlib

import pytest

from router.admission import Admission, Admitted
from router.answer_rate import LimitSettings
from router.budget import Deadline
from router.loop_lag import LoopLag
from shards.errors import DeadlineExceeded, Overloaded


def places(count: int) -> LimitSettings:
    return LimitSettings().below(count)


def test_what_exceeds_the_limit_is_refused_with_a_time_to_come_back() -> None:
    async def main() -> None:
        admission = Admission(places(2), retry_after_s=0.25)
        with admission.admitted():
            with admission.admitted():
                with (
                    pytest.raises(Overloaded, match="2 requests are in flight") as caught,
                    admission.admitted(),
                ):
                    pytest.fail("a third request was admitted")
                assert caught.value.retry_after_s == 0.25
                assert admission.refused == 1
            with admission.admitted():
                assert admission.in_flight == 2

    asyncio.run(main())


def test_a_failing_request_gives_its_place_back() -> None:
    async def main() -> None:
        admission = Admission(places(1))
        with pytest.raises(RuntimeError), admission.admitted():
            raise RuntimeError
        with admission.admitted():
            assert admission.in_flight == 1

    asyncio.run(main())


def test_a_request_without_time_is_refused_at_once_and_takes_no_place() -> None:
    admission = Admission(places(1))
    with pytest.raises(DeadlineExceeded), admission.admitted(Deadline.after(0.001)):
        pytest.fail("there was no time")
    assert admission.in_flight == 0


def test_a_router_is_busy_when_half_of_its_places_are_taken() -> None:
    async def main() -> None:
        admission = Admission(places(2))
        assert not admission.busy
        with admission.admitted():
            assert admission.busy

    asyncio.run(main())


class Clock:
    """Time that passes as a test says."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_under_load_those_are_let_in_who_can_be_answered_in_their_time() -> None:
    async def main() -> None:
        clock = Clock()
        admission = Admission(LimitSettings(floor=2, ceiling=64, share=0.5), clock=clock)

        def serve(per_s: float, seconds: float) -> None:
            """Answer the oldest, and take in whoever is let in."""
            held: list[Admitted] = []
            until_s = clock.now_s + seconds
            while clock.now_s < until_s:
                with contextlib.suppress(Overloaded):
                    while True:
                        held.append(admission.admitted(Deadline(clock.now_s + 1.0, clock)))
                        held[-1].__enter__()
                clock.now_s += 1 / per_s
                held.pop(0).__exit__(None, None, None)
            for place in held:
                place.__exit__(asyncio.CancelledError, None, None)

        assert admission.limit == 64
        serve(40.0, seconds=3.0)
        assert 18 <= admission.limit <= 22
        with contextlib.ExitStack() as taken:
            for _ in range(4):
                taken.enter_context(admission.admitted(Deadline(clock.now_s + 0.2, clock)))
            with pytest.raises(Overloaded):
                admission.admitted(Deadline(clock.now_s + 0.2, clock))
        clock.now_s += 60.0
        with admission.admitted():
            assert admission.limit == 64

    asyncio.run(main())


def test_a_blocked_event_loop_is_seen() -> None:
    async def main() -> None:
        lag = LoopLag()
        lag.watch()
        loop = asyncio.get_running_loop()
        until_s = loop.time() + 0.1
        await asyncio.sleep(0)
        while loop.time() < until_s:
            pass
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert lag.taken_s() > 0.05
        lag.rest()

    asyncio.run(main())


def test_answers_must_be_there_as_much_sooner_as_the_loop_is_late() -> None:
    admission, now = Admission(places(2)), Deadline.after(1.0, lambda: 0.0)
    assert admission.sooner(now).remaining_s() == 1.0
    admission.lag_s = 0.02
    assert admission.sooner(now).remaining_s() == pytest.approx(0.94)
    admission.lag_s = 5.0
    assert admission.sooner(now).remaining_s() == pytest.approx(0.75)
