"""Where hard negatives come from, and when they take part."""

import pyarrow as pa
import pytest
import torch

from training.hard_negatives import HardItems, HardNegatives, by_actions, by_rank, chances, rejected, some_of
from training.samplers import MixedSampler, at_random, hardest

NOBODY = -1


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def test_ranks_leave_out_what_the_owner_took() -> None:
    # Request 0 and 1 are one owner's; every request ranks the items 0, 1, 2 … in this order.
    item_ND = torch.linspace(1.0, 0.1, 10).unsqueeze(1)
    config = HardNegatives(per_positive=1, first_rank=3, last_rank=6, kept=4)
    row_QR = by_rank(
        config,
        lambda batch_B: torch.ones(len(batch_B), 1),
        item_ND,
        torch.tensor([2, 3, 4]),
        torch.tensor([7, 7, NOBODY]),
        generator(),
    )
    found = [sorted(row for row in rows if row >= 0) for rows in row_QR.tolist()]
    assert found == [[4, 5], [4, 5], [2, 3, 5]]
    assert row_QR[0, 2:].tolist() == [-1, -1], "known ones come first"


def test_hard_items_of_the_user_are_the_newest_of_the_named_actions() -> None:
    events = pa.table(
        {
            "user_id": ["u", "u", "v", "u", "u"],
            "item_id": ["a", "b", "a", "c", "gone"],
            "action": ["skip", "like", "skip", "skip", "skip"],
        }
    )
    items = pa.table({"item_id": ["a", "b", "c"]})
    config = HardNegatives(per_positive=1, source="actions", actions=("skip",), kept=3)
    assert by_actions(config, events, items, ["u", "w", "v"]).tolist() == [[0, 2, -1], [-1] * 3, [0, -1, -1]]


def test_rejected_are_those_dropped_and_the_lower_half_of_those_ranked() -> None:
    config = HardNegatives(per_positive=1, source="rejected", kept=4)
    row_QR = rejected(
        config,
        torch.tensor([[10, 11, 12, 13, 14, 15]]),
        torch.tensor([[True, True, True, True, True, False]]),
        torch.tensor([[False, False, False, False, True, True]]),
        torch.tensor([[4.0, 1.0, 3.0, 2.0, 9.0, 9.0]]),
        generator(),
    )
    assert sorted(row_QR[0].tolist()) == [-1, 11, 13, 14]


def test_epochs_take_turns_and_mine_only_where_the_model_tells() -> None:
    config = HardNegatives(per_positive=2, from_epoch=2, until_epoch=3, kept=3)
    hard, mined = HardItems(config, 4), []

    def mine() -> torch.Tensor:
        mined.append(True)
        return torch.tensor([[5, 6, -1]] * 4)

    active = []
    for _ in range(4):
        hard.start_epoch(mine)
        drawn = hard.draw(torch.tensor([0, 3]), generator())
        active.append(drawn is not None)
        assert drawn is None or (drawn.shape == (2, 2) and {5, 6} >= set(drawn.flatten().tolist()))
    assert active == [False, True, True, False]
    assert len(mined) == 2


def test_a_hard_negative_is_one_for_its_own_example_alone() -> None:
    sampler = MixedSampler(torch.tensor([9, 9, 1, 1, 1]), drawn=0)
    hard_BH = torch.tensor([[3, 4], [-1, -1]])
    sampled = sampler.sample(torch.tensor([0, 1]), torch.tensor([NOBODY, NOBODY]), generator(), hard_BH)
    assert sampled.row_M.tolist() == [0, 1, 3, 4]
    assert sampled.masked_BM.tolist() == [[True, False, False, False], [False, True, True, True]]
    assert sampled.hard_BM.tolist() == [[False, False, True, True], [False] * 4]
    assert sampled.log_q_M[2:].tolist() == [0.0, 0.0], "a batch meets it once, whatever its popularity"


def test_what_others_left_is_a_negative_of_all_but_its_own_example() -> None:
    left_QR = torch.tensor([[3, 4, -1], [3, -1, -1], [-1, -1, -1], [-1, -1, -1]])
    likely_N = chances(left_QR, 5)
    assert likely_N.tolist() == [0.0, 0.0, 0.0, (0.5 + 1) / 4, 0.5 / 4]
    count_N = torch.tensor([9, 9, 1, 1, 1])
    sampler = MixedSampler(count_N, drawn=0, shared_p_N=likely_N)
    owner_B, hard_BH = torch.tensor([NOBODY, NOBODY]), torch.tensor([[3], [-1]])
    sampled = sampler.sample(torch.tensor([0, 1]), owner_B, generator(), hard_BH)
    assert sampled.row_M.tolist() == [0, 1, 3]
    assert sampled.masked_BM.tolist() == [[True, False, True], [False, True, False]]
    assert not sampled.hard_BM.any()
    expected = 2 * count_N[sampled.row_M] / 21 + 2 * likely_N[sampled.row_M]
    torch.testing.assert_close(sampled.log_q_M, expected.log().float())


def test_counting_the_hardest_and_some_at_random() -> None:
    logit_BM = torch.tensor([[3.0, 2.0, 1.0, 0.0]])
    masked_BM = torch.tensor([[True, False, False, False]])
    assert hardest(logit_BM, masked_BM, 2).tolist() == [[True, False, False, True]]
    assert hardest(logit_BM, masked_BM, 9).tolist() == [[True, False, False, False]]
    assert at_random(masked_BM, 1, generator()).sum() == 3


def test_some_of_few_is_padded() -> None:
    row_BR = some_of(torch.tensor([[7, 8]]), torch.tensor([[True, False]]), 3, generator())
    assert row_BR.tolist() == [[8, -1, -1]]


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"source": "luck"}, "source must be one of ranks, rejected, actions"),
        ({"per_positive": -1}, "per_positive"),
        ({"first_rank": 9, "last_rank": 8}, "first_rank"),
        ({"per_positive": 1, "source": "actions"}, "need actions"),
        ({"of_others": True}, "of_others is for source 'actions'"),
    ],
)
def test_settings_that_cannot_be_are_refused(changes: dict[str, object], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        HardNegatives(**changes)  # type: ignore[arg-type]
