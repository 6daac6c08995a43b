"""The `headrace` command line: thin. A command's module is imported only when that command runs."""

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Never

import typer


@dataclass(frozen=True, slots=True)
class _Command:
    """Where a command is: a function in a module of `deploy.commands`, or the `app` of several commands."""

    module: str
    function: str
    help: str


_COMMANDS = {
    "demo": _Command("demo", "demo", "Train on MovieLens, start a cluster and search it."),
    "init": _Command("init", "init", "Make a project from your own tables."),
    "doctor": _Command("doctor", "doctor", "Check all that a cluster needs, and say what to do."),
    "members": _Command("members", "listed", "Show who of a cluster Consul lists."),
    "up": _Command("up", "up", "Start a cluster and keep it running until Ctrl-C."),
    "controller": _Command("controller", "controller", "Run one controller over a Ray that runs already."),
    "router": _Command("router", "router", "Run one router."),
    "console": _Command("console", "console", "Serve a web page over a cluster."),
    "audit": _Command("audit", "audit", "Show what operators did to a cluster."),
    "bundle": _Command("bundle", "app", "Sign bundles, and check their signatures."),
    "keys": _Command("keys", "app", "Make keys that sign bundles."),
    "certs": _Command("certs", "app", "Make certificates to try TLS with."),
    "down": _Command("down", "down", "Stop the cluster of a workspace."),
    "status": _Command("status", "status", "Show processes, shards, models and releases."),
    "search": _Command("search", "search", "Send one search and show what came back and why."),
    "events": _Command("events", "app", "Record what users do, for their next search."),
    "users": _Command("users", "app", "Fill a user store from a dataset."),
    "train": _Command("train", "train", "Train the models of a recipe and export them as a release."),
    "refresh": _Command("refresh", "refresh", "Bring a release's tables and statistics up to a moment."),
    "update": _Command("update", "update", "Go on training the model of a release, and write the release."),
    "retrain": _Command("retrain", "retrain", "Fit anew what a schedule says is due, and release it."),
    "catalogue": _Command("catalogue", "app", "Embed a whole catalogue by a trained model, and deploy it."),
    "recipes": _Command("recipes", "app", "List what can be trained."),
    "eval": _Command("evaluate", "evaluate", "Compare rankings on held-out queries."),
    "compare": _Command("compare", "compare", "Show how evaluations of the same queries differ."),
    "eval-next": _Command("evaluate_next", "evaluate_next", "Measure what users take next, without a query."),
    "pages": _Command("pages", "pages", "Write what a release would have shown, as events of a data set."),
    "eval-tasks": _Command("evaluate_tasks", "evaluate_tasks", "Measure what the ranker says of its tasks."),
    "gate": _Command("gate", "app", "Show what the query-selection gate saves and costs."),
    "tune": _Command("tune", "app", "Search for settings of recipes and of indexes."),
    "release": _Command("release", "app", "Deploy releases, try them on a share of users, roll back."),
    "models": _Command("models", "app", "List models, load, pin and unload them."),
    "drift": _Command("drift", "drift", "Show the recall of indexes, and what has drifted since training."),
    "shards": _Command("shards", "app", "List, plan, move, drain, freeze and restart shards."),
    "scale": _Command("scale", "scale", "Set the number of shards."),
    "ops": _Command("ops", "app", "Look at operations, wait for them, cancel them."),
}

_OWN_PACKAGES = frozenset({"deploy", "router", "services", "shards", "training", "protos"})


def build(arguments: Sequence[str]) -> typer.Typer:
    """Return the command line with the command that these arguments name; the others know only their help."""
    cli = typer.Typer(
        name="headrace",
        help="A gRPC serving cluster for personalised search.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
    )
    named = next((argument for argument in arguments if not argument.startswith("-")), "")
    for name, command in _COMMANDS.items():
        if name != named:
            cli.command(name, help=command.help)(_not_loaded)
            continue
        loaded = _load(command)
        if isinstance(loaded, typer.Typer):
            cli.add_typer(loaded, name=name)
        else:
            cli.command(name)(loaded)
    return cli


def app() -> None:
    """Run the command line; expected errors end in one line on standard error and exit code 1."""
    # OpenMP reads it when torch is first loaded. Threads that spin while they wait for each other make
    # training many times slower where others use the cores too.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        build(sys.argv[1:])()
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] in _OWN_PACKAGES:
            raise
        _fail(f"this command needs {error.name}: pip install 'headrace[training]'")
    except Exception as error:
        if not isinstance(error, _expected_errors()):
            raise
        _fail(str(error))


def _fail(problem: str) -> Never:
    typer.echo(f"headrace: {problem}", err=True)
    sys.exit(1)


def _load(command: _Command) -> Callable[..., None] | typer.Typer:
    loaded: Callable[..., None] | typer.Typer = getattr(
        import_module(f"deploy.commands.{command.module}"), command.function
    )
    return loaded


def _not_loaded() -> None:
    raise AssertionError("another command was named")


def _expected_errors() -> tuple[type[Exception], ...]:
    from router.client import CallError
    from services.tls import CertificateError
    from shards.errors import HeadraceError

    return HeadraceError, CallError, CertificateError


if __name__ == "__main__":
    app()
