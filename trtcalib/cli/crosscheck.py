"""``trtcalib crosscheck``: TensorRT's cache against our reference."""

from __future__ import annotations

import json as json_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trtcalib.cli import options
from trtcalib.cli.cache import read_cache

if TYPE_CHECKING:
    from trtcalib.batches import Batching
    from trtcalib.core.cache import CalibrationCache
    from trtcalib.crosscheck import Crosscheck
    from trtcalib.layout_search import LayoutSearch

EXAMPLE = "Example: trtcalib crosscheck model.cache --model model.onnx --data images.npz --batch-size 8"

SHOWN_LAYOUTS = 10


def crosscheck(
    cache: Annotated[Path, typer.Argument(metavar="TRT.cache", help="TensorRT's cache.", show_default=False)],
    model: Annotated[Path, typer.Option("--model", metavar="MODEL.onnx", help="The ONNX model.", show_default=False)],
    data: options.Data,
    batch_size: Annotated[
        int | None,
        typer.Option(
            "--batch-size",
            min=1,
            help="Samples per batch that TensorRT took. Default: what the cache's manifest says, else the model's fixed batch, else 32.",
            show_default=False,
        ),
    ] = None,
    max_samples: options.MaxSamples = None,
    shuffle: options.Shuffle = None,
    min_agreement: Annotated[
        float, typer.Option("--min-agreement", min=0, max=1, help="The share of shared tensors that must agree.")
    ] = 0.95,
    find: Annotated[
        bool,
        typer.Option(
            "--find", help="Search the batch size, offset and number of samples that the cache was made with."
        ),
    ] = False,
    names: Annotated[
        Path | None,
        typer.Option(
            "--names",
            metavar="MAP.yaml",
            help="The model's tensor for each name that TensorRT's parser made.",
            show_default=False,
        ),
    ] = None,
    skip_bad_images: options.SkipBadImages = False,
    workers: options.Workers = None,
    json: options.Json = False,
) -> None:
    """Compare TensorRT's calibration cache with our reference, bin by bin. Exit 1 if too few tensors agree."""
    from trtcalib.specs import load_names

    found = read_cache(cache)
    mapping = load_names(names) if names is not None else {}
    if find:
        _find(found, model, data, mapping, workers=workers, json=json)
        return
    from trtcalib.crosscheck import crosscheck as compare
    from trtcalib.crosscheck import reference

    batching = _batching(cache, batch_size, max_samples, shuffle)
    with options.progress_bar() as progress:
        ours = reference(
            found, model, data, batching, skip_bad_images=skip_bad_images, workers=workers, progress=progress
        )
    result = compare(found, ours, min_agreement=min_agreement, names=mapping, path=cache)
    if json:
        typer.echo(json_module.dumps(result.as_json(), indent=2))
    else:
        _show(result, cache)
    if not result.passed:
        raise typer.Exit(1)


def _batching(cache: Path, batch_size: int | None, max_samples: int | None, shuffle: int | None) -> Batching:
    """Return how the samples were grouped: as the options say, else as the cache's manifest does; TensorRT takes full batches."""
    from trtcalib.batches import Batching
    from trtcalib.manifest import manifest_path, read_manifest

    if manifest_path(cache).is_file():
        was = read_manifest(manifest_path(cache)).provenance.batching
        return Batching(
            batch_size=batch_size or was.batch_size,
            max_samples=max_samples or was.max_samples,
            shuffle=was.shuffle if shuffle is None else shuffle,
            drop_last=was.drop_last,
        )
    return Batching(batch_size=batch_size, max_samples=max_samples, shuffle=shuffle, drop_last=True)


def _show(result: Crosscheck, cache: Path) -> None:
    from trtcalib.views.tables import agreement_table
    from trtcalib.views.text import printable

    options.print_table(agreement_table(result))
    counts = ", ".join(f"{count} {verdict}" for verdict, count in result.counts.items())
    typer.echo(
        printable(
            f"{cache}: {result.agreement:.1%} of {len(result.shared)} tensors agree with our {result.method} calibration of "
            f"{result.samples} samples in batches of {result.batch_size} ({counts})"
        )
    )
    for note in result.notes:
        typer.echo(f"note: {printable(note)}")


def _find(
    cache: CalibrationCache, model: Path, data: str, names: dict[str, str], *, workers: int | None, json: bool
) -> None:
    from trtcalib.layout_search import find_layouts

    with options.progress_bar() as progress:
        result = find_layouts(cache, model, data, names=names, workers=workers, progress=progress)
    if json:
        typer.echo(json_module.dumps(result.as_json(), indent=2))
    else:
        _show_layouts(result)
    if not result.layouts:
        raise typer.Exit(1)


def _show_layouts(result: LayoutSearch) -> None:
    tried = f"{result.batch_sizes} batch sizes over {result.samples} samples"
    if not result.layouts:
        typer.echo(
            f"no layout fits: of {tried}, none makes the scales of all {result.tensors} tensors a bin of its ranges; the cache was "
            "made from other data, in another order, or not by TensorRT's entropy search"
        )
        return
    for layout in result.layouts[:SHOWN_LAYOUTS]:
        bins = (
            "ranges fit" if layout.same_bins is None else f"{layout.same_bins} of {result.tensors} bins are TensorRT's"
        )
        last = layout.offset + layout.samples - 1
        typer.echo(
            f"batch size {layout.batch_size}, samples {layout.offset} to {last} in {layout.samples // layout.batch_size} batches: {bins}"
        )
    if len(result.layouts) > SHOWN_LAYOUTS:
        typer.echo(f"... and {len(result.layouts) - SHOWN_LAYOUTS} more whose ranges fit, of {tried}")
