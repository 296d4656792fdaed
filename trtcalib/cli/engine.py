"""``trtcalib engine inspect``: what an engine is made of."""

from __future__ import annotations

import json as json_module
from pathlib import Path
from typing import Annotated

import typer

from trtcalib.cli import options

app = typer.Typer(help="Look at engines.", no_args_is_help=True, pretty_exceptions_enable=False)


@app.callback()
def _group() -> None:
    """Keep `inspect` a command of its own: Typer makes a group's only command the group itself."""


@app.command(epilog="Example: trtcalib engine inspect model.engine")
def inspect(
    engine: Annotated[
        Path,
        typer.Argument(
            metavar="OUT.engine", help="The engine. It is executable: use only one that you trust.", show_default=False
        ),
    ],
    json: options.Json = False,
) -> None:
    """List an engine's layers with their precision and formats; how many run in INT8, which do not, and why."""
    from trtcalib.trt.inspection import inspect_engine
    from trtcalib.views.tables import layer_table

    found = inspect_engine(engine)
    if json:
        typer.echo(json_module.dumps(found.as_json(), indent=2))
        return
    if not found.layers:
        typer.echo(
            f"{engine}: TensorRT {found.tensorrt_version} tells none of its layers: it was built with profiling verbosity NONE"
        )
        return
    options.print_table(layer_table(found))
    counts = ", ".join(f"{count} {precision}" for precision, count in found.counts.items())
    typer.echo(f"{engine}: {len(found.layers)} layers for TensorRT {found.tensorrt_version}: {counts}")
    if not found.detailed:
        typer.echo(
            "TensorRT tells names only: the engine was built without detailed profiling verbosity; `trtcalib build` sets it",
            err=True,
        )
