"""Small real bundles, built once, and a real Consul agent and a real Redis, each started once."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.services.consul_agent import ConsulAgent
from tests.services.redis_server import RedisServer
from tests.services.shard_client import Models
from tests.shards.bundles import build_models


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    root: Path = tmp_path_factory.mktemp("models")
    return Models(root, build_models(root, 7))


@pytest.fixture(scope="session")
def consul_agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ConsulAgent]:
    """Lend an agent to tests that leave it alive; each keeps below a prefix of its own."""
    with ConsulAgent(tmp_path_factory.mktemp("consul")) as agent:
        yield agent


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """Lend a Redis to tests that leave it alive; each keeps below a prefix of its own."""
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server
