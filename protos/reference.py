"""The contract as pages of Markdown: every service, method, message and field with its comment.

The documentation site is built with it; `docs/site/hooks.py`.
"""

import tempfile
from collections.abc import Iterator, Mapping
from importlib.resources import files
from pathlib import Path

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
    ServiceDescriptorProto,
)
from grpc_tools import protoc

from protos.generate import ROOT

_PACKAGE = ".headrace.v1."
# Numbers of fields in descriptor.proto, of which the paths of comments are made.
_MESSAGE, _ENUM, _SERVICE = 4, 5, 6
_FIELD, _NESTED, _METHOD, _VALUE = 2, 3, 2, 2
_SYNTAX = 12

_SCALARS = {number: name.removeprefix("TYPE_").lower() for name, number in FieldDescriptorProto.Type.items()}

Comments = Mapping[tuple[int, ...], str]


def pages() -> dict[str, str]:
    """Return the text of each page by its file name: one for each proto, and an index.

    Raises `RuntimeError` when protoc refuses a file.
    """
    protos = [file for file in _described().file if file.package == _PACKAGE.strip(".")]
    homes = {
        f"{_PACKAGE}{name}": _page_of(file)
        for file in protos
        for name in (*(m.name for m in file.message_type), *(e.name for e in file.enum_type))
    }
    return {"index.md": _index(protos)} | {_page_of(file): _Page(file, homes).text() for file in protos}


def _described() -> FileDescriptorSet:
    names = sorted(str(path) for path in ROOT.glob("headrace/**/*.proto"))
    include = str(files("grpc_tools") / "_proto")
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "contract"
        options = [f"-I{ROOT}", f"-I{include}", "--include_source_info", f"--descriptor_set_out={out}"]
        if protoc.main(["protoc", *options, *names]) != 0:
            raise RuntimeError("protoc refused the contract; its message is above")
        return FileDescriptorSet.FromString(out.read_bytes())


def _page_of(file: FileDescriptorProto) -> str:
    return f"{Path(file.name).stem}.md"


def _index(protos: list[FileDescriptorProto]) -> str:
    lines = ["# API reference", "", "The contract, `headrace.v1`, from its `.proto` files.", ""]
    lines += ["| service | method | |", "| --- | --- | --- |"]
    for file in protos:
        comments = _comments(file)
        for i, service in enumerate(file.service):
            for k, method in enumerate(service.method):
                link = f"[{service.name}]({_page_of(file)})"
                said = _cell(comments.get((_SERVICE, i, _METHOD, k), ""))
                lines.append(f"| {link} | `{method.name}` | {said} |")
    lines += ["", "Messages that several services share are in [types](types.md)."]
    return "\n".join(lines) + "\n"


def _comments(file: FileDescriptorProto) -> Comments:
    return {
        tuple(each.path): (each.leading_detached_comments or [each.leading_comments])[0].strip()
        if each.path == [_SYNTAX]
        else each.leading_comments.strip()
        for each in file.source_code_info.location
    }


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


class _Page:
    """The page of one proto; `homes` has the page of each message and enum by its full name."""

    def __init__(self, file: FileDescriptorProto, homes: Mapping[str, str]) -> None:
        self._file = file
        self._homes = homes
        self._comments = _comments(file)

    def text(self) -> str:
        """Return the page."""
        title = self._file.service[0].name if self._file.service else Path(self._file.name).stem
        parts = [f"# {title}", f"`{self._file.name}`", self._said((_SYNTAX,))]
        for i, service in enumerate(self._file.service):
            parts += self._service(service, (_SERVICE, i))
        for i, message in enumerate(self._file.message_type):
            parts += self._message(message, (_MESSAGE, i))
        for i, enum in enumerate(self._file.enum_type):
            parts += self._enum(enum, (_ENUM, i))
        return "\n\n".join(part for part in parts if part) + "\n"

    def _said(self, path: tuple[int, ...]) -> str:
        return self._comments.get(path, "").replace("<", "&lt;")

    def _service(self, service: ServiceDescriptorProto, path: tuple[int, ...]) -> Iterator[str]:
        yield self._said(path)
        for k, method in enumerate(service.method):
            yield f"## {method.name}"
            asked, answered = (self._link(name) for name in (method.input_type, method.output_type))
            stream = "a stream of " if method.server_streaming else ""
            yield f"`/{self._file.package}.{service.name}/{method.name}`: {asked} to {stream}{answered}"
            yield self._said((*path, _METHOD, k))

    def _message(self, message: DescriptorProto, path: tuple[int, ...]) -> Iterator[str]:
        yield f"## {message.name}"
        yield self._said(path)
        if message.field:
            rows = ["| field | type | number | |", "| --- | --- | --- | --- |"]
            for k, field in enumerate(message.field):
                said = _cell(self._comments.get((*path, _FIELD, k), ""))
                rows.append(f"| `{field.name}` | {self._type(field, message)} | {field.number} | {said} |")
            yield "\n".join(rows)

    def _enum(self, enum: EnumDescriptorProto, path: tuple[int, ...]) -> Iterator[str]:
        yield f"## {enum.name}"
        yield self._said(path)
        rows = ["| value | number | |", "| --- | --- | --- |"]
        for k, value in enumerate(enum.value):
            said = _cell(self._comments.get((*path, _VALUE, k), ""))
            rows.append(f"| `{value.name}` | {value.number} | {said} |")
        yield "\n".join(rows)

    def _type(self, field: FieldDescriptorProto, message: DescriptorProto) -> str:
        entry = next(
            (
                m
                for m in message.nested_type
                if m.options.map_entry and field.type_name.endswith(f".{m.name}")
            ),
            None,
        )
        if entry is not None:
            key, value = (self._type(each, message) for each in entry.field)
            return f"map of {key} to {value}"
        named = self._link(field.type_name) if field.type_name else f"`{_SCALARS[field.type]}`"
        if field.label == FieldDescriptorProto.LABEL_REPEATED:
            return f"repeated {named}"
        if field.proto3_optional:
            return f"optional {named}"
        return f"one of `{message.oneof_decl[field.oneof_index].name}`: {named}" if _chosen(field) else named

    def _link(self, full_name: str) -> str:
        name = full_name.rpartition(".")[2]
        home = self._homes.get(full_name)
        if home is None:
            return f"`{full_name.removeprefix('.')}`"
        return f"[{name}]({'' if home == _page_of(self._file) else home}#{name.lower()})"


def _chosen(field: FieldDescriptorProto) -> bool:
    return field.HasField("oneof_index") and not field.proto3_optional
