"""A two-tower bundle with another index: what its tuning needs of it, and how the result is written.

Legend: N = items, Q = queries, D = width of a vector.
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import faiss as faiss_module
import numpy as np

from shards.ann_index import AnnIndex
from shards.bundle import Bundle, open_bundle
from shards.candidates import Floats
from shards.errors import FieldViolation, InvalidInput
from shards.golden import GOLDEN_FILE, read_golden, replay
from shards.json_codec import from_json, to_json
from shards.manifest import MANIFEST_FILE, Manifest
from shards.release import ModelVersion
from shards.search_context import SearchContext
from shards.servable import open_servable
from shards.two_tower import INDEX_FILE, TwoTower, TwoTowerParams
from training.ann_tuning import Tuned
from training.answered_bundle import write_answered_again
from training.item_index import exact_vectors

faiss: Any = faiss_module
"""Its stubs leave out indexes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tunable:
    """A verified two-tower bundle that answered its goldens, and the vectors of its items [N, D]."""

    bundle: Bundle
    engine: TwoTower
    vector_ND: Floats

    def queries(self, contexts: Sequence[SearchContext]) -> Floats:
        """Return what the query tower makes of the searches [Q, D]; heads count as searches."""
        return np.concatenate([self.engine.encode(each) for each in contexts])


def open_tunable(models_dir: Path, model: ModelVersion) -> Tunable:
    """Open a model for tuning; InvalidInput where its index cannot be chosen, BundleError as ever."""
    bundle = open_bundle(models_dir / model.model / model.version, model)
    engine = open_servable(bundle, "cpu")
    whole = isinstance(engine, TwoTower) and isinstance(engine.ann, AnnIndex)
    if not isinstance(engine, TwoTower) or not whole or bundle.manifest.partition is not None:
        problem = f"{model} is no undivided two-tower model, whose index can be tuned"
        raise InvalidInput(FieldViolation("model", problem))
    golden, tolerance = read_golden(bundle.file(GOLDEN_FILE)), bundle.manifest.tolerance
    replay(engine, golden, tolerance.rtol, tolerance.atol)
    vector_ND = exact_vectors(faiss.read_index(str(bundle.file(INDEX_FILE))))
    return Tunable(bundle=bundle, engine=engine, vector_ND=vector_ND)


def write_tuned(models_dir: Path, tunable: Tunable, version: str, tuned: Tuned) -> ModelVersion:
    """Write the model with the chosen index as another version of it; FileExistsError where that exists.

    Its goldens ask what those of the model asked, and expect what the new index answers.
    """
    manifest = _manifest(tunable.bundle.manifest, version, tuned)
    golden = read_golden(tunable.bundle.file(GOLDEN_FILE))

    def fill(folder: Path) -> None:
        ours = shutil.ignore_patterns(MANIFEST_FILE, INDEX_FILE, GOLDEN_FILE)
        shutil.copytree(tunable.bundle.path, folder, dirs_exist_ok=True, ignore=ours)
        faiss.write_index(tuned.index, str(folder / INDEX_FILE))

    write_answered_again(models_dir, manifest, fill, golden)
    return manifest.model_version


def _manifest(manifest: Manifest, version: str, tuned: Tuned) -> Manifest:
    choice = tuned.choice
    known = from_json(TwoTowerParams, dict(manifest.params), "params")
    params = to_json(replace(known, ann=choice.knobs, index=choice.factory))
    figures = {"ann_recall": choice.recall, "ann_median_ms": choice.median_ms, "ann_p99_ms": choice.p99_ms}
    return replace(manifest, version=version, params=params, metrics={**manifest.metrics, **figures})
