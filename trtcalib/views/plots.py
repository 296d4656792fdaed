"""The picture known from the articles on entropy calibration: a histogram of |x| with the amax of every method."""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from trtcalib.core.histogram import Histogram
from trtcalib.views.text import shortened

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["draw_histogram", "format_figure"]

# Colours that differ in lightness too, so that they hold in print and for colour-blind readers.
_COLOURS = ("#c1272d", "#0000a7", "#008176", "#b8860b", "#6a3d9a", "#555555")
_LINES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (1, 1)))


def draw_histogram(name: str, histogram: Histogram, marks: Mapping[str, float]) -> Figure:
    """Draw the counts of |x| on a log axis, a vertical line per method at its amax, and the bins that doubling left empty.

    Args:
        name: The tensor.
        histogram: Its histogram.
        marks: amax per method, in the tensor's units.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4.8), layout="constrained")
    axes = figure.add_subplot()
    # Past float32 the range is infinite there, not here.
    range_ = (
        math.ldexp(float(histogram.first_max), histogram.doublings)
        if np.isinf(histogram.range)
        else float(histogram.range)
    )
    range_ = range_ or 1.0
    edges = np.linspace(0.0, range_, histogram.bins + 1)
    axes.stairs(histogram.counts, edges, fill=True, color="#9ab8d3", label=f"{histogram.total:,} values of |x|")
    if histogram.counts.any():
        axes.set_yscale("log")
        axes.set_ylim(bottom=0.7)
    if histogram.maximum < histogram.range:
        axes.axvspan(
            float(histogram.maximum), range_, color="#eeeeee", zorder=0, label="empty: the range is past the maximum"
        )
    for index, (method, amax) in enumerate(sorted(marks.items(), key=lambda item: item[1])):
        if np.isfinite(amax):
            label = f"{shortened(method, 40)}: amax {amax:.5g}"
            colour, line = _COLOURS[index % len(_COLOURS)], _LINES[index % len(_LINES)]
            axes.axvline(amax, linewidth=1.8, label=label, color=colour, linestyle=line)
    grown = f", doubled {histogram.doublings} x from {histogram.first_max:.5g}" if histogram.doublings else ""
    # Tensor names are text, never matplotlib's mathematics.
    axes.set_title(f"{shortened(name, 70)} — {histogram.bins} bins over [0, {range_:.5g}]{grown}", parse_math=False)
    axes.set_xlabel("|x|")
    axes.set_ylabel("values per bin (log)")
    for text in axes.legend(loc="upper right", fontsize="small").get_texts():
        text.set_parse_math(False)
    return figure


def format_figure(figure: Figure, kind: str) -> bytes:
    """Return the bytes of a figure as ``png`` or ``svg``, the same bytes for the same figure."""
    import matplotlib as mpl

    content = io.BytesIO()
    # The salt fixes the ids inside an SVG; without metadata there is no date.
    with mpl.rc_context({"svg.hashsalt": "trtcalib", "svg.fonttype": "path"}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # a box stands for it
        figure.savefig(content, format=kind, dpi=110, metadata={"Date": None} if kind == "svg" else {"Software": None})
    return content.getvalue()
