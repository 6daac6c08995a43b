"""Searches and events that a router writes down, from a search over gRPC to the read-out."""

import asyncio
import itertools
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from deploy.outcome_lines import read_lines
from deploy.readout import readout
from router.client import Event, HeadraceClient
from router.event_measures import EventMeasures
from router.outcome_log import OutcomeLog, OutcomeSettings, digest_of
from router.router_metrics import event_instruments
from services.instruments import Counter
from services.user_history import UserEvent
from tests.router.running_router import running
from tests.router.scripted_shard import ScriptedShard
from tests.router.test_releases import TWO_ANSWERS, two_releases

ON = OutcomeSettings(on=True)


def test_what_users_do_counts_for_the_release_that_answered(tmp_path: Path) -> None:
    folder = tmp_path / "outcomes"

    async def main() -> None:
        async with ScriptedShard("s1", TWO_ANSWERS) as shard:
            placement = replace(two_releases(), endpoints={"s1": shard.address})
            async with (
                running(placement, tmp_path, outcomes=ON, outcomes_dir=folder) as router,
                HeadraceClient(router.address, timeout_s=5.0, max_attempts=1) as client,
            ):
                found = await client.search("shop", "a secret", user_id="u1")
                await client.search("gifts@live", "a secret", user_id="u1")
                await client.search("gifts", "a secret")
                item = found.items[0].item_id
                clicks = [
                    Event(user_id="u1", item_id=item, action="click", search_id=found.request_id),
                    Event(user_id="u2", item_id=item, action="click"),
                ]
                await client.record_events(clicks)

    asyncio.run(main())
    text = "".join(path.read_text() for path in folder.glob("*.jsonl"))
    assert "secret" not in text
    assert '"u1"' not in text
    assert digest_of("u1") in text
    result = readout(partial(read_lines, folder), "gifts", ["click"], window_ms=60_000)
    assert result.unread == 0
    (arm,) = result.arms
    assert (arm.release, arm.searches, arm.shares["click"].value) == ("r2", 1, 1.0)
    assert (result.pinned, result.visitors) == (1, 1)


def test_nothing_is_written_unless_it_is_on(tmp_path: Path) -> None:
    async def main() -> None:
        async with ScriptedShard("s1", TWO_ANSWERS) as shard:
            placement = replace(two_releases(), endpoints={"s1": shard.address})
            async with (
                running(placement, tmp_path, outcomes_dir=tmp_path / "outcomes") as router,
                HeadraceClient(router.address, timeout_s=5.0) as client,
            ):
                await client.search("gifts", "mug", user_id="u1")

    asyncio.run(main())
    assert not (tmp_path / "outcomes").exists()


EVENTS = {"e1": UserEvent(user_id="u1", item_id="i" * 1000, action="click", timestamp_ms=1)}


def test_old_files_go(tmp_path: Path) -> None:
    moments = itertools.count(1)
    settings = OutcomeSettings(on=True, file_mb=1, files=2)
    outcomes = OutcomeLog(tmp_path, "router-0", settings, now_ms=lambda: next(moments))
    other = tmp_path / "router-1-000000000000001.jsonl"
    other.touch()

    async def main() -> None:
        for _ in range(5):
            for _ in range(1_100):
                outcomes.recorded(EVENTS)
            await outcomes.flush()

    asyncio.run(main())
    own = sorted(path for path in tmp_path.iterdir() if path != other)
    assert len(own) == 2
    assert other.exists()
    assert all(path.stat().st_size > 1 << 20 for path in own)


def test_a_disk_that_takes_nothing_costs_no_search(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    taken = tmp_path / "outcomes"
    taken.touch()
    outcomes = OutcomeLog(taken / "below", "router-0", ON)
    outcomes.recorded(EVENTS)
    asyncio.run(outcomes.flush())
    assert outcomes.dropped == 1
    assert "could not be written" in caplog.text


def test_what_is_lost_is_a_metric(tmp_path: Path) -> None:
    outcomes = OutcomeLog(tmp_path, "router-0", ON)
    outcomes.dropped = 3
    assert _dropped(outcomes) == 3
    assert _dropped(None) == 0


def _dropped(outcomes: OutcomeLog | None) -> float:
    name = "headrace_router_outcomes_dropped_total"
    (instrument,) = (each for each in event_instruments(EventMeasures(), outcomes) if each.name == name)
    assert isinstance(instrument, Counter)
    ((_, value),) = instrument.read()
    return value


def test_what_waits_is_bounded(tmp_path: Path) -> None:
    outcomes = OutcomeLog(tmp_path, "router-0", ON)
    for _ in range(20_010):
        outcomes.recorded(EVENTS)
    assert outcomes.dropped == 10
