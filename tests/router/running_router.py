"""A router that serves a placement of the test's, with the cache file in the controller's place."""

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from router import shard_calls
from router.outcome_log import OutcomeSettings
from router.placement_cache import write_cache
from router.router_config import RouterConfig
from router.router_server import Router
from router.shard_calls import CallSettings
from services.codec.search import MAX_PAGE_SIZE
from services.followed_rules import RulesSource
from services.redis_settings import RedisSettings
from services.telemetry_settings import ROUTER, ProcessTelemetry
from services.tls import TlsFiles
from services.user_store_settings import UserStoreSettings
from shards.placement import Assignment, Placement
from shards.release import ModelVersion, Release, Stage

UNSEEN = ProcessTelemetry(role=ROUTER, name="router-0")


def placed(
    releases: Iterable[Release], holders: Mapping[str, Iterable[str]], addresses: Mapping[str, str]
) -> Placement:
    """Return the placement of the releases' models; `holders` has the shard ids by model@version."""
    live = tuple(releases)
    models: dict[ModelVersion, Stage] = {}
    for release in live:
        models |= release.models()
    return Placement(
        generation=1,
        endpoints=dict(addresses),
        assignments={
            model: Assignment(model=model, stage=stage, shard_ids=tuple(holders.get(str(model), ())))
            for model, stage in models.items()
        },
        releases={release.surface: release for release in live},
    )


@asynccontextmanager
async def running(
    placement: Placement,
    folder: Path,
    *,
    users: Path | RedisSettings | None = None,
    max_in_flight: int = 256,
    max_recordings: int = 64,
    default_deadline_s: float = 5.0,
    access: RulesSource | None = None,
    telemetry: ProcessTelemetry = UNSEEN,
    bundle_root: Path | None = None,
    calls: CallSettings = shard_calls.DEFAULTS,
    outcomes: OutcomeSettings = OutcomeSettings(),  # noqa: B008 (frozen)
    outcomes_dir: Path | None = None,
    tls: TlsFiles | None = None,
    mutual_tls: bool = True,
    max_page_size: int = MAX_PAGE_SIZE,
    shard_token: str | None = None,
) -> AsyncIterator[Router]:
    """Run a router that knows the placement; its default deadline suits a busy test machine."""
    config = RouterConfig(
        cache_path=folder / "router-placement.json",
        user_store=UserStoreSettings(place=users),
        max_in_flight=max_in_flight,
        max_recordings=max_recordings,
        default_deadline_s=default_deadline_s,
        grace_s=0.0,
        calls=calls,
        access=access,
        telemetry=telemetry,
        bundle_root=bundle_root,
        outcomes=outcomes,
        outcomes_dir=outcomes_dir,
        tls=tls,
        mutual_tls=mutual_tls,
        max_page_size=max_page_size,
        shard_token=shard_token,
    )
    assert config.cache_path is not None
    await write_cache(config.cache_path, placement)
    async with Router(config) as router:
        await router.ready()
        yield router
