"""A torch.export program as what computing it needs: generated source code, and tensors.

Reading an exported program is a second of Python work for what is a page of code in the end, and it leaves
rings of thousands of objects behind. `prepare_program` does it, in whatever process; `PreparedProgram.bind`
is all that a process which serves does, and takes a millisecond.
"""

import functools
import linecache
import operator
import re
import threading
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.fx.graph_module import _format_import_block
from torch.package.importer import sys_importer

_READING = threading.Lock()
"""Torch reads one program at a time: its deserialiser is a global."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Code:
    """The source of one graph's `forward`, called `name` by the code at `owner`; the first is the program."""

    owner: int
    name: str
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredTensor:
    """A weight or constant, known as `name` to the code at `owner`: a view of the storage at `storage`."""

    owner: int
    name: str
    dtype: str
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int
    storage: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A program but for its numbers: what can be sent as JSON."""

    codes: tuple[Code, ...]
    tensors: tuple[StoredTensor, ...]
    storage_bytes: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedProgram:
    """A program that is ready to be bound; `storages` are flat bytes in the order of the plan."""

    plan: Plan
    storages: tuple[torch.Tensor, ...]

    def bind(self, device: torch.device) -> Callable[..., Any]:
        """Return the program as a function of tensors by name, with its weights on `device`."""
        plan = self.plan
        owners = [types.SimpleNamespace() for _ in plan.codes]
        stored = [storage.to(device).untyped_storage() for storage in self.storages]
        for tensor in plan.tensors:
            empty = torch.empty(0, dtype=getattr(torch, tensor.dtype), device=device)
            view = empty.set_(stored[tensor.storage], tensor.offset, tensor.shape, tensor.stride)
            _put(owners[tensor.owner], tensor.name, view)
        forwards = [
            functools.partial(_function(code.source), owner)
            for code, owner in zip(plan.codes, owners, strict=True)
        ]
        for code, forward in zip(plan.codes[1:], forwards[1:], strict=True):
            _put(owners[code.owner], code.name, forward)
        return forwards[0]


ProgramReader = Callable[[Path, str], PreparedProgram]
"""`prepare_program`, here or in a process that does it for this one."""


def prepare_program(path: Path, device: str = "cpu") -> PreparedProgram:
    """Read the program in a file; ValueError where torch cannot, or where it holds more than tensors.

    `device` is where it will be computed: code that makes tensors makes them there.
    """
    with _READING:
        try:
            exported = torch.export.load(path)
            # The manifest tells what it takes, which the runner checks.
            module = exported.module(check_guards=False)
        except Exception as error:  # Torch raises whatever its readers met.
            raise ValueError(str(error) or repr(error)) from error
        parts = _Parts(device=device)
        parts.add(module, owner=0, name="")
        _forget_sources()
    return parts.prepared()


@dataclass(slots=True, kw_only=True)
class _Parts:
    """What was found of a program so far."""

    device: str
    codes: list[Code] = field(default_factory=list)
    tensors: list[StoredTensor] = field(default_factory=list)
    storages: dict[int, torch.UntypedStorage] = field(default_factory=dict)
    """By address: tensors that shared one share it again."""

    def add(self, module: torch.fx.GraphModule, owner: int, name: str) -> None:
        """Add a graph and, below it, all that its code names."""
        index = len(self.codes)
        self.codes.append(Code(owner=owner, name=name, source=_source(module.graph, self.device)))
        targets = {str(node.target) for node in module.graph.nodes if node.op in ("get_attr", "call_module")}
        for target in sorted(targets):
            part = operator.attrgetter(target)(module)
            if isinstance(part, torch.fx.GraphModule):
                self.add(part, index, target)
            elif isinstance(part, torch.Tensor):
                self._add_tensor(part, index, target)
            else:
                raise ValueError(f"{target} is a {type(part).__name__}, neither tensor nor graph")

    def _add_tensor(self, tensor: torch.Tensor, owner: int, name: str) -> None:
        storage = tensor.detach().cpu().untyped_storage()
        self.storages.setdefault(storage.data_ptr(), storage)
        self.tensors.append(
            StoredTensor(
                owner=owner,
                name=name,
                dtype=str(tensor.dtype).removeprefix("torch."),
                shape=tuple(tensor.shape),
                stride=tensor.stride(),
                offset=int(tensor.storage_offset()),
                storage=list(self.storages).index(storage.data_ptr()),
            )
        )

    def prepared(self) -> PreparedProgram:
        """Return it all."""
        storages = tuple(
            torch.empty(0, dtype=torch.uint8).set_(storage) for storage in self.storages.values()
        )
        sizes = tuple(len(storage) for storage in storages)
        plan = Plan(codes=tuple(self.codes), tensors=tuple(self.tensors), storage_bytes=sizes)
        return PreparedProgram(plan=plan, storages=storages)


def _source(graph: torch.fx.Graph, device: str) -> str:
    """Return a module that defines the graph's `forward(self, …)`: plain arguments in, a tuple out."""
    for node in graph.nodes:
        # As torch's move_to_device_pass does, which would also move the weights, and in this process.
        if "device" in node.kwargs:
            node.kwargs = {**node.kwargs, "device": torch.device(device)}
        if node.target is torch.ops.aten.to.device:
            node.args = (node.args[0], torch.device(device), *node.args[2:])
    graph.set_codegen(torch.fx.graph.CodeGen())
    code = graph.python_code(root_module="self")
    return _format_import_block(_used(code.globals, code.src), sys_importer) + "\n" + code.src


def _used(names: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Return the names that the source uses: torch offers some that take long to import."""
    words = set(re.findall(r"\w+", source))
    return {name: value for name, value in names.items() if name in words}


def _function(source: str) -> Callable[..., Any]:
    names: dict[str, Any] = {}
    exec(compile(source, "<program>", "exec"), names)
    forward: Callable[..., Any] = names["forward"]
    return forward


def _put(holder: Any, name: str, part: object) -> None:
    """Set `a.b.c` of a holder."""
    *parents, leaf = name.split(".")
    for parent in parents:
        holder.__dict__.setdefault(parent, types.SimpleNamespace())
        holder = getattr(holder, parent)
    setattr(holder, leaf, part)


def _forget_sources() -> None:
    """Drop the texts of generated code, which torch keeps for tracebacks of every program ever loaded."""
    for name in [name for name in linecache.cache if name.startswith("<eval_with_key>")]:
        linecache.cache.pop(name, None)
    loader = getattr(torch.fx.graph_module, "_loader", None)
    if loader is not None:
        loader.eval_cache.clear()
