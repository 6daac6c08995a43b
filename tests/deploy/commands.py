"""Commands run in this process, as `headrace` runs them."""

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
