"""Exports parts of models as programs that a shard calls by keyword.

Legend: B = requests, C = candidates, D = width of a vector, K = cross features, T = tasks.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from shards.manifest import ProgramSpec, TensorSpec
from shards.multi_task import SCORER
from shards.three_tower import INTERACTION, USER_TOWER
from shards.two_tower import ITEM_TOWER, QUERY_TOWER
from training.models.averaged import Averaged
from training.models.glmix import GLMix
from training.models.multi_task_ranker import MultiTaskRanker
from training.models.task_links import TaskLinks
from training.models.three_tower import ThreeTower
from training.onnx_export import faster_onnx
from training.retrieval import Towers
from training.tensors import Tensors

CROSS = "cross"
ITEM = "item"
USER = "user"

_MAX_ROWS = 1 << 20

Body = Callable[[Mapping[str, Tensor]], Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """An exported program, how it is called, and the same for ONNX Runtime where that is faster."""

    name: str
    spec: ProgramSpec
    exported: torch.export.ExportedProgram
    onnx: bytes | None

    def save(self, folder: Path) -> None:
        """Write the program's files into a bundle's folder."""
        torch.export.save(self.exported, folder / self.spec.file)
        if self.onnx is not None:
            (folder / self.spec.onnx_file).write_bytes(self.onnx)


def query_tower(model: Towers, request: Tensors) -> Program:
    """Return the query tower: request features [B, …] to "vector" [B, D]."""
    return _export(QUERY_TOWER, model, model.encode_query, request, tuple(request), output="vector")


def item_tower(model: Towers, item: Tensors) -> Program:
    """Return the item tower: item features [N, …] to "vector" [N, D], for whole catalogues."""
    return _export(ITEM_TOWER, model, model.encode_item, item, tuple(item), output="vector", onnx=False)


def user_tower(model: ThreeTower, request: Tensors) -> Program:
    """Return the user tower: request features [1, …] to "user" [1, D]."""
    return _export(USER_TOWER, model, model.encode_request, request, (), output=USER)


def interaction(model: ThreeTower, user: Tensor, item: Tensor, cross: Tensor) -> Program:
    """Return the head: "user" [1, D], "item" [C, D], "cross" [C, K] to "score" [C], a logit."""

    def body(inputs: Mapping[str, Tensor]) -> Tensor:
        logit_1CT = model.interact(inputs[USER], inputs[ITEM].unsqueeze(0), inputs[CROSS].unsqueeze(0))
        return logit_1CT[0, :, 0]

    example = {USER: user, ITEM: item, CROSS: cross}
    return _export(INTERACTION, model, body, example, (ITEM, CROSS), output="score")


def scorer(
    model: MultiTaskRanker | Averaged | GLMix, links: TaskLinks, request: Tensors, item: Tensor, cross: Tensor
) -> Program:
    """Return the ranker: request [1, …], "item" [C, D], "cross" [C, K] to predictions [C, T].

    They are called "probabilities", as most are.
    """

    def body(inputs: Mapping[str, Tensor]) -> Tensor:
        request_1 = {name: inputs[name] for name in request}
        logit_1CT = model.score(request_1, inputs[ITEM].unsqueeze(0), inputs[CROSS].unsqueeze(0))
        return links(logit_1CT).squeeze(0)  # type: ignore[no-any-return]

    example = {**request, ITEM: item, CROSS: cross}
    return _export(
        SCORER, nn.ModuleList([model, links]), body, example, (ITEM, CROSS), output="probabilities"
    )


class _Keywords(nn.Module):
    """A part of a model called by keyword; torch.export reads the names from the signature of `forward`."""

    def __init__(self, model: nn.Module, body: Body, names: Sequence[str]) -> None:
        super().__init__()
        self.model = model

        def forward(**inputs: Tensor) -> Tensor:
            return body(inputs)

        parameters = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY) for name in names]
        forward.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        self.forward = forward


def _export(
    name: str,
    model: nn.Module,
    body: Body,
    example: Tensors,
    varying: Sequence[str],
    *,
    output: str,
    onnx: bool = True,
) -> Program:
    """Return `body` exported with the first dimension of the `varying` inputs dynamic.

    `onnx` says whether ONNX Runtime may be faster: it is where a call is about one search.
    """
    rows = torch.export.Dim("rows", min=1, max=_MAX_ROWS)
    with torch.no_grad():
        exported = torch.export.export(
            _Keywords(model, body, tuple(example)).eval(),
            (),
            example,
            dynamic_shapes={part: {0: rows} if part in varying else {} for part in example},
        )
    document = faster_onnx(exported, example, varying) if onnx else None
    spec = ProgramSpec(
        file=f"{name}.pt2",
        inputs=tuple(_tensor_spec(part, value, part in varying) for part, value in example.items()),
        outputs=(output,),
        onnx_file="" if document is None else f"{name}.onnx",
    )
    return Program(name=name, spec=spec, exported=exported, onnx=document)


def _tensor_spec(name: str, value: Tensor, varying: bool) -> TensorSpec:
    shape = (None, *value.shape[1:]) if varying else tuple(value.shape)
    return TensorSpec(name=name, dtype=str(value.dtype).removeprefix("torch."), shape=shape)
