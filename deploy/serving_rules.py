"""How routers and shards bear load and faults: the operator's file over the defaults; docs/robustness.md."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from deploy.settings import ClusterSettings
from router.answer_rate import LimitSettings
from router.outcome_log import OutcomeSettings
from router.replicas import ReplicaSettings
from router.shard_calls import CallSettings
from shards.errors import FieldViolation, InvalidInput
from shards.json_codec import from_json, parse
from shards.live_quality import QualitySettings


@dataclass(frozen=True, slots=True, kw_only=True)
class RouterRules:
    """Fields of `RouterConfig`; None leaves its default."""

    max_in_flight: int | None = None
    default_deadline_s: float | None = None
    max_deadline_s: float | None = None
    max_message_bytes: int | None = None
    max_metadata_bytes: int | None = None
    max_page_size: int | None = None
    keepalive_s: float | None = None
    max_pending: int | None = None
    max_streams: int | None = None
    max_connection_age_s: float | None = None
    grace_s: float | None = None
    limit: LimitSettings | None = None
    replicas: ReplicaSettings | None = None
    calls: CallSettings | None = None
    outcomes: OutcomeSettings | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardRules:
    """Fields of `ShardConfig`; None leaves its default."""

    workers: int | None = None
    threads: int | None = None
    max_queue: int | None = None
    queue_standing_s: float | None = None
    queue_target_s: float | None = None
    queue_share: float | None = None
    inline_s: float | None = None
    niceness: int | None = None
    max_message_bytes: int | None = None
    grace_s: float | None = None
    quality: QualitySettings | None = None
    """What of the answers is looked at again; docs/live-quality.md."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingRules:
    """What the file may hold."""

    router: RouterRules = RouterRules()
    shard: ShardRules = ShardRules()


def serving_rules(settings: ClusterSettings) -> ServingRules:
    """Return the rules of the file, none where there is no file.

    Raises `InvalidInput` naming the file and the field.
    """
    path = settings.serving_path
    if not path:
        return ServingRules()
    try:
        return from_json(ServingRules, parse(Path(path).read_bytes()), "serving")
    except (OSError, ValueError) as error:
        raise InvalidInput(FieldViolation(path, str(error))) from error


def told(rules: RouterRules | ShardRules) -> Mapping[str, Any]:
    """Return the fields that the rules set, by name."""
    values = {field.name: getattr(rules, field.name) for field in fields(rules)}
    return {name: value for name, value in values.items() if value is not None}
