from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from shards.cross_kinds import ChannelColumn, HistoryCount, ItemNumber, QueryOverlap, ReciprocalRank
from shards.features import FeatureSpec
from tests.training import model_batches as batches
from tests.training.shop_recipe import RECIPE
from training.feature_groups import alignment, feature_groups, group_weights, kept_groups, weight_penalty
from training.models.group_gate import GroupGate
from training.models.three_tower import ThreeTowerConfig
from training.ranking import RankingSet

SPEC = FeatureSpec(
    features=(
        ReciprocalRank(name="lexical_rank", column="lexical.rank"),
        ChannelColumn(name="lexical_score", column="lexical.score"),
        HistoryCount(name="own_count"),
        QueryOverlap(name="overlap", source="item.title"),
        ItemNumber(name="price", source="item.price"),
        ChannelColumn(name="merge_score", column="merge.score"),
    )
)


def gate(groups: list[list[int]]) -> GroupGate:
    torch.manual_seed(0)
    config = ThreeTowerConfig(width=4, hidden=8, tasks=("buy",), dropout=0.0)
    return GroupGate(config, batches.model_inputs(), groups)


def examples(requests: int = 64, candidates: int = 8) -> RankingSet:
    """Return requests whose item is the one with the highest first cross feature; the second is noise."""
    g = torch.Generator().manual_seed(3)
    cross = torch.randn(requests, candidates, 2, generator=g)
    label = F.one_hot(cross[..., 0].argmax(dim=1), candidates).bool().unsqueeze(-1)
    return RankingSet(
        request=batches.request_batch(requests),
        item=batches.item_batch(),
        row_QC=torch.randint(0, batches.ITEMS, (requests, candidates), generator=g),
        present_QC=torch.ones(requests, candidates, dtype=torch.bool),
        cross_QCK=cross,
        label_QCT=label.float(),
        weight_QCT=torch.ones(requests, candidates, 1),
    )


def loss(model: GroupGate, part: RankingSet) -> torch.Tensor:
    logit_QC = model(part.request, part.item, part.row_QC, part.cross_QCK)[..., 0]
    return F.cross_entropy(logit_QC, part.label_QCT[..., 0].float())


def test_cross_features_of_one_source_are_a_group() -> None:
    assert feature_groups(SPEC) == {
        "channel lexical": (0, 1),
        "history": (2,),
        "overlap": (3,),
        "item statistics": (4,),
        "channel merge": (5,),
    }


def test_the_groups_of_most_weight_are_kept_and_the_others_leave_the_spec() -> None:
    weights = {
        "overlap": 0.9,
        "channel lexical": 0.8,
        "history": 0.3,
        "item statistics": 0.2,
        "channel merge": 0,
    }
    kept = kept_groups(SPEC, weights, 2)
    assert kept.kept == ("overlap", "channel lexical")
    assert kept.columns == (0, 1, 3)
    assert kept.spec.cross_names == ("lexical_rank", "lexical_score", "overlap")
    for wrong in (0, 6):
        with pytest.raises(ValueError, match="kept_groups must be 1 to 5"):
            kept_groups(SPEC, weights, wrong)


def test_every_parameter_gets_a_gradient() -> None:
    model = gate([[0], [1]])
    loss(model, examples()).backward()  # type: ignore[no-untyped-call]
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_a_weight_multiplies_its_group() -> None:
    model, part = gate([[0], [1]]).eval(), examples()
    with torch.no_grad():
        model.excite.weight.zero_()
        model.excite.bias.copy_(torch.tensor([100.0, -100.0]))
        noise = replace(part, cross_QCK=part.cross_QCK * torch.tensor([1.0, 7.0]))
        torch.testing.assert_close(loss(model, part), loss(model, noise))
    assert group_weights(model, part, ["told", "noise"]) == {"told": 1.0, "noise": pytest.approx(0.0)}


def test_what_tells_gets_more_weight_than_noise() -> None:
    model, part = gate([[0], [1]]), examples()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(120):
        optimizer.zero_grad()
        (loss(model, part) + weight_penalty(model, part)).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    weights = group_weights(model, part, ["told", "noise"])
    assert list(weights) == ["told", "noise"]
    assert weights["told"] > 1.5 * weights["noise"]


def test_a_feature_of_no_group_is_refused() -> None:
    with pytest.raises(ValueError, match="of one group"):
        gate([[0]])


def test_alignment_is_the_share_of_the_rankers_best_that_come_through() -> None:
    part = examples(requests=5, candidates=6)
    order = torch.arange(6, 0, -1.0).expand(5, 6).unsqueeze(-1)
    assert alignment(lambda *_: order, lambda *_: order, part, 3, 3) == 1.0
    assert alignment(lambda *_: order, lambda *_: -order, part, 3, 3) == 0.0
    assert alignment(lambda *_: order, lambda *_: -order, part, 4, 3) == pytest.approx(1 / 3)


def test_negative_groups_are_refused() -> None:
    assert RECIPE.pre_ranker is not None
    with pytest.raises(ValueError, match="kept_groups"):
        replace(RECIPE.pre_ranker.model, kept_groups=-1)
