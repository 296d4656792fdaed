"""What a row of an accuracy table says, for the terminal, Markdown and plots alike."""

from __future__ import annotations

from collections.abc import Callable

from trtcalib.accuracy.result import (
    Ablation,
    AblationCell,
    AblationRow,
    Candidate,
    Fallback,
    Judgement,
    LayerSensitivity,
    MetricFacts,
    Sensitivity,
    Sweep,
)
from trtcalib.views import accuracy_text as words

__all__ = [
    "ABLATION_COLUMNS",
    "BOTH",
    "ablation_cells",
    "best_line",
    "cell_line",
    "cell_lines",
    "full_line",
    "is_winner",
    "known_macs",
    "layer_cells",
    "layer_headings",
    "mark",
    "no_decibels",
    "node_name",
    "noise_cells",
    "noise_headings",
    "ranked",
    "reached",
    "searched_by",
    "weights_line",
]

BOTH = "both"
"""The column of the ablation with weights and activations in INT8."""

ABLATION_COLUMNS = ("weights per tensor", "weights per channel", "activations", BOTH)
"""Of every row, in this order."""


def ablation_cells(row: AblationRow) -> dict[str, AblationCell]:
    """Return a row's cells by their column, of :data:`ABLATION_COLUMNS`."""
    cells: dict[str, AblationCell] = {}
    for cell in row.cells:
        weights = f"weights per {cell.weights}"
        parts = (cell.activations, cell.weights != "float")
        name = {(True, True): BOTH, (True, False): "activations", (False, True): weights}.get(parts)
        if name is not None:
            cells.setdefault(name, cell)
    return cells


def cell_lines(metric: MetricFacts, judged: Judgement) -> tuple[str, str]:
    """Return a cell's two lines: the value with the change from FP32, and the interval of that change or nothing."""
    first = f"{words.judged_value(metric, judged)} {words.bare_change(metric, judged.loss)}"
    return first, words.change_interval(metric, judged.loss_interval)


def noise_headings(metric: MetricFacts) -> tuple[str, ...]:
    """Return the heading of :func:`noise_cells`; none where SQNR is what is judged anyway."""
    return () if metric.name == "sqnr" else ("SQNR of both",)


def noise_cells(metric: MetricFacts, row: AblationRow) -> tuple[str, ...]:
    """Return the SQNR with both in INT8, of the judged output or the lowest: it tells methods apart where few samples cannot."""
    if not noise_headings(metric):
        return ()
    cell = ablation_cells(row).get(BOTH)
    if cell is None:
        return ("-",)
    outputs = [found for found in cell.judgement.outputs if metric.output in (None, found.name)]
    known = [found.sqnr_db for found in outputs if found.sqnr_db is not None]
    return (words.decibels(min(known, default=None), "-"),)


def cell_line(metric: MetricFacts) -> str:
    """Return what the cells hold."""
    if metric.name == "sqnr":
        return "each cell: SQNR, the noise as a share of the signal, and its 95 % interval"
    points = ", in points" if words.is_percent(metric) else ""
    return f"each cell: value, change from {words.FP32}{points}, and the change's 95 % interval"


def mark(ablation: Ablation, method: str) -> str:
    """Return ``*`` for the best method, ``~`` for one that cannot be told from it, else nothing."""
    if method == ablation.best:
        return "*"
    return "~" if method in ablation.indistinguishable else ""


def best_line(ablation: Ablation, name: Callable[[str], str]) -> str:
    """Return what the marks mean; ``name`` makes a method's name fit for where it is shown."""
    line = f"* {name(ablation.best)} loses least with both"
    return f"{line}; ~ cannot be told from it on these samples" if ablation.indistinguishable else line


def weights_line(ablation: Ablation, name: Callable[[str], str]) -> str:
    """Return how ``both`` quantizes its weights where all rows agree in it, else nothing; ``name`` as in :func:`best_line`."""
    both = [cells[BOTH] for row in ablation.rows if BOTH in (cells := ablation_cells(row))]
    kinds = {(cell.weight_method, cell.weights) for cell in both}
    if len(kinds) != 1:
        return ""
    method, weights = kinds.pop()
    by = "" if method is None else f" by {name(method)}"
    return f"both: weights per {weights}{by}"


def ranked(sweep: Sweep) -> list[tuple[int, Candidate]]:
    """Return the candidates with the place at which they were tried, those that lose least first; of equals the winner."""
    tried = enumerate(sweep.candidates, start=1)
    return sorted(tried, key=lambda item: (item[1].judgement.loss, not is_winner(sweep, item[1])))


def searched_by(sweep: Sweep) -> MetricFacts:
    """Return the metric that candidates were compared by: without labels there, it is another one than in the end."""
    return sweep.search_metric or sweep.metric


def is_winner(sweep: Sweep, candidate: Candidate) -> bool:
    """Return whether a candidate is the method that won."""
    return (candidate.method, candidate.recipe) == (sweep.winner.method, sweep.winner.recipe)


def full_line(sensitivity: Sensitivity) -> str:
    """Return what everything in INT8 scores, beside FP32."""
    metric, full = sensitivity.metric, sensitivity.full
    samples = words.counted(sensitivity.evaluation.samples, "sample")
    everything = f"everything in INT8 {words.judged_text(metric, full)}"
    return f"{words.reference(sensitivity)}; {everything}; {samples}"


def layer_headings(metric: MetricFacts) -> tuple[str, ...]:
    """Return the headings of :func:`layer_cells`."""
    alone, gained = "alone", "gain in float"
    if metric.name == "sqnr":
        alone, gained = "noise alone", "noise less in float"
    elif words.is_percent(metric):
        alone, gained = "alone, points", "gain in float, points"
    return ("MACs", alone, "SQNR alone", gained, "clipped")


def layer_cells(metric: MetricFacts, layer: LayerSensitivity, known: int) -> tuple[str, ...]:
    """Return a node's share of ``known`` multiply-accumulates, what it costs alone, what it gains in float, and the clipped share."""
    return (
        "-" if layer.macs is None or not known else f"{100 * layer.macs / known:.1f} %",
        words.bare_change(metric, layer.only_loss),
        words.decibels(layer.only_sqnr_db, no_decibels(layer)),
        words.bare_gain(metric, layer.gain),
        "-" if layer.clipped_share is None else f"{100 * layer.clipped_share:.0f} %",
    )


def no_decibels(layer: LayerSensitivity) -> str:
    """Return what stands for a node's SQNR where there is none: it makes no noise, or nothing else is left."""
    return "-" if layer.only_loss > 0 else "no noise"


def known_macs(sensitivity: Sensitivity) -> int:
    """Return the multiply-accumulates of all nodes of which they are known."""
    return sum(layer.macs or 0 for layer in sensitivity.layers)


def node_name(layer: LayerSensitivity) -> str:
    """Return a node's name, or its first output's where it has none."""
    return layer.name or layer.output


def reached(metric: MetricFacts, fallback: Fallback) -> str:
    """Return what the nodes in float bring, whether that is enough, and how much stays in INT8."""
    between = words.change_interval(metric, fallback.loss_interval)
    found = f"{words.change(metric, fallback.loss)}{between and ' '}{between}"
    within = "within" if fallback.reached else "not within"
    line = f"{found} with them in float, {within} the {words.loss_amount(metric, fallback.max_loss)} that were allowed"
    if fallback.macs_int8 is not None:
        line += f"; {100 * fallback.macs_int8:.1f} % of the multiply-accumulates stay in INT8"
    return line
