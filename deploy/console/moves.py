"""How the items of a page moved through the stages, as lines between their places."""

import math
from collections.abc import Mapping, Sequence

from markupsafe import Markup

from deploy.console.svg import joined, picture, shape
from router.client_results import SearchResult

_WIDTH, _TOP, _HEIGHT, _MARGIN = 420.0, 26.0, 230.0, 34.0
_SHOWN = 10
_TICKS = (1, 3, 10, 30, 100, 300, 1000)


def places_of(result: SearchResult) -> Sequence[tuple[str, Mapping[str, int]]]:
    """Return each stage that ran with the place of every item, from 1, and at last the page."""
    seen = result.explanation
    if seen is None:
        return ()
    stages = (("merged", seen.merged), ("pre-ranked", seen.pre_ranked), ("ranked", seen.ranked))
    places = [(name, _places(found.item_ids)) for name, found in stages if found.item_ids]
    return (*places, ("page", _places([item.item_id for item in result.items])))


def _places(item_ids: Sequence[str]) -> dict[str, int]:
    return {item_id: place for place, item_id in enumerate(item_ids, start=1)}


def moves_picture(result: SearchResult) -> Markup:
    """Return the lines of the first items, the places on a logarithmic scale; empty with one stage."""
    stages = places_of(result)
    if len(stages) < 2 or not result.items:
        return Markup()
    shown = [item.item_id for item in result.items[:_SHOWN]]
    deepest = max(places.get(item_id, 1) for _, places in stages for item_id in shown)
    step = (_WIDTH - 2 * _MARGIN) / (len(stages) - 1)

    def at(column: int, place: int) -> tuple[float, float]:
        depth = math.log(place) / (math.log(deepest) or 1.0)
        return _MARGIN + column * step, _TOP + 10 + depth * _HEIGHT

    shapes = [_ruler(place, at(0, place)[1]) for place in _TICKS if place <= deepest]
    for column, (name, _) in enumerate(stages):
        shapes.append(shape("text", name, x=_MARGIN + column * step, y=12.0, class_="axis-text middle"))
    # The first items are drawn last, above the others.
    for rank, item_id in reversed(list(enumerate(shown))):
        points = [at(c, places[item_id]) for c, (_, places) in enumerate(stages) if item_id in places]
        title = _path_words(item_id, stages)
        shapes.append(_line(points, title, first=rank < 3))
    label = f"Places of the first {len(shown)} items of the page after each stage"
    return picture(_WIDTH, _TOP + _HEIGHT + 24, shapes, label=label, class_="chart")


def _ruler(place: int, y: float) -> Markup:
    line = shape("line", x1=_MARGIN, x2=_WIDTH - _MARGIN, y1=y, y2=y, class_="grid")
    return line + shape("text", str(place), x=_MARGIN - 12, y=y + 4, class_="axis-text end")


def _line(points: Sequence[tuple[float, float]], title: str, *, first: bool) -> Markup:
    drawn = [shape("title", title), shape("polyline", points=joined(points), class_="move-line")]
    drawn += [shape("circle", cx=x, cy=y, r=4.0, class_="move-dot") for x, y in points]
    return shape("g", Markup("").join(drawn), class_="move first" if first else "move")


def _path_words(item_id: str, stages: Sequence[tuple[str, Mapping[str, int]]]) -> str:
    path = ", ".join(f"{name} #{places[item_id]}" for name, places in stages if item_id in places)
    return f"{item_id}: {path}"
