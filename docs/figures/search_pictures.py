"""Pictures of the search: P and Q, the KL curve, the half bin, and what other methods choose."""

# ruff: noqa: INP001 - scripts of one page, not a package

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from drawing import BLUE, DARK, GREY, PALE, RED, SHADES, TALL, new_figure, note
from examples import TOY_CANDIDATE, TOY_COUNTS, TOY_SEARCH
from numpy.typing import NDArray
from readings import candidate

from trtcalib.core.entropy import VARIANTS, amax_of_bin, divergences, entropy_bin
from trtcalib.core.histogram import Histogram, collect_histogram

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["KL_TENSOR", "half_bin", "kl_curve", "methods", "p_and_q"]

KL_TENSOR = "branch_b_relu"

PER_BAR = 4
"""Bins per bar where all 2048 are drawn, so that the file stays small."""


def p_and_q() -> Figure:
    """Draw one candidate of a few bins: counts, levels, P and Q."""
    p, q = candidate(TOY_COUNTS, TOY_CANDIDATE, TOY_SEARCH)
    counts = TOY_COUNTS.copy()
    counts[0] = counts[1]
    kept = np.arange(TOY_CANDIDATE)
    level = kept * TOY_SEARCH.levels // TOY_CANDIDATE
    figure, (top, bottom) = new_figure(TALL, nrows=2, sharex=True)
    top.bar(
        np.arange(counts.size),
        counts,
        color=[PALE] * TOY_CANDIDATE + [RED] * (counts.size - TOY_CANDIDATE),
        edgecolor=DARK,
        linewidth=0.8,
    )
    top.set_title(f"Counts: candidate i = {TOY_CANDIDATE} of {counts.size} bins keeps bins 0 to {TOY_CANDIDATE - 1}")
    clipped = counts.size - (counts.size - TOY_CANDIDATE) / 2 - 0.5
    top.annotate("clipped: 0 + 3", (clipped, 3.6), color=RED, ha="center")
    bottom.bar(kept - 0.2, p / p.sum(), width=0.4, color=PALE, edgecolor=DARK, linewidth=0.8, label="P")
    bottom.bar(kept + 0.2, q / q.sum(), width=0.4, color=DARK, label="Q")
    bottom.bar(
        [TOY_CANDIDATE - 1.2],
        [(p[-1] - counts[TOY_CANDIDATE - 1]) / p.sum()],
        width=0.4,
        color=RED,
        bottom=[counts[TOY_CANDIDATE - 1] / p.sum()],
        edgecolor=DARK,
        linewidth=0.8,
        label="clipped, in P only",
    )
    bottom.set_title("P and Q, each divided by its sum")
    bottom.legend(loc=(0.825, 0.6), handlelength=1)
    bottom.set_xticks(range(counts.size))
    bottom.set_xlabel("bin   (drawn with 12 bins and 4 levels; TensorRT has 2048 and 128)")
    for ax in (top, bottom):
        _shade_levels(ax, level)
        ax.margins(y=0.2)
    for number in range(TOY_SEARCH.levels):
        note(top, f"level {number}", kept[level == number].mean(), 0.9, ha="center")
    return figure


def _shade_levels(ax: Axes, level: NDArray[np.int64]) -> None:
    for number in range(int(level[-1]) + 1):
        inside = np.flatnonzero(level == number)
        ax.axvspan(inside[0] - 0.5, inside[-1] + 0.5, color=SHADES[number % 2], zorder=0, linewidth=0)


def kl_curve(histogram: Histogram) -> Figure:
    """Draw a histogram and KL over the candidates."""
    curve = divergences(histogram)
    first = VARIANTS["tensorrt"].first
    i = np.arange(first, first + curve.size)
    m = entropy_bin(histogram)
    figure, (top, bottom) = new_figure(TALL + 0.6, nrows=2, sharex=True)
    _draw_kept(top, histogram, m)
    bottom.plot(i, np.where(np.isfinite(curve), curve, np.nan), color=DARK, linewidth=1.4, label="KL(P || Q)")
    bottom.set_yscale("log")
    forbidden = ~np.isfinite(curve)
    bottom.fill_between(
        i,
        0,
        0.06,
        where=forbidden,
        step="mid",
        transform=bottom.get_xaxis_transform(),
        color="#777777",
        label=f"{forbidden.sum()} forbidden candidates: P > 0 where Q = 0",
    )
    bottom.plot([m], [curve[m - first]], "o", color=RED, markersize=8)
    bottom.annotate(
        f"smallest: m = {m}", (m, curve[m - first]), xytext=(0, 26), textcoords="offset points", color=RED, ha="center"
    )
    bottom.set_ylabel("nats (log)")
    bottom.set_xlabel("bin, and candidate i")
    bottom.set_xlim(0, histogram.bins)
    bottom.legend(loc="upper right")
    bottom.margins(y=0.15)
    return figure


def _draw_kept(top: Axes, histogram: Histogram, m: int) -> None:
    for begin, end, colour, label in (
        (0, m, PALE, f"kept: bins 0 to {m - 1}"),
        (m, histogram.bins, RED, "clipped"),
    ):
        starts = np.arange(begin, end, PER_BAR)
        bars = np.add.reduceat(histogram.counts, starts)
        bars[-1] = histogram.counts[starts[-1] : end].sum()
        top.stairs(bars, np.append(starts, end), fill=True, color=colour, label=label)
    top.set_yscale("log")
    top.set_ylim(bottom=0.7)
    used = int(np.flatnonzero(histogram.counts)[-1]) + 1
    top.axvspan(
        used, histogram.bins, color=GREY, zorder=0, linewidth=0, label="empty: the range doubled past the maximum"
    )
    top.set_ylabel(f"values per {PER_BAR} bins (log)")
    top.set_title(f"{KL_TENSOR} of the embedded sample, {histogram.total:,} values")
    top.legend(loc=(0.1, 0.62))


def half_bin(histogram: Histogram) -> Figure:
    """Draw the bins around m, and where amax lies."""
    figure, axes = new_figure(2.9, ncols=2)
    constant = collect_histogram([np.array([1.0], np.float32)])
    for ax, shown, title in (
        (axes[0], histogram, f"{KL_TENSOR}"),
        (axes[1], constant, "a constant 1.0: amax is above the maximum"),
    ):
        m = entropy_bin(shown)
        for j in range(m - 3, m + 3):
            beyond = j >= shown.bins
            ax.bar(
                [j],
                [1],
                width=1,
                align="edge",
                color=PALE if j < m else "white",
                edgecolor="#aaaaaa" if beyond else DARK,
                linestyle=":" if beyond else "-",
                linewidth=1,
            )
            if not beyond:
                ax.annotate(f"bin {j}", (j + 0.5, -0.15), ha="center", fontsize=8)
        amax = float(amax_of_bin(m, shown))
        ax.plot([m + 0.5] * 2, [0, 1.18], color=RED, linewidth=2)
        ax.annotate(f"amax = (m + 0.5) R / 2048 = {amax:.6g}", (m + 0.5, 1.24), ha="center", color=RED)
        ax.plot([m] * 2, [-0.22, 1], color=BLUE, linewidth=2, linestyle="--")
        ax.annotate(f"edge: m R / 2048 = {m * float(shown.width):.6g}", (m, -0.4), ha="center", color=BLUE)
        ax.set_title(f"{title}, m = {m}")
        ax.set_ylim(-0.45, 1.45)
        ax.set_xlim(m - 3.3, m + 3.3)
        ax.set_axis_off()
    return figure


def methods(found: Mapping[str, Mapping[str, float]]) -> Figure:
    """Draw the amax of every method against that of TensorRT's rules."""
    figure, ax = new_figure(4.8)
    marks = ("o", "s", "D", "^", "v", "P", "X")
    colours = (RED, "#b8860b", DARK, BLUE, PALE, "#555555", "#008176")
    for position, method in enumerate(list(next(iter(found.values())))):
        ratios = [amax[method] / amax["`tensorrt`"] for amax in found.values()]
        rows = np.arange(len(found)) + (position - 3) * 0.1
        ax.plot(
            ratios,
            rows,
            marks[position],
            color=colours[position],
            markeredgecolor=DARK,
            markersize=8,
            label=method.strip("`"),
        )
    for row in range(len(found) - 1):
        ax.axhline(row + 0.5, color=GREY, linewidth=1)
    ax.axvline(1, color=RED, linewidth=1, zorder=0)
    ax.set_xscale("log")
    ax.set_xticks([0.25, 0.5, 0.75, 1, 1.5, 2, 4], ["0.25", "0.5", "0.75", "1", "1.5", "2", "4"])
    ax.minorticks_off()
    ax.set_yticks(range(len(found)), list(found))
    ax.invert_yaxis()
    ax.set_xlabel("amax / amax of TensorRT's rules, on the same histogram (log)")
    figure.legend(*ax.get_legend_handles_labels(), loc="outside upper center", ncols=4)
    return figure
