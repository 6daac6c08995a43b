"""The folder of bundles as the controller sees it: what each manifest says, without opening the rest."""

from collections.abc import Collection
from pathlib import Path

from shards.cluster_state import BundleFacts
from shards.errors import CorruptBundle, FieldViolation, InvalidInput, NotFound
from shards.gate_model import open_gate
from shards.manifest import MANIFEST_FILE, parse_manifest
from shards.release import ModelVersion, Release, Stage
from shards.signature import check_signature


class BundleCatalogue:
    """Finds `<root>/<model>/<version>` and reads its manifest; shards must see the same folder.

    With `trusted` keys, bundles that none of them has signed are refused here already.
    """

    def __init__(self, root: Path, trusted: Collection[str] = ()) -> None:
        self._root = root
        self._trusted = trusted

    def path(self, model: ModelVersion) -> Path:
        """Return the folder of a bundle, whether it exists or not."""
        return self._root / model.model / model.version

    def describe(self, model: ModelVersion) -> BundleFacts:
        """Return what a bundle's manifest says; raises `NotFound`, `CorruptBundle` or `UntrustedBundle`."""
        names = (model.model, model.version)
        if any(Path(name).name != name for name in names):
            raise NotFound("bundle", str(model))
        try:
            described = (self.path(model) / MANIFEST_FILE).read_bytes()
            check_signature(self.path(model), described, self._trusted)
            manifest = parse_manifest(described)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise NotFound("bundle", str(model)) from error
        except (OSError, ValueError) as error:
            raise CorruptBundle(MANIFEST_FILE, f"of {model}: {error}") from error
        return BundleFacts(
            model=model,
            stage=manifest.stage,
            engine=manifest.engine,
            size_bytes=sum(file.size_bytes for file in manifest.files.values()),
            metrics=manifest.metrics,
        )

    def describe_held(self, model: ModelVersion) -> BundleFacts:
        """Return the facts of a bundle that shards shall hold; raises `InvalidInput` for a gate's model."""
        bundle = self.describe(model)
        if bundle.stage is Stage.GATE:
            raise InvalidInput(FieldViolation("model", f"{model} is a gate's model: routers read it"))
        return bundle

    def describe_release(self, release: Release) -> tuple[BundleFacts, ...]:
        """Return the facts of every bundle that shards hold for the release.

        Raises `NotFound` or `CorruptBundle`, and `InvalidInput` for a bundle pinned for another stage. The
        gate's model, which no shard opens, is verified here to the last byte and asked its goldens, as every
        router will.
        """
        bundles = []
        for model, stage in release.models().items():
            bundle = self.describe(model)
            if bundle.stage is not stage:
                problem = f"pins {model} for {stage.value}, but it serves {bundle.stage.value}"
                raise InvalidInput(FieldViolation("release", problem))
            bundles.append(bundle)
        if release.gate.model:
            self._check_gate(release.gate.model)
        return tuple(bundles)

    def _check_gate(self, model: ModelVersion) -> None:
        stage = self.describe(model).stage
        if stage is not Stage.GATE:
            problem = f"pins {model} for its gate, but it serves {stage.value}"
            raise InvalidInput(FieldViolation("release", problem))
        open_gate(self.path(model), model, self._trusted)
