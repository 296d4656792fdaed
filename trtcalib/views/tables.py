"""Calibrations and caches as tables for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.table import Table
from rich.text import Text

from trtcalib.calibration import Calibration
from trtcalib.core.cache import CalibrationCache
from trtcalib.core.scale import amax_from_scale
from trtcalib.manifest import Finding, TensorFacts
from trtcalib.views.text import shortened

if TYPE_CHECKING:
    from trtcalib.crosscheck import Crosscheck
    from trtcalib.trt.inspection import Inspection

__all__ = ["agreement_table", "cache_table", "comparison_table", "finding_lines", "layer_table"]


def comparison_table(calibrations: Mapping[str, Calibration]) -> Table:
    """Show one model under several methods; range, bin and scale are those of the first."""
    first = next(iter(calibrations.values()))
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("tensor", overflow="fold")
    for heading in ("range", "bins", *(f"amax {method}" for method in calibrations), "scale"):
        table.add_column(Text(heading), justify="right", no_wrap=True)  # Text: a method's name is no markup
    origins = first.origins
    amax = {method: calibration.amax for method, calibration in calibrations.items()}
    for name, scale in first.scales.items():
        origin = origins[name]
        histogram = first.histograms.get(origin)
        m = first.clips[origin].bin_m
        bins = f"{m or '-'}/{histogram.bins}" if histogram else "-"
        numbers = (_number(float(amax[method][name])) for method in calibrations)
        label = Text(shortened(name))
        if origin != name:
            label.append(f"  = {shortened(origin)}", style="dim")
        table.add_row(label, _number(float(histogram.range)) if histogram else "-", bins, *numbers, f"{scale:.8g}")
    return table


def cache_table(cache: CalibrationCache, facts: Sequence[TensorFacts] = ()) -> Table:
    """Show a calibration cache; with a manifest's facts, where each scale came from too."""
    by_name = {fact.name: fact for fact in facts}
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("tensor", overflow="fold")
    for heading in ("hex", "scale", "amax", *(("range", "m") if facts else ())):
        table.add_column(heading, justify="right", no_wrap=True)
    for entry in cache.entries:
        cells = [f"{entry.bits:x}", f"{entry.scale:.8g}", _number(float(amax_from_scale(entry.scale)))]
        label = Text(shortened(entry.name))
        fact = by_name.get(entry.name)
        if fact and fact.inherited_from:
            label.append(f"  = {shortened(fact.inherited_from)}", style="dim")
        if facts:
            cells.append(_number(fact.range) if fact and fact.range is not None else "-")
            cells.append(str(fact.bin_m) if fact and fact.bin_m is not None else "-")
        table.add_row(label, *cells)
    return table


def agreement_table(result: Crosscheck) -> Table:
    """Show TensorRT's scales beside ours; those that do not agree first."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("tensor", overflow="fold")
    table.add_column("verdict", no_wrap=True)
    for heading in ("TensorRT's bin", "ours", "off by", "ULP", "TensorRT's scale", "our scale"):
        table.add_column(heading, justify="right", no_wrap=True)
    for tensor in sorted(result.tensors, key=lambda tensor: tensor.agrees or tensor.ours is None):
        label = Text(shortened(tensor.name))
        if tensor.origin is not None:
            label.append(f"  = {shortened(tensor.origin)}", style="dim")
        off = tensor.bins_off
        table.add_row(
            label,
            tensor.verdict
            if tensor.verdict != "bins off" or off is None
            else f"{abs(off)} bin{'s' * (abs(off) != 1)} off",
            *("-" if value is None else str(value) for value in (tensor.their_bin, tensor.our_bin, off, tensor.ulp)),
            f"{tensor.theirs:.8g}",
            "-" if tensor.ours is None else f"{tensor.ours:.8g}",
        )
    return table


def layer_table(inspection: Inspection) -> Table:
    """Show an engine's layers; the column of reasons only where there is one."""
    reasons = any(layer.reason for layer in inspection.layers)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("layer", overflow="fold")
    for heading in ("type", "precision"):
        table.add_column(heading, no_wrap=True)
    table.add_column("formats", overflow="fold")
    if reasons:
        table.add_column("why not INT8", overflow="fold")
    for layer in inspection.layers:
        formats = " | ".join(dict.fromkeys(layer.formats))
        cells = [layer.name, layer.type, layer.precision, formats, *([layer.reason] if reasons else [])]
        table.add_row(*(Text(shortened(cell, 400)) for cell in cells))
    return table


def finding_lines(findings: Sequence[Finding], most: int = 20) -> list[str]:
    """Return one line per finding, the rest counted."""
    lines = [f"{finding.code}: {shortened(finding.message, 400)}" for finding in findings[:most]]
    if len(findings) > most:
        lines.append(f"... and {len(findings) - most} more findings, in the manifest")
    return lines


def _number(value: float) -> str:
    return f"{value:.5g}"
