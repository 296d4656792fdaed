"""``trtcalib study``: what batch size and order do to the scales, and why."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from trtcalib.cli import options

if TYPE_CHECKING:
    from trtcalib.batch_study.result import Study

EXAMPLE = "Example: trtcalib study model.onnx --data images.npz --batch-sizes 1,8,all --orders 5 -o study-out"

SHOWN_TENSORS = 10

_MOST_DIGITS = 18
"""Of a batch size: far more than any data have samples, and few enough for 64 bits."""


def study(
    model: options.Model,
    data: options.Data,
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            metavar="OUT/",
            help="Folder for study.json and the caches; an interrupted study there goes on.",
            show_default=False,
        ),
    ],
    batch_sizes: Annotated[
        str | None,
        typer.Option(
            "--batch-sizes",
            metavar="LIST",
            help="Samples per batch, and all, which is always studied too. Default: 1,2,4,8,16,32,64,all, times the model's fixed batch.",
            show_default=False,
        ),
    ] = None,
    orders: Annotated[
        int,
        typer.Option("--orders", metavar="K", min=0, help="Shuffled orders per batch size, beside the source's own."),
    ] = 0,
    seed: Annotated[
        int, typer.Option("--seed", metavar="S", min=0, help="Order i, from 0, is that of calibrate --shuffle S+i.")
    ] = 0,
    calibrator: options.Calibrator = "entropy",
    max_samples: options.MaxSamples = None,
    skip_bad_images: options.SkipBadImages = False,
    tensorrt_version: options.TensorRTVersion = "10.16.1",
    workers: options.Workers = None,
    json: options.Json = False,
) -> None:
    """Tell how batch size and order move the scales, and why: each configuration's cache, as calibrate would write it, from two passes."""
    sizes = None if batch_sizes is None else _parse(batch_sizes)
    from trtcalib.batch_study.study import study as run

    with _telling_how_to_go_on(output), options.progress_bar(title="studying") as progress:
        result = run(
            model,
            data,
            output,
            batch_sizes=sizes,
            orders=orders,
            seed=seed,
            calibrator=calibrator,
            max_samples=max_samples,
            skip_bad_images=skip_bad_images,
            tensorrt_version=tensorrt_version,
            workers=workers,
            progress=progress,
        )
    if json:
        typer.echo(result.model_dump_json())
    else:
        _show(result)
    _say(result, output, json=json)


@contextlib.contextmanager
def _telling_how_to_go_on(output: Path) -> Iterator[None]:
    from trtcalib.batch_study.state import MAXIMA

    try:
        yield
    except KeyboardInterrupt:
        if (output / MAXIMA).exists():
            typer.echo(f"{output}: the same command goes on from what is saved here", err=True)
        raise


def _parse(text: str) -> list[int | Literal["all"]]:
    """Read ``1,8,all``; every fault at once."""
    from trtcalib.views.text import shortened

    sizes: list[int | Literal["all"]] = []
    faults = []
    for part in (piece.strip() for piece in text.split(",")):
        if part == "all":
            sizes.append("all")
        elif part.isascii() and part.isdigit() and 0 < len(part.lstrip("0")) <= _MOST_DIGITS:
            sizes.append(int(part.lstrip("0")))
        else:
            faults.append(repr(shortened(part, 40)))
    if faults:
        raise typer.BadParameter(
            f"found {', '.join(faults)}, expected positive whole numbers or all, as in 1,8,32,all",
            param_hint="--batch-sizes",
        )
    return sizes


def _show(result: Study) -> None:
    from trtcalib.views.study_tables import configuration_table, unstable_lines
    from trtcalib.views.text import printable

    options.print_table(configuration_table(result))
    for line in unstable_lines(result, SHOWN_TENSORS):
        typer.echo(line)
    typer.echo(printable(result.summary.recommendation))


def _say(result: Study, output: Path, *, json: bool) -> None:
    from trtcalib.batch_study.study import RESULT

    cost = result.cost
    typer.echo(
        f"{output / RESULT}: {len(result.configurations)} configurations of {cost.tensors} tensors from {cost.inferences} inferences "
        f"({cost.naive_inferences} with a calibration run each), {cost.distinct_ranges} distinct ranges, {cost.searches} searches",
        err=json,
    )
    for note in result.notes:
        typer.echo(f"note: {note}", err=True)
    options.print_findings(result.findings)
