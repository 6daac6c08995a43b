"""Every command in the documents is one that there is, every program finds its imports; none is run."""

import ast
import importlib
import json
import re
import tomllib

import pytest

from deploy.settings import PROJECT_ROOT
from tests.docs.command_line import problem_of
from tests.docs.documents import Block, blocks, commands, mentions

TARGETS = set(re.findall(r"^([a-z][a-z-]*):", (PROJECT_ROOT / "Makefile").read_text(), flags=re.MULTILINE))


@pytest.mark.parametrize(("at", "arguments"), commands("headrace"), ids=lambda value: str(value))
def test_every_headrace_command_is_taken(at: str, arguments: list[str]) -> None:
    assert not problem_of(arguments), at


@pytest.mark.parametrize(("at", "arguments"), commands("make"), ids=lambda value: str(value))
def test_every_make_target_exists(at: str, arguments: list[str]) -> None:
    targets = {word for word in arguments if "=" not in word and not word.startswith("-")}
    assert targets <= TARGETS, at


def test_what_prose_names_exists_too() -> None:
    for name, text in mentions():
        program, *words = text.split()
        plain = [word for word in words if re.fullmatch("[a-z][a-z-]*", word)]
        if program == "make":
            # `make bench-…` stands for several.
            assert not plain or plain[0] in TARGETS, f"{name}: {text}"
        elif plain and plain[0] == words[0]:
            wrong = problem_of([plain[0], "--help"])
            assert not wrong, f"{name}: {text}: {wrong}"


@pytest.mark.parametrize("block", blocks("python"), ids=lambda block: block.at)
def test_every_program_compiles_and_finds_its_imports(block: Block) -> None:
    compile(block.text, block.at, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    for node in ast.walk(ast.parse(block.text)):
        if isinstance(node, ast.ImportFrom):
            assert node.module
            module = importlib.import_module(node.module)
            missing = [alias.name for alias in node.names if not hasattr(module, alias.name)]
            assert not missing, f"{block.at}: {node.module} has no {missing}"
        if isinstance(node, ast.Import):
            for alias in node.names:
                importlib.import_module(alias.name)


@pytest.mark.parametrize("block", blocks("json", "toml"), ids=lambda block: block.at)
def test_every_settings_file_is_one(block: Block) -> None:
    assert json.loads(block.text) if block.language == "json" else tomllib.loads(block.text)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["status", "--nonsense"], "No such option"),
        (["shards", "nonsense"], "no command"),
        (["nonsense"], "no command"),
        (["shards"], "another word"),
        (["scale"], "Missing option"),
        (["scale", "--shards", "many"], "valid integer"),
        (["models", "show"], "Missing argument"),
        (["up", "--shards", "2"], ""),
    ],
)
def test_the_check_finds_what_is_wrong(arguments: list[str], problem: str) -> None:
    found = problem_of(arguments)
    assert (problem in found) if problem else not found
