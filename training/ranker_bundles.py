"""Bundles of the scoring stages, with goldens computed by the eager models.

Legend: C = candidates, N = items, D = width of a vector, K = cross features, T = tasks.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from torch import Tensor

from shards.bundle import write_bundle
from shards.candidates import SCORE, Candidates, Floats
from shards.catalogue import ITEM_VECTORS_FILE
from shards.feature_encoder import RequestEncoder
from shards.features import FEATURES_FILE
from shards.forward_index import ITEMS_FILE, ForwardIndex
from shards.golden import GOLDEN_FILE, golden_of, write_golden
from shards.json_codec import to_json
from shards.manifest import Manifest
from shards.merging import fuse
from shards.release import Stage
from shards.search_context import SearchContext
from shards.tokenizer import TOKENIZER_FILE
from training.channels import Destination
from training.models.averaged import Averaged
from training.models.multi_task_ranker import MultiTaskRanker
from training.models.three_tower import ThreeTower
from training.programs import Program, interaction, scorer, user_tower
from training.rankers import Rankers
from training.snapshot import Snapshot
from training.task_serving import lengths
from training.tensors import Tensors, as_tensors

PRE_RANKER = "pre-ranker"
RANKER = "ranker"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """One golden request as the models take it."""

    context: SearchContext
    candidates: Candidates
    request: Tensors
    row_C: Tensor
    cross_CK: Tensor


def write_rankers(
    rankers: Rankers,
    snapshot: Snapshot,
    requests: Sequence[tuple[SearchContext, Candidates]],
    destination: Destination,
) -> None:
    """Write a bundle for each ranker there is; goldens are the eager models' answers to `requests`."""
    items = ForwardIndex(snapshot.items)
    columns = items.columns(items.names)
    encoder = RequestEncoder(rankers.spec, rankers.tokenizer, items.rows, columns)
    item = as_tensors(encoder.encode_items(columns))
    asked = [_asked(encoder, items, context, candidates) for context, candidates in requests]
    if rankers.pre_ranker:
        own = rankers
        if rankers.groups:
            # A bundle's spec holds what its model reads, so that nothing else is computed.
            own = replace(rankers, spec=rankers.groups.spec)
            encoder = RequestEncoder(own.spec, own.tokenizer, items.rows, columns)
        narrow = [_asked(encoder, items, one.context, one.candidates) for one in asked]
        _write_pre_ranker(own, rankers.pre_ranker, snapshot, item, narrow, destination)
    if rankers.ranker:
        _write_ranker(rankers, rankers.ranker, snapshot, item, asked, destination)


def _asked(
    encoder: RequestEncoder, items: ForwardIndex, context: SearchContext, candidates: Candidates
) -> _Asked:
    rows = items.rows_of(candidates.item_ids)
    return _Asked(
        context=context,
        candidates=candidates,
        request=as_tensors(encoder.encode_request(context)),
        row_C=torch.from_numpy(rows),
        cross_CK=torch.from_numpy(encoder.encode_cross(context, rows, candidates)),
    )


def _write_pre_ranker(
    rankers: Rankers,
    model: ThreeTower,
    snapshot: Snapshot,
    item: Tensors,
    asked: Sequence[_Asked],
    destination: Destination,
) -> None:
    first, item_ND = asked[0], _item_vectors(model, item)

    def columns(one: _Asked) -> dict[str, Floats]:
        user = model.encode_request(one.request)
        logit_1CT = model.interact(user, item_ND[one.row_C].unsqueeze(0), one.cross_CK.unsqueeze(0))
        return {SCORE: logit_1CT[0, :, 0].numpy()}

    with torch.no_grad():
        user_1D = model.encode_request(first.request)
    programs = (
        user_tower(model, first.request),
        interaction(model, user_1D, item_ND[first.row_C].clone(), first.cross_CK),
    )
    version = destination.model(PRE_RANKER)
    manifest = Manifest(
        name=version.model,
        version=version.version,
        stage=Stage.PRE_RANKING,
        engine="three_tower",
        sizes={"items": len(item_ND), "embedding": item_ND.shape[1]},
        programs={program.name: program.spec for program in programs},
        metrics={"ndcg_10": rankers.pre_ranker_ndcg}
        | ({f"weight of {name}": w for name, w in rankers.groups.weights.items()} if rankers.groups else {}),
        training_range=snapshot.training_range,
        settings=destination.settings,
    )
    _write(manifest, rankers, snapshot, item_ND, programs, asked, columns, destination)


def _write_ranker(
    rankers: Rankers,
    model: MultiTaskRanker | Averaged,
    snapshot: Snapshot,
    item: Tensors,
    asked: Sequence[_Asked],
    destination: Destination,
) -> None:
    first, item_ND, tasks, serving = asked[0], _item_vectors(model, item), rankers.tasks, rankers.serving
    items = ForwardIndex(snapshot.items)
    expected = {
        task: adjustment.expected_of(lengths(items, adjustment.column))
        for task, adjustment in serving.adjustments.items()
    }

    def columns(one: _Asked) -> dict[str, Floats]:
        logit_1CT = model.score(one.request, item_ND[one.row_C].unsqueeze(0), one.cross_CK.unsqueeze(0))
        predicted_CT = rankers.links(logit_1CT)[0].numpy()
        by_task = {task: np.ascontiguousarray(predicted_CT[:, t]) for t, task in enumerate(tasks)}
        for task, expected_N in expected.items():
            by_task[task] = by_task[task] / expected_N[one.row_C.numpy()]
        return {SCORE: fuse(by_task, serving.exponents, serving.thresholds), **by_task}

    programs = (scorer(model, rankers.links, first.request, item_ND[first.row_C].clone(), first.cross_CK),)
    version = destination.model(RANKER)
    manifest = Manifest(
        name=version.model,
        version=version.version,
        stage=Stage.RANKING,
        engine="multi_task",
        sizes={"items": len(item_ND), "embedding": item_ND.shape[1]},
        programs={program.name: program.spec for program in programs},
        tasks=tasks,
        params={
            "task_exponents": dict(serving.exponents),
            "task_thresholds": dict(serving.thresholds),
            "length_adjustments": to_json(serving.adjustments),
        },
        metrics={"ndcg_10": rankers.ranker_ndcg},
        training_range=snapshot.training_range,
        settings=destination.settings,
    )
    _write(manifest, rankers, snapshot, item_ND, programs, asked, columns, destination)


def _item_vectors(model: ThreeTower | MultiTaskRanker | Averaged, item: Tensors) -> Tensor:
    with torch.inference_mode():
        return model.encode_item(item)


def _write(
    manifest: Manifest,
    rankers: Rankers,
    snapshot: Snapshot,
    item_ND: Tensor,
    programs: Sequence[Program],
    asked: Sequence[_Asked],
    columns: Callable[[_Asked], dict[str, Floats]],
    destination: Destination,
) -> None:
    with torch.inference_mode():
        answers = [_best_first(one.candidates, columns(one)) for one in asked]
    golden = golden_of([one.context for one in asked], answers, [one.candidates for one in asked])

    def fill(folder: Path) -> None:
        for program in programs:
            program.save(folder)
        (folder / FEATURES_FILE).write_bytes(rankers.spec.to_bytes())
        rankers.tokenizer.save(folder / TOKENIZER_FILE)
        pq.write_table(snapshot.items, folder / ITEMS_FILE)
        np.save(folder / ITEM_VECTORS_FILE, item_ND.numpy())
        write_golden(folder / GOLDEN_FILE, golden)

    write_bundle(destination.root, manifest, fill)


def _best_first(candidates: Candidates, columns: dict[str, Floats]) -> Candidates:
    answered = Candidates(item_ids=candidates.item_ids, columns=columns)
    return answered.take(np.argsort(-columns[SCORE], kind="stable"))
