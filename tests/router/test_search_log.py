import json
import logging
import random
from dataclasses import replace

import pytest

from router.answer import Answer, Explanation, StageTiming
from router.coverage import Gap, GapReason
from router.gate import GateDecision
from router.search_log import SearchLog
from router.seen_search import SeenSearch
from services.codec import SearchRequest
from services.process_log import JsonLines
from services.telemetry_settings import LogSettings
from shards.candidates import EMPTY
from shards.release import ModelVersion, Release, Stage

RELEASE = Release(surface="gifts", version="r1", channels=())
GAP = Gap(stage=Stage.RANKING, model=ModelVersion("heavy", "1"), reason=GapReason.DEADLINE, detail="too late")
ANSWER = Answer(
    items=(),
    gate=GateDecision(open=True, reason="default_open", version="rules-1"),
    release=RELEASE,
    gaps=(),
    timings=(
        StageTiming(
            stage=Stage.RETRIEVAL,
            channel="lexical",
            model=ModelVersion("words", "1"),
            shard_id="s1",
            total_s=0.005,
            queue_s=0.001,
            compute_s=0.0025,
            candidates=7,
        ),
    ),
    explanation=Explanation(channels={}, merged=EMPTY),
)
SEEN = SeenSearch(
    status="ok",
    took_s=0.0125,
    request_id="q-1",
    trace_id="t-1",
    generation=3,
    asked=SearchRequest(surface="gifts", query="very private", user_id="u-77"),
    release=RELEASE,
    answer=ANSWER,
)
WITH_GAP = replace(SEEN, answer=replace(ANSWER, gaps=(GAP,)))
FAILED = replace(SEEN, answer=None, status="unavailable", error="nobody answers for 'very private'")


def lines(caplog: pytest.LogCaptureFixture) -> list[dict[str, object]]:
    """Return the log's lines, as a program reads them."""
    return [json.loads(JsonLines("router-0").format(record)) for record in caplog.records]


def noted(
    caplog: pytest.LogCaptureFixture, settings: LogSettings, *searches: SeenSearch, now_s: float = 5.0
) -> list[dict[str, object]]:
    search_log = SearchLog(settings, random.Random(7))
    with caplog.at_level(logging.INFO, logger="router.search_log"):
        for seen in searches:
            search_log.note(seen, now_s)
    return lines(caplog)


def test_a_line_says_what_happened_and_not_what_was_searched_for(caplog: pytest.LogCaptureFixture) -> None:
    (line,) = noted(caplog, LogSettings(), WITH_GAP)
    assert {name: line[name] for name in ("message", "logger", "process")} == {
        "message": "search",
        "logger": "router.search_log",
        "process": "router-0",
    }
    told = {
        name: line[name] for name in line if name not in ("time", "level", "message", "logger", "process")
    }
    assert told == {
        "reason": "gaps",
        "left_out": 0,
        "request_id": "q-1",
        "trace_id": "t-1",
        "surface": "gifts",
        "release": "r1",
        "generation": 3,
        "status": "ok",
        "took_ms": 12.5,
        "gate": {"open": True, "reason": "default_open", "probability": None, "version": "rules-1"},
        "items": 0,
        "timings": [
            {
                "stage": "retrieval",
                "channel": "lexical",
                "model": "words@1",
                "shard": "s1",
                "total_ms": 5.0,
                "queue_ms": 1.0,
                "compute_ms": 2.5,
                "candidates": 7,
            }
        ],
        "gaps": [
            {
                "stage": "ranking",
                "channel": "",
                "model": "heavy@1",
                "reason": "deadline",
                "detail": "too late",
            }
        ],
    }


def test_who_searched_for_what_is_logged_only_where_it_is_asked_for(caplog: pytest.LogCaptureFixture) -> None:
    wrong = replace(GAP, reason=GapReason.FAILED, detail="cannot score 'very private'")
    failing = replace(SEEN, answer=replace(ANSWER, gaps=(wrong,)))
    for line in noted(caplog, LogSettings(), FAILED, failing):
        assert "private" not in json.dumps(line)
        assert "u-77" not in json.dumps(line)
    caplog.clear()
    failed, gaps = noted(caplog, LogSettings(personal=True), FAILED, failing)
    assert (failed["query"], failed["user_id"]) == ("very private", "u-77")
    assert failed["error"] == "nobody answers for 'very private'"
    assert "cannot score 'very private'" in json.dumps(gaps["gaps"])


@pytest.mark.parametrize(
    ("settings", "seen", "reason"),
    [
        (LogSettings(), SEEN, ""),
        (LogSettings(), WITH_GAP, "gaps"),
        (LogSettings(), FAILED, "failed"),
        (LogSettings(slow_ms=12.5), SEEN, "slow"),
        (LogSettings(slow_ms=12.6), SEEN, ""),
        (LogSettings(slow_ms=0.0), SEEN, ""),
        (LogSettings(share=1.0), SEEN, "sample"),
    ],
)
def test_why_a_search_is_logged(settings: LogSettings, seen: SeenSearch, reason: str) -> None:
    assert SearchLog(settings, random.Random(7)).reason(seen) == reason


def test_the_share_is_a_share() -> None:
    search_log = SearchLog(LogSettings(share=0.1), random.Random(7))
    picked = sum(search_log.reason(SEEN) == "sample" for _ in range(5000))
    assert picked == pytest.approx(500, rel=0.2)


def test_a_flood_is_told_of_and_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    search_log = SearchLog(LogSettings(most_per_s=2), random.Random(7))
    with caplog.at_level(logging.INFO, logger="router.search_log"):
        for n in range(10):
            search_log.note(FAILED, 5.0 + n / 100)
        search_log.note(FAILED, 6.0)
    assert [line["left_out"] for line in lines(caplog)] == [0, 0, 8]


def test_nothing_is_logged_where_nothing_shall_be(caplog: pytest.LogCaptureFixture) -> None:
    assert noted(caplog, LogSettings(most_per_s=0), FAILED, WITH_GAP) == []
