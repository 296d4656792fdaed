"""``trtcalib qdq``: model + calibration cache -> a model with Q/DQ nodes, for TensorRT 11 and all that take no cache."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trtcalib.cli import options

if TYPE_CHECKING:
    from trtcalib.qdq.prepared import QdqOptions
    from trtcalib.qdq_files import QdqReport

EXAMPLE = "Example: trtcalib qdq model.onnx model.cache -o model-int8.onnx --report report.json"

SHOWN_NODES = 50
"""Float nodes that are listed; the report has all of them."""


def qdq(
    model: Annotated[Path, typer.Argument(metavar="MODEL.onnx", help="The float ONNX model.", show_default=False)],
    cache: Annotated[
        Path,
        typer.Argument(
            metavar="CACHE", help="Its calibration cache, or a table of ranges as cache diff takes.", show_default=False
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="OUT.onnx", help="The Q/DQ model to write.", show_default=False)
    ],
    ops: Annotated[
        str, typer.Option("--ops", metavar="LIST", help="Which operators to quantize, separated by commas.")
    ] = "Conv,ConvTranspose,MatMul,Gemm",
    exclude: Annotated[
        list[str] | None,
        typer.Option(
            "--exclude",
            metavar="REGEX",
            help="Leave nodes float in whose name, or an output's name, this is found. May be repeated.",
            show_default=False,
        ),
    ] = None,
    partial: Annotated[
        str,
        typer.Option(
            "--partial",
            metavar="error|skip|fill",
            help="Where a scale is missing: stop; leave the node float; or derive what is certain, and stop at what is not.",
        ),
    ] = "error",
    names: options.Names = None,
    target: Annotated[
        str, typer.Option("--target", metavar="tensorrt|tensorrt-rtx|onnxruntime", help="What is to run the model.")
    ] = "tensorrt",
    fp16: Annotated[
        bool,
        typer.Option("--fp16", help="Run in float16 what is not quantized; needs opset 23 where the model is run."),
    ] = False,
    int8_weights: Annotated[
        bool,
        typer.Option("--int8-weights", help="Store quantized weights as int8: a file about a quarter of the size."),
    ] = False,
    min_coverage: Annotated[
        float | None,
        typer.Option(
            "--min-coverage",
            min=0,
            max=1,
            help="Exit 1 and write no model if a smaller share of the weighted nodes is quantized. Default: at least one node.",
            show_default=False,
        ),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option("--report", metavar="R.json", help="Write the report as JSON, too.", show_default=False),
    ] = None,
    json: options.Json = False,
) -> None:
    """Put a calibration cache's scales into the model, as Q/DQ nodes where TensorRT wants them. Exit 1 if too little is quantized.

    Inputs of Conv, ConvTranspose, MatMul and Gemm and the residuals of skip connections are quantized, weights per output channel.
    BatchNormalizations are folded into the convolution before. What stays float is told, node by node, with the reason.
    """
    asked = conversion_options(ops, exclude or [], partial, target, int8_weights=int8_weights, half=fp16)
    from trtcalib.errors import CacheMismatchError
    from trtcalib.files import write_files
    from trtcalib.onnx_graph import external_files
    from trtcalib.qdq_files import quantize, read_inputs, write_quantized

    options.check_results([output, report], [model, cache, names])
    inputs = read_inputs(model, cache, names)
    options.check_results([output, report], external_files(inputs.model))
    try:
        quantized, result = quantize(inputs, asked, min_coverage)
    except CacheMismatchError:
        _propose(inputs.proposed_names)
        raise
    text = result.model_dump_json(indent=2) + "\n"
    beside = None if report is None else (report, text.encode())
    if result.success:
        write_quantized(quantized, inputs.model, output, beside)
    elif beside is not None:
        write_files(dict([beside]))
    if result.coverage.missing:
        _propose(result.proposed_names)
    _show(result, output, text if json else None)
    if not result.success:
        raise typer.Exit(1)


def conversion_options(
    ops: str, exclude: list[str], partial: str, target: str, *, int8_weights: bool, half: bool
) -> QdqOptions:
    """Return what to quantize, from options that ``migrate`` has too; what typer cannot check is checked before anything is read."""
    from trtcalib.qdq.placement import WEIGHTED
    from trtcalib.qdq.prepared import PARTIAL_CHOICES, TARGETS, QdqOptions

    operators = [name.strip() for name in ops.split(",") if name.strip()]
    unknown = [name for name in operators if name not in WEIGHTED]
    if unknown or not operators:
        found = unknown[0] if unknown else ops
        raise typer.BadParameter(f"{found!r} is none of {', '.join(WEIGHTED)}", param_hint="--ops")
    for given, choices, option in ((partial, PARTIAL_CHOICES, "--partial"), (target, TARGETS, "--target")):
        if given not in choices:
            raise typer.BadParameter(f"{given!r} is none of {', '.join(choices)}", param_hint=option)
    try:
        patterns = [re.compile(text) for text in exclude]
    except re.error as error:
        raise typer.BadParameter(
            f"{error.pattern!r} is no regular expression: {error}", param_hint="--exclude"
        ) from error
    return QdqOptions(
        operators=operators,
        exclude=patterns,
        partial=next(choice for choice in PARTIAL_CHOICES if choice == partial),
        target=next(choice for choice in TARGETS if choice == target),
        int8_weights=int8_weights,
        half=half,
    )


def _propose(names: dict[str, str]) -> None:
    """Print on stderr what ``--names`` might be given."""
    if not names:
        return
    from trtcalib.qdq.names import as_yaml

    typer.echo(
        "# These names TensorRT's parser made. By order and kind they may be the tensors below. Nothing was applied:",
        err=True,
    )
    typer.echo("# check them, save them as map.yaml, and give --names map.yaml", err=True)
    typer.echo(as_yaml(names), err=True, nl=False)


def _show(result: QdqReport, output: Path, json: str | None) -> None:
    from trtcalib.views.qdq_text import float_lines, note_lines, summary_lines
    from trtcalib.views.text import printable

    for line in note_lines(result):
        typer.echo(f"note: {line}", err=True)
    if json is not None:
        typer.echo(json, nl=False)
        return
    for line in (*summary_lines(result), *float_lines(result, SHOWN_NODES)):
        typer.echo(line)
    if result.success:
        typer.echo(printable(f"wrote {output}"))
    else:
        typer.echo("too little is quantized: no model was written")
