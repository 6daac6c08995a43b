"""Training on candidates: encoding, metrics, fused scores."""

import math
from dataclasses import replace
from itertools import repeat

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import Tensor

from shards.candidates import Candidates
from shards.cross_kinds import ReciprocalRank
from shards.feature_encoder import RequestEncoder
from shards.feature_kinds import ItemId, Number
from shards.features import FeatureSpec
from shards.forward_index import ForwardIndex
from shards.search_context import SearchContext
from training.features import model_inputs
from training.models.multi_task_ranker import MultiTaskRanker, MultiTaskRankerConfig
from training.ranking import (
    RankingSet,
    RankingTraining,
    ndcg_at_10,
    predict,
    ranking_set,
    taken_ranks,
    train_ranker,
)
from training.task_labels import TaskLabels
from training.task_losses import fitted_tasks
from training.task_serving import fused, tune_exponents, tune_thresholds
from training.tasks import Task
from training.trainer import FitConfig, Seeded

ITEMS = ForwardIndex(pa.table({"item_id": ["a", "b", "c"]}))
SPEC = FeatureSpec(
    features=(
        Number(name="size", source="context.size"),
        ItemId(name="item_row"),
        ReciprocalRank(name="rank", column="lexical.rank"),
    )
)


def found(*item_ids: str) -> Candidates:
    ranks = np.arange(1, len(item_ids) + 1, dtype=np.float32)
    return Candidates(item_ids=item_ids, columns={"lexical.rank": ranks})


def took(item_ids: str) -> TaskLabels:
    return TaskLabels(by_item=dict.fromkeys(item_ids, 1.0))


def examples() -> RankingSet:
    contexts = [SearchContext(query="x", features={"size": float(n)}, now_ms=0) for n in range(3)]
    labels = [(took("b"), took("ab")), (took("a"), took("c")), (took("c"), took(""))]
    encoder = RequestEncoder(SPEC, None, ITEMS.rows, ITEMS.columns(("item_id",)))
    return ranking_set(
        repeat(encoder, 3), ITEMS, contexts, [found("c", "b", "a"), found("a"), found("b")], labels
    )


def test_candidates_are_padded_to_one_length() -> None:
    made = examples()
    assert made.row_QC.tolist() == [[2, 1, 0], [0, 0, 0], [1, 0, 0]]
    assert made.present_QC.sum(dim=1).tolist() == [3, 1, 1]
    assert made.cross_QCK[0, :, 0].tolist() == pytest.approx([1, 1 / 2, 1 / 3])
    assert made.label_QCT[0].tolist() == [[False, False], [True, True], [False, True]]
    assert made.label_QCT[2].any().item() is False, "no channel found the item"
    assert made[torch.tensor([1])].request["size"].tolist() == [1.0]


def test_ranks_count_an_item_that_no_channel_found_as_missed() -> None:
    made = examples()
    scores = torch.tensor([[3.0, 2.0, 1.0], [0.0, 9.0, 9.0], [1.0, 0.0, 0.0]])
    assert taken_ranks(scores, made).tolist() == [2, 1, 0]
    assert ndcg_at_10(scores, made) == pytest.approx((1 / math.log2(3) + 1 + 0) / 3)


def test_fused_is_the_log_of_the_product_of_powers() -> None:
    p = torch.tensor([0.3, 0.1])
    assert fused(p.reshape(1, 1, 2), (1.0, 0.5)).item() == pytest.approx(
        (p[0] * p[1] ** 0.5).log().item(), rel=1e-5
    )


def test_exponents_follow_a_task_that_helps_and_ignore_one_that_harms() -> None:
    made = examples()
    helps = torch.where(made.label_QCT[..., :1] > 0, 3.0, -3.0)
    wrong = torch.tensor([[0.4, 0.2, 0.3], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]).unsqueeze(-1)
    assert tune_exponents(torch.cat([wrong, helps], dim=-1).sigmoid(), made)[1] > 0
    assert tune_exponents(torch.cat([helps, -4 * helps], dim=-1).sigmoid(), made) == (1.0, 0.0)


def test_a_threshold_is_set_where_what_is_below_it_was_never_taken() -> None:
    made = examples()
    misled = torch.tensor([[0.9, 0.5, 0.1], [0.5, 0.0, 0.0], [0.5, 0.0, 0.0]])
    liked = torch.where(made.label_QCT[..., 0] > 0, 0.8, 0.1)
    liked[0, 0] = 0.05
    predictions = torch.stack([misled, liked], dim=-1)
    assert 0.05 < tune_thresholds(predictions, made, (1.0, 0.0))[1] < 0.8
    assert tune_thresholds(torch.stack([liked, misled], dim=-1), made, (1.0, 0.0)) == (0.0, 0.0)


def test_training_learns_what_was_taken() -> None:
    made = examples()
    generator = Seeded(seed=0).apply()
    model = MultiTaskRanker(
        MultiTaskRankerConfig(width=8, hidden=16, experts=2, expert_width=8, tasks=("take", "near")),
        model_inputs(SPEC, None, 3),
    )
    training = RankingTraining(fit=FitConfig(epochs=60, batch_size=2, learning_rate=0.01))
    tasks = fitted_tasks((Task(name="take"), Task(name="near")), made.label_QCT, made.weight_QCT)
    train_ranker("ranker", model, training, made, tasks, generator)
    with torch.inference_mode():
        assert taken_ranks(predict(model, made)[..., 0], made).tolist() == [1, 1, 0]


class OneRate(torch.nn.Module):
    """Says the same of every candidate."""

    def __init__(self) -> None:
        super().__init__()
        self.logit = torch.nn.Parameter(torch.zeros(1))

    def forward(self, _request: object, _item: object, row_BC: Tensor, _cross_BCK: Tensor) -> Tensor:
        return self.logit.expand(*row_BC.shape, 1)


def test_requests_of_which_nothing_was_taken_count_for_what_undoes_down_sampling() -> None:
    made = examples()[torch.arange(3).repeat(200)]
    made = replace(made, label_QCT=made.label_QCT[..., :1], weight_QCT=made.weight_QCT[..., :1])
    tasks = fitted_tasks((Task(name="take", negatives=0.5),), made.label_QCT, made.weight_QCT)
    fit = FitConfig(epochs=60, batch_size=600, learning_rate=0.05, last_rate=0.05, weight_decay=0.0)
    model = OneRate()
    train_ranker(
        "ranker", model, RankingTraining(fit=fit, binary_weight=1.0), made, tasks, Seeded(seed=0).apply()
    )
    # Two of five candidates were taken; without the request that took nothing, two of four.
    assert tasks.links()(model.logit.detach()).item() == pytest.approx(0.4, abs=0.02)
