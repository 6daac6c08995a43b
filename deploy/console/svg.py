"""Pictures as SVG, without styles of their own: the console's policy lets in no inline style."""

from collections.abc import Iterable

from markupsafe import Markup, escape


def shape(name: str, content: str | Markup = "", /, **attributes: object) -> Markup:
    """Return an element; `class_` is `class`, other names have hyphens for underscores."""
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(_number(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    # `written` and `name` are ours, its values and the content are escaped.
    return Markup(f"<{name}{written}>{escape(content)}</{name}>")


def picture(
    width: float,
    height: float,
    shapes: Iterable[Markup],
    *,
    label: str = "",
    class_: str,
    stretch: bool = False,
) -> Markup:
    """Return a picture with its own coordinates; `stretch` fills whatever box it is given.

    One without a label says nothing that the text beside it does not.
    """
    return shape(
        "svg",
        Markup("").join(shapes),
        class_=class_,
        viewBox=f"0 0 {width:g} {height:g}",
        preserveAspectRatio="none" if stretch else None,
        role="img" if label else None,
        aria_label=label or None,
        aria_hidden=None if label else "true",
        focusable="false",
    )


def joined(points: Iterable[tuple[float, float]]) -> str:
    """Return the points of a line."""
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


def _number(value: object) -> object:
    return f"{value:.2f}" if isinstance(value, float) else value
