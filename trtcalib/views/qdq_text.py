"""The result of a Q/DQ conversion as lines of text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from trtcalib.qdq_files import QdqReport
from trtcalib.views.text import shortened

__all__ = ["float_lines", "note_lines", "summary_lines"]

_SHOWN_NAMES = 5


def summary_lines(report: QdqReport) -> Iterator[str]:
    """Yield what was quantized and what became of the cache's names."""
    coverage = report.coverage
    macs = "" if coverage.macs_share is None else f", {coverage.macs_share:.1%} of the multiply-accumulates"
    adds = f"; residuals of {coverage.residuals} skip Adds" if coverage.residuals else ""
    half = "" if coverage.float16_nodes is None else f"; {coverage.float16_nodes} nodes in float16"
    yield f"{coverage.quantized} of {coverage.weighted} weighted nodes quantized{macs}{adds}{half}"
    yield (
        f"names of the cache: {len(coverage.matched)} used, {len(coverage.unused)} not needed, "
        f"{len(coverage.stale)} not in the model{_named(coverage.stale)}"
    )
    if coverage.missing:
        yield f"without a usable scale: {len(coverage.missing)} tensors{_named([m.tensor for m in coverage.missing])}"
    for fill in coverage.filled:
        yield f"filled in: {shortened(fill.tensor)} = {fill.scale:.6g} ({shortened(fill.rule)})"
    if coverage.floored:
        yield f"raised to the smallest scale that TensorRT takes: {len(coverage.floored)} tensors{_named(coverage.floored)}"
    if coverage.folded:
        yield f"BatchNormalizations folded into the convolution before: {len(coverage.folded)}"


def float_lines(report: QdqReport, most: int) -> Iterator[str]:
    """Yield a line per weighted node and skip Add that stays float.

    Args:
        report: The result.
        most: Lines before the rest is counted.
    """
    floats = [node for node in report.coverage.nodes if not node.quantized]
    for node in floats[:most]:
        label = node.name or node.output
        yield f"float: {node.operator} {shortened(label)}: {shortened(node.reason or '', 400)}"
    if len(floats) > most:
        yield f"... and {len(floats) - most} more that stay float; --report lists all"
    if not report.coverage.weighted:
        yield "the model has no Conv, ConvTranspose, MatMul or Gemm: there is nothing to quantize"


def note_lines(report: QdqReport) -> Iterator[str]:
    """Yield what was odd in the cache, and patterns that excluded nothing."""
    yield from (shortened(note, 400) for note in report.notes)


def _named(names: Sequence[str]) -> str:
    if not names:
        return ""
    rest = ", ..." if len(names) > _SHOWN_NAMES else ""
    return f" ({', '.join(map(shortened, names[:_SHOWN_NAMES]))}{rest})"
