"""Commands run as `headrace` runs them, in this process or in one of their own."""

import asyncio
import os
import sys
from dataclasses import dataclass

from typer.testing import CliRunner

from deploy.cli import build


@dataclass(frozen=True)
class Ran:
    """How a command ended; `error` is the expected error that `headrace` prints in one line."""

    code: int
    out: str
    err: str
    error: Exception | None


def headrace(*arguments: str) -> Ran:
    """Run a command to its end, on a terminal 80 columns wide."""
    done = CliRunner().invoke(
        build(arguments), arguments, prog_name="headrace", env={"COLUMNS": "80", "TERM": "dumb"}
    )
    error = done.exception if isinstance(done.exception, Exception) else None
    return Ran(done.exit_code, done.stdout, done.stderr, error)


@dataclass(frozen=True)
class Finished:
    """A command line that has ended."""

    exit_code: int
    stdout: str
    stderr: str


async def headrace_process(*arguments: str) -> Finished:
    """Run `headrace` in a process of its own: gRPC serves one event loop per process, which is the test's."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "deploy.cli", *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "COLUMNS": "80"},
    )
    stdout, stderr = await process.communicate()
    assert process.returncode is not None
    return Finished(process.returncode, stdout.decode(), stderr.decode())
