"""``trtcalib migrate``: a model and its calibration cache -> a checked Q/DQ model, and what to do with it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trtcalib.cli import options
from trtcalib.cli.check_builder import parse_capabilities
from trtcalib.cli.qdq import conversion_options

if TYPE_CHECKING:
    from trtcalib.migration import Migration

EXAMPLE = "Example: trtcalib migrate model.onnx model.cache --data images.npz -o migrated"


def migrate(
    model: Annotated[Path, typer.Argument(metavar="MODEL.onnx", help="The float ONNX model.", show_default=False)],
    cache: Annotated[Path, typer.Argument(metavar="CACHE", help="Its calibration cache.", show_default=False)],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="Folder for the results.", show_default=False)
    ],
    data: Annotated[
        str | None,
        typer.Option(
            "--data", metavar="SRC", help="Samples to compare both models on, as for calibrate.", show_default=False
        ),
    ] = None,
    names: options.Names = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option("--exclude", metavar="REGEX", help="As for qdq. May be repeated.", show_default=False),
    ] = None,
    partial: Annotated[str, typer.Option("--partial", metavar="error|skip|fill", help="As for qdq.")] = "error",
    target: Annotated[
        str, typer.Option("--target", metavar="tensorrt|tensorrt-rtx|onnxruntime", help="What is to run the model.")
    ] = "tensorrt",
    fp16: Annotated[bool, typer.Option("--fp16", help="As for qdq.")] = False,
    int8_weights: Annotated[bool, typer.Option("--int8-weights", help="As for qdq.")] = False,
    min_coverage: Annotated[
        float | None, typer.Option("--min-coverage", min=0, max=1, help="As for qdq.", show_default=False)
    ] = None,
    max_samples: options.MaxSamples = None,
    skip_bad_images: options.SkipBadImages = False,
    compute_capability: Annotated[
        str,
        typer.Option(
            "--compute-capability", metavar="80,86,...", help="What TensorRT-RTX is to build for; none: do not ask it."
        ),
    ] = "80,86,89,120",
    timeout: Annotated[
        float, typer.Option("--timeout", metavar="S", min=1, help="Seconds for each compute capability.")
    ] = 300.0,
    shapes: options.Shapes = None,
    workers: options.Workers = None,
    json: options.Json = False,
) -> None:
    """Convert a calibrated model for TensorRT 11 and check it: cache, conversion, file, numbers, NVIDIA's builder. Exit 1 if a check fails.

    The folder gets the Q/DQ model, migration.json with everything that was found, and NEXT-STEPS.md with the commands for TensorRT 11,
    TensorRT-RTX and ONNX Runtime. Where a check fails it gets the report alone.
    """
    conversion = conversion_options(
        "Conv,ConvTranspose,MatMul,Gemm", exclude or [], partial, target, int8_weights=int8_weights, half=fp16
    )
    capabilities = () if compute_capability == "none" else parse_capabilities(compute_capability)
    from trtcalib.engine_spec import parse_shapes
    from trtcalib.migration import MigrationOptions
    from trtcalib.migration import migrate as run

    asked = MigrationOptions(
        conversion=conversion,
        names=names,
        min_coverage=min_coverage,
        data=data,
        max_samples=max_samples,
        skip_bad_images=skip_bad_images,
        compute_capabilities=capabilities,
        timeout=timeout,
        shapes=parse_shapes(shapes) if shapes else {},
        workers=workers,
    )
    with options.progress_bar(title="comparing") as progress:
        result = run(model, cache, output, asked, progress)
    if json:
        typer.echo(result.model_dump_json(indent=2))
    _show(result, output, json=json)
    if not result.success:
        raise typer.Exit(1)


def _show(result: Migration, output: Path, *, json: bool) -> None:
    from trtcalib.migration import NEXT_STEPS
    from trtcalib.views.text import printable

    for step in result.steps:
        typer.echo(printable(f"{step.verdict:8} {step.name}: {step.detail}"), err=json)
    for name in result.files:
        typer.echo(printable(str(output / name)), err=json)
    if result.success:
        typer.echo(printable(f"what to run now: {output / NEXT_STEPS}"), err=json)
