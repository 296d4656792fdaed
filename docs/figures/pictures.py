"""The pictures of docs/how-tensorrt-calibrates.md."""

# ruff: noqa: INP001 - scripts of one page, not a package

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from drawing import BLUE, DARK, GREY, PALE, RED, TALL, new_figure, note, style
from examples import FEW_BINS, example_batches
from histograms import BATCH_SIZES, GROWING, Material
from numpy.typing import NDArray
from search_pictures import KL_TENSOR, half_bin, kl_curve, methods, p_and_q

from trtcalib.core.histogram import Histogram, collect_histogram, double

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["draw_all"]


def draw_all(material: Material) -> dict[str, Figure]:
    """Return every picture by its file name."""
    with style():
        return {
            "range-doubling.svg": _range_doubling(),
            "range-growth.svg": _range_growth(material),
            "bin-zero.svg": _bin_zero(material.histograms[KL_TENSOR]),
            "p-and-q.svg": p_and_q(),
            "kl-curve.svg": kl_curve(material.histograms[KL_TENSOR]),
            "half-bin.svg": half_bin(material.histograms[KL_TENSOR]),
            "methods.svg": methods(material.amax),
        }


def _range_doubling() -> Figure:
    first, second = example_batches()
    one = collect_histogram([first], bins=FEW_BINS)
    both = collect_histogram([first, second], bins=FEW_BINS)
    figure, axes = new_figure(TALL + 0.8, nrows=3, sharex=True)
    titles = (
        "1  Batch 1: its maximum is the range, R = 1.54",
        "2  Batch 2 reaches 2.4, so R doubles to 3.08: bins are summed in pairs, the upper half starts empty",
        "3  Batch 2 is counted; nothing lies between 2.4 and 3.08, yet those bins are searched too",
    )
    for ax, histogram, title in zip(axes, (one, double(one), both), titles, strict=True):
        range_ = float(histogram.range)
        edges = np.linspace(0, range_, FEW_BINS + 1)
        ax.bar(edges[:-1], histogram.counts, width=range_ / FEW_BINS, align="edge", color=PALE, edgecolor=DARK, lw=0.8)
        filled = edges[np.flatnonzero(histogram.counts)[-1] + 1]
        if filled < range_:
            ax.axvspan(filled, range_, color=GREY, zorder=0, linewidth=0)
            ax.annotate("empty", (filled + 0.08, 0.3), xycoords=("data", "axes fraction"))
        ax.axvline(range_, color=DARK, linewidth=1.6)
        note(ax, f"R = {range_:.2f}", range_, 0.8, color=DARK, weight="bold")
        ax.set_title(title)
        ax.set_ylabel("values")
    for ax in axes[1:]:
        ax.axvline(2.4, color=RED, linestyle="--", linewidth=1.4)
        note(ax, "2.4", 2.4, 0.8, color=RED)
    axes[2].axvline(5.76, color="#777777", linestyle=":", linewidth=1.6)
    note(axes[2], "5.76 = 2.4 squared:\nreal caches reject it", 4.3, 0.6, color="#555555")
    axes[2].set_xlim(0, 6)
    axes[2].set_xlabel(f"|x|   (drawn with {FEW_BINS} bins; TensorRT has 2048)")
    return figure


def _range_growth(material: Material) -> Figure:
    figure, ax = new_figure(4.2)
    maxima = np.array([np.abs(sample).max() for sample in material.growing])
    so_far = np.maximum.accumulate(maxima)
    risen = np.append(np.flatnonzero(np.diff(so_far, prepend=0)), maxima.size - 1)
    ax.fill_between(risen + 1, so_far[risen], step="post", color=GREY, label="largest |x| so far")
    same: dict[tuple[tuple[int, float], ...], list[str]] = {}
    for batch_size in BATCH_SIZES:
        same.setdefault(_growth(maxima, batch_size), []).append(str(batch_size))
    lines, colours = ("-", "--", "-.", ":", "-"), (RED, BLUE, DARK, "#b8860b", "#777777")
    for (steps, sizes), line, colour in zip(same.items(), lines, colours, strict=False):
        seen, ranges = zip(*steps, (maxima.size, steps[-1][1]), strict=True)
        label = "all in one batch" if str(maxima.size) in sizes else f"batches of {' or '.join(sizes)}"
        ax.step(seen, ranges, where="post", linestyle=line, color=colour, linewidth=2, label=f"R, {label}")
    ax.set_xscale("log")
    ax.set_xlim(1, maxima.size)
    ax.set_ylim(bottom=0)
    ax.set_xticks([1, 8, 32, 256, 1297], ["1", "8", "32", "256", "1297"])
    ax.minorticks_off()
    ax.set_xlabel("samples seen (log)")
    ax.set_ylabel("|x|")
    ax.set_title(f"Range of {GROWING} in the embedded sample: same samples, same order, five batch sizes")
    ax.legend(loc="lower right", fontsize=10, frameon=True, framealpha=1, edgecolor="white")
    return figure


def _growth(maxima: NDArray[np.float32], batch_size: int) -> tuple[tuple[int, float], ...]:
    """Return at which sample, from 1, the batch begins that changes the range, and the range from there on."""
    steps: list[tuple[int, float]] = []
    for start in range(0, maxima.size, batch_size):
        top = float(maxima[start : start + batch_size].max())
        range_ = steps[-1][1] if steps else top
        while range_ < top:
            range_ *= 2
        if not steps or range_ > steps[-1][1]:
            steps.append((start + 1, range_))
    return tuple(steps)


def _bin_zero(histogram: Histogram) -> Figure:
    figure, (left, right) = new_figure(3.6, ncols=2, sharey=True)
    shown = 12
    after = histogram.counts.copy()
    after[0] = after[1]
    for ax, counts, title in (
        (left, histogram.counts, "Collected: bin 0 holds the zeros"),
        (right, after, "Searched: bin 0 takes bin 1's count"),
    ):
        ax.bar(np.arange(shown), counts[:shown], color=[RED] + [PALE] * (shown - 1), edgecolor=DARK, linewidth=0.8)
        ax.set_yscale("log")
        ax.set_xticks(range(shown))
        ax.set_xlabel(f"bin (the first {shown} of 2048)")
        ax.set_title(title)
        ax.annotate(f"{counts[0]:,}", (0, counts[0]), xytext=(0, 3), textcoords="offset points", ha="left", color=RED)
    left.set_ylabel("values per bin (log)")
    left.margins(y=0.12)
    return figure
