"""Accuracy results in the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from trtcalib.accuracy.result import (
    Ablation,
    AblationCell,
    Advice,
    Evaluation,
    Fallback,
    Sensitivity,
    Setting,
    Sweep,
)
from trtcalib.views import accuracy_rows as rows
from trtcalib.views import accuracy_text as words
from trtcalib.views.text import printable, shortened

__all__ = [
    "ablation_table",
    "advice_lines",
    "class_table",
    "evaluation_lines",
    "fallback_lines",
    "output_table",
    "sensitivity_table",
    "sweep_lines",
    "sweep_table",
]

SHOWN = 20
"""Rows of a table that has one per node, class or candidate; the JSON file holds them all."""

_LONGEST_NAME = 60

_LONGEST_METHOD = 40


def evaluation_lines(evaluation: Evaluation) -> Iterator[str]:
    """Yield what FP32 and the variant score, whether they differ, and what was quantized."""
    metric, judged, samples = evaluation.metric, evaluation.judgement, evaluation.evaluation.samples
    yield f"{printable(metric.name)} of {words.counted(samples, 'sample')}{_at(evaluation)}"
    yield f"  {words.reference(evaluation)}"
    engine = evaluation.engine
    variant = "INT8" if engine is None else f"engine {shortened(engine, _LONGEST_NAME)}"
    method = _method(evaluation.variant.method)
    yield f"  {variant} ({method}) {words.score(metric, judged)}: {words.full_change(metric, judged)}"
    if evaluation.only_reference is not None and evaluation.only_variant is not None:
        other = "INT8" if engine is None else "the engine"
        yield f"  right with {words.FP32} only: {evaluation.only_reference}; with {other} only: {evaluation.only_variant}"
    yield words.claim(metric, judged, samples)
    if evaluation.quantized is not None:
        of = "" if evaluation.weighted is None else f" of {evaluation.weighted}"
        yield f"{evaluation.quantized}{of} weighted nodes in INT8"
    if evaluation.simulated:
        yield words.SIMULATED


def _at(setting: Setting) -> str:
    return "" if setting.metric.output is None else f" at output {shortened(setting.metric.output, _LONGEST_NAME)}"


def output_table(evaluation: Evaluation, most: int | None = SHOWN) -> Table:
    """Show each output beside FP32's."""
    outputs = evaluation.judgement.outputs
    table = _table(_more(len(outputs), most, "outputs"))
    table.add_column("output", overflow="fold")
    for heading in ("SQNR", "cosine", "agreement", "largest difference"):
        table.add_column(heading, justify="right", overflow="fold")
    for output in outputs[:most]:
        table.add_row(
            Text(shortened(output.name, _LONGEST_NAME)),
            words.decibels(output.sqnr_db, "no difference"),
            "-" if output.cosine is None else f"{output.cosine:.5f}",
            "-" if output.agreement is None else words.share(output.agreement),
            "-" if output.largest_difference is None else f"{output.largest_difference:.5g}",
        )
    return table


def class_table(evaluation: Evaluation, most: int | None = SHOWN) -> Table:
    """Show the samples of each class, those classes first that lose most right samples."""
    ranked = sorted(evaluation.classes, key=lambda found: found.right - found.reference)
    table = _table(_more(len(ranked), most, "classes"))
    for heading in ("class", "samples", f"{words.FP32} right", "right", "95 % interval", "change"):
        table.add_column(heading, justify="right", overflow="fold")
    for found in ranked[:most]:
        table.add_row(
            str(found.label),
            str(found.samples),
            str(found.reference),
            str(found.right),
            Text(words.share_interval(found.interval)),
            f"{found.right - found.reference:+d}" if found.right != found.reference else "0",
        )
    return table


def ablation_table(ablation: Ablation) -> Table:
    """Show per method and part of the model the metric, the change from FP32, and the interval of that change below."""
    caption = [f"{words.reference(ablation)}, {words.counted(ablation.evaluation.samples, 'sample')}"]
    caption += [
        rows.best_line(ablation, _method),
        rows.weights_line(ablation, _method),
        rows.cell_line(ablation.metric),
    ]
    table = _table("\n".join(filter(None, caption)))
    table.add_column("method", overflow="fold")
    for heading in (*rows.ABLATION_COLUMNS, *rows.noise_headings(ablation.metric)):
        table.add_column(heading, justify="right", overflow="fold")
    for row in ablation.rows:
        cells = rows.ablation_cells(row)
        shown = [_cell(ablation, cells.get(column)) for column in rows.ABLATION_COLUMNS]
        if row.method == ablation.best:
            shown[-1].stylize("bold")
        mark = rows.mark(ablation, row.method)
        noise = rows.noise_cells(ablation.metric, row)
        table.add_row(Text(f"{mark}{mark and ' '}{_method(row.method)}"), *shown, *noise)
    return table


def _cell(ablation: Ablation, cell: AblationCell | None) -> Text:
    if cell is None:
        return Text("-")
    first, second = rows.cell_lines(ablation.metric, cell.judgement)
    return Text(f"{first}\n{second}" if second else first)


def sweep_table(sweep: Sweep, most: int | None = SHOWN) -> Table:
    """Show the candidates on the samples that they were compared on, those that lose least first."""
    ranked, metric = rows.ranked(sweep), rows.searched_by(sweep)
    searched = words.counted(sweep.searched.samples, "calibration sample")
    caption = [f"compared on {searched}; * is the winner", *filter(None, [_more(len(ranked), most, "candidates")])]
    table = _table("\n".join(caption))
    table.add_column("tried", justify="right", overflow="fold")
    table.add_column("method", overflow="fold")
    for heading in (printable(metric.name), f"against {words.FP32}", "95 % interval"):
        table.add_column(Text(heading), justify="right", overflow="fold")
    for place, candidate in ranked[:most]:
        judged, won = candidate.judgement, rows.is_winner(sweep, candidate)
        table.add_row(
            f"{'* ' if won else ''}{place}",
            Text(_method(candidate.method)),
            words.judged_value(metric, judged),
            words.change(metric, judged.loss),
            Text(words.change_interval(metric, judged.loss_interval)),
            style="bold" if won else None,
        )
    return table


def sweep_lines(sweep: Sweep) -> Iterator[str]:
    """Yield how baseline and winner do on the held-out samples, and whether the gain is a claim."""
    metric = sweep.metric
    held = "held-out sample" if sweep.held_out else "sample"
    yield f"{printable(metric.name)} of {words.counted(sweep.evaluation.samples, held)}: {words.reference(sweep)}"
    for name, candidate in (("baseline", sweep.baseline), ("winner", sweep.winner)):
        judged = candidate.judgement
        method = _method(candidate.method)
        yield f"  {name} {method}: {words.judged_text(metric, judged)}"
    yield words.gain_claim(sweep)
    if sweep.simulated:
        yield words.SIMULATED


def sensitivity_table(sensitivity: Sensitivity, most: int | None = SHOWN) -> Table:
    """Show what each node costs alone, and what leaving it in float gains, most sensitive first."""
    layers = sensitivity.layers
    caption = [rows.full_line(sensitivity), *filter(None, [_more(len(layers), most, "nodes")])]
    table = _table("\n".join(caption))
    table.add_column("rank", justify="right", overflow="fold")
    table.add_column("node", overflow="fold")
    table.add_column("operator", overflow="fold")
    for heading in rows.layer_headings(sensitivity.metric):
        table.add_column(heading, justify="right", overflow="fold")
    known = rows.known_macs(sensitivity)
    for layer in layers[:most]:
        table.add_row(
            str(layer.rank),
            Text(shortened(rows.node_name(layer), _LONGEST_NAME)),
            Text(shortened(layer.operator, _LONGEST_NAME)),
            *rows.layer_cells(sensitivity.metric, layer, known),
        )
    return table


def fallback_lines(sensitivity: Sensitivity) -> Iterator[str]:
    """Yield the nodes to leave in float, what that reaches, and for each tool a line to be pasted; nothing without such a set."""
    fallback = sensitivity.fallback
    if fallback is None:
        return
    yield f"left in float, {words.counted(len(fallback.nodes), 'node')}: {_listed(fallback.nodes)}"
    yield rows.reached(sensitivity.metric, fallback)
    yield from _dialects(fallback)


def _dialects(fallback: Fallback) -> Iterator[str]:
    for tool, line in fallback.dialects.items():
        yield f"{printable(tool)}:"
        yield printable(line)


def advice_lines(advice: Advice) -> Iterator[str]:
    """Yield each thing to do with what was measured and the commands, most important first."""
    metric = advice.metric
    samples = words.counted(advice.evaluation.samples, "sample")
    yield f"{printable(metric.name)} of {samples}: {words.reference(advice)}"
    yield f"entropy, everything in INT8: {words.judged_text(metric, advice.before)}"
    for place, item in enumerate(advice.items, start=1):
        yield f"{place}. {printable(item.title)}"
        yield from (f"   - {printable(evidence)}" for evidence in item.evidence)
        if item.checked is not None:
            yield f"   followed: {words.judged_text(metric, item.checked)}"
        if item.command is not None:
            yield from (f"   do: {printable(line)}" for line in item.command.splitlines())
        if item.reproduce is not None:
            yield f"   see: {printable(item.reproduce)}"
    if advice.after is not None:
        after = f"{words.judged_text(metric, advice.after)}"
        yield f"all of it followed: {after}"
    if advice.simulated:
        yield words.SIMULATED


def _method(name: str) -> str:
    return shortened(name, _LONGEST_METHOD)


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(shortened(name, _LONGEST_NAME) for name in names[:SHOWN]) + more


def _more(found: int, most: int | None, things: str) -> str:
    return "" if most is None or found <= most else f"... and {found - most} more {things}, in the JSON file"


def _table(caption: str) -> Table:
    return Table(
        box=box.SIMPLE_HEAD,
        # Without edges and with two spaces between columns the ablation fits into 80 columns.
        show_edge=False,
        padding=(0, 1, 0, 0),
        caption=Text(caption) if caption else None,
        caption_justify="left",
        caption_style="",
    )
