"""``trtcalib cache lint``: rules over a calibration cache."""

from __future__ import annotations

import json as json_module
from pathlib import Path
from typing import Annotated

import typer

from trtcalib.cli import options

EXAMPLE = "Example: trtcalib cache lint model.cache --model model.onnx"


def lint(
    file: Annotated[Path, typer.Argument(metavar="CACHE", help="A calibration cache.", show_default=False)],
    model: Annotated[
        Path | None,
        typer.Option(
            "--model",
            metavar="MODEL.onnx",
            help="Check names, siblings and constants against this model too.",
            show_default=False,
        ),
    ] = None,
    json: options.Json = False,
    github: Annotated[
        bool, typer.Option("--github", help="Print annotations for GitHub Actions instead of lines.")
    ] = False,
    fail_on: Annotated[
        str, typer.Option("--fail-on", metavar="info|warning|error", help="Exit 1 from this severity on.")
    ] = "warning",
) -> None:
    """Look for faults in a calibration cache, by the rules of docs/lint-rules.md. Exit 1 if there is a warning or an error.

    Without a model: header, lines, names and scales. With one: names that it does not have and what they are called now, tensors
    without a scale, scales that cannot be right. A manifest beside the cache is used where it is of that very file.
    """
    from trtcalib.linting import SEVERITIES, lint_cache
    from trtcalib.views.lint_lines import github_lines, lint_lines

    severity = next((each for each in SEVERITIES if each == fail_on), None)
    if severity is None:
        raise typer.BadParameter(f"{fail_on!r} is not one of {', '.join(SEVERITIES)}", param_hint="--fail-on")
    if json and github:
        raise typer.BadParameter("--json and --github exclude each other", param_hint="--github")
    result = lint_cache(file, model)
    if json:
        typer.echo(json_module.dumps(result.as_json(severity), indent=2, allow_nan=False))
    else:
        for line in github_lines(result) if github else lint_lines(result):
            typer.echo(line)
    if result.fails(severity):
        raise typer.Exit(1)
