"""References: what is as in training raises no alarm, what has moved does, and few searches never do."""

from pathlib import Path

import numpy as np
import pytest

from shards.errors import CorruptBundle
from shards.live_quality import UNKNOWN, LiveQuality, QualitySettings
from shards.live_window import LiveWindow
from shards.reference import REFERENCE_FILE, Reference, read_reference, reference_of, write_reference
from shards.watched_values import Watched

SETTINGS = QualitySettings(share=1.0, window_s=60.0, least_searches=100, min_recall=0.9)


def searches(count: int, seed: int, *, shift: float = 0.0, often: float = 0.1) -> list[Watched]:
    """Return searches of ten scores that depend on each other, and a feature that is mostly 0."""
    rng = np.random.default_rng(seed)
    found: list[Watched] = []
    for _ in range(count):
        scores = rng.normal(shift) + 0.2 * rng.normal(size=10)
        found.append({"score": scores, "feature rare": (rng.random(1) < often).astype(np.float32)})
    return found


@pytest.fixture(scope="module")
def reference() -> Reference:
    found = reference_of(searches(400, 1))
    assert found is not None
    return found


def seen(reference: Reference, live: list[Watched], *, seconds: float = 1.0) -> LiveQuality:
    window = LiveWindow(SETTINGS, reference)
    for at, values in enumerate(live):
        window.note(values, 1.0, at * seconds / len(live))
    return window.quality(None, seconds)


def test_the_same_distribution_raises_no_alarm(reference: Reference) -> None:
    for seed in range(2, 22):
        quality = seen(reference, searches(200, seed))
        assert [drift.column for drift in quality.drifts if drift.drifted] == []
        assert {drift.column for drift in quality.drifts} == {"score", "feature rare"}


def test_what_has_moved_raises_one_and_is_told_first(reference: Reference) -> None:
    moved = seen(reference, searches(200, 3, shift=1.0)).drifts
    assert [drift.column for drift in moved if drift.drifted] == ["score"]
    assert moved[0].column == "score"
    assert moved[0].ks > 0.2
    often = seen(reference, searches(200, 3, often=0.6)).drifts
    assert [drift.column for drift in often if drift.drifted] == ["feature rare"]


def test_values_out_of_all_that_was_seen_count() -> None:
    """A constant that becomes another one falls into a bin where nothing was."""
    constant = reference_of([{"score": np.ones(3, np.float32)}] * 300)
    assert constant is not None
    same, other = ([{"score": np.full(3, value, np.float32)}] * 100 for value in (1.0, 0.5))
    assert not seen(constant, list(same)).drifts[0].drifted
    assert seen(constant, list(other)).drifts[0].drifted


def test_few_searches_tell_nothing(reference: Reference) -> None:
    assert seen(reference, searches(99, 3, shift=5.0)).drifts == ()


def test_values_that_are_no_numbers_and_unknown_columns_are_left_out(reference: Reference) -> None:
    broken: list[Watched] = [{"score": np.full(10, np.nan), "other": np.ones(1)}] * 150
    assert seen(reference, broken).drifts == ()


def test_what_is_older_than_the_window_is_forgotten(reference: Reference) -> None:
    window = LiveWindow(SETTINGS, reference)
    for values in searches(200, 3, shift=3.0):
        window.note(values, 0.2, 0.0)
    assert window.quality(None, 1.0).recall_alarm
    for at, values in enumerate(searches(200, 4)):
        window.note(values, 1.0, 61.0 + at / 100)
    quality = window.quality(None, 63.0)
    assert not any(drift.drifted for drift in quality.drifts)
    assert quality.live is not None
    assert (quality.live.mean, quality.live.searches, quality.recall_alarm) == (1.0, 200, False)
    assert window.quality(None, 63.0).drifts is quality.drifts
    assert window.quality(None, 130.0) == UNKNOWN


def test_it_is_read_back_as_it_was_and_refused_where_it_is_altered(
    reference: Reference, tmp_path: Path
) -> None:
    write_reference(tmp_path, reference)
    path = tmp_path / REFERENCE_FILE
    assert read_reference(path) == reference
    text = path.read_text()
    for altered in (text[:-20], text.replace('"shares"', '"parts"'), "[" * 100_000, text.replace("0.", "7.")):
        path.write_text(altered)
        with pytest.raises(CorruptBundle, match=REFERENCE_FILE):
            read_reference(path)
