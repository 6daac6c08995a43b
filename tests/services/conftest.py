"""Small real bundles, built once."""

from pathlib import Path

import pytest

from tests.services.shard_client import Models
from tests.shards.bundles import build_models


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    root: Path = tmp_path_factory.mktemp("models")
    return Models(root, build_models(root, 7))
