"""``trtcalib check-builder``: what NVIDIA's TensorRT-RTX parser and ahead-of-time builder say of a Q/DQ model; no GPU."""

from __future__ import annotations

import json as json_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trtcalib.cli import options

if TYPE_CHECKING:
    from trtcalib.trt.conformance_values import Conformance

EXAMPLE = "Example: trtcalib check-builder model.onnx --compute-capability 86,89"

SHOWN_NODES = 200
"""Rows of the table, those that would not run in INT8 first; Rich takes over a second for a thousand."""


def check_builder(
    model: Annotated[
        Path, typer.Argument(metavar="OUT.onnx", help="The model with its Q/DQ nodes.", show_default=False)
    ],
    compute_capability: Annotated[
        str, typer.Option("--compute-capability", metavar="80,86,...", help="What to build for, such as 86 for SM 8.6.")
    ] = "80,86,89,120",
    timeout: Annotated[
        float, typer.Option("--timeout", metavar="S", help="Seconds for each compute capability.")
    ] = 300.0,
    shapes: options.Shapes = None,
    json: options.Json = False,
) -> None:
    """Ask NVIDIA's TensorRT-RTX parser and builder, without a GPU: is the model accepted, and what would run in float?

    Exit 0 if all is accepted and every weighted node has INT8 inputs, 1 if not. Speed, accuracy and the kernels that run take a GPU to know.
    """
    wanted = parse_capabilities(compute_capability)
    if not 0 < timeout < float("inf"):
        raise typer.BadParameter(f"found {timeout}, expected seconds above 0", param_hint="--timeout")
    from trtcalib.engine_spec import parse_shapes
    from trtcalib.trt.conformance import check_model

    result = check_model(
        model, compute_capabilities=wanted, timeout=timeout, shapes=parse_shapes(shapes) if shapes else None
    )
    if json:
        typer.echo(json_module.dumps(result.as_json(), indent=2, allow_nan=False))
    else:
        _show(result)
    if not result.passed:
        raise typer.Exit(1)


def parse_capabilities(text: str) -> tuple[int, ...]:
    """Return the numbers of ``80,86``; whether TensorRT-RTX builds for them, it says itself.

    Raises:
        typer.BadParameter: If the text is no such list.
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() and len(part) < 5 for part in parts):  # noqa: PLR2004 - digits
        raise typer.BadParameter(
            f"found {text!r}, expected numbers such as 80,86,89,120", param_hint="--compute-capability"
        )
    return tuple(int(part) for part in parts)


def _show(result: Conformance) -> None:
    from trtcalib.views.conformance_table import conformance_lines, node_table

    rows = [*result.in_float, *(node for node in result.nodes if node.int8_inputs)]
    if rows:
        options.print_table(node_table(rows[:SHOWN_NODES]))
    if len(rows) > SHOWN_NODES:
        typer.echo(f"... {len(rows) - SHOWN_NODES} more; --json lists all")
    for line in conformance_lines(result):
        typer.echo(line)
