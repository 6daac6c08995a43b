"""Lines over two axes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from markupsafe import Markup

from deploy.console.svg import joined, picture, shape

_WIDTH, _HEIGHT = 460.0, 240.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 46.0, 18.0, 12.0, 40.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """Points by rising x; `kind` names the colour, `band` is x, y and half the height of a band."""

    name: str
    kind: str
    points: Sequence[tuple[float, float]]
    band: Sequence[tuple[float, float, float]] = ()
    dotted: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """From where to where an axis goes, and the words at its ticks."""

    low: float
    high: float
    ticks: Sequence[float]
    words: Callable[[float], str] = field(default=lambda value: f"{value:g}")
    title: str = ""

    def place(self, value: float) -> float:
        """Return where on the axis a value is, 0 to 1."""
        share = (value - self.low) / ((self.high - self.low) or 1.0)
        return min(1.0, max(0.0, share))


def fitted(values: Sequence[float], *, least: float, words: Callable[[float], str], title: str = "") -> Axis:
    """Return an axis for these values that spans `least` at least, with some room and five ticks."""
    low, high = min(values), max(values)
    room = max((high - low) * 0.08, (least - (high - low)) / 2)
    low, high = low - room, high + room
    return Axis(
        low=low,
        high=high,
        ticks=[low + (high - low) * step / 4 for step in range(5)],
        words=words,
        title=title,
    )


def chart(lines: Sequence[Line], x: Axis, y: Axis, *, label: str) -> Markup:
    """Return the lines over their axes; `label` says in a sentence what they show."""
    across, down = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM

    def at(point: tuple[float, float]) -> tuple[float, float]:
        return _LEFT + x.place(point[0]) * across, _TOP + (1 - y.place(point[1])) * down

    shapes = []
    for tick in y.ticks:
        _, height = at((x.low, tick))
        shapes.append(shape("line", x1=_LEFT, x2=_WIDTH - _RIGHT, y1=height, y2=height, class_="grid"))
        shapes.append(shape("text", y.words(tick), x=_LEFT - 6, y=height + 4, class_="axis-text end"))
    for tick in x.ticks:
        left, _ = at((tick, y.low))
        shapes.append(shape("text", x.words(tick), x=left, y=_TOP + down + 16, class_="axis-text middle"))
    shapes.append(shape("text", x.title, x=_LEFT + across / 2, y=_HEIGHT - 4, class_="axis-text middle"))
    for line in lines:
        shapes += _drawn(line, at)
    return picture(_WIDTH, _HEIGHT, shapes, label=label, class_="chart")


def _drawn(line: Line, at: Callable[[tuple[float, float]], tuple[float, float]]) -> list[Markup]:
    drawn = []
    if line.band:
        above = [at((x, y + half)) for x, y, half in line.band]
        below = [at((x, y - half)) for x, y, half in reversed(line.band)]
        drawn.append(shape("polygon", points=joined([*above, *below]), class_="band"))
    points = [at(point) for point in line.points]
    title = shape("title", line.name)
    if len(points) == 1:
        return [
            *drawn,
            shape("circle", title, cx=points[0][0], cy=points[0][1], r=5.0, class_=f"dot-{line.kind}"),
        ]
    dashes = "4 4" if line.dotted else None
    drawn.append(
        shape(
            "polyline", title, points=joined(points), class_=f"line line-{line.kind}", stroke_dasharray=dashes
        )
    )
    return drawn
