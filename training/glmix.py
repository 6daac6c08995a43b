"""Fits a GLMix by coordinates: the fixed effect, every user's and every item's, each beside the others.

Zhang et al., KDD 2016, section 4: while one effect is fitted, the scores of the others are offsets. The fixed
effect is a logistic regression by L-BFGS. The random effects are thousands of small ones, which Newton's
method solves together. Every step lowers the one loss, the weighted log loss with an L2 penalty for each
effect, so that the order of steps and where they begin decide how long it takes, not what comes of it.

Legend: E = examples, U = numbers of a user, I = of an item, X = of an item and cross features, M = rows of a
table, F = coefficients of one user or item.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from training.grouped_logistic import RidgeProblems, fit_table, weighted_log_loss
from training.models.glmix import GLMix

Part = Literal["fixed", "user", "item"]
PARTS: tuple[Part, ...] = ("fixed", "user", "item")
RANDOM: tuple[Part, ...] = ("user", "item")


@dataclass(frozen=True, slots=True, kw_only=True)
class GLMixFit:
    """How to fit, and how strongly coefficients are drawn to zero: one over the variance of a prior."""

    fixed_l2: float = 10.0
    user_l2: float = 10.0
    item_l2: float = 10.0
    choose: bool = True
    """Whether the three are chosen on labels held out, each of `tried`, and else taken as they are."""
    tried: tuple[float, ...] = (3.0, 10.0, 30.0, 100.0, 300.0)
    rounds: int = 2
    """How often each effect is fitted beside the others."""
    newton_steps: int = 12
    lbfgs_steps: int = 60
    tolerance: float = 1e-2
    """The largest slope at which a random effect counts as fitted."""

    def __post_init__(self) -> None:
        if min(self.fixed_l2, self.user_l2, self.item_l2, *self.tried) <= 0:
            raise ValueError("fixed_l2, user_l2, item_l2 and tried must be above 0")
        if not self.tried or min(self.rounds, self.newton_steps, self.lbfgs_steps) < 1:
            raise ValueError("tried must hold something, and rounds and steps must be at least 1")

    def l2(self, part: Part) -> float:
        """Return the strength of an effect."""
        return {"fixed": self.fixed_l2, "user": self.user_l2, "item": self.item_l2}[part]

    def with_l2(self, part: Part, value: float) -> "GLMixFit":
        """Return the same with another strength of one effect."""
        match part:
            case "fixed":
                return replace(self, fixed_l2=value)
            case "user":
                return replace(self, user_l2=value)
            case "item":
                return replace(self, item_l2=value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Examples:
    """Labelled pairs of a user and an item, as float64 numbers; row 0 of a table is of nobody."""

    user_EU: Tensor
    item_EX: Tensor
    """What the item is like, then the cross features."""
    user_row_E: Tensor
    item_row_E: Tensor
    label_E: Tensor
    """0 or 1."""
    weight_E: Tensor

    def __len__(self) -> int:
        return len(self.label_E)

    def __getitem__(self, rows: Tensor | slice) -> "Examples":
        return Examples(
            user_EU=self.user_EU[rows],
            item_EX=self.item_EX[rows],
            user_row_E=self.user_row_E[rows],
            item_row_E=self.item_row_E[rows],
            label_E=self.label_E[rows],
            weight_E=self.weight_E[rows],
        )


@dataclass(frozen=True, slots=True)
class Coefficients:
    """The coefficients of a GLMix in float64: those of the fixed effect by name, the others as tables."""

    fixed: dict[str, Tensor]
    user_MF: Tensor
    item_MF: Tensor

    def table(self, part: Part) -> Tensor:
        """Return the table [M, F] of a random effect."""
        return self.user_MF if part == "user" else self.item_MF

    def replaced(self, part: Part, value: Tensor | dict[str, Tensor]) -> "Coefficients":
        """Return the same with another value of one effect."""
        if isinstance(value, dict):
            assert part == "fixed"
            return replace(self, fixed=value)
        return replace(self, user_MF=value) if part == "user" else replace(self, item_MF=value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What fitting did: the loss after each coordinate step, and the Newton steps that it took."""

    losses: tuple[float, ...]
    newton_steps: int


def coefficients_of(model: GLMix) -> Coefficients:
    """Return a copy of the model's coefficients."""
    own = {name: value.detach().to(torch.float64, copy=True) for name, value in model.named_parameters()}
    user_MF, item_MF = own.pop("user_effect_MF"), own.pop("item_effect_MF")
    return Coefficients(own, user_MF, item_MF)


def put(model: GLMix, coefficients: Coefficients) -> None:
    """Give the model these coefficients."""
    tables = {"user_effect_MF": coefficients.user_MF, "item_effect_MF": coefficients.item_MF}
    with torch.no_grad():
        for name, value in (coefficients.fixed | tables).items():
            model.get_parameter(name).copy_(value)


def fit_glmix(
    start: Coefficients,
    examples: Examples,
    config: GLMixFit,
    *,
    parts: tuple[Part, ...] = PARTS,
    on_step: Callable[[], None] = lambda: None,
) -> tuple[Coefficients, Report]:
    """Return the coefficients after `rounds` of fitting these parts in turn, beginning with `start`.

    What begins near the end takes fewer steps to it (warm start).
    """
    fitted, losses, steps = start, [total_loss(start, examples, config)], 0
    for _ in range(config.rounds):
        for part in parts:
            fitted, taken = fit_part(fitted, examples, config, part)
            steps += taken
            losses.append(total_loss(fitted, examples, config))
            on_step()
    return fitted, Report(losses=tuple(losses), newton_steps=steps)


def fit_part(
    start: Coefficients, examples: Examples, config: GLMixFit, part: Part
) -> tuple[Coefficients, int]:
    """Return the coefficients with one effect fitted beside the others, and the Newton steps it took."""
    others = [_score(start, examples, other) for other in PARTS if other != part]
    offset_E = torch.stack(others).sum(dim=0)
    if part == "fixed":
        return start.replaced(part, _fit_fixed(start.fixed, examples, offset_E, config)), 0
    problem = RidgeProblems(
        row_E=examples.user_row_E if part == "user" else examples.item_row_E,
        number_EF=_with_one(examples.item_EX if part == "user" else examples.user_EU),
        label_E=examples.label_E,
        weight_E=examples.weight_E,
        offset_E=offset_E,
        l2=config.l2(part),
    )
    table_MF, steps = fit_table(start.table(part), problem, config.newton_steps, config.tolerance)
    return start.replaced(part, table_MF), steps


def logits(coefficients: Coefficients, examples: Examples, parts: tuple[Part, ...] = PARTS) -> Tensor:
    """Return the logit of each example [E], the sum of these effects."""
    return torch.stack([_score(coefficients, examples, part) for part in parts]).sum(dim=0)


def total_loss(coefficients: Coefficients, examples: Examples, config: GLMixFit) -> float:
    """Return what fitting lowers: the weighted sum of log losses and half the penalties."""
    loss = weighted_log_loss(logits(coefficients, examples), examples.label_E, examples.weight_E).sum()
    loss = loss + _fixed_penalty(coefficients.fixed, config.fixed_l2)
    for part in RANDOM:
        loss = loss + 0.5 * config.l2(part) * coefficients.table(part).square().sum()
    return float(loss)


def _score(coefficients: Coefficients, examples: Examples, part: Part) -> Tensor:
    if part == "fixed":
        return _fixed_score(coefficients.fixed, examples)
    rows_E = examples.user_row_E if part == "user" else examples.item_row_E
    number_EF = examples.item_EX if part == "user" else examples.user_EU
    effect_EF = coefficients.table(part)[rows_E]
    return effect_EF[:, 0] + (effect_EF[:, 1:] * number_EF).sum(dim=1)


def _fixed_score(fixed: dict[str, Tensor], examples: Examples) -> Tensor:
    pair_UI = fixed["pair_weight_UI"]
    alone_X = torch.cat([fixed["item_weight_I"], fixed["cross_weight_K"]])
    item_EI = examples.item_EX[:, : pair_UI.shape[1]]
    paired_E = ((examples.user_EU @ pair_UI) * item_EI).sum(dim=1)
    return fixed["bias"] + examples.user_EU @ fixed["user_weight_U"] + examples.item_EX @ alone_X + paired_E


def _fixed_penalty(fixed: dict[str, Tensor], l2: float) -> Tensor:
    """Return the penalty of all but the bias."""
    squares = [value.square().sum() for name, value in fixed.items() if name != "bias"]
    return 0.5 * l2 * torch.stack(squares).sum()


def _fit_fixed(
    start: dict[str, Tensor], examples: Examples, offset_E: Tensor, config: GLMixFit
) -> dict[str, Tensor]:
    """Return the fixed effect by L-BFGS, or as it was where that finds nothing lower."""
    own = {name: value.clone().requires_grad_(True) for name, value in start.items()}

    def loss() -> Tensor:
        logit_E = _fixed_score(own, examples) + offset_E
        found = weighted_log_loss(logit_E, examples.label_E, examples.weight_E).sum()
        return found + _fixed_penalty(own, config.fixed_l2)

    optimizer = torch.optim.LBFGS(
        [value for value in own.values() if value.numel()],
        max_iter=config.lbfgs_steps,
        tolerance_grad=config.tolerance,
        line_search_fn="strong_wolfe",
    )

    def step() -> Tensor:
        optimizer.zero_grad()
        found = loss()
        found.backward()  # type: ignore[no-untyped-call]
        return found

    before = loss().item()
    optimizer.step(step)  # type: ignore[no-untyped-call]
    after = loss().item()
    return {name: value.detach() for name, value in own.items()} if after <= before else start


def _with_one(number_EF: Tensor) -> Tensor:
    return torch.cat([torch.ones(len(number_EF), 1, dtype=number_EF.dtype), number_EF], dim=1)
