"""Copies of bundles are bundles of their own."""

from pathlib import Path

from shards.release import Stage
from shards.residency import Residency
from shards.stages import Retriever
from tests.shards.bundles import RELEASE, context
from tests.shards.many_bundles import VARIANT, build_many


def test_each_loads_and_answers_as_itself(models: Path, tmp_path: Path) -> None:
    written = build_many(tmp_path, models, 2 * len(RELEASE.models()))
    assert len(written) == 2 * len(RELEASE.models())
    residency = Residency()
    for model, stage in written.items():
        assert residency.load(model, tmp_path / model.model / model.version).stage is stage
        servable = residency.take(model, stage)
        if stage is Stage.RETRIEVAL:
            assert isinstance(servable, Retriever)
            found = servable.retrieve(context("red mug", "item-003"), 1, (), (VARIANT,), 1)
            assert set(found.attributes[VARIANT]) <= {model.model}
