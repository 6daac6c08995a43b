"""What a real cluster must refuse, by `tests/deploy/test_refusals.py`: part of `make bench-shards`."""

import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

from deploy.settings import PROJECT_ROOT
from tests.bench.result import Check, at_least, publish

TESTS = "tests/deploy/test_refusals.py"

Figures = dict[str, Any]


def main() -> None:
    """Run the benchmark alone."""
    figures = measure()
    publish("refusals", settings={"tests": TESTS}, figures=figures, checks=checks(figures))


def measure() -> Figures:
    """Return of each case whether it was refused with its reason, at no cost to what was live."""
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", TESTS, f"--junitxml={report}"]
        subprocess.run(command, cwd=PROJECT_ROOT, stdout=sys.stderr, check=False)
        cases = ET.parse(report).getroot().iter("testcase")
        return {"refused": {_words(case.get("name", "")): len(case) == 0 for case in cases}}


def checks(figures: Figures) -> list[Check]:
    """Return a line for each case."""
    return [
        at_least(f"refused with its reason: {name}", float(refused), 1)
        for name, refused in figures["refused"].items()
    ]


def _words(name: str) -> str:
    return name.removeprefix("test_").replace("_", " ")


if __name__ == "__main__":
    main()
