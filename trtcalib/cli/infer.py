"""``trtcalib infer``: run an engine on data."""

from __future__ import annotations

import json as json_module
from pathlib import Path
from typing import Annotated

import typer

from trtcalib.cli import options

EXAMPLE = "Example: trtcalib infer model.engine --data images.npz -o outputs.npz"


def infer(
    engine: Annotated[
        Path,
        typer.Argument(
            metavar="OUT.engine", help="The engine. It is executable: use only one that you trust.", show_default=False
        ),
    ],
    data: options.Data,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="OUT.npz", help="Write the outputs here.", show_default=False),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(
            "--batch-size",
            min=1,
            help="Samples per batch. Default: the batch that the engine was tuned for.",
            show_default=False,
        ),
    ] = None,
    max_samples: options.MaxSamples = None,
    json: options.Json = False,
) -> None:
    """Run an engine on data: outputs, latency and throughput."""
    from trtcalib.engine_run import WARM_UP, run_engine
    from trtcalib.errors import OutputError

    if output is not None and output.suffix != ".npz":
        raise OutputError(output, "outputs are written as .npz")
    options.check_results([output], [engine, data])
    with options.progress_bar(title="running") as progress:
        timing = run_engine(engine, data, output, batch_size=batch_size, max_samples=max_samples, progress=progress)
    if json:
        typer.echo(json_module.dumps(timing.as_json(), indent=2))
        return
    if output is not None:
        typer.echo(f"{output}: outputs of {timing.samples} samples")
    typer.echo(
        f"latency of a batch of {timing.batch_size}, copies included: p50 {timing.p50_ms:.3f} ms, p90 {timing.p90_ms:.3f} ms, "
        f"p99 {timing.p99_ms:.3f} ms, over {timing.batches} batches after {WARM_UP} to warm up"
    )
    typer.echo(f"throughput: {timing.samples_per_second:.1f} samples/s")
    if timing.left_out:
        typer.echo(f"{timing.left_out} samples at the end were left out: they fill no batch of the engine", err=True)
