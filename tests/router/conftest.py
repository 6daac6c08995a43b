"""Small real bundles, built once."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.router.real_shards import Models
from tests.shards.bundles import build_models


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    root: Path = tmp_path_factory.mktemp("models")
    release = build_models(root, 7)
    assert release.pre_ranker is not None
    assert release.ranker is not None
    # A busy test machine must not degrade an answer that a test wants whole.
    patient = replace(
        release,
        retrieval_budget_ms=5_000,
        pre_ranker=replace(release.pre_ranker, budget_ms=5_000),
        ranker=replace(release.ranker, budget_ms=5_000),
    )
    return Models(root=root, release=patient)
