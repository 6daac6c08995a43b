"""The pool bounds its queue, keeps deadlines and never computes what has expired."""

import asyncio
import threading
import time

import pytest

from services.queue_delay import QueueSettings
from services.worker_pool import WorkerPool
from shards.errors import DeadlineExceeded, Overloaded


def test_it_computes_off_the_event_loop_and_tells_the_time() -> None:
    async def main() -> None:
        async with WorkerPool(workers=1, max_queue=0) as pool:
            timed = await pool.run(threading.get_ident, within_s=10)
            assert timed.value != threading.get_ident()
            assert timed.queue_s >= 0
            assert timed.compute_s >= 0

    asyncio.run(main())


def test_a_full_queue_refuses_and_recovers() -> None:
    async def main() -> None:
        release = threading.Event()
        async with WorkerPool(workers=1, max_queue=1) as pool:
            jobs = [asyncio.create_task(pool.run(release.wait, within_s=10)) for _ in range(2)]
            await asyncio.sleep(0)
            assert pool.in_flight == 2
            with pytest.raises(Overloaded) as caught:
                await pool.run(release.wait, within_s=10)
            assert caught.value.retry_after_s > 0
            release.set()
            await asyncio.gather(*jobs)
            assert await pool.wait_idle(10) == 0
            assert (await pool.run(lambda: 7, within_s=10)).value == 7

    asyncio.run(main())


def test_what_expires_in_the_queue_is_not_computed() -> None:
    async def main() -> None:
        release, computed = threading.Event(), []
        async with WorkerPool(workers=1, max_queue=5) as pool:
            busy = asyncio.create_task(pool.run(release.wait, within_s=10))
            await asyncio.sleep(0)
            with pytest.raises(DeadlineExceeded):
                await pool.run(lambda: computed.append(1), within_s=0.01)
            release.set()
            await busy
            assert await pool.wait_idle(10) == 0
        assert computed == []

    asyncio.run(main())


def test_a_deadline_that_has_passed_is_not_computed() -> None:
    async def main() -> None:
        computed: list[int] = []
        async with WorkerPool(workers=1, max_queue=5) as pool:
            with pytest.raises(DeadlineExceeded):
                await pool.run(lambda: computed.append(1), within_s=-1)
            await pool.wait_idle(10)
        assert computed == []

    asyncio.run(main())


def test_a_caller_that_leaves_frees_its_place_but_not_the_worker() -> None:
    async def main() -> None:
        started, release = threading.Event(), threading.Event()

        def hold() -> None:
            started.set()
            release.wait()

        async with WorkerPool(workers=1, max_queue=3) as pool:
            running = asyncio.create_task(pool.run(hold, within_s=10))
            waiting = asyncio.create_task(pool.run(hold, within_s=10))
            await asyncio.to_thread(started.wait)
            running.cancel()
            waiting.cancel()
            await asyncio.gather(running, waiting, return_exceptions=True)
            assert await pool.wait_idle(0.01) == 1
            release.set()
            assert await pool.wait_idle(10) == 0

    asyncio.run(main())


def test_errors_pass() -> None:
    def fail() -> None:
        raise KeyError("x")

    async def main() -> None:
        async with WorkerPool(workers=1, max_queue=0) as pool:
            with pytest.raises(KeyError):
                await pool.run(fail, within_s=10)
            assert await pool.wait_idle(10) == 0

    asyncio.run(main())


def test_queue_time_is_told() -> None:
    async def main() -> None:
        async with WorkerPool(workers=1, max_queue=5) as pool:
            first = asyncio.create_task(pool.run(lambda: time.sleep(0.05), within_s=10))
            await asyncio.sleep(0)
            second = await pool.run(lambda: None, within_s=10)
            assert second.queue_s >= 0.8 * (await first).compute_s

    asyncio.run(main())


def test_in_a_queue_that_stands_what_would_wait_too_long_is_refused_as_it_comes() -> None:
    async def main() -> None:
        settings = QueueSettings(standing_s=0.01, target_s=0.02, share=0.25)
        async with WorkerPool(workers=1, max_queue=50, queue=settings) as pool:
            await pool.run(lambda: time.sleep(0.02), within_s=10)
            jobs = [asyncio.create_task(pool.run(lambda: time.sleep(0.02), within_s=0.4)) for _ in range(30)]
            await asyncio.wait(jobs, return_when=asyncio.FIRST_COMPLETED)
            started_s = time.monotonic()
            with pytest.raises(Overloaded, match="come first"):
                await pool.run(lambda: None, within_s=0.4)
            assert time.monotonic() - started_s < 0.02
            ended = await asyncio.gather(*jobs, return_exceptions=True)
            assert any(isinstance(each, Overloaded) for each in ended)
            assert await pool.wait_idle(10) == 0
            await pool.run(lambda: None, within_s=0.4)

    asyncio.run(main())


def test_a_short_kind_is_computed_on_the_event_loop_and_a_long_or_unknown_one_is_not() -> None:
    async def main() -> None:
        here = threading.get_ident()
        async with WorkerPool(workers=1, max_queue=4, inline_s=0.05) as pool:

            async def thread_of(kind: str | None, pause_s: float = 0.0) -> int:
                def compute() -> int:
                    time.sleep(pause_s)
                    return threading.get_ident()

                return (await pool.run(compute, within_s=10, kind=kind)).value

            assert await thread_of("short") != here, "nobody knows yet how long it takes"
            assert await thread_of("short") == here
            assert await thread_of("long", 0.1) != here
            assert await thread_of("long", 0.1) != here
            assert await thread_of(None) != here
            assert await thread_of(None) != here
        async with WorkerPool(workers=2, max_queue=4, inline_s=0.05) as pool:
            assert here not in [await thread_of("short") for _ in range(3)], "two workers compute beside it"

    asyncio.run(main())


def test_the_event_loop_goes_on_between_short_computations_in_their_order() -> None:
    async def main() -> None:
        seen: list[str] = []
        async with WorkerPool(workers=1, max_queue=10, inline_s=0.05) as pool:
            await pool.run(lambda: None, within_s=10, kind="short")

            async def compute(name: str) -> None:
                await pool.run(lambda: seen.append(name), within_s=10, kind="short")

            jobs = [asyncio.create_task(compute(name)) for name in "abcd"]
            await asyncio.sleep(0)
            jobs[2].cancel()
            while not all(job.done() for job in jobs):
                seen.append("-")
                await asyncio.sleep(0)
            assert [name for name in seen if name != "-"] == ["a", "b", "d"]
            between = "".join(seen)
            assert "-b" in between, "the loop had a pass of its own before it"
            assert "-d" in between, "and before the next"
            assert pool.in_flight == 0

    asyncio.run(main())


def test_a_short_computation_whose_time_is_up_is_not_computed() -> None:
    async def main() -> None:
        computed: list[str] = []
        async with WorkerPool(workers=1, max_queue=10, inline_s=0.05) as pool:
            await pool.run(lambda: None, within_s=10, kind="short")
            first = asyncio.create_task(pool.run(lambda: None, within_s=10, kind="short"))
            slow = asyncio.create_task(pool.run(lambda: time.sleep(0.03), within_s=10, kind="short"))
            late = asyncio.create_task(pool.run(lambda: computed.append("late"), within_s=0.01, kind="short"))
            with pytest.raises(DeadlineExceeded):
                await late
            await asyncio.gather(first, slow)
        assert computed == []

    asyncio.run(main())


def test_short_computations_wait_behind_a_thread_that_computes() -> None:
    async def main() -> None:
        release = threading.Event()
        order: list[str] = []
        async with WorkerPool(workers=1, max_queue=10, inline_s=0.05) as pool:
            await pool.run(lambda: None, within_s=10, kind="short")

            def hold() -> None:
                release.wait()
                order.append("long")

            long = asyncio.create_task(pool.run(hold, within_s=10, kind="new"))
            await asyncio.sleep(0)
            short = asyncio.create_task(pool.run(lambda: order.append("short"), within_s=10, kind="short"))
            await asyncio.sleep(0.05)
            assert order == [], "one worker computes one at a time"
            release.set()
            await asyncio.gather(long, short)
            assert order == ["long", "short"]
            assert await pool.wait_idle(10) == 0

    asyncio.run(main())
