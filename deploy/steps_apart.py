"""Steps before a cluster starts, in processes of their own, so that the memory they take is free again."""

import subprocess
import sys

from deploy.settings import child_environment
from shards.errors import Unavailable


def train_apart(*arguments: str) -> None:
    """Run `headrace train`; raises `Unavailable` where it fails, which has said why on standard error."""
    # A run that was cut short may have left bundles of the same version.
    _run("train", *arguments, "--replace", problem="the models could not be trained")


def evaluate_apart(*arguments: str) -> None:
    """Run `headrace eval`, whose table goes to standard error; raises `Unavailable` where it fails."""
    _run("eval", *arguments, problem="the release could not be evaluated")


def _run(command: str, *arguments: str, problem: str) -> None:
    line = [sys.executable, "-m", "deploy.cli", command, *arguments]
    environment = child_environment(None)
    if subprocess.run(line, env=environment, stdout=sys.stderr, check=False).returncode != 0:
        raise Unavailable(f"{problem}; see above")
