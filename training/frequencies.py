"""How often items come up in batches, estimated while they stream by.

Yi et al., "Sampling-Bias-Corrected Neural Modeling for Large Corpus Item Recommendations" (RecSys 2019,
algorithm 2): the mean number of steps between two batches that hold an item is one over its chance to be in
one. It needs no count of the log beforehand, and follows items that come into fashion. Rows of a catalogue
are dense, so that nothing has to be hashed.

Legend: N = items, B = positives of a batch, M = items.
"""

import torch
from torch import Tensor, nn


class StreamingFrequency(nn.Module):
    """Estimates each item's chance to be in a batch; its buffers go into checkpoints with the model."""

    step: Tensor
    last_N: Tensor
    gap_N: Tensor
    met_N: Tensor

    def __init__(self, items: int, *, rate: float = 0.05) -> None:
        """Know nothing of so many items; a new gap moves an estimate by `rate`."""
        super().__init__()
        if not 0 < rate <= 1:
            raise ValueError(f"rate must be a share above 0, not {rate}")
        self.rate = rate
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))
        self.register_buffer("last_N", torch.zeros(items, dtype=torch.int64))
        self.register_buffer("gap_N", torch.zeros(items, dtype=torch.float64))
        self.register_buffer("met_N", torch.zeros(items, dtype=torch.int64))

    @torch.no_grad()
    def observe(self, row_B: Tensor) -> None:
        """Take note of a batch's positives [B]."""
        self.step += 1
        row_M = torch.unique(row_B)
        gap_M = (self.step - self.last_N[row_M]).to(torch.float64)
        self.gap_N[row_M] = (1 - self.rate) * self.gap_N[row_M] + self.rate * gap_M
        self.last_N[row_M] = self.step
        self.met_N[row_M] += 1

    def chance(self, row_M: Tensor) -> Tensor:
        """Return the chance [M] that a batch holds each item; one never met is due at the next step."""
        # The mean starts at 0, which the first gaps have to make up for (as in Adam).
        seen_M = 1 - (1 - self.rate) ** self.met_N[row_M].to(torch.float64)
        gap_M = self.gap_N[row_M] / seen_M.clamp(min=self.rate)
        unmet_M = self.met_N[row_M] == 0
        return 1.0 / torch.where(unmet_M, (self.step + 1).to(torch.float64), gap_M.clamp(min=1.0))
