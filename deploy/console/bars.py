"""Bars: shares of a whole, drawn into whatever width a table or a card has."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from deploy.console.svg import picture, shape

_WIDTH, _HEIGHT = 100.0, 8.0
_LEAST = 0.4
"""What is there at all can be seen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A part of a bar; `share` is of the whole, `kind` names its colour."""

    share: float
    kind: str
    title: str = ""


def stacked(parts: Sequence[Part], *, label: str) -> Markup:
    """Return a bar of parts one after the other."""
    shapes, left = [_track()], 0.0
    for part in parts:
        width = min(max(_LEAST, part.share * _WIDTH), _WIDTH - left)
        title = shape("title", part.title) if part.title else ""
        shapes.append(_block(left, width, f"fill-{part.kind}", title))
        left += width
    return picture(_WIDTH, _HEIGHT, shapes, label=label, class_="bar", stretch=True)


def nested(outer: Part, inner: Part | None = None, *, track: bool = True) -> Markup:
    """Return a bar, and in it a darker one for what of it was something else."""
    shapes = [_track()] if track else []
    for part in filter(None, (outer, inner)):
        width = min(max(_LEAST, part.share * _WIDTH), _WIDTH) if part.share > 0 else 0.0
        shapes.append(_block(0.0, width, f"fill-{part.kind}"))
    return picture(_WIDTH, _HEIGHT, shapes, class_="bar", stretch=True)


def centred(share: float, kind: str) -> Markup:
    """Return a bar that grows from the middle to both sides."""
    width = min(max(_LEAST, share * _WIDTH), _WIDTH)
    return picture(
        _WIDTH, _HEIGHT, [_block((_WIDTH - width) / 2, width, f"fill-{kind}")], class_="bar", stretch=True
    )


def signed(share: float) -> Markup:
    """Return a bar from the middle: to the right what adds, to the left what takes away; -1 to 1."""
    half = _WIDTH / 2
    width = min(max(_LEAST, abs(share) * half), half)
    left = half if share >= 0 else half - width
    middle = shape("rect", x=half - 0.15, y=0.0, width=0.3, height=_HEIGHT, class_="axis")
    block = _block(left, width, "fill-adds" if share >= 0 else "fill-takes")
    return picture(_WIDTH, _HEIGHT, [block, middle], class_="bar", stretch=True)


def _track() -> Markup:
    return _block(0.0, _WIDTH, "track")


def _block(x: float, width: float, class_: str, content: str | Markup = "") -> Markup:
    return shape("rect", content, x=x, y=0.0, width=width, height=_HEIGHT, class_=class_)


def largest(values: Iterable[float]) -> float:
    """Return the largest, or 1 where there is none above 0, to divide by."""
    return max(values, default=0.0) or 1.0
