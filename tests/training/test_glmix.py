"""GLMix: shapes, gradients, coordinates that never make it worse, known effects found again, and serving.

Legend: E = examples, U = numbers of a user, X = of an item.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from shards.feature_kinds import HistoryItems
from tests.training.model_batches import (
    assert_every_parameter_learns,
    candidate_batch,
    item_batch,
    model_inputs,
    request_batch,
)
from training.glmix import (
    RANDOM,
    Coefficients,
    Examples,
    GLMixFit,
    coefficients_of,
    fit_glmix,
    fit_part,
    logits,
    put,
)
from training.glmix_training import chosen, figures_of
from training.grouped_logistic import RidgeProblems, fit_table
from training.losses import binary_loss
from training.models.glmix import GLMix, GLMixConfig
from training.recipes import RECIPES

USERS, ITEMS, WIDTH = 60, 40, 3
FIT = GLMixFit(fixed_l2=1.0, user_l2=1.0, item_l2=1.0, rounds=4, choose=False)


def model() -> GLMix:
    torch.manual_seed(0)
    glmix = GLMix(GLMixConfig(user="gender", item="item_id"), model_inputs(history=False))
    for parameter in glmix.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return glmix


def zeros(users: int = USERS, items: int = ITEMS) -> Coefficients:
    """Return coefficients for users and items of `WIDTH` numbers each, an item's last a cross feature."""

    def zero(*shape: int) -> Tensor:
        return torch.zeros(*shape, dtype=torch.float64)

    fixed = {
        "bias": zero(1),
        "user_weight_U": zero(WIDTH),
        "item_weight_I": zero(WIDTH - 1),
        "cross_weight_K": zero(1),
        "pair_weight_UI": zero(WIDTH, WIDTH - 1),
    }
    return Coefficients(fixed, zero(users + 1, 1 + WIDTH), zero(items + 1, 1 + WIDTH))


def drawn(count: int, *, seed: int = 0, spread: float = 1.0) -> tuple[Examples, Coefficients]:
    """Return examples labelled by chance, and the effects that made them."""
    g = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    truth = zeros()
    truth.fixed["user_weight_U"].copy_(normal(WIDTH))
    truth.user_MF[1:] = spread * normal(USERS, 1 + WIDTH)
    truth.item_MF[1:] = spread * normal(ITEMS, 1 + WIDTH)
    user_row_E = torch.randint(1, USERS + 1, (count,), generator=g)
    item_row_E = torch.randint(1, ITEMS + 1, (count,), generator=g)
    examples = Examples(
        user_EU=normal(USERS + 1, WIDTH)[user_row_E],
        item_EX=normal(count, WIDTH),
        user_row_E=user_row_E,
        item_row_E=item_row_E,
        label_E=torch.zeros(count, dtype=torch.float64),
        weight_E=torch.rand(count, generator=g, dtype=torch.float64) + 0.5,
    )
    chance_E = torch.sigmoid(logits(truth, examples))
    label_E = (torch.rand(count, generator=g, dtype=torch.float64) < chance_E).to(torch.float64)
    return replace(examples, label_E=label_E), truth


def test_gives_one_logit_per_candidate() -> None:
    rows, cross, _ = candidate_batch(6, 9)
    assert model()(request_batch(6), item_batch(), rows, cross).shape == (6, 9, 1)


def test_every_parameter_gets_a_gradient() -> None:
    glmix = model()
    rows, cross, labels = candidate_batch(6, 9)
    logit = glmix(request_batch(6), item_batch(), rows, cross)
    binary_loss(logit, labels[..., :1], torch.ones_like(rows, dtype=torch.bool)).sum().backward()  # type: ignore[no-untyped-call]
    assert_every_parameter_learns(glmix)


def test_an_effect_is_one_users_or_one_items() -> None:
    glmix, request, (rows, cross, _) = model().eval(), request_batch(4), candidate_batch(4, 9)
    before = glmix(request, item_batch(), rows, cross)
    with torch.no_grad():
        glmix.user_effect_MF[1, 0] += 1.0
        glmix.item_effect_MF[1 + int(rows[0, 0]), 0] += 2.0
    moved = (glmix(request, item_batch(), rows, cross) - before)[..., 0]
    expected = (request["gender"] == 1).unsqueeze(1) * 1.0 + (rows == rows[0, 0]) * 2.0
    torch.testing.assert_close(moved, expected)


def test_the_model_and_the_fit_add_up_the_same_effects() -> None:
    glmix, request, item, (rows, cross, _) = model(), request_batch(4), item_batch(), candidate_batch(4, 9)
    item_EX = torch.cat([glmix.item_numbers(item)[rows], cross], dim=-1).flatten(0, 1)
    examples = Examples(
        user_EU=glmix.request_numbers(request).repeat_interleave(9, 0).double(),
        item_EX=item_EX.double(),
        user_row_E=request["gender"].repeat_interleave(9),
        item_row_E=item["item_id"][rows].flatten(),
        label_E=torch.zeros(36, dtype=torch.float64),
        weight_E=torch.ones(36, dtype=torch.float64),
    )
    with torch.no_grad():
        expected = glmix(request, item, rows, cross).flatten().double()
        torch.testing.assert_close(logits(coefficients_of(glmix), examples), expected, rtol=1e-5, atol=1e-5)
        coefficients = fit_glmix(coefficients_of(glmix), examples, FIT)[0]
        put(glmix, coefficients)
        expected = glmix(request, item, rows, cross).flatten().double()
    torch.testing.assert_close(logits(coefficients, examples), expected, rtol=1e-5, atol=1e-5)


def test_what_indicators_are_of_unknown_values() -> None:
    glmix = model()
    numbers = glmix.item_numbers(
        {"title_tokens": torch.tensor([[2, 2, 29], [0, 0, 0]]), "sales": torch.ones(2)}
    )
    assert numbers.shape == (2, 30)
    assert numbers[0].nonzero().flatten().tolist() == [1, 28, 29]
    assert numbers[1].nonzero().flatten().tolist() == [29]


def test_known_effects_are_found_again() -> None:
    examples, truth = drawn(30_000)
    fitted, _ = fit_glmix(zeros(), examples, FIT)
    for part in RANDOM:
        # What all users have in common is the fixed effect's.
        found, expected = (each.table(part)[1:, 1:] for each in (fitted, truth))
        apart = [(each - each.mean(dim=0)).flatten() for each in (found, expected)]
        assert float(torch.corrcoef(torch.stack(apart))[0, 1]) > 0.9
    both = torch.stack([logits(fitted, examples), logits(truth, examples)])
    assert float(torch.corrcoef(both)[0, 1]) > 0.97


@pytest.mark.parametrize("spread", [0.1, 5.0])
def test_no_coordinate_step_raises_the_loss(spread: float) -> None:
    examples, _ = drawn(3_000, spread=spread)
    _, report = fit_glmix(zeros(), examples, FIT)
    assert len(report.losses) == 1 + 3 * FIT.rounds
    for before, after in zip(report.losses, report.losses[1:], strict=False):
        assert after <= before * (1 + 1e-12)


def test_one_user_alone_is_scikit_learns_logistic_regression() -> None:
    examples, _ = drawn(400)
    problem = RidgeProblems(
        row_E=torch.ones(400, dtype=torch.int64),
        number_EF=examples.item_EX,
        label_E=examples.label_E,
        weight_E=examples.weight_E,
        offset_E=torch.zeros(400, dtype=torch.float64),
        l2=2.0,
    )
    table, _ = fit_table(torch.zeros(2, WIDTH, dtype=torch.float64), problem, 30, 1e-9)
    peer = LogisticRegression(C=1 / 2.0, fit_intercept=False, tol=1e-10, max_iter=1_000)
    peer.fit(examples.item_EX.numpy(), examples.label_E.numpy(), sample_weight=examples.weight_E.numpy())
    np.testing.assert_allclose(table[1].numpy(), peer.coef_[0], rtol=1e-5, atol=1e-7)
    assert not table[0].any(), "row 0 is of nobody"


def test_users_together_are_as_each_alone() -> None:
    examples, _ = drawn(900)
    sharp = replace(FIT, tolerance=1e-8, newton_steps=30)
    together, _ = fit_part(zeros(), examples, sharp, "user")
    for user in (1, 7, 30):
        own, _ = fit_part(zeros(), examples[examples.user_row_E == user], sharp, "user")
        torch.testing.assert_close(own.user_MF[user], together.user_MF[user])


def test_whoever_has_no_examples_has_no_effect() -> None:
    examples, _ = drawn(900)
    examples = replace(examples, user_row_E=torch.where(examples.user_row_E < 5, 0, examples.user_row_E))
    fitted, _ = fit_glmix(zeros(), examples, FIT)
    assert not fitted.user_MF[:5].any()
    assert fitted.user_MF[5:].any(dim=1).all()


def test_a_warm_start_comes_to_the_same_in_fewer_steps() -> None:
    examples, _ = drawn(3_000)
    sharp = replace(FIT, rounds=12, tolerance=1e-6, newton_steps=20)
    before, _ = fit_glmix(zeros(), examples[:2_800], sharp)
    warm, quick = fit_glmix(before, examples, sharp, parts=RANDOM)
    cold, slow = fit_glmix(zeros().replaced("fixed", before.fixed), examples, sharp, parts=RANDOM)
    assert quick.newton_steps < slow.newton_steps
    torch.testing.assert_close(warm.user_MF, cold.user_MF, rtol=1e-2, atol=1e-2)
    torch.testing.assert_close(warm.fixed["bias"], before.fixed["bias"], rtol=0, atol=0)


def test_strengths_suit_what_is_held_out() -> None:
    tried = replace(FIT, tried=(0.3, 300.0))
    for spread, expected in ((2.0, 0.3), (0.0, 300.0)):
        examples, _ = drawn(6_000, spread=spread)
        found = chosen(zeros(), examples[:4_500], examples[4_500:], tried)
        assert (found.user_l2, found.item_l2) == (expected, expected)


def test_effects_foretell_more_than_the_fixed_effect() -> None:
    examples, _ = drawn(9_000)
    fitted, _ = fit_glmix(zeros(), examples[:7_000], FIT)
    alone, _ = fit_part(zeros(), examples[:7_000], FIT, "fixed")
    every, fixed = figures_of(fitted, examples[7_000:]), figures_of(alone, examples[7_000:])
    assert every.auc > fixed.auc + 0.1
    assert every.log_loss < fixed.log_loss - 0.1


def test_recipes_and_settings_that_cannot_be_are_refused() -> None:
    recipe = RECIPES["movielens_glmix"]
    reading = replace(recipe.features, ranking=(*recipe.features.ranking, HistoryItems(name="h", max_len=3)))
    with pytest.raises(ValueError, match="reads no histories"):
        replace(recipe, features=reading)
    with pytest.raises(ValueError, match="a glmix ranks alone"):
        replace(RECIPES["movielens"], glmix=recipe.glmix)
    with pytest.raises(ValueError, match="above 0"):
        GLMixFit(user_l2=0.0)
    with pytest.raises(ValueError, match="'age', whose random effects"):
        GLMix(GLMixConfig(user="age", item="item_id"), model_inputs(history=False))
