"""A worker's share of training that several workers do together, each with the whole model and all data.

All draw the same batches from the same seeds. A loss that can be divided by examples computes those of its
worker alone and says how much they weigh; another one computes all of them everywhere. Gradients
are averaged, so every worker's parameters stay equal, and equal to those of one process but for rounding
and for dropout, whose draws differ.

Legend: B = examples of a batch.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.distributed
from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class Share:
    """Which of how many workers this is."""

    rank: int
    workers: int

    @property
    def leads(self) -> bool:
        """Return whether this worker is the one that writes."""
        return self.rank == 0

    def part(self, size: int) -> slice:
        """Return the examples of a batch of so many that are this worker's; all if they are too few."""
        if size < self.workers:
            return slice(0, size)
        return slice(size * self.rank // self.workers, size * (self.rank + 1) // self.workers)

    def weight(self, size: int) -> float:
        """Return what the mean loss of the worker's part counts in the mean over workers."""
        if size < self.workers:
            return 1.0
        part = self.part(size)
        return len(range(size)[part]) * self.workers / size

    def average(self, model: nn.Module, loss: Tensor) -> Tensor:
        """Replace the gradients by their means over all workers, and return the mean loss."""
        if self.workers == 1:
            return loss.detach()
        gradients = list(_gradients(model))
        flat = torch.cat([loss.detach().reshape(1), *(gradient.reshape(-1) for gradient in gradients)])
        torch.distributed.all_reduce(flat)
        flat /= self.workers
        sizes = [gradient.numel() for gradient in gradients]
        for gradient, mean in zip(gradients, torch.split(flat[1:], sizes), strict=True):
            gradient.copy_(mean.view_as(gradient))
        return flat[0]

    def agreed(self, value: float) -> float:
        """Return the first worker's value, by which all decide alike."""
        if self.workers == 1:
            return value
        told = torch.tensor([value], dtype=torch.float64)
        torch.distributed.broadcast(told, src=0)
        return float(told.item())

    def led(self, tensor: Tensor) -> None:
        """Replace a tensor by the first worker's: what is decided by numbers that rounding tells apart."""
        if self.workers > 1:
            torch.distributed.broadcast(tensor, src=0)


WHOLE = Share(0, 1)
"""Of one that computes whole batches."""


def current_share() -> Share:
    """Return this process's share, as torch.distributed has it; all of it where there is no group."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return WHOLE
    return Share(torch.distributed.get_rank(), torch.distributed.get_world_size())


def _gradients(model: nn.Module) -> Iterator[Tensor]:
    """Give a gradient for each parameter: all workers send as many numbers, whatever their part touched."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            yield parameter.grad
