import math
from dataclasses import replace

import pytest

from router.answer import Answer, Explanation, Item
from router.gate import GateDecision
from router.shadow_comparison import compare, unanswered
from shards.candidates import EMPTY
from shards.release import Release
from shards.shadow import ShadowReport


def answer(version: str, **scores: float) -> Answer:
    return Answer(
        items=tuple(
            Item(item_id=item_id, score=score, attributes={}, channels=(), scores={})
            for item_id, score in scores.items()
        ),
        gate=GateDecision(open=True, reason="always", version="1"),
        release=Release(surface="gifts", version=version, channels=()),
        gaps=(),
        timings=(),
        explanation=Explanation(channels={}, merged=EMPTY),
    )


SENT = answer("r1", a=1.0, b=0.75, c=0.5, d=0.25)


def test_equal_pages_differ_in_nothing() -> None:
    shadow = replace(SENT, release=replace(SENT.release, version="r2"))
    assert compare(SENT, shadow, extra_s=0.5) == ShadowReport(
        surface="gifts", version="r2", searches=1, overlap_sum=1.0, common_items=4, extra_seconds_sum=0.5
    )


def test_differences_are_those_of_common_items() -> None:
    report = compare(SENT, answer("r2", c=1.0, x=0.9, a=0.5, y=0.25), extra_s=-0.25)
    assert (report.overlap_sum, report.common_items) == (0.5, 2)
    assert report.rank_difference_sum == 2 + 2
    assert report.score_difference_sum == pytest.approx(0.5 + 0.5)
    assert report.extra_seconds_sum == -0.25


def test_a_shorter_page_lacks_what_it_leaves_out() -> None:
    assert compare(SENT, answer("r2", a=1.0), extra_s=0).overlap_sum == 0.25
    assert compare(answer("r1", a=1.0), answer("r2", a=1.0, b=0.5), extra_s=0).overlap_sum == 0.5
    assert compare(SENT, answer("r2"), extra_s=0).overlap_sum == 0.0
    assert compare(answer("r1"), answer("r2"), extra_s=0).overlap_sum == 1.0


def test_scores_that_are_no_numbers_do_not_spoil_the_sum() -> None:
    report = compare(SENT, answer("r2", a=math.nan, b=math.inf, c=0.25), extra_s=0)
    assert (report.score_difference_sum, report.common_items) == (0.25, 3)


def test_a_shadow_that_does_not_answer_is_a_failure() -> None:
    assert unanswered(SENT.release) == ShadowReport(surface="gifts", version="r1", failures=1)
