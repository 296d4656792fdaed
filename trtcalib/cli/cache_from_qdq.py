"""``trtcalib cache from-qdq``: the scales of a Q/DQ model, back in a calibration cache."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from trtcalib.cli import options

EXAMPLE = "Example: trtcalib cache from-qdq model-int8.onnx -o model.cache"

SHOWN = 20


def from_qdq(
    model: Annotated[Path, typer.Argument(metavar="MODEL.onnx", help="A Q/DQ model.", show_default=False)],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="OUT.cache", help="The cache to write.", show_default=False)
    ],
    tensorrt_version: options.TensorRTVersion = "10.16.1",
    algorithm: Annotated[
        str, typer.Option("--algorithm", metavar="NAME", help="For the header: what made the scales.")
    ] = "EntropyCalibration2",
) -> None:
    """Write the activations' scales of a Q/DQ model as a calibration cache, bit for bit. A Q/DQ model does not tell what made them."""
    from trtcalib.core.cache import ALGORITHMS, encode_version, format_cache, make_cache
    from trtcalib.files import write_files
    from trtcalib.onnx_graph import read_model
    from trtcalib.qdq.readback import scales_of
    from trtcalib.views.text import printable, shortened

    encode_version(tensorrt_version)
    if algorithm not in ALGORITHMS:
        raise typer.BadParameter(f"{algorithm!r} is none of {', '.join(ALGORITHMS)}", param_hint="--algorithm")
    options.check_results([output], [model])
    found = scales_of(read_model(model))
    write_files({output: format_cache(make_cache(found.scales, tensorrt_version, algorithm))})
    for sentence in found.left_out[:SHOWN]:
        typer.echo(f"left out: {shortened(sentence, 400)}", err=True)
    if rest := found.left_out[SHOWN:]:
        typer.echo(f"left out: {len(rest)} more", err=True)
    for name in found.floored:
        typer.echo(f"floored: {shortened(name)}: in the cache that it came from the scale may have been smaller, or 0")
    typer.echo(printable(f"wrote {output}: {len(found.scales)} scales"))
