"""Bundles that the tests of the engines share; nobody writes to them."""

from collections.abc import Callable
from pathlib import Path

import pytest

from shards.bundle import open_bundle
from shards.servable import open_servable
from shards.stages import Retriever, Scorer, Servable
from tests.shards.bundles import VERSION, build_models


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    build_models(root)
    return root


def open_model(root: Path, name: str) -> Servable:
    return open_servable(open_bundle(root / name / VERSION), "cpu")


@pytest.fixture(scope="session")
def retriever(models: Path) -> Callable[[str], Retriever]:
    """Opens a retriever of the shared bundles by name."""

    def opened(name: str) -> Retriever:
        servable = open_model(models, name)
        assert isinstance(servable, Retriever)
        return servable

    return opened


@pytest.fixture(scope="session")
def scorer(models: Path) -> Callable[[str], Scorer]:
    """Opens a scorer of the shared bundles by name."""

    def opened(name: str) -> Scorer:
        servable = open_model(models, name)
        assert isinstance(servable, Scorer)
        return servable

    return opened
