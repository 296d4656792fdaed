"""``trtcalib cache show`` and ``trtcalib cache verify``."""

from __future__ import annotations

import json as json_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trtcalib.cli import cache_diff, cache_edit, cache_export, cache_from_qdq, cache_lint, options

if TYPE_CHECKING:
    from trtcalib.core.cache import CalibrationCache

app = typer.Typer(
    help="Look at calibration caches, compare, check, edit and export them.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.command(epilog=cache_diff.EXAMPLE)(cache_diff.diff)
app.command("from-qdq", epilog=cache_from_qdq.EXAMPLE)(cache_from_qdq.from_qdq)
app.command(epilog=cache_lint.EXAMPLE)(cache_lint.lint)
app.command(epilog=cache_edit.MERGE_EXAMPLE)(cache_edit.merge)
app.command(epilog=cache_edit.CONVERT_EXAMPLE)(cache_edit.convert)
app.command(epilog=cache_edit.RENAME_EXAMPLE)(cache_edit.rename)
app.command("set", epilog=cache_edit.SET_EXAMPLE)(cache_edit.set_amax)
app.command(epilog=cache_export.EXAMPLE)(cache_export.export)

CacheFile = Annotated[Path, typer.Argument(metavar="FILE", help="A calibration cache.", show_default=False)]


@app.command(epilog="Example: trtcalib cache show model.cache --model model.onnx")
def show(
    file: CacheFile,
    model: Annotated[
        Path | None,
        typer.Option(
            "--model", metavar="MODEL.onnx", help="Say how many names are tensors of this model.", show_default=False
        ),
    ] = None,
    json: options.Json = False,
) -> None:
    """Print a cache: tensor, bits, scale, amax; with its manifest beside it, range and bin too."""
    from trtcalib.core.cache import oddities, version_text
    from trtcalib.manifest import manifest_path, read_manifest
    from trtcalib.views.tables import cache_table
    from trtcalib.views.text import printable

    cache = read_cache(file)
    predicted = _predicted(cache, model) if model is not None else None
    if json:
        typer.echo(json_module.dumps(_as_json(cache, predicted), indent=2))
        return
    facts = read_manifest(manifest_path(file)).tensors if manifest_path(file).is_file() else []
    typer.echo(
        printable(
            f"{cache.header}: {len(cache.entries)} tensors, TensorRT {version_text(cache.version)}, {cache.algorithm}"
        )
    )
    options.print_table(cache_table(cache, facts))
    if predicted is not None:
        parser_made = sum(entry.name not in predicted for entry in cache.entries)
        typer.echo(
            f"{len(predicted)} of {len(cache.entries)} names are tensors of {model}; the other {parser_made} were made by "
            "TensorRT's parser, or belong to another model"
        )
    for oddity in oddities(cache):
        typer.echo(f"finding: {printable(oddity)}", err=True)


@app.command(epilog="Example: trtcalib cache verify model.cache")
def verify(
    file: CacheFile,
    model: Annotated[
        Path | None, typer.Option("--model", metavar="MODEL.onnx", help="Where the model is now.", show_default=False)
    ] = None,
    data: Annotated[
        str | None, typer.Option("--data", metavar="SRC", help="Where the data are now.", show_default=False)
    ] = None,
    json: options.Json = False,
) -> None:
    """Compare a cache, its model and its data with the manifest: what changed since. Exit 1 if anything did."""
    from trtcalib.verification import verify_cache
    from trtcalib.views.text import printable

    read_cache(file)
    checks = verify_cache(file, model=model, data=data)
    if json:
        typer.echo(json_module.dumps({"schema_version": 1, "checks": [check._asdict() for check in checks]}, indent=2))
    else:
        for check in checks:
            typer.echo(printable(f"{check.status:9} {check.what}: {check.detail}"))
    if any(check.status == "changed" for check in checks):
        raise typer.Exit(1)


def read_cache(file: Path) -> CalibrationCache:
    """Read a calibration cache; errors name the file.

    Raises:
        CacheFormatError: If it cannot be read or is no cache.
    """
    from trtcalib.core.cache import parse_cache
    from trtcalib.errors import CacheFormatError

    try:
        return parse_cache(file.read_bytes())
    except CacheFormatError as error:
        raise CacheFormatError(file, error.line, error.reason) from error
    except OSError as error:
        raise CacheFormatError(file, 0, f"cannot be read: {error.strerror}") from error


def _predicted(cache: CalibrationCache, model: Path) -> list[str]:
    from trtcalib.onnx_graph import read_model

    known = {tensor.name for tensor in read_model(model).tensors}
    return [entry.name for entry in cache.entries if entry.name in known]


def _as_json(cache: CalibrationCache, predicted: list[str] | None) -> dict[str, object]:
    import numpy as np

    from trtcalib.core.cache import oddities, version_text

    tensors = [
        {"name": e.name, "scale_hex": f"{e.bits:x}", "scale": float(e.scale) if np.isfinite(e.scale) else None}
        for e in cache.entries
    ]
    content: dict[str, object] = {
        "schema_version": 1,
        "tensorrt_version": version_text(cache.version),
        "algorithm": cache.algorithm,
        "tensors": tensors,
        "findings": oddities(cache),
    }
    if predicted is not None:
        content["names_in_model"] = len(predicted)
    return content
