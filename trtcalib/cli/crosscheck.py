"""``trtcalib crosscheck``: TensorRT's cache against our reference."""

from __future__ import annotations

import json as json_module
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trtcalib.cli import options
from trtcalib.cli.cache import read_cache

if TYPE_CHECKING:
    from trtcalib.batches import Batching
    from trtcalib.calibration import Calibration
    from trtcalib.core.cache import CalibrationCache
    from trtcalib.crosscheck import Crosscheck
    from trtcalib.layout_search import LayoutSearch
    from trtcalib.manifest import BatchingFacts
    from trtcalib.specs import Recipe

EXAMPLE = "Example: trtcalib crosscheck model.cache --model model.onnx --data images.npz --batch-size 32"

SHOWN_LAYOUTS = 10

SHOWN_TENSORS = 250
"""Rows of the table, those that disagree first; Rich takes over a second for a thousand."""


def crosscheck(
    cache: Annotated[Path, typer.Argument(metavar="TRT.cache", help="TensorRT's cache.", show_default=False)],
    model: Annotated[Path, typer.Option("--model", metavar="MODEL.onnx", help="The ONNX model.", show_default=False)],
    data: Annotated[
        str | None,
        typer.Option("--data", metavar="SRC", help="Calibration data, as for calibrate.", show_default=False),
    ] = None,
    histograms: Annotated[
        Path | None,
        typer.Option(
            "--histograms",
            metavar="H.npz",
            help="Instead of --data: histograms that calibrate saved; with --on tensorrt under TensorRT's own names.",
            show_default=False,
        ),
    ] = None,
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
    names: options.Names = None,
    skip_bad_images: options.SkipBadImages = False,
    workers: options.Workers = None,
    json: options.Json = False,
) -> None:
    """Compare TensorRT's calibration cache with our reference, bin by bin. Exit 1 if too few tensors agree."""
    if (data is None) == (histograms is None):
        raise typer.BadParameter("give either --data or --histograms", param_hint="--data")
    if histograms is not None and (find or not (batch_size is None and max_samples is None and shuffle is None)):
        raise typer.BadParameter(
            "their samples and batches are settled: leave out --find, --batch-size, --max-samples and --shuffle",
            param_hint="--histograms",
        )
    if find and not (batch_size is None and max_samples is None and shuffle is None):
        raise typer.BadParameter(
            "it searches how the samples were fed: leave out --batch-size, --max-samples and --shuffle",
            param_hint="--find",
        )
    found = read_cache(cache)
    mapping = {} if names is None else _names(names, model)
    if find and data is not None:
        _find(found, cache, model, data, mapping, skip_bad_images=skip_bad_images, workers=workers, json=json)
        return
    from trtcalib.crosscheck import crosscheck as compare
    from trtcalib.crosscheck import read_stated, reference

    stated = read_stated(found, cache)
    was = None if stated.manifest is None else stated.manifest.provenance.batching
    if histograms is not None:
        ours = _solved(histograms, model, found, stated.recipe)
    else:
        with options.progress_bar() as progress:
            ours = reference(
                found,
                model,
                data,
                _batching(was, batch_size, max_samples, shuffle),
                recipe=stated.recipe,
                skip_bad_images=skip_bad_images or (was is not None and was.skip_bad_images),
                workers=workers,
                progress=progress,
            )
    result = compare(found, ours, min_agreement=min_agreement, names=mapping, path=cache, stated=stated)
    if json:
        typer.echo(json_module.dumps(result.as_json(), indent=2))
    else:
        _show(result, cache)
    if not result.passed:
        raise typer.Exit(1)


def _solved(path: Path, model: Path, cache: CalibrationCache, recipe: Recipe | None) -> Calibration:
    """Return the reference from saved histograms.

    Raises:
        HistogramError: If they are of another model.
    """
    from trtcalib.calibration import solve
    from trtcalib.errors import HistogramError
    from trtcalib.histogram_file import load_histograms
    from trtcalib.methods import method_of
    from trtcalib.onnx_graph import read_model
    from trtcalib.provenance import model_facts

    saved = load_histograms(path)
    facts, was = model_facts(read_model(model)), saved.provenance.model
    if (facts.sha256, facts.external_sha256) != (was.sha256, was.external_sha256):
        raise HistogramError(
            f"{path}: the histograms are of another model than {model}: they were collected from {was.path}, sha256 {was.sha256[:12]}..., "
            f"this one is {facts.sha256[:12]}...; collect them again"
        )
    return solve(saved, recipe or method_of(cache.algorithm))


def _names(path: Path, model: Path) -> dict[str, str]:
    """Read the map of names, and check it against the model before anything is run.

    Raises:
        SpecError: If it is no map of names, or names tensors that the model does not have; all of them at once.
    """
    from trtcalib.errors import SpecError
    from trtcalib.onnx_graph import read_model
    from trtcalib.spec_files import brief, nearest
    from trtcalib.specs import load_names

    mapping = load_names(path)
    known = {tensor.name for tensor in read_model(model).tensors}
    faults = tuple(
        f"{brief(name, quoted=False)}: {brief(tensor)} is no tensor of {model} that TensorRT calibrates{nearest(tensor, known)}"
        for name, tensor in mapping.items()
        if tensor not in known
    )
    if faults:
        raise SpecError(path, faults)
    return mapping


def _batching(
    was: BatchingFacts | None, batch_size: int | None, max_samples: int | None, shuffle: int | None
) -> Batching:
    """Return how the samples were grouped: as the options say, else as the manifest does; TensorRT takes full batches."""
    from trtcalib.batches import Batching

    if was is None:
        return Batching(batch_size=batch_size, max_samples=max_samples, shuffle=shuffle, drop_last=True)
    return Batching(
        batch_size=was.batch_size if batch_size is None else batch_size,
        max_samples=was.max_samples if max_samples is None else max_samples,
        shuffle=was.shuffle if shuffle is None else shuffle,
        drop_last=was.drop_last,
    )


def _show(result: Crosscheck, cache: Path) -> None:
    from trtcalib.views.tables import agreement_table
    from trtcalib.views.text import printable

    first = sorted(result.tensors, key=lambda tensor: tensor.agrees or tensor.ours is None)
    options.print_table(agreement_table(replace(result, tensors=tuple(first[:SHOWN_TENSORS]))))
    if rest := first[SHOWN_TENSORS:]:
        disagree = sum(tensor.ours is not None and not tensor.agrees for tensor in rest)
        typer.echo(f"... and {len(rest)} more tensors, of which {disagree} disagree; --json lists all")
    counts = ", ".join(f"{count} {verdict}" for verdict, count in result.counts.items())
    typer.echo(
        printable(
            f"{cache}: {result.agreement:.1%} of {len(result.shared)} tensors agree with our calibration of {result.samples} samples in "
            f"batches of {result.batch_size} by {result.method} ({counts})"
        )
    )
    for note in result.notes:
        typer.echo(f"note: {printable(note)}")


def _find(
    cache: CalibrationCache,
    path: Path,
    model: Path,
    data: str,
    names: dict[str, str],
    *,
    skip_bad_images: bool,
    workers: int | None,
    json: bool,
) -> None:
    from trtcalib.layout_search import find_layouts

    with options.progress_bar() as progress:
        result = find_layouts(
            cache,
            model,
            data,
            names=names,
            skip_bad_images=skip_bad_images,
            path=path,
            workers=workers,
            progress=progress,
        )
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
