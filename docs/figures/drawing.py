"""What all pictures of the page share: colours, sizes, a white ground."""

# ruff: noqa: INP001 - scripts of one page, not a package

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["BLUE", "DARK", "GREY", "PALE", "RED", "SHADES", "TALL", "new_figure", "note", "style"]

# Far apart in lightness, so that they hold in print and for colour-blind readers.
DARK, RED, BLUE, PALE, GREY = "#1b2a49", "#c1272d", "#2f6fb0", "#9ab8d3", "#e4e4e4"
SHADES = ("#dfe8f1", "#c3d3e3")
WIDE, TALL = 9.0, 5.2
STYLE: Any = {
    "font.size": 11,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.facecolor": "white",
    "axes.facecolor": "white",
    "legend.frameon": False,
}


@contextmanager
def style() -> Iterator[None]:
    """Set what all pictures share."""
    import matplotlib as mpl

    with mpl.rc_context(STYLE):
        yield


def new_figure(height: float, **options: Any) -> tuple[Figure, Any]:
    """Return a figure as wide as all others, and its axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDE, height), layout="constrained")
    return figure, figure.subplots(**options)


def note(ax: Axes, text: str, x: float, y: float, **options: Any) -> None:
    """Write text beside the vertical line at ``x``; ``y`` is a share of the axes' height."""
    ax.annotate(text, (x, y), xycoords=("data", "axes fraction"), xytext=(5, 0), textcoords="offset points", **options)
