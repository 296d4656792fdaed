"""The pictures of docs/batch-size-and-order.md."""

# ruff: noqa: INP001 - scripts of one page, not a package

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from cases import MOST, Case, bins_for_share, describe
from drawing import BLUE, DARK, GREY, PALE, RED, TALL, new_figure, note, style
from material import Questions
from question_tables import ORDER_SIZES, ROBUST_SIZES, change, data_tensors, over_orders

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["draw_all"]

LAST = "stem_relu"
EVEN = "x"

MOST_CHANGE = 0.3
"""Where the heat map's colours end."""

DARK_FROM = 0.15
"""Where they are too dark for black text."""


def draw_all(questions: Questions) -> dict[str, Figure]:
    """Return every picture by its file name."""
    with style():
        return {
            "study-last-batch.png": _last_batch(questions),
            "study-outlier-sweep.svg": _sweep(questions),
            "study-even.svg": _even(questions),
            "study-robust.svg": _robust(questions),
            "study-orders.svg": _orders(questions),
        }


def _last_batch(questions: Questions) -> Figure:
    figure, axes = new_figure(TALL + 0.4, nrows=2, sharex=True)
    titles = (
        f"{LAST} of the embedded sample, batch size 1",
        "The same with one pixel of 100 in the last of 1297 images",
    )
    for ax, subject, title in zip(axes, ("digits", "digits, outlier"), titles, strict=True):
        _bins(ax, describe(questions.subjects[subject], LAST, "b1"), title)
    axes[1].set_xlabel("bin")
    return figure


def _bins(ax: Axes, case: Case, title: str) -> None:
    counts, found = case.histogram.counts, case.outcome
    ax.stairs(counts, np.arange(counts.size + 1), fill=True, color=BLUE)
    ax.set_yscale("log")
    ax.set_ylim(0.7, counts.max() * 30)
    ax.set_xlim(0, counts.size)
    top = int(np.flatnonzero(counts)[-1]) + 1
    ax.axvspan(top, counts.size, color=GREY, zorder=0, linewidth=0)
    ax.annotate(
        f"above the maximum: {counts.size - top} bins",
        ((top + counts.size) / 2, 0.08),
        xycoords=("data", "axes fraction"),
        ha="center",
    )
    used = bins_for_share(counts, MOST)
    ax.axvline(used, color=DARK, linestyle="--", linewidth=1.4)
    ax.axvline(float(found.bin_m or 0), color=RED, linewidth=1.8)
    note(ax, f"99.9 % of the values: {used} bins", used, 0.91, color=DARK)
    note(ax, f"m = {found.bin_m}, amax {found.amax:.3g}", float(found.bin_m or 0), 0.78, color=RED)
    ax.set_title(f"{title}: R = {found.range:.4g}, {np.count_nonzero(counts)} bins hold data")
    ax.set_ylabel("values per bin (log)")


def _sweep(questions: Questions) -> Figure:
    figure, ax = new_figure(4.2)
    styles = ((RED, "-", "o"), (DARK, "--", "s"), (BLUE, "-.", "^"))
    for (name, others), (colour, line, marker) in zip(questions.sweep.others.items(), styles, strict=True):
        ax.plot(questions.sweep.factors, others, line, color=colour, marker=marker, markersize=4, label=name)
    ax.set_xscale("log", base=2)
    ticks = [1, 2, 4, 8, 16, 32, 64, 128, 256]
    ax.set_xticks(ticks, [str(tick) for tick in ticks])
    ax.set_ylim(bottom=0)
    ax.set_xlabel("the one huge value, over the largest of the other 32 767 (log)")
    ax.set_ylabel("SQNR of the other samples, dB")
    ax.set_title("One huge value in the last sample: what INT8 leaves of the other samples (normal values)")
    ax.legend(loc="lower left")
    return figure


def _even(questions: Questions) -> Figure:
    figure, ax = new_figure(4.2)
    lines = (
        ("even", 16, "dealt out evenly, batches of 16", RED, "-"),
        ("even", 1, "dealt out evenly, batches of 1", DARK, "--"),
        ("sorted", 16, "quietest first, batches of 16", BLUE, "-."),
    )
    largest = max(float(np.abs(sample).max()) for sample in questions.subjects["even"].values[EVEN])
    for subject, size, name, colour, line in lines:
        maxima = np.array([np.abs(sample).max() for sample in questions.subjects[subject].values[EVEN]])
        seen, ranges = _growth(maxima.reshape(-1, size).max(axis=1), size)
        ax.step(seen, ranges, where="post", linestyle=line, color=colour, linewidth=2, label=f"R, {name}")
    ax.axhline(largest, color="#777777", linestyle=":", linewidth=1.6)
    ax.annotate("largest |x| of all samples", (17, largest), xytext=(0, 4), textcoords="offset points", color="#555555")
    ax.set_xscale("log")
    ax.set_xlim(1, len(questions.subjects["even"].values[EVEN]))
    ax.set_xticks([1, 16, 32, 64, 128, 256, 512], ["1", "16", "32", "64", "128", "256", "512"])
    ax.minorticks_off()
    ax.set_ylim(bottom=0)
    ax.set_xlabel("samples seen (log)")
    ax.set_ylabel("|x|")
    ax.set_title("Range of x over the same 512 samples: even batches start high, and still double once")
    ax.legend(loc="upper left")
    return figure


def _growth(batches: np.ndarray[tuple[int], np.dtype[np.float32]], size: int) -> tuple[list[int], list[float]]:
    """Return the samples seen when each batch begins, and the range with it; the last range again at the end."""
    range_ = float(batches[0])
    ranges = []
    for top in batches.tolist():
        while range_ < top:
            range_ *= 2
        ranges.append(range_)
    return [1 + size * batch for batch in range(len(ranges))] + [size * len(ranges)], [*ranges, ranges[-1]]


def _robust(questions: Questions) -> Figure:
    study = questions.subjects["robust"].study
    tensors = data_tensors(study)
    moved = [
        [
            float(tensor.outcomes[[c.name for c in study.configurations].index(name)].change or 0)
            for name in ROBUST_SIZES
        ]
        for tensor in tensors
    ]
    figure, ax = new_figure(3.8)
    ax.imshow(moved, cmap="RdBu_r", vmin=-MOST_CHANGE, vmax=MOST_CHANGE, aspect="auto")
    for row, tensor in enumerate(tensors):
        for column, name in enumerate(ROBUST_SIZES):
            cell = change(study, tensor, name)
            colour = "white" if abs(moved[row][column]) > DARK_FROM else "black"
            text = "same bits" if cell == "=" else cell
            ax.annotate(text, (column, row), ha="center", va="center", fontsize=10, color=colour)
    ax.set_xticks(range(len(ROBUST_SIZES)), [name[1:] for name in ROBUST_SIZES])
    ax.set_yticks(range(len(tensors)), [tensor.name for tensor in tensors])
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    ax.set_xlabel("batch size")
    ax.set_title("Scales of the bounded model against those of one batch of all samples")
    return figure


def _orders(questions: Questions) -> Figure:
    figure, axes = new_figure(3.8, ncols=2, sharey=True)
    shown: Sequence[tuple[str, str, str]] = (
        ("digits", LAST, f"{LAST}, embedded sample"),
        ("outlier", "relu", "relu, generated, one huge value"),
    )
    for ax, (subject, tensor, title) in zip(axes, shown, strict=True):
        for position, size in enumerate(ORDER_SIZES):
            ranges, _, _ = over_orders(questions.subjects[subject], tensor, size)
            # Beside each other, so that equal ranges do not hide one another.
            beside = position + np.linspace(-0.22, 0.22, len(ranges))
            ax.plot(beside, ranges, "o", color=DARK, markerfacecolor=PALE, markersize=6)
        ax.axhspan(1, 2, color=GREY, zorder=0, linewidth=0)
        ax.set_xticks(range(len(ORDER_SIZES)), [str(size) for size in ORDER_SIZES])
        ax.set_ylim(0.8, 2.2)
        ax.set_xlabel("batch size")
        ax.set_title(title)
    axes[0].set_ylabel("final range / true maximum")
    axes[0].annotate("at least 1, below 2", (-0.3, 2.06), color="#555555")
    return figure
