"""Rows of report.csv for accuracy studies: one per thing that was judged."""

from __future__ import annotations

from collections.abc import Iterator

from trtcalib.accuracy.result import (
    Ablation,
    AblationCell,
    Advice,
    Evaluation,
    Judgement,
    Range,
    Score,
    Sensitivity,
    Setting,
    Sweep,
)
from trtcalib.reports.result import ReportedAccuracy

__all__ = ["ACCURACY_COLUMNS", "accuracy_rows"]

ACCURACY_COLUMNS = (
    "judged",
    "node",
    "metric",
    "value",
    "low",
    "high",
    "loss",
    "loss_low",
    "loss_high",
    "gain",
    "sqnr_db",
)
"""What these rows have beside ``source``, ``tensor``, ``kind`` and ``method``. ``low`` and ``high`` are the ends of the value's
interval with 95 % confidence; an empty ``value`` or ``sqnr_db`` is infinite: no noise."""

Cell = str | int | float | None

Row = dict[str, Cell]


def accuracy_rows(accuracy: ReportedAccuracy) -> Iterator[Row]:
    """Return the rows of all results, in the page's order."""
    for advice in accuracy.advice:
        yield from _complete(_advice(advice.result), advice.result, advice.file, "advice")
    for evaluation in accuracy.evaluations:
        yield from _complete(_evaluation(evaluation.result), evaluation.result, evaluation.file, "evaluation")
    for ablation in accuracy.ablations:
        yield from _complete(_ablation(ablation.result), ablation.result, ablation.file, "ablation")
    for sweep in accuracy.sweeps:
        yield from _complete(_sweep(sweep.result), sweep.result, sweep.file, "sweep")
    for sensitivity in accuracy.sensitivities:
        yield from _complete(_sensitivity(sensitivity.result), sensitivity.result, sensitivity.file, "sensitivity")


def _complete(rows: Iterator[Row], result: Setting, file: str, kind: str) -> Iterator[Row]:
    told: Row = {"source": file, "kind": kind, "metric": result.metric.name}
    yield {**told, **_score("FP32", result.reference)}
    for row in rows:
        yield {**told, **row}


def _score(judged: str, score: Score) -> Row:
    return {"judged": judged, "value": score.value, **_ends("", score.interval)}


def _judgement(judged: str, judgement: Judgement) -> Row:
    return {**_score(judged, judgement), "loss": judgement.loss, **_ends("loss_", judgement.loss_interval)}


def _ends(prefix: str, interval: Range | None) -> Row:
    return {} if interval is None else {f"{prefix}low": interval.low, f"{prefix}high": interval.high}


def _advice(result: Advice) -> Iterator[Row]:
    yield _judgement("INT8 without advice", result.before)
    for position, item in enumerate(result.items, 1):
        if item.checked is not None:
            yield _judgement(f"advice {position}: {item.code}", item.checked)
    if result.after is not None:
        yield _judgement("INT8 with all advice", result.after)


def _evaluation(result: Evaluation) -> Iterator[Row]:
    yield {**_judgement("INT8", result.judgement), "method": result.variant.method}
    for output in result.judgement.outputs:
        yield {"judged": "INT8, this output", "tensor": output.name, "sqnr_db": output.sqnr_db}
    for of in result.classes:
        for judged, right, interval in (("FP32", of.reference, of.reference_interval), ("INT8", of.right, of.interval)):
            share = right / of.samples if of.samples else None
            yield {"judged": f"{judged}, class {of.label}", "value": share, **_ends("", interval)}


def _ablation(result: Ablation) -> Iterator[Row]:
    for row in result.rows:
        for cell in row.cells:
            yield {**_judgement(_part(cell), cell.judgement), "method": row.method}


def _part(cell: AblationCell) -> str:
    if cell.weights == "float":
        return "activations"
    return "both" if cell.activations else f"weights per {cell.weights}"


def _sweep(result: Sweep) -> Iterator[Row]:
    metric = (result.search_metric or result.metric).name
    for candidate in result.candidates:
        yield {**_judgement("searched", candidate.judgement), "method": candidate.method, "metric": metric}
    yield {**_judgement("held-out, baseline", result.baseline.judgement), "method": result.baseline.method}
    yield {
        **_judgement("held-out, chosen", result.winner.judgement),
        "method": result.winner.method,
        "gain": result.gain,
    }


def _sensitivity(result: Sensitivity) -> Iterator[Row]:
    yield {**_judgement("everything in INT8", result.full), "method": result.variant.method}
    for layer in result.layers:
        told: Row = {"node": layer.name, "tensor": layer.output, "method": result.variant.method}
        alone: Row = {"judged": "this node alone in INT8", "loss": layer.only_loss, "sqnr_db": layer.only_sqnr_db}
        yield {**told, **alone}
        without: Row = {"judged": "all but this node in INT8", "loss": layer.all_but_loss, "gain": layer.gain}
        yield {**told, **without, "sqnr_db": layer.all_but_sqnr_db}
