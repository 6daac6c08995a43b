"""The documents' fenced blocks, and the commands in them."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from deploy.settings import PROJECT_ROOT

DOCUMENTS = sorted(
    path
    for path in (
        *PROJECT_ROOT.glob("*.md"),
        *PROJECT_ROOT.glob("docs/**/*.md"),
        PROJECT_ROOT / "training" / "README.md",
    )
    if path.name != "CHANGELOG.md"
)

_FENCE = re.compile(r"^ *```(\w*)[^\n]*\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"`((?:headrace|make) [^`\n]*)`")
_SETTING = re.compile(r"export|[A-Z_]+=.*")
_SHELLS = {"", "bash", "sh"}
_BEGINNINGS = re.compile(r"\s*(ExecStart=|export |[A-Z_]+=\S+ )*(\S*/)?(headrace|make|pip)\s")


@dataclass(frozen=True)
class Block:
    """A fenced block; `at` is FILE:LINE of its fence."""

    at: str
    language: str
    text: str

    @property
    def name(self) -> str:
        """Return the file it is in."""
        return self.at.partition(":")[0]

    def lines(self) -> list[str]:
        """Return its commands, each on one line, where it is one for a shell."""
        if self.language not in _SHELLS:
            return []
        joined = self.text.replace("\\\n", " ").splitlines()
        return [line.strip() for line in joined if self.language or _BEGINNINGS.match(line)]


def blocks(*languages: str) -> list[Block]:
    """Return the blocks of these languages, of all where none is named, in the order of the documents."""
    return [
        block
        for path in DOCUMENTS
        for block in _blocks_of(path)
        if block.language in languages or not languages
    ]


def _blocks_of(path: Path) -> Iterator[Block]:
    text = path.read_text()
    for found in _FENCE.finditer(text):
        line = text[: found.start()].count("\n") + 1
        yield Block(f"{path.relative_to(PROJECT_ROOT)}:{line}", found[1], found[2])


def commands(program: str) -> list[tuple[str, list[str]]]:
    """Return where each command of the program in a block is, and its arguments."""
    return [
        (block.at, arguments)
        for block in blocks()
        for line in block.lines()
        for arguments in arguments_of(program, line)
    ]


def arguments_of(program: str, line: str) -> Iterator[list[str]]:
    """Yield the arguments of each run of the program on a line of a shell."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;")
    lexer.whitespace_split = True
    words: list[str] = []
    for word in (*lexer, ";"):
        if not word or not set(word) <= set("|&;"):
            words.append(word)
            continue
        start = next((i for i, each in enumerate(words) if not _SETTING.fullmatch(each)), len(words))
        named, *arguments = words[start:] or [""]
        if named.removeprefix("ExecStart=").rpartition("/")[2] == program:
            yield arguments
        words = []


def mentions() -> list[tuple[str, str]]:
    """Return the commands that prose names, which may be shortened, and the files they are in."""
    return [
        (str(path.relative_to(PROJECT_ROOT)), found[1])
        for path in DOCUMENTS
        for found in _INLINE.finditer(_FENCE.sub("", path.read_text()))
    ]
