"""From logits to what each task serves: an affine step, then a link by the kind of task.

A binary task trained on a share a of its negatives has odds that are 1/a too high, so the shift log a
makes a q / ((1 - q) + a q) of what would be served as q (He et al., "Practical Lessons from Predicting Clicks
on Ads at Facebook", ADKDD 2014, section 6.3). A regression's step undoes its standard score; watch time is
exp(z), as the odds of t / (1 + t) are t (Covington et al., RecSys 2016, section 4.2). Steps are exported with
the program.

Legend: T = tasks.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from training.tasks import Kind

_LARGEST = 30.0
"""exp(30) is finite in float32."""


class TaskLinks(nn.Module):
    """What turns logits [..., T] into predictions [..., T]."""

    scale_T: Tensor
    shift_T: Tensor

    def __init__(self, kinds: Sequence[Kind], scales: Sequence[float], shifts: Sequence[float]) -> None:
        super().__init__()
        self.kinds = tuple(kinds)
        self.register_buffer("scale_T", torch.tensor(scales, dtype=torch.float32))
        self.register_buffer("shift_T", torch.tensor(shifts, dtype=torch.float32))
        if not len(self.kinds) == len(self.scale_T) == len(self.shift_T):
            raise ValueError("each task needs a scale and a shift")

    def forward(self, logit: Tensor) -> Tensor:
        """Return probabilities, numbers, times or shares [..., T], by the kind of each task."""
        moved = logit * self.scale_T + self.shift_T
        return torch.stack([_link(kind, moved[..., t]) for t, kind in enumerate(self.kinds)], dim=-1)


def _link(kind: Kind, logit: Tensor) -> Tensor:
    if kind == "regression":
        return logit
    if kind == "watch_time":
        return logit.clamp(-_LARGEST, _LARGEST).exp()
    return logit.sigmoid()


def probabilities(tasks: int) -> TaskLinks:
    """Return the links of binary tasks that were trained on all of their negatives."""
    return TaskLinks(["binary"] * tasks, [1.0] * tasks, [0.0] * tasks)
