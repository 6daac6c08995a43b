import math

import pytest

from router.peak_ewma import PeakEwma


def test_a_slower_answer_counts_in_full_at_once() -> None:
    assert PeakEwma(0.01, 5.0).updated(0.5, 5.1, decay_s=2.0) == PeakEwma(0.5, 5.1)


def test_a_faster_answer_counts_by_the_age_of_what_was_known() -> None:
    known = PeakEwma(0.5, 5.0)
    later = known.updated(0.01, 7.0, decay_s=2.0)
    assert later.value_s == pytest.approx(0.5 / math.e + 0.01 * (1 - 1 / math.e))
    assert known.updated(0.01, 5.0, decay_s=2.0).value_s < 0.5


def test_what_nobody_confirms_is_forgotten() -> None:
    known = PeakEwma(0.5, 5.0)
    assert known.at(5.0, decay_s=2.0) == 0.5
    assert known.at(7.0, decay_s=2.0) == pytest.approx(0.5 / math.e)
    assert known.at(25.0, decay_s=2.0) < 1e-4


def test_answers_that_were_on_their_way_do_not_turn_time_back() -> None:
    known = PeakEwma(0.5, 5.0)
    assert known.at(4.0, decay_s=2.0) == 0.5
    assert 0.01 < known.updated(0.01, 4.0, decay_s=2.0).value_s < 0.5
