"""The blocks of rankers against their formulas, computed the long way.

Legend: B = requests, C = candidates, L = events, F = fields, D = width.
"""

import pytest
import torch
from torch import Tensor

from training.models.activation_pool import ActivationPool
from training.models.cross_network import CrossNetwork, LowRankExperts
from training.models.field_crosses import BilinearCross, FieldCrosses, Matrices, SqueezeExcite
from training.models.searched_history import SearchedPool, nearest_events, newest_of_category
from training.models.task_sharing import Experts, SharedBottom
from training.models.user_gates import UserGate


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def test_a_cross_layer_is_x0_times_the_layer_plus_what_went_in() -> None:
    network, x_BW = CrossNetwork(5, 2), torch.randn(3, 5)
    expected_BW = x_BW
    for layer in network.layers:
        expected_BW = x_BW * layer(expected_BW) + expected_BW
    torch.testing.assert_close(network(x_BW), expected_BW)


def test_two_cross_layers_make_terms_of_the_third_degree() -> None:
    network = CrossNetwork(1, 2)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter.fill_(1.0 if name.endswith("weight") else 0.0)
    # x1 = x² + x, x2 = x (x² + x) + x² + x.
    torch.testing.assert_close(network(torch.tensor([[2.0]])), torch.tensor([[2.0 * 6.0 + 6.0]]))


def test_experts_of_low_rank_are_the_gated_sum_of_the_paper() -> None:
    layer, x_W = LowRankExperts(6, 2, 3), torch.randn(6)
    assert layer.gate is not None
    gate_E = layer.gate(x_W).softmax(dim=-1)
    expected_W = layer.bias_W.clone()
    for expert in range(3):
        low_R = torch.tanh(torch.tanh(x_W @ layer.down_EWR[expert]) @ layer.within_ERR[expert])
        expected_W = expected_W + gate_E[expert] * (low_R @ layer.up_ERW[expert])
    torch.testing.assert_close(layer(x_W), expected_W)
    with pytest.raises(ValueError, match="need a rank"):
        CrossNetwork(6, 1, experts=2)


def test_low_rank_has_a_fraction_of_the_parameters() -> None:
    def parameters(network: CrossNetwork) -> int:
        return sum(parameter.numel() for parameter in network.parameters())

    assert parameters(CrossNetwork(128, 2, rank=8)) < parameters(CrossNetwork(128, 2)) / 6


def test_squeeze_and_excitation_weighs_whole_fields() -> None:
    block, field_BFD = SqueezeExcite(6, 3), torch.randn(4, 6, 5)
    ratio_BFD = block(field_BFD) / field_BFD
    torch.testing.assert_close(ratio_BFD, ratio_BFD[..., :1].expand_as(ratio_BFD))
    assert (ratio_BFD >= 0).all()


@pytest.mark.parametrize("matrices", ["shared", "each", "pair"])
def test_a_bilinear_cross_is_left_times_matrix_times_right(matrices: Matrices) -> None:
    hadamard = BilinearCross(4, 3, matrices=matrices, product="hadamard")
    field_FD = torch.randn(4, 3)
    pairs = [(i, j) for i in range(4) for j in range(i + 1, 4)]
    expected = []
    for place, (left, right) in enumerate(pairs):
        matrix = hadamard.weight[{"shared": 0, "each": left, "pair": place}[matrices]]
        expected.append((field_FD[left] @ matrix) * field_FD[right])
    torch.testing.assert_close(hadamard(field_FD), torch.cat(expected))
    inner = BilinearCross(4, 3, matrices=matrices, product="inner")
    inner.load_state_dict(hadamard.state_dict())
    torch.testing.assert_close(inner(field_FD), torch.stack(expected).sum(dim=1))
    assert (hadamard.out_width, inner.out_width) == (18, 6)


def test_fibinet_crosses_fields_as_they_are_and_weighed() -> None:
    crosses, field_FD = FieldCrosses(4, 3, "both"), torch.randn(4, 3)
    plain, weighed = crosses.crosses
    assert crosses.weigh is not None
    expected = torch.cat([plain(field_FD), weighed(crosses.weigh(field_FD))])
    torch.testing.assert_close(crosses(field_FD), expected)
    assert crosses.out_width == len(expected)
    assert FieldCrosses(4, 3, "weighed").out_width == 12
    with pytest.raises(ValueError, match="two fields"):
        FieldCrosses(1, 3, "both")


def test_a_gate_lies_between_0_and_2_and_leaves_the_user_as_it_is() -> None:
    gate, user_BD = UserGate(4, 8, 5), torch.randn(3, 4, requires_grad=True)
    gate_BW = gate(user_BD)
    assert ((gate_BW > 0) & (gate_BW < 2)).all()
    assert not torch.allclose(gate_BW[0], gate_BW[1])
    gate_BW.sum().backward()
    assert user_BD.grad is None


def test_tasks_share_one_bottom_or_mix_experts_for_themselves() -> None:
    x_BW = torch.randn(3, 6)
    bottom = SharedBottom(6, (8, 4), 2, dropout=0.0)(x_BW)
    assert bottom.shape == (3, 2, 4)
    torch.testing.assert_close(bottom[:, 0], bottom[:, 1])
    mixed = Experts(6, (8, 4), 2, experts=3, dropout=0.0, gate_dropout=0.0)(x_BW)
    assert mixed.shape == (3, 2, 4)
    assert not torch.allclose(mixed[:, 0], mixed[:, 1])


def test_the_activation_unit_sees_event_difference_product_and_candidate() -> None:
    pool = ActivationPool(4, 6)
    item_BCD, event_BLD = torch.randn(2, 3, 4), torch.randn(2, 5, 4)
    present_BL = torch.tensor([[True] * 3 + [False] * 2, [False] * 5])
    event_BCLD = event_BLD.unsqueeze(1).expand(-1, 3, -1, -1)
    item_BCLD = item_BCD.unsqueeze(2).expand_as(event_BCLD)
    hidden = pool.event(event_BCLD) + pool.candidate(item_BCLD) + (event_BCLD * item_BCLD) @ pool.both_HD.T
    weight_BCL = pool.out(torch.nn.functional.silu(hidden)).squeeze(-1) * present_BL.unsqueeze(1)
    expected = (weight_BCL.unsqueeze(-1) * event_BCLD).sum(dim=2)
    torch.testing.assert_close(pool(item_BCD, event_BLD, present_BL), expected)
    assert not expected[1].any()


def histories() -> tuple[Tensor, Tensor]:
    """Return categories [B, L] and which events there are [B, L]: some histories are short, one is empty."""
    length_B = torch.tensor([0, 1, 7, 30, 30])
    return torch.randint(0, 4, (5, 30)), torch.arange(30) < length_B.unsqueeze(1)


def test_a_hard_search_finds_the_newest_events_of_the_category() -> None:
    category_BL, present_BL = histories()
    asked_BC = torch.randint(0, 5, (5, 9))
    place_BCF, there_BCF = newest_of_category(category_BL, present_BL, asked_BC, 5, 4)
    for b in range(5):
        for c in range(9):
            asked = int(asked_BC[b, c])
            alike = [at for at in range(30) if present_BL[b, at] and asked == category_BL[b, at] and asked]
            assert place_BCF[b, c][there_BCF[b, c]].tolist() == alike[::-1][:4]


def test_a_soft_search_finds_the_nearest_events() -> None:
    _, present_BL = histories()
    item_BCD, event_BLD = torch.randn(5, 2, 3), torch.randn(5, 30, 3)
    place_BCF, there_BCF = nearest_events(item_BCD, event_BLD, present_BL, 4)
    for b in range(5):
        for c in range(2):
            scores = (event_BLD[b][present_BL[b]] @ item_BCD[b, c]).tolist()
            best = sorted(range(len(scores)), key=lambda at: -scores[at])[:4]
            assert place_BCF[b, c][there_BCF[b, c]].tolist() == best


def test_what_a_search_does_not_find_changes_nothing() -> None:
    pool = SearchedPool(3, "hard", found=4, categories=4)
    category_BL, present_BL = histories()
    item_BCD, event_BLD, asked_BC = torch.randn(5, 6, 3), torch.randn(5, 30, 3), torch.full((5, 6), 2)

    def answer(event_BLD: Tensor) -> Tensor:
        return pool(item_BCD, event_BLD, present_BL, asked_BC=asked_BC, category_BL=category_BL)  # type: ignore[no-any-return]

    others_BLD = torch.where((category_BL == 2).unsqueeze(-1), event_BLD, torch.randn(5, 30, 3))
    torch.testing.assert_close(answer(others_BLD), answer(event_BLD))
    assert not answer(event_BLD)[0].any(), "an empty history has nothing to say"
