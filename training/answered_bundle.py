"""Retrieval bundles whose goldens are what their own engine answers, as it will on every replica."""

import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from shards.bundle import open_bundle, write_bundle
from shards.candidates import Candidates
from shards.gathering import CATALOGUE_ROW
from shards.golden import GOLDEN_FILE, golden_of, write_golden
from shards.manifest import MANIFEST_FILE, Manifest
from shards.search_context import SearchContext
from shards.servable import open_servable
from shards.stages import Retriever


def write_answered(
    root: Path,
    manifest: Manifest,
    fill: Callable[[Path], None],
    contexts: Sequence[SearchContext],
    ks: Sequence[int],
) -> None:
    """Write a bundle that `fill` makes but for goldens: its best `ks[i]` items for `contexts[i]`.

    Raises what `write_bundle` and the engine raise; nothing is left behind then.
    """
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".drafting-", dir=root) as scratch:
        draft = open_bundle(write_bundle(Path(scratch), manifest, fill))
        engine = open_servable(draft, "cpu")
        assert isinstance(engine, Retriever)
        answers = [
            _without_place(engine.retrieve(context, k, (), (), 0))
            for context, k in zip(contexts, ks, strict=True)
        ]

        def complete(folder: Path) -> None:
            ours = shutil.ignore_patterns(MANIFEST_FILE)
            shutil.copytree(draft.path, folder, dirs_exist_ok=True, ignore=ours)
            write_golden(folder / GOLDEN_FILE, golden_of(contexts, answers))

        write_bundle(root, manifest, complete)


def _without_place(answer: Candidates) -> Candidates:
    columns = {name: column for name, column in answer.columns.items() if name != CATALOGUE_ROW}
    return Candidates(item_ids=answer.item_ids, columns=columns)
