"""``trtcalib demo``: the main job on the embedded sample."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trtcalib.cli import options
from trtcalib.cli.plot import draw

if TYPE_CHECKING:
    from trtcalib.calibration import Calibration

EXAMPLE = "Example: trtcalib demo -o demo-out"

METHODS = ("entropy", "minmax", "percentile-99.99")


def demo(
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="The folder to write to; made if it does not exist.")
    ] = Path("demo-out"),
) -> None:
    """Calibrate the embedded digits sample with entropy, minmax and percentile; needs no GPU and no data."""
    from trtcalib.calibration import calibrate, solve
    from trtcalib.files import make_folder, sample_folder
    from trtcalib.views.tables import comparison_table

    sample = sample_folder()
    with options.progress_bar() as progress:
        first = calibrate(
            sample / "digits" / "model.onnx",
            sample / "digits-calibration.yaml",
            METHODS[0],
            drop_last=True,
            progress=progress,
        )
    make_folder(output)
    results = {METHODS[0]: first} | {method: solve(first, method) for method in METHODS[1:]}
    options.print_table(comparison_table(results))
    for method, result in results.items():
        path = output / f"digits-{method}.cache"
        result.write_cache(path)
        typer.echo(str(path))
    tensor = most_clipped(first)
    picture = output / "digits-most-clipped.png"
    draw(first, tensor, picture)
    typer.echo(f"{picture}: {tensor}, the tensor that entropy clips most")
    options.print_findings(first.findings)


def most_clipped(result: Calibration) -> str:
    """Return the activation of which the largest share of values lies beyond its amax."""
    from trtcalib.core.histogram import clipped_share

    activations = [t.name for t in result.tensors if t.kind == "activation" and t.name in result.histograms]
    return max(activations, key=lambda name: clipped_share(result.histograms[name], result.clips[name].amax))
