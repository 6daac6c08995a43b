"""References of a release: every stage's scores and features, as shards will see them."""

from dataclasses import replace
from pathlib import Path

import pytest

from shards.bundle import open_bundle
from shards.live_quality import QualitySettings
from shards.live_window import LiveWindow
from shards.reference import Reference
from shards.release import ModelVersion
from shards.residency import Residency
from shards.search_context import SearchContext
from tests.shards import bundles
from tests.training.shop_dataset import shop_dataset
from training.reference_writing import reference_searches, watched_of, write_references

RELEASE = bundles.RELEASE
SEARCHES = [
    bundles.context(f"{colour} {thing}", f"item-{at:03d}")
    for at, (colour, thing) in enumerate(
        (colour, thing)
        for colour in ("red", "blue", "silver", "ivory", "pink", "white", "black", "green")
        for thing in ("mug", "lantern", "candle", "teapot", "clock", "frame", "garland", "doormat")
    )
]


@pytest.fixture(scope="module")
def models_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    bundles.build_models(root)
    return root


@pytest.fixture(scope="module")
def references(models_dir: Path) -> dict[ModelVersion, Reference]:
    """Return the references; the gate stays closed for what is red."""
    return dict(
        write_references(RELEASE, models_dir, SEARCHES, lambda context, _: "red" not in context.query)
    )


def test_every_stage_has_its_scores_and_features(references: dict[ModelVersion, Reference]) -> None:
    named = {model.model: set(reference.columns) for model, reference in references.items()}
    crosses = {f"feature {feature.name}" for feature in bundles.CROSS}
    assert named["ranker"] == {"score", *bundles.TASKS} | crosses
    assert named["pre_ranker"] == {"score"} | crosses
    assert named["lexical"] == named["two_tower"] == {"score"}
    assert "memory" not in named, "it answers two queries, which is too few"
    counts = {model.model: reference.searches for model, reference in references.items()}
    assert counts["ranker"] == counts["lexical"] == len(SEARCHES)
    assert counts["two_tower"] == len(SEARCHES) - 8, "a channel behind the gate is asked where that opens"


def test_bundles_stay_whole_and_serve(models_dir: Path, references: dict[ModelVersion, Reference]) -> None:
    residency = Residency()
    for model, reference in references.items():
        path = models_dir / model.model / model.version
        assert open_bundle(path, model).manifest.model_version == model
        residency.load(model, path)
        assert residency.reference(model) == reference
    assert sorted(p.name for p in models_dir.iterdir()) == sorted(m.model for m in RELEASE.models())


def seen(models_dir: Path, reference: Reference, searches: list[SearchContext]) -> dict[str, bool]:
    """Return which columns of the ranker have drifted on these searches."""
    ranker = ModelVersion("ranker", "1")
    values = watched_of(RELEASE, models_dir, searches, lambda *_: True)[ranker]
    window = LiveWindow(QualitySettings(least_searches=len(searches)), reference)
    for each in values:
        window.note(each, None, 0.0)
    return {drift.column: drift.drifted for drift in window.quality(None, 0.0).drifts}


def test_the_same_searches_have_not_drifted_and_others_have(
    models_dir: Path, references: dict[ModelVersion, Reference]
) -> None:
    reference = references[ModelVersion("ranker", "1")]
    assert not any(seen(models_dir, reference, SEARCHES).values())
    # As where the words get lost on their way: what users bought is all that is left.
    mute = [replace(context, query="") for context in SEARCHES]
    drifted = seen(models_dir, reference, mute)
    assert drifted["feature lexical_rank"]
    assert drifted["feature title_overlap"]


def test_too_few_searches_make_no_reference(models_dir: Path) -> None:
    assert write_references(RELEASE, models_dir, SEARCHES[:40], lambda *_: True) == {}


def test_the_searches_are_a_sample_of_the_test_split() -> None:
    data = shop_dataset()
    searches = reference_searches(data, history_limit=5, seed=0)
    times = [context.now_ms for context in searches]
    assert times == sorted(times)
    count = data.queries.column("split").to_pylist().count("test")
    assert len(searches) == min(count, 300)
