import pytest

from services.queue_delay import QueueSettings, hopeless, too_old

SETTINGS = QueueSettings(standing_s=0.3, target_s=0.02, share=0.4)


def old(waited_s: float, not_empty_s: float, within_s: float = 1.0) -> bool:
    return too_old(waited_s=waited_s, within_s=within_s, not_empty_s=not_empty_s, settings=SETTINGS)


def test_a_burst_may_wait() -> None:
    assert not old(0.29, 0.29)


def test_in_a_queue_that_stands_what_waited_for_too_much_of_its_time_is_dropped() -> None:
    assert old(0.41, 0.5)
    assert not old(0.39, 0.5)
    assert old(0.1, 0.5, within_s=0.2)


def test_nothing_is_dropped_before_the_target() -> None:
    assert not old(0.015, 9.0, within_s=0.02)


@pytest.mark.parametrize(
    ("usual_s", "ahead", "within_s", "expected"),
    [
        (None, 99, 0.1, False),
        (0.01, 20, 0.1, True),
        (0.01, 5, 0.1, False),
        (5.0, 1, 0.1, False),
        (5.0, 2, 0.1, True),
    ],
)
def test_work_that_cannot_be_done_in_its_time_is_told_so(
    usual_s: float | None, ahead: int, within_s: float, expected: bool
) -> None:
    assert hopeless(usual_s=usual_s, ahead=ahead, workers=2, within_s=within_s) is expected


def test_settings_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="share"):
        QueueSettings(share=0.0)
