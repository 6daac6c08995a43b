"""The documentation is built whole, leads nowhere wrong, and asks nobody else for anything."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.settings import PROJECT_ROOT
from protos import generate, reference

_ASKED_FOR = re.compile(
    r"""(?:<(?:script|link|img)[^>]*?(?:src|href)=|@import\s*|url\()["']?(?:https?:)?//[^"')>]+"""
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("site")
    config = PROJECT_ROOT / "docs" / "site" / "mkdocs.yml"
    command = ["-m", "mkdocs", "build", "--quiet", "--strict", "--config-file", str(config)]
    done = subprocess.run(
        [sys.executable, *command, "--site-dir", str(folder)],
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    # Strict: links, anchors and pages that the navigation forgot are errors.
    assert done.returncode == 0, done.stderr
    return folder


def test_every_document_is_a_page(site: Path) -> None:
    for path in (PROJECT_ROOT / "docs").rglob("*.md"):
        assert (site / path.relative_to(PROJECT_ROOT / "docs").with_suffix(".html")).is_file(), path
    for page in ("index", "architecture", "changelog", "training", "adr/index", "reference/python"):
        assert (site / f"{page}.html").is_file(), page


def test_no_page_asks_another_host_for_anything(site: Path) -> None:
    for path in site.rglob("*"):
        if path.suffix in {".html", ".css"}:
            assert not _ASKED_FOR.findall(path.read_text()), path


def test_the_public_client_is_described(site: Path) -> None:
    text = (site / "reference" / "python.html").read_text()
    for name in (
        "HeadraceClient",
        "record_events",
        "rank",
        "SearchResult",
        "Event",
        "SearchContext",
        "CallError",
    ):
        assert re.search(rf'id="[\w.]*\b{name}"', text), name


def test_the_reference_has_every_word_of_the_contract() -> None:
    pages = reference.pages()
    for path in generate.ROOT.glob("headrace/**/*.proto"):
        page = pages[f"{path.stem}.md"]
        assert not list(_uncommented(page)), path.name
        for kind, name in re.findall(r"^\s*(message|enum|rpc) (\w+)", path.read_text(), flags=re.MULTILINE):
            assert f"\n## {name}\n" in page, f"{path.name}: {kind} {name}"
        fields = re.findall(r"^  (?:\S+ )*?[\w.<>, ]+ (\w+) = \d+;", path.read_text(), flags=re.MULTILINE)
        assert set(fields) <= set(re.findall(r"^\| `(\w+)` \|", page, flags=re.MULTILINE))


def _uncommented(page: str) -> Iterator[str]:
    for line in page.splitlines():
        if line.startswith("| `") and line.endswith("|  |"):
            yield line
