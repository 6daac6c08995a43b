"""`headrace certs`: certificates to try TLS with."""

from pathlib import Path
from typing import Annotated

import typer

from deploy.certificates import DAYS, make_certificates
from services.tls import Party
from shards.errors import FieldViolation, InvalidInput

app = typer.Typer(help="Make certificates to try TLS with.", no_args_is_help=True)


@app.callback()
def _named() -> None:
    """Keep `make` a command of its own."""


@app.command()
def make(
    folder: Annotated[Path, typer.Argument(help="Where to write; an authority that is there signs again.")],
    host: Annotated[
        list[str] | None,
        typer.Option(help="Name or address by which routers are also known; repeatable."),
    ] = None,
    party: Annotated[
        list[str] | None,
        typer.Option(help="router, controller, shard, operator or client; default: all. May be repeated."),
    ] = None,
    days: Annotated[int, typer.Option(min=1, help="How long the certificates hold.")] = DAYS,
) -> None:
    """Write an authority and certificates for routers, controllers, shards, operators and clients.

    Whoever has `ca-key.pem` can be anybody: keep it off the hosts of the cluster. Each process needs
    `ca.pem`, its own certificate and its key only.
    """
    parties = [_party(word) for word in party] if party else list(Party)
    for path in make_certificates(folder, hosts=host or (), parties=parties, days=days):
        typer.echo(str(path))


def _party(word: str) -> Party:
    for party in Party:
        if party.word == word:
            return party
    raise InvalidInput(FieldViolation("party", f"{word!r} is none of {', '.join(p.word for p in Party)}"))
