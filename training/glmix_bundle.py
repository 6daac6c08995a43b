"""The bundle of a GLMix: a scorer of engine "multi_task" with one task, and its coefficients to go on from.

The tables of users are in the program, an item's numbers and effect are its vector.

Legend: N = items, C = candidates, D = width of a vector, K = cross features.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from torch import Tensor

from shards.bundle import write_bundle
from shards.candidates import SCORE, Candidates
from shards.catalogue import ITEM_VECTORS_FILE
from shards.feature_encoder import RequestEncoder
from shards.features import FEATURES_FILE
from shards.forward_index import ITEMS_FILE, ForwardIndex
from shards.golden import GOLDEN_FILE, Golden, golden_of, write_golden
from shards.manifest import Manifest
from shards.merging import fuse
from shards.release import Stage
from shards.search_context import SearchContext
from training.channels import Destination
from training.glmix_training import TrainedGLMix
from training.models.task_links import probabilities
from training.parameters import save_parameters
from training.programs import scorer
from training.ranker_bundles import RANKER
from training.snapshot import Snapshot
from training.tensors import Tensors, as_tensors

_GOLDEN_ITEMS = 50


def write_glmix(
    trained: TrainedGLMix, known: Snapshot, contexts: Sequence[SearchContext], destination: Destination
) -> None:
    """Write the ranker of a release; goldens are the eager model's answers to `contexts` on popular items."""
    index = ForwardIndex(known.items)
    columns = index.columns(trained.spec.item_columns)
    encoder = RequestEncoder(trained.spec, None, index.rows, columns)
    with torch.inference_mode():
        item_ND = trained.model.encode_item(as_tensors(encoder.encode_items(columns)))
    row_C = np.argsort(-known.items.column("popularity").to_numpy(), kind="stable")[:_GOLDEN_ITEMS]
    asked = _Asked(
        contexts=contexts,
        candidates=Candidates(item_ids=tuple(index.item_ids[row] for row in row_C.tolist())),
        row_C=row_C,
        item_CD=item_ND[torch.from_numpy(row_C)].clone(),
    )
    request, cross_CK = asked.inputs(encoder, contexts[0])
    program = scorer(trained.model, probabilities(1), request, asked.item_CD, cross_CK)
    version = destination.model(RANKER)
    manifest = Manifest(
        name=version.model,
        version=version.version,
        stage=Stage.RANKING,
        engine="multi_task",
        sizes={"items": len(item_ND), "embedding": item_ND.shape[1]},
        programs={program.name: program.spec},
        tasks=(trained.task,),
        metrics={name: value for name, value in trained.figures.items() if np.isfinite(value)},
        training_range=known.training_range,
        settings=tuple(dict.fromkeys((*destination.settings, *trained.settings))),
        full_version=destination.full_version,
    )

    def fill(folder: Path) -> None:
        program.save(folder)
        save_parameters(trained.model, folder)
        (folder / FEATURES_FILE).write_bytes(trained.spec.to_bytes())
        pq.write_table(known.items, folder / ITEMS_FILE)
        np.save(folder / ITEM_VECTORS_FILE, item_ND.numpy())
        write_golden(folder / GOLDEN_FILE, asked.golden(trained, encoder))

    write_bundle(destination.root, manifest, fill)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """What goldens ask: the same items for several users."""

    contexts: Sequence[SearchContext]
    candidates: Candidates
    row_C: NDArray[np.int64]
    item_CD: Tensor

    def inputs(self, encoder: RequestEncoder, context: SearchContext) -> tuple[Tensors, Tensor]:
        """Return the request's features [1, …] and the cross features [C, K]."""
        cross_CK = encoder.encode_cross(context, self.row_C, self.candidates)
        return as_tensors(encoder.encode_request(context)), torch.from_numpy(cross_CK)

    @torch.no_grad()
    def golden(self, trained: TrainedGLMix, encoder: RequestEncoder) -> Golden:
        """Return what the eager model answers."""
        answers = []
        for context in self.contexts:
            request, cross_CK = self.inputs(encoder, context)
            logit_1C1 = trained.model.score(request, self.item_CD.unsqueeze(0), cross_CK.unsqueeze(0))
            by_task = {trained.task: torch.sigmoid(logit_1C1)[0, :, 0].numpy()}
            scored = Candidates(
                item_ids=self.candidates.item_ids,
                columns={SCORE: fuse(by_task, {trained.task: 1.0}), **by_task},
            )
            answers.append(scored.take(np.argsort(-scored.columns[SCORE], kind="stable")))
        return golden_of(self.contexts, answers, [self.candidates] * len(self.contexts))
