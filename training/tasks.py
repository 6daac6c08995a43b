"""What a ranker predicts of a candidate: any set of tasks, declared in the recipe.

| kind         | label                               | trained by                        | served as      |
| ------------ | ----------------------------------- | --------------------------------- | -------------- |
| `binary`     | happened or not                     | cross-entropy, and listwise       | a probability  |
| `regression` | a number                            | squared error, standardised       | the number     |
| `watch_time` | a number t above 0                  | cross-entropy, the label t/(1+t)  | exp(logit) = t |
| `completion` | a share, or if it reaches `above`   | cross-entropy, the share a label  | p / f(length)  |
"""

from dataclasses import dataclass
from typing import Literal

Kind = Literal["binary", "regression", "watch_time", "completion"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One task, and what its labels are made from.

    `target_only` tasks are about the one item that the query led to. Others are about every item that the
    user acted on in one of `actions` (all of them, if empty) from the query's moment until `window_s` later.
    """

    name: str
    kind: Kind = "binary"
    target_only: bool = False
    actions: tuple[str, ...] = ()
    window_s: int = 0
    value: str = ""
    """The events' column that holds the label; it is undefined where there is no such event or no value."""
    above: float | None = None
    """Where the label is whether `value` is at least so much."""
    given: tuple[str, ...] | None = None
    """Defined only of items on which the user acted so at the query's moment; what comes after it counts."""
    unclosed: Literal["mask", "infer"] = "mask"
    """Labels whose window reaches beyond the moment of training are undefined, or are inferred: what has
    happened counts, what has not yet gets the probability that it still will."""
    weight: float | None = None
    """Of its loss; None: 1 for the first task and `second_task_weight` for others."""
    example_weight: str = ""
    """The events' column by which what happened weighs, relative to its mean: say watch time."""
    negatives: float = 1.0
    """The share of its negatives that training looks at; what is served is calibrated for it exactly."""
    length: str = ""
    """The item column that a completion is adjusted by."""

    def __post_init__(self) -> None:
        problem = self._problem()
        if problem:
            raise ValueError(f"task {self.name!r}: {problem}")

    def _problem(self) -> str:
        if self.kind in ("regression", "watch_time") and (not self.value or self.above is not None):
            return f"{self.kind} needs a value, and no above"
        if self.kind == "completion" and not self.value:
            return "completion needs a value"
        if self.above is not None and not self.value:
            return "above is about a value"
        if self.kind == "binary" and self.value and self.above is None:
            return "binary with a value needs above"
        if self.length and self.kind != "completion":
            return "length is for completion"
        if self.value and self.given is not None:
            return "a value is of what happens at the query's moment; given is for what comes later"
        if self.unclosed == "infer" and (self.given is None or self.negatives < 1):
            return "what is missing yet is inferred of given items alone, and of all of them"
        if not 0 < self.negatives <= 1 or (self.negatives < 1 and self.kind != "binary"):
            return "negatives must be a share above 0, and 1 where the label is a number"
        if self.window_s < 0 or (self.given is not None and not self.window_s):
            return "window_s must be positive"
        return "weight must not be negative" if self.weight is not None and self.weight < 0 else ""

    @property
    def binary(self) -> bool:
        """Return whether the label is a yes or a no."""
        return self.kind == "binary" or self.above is not None

    @property
    def of_all(self) -> bool:
        """Return whether it is a yes or a no that every candidate has."""
        return self.kind == "binary" and not self.value and self.given is None

    def weighed(self, place: int, otherwise: float) -> float:
        """Return the weight of the loss of the task that stands at `place` of the recipe's."""
        if self.weight is not None:
            return self.weight
        return 1.0 if place == 0 else otherwise
