import pytest

from services.queue_delay import QueueSettings, expected_wait_s, hopeless, too_long

SETTINGS = QueueSettings(standing_s=0.3, target_s=0.02, share=0.25)


def refused(wait_s: float, not_empty_s: float, within_s: float = 1.0, *, begins: bool = False) -> bool:
    return too_long(wait_s, within_s=within_s, not_empty_s=not_empty_s, settings=SETTINGS, begins=begins)


def test_a_burst_may_wait() -> None:
    assert not refused(0.9, 0.29)


def test_in_a_queue_that_stands_what_will_wait_for_too_much_of_its_time_is_refused() -> None:
    assert refused(0.26, 0.5)
    assert not refused(0.24, 0.5)
    assert refused(0.1, 0.5, within_s=0.2)


def test_what_waited_much_longer_than_was_thought_is_dropped() -> None:
    assert not refused(0.74, 0.5, begins=True)
    assert refused(0.76, 0.5, begins=True)


def test_nothing_is_refused_before_the_target() -> None:
    assert not refused(0.015, 9.0, within_s=0.02)


def test_work_waits_for_as_many_as_come_first_on_each_worker() -> None:
    assert expected_wait_s(usual_s=None, ahead=99, workers=2) == 0
    assert expected_wait_s(usual_s=5.0, ahead=1, workers=2) == 0
    assert expected_wait_s(usual_s=0.01, ahead=20, workers=2) == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("wait_s", "usual_s", "within_s", "expected"),
    [
        (0.0, None, 0.1, False),
        (0.0, 5.0, 0.1, False),
        (0.1, 0.01, 0.1, True),
        (0.08, 0.01, 0.1, False),
    ],
)
def test_work_that_cannot_be_done_in_its_time_is_told_so(
    wait_s: float, usual_s: float | None, within_s: float, expected: bool
) -> None:
    assert hopeless(wait_s, usual_s=usual_s, within_s=within_s) is expected


def test_settings_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="share"):
        QueueSettings(share=0.0)
