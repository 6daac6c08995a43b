import asyncio

import pytest

from router.admission import Admission
from router.budget import Deadline
from router.concurrency_limit import LimitSettings
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


def test_the_limit_falls_while_requests_take_much_longer_than_usual() -> None:
    async def main() -> None:
        clock = Clock()
        admission = Admission(LimitSettings(floor=2, start=16, ceiling=64, standing_s=0.0), clock=clock)

        def serve(took_s: float, times: int) -> None:
            for _ in range(times):
                held = [admission.admitted() for _ in range(admission.limit)]
                for place in held:
                    place.__enter__()
                clock.now_s += took_s
                for place in held:
                    place.__exit__(None, None, None)

        serve(0.2, times=3)
        usual = admission.limit
        serve(2.0, times=20)
        assert admission.limit < usual / 2
        serve(0.2, times=50)
        assert admission.limit >= usual

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
