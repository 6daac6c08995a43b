"""Bundles whose goldens are what their own engine answers, as it will on every replica."""

import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from shards.bundle import open_bundle, write_bundle
from shards.candidates import Candidates
from shards.gathering import CATALOGUE_ROW
from shards.golden import GOLDEN_FILE, Golden, golden_of, write_golden
from shards.manifest import MANIFEST_FILE, Manifest
from shards.search_context import SearchContext
from shards.servable import open_servable
from shards.stages import Retriever, Servable


def write_answered(
    root: Path,
    manifest: Manifest,
    fill: Callable[[Path], None],
    contexts: Sequence[SearchContext],
    ks: Sequence[int],
) -> None:
    """Write a retrieval bundle that `fill` makes but for goldens: its best `ks[i]` items for `contexts[i]`.

    Raises what `write_bundle` and the engine raise; nothing is left behind then.
    """
    _write(root, manifest, fill, lambda engine: golden_of(contexts, _retrieved(engine, contexts, ks)))


def write_answered_again(
    root: Path, manifest: Manifest, fill: Callable[[Path], None], golden: Golden
) -> None:
    """Write a bundle that `fill` makes but for goldens: its answers to what `golden` asks, a scorer's too.

    Raises what `write_bundle` and the engine raise; nothing is left behind then.
    """
    _write(root, manifest, fill, lambda engine: _answered(engine, golden))


def _write(
    root: Path, manifest: Manifest, fill: Callable[[Path], None], answered: Callable[[Servable], Golden]
) -> None:
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".drafting-", dir=root) as scratch:
        draft = open_bundle(write_bundle(Path(scratch), manifest, fill))
        golden = answered(open_servable(draft, "cpu"))

        def complete(folder: Path) -> None:
            ours = shutil.ignore_patterns(MANIFEST_FILE)
            shutil.copytree(draft.path, folder, dirs_exist_ok=True, ignore=ours)
            write_golden(folder / GOLDEN_FILE, golden)

        write_bundle(root, manifest, complete)


def _answered(engine: Servable, golden: Golden) -> Golden:
    if golden.candidates is None:
        ks = [len(item_ids) for item_ids in golden.item_ids]
        return golden_of(golden.contexts, _retrieved(engine, golden.contexts, ks))
    assert not isinstance(engine, Retriever)
    asked = zip(golden.contexts, golden.candidates, strict=True)
    answers = [engine.score(context, candidates, 0, {}, (), 0) for context, candidates in asked]
    return golden_of(golden.contexts, answers, golden.candidates)


def _retrieved(engine: Servable, contexts: Sequence[SearchContext], ks: Sequence[int]) -> list[Candidates]:
    assert isinstance(engine, Retriever)
    asked = zip(contexts, ks, strict=True)
    return [_without_place(engine.retrieve(context, k, (), (), 0)) for context, k in asked]


def _without_place(answer: Candidates) -> Candidates:
    columns = {name: column for name, column in answer.columns.items() if name != CATALOGUE_ROW}
    return Candidates(item_ids=answer.item_ids, columns=columns)
