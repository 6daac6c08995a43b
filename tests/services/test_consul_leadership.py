import asyncio
import random
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from services.consul_client import ConsulClient
from services.consul_leadership import Leadership, _Campaign, candidacy, leader, run_terms
from services.consul_session import SessionSettings
from services.consul_settings import ConsulSettings, ConsulTls
from shards.errors import NotFound
from tests.services.consul_agent import ConsulAgent


def session(name: str, lock_delay_s: float = 0.2) -> SessionSettings:
    return SessionSettings(name=name, lock_delay_s=lock_delay_s)


@asynccontextmanager
async def standing(agent: ConsulAgent, prefix: str, settings: SessionSettings) -> AsyncIterator[Leadership]:
    """Stand for election, as a process would."""
    consul = agent.settings(prefix, timeout_s=1.0)
    async with candidacy(consul, settings, random.Random(settings.name)) as leadership:
        yield leadership


async def until(leadership: Leadership, wanted: bool, timeout_s: float = 15.0) -> None:
    async with asyncio.timeout(timeout_s):
        async for leading in leadership.changes():
            if leading == wanted:
                return


async def first_to_lead(candidates: Sequence[Leadership]) -> Leadership:
    """Return who leads now; somebody may have led before and lost it again."""
    while True:
        tasks = [asyncio.create_task(until(candidate, True)) for candidate in candidates]
        done, others = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        for task in done:
            task.result()
        for candidate in candidates:
            if candidate.leading:
                return candidate


@asynccontextmanager
async def never_two(candidates: Sequence[Leadership]) -> AsyncIterator[None]:
    """Look at every turn of the event loop's clock, while the block runs, that at most one leads."""

    async def look() -> None:
        while True:
            assert sum(candidate.leading for candidate in candidates) <= 1
            await asyncio.sleep(0.001)

    async with asyncio.TaskGroup() as group:
        looking = group.create_task(look())
        yield
        looking.cancel()


def test_of_racing_candidates_one_leads_and_the_next_follows_at_once(consul_agent: ConsulAgent) -> None:
    async def main() -> None:
        stacks = [AsyncExitStack() for _ in range(5)]
        candidates = await asyncio.gather(
            *(
                stack.enter_async_context(standing(consul_agent, "race", session(f"c{n}", lock_delay_s=10)))
                for n, stack in enumerate(stacks)
            )
        )
        left = dict(enumerate(candidates))
        async with ConsulClient(consul_agent.settings("race")) as client, never_two(candidates):
            while left:
                chosen = await first_to_lead(list(left.values()))
                (number,) = [n for n, candidate in left.items() if candidate is chosen]
                assert await leader(client) == f"c{number}"
                # A leader that goes of its own will leaves no delay behind.
                await stacks[number].aclose()
                assert not left.pop(number).leading
            assert await leader(client) is None

    asyncio.run(main())


def test_a_leader_whose_session_is_ended_steps_down_and_the_lock_is_delayed(
    consul_agent: ConsulAgent,
) -> None:
    async def main() -> None:
        async with (
            standing(consul_agent, "ended", session("first", lock_delay_s=1.5)) as first,
            ConsulClient(consul_agent.settings("ended")) as client,
        ):
            await until(first, True)
            async with (
                standing(consul_agent, "ended", session("second")) as second,
                never_two([first, second]),
            ):
                _, item = await client.ask(lambda api: api.kv.get("ended/leader"))
                ended_s = time.monotonic()
                await client.ask(lambda api: api.session.destroy(item["Session"]))
                await until(first, False, timeout_s=1.0)
                await first_to_lead([first, second])
                assert time.monotonic() - ended_s >= 1.5

    asyncio.run(main())


def test_a_leader_loses_with_its_agent_and_one_leads_after_it_came_back_empty(tmp_path: Path) -> None:
    async def main(agent: ConsulAgent) -> None:
        async with (
            standing(agent, "gone", session("a")) as a,
            standing(agent, "gone", session("b")) as b,
            never_two([a, b]),
        ):
            led = await first_to_lead([a, b])
            agent.kill()
            await until(led, False, timeout_s=1.0)
            await asyncio.to_thread(agent.start)
            await first_to_lead([a, b])

    with ConsulAgent(tmp_path) as agent:
        asyncio.run(main(agent))


def test_a_leader_steps_down_when_its_agent_hangs_and_leads_on_when_it_wakes(tmp_path: Path) -> None:
    async def main(agent: ConsulAgent) -> None:
        async with standing(agent, "hangs", session("a")) as a:
            await until(a, True)
            agent.hang()
            await until(a, False, timeout_s=4.0)
            agent.wake()
            await until(a, True)

    with ConsulAgent(tmp_path) as agent:
        asyncio.run(main(agent))


def test_a_killed_leader_is_followed_soon_but_not_before_its_own_belief_has_ended(
    consul_agent: ConsulAgent,
) -> None:
    command = (sys.executable, "-m", "tests.services.consul_candidate", consul_agent.address, "expired")

    async def main(doomed: subprocess.Popen[str]) -> None:
        assert doomed.stdout is not None
        assert await asyncio.to_thread(doomed.stdout.readline) == "leading\n"
        async with standing(consul_agent, "expired", session("heir")) as heir:
            assert not heir.leading
            doomed.kill()
            killed_s = time.monotonic()
            await until(heir, True, timeout_s=5.0)
            # It had reported 0.4 s before at the earliest, and believed in itself for 2 s more.
            assert time.monotonic() - killed_s > 1.5

    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            asyncio.run(main(process))
        finally:
            process.kill()


def test_leading_ends_by_the_clock_when_nothing_is_heard() -> None:
    async def main() -> None:
        leadership = Leadership()
        leadership.extend(time.monotonic() + 0.1)
        leadership.confirm()
        told = [leading async for leading in first_of(leadership.changes(), 2)]
        assert told == [True, False]
        assert not leadership.leading

    asyncio.run(main())


def test_a_loss_between_two_looks_is_told() -> None:
    async def main() -> None:
        leadership = Leadership()
        leadership.extend(time.monotonic() + 60)
        leadership.confirm()
        changes = leadership.changes()
        assert await anext(changes)
        leadership.doubt("a test")
        leadership.confirm()
        assert [await anext(changes), await anext(changes)] == [False, True]

    asyncio.run(main())


def test_work_runs_in_terms_that_never_overlap() -> None:
    async def main() -> None:
        leadership, begun, ended = Leadership(), asyncio.Event(), asyncio.Event()

        async def term() -> None:
            assert not begun.is_set(), "the last term is over"
            begun.set()
            try:
                await asyncio.Event().wait()
            finally:
                begun.clear()
                ended.set()

        terms = asyncio.create_task(run_terms(leadership, term))
        leadership.extend(time.monotonic() + 60)
        for _ in range(3):
            leadership.confirm()
            await asyncio.wait_for(begun.wait(), 5)
            leadership.doubt("a test")
            await asyncio.wait_for(ended.wait(), 5)
            ended.clear()
        leadership.extend(time.monotonic() + 0.05)
        leadership.confirm()
        await asyncio.wait_for(ended.wait(), 5)
        terms.cancel()
        await asyncio.wait([terms])
        assert terms.cancelled()

    asyncio.run(main())


def test_a_term_that_fails_ends_the_candidate() -> None:
    async def main() -> None:
        async def term() -> None:
            raise OSError("the disk is gone")

        leadership = Leadership()
        leadership.extend(time.monotonic() + 60)
        leadership.confirm()
        with pytest.raises(ExceptionGroup) as failure:
            await run_terms(leadership, term)
        assert failure.group_contains(OSError, match="the disk is gone")

    asyncio.run(main())


async def first_of(values: AsyncIterator[bool], count: int) -> AsyncIterator[bool]:
    for _ in range(count):
        yield await anext(values)


def test_a_leader_leads_on_while_its_own_loop_is_busy(consul_agent: ConsulAgent) -> None:
    async def main() -> None:
        async with (
            standing(consul_agent, "busy", session("a")) as a,
            standing(consul_agent, "busy", session("b")) as b,
        ):
            led = await first_to_lead([a, b])
            busy_until_s = time.monotonic() + 4.0
            while time.monotonic() < busy_until_s:
                assert led.leading
            assert [a.leading, b.leading].count(True) == 1

    asyncio.run(main())


def test_a_candidate_that_cannot_even_try_says_so(consul_agent: ConsulAgent, tmp_path: Path) -> None:
    async def main() -> None:
        consul = consul_agent.settings("tls", tls=ConsulTls(ca_path=tmp_path / "absent.pem"))
        async with candidacy(consul, session("a"), random.Random(1)) as leadership:
            await run_terms(leadership, asyncio.Event().wait)  # type: ignore[arg-type]

    with pytest.raises(ExceptionGroup) as failure:
        asyncio.run(main())
    assert failure.group_contains(FileNotFoundError)


@pytest.mark.parametrize(
    "wrong",
    [{"ttl_s": 9}, {"lock_delay_s": 61.0}, {"lock_delay_s": 0.0}, {"alive_s": 0.0}, {"alive_s": 11.0}],
)
def test_what_consul_would_refuse_is_refused_here(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="Consul wants"):
        SessionSettings(name="x", **wrong)  # type: ignore[arg-type]


class FailingConsul:
    """A client that gives a session, then loses it; whoever waits for it then is slow to give up."""

    settings = ConsulSettings(prefix="test")

    def __init__(self) -> None:
        self.asked = 0
        self.failed, self.given_up = asyncio.Event(), asyncio.Event()

    async def ask(self, _: object, wait_s: float = 0.0) -> str:
        if wait_s:
            try:
                await asyncio.Event().wait()
            finally:
                await self.given_up.wait()
        self.asked += 1
        if self.asked == 3:
            self.failed.set()
            raise NotFound("session", "lost")
        return "session"


def test_a_campaign_that_is_cancelled_while_it_loses_its_session_ends() -> None:
    async def main() -> None:
        consul = FailingConsul()
        settings = SessionSettings(name="c")
        fields = (settings, random.Random(0), "leader", "c", Leadership())
        campaign = asyncio.ensure_future(_Campaign(consul, *fields).run())  # type: ignore[arg-type]
        await consul.failed.wait()
        await asyncio.sleep(0)
        campaign.cancel()
        await asyncio.sleep(0)
        consul.given_up.set()
        done, _ = await asyncio.wait([campaign], timeout=10)
        campaign.cancel()
        assert done
        assert campaign.cancelled()

    asyncio.run(main())
