"""What all tables share: one look, states in colour, sizes and times that people read at a glance."""

from collections.abc import Iterable

import typer
from google.protobuf.duration_pb2 import Duration
from google.protobuf.json_format import MessageToJson
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from protos.headrace.v1 import types_pb2

_STYLES = {
    "serving": "green",
    "ready": "green",
    "succeeded": "green",
    "live": "green",
    "down": "red",
    "failed": "red",
    "cancelled": "dim",
    "drained": "dim",
    "cold": "dim",
    "previous": "dim",
}
"""States that are neither good, bad nor past are yellow."""

_LONG_NAME = 24

_SPANS = ((86_400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s"))


def show(answer: Message, *views: RenderableType, as_json: bool) -> None:
    """Print what a controller answered: for scripts every field as JSON, for people the views of it."""
    if as_json:
        typer.echo(MessageToJson(answer, always_print_fields_with_no_presence=True))
        return
    console = Console()
    for view in views:
        console.print(view, highlight=False)


def new_table(title: str, *headings: str, numeric: Iterable[str] = (), long: Iterable[str] = ()) -> Table:
    """Return a table without rows; `long` columns may take several lines where the terminal is narrow."""
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for heading in headings:
        justify = "right" if heading in numeric else "left"
        table.add_column(heading, justify=justify, overflow="fold", no_wrap=heading not in long)  # type: ignore[arg-type]
    return table


def facts(title: str, *known: tuple[str, str | Text]) -> Group:
    """Return what is known of one thing, a fact a line; empty ones are left out."""
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 1))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in known:
        if value:
            table.add_row(name, value)
    return Group(Text(title, "bold"), table)


def state_text(name: str, prefix: str = "") -> Text:
    """Return the state in colour, from the name that the contract gives it."""
    state = name.removeprefix(prefix).lower()
    return Text(state, style_of(state))


def style_of(state: str) -> str:
    """Return the colour of a state: green, red, yellow, or dim for what is past or waits."""
    return _STYLES.get(state, "yellow")


def titled(title: str, detail: str) -> Text:
    """Return a title and, on lines below it, what else there is to say."""
    text = Text(title)
    return text.append(f"\n{detail}", style="dim") if detail else text


def bundle(model: types_pb2.ModelVersion) -> str:
    """Return MODEL@VERSION, in two lines where one would be long."""
    name = f"{model.model}@{model.version}"
    return name if len(name) <= _LONG_NAME else f"{model.model}\n@{model.version}"


def size(size_bytes: float) -> str:
    """Return a size in MB or GB."""
    if size_bytes < 1000 * 2**20:
        return f"{size_bytes / 2**20:.1f} MB"
    return f"{size_bytes / 2**30:,.1f} GB"


def span(seconds: float) -> str:
    """Return a time span: 0.4 s, 12 s, 3 min 5 s, 2 h 10 min, 3 d 4 h."""
    if seconds < 59.5:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    upper_s, upper, lower_s, lower = next(s for s in _SPANS if seconds >= s[0] - s[2] / 2)
    whole, rest = divmod(round(seconds / lower_s), upper_s // lower_s)
    return f"{whole} {upper} {rest} {lower}" if rest else f"{whole} {upper}"


def seconds_of(moment: Timestamp | Duration) -> float:
    """Return the seconds in a moment or a duration."""
    return moment.seconds + moment.nanos / 1e9
