"""How a cluster is planned, and how patient its controller is: the operator's file over the defaults."""

from pathlib import Path

from deploy.serving_rules import serving_rules
from deploy.settings import ClusterSettings
from shards.cluster_state import ControllerSettings
from shards.errors import FieldViolation, InvalidInput
from shards.json_codec import from_json, parse
from shards.live_quality import QualitySettings

_LIMITS = "limits"
_NOT_THEIRS = (
    (_LIMITS, "mode"),
    ("", "shard_capacity_bytes"),
    ("", "min_recall"),
    ("", "recall_searches"),
)
"""What the controller decides from case to case, what has an option of its own or is in the serving rules."""


def controller_settings(settings: ClusterSettings) -> ControllerSettings:
    """Return the settings of the controller: what the file says of them, else the defaults.

    Raises `InvalidInput` naming the file and the field.
    """
    path = settings.planning_path
    try:
        rules = parse(Path(path).read_bytes()) if path else {}
        return _over_defaults(rules, settings)
    except (OSError, ValueError) as error:
        raise InvalidInput(FieldViolation(path or "planning", str(error))) from error


def _over_defaults(rules: object, settings: ClusterSettings) -> ControllerSettings:
    limits = rules.get(_LIMITS, {}) if isinstance(rules, dict) else None
    if not isinstance(rules, dict) or not isinstance(limits, dict):
        raise ValueError("must be an object, and so must its limits")
    for parent, name in _NOT_THEIRS:
        if name in (limits if parent else rules):
            raise ValueError(f"{name!r} cannot be set here")
    least = limits.get("min_replicas", settings.replicas)
    default = {"min_replicas": least, "max_replicas": least}
    watched = serving_rules(settings).shard.quality or QualitySettings()
    others = {
        "shard_capacity_bytes": settings.shard_capacity_bytes,
        "min_recall": watched.min_recall,
        "recall_searches": watched.least_searches,
    }
    return from_json(ControllerSettings, {**rules, **others, _LIMITS: default | limits}, "planning")
