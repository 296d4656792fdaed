"""What TensorRT-RTX says of a model, for the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Sized
from typing import TYPE_CHECKING

from rich import box
from rich.table import Table
from rich.text import Text

from trtcalib.views.text import shortened

if TYPE_CHECKING:
    from trtcalib.trt.conformance_values import BuildOutcome, Conformance, NodeVerdict

__all__ = ["conformance_lines", "node_table"]

SHOWN_MESSAGES = 10
"""Faults, and warnings, of one step that are shown."""

LONGEST_MESSAGE = 600


def node_table(nodes: Sequence[NodeVerdict]) -> Table:
    """Show weighted nodes: what the parser made of each, and why it would not run in INT8."""
    reasons = any(node.reasons for node in nodes)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("node", overflow="fold")
    for heading in ("operator", "layer", "INT8 inputs"):
        table.add_column(heading, no_wrap=True)
    if reasons:
        table.add_column("why not", overflow="fold")
    for node in nodes:
        cells = [
            node.node or node.layer or "-",
            node.operator or "-",
            node.kind or "-",
            "yes" if node.int8_inputs else "no",
            *(["; ".join(node.reasons)] if reasons else []),
        ]
        table.add_row(*(Text(shortened(cell, LONGEST_MESSAGE)) for cell in cells))
    return table


def conformance_lines(result: Conformance) -> Iterator[str]:
    """Yield what is to be said below the table, the verdict last."""
    who = f"TensorRT-RTX {result.tensorrt_rtx_version or '(its version is not known)'}"
    name = shortened(result.model)
    if result.parser != "accepted":
        yield f"{name}: {result.parser} by the parser of {who}"
    yield from _messages("fault", result.parser_faults)
    yield from _messages("parser warning, which counts as a failure", result.parser_warnings)
    for build in result.builds:
        yield _build_line(build, who)
        if build.told_int8 is not None:
            total = build.told_int8 + len(build.told_float)
            yield f"  by the builder's own list, {build.told_int8} of {total} weighted node{'s' * (total != 1)} that it tells of take INT8"
        yield from _messages("takes float by that list", build.told_float)
        yield from _messages("warning", build.warnings)
    if result.parser == "accepted":
        count = len(result.nodes) - len(result.in_float)
        yield f"{name}: {count} of {len(result.nodes)} weighted node{_s(result.nodes)} {'have' if len(result.nodes) != 1 else 'has'} INT8 inputs"
    if result.passed:
        yield f"{name}: accepted by {who}, ahead of time"
    elif result.accepted:
        floats = {node.node or node.layer for node in result.in_float}.union(
            *(build.told_float for build in result.builds)
        )
        yield f"{name}: accepted by {who}, ahead of time, but {len(floats)} weighted node{_s(floats)} would not run in INT8"
    elif result.parser_warnings and all(build.outcome == "accepted" for build in result.builds):
        warnings = result.parser_warnings
        yield f"{name}: not accepted: {who} takes it with {len(warnings)} parser warning{_s(warnings)}"
    else:
        yield f"{name}: not accepted by {who}"


def _s(counted: Sized) -> str:
    return "s" * (len(counted) != 1)


def _build_line(build: BuildOutcome, who: str) -> str:
    target = f"SM{build.compute_capability}"
    if build.outcome != "accepted":
        return f"{target}: {build.outcome}: {shortened(build.reason, LONGEST_MESSAGE)}"
    size = "" if build.engine_bytes is None else f"; an engine of {build.engine_bytes / 1e6:.2f} MB"
    seconds = "" if build.seconds is None else f" in {build.seconds:.2f} s"
    return f"{target}: accepted by {who}, ahead of time{size}{seconds}"


def _messages(title: str, messages: Sequence[str]) -> Iterator[str]:
    for message in messages[:SHOWN_MESSAGES]:
        yield f"  {title}: {shortened(message, LONGEST_MESSAGE)}"
    if len(messages) > SHOWN_MESSAGES:
        yield f"  ... {len(messages) - SHOWN_MESSAGES} more; --json lists them"
