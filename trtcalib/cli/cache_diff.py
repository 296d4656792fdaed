"""``trtcalib cache diff``: files of scales side by side."""

from __future__ import annotations

import json as json_module
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trtcalib.cli import options

if TYPE_CHECKING:
    from trtcalib.cache_tools.diff import ScaleDiff

EXAMPLE = "Example: trtcalib cache diff first.cache model.cache"

SHOWN_TENSORS = 100
"""Rows of the table, the furthest first; Rich takes over a second for a thousand."""


def diff(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="A B [C ...]",
            help="Two or more, the first being the reference: calibration caches, ONNX Runtime's calibration.json or calibration.cache, "
            "or JSON of {tensor: amax}.",
            show_default=False,
        ),
    ],
    rtol: Annotated[
        float,
        typer.Option("--rtol", min=0, help="The relative change of a scale to ignore. 0: the bits must be equal."),
    ] = 0.0,
    names: options.Names = None,
    json: options.Json = False,
) -> None:
    """Compare calibration caches: what came, went and moved, and which explanation fits. Exit 0 if they are the same, 1 if not.

    Another TensorRT version or algorithm in the headers is a difference, whatever --rtol says; another order of the lines is none.
    A manifest beside a cache is used where it is of that very file.
    """
    if len(files) < 2:  # noqa: PLR2004 - a comparison
        raise typer.BadParameter("got one file, expected two or more to compare", param_hint="A B [C ...]")
    if not math.isfinite(rtol):
        raise typer.BadParameter(f"{rtol} is no tolerance: expected a number such as 1e-6", param_hint="--rtol")
    from trtcalib.cache_tools.diff import diff_files
    from trtcalib.specs import load_names

    result = diff_files(files, rtol, None if names is None else load_names(names))
    if json:
        typer.echo(json_module.dumps(result.as_json(), indent=2, allow_nan=False))
    else:
        _show(result)
    if not result.same:
        raise typer.Exit(1)


def _show(result: ScaleDiff) -> None:
    from trtcalib.views.diff_tables import diff_lines, diff_table, file_lines

    for line in file_lines(result):
        typer.echo(line)
    rows = result.rows
    if rows:
        options.print_table(diff_table(result, rows[:SHOWN_TENSORS]))
    if rest := rows[SHOWN_TENSORS:]:
        tensors = sum(len(row.names) for row in rest)
        typer.echo(f"... {len(rest)} more rows of {tensors} tensors, which moved less; --json lists all")
    for line in diff_lines(result):
        typer.echo(line)
