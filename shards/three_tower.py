"""Engine "three_tower": user vector once a request, item vectors cached, a small head per candidate.

Files: program "user_tower" (request features by name → named outputs [1, …]), program "interaction"
(any of those outputs, "item" [C, D], "cross" [C, K] → score [C]), item_vectors.npy (float32 or
float16 [N, D], in the order of items.parquet), features.json.
Legend: N = items, C = candidates, D = width of a vector, K = cross features.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from shards.bundle import Bundle
from shards.candidates import SCORE, Candidates, Floats
from shards.catalogue import (
    ITEM_VECTORS_FILE,
    answer,
    best_first,
    check_finite,
    known_rows,
    open_encoder,
    open_items,
    read_item_vectors,
)
from shards.feature_encoder import RequestEncoder
from shards.forward_index import ForwardIndex
from shards.runner import Runner, open_runner
from shards.search_context import SearchContext

USER_TOWER = "user_tower"
INTERACTION = "interaction"


@dataclass(frozen=True, slots=True, kw_only=True)
class ThreeTower:
    """Scores thousands of candidates with one number each."""

    bundle: Bundle
    items: ForwardIndex
    encoder: RequestEncoder
    user_tower: Runner
    interaction: Runner
    item_vectors: Floats

    def score(
        self,
        context: SearchContext,
        candidates: Candidates,
        keep: int,
        task_exponents: Mapping[str, float],  # noqa: ARG002
        attributes: tuple[str, ...],
        attribute_count: int,
        /,
    ) -> Candidates:
        """Return the best `keep` known candidates, all where it is 0; it has one task, so no exponents."""
        rows, known = known_rows(self.items, candidates)
        score_C = np.empty(0, np.float32)
        if len(rows):
            inputs = self.user_tower(self.encoder.encode_request(context))
            inputs["item"] = self.item_vectors[rows].astype(np.float32, copy=False)
            inputs["cross"] = self.encoder.encode_cross(context, rows, known)
            (score_C,) = self.interaction(inputs).values()
        check_finite(score_C, self.bundle)
        order = best_first(score_C, keep or len(rows))
        return answer(self.items, rows[order], {SCORE: score_C[order]}, attributes, attribute_count)


def open_three_tower(bundle: Bundle, device: str) -> ThreeTower:
    """Open the engine; BundleError names the file at fault."""
    items = open_items(bundle)
    return ThreeTower(
        bundle=bundle,
        items=items,
        encoder=open_encoder(bundle, items),
        user_tower=open_runner(bundle, USER_TOWER, device),
        interaction=open_runner(bundle, INTERACTION, device),
        item_vectors=read_item_vectors(bundle.file(ITEM_VECTORS_FILE), len(items)),
    )
