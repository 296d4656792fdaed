"""Accuracy results as pictures; a row per method, node or candidate, so that long names have room."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from trtcalib.accuracy.result import (
    Ablation,
    Judgement,
    LayerSensitivity,
    MetricFacts,
    Range,
    Sensitivity,
    Setting,
    Sweep,
)
from trtcalib.views import accuracy_rows as rows
from trtcalib.views import accuracy_text as words
from trtcalib.views.plots import format_figure
from trtcalib.views.text import shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["plot_ablation", "plot_sensitivity", "plot_sweep"]

MOST_ROWS = 30
"""Methods, nodes or candidates of a picture; more would not fit a page. The JSON file holds them all."""

# From Okabe and Ito's palette for the colour-blind (2008); each column has its own mark as well.
_STYLES = {
    "weights per tensor": ("#e69f00", "s"),
    "weights per channel": ("#009e73", "^"),
    "activations": ("#cc79a7", "D"),
    rows.BOTH: ("#0072b2", "o"),
}
_BAR, _DOT, _WINNER, _BAND = "#0072b2", "#d55e00", "#d55e00", "#999999"

_WIDTH, _HEAD = 10.0, 1.7
"""Inches of a picture, and of what stands above and below its rows."""

_LONGEST_NAME = 36

_LARGEST = 1e6
"""Share of the signal, or a metric's value, from which nothing beside it could be seen: it stands as words."""

_EDGE: dict[str, Any] = {"markeredgecolor": "white", "markeredgewidth": 0.6}


def plot_ablation(ablation: Ablation, kind: str) -> bytes:
    """Return the ablation as ``png`` or ``svg``: per method a dot per part of the model with its interval, beside FP32's band."""
    methods = ablation.rows[:MOST_ROWS]
    marks = [rows.mark(ablation, row.method) for row in methods]
    names = [f"{mark}{mark and ' '}{shortened(row.method, _LONGEST_NAME)}" for row, mark in zip(methods, marks)]
    figure, (axes,) = _rows(names, 1, 0.62)
    metric = ablation.metric
    samples = words.counted(ablation.evaluation.samples, "sample")
    tied = "; ~ cannot be told from it" if ablation.indistinguishable else ""
    lines = [f"{samples}; bars are 95 % intervals; * loses least with both{tied}"]
    _title(figure, ablation, "What INT8 costs, part by part", [*lines, *_more(len(ablation.rows), "methods")])
    for offset, (column, (colour, marker)) in enumerate(_STYLES.items()):
        axes.plot([], [], marker, color=colour, label=column)
        for place, row in enumerate(methods):
            cell = rows.ablation_cells(row).get(column)
            if cell is not None:
                height = place + (offset - 1.5) * 0.19
                _dot(axes, metric, height, cell.judgement, (colour, marker))
    _band(axes, ablation)
    axes.set_xlabel(_axis(metric), parse_math=False)
    _legend(figure, axes)
    return format_figure(figure, kind)


def _dot(axes: Axes, metric: MetricFacts, height: float, judged: Judgement, style: tuple[str, str]) -> None:
    """Draw a value with its interval; an infinite one stands as words at the side on which it lies."""
    colour, marker = style
    if judged.value is None:
        across = axes.get_yaxis_transform()
        said, is_worst = words.judged_value(metric, judged), judged.loss > 0
        side, near = (0.025, 0.01) if is_worst else (0.975, 0.99)
        align: Literal["left", "right"] = "left" if is_worst else "right"
        axes.text(side, height, said, color=colour, transform=across, ha=align, va="center", size=7)
        axes.plot(near, height, marker, color=colour, transform=across, markersize=5)
        return
    factor = _factor(metric)
    _interval(axes, height, judged.value, (judged.interval, factor), colour)
    axes.plot(factor * judged.value, height, marker, color=colour, markersize=6, **_EDGE)


def _interval(axes: Axes, height: float, number: float, between: tuple[Range | None, float], colour: str) -> None:
    """Draw an interval, times a factor; an end without a number stands at the value."""
    found, factor = between
    if found is not None:
        low = number if found.low is None else found.low
        high = number if found.high is None else found.high
        if max(abs(low), abs(high)) < _LARGEST:
            axes.hlines(height, factor * low, factor * high, color=colour, linewidth=1.6)


def _band(axes: Axes, setting: Setting) -> None:
    number, between, factor = setting.reference.value, setting.reference.interval, _factor(setting.metric)
    if setting.metric.name == "sqnr" or number is None:
        return
    axes.axvline(factor * number, color="black", linewidth=1.2, linestyle="--", label=words.FP32)
    if between is not None and between.low is not None and between.high is not None:
        label = f"{words.FP32}'s interval"
        axes.axvspan(factor * between.low, factor * between.high, color=_BAND, alpha=0.25, linewidth=0, label=label)


def plot_sweep(sweep: Sweep, kind: str) -> bytes:
    """Return the sweep as ``png`` or ``svg``: the loss of the best candidates in the order tried, the winner marked."""
    shown = sorted(rows.ranked(sweep)[:MOST_ROWS], key=lambda item: item[0])
    names = [f"{shortened(candidate.method, _LONGEST_NAME)}  {place}" for place, candidate in shown]
    figure, (axes,) = _rows(names, 1, 0.28)
    by = rows.searched_by(sweep)
    factor = _loss_factor(by)
    searched = (
        f"candidates compared on {words.counted(sweep.searched.samples, 'calibration sample')}, in the order tried"
    )
    gain = f"winner against entropy on {words.counted(sweep.evaluation.samples, 'held-out sample')}: {words.gain(sweep.metric, sweep.gain)}"
    between = words.gain_interval(sweep.metric, sweep.gain_interval)
    lines = [searched, f"{gain}{between and ' '}{between}", *_more(len(sweep.candidates), "candidates that lose more")]
    _title(figure, sweep, "Which method loses least", lines)
    for height, (_, candidate) in enumerate(shown):
        judged, won = candidate.judgement, rows.is_winner(sweep, candidate)
        colour, marker = (_WINNER, "*") if won else (_BAR, "o")
        if abs(judged.loss) >= _LARGEST:
            _say(axes, height, words.judged_value(by, judged))
            continue
        _interval(axes, height, judged.loss, (judged.loss_interval, factor), colour)
        axes.plot(factor * judged.loss, height, marker, color=colour, markersize=13 if won else 6, **_EDGE)
    axes.plot([], [], "*", color=_WINNER, markersize=11, label="winner")
    axes.plot([], [], "o", color=_BAR, label="candidate, with its 95 % interval")
    axes.axvline(0, color="black", linewidth=1.0, linestyle="--", label=words.FP32)
    axes.set_xlabel(_loss_axis(by), parse_math=False)
    _legend(figure, axes)
    return format_figure(figure, kind)


def plot_sensitivity(sensitivity: Sensitivity, kind: str) -> bytes:
    """Return the most sensitive nodes as ``png`` or ``svg``: what each costs alone, what it gains in float, and its SQNR alone."""
    layers, metric = sensitivity.layers[:MOST_ROWS], sensitivity.metric
    factor = _loss_factor(metric)
    left_out = set(sensitivity.fallback.outputs) if sensitivity.fallback else set()
    names = [_node(layer, in_float=layer.output in left_out) for layer in layers]
    figure, (axes, ratios) = _rows(names, 2, 0.27)
    samples = words.counted(sensitivity.evaluation.samples, "sample")
    lines = [f"{samples}{'; * is left in float' if left_out else ''}"]
    _title(
        figure, sensitivity, "What each node costs", [*lines, *_more(len(sensitivity.layers), "nodes that cost less")]
    )
    heights = range(len(layers))
    losses = [factor * _drawable(layer.only_loss) for layer in layers]
    gains = [factor * _drawable(layer.gain) for layer in layers]
    axes.barh(heights, losses, color=_BAR, height=0.66, label="loss, this node alone in INT8")
    axes.plot(gains, heights, "D", color=_DOT, label="gain, this node alone in float", **_EDGE)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_xlabel(_loss_axis(metric), parse_math=False)
    ratios.barh(heights, [layer.only_sqnr_db or 0.0 for layer in layers], color=_BAND, height=0.66)
    for height, layer in enumerate(layers):
        if layer.only_sqnr_db is None:
            _say(ratios, height, rows.no_decibels(layer))
        if abs(layer.only_loss) >= _LARGEST:
            _say(axes, height, "only noise")
    ratios.set_xlabel("SQNR, this node alone in INT8\n(dB; more is better)")
    _legend(figure, axes)
    return format_figure(figure, kind)


def _drawable(number: float) -> float:
    return number if abs(number) < _LARGEST else 0.0


def _say(axes: Axes, height: float, said: str) -> None:
    axes.text(0.02, height, said, transform=axes.get_yaxis_transform(), va="center", size=8)


def _node(layer: LayerSensitivity, *, in_float: bool) -> str:
    mark = "* " if in_float else ""
    return f"{mark}{shortened(rows.node_name(layer), _LONGEST_NAME)} ({shortened(layer.operator, 20)})  {layer.rank}"


def _rows(names: Sequence[str], panels: int, height: float) -> tuple[Figure, list[Axes]]:
    """Return a figure of one row per name, the first at the top, ``height`` inches each, and its panels."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDTH, _HEAD + height * max(len(names), 3)), layout="constrained")
    found = figure.subplots(1, panels, sharey=True, squeeze=False)[0]
    panels_ = list(found)
    # Names are text, never matplotlib's mathematics.
    panels_[0].set_yticks(range(len(names)), names, parse_math=False)
    panels_[0].set_ylim(max(len(names), 1) - 0.5, -0.5)
    for axes in panels_:
        axes.grid(axis="x", color="#dddddd", linewidth=0.6)
        axes.set_axisbelow(True)
        for edge in ("top", "right"):
            axes.spines[edge].set_visible(False)
    return figure, panels_


def _title(figure: Figure, setting: Setting, what: str, lines: Sequence[str]) -> None:
    first = f"{what}: {shortened(setting.model.path, 50)}"
    said = [first, *lines, *([words.SIMULATED] if setting.simulated else [])]
    figure.suptitle("\n".join(said), parse_math=False, fontsize=10)


def _legend(figure: Figure, axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    legend = figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize="small", frameon=False)
    for text in legend.get_texts():
        text.set_parse_math(False)


def _more(found: int, things: str) -> list[str]:
    return [f"{found - MOST_ROWS} more {things} are in the JSON file"] if found > MOST_ROWS else []


def _factor(metric: MetricFacts) -> float:
    return 100.0 if words.is_percent(metric) else 1.0


def _loss_factor(metric: MetricFacts) -> float:
    return 100.0 if metric.name == "sqnr" else _factor(metric)


def _axis(metric: MetricFacts) -> str:
    unit = " (dB)" if metric.name == "sqnr" else " (%)" if words.is_percent(metric) else ""
    return f"{shortened(metric.name, 60)}{unit}"


def _loss_axis(metric: MetricFacts) -> str:
    if metric.name == "sqnr":
        return "noise, % of the signal"
    unit = ", points" if words.is_percent(metric) else ""
    return f"loss of {shortened(metric.name, 40)}\nagainst {words.FP32}{unit}"
