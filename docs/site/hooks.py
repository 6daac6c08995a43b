"""Pages of the site that are no files of `docs/`: those from the repository's root, and the API reference."""

import logging
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[2]
# Only while this file is loaded: mkdocs takes it back.
sys.path.insert(0, str(ROOT))
from protos.reference import pages  # noqa: E402

ELSEWHERE = {
    "README.md": "index.md",
    "ARCHITECTURE.md": "architecture.md",
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "security.md",
    "training/README.md": "training.md",
    "docs/adr": "adr/index.md",
}
"""Files of the repository that are pages, too."""

PYTHON = """# Python client

`pip install headrace`; how to use it: [clients](../clients.md).

::: router.client.HeadraceClient
::: router.client_requests
::: router.client_results
::: router.client_stages
    options:
      members: [Show, StageResult]
::: router.client_events
    options:
      members: [Event, RecordResult]
::: shards.search_context
    options:
      members: [SearchContext, UserState, History]
::: router.call_error
"""

log = logging.getLogger("mkdocs.hooks")

_LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s]+)\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add what is made of other files."""
    for source, page in ELSEWHERE.items():
        path = ROOT / source
        if path.is_file():
            files.append(File.generated(config, page, content=path.read_text()))
    files.append(File.generated(config, "adr/index.md", content=_decisions()))
    files.append(File.generated(config, "reference/python.md", content=PYTHON))
    for name, text in pages().items():
        files.append(File.generated(config, f"reference/{name}", content=text))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Let links lead to pages, and name what is no page without a link."""
    at = page.file.src_uri
    source = next((source for source, name in ELSEWHERE.items() if name == at), f"docs/{at}")
    return _LINK.sub(_relinked(PurePosixPath(source), PurePosixPath(at)), markdown)


def _relinked(source: PurePosixPath, page: PurePosixPath) -> Callable[[re.Match[str]], str]:
    def relink(found: re.Match[str]) -> str:
        picture, text, target = found.groups()
        path, mark, anchor = target.partition("#")
        if not path or ":" in path or str(page).startswith("reference/"):
            return found[0]
        named = os.path.normpath(source.parent / path)
        goal = ELSEWHERE.get(named) or (named.removeprefix("docs/") if named.startswith("docs/") else "")
        if not (ROOT / named).exists():
            # Strict: this ends the build.
            log.warning("%s links to %s, which does not exist", source, target)
        if not goal:
            return text
        return f"{picture}[{text}]({os.path.relpath(goal, page.parent)}{mark}{anchor})"

    return relink


def _decisions() -> str:
    rows = "".join(f"- [{title}]({name})\n" for name, title in _titles())
    return f"# Decisions\n\nWhy it is the way it is, one page each.\n\n{rows}"


def _titles() -> Iterator[tuple[str, str]]:
    for path in sorted((ROOT / "docs" / "adr").glob("*.md")):
        yield path.name, path.read_text().partition("\n")[0].removeprefix("# ")
