"""``trtcalib cache export``: a cache in another tool's dialect."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from trtcalib.cli import options

EXAMPLE = "Example: trtcalib cache export model.cache --to trtexec --model model.onnx -o for-trtexec"


class To(str, Enum):
    """The dialects."""

    DYNAMIC_RANGE_JSON = "dynamic-range-json"
    ONNXRUNTIME = "onnxruntime"
    ONNXRUNTIME_TABLE = "onnxruntime-table"
    DEEPSTREAM = "deepstream"
    TRTEXEC = "trtexec"
    POLYGRAPHY = "polygraphy"


def export(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A calibration cache.", show_default=False)],
    to: Annotated[
        To,
        typer.Option(
            "--to",
            help="dynamic-range-json: {tensor: [-amax, amax]}. onnxruntime: the cache for its TensorRT provider; onnxruntime-table: ONNX "
            "Runtime's own table, for names that hold ':'. deepstream, trtexec, polygraphy: the cache and the lines that name it.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            metavar="OUT.json|FOLDER",
            help="The file for dynamic-range-json; a folder for the others, made if it does not exist.",
            show_default=False,
        ),
    ],
    model: Annotated[
        Path | None,
        typer.Option("--model", metavar="MODEL.onnx", help="The model that the lines name.", show_default=False),
    ] = None,
) -> None:
    """Write a calibration cache in the dialect of another tool, with the lines to run it.

    A name or a scale that the tool would misread is refused by name, and a cache whose header it would not take too. Every file says which
    TensorRT it is for.
    """
    from trtcalib.cache_tools.edited import read_source
    from trtcalib.cache_tools.export import export_cache
    from trtcalib.errors import OutputError
    from trtcalib.files import make_folder, write_files
    from trtcalib.views.text import printable, shortened

    made = export_cache(read_source(file), to.value, output, model=model)
    if to is not To.DYNAMIC_RANGE_JSON:
        if output.exists() and not output.is_dir():
            raise OutputError(output, f"is a file; --to {to.value} writes several: give the name of a folder")
        make_folder(output)
    options.check_results(list(made.files), [file, model])
    write_files(made.files)
    for path in made.files:
        typer.echo(printable(str(path)))
    for note in made.notes:
        typer.echo(f"note: {shortened(note, 400)}", err=True)
