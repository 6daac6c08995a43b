"""What a shard writes down, so that it comes back with its port and its models by itself."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

from services.durable_file import replace_file
from shards.errors import CorruptRecord
from shards.release import ModelVersion, Stage

_STORE = "shard record"


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldBundle:
    """A bundle that the shard must hold, its folder and the terms; `memory_bytes` is what it used last."""

    model: ModelVersion
    stage: Stage
    path: Path
    on_demand: bool = False
    pinned: bool = False
    memory_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardRecord:
    """The port a shard served on last (0 for none yet) and the bundles it holds, oldest first."""

    port: int = 0
    bundles: tuple[HeldBundle, ...] = ()

    def with_bundle(self, bundle: HeldBundle) -> "ShardRecord":
        """Return the record with this bundle, in place of what it said of the same model."""
        if bundle in self.bundles:
            return self
        return replace(self, bundles=(*self.without_bundle(bundle.model).bundles, bundle))

    def with_memory(self, model: ModelVersion, memory_bytes: int) -> "ShardRecord":
        """Return the record with what the bundle of this model, if it holds one, was measured to use."""
        bundles = tuple(
            replace(held, memory_bytes=memory_bytes) if held.model == model else held for held in self.bundles
        )
        return replace(self, bundles=bundles)

    def without_bundle(self, model: ModelVersion) -> "ShardRecord":
        """Return the record without this bundle."""
        return replace(self, bundles=tuple(held for held in self.bundles if held.model != model))


def read_record(path: Path) -> ShardRecord:
    """Return the record in this file, an empty one when there is none; raises `CorruptRecord`."""
    try:
        raw = json.loads(path.read_bytes())
        bundles = tuple(
            HeldBundle(
                model=ModelVersion(held["model"], held["version"]),
                stage=Stage(held["stage"]),
                path=Path(held["path"]),
                # Records of earlier versions know bundles that are loaded for good only.
                on_demand=bool(held.get("on_demand", False)),
                pinned=bool(held.get("pinned", False)),
                memory_bytes=int(held.get("memory_bytes", 0)),
            )
            for held in raw["models"]
        )
        return ShardRecord(port=int(raw["port"]), bundles=bundles)
    except FileNotFoundError:
        return ShardRecord()
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CorruptRecord(_STORE, str(path), f"{type(error).__name__}: {error}") from error


def write_record(path: Path, record: ShardRecord) -> None:
    """Replace the file by this record; a crash leaves the old one or the new one, whole."""
    models = [
        {
            "model": held.model.model,
            "version": held.model.version,
            "stage": held.stage.value,
            "path": str(held.path),
            "on_demand": held.on_demand,
            "pinned": held.pinned,
            "memory_bytes": held.memory_bytes,
        }
        for held in record.bundles
    ]
    replace_file(path, json.dumps({"port": record.port, "models": models}, indent=1).encode())
