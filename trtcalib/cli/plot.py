"""``trtcalib plot``: one tensor's histogram with the amax of every method."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trtcalib.cli import options

if TYPE_CHECKING:
    from trtcalib.calibration import Calibration
    from trtcalib.errors import HistogramError

EXAMPLE = "Example: trtcalib plot model.onnx --data images.npz --tensor relu1 -o relu1.png"

METHODS = ("entropy", "minmax", "percentile-99.9", "percentile-99.99", "percentile-99.999")


def plot(
    tensor: Annotated[str, typer.Option("--tensor", metavar="NAME", help="The tensor to draw.", show_default=False)],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="X.png|X.svg", help="The picture to write.", show_default=False)
    ],
    model: Annotated[
        Path | None,
        typer.Argument(
            metavar="[MODEL.onnx]", help="The ONNX model; not needed with --histograms.", show_default=False
        ),
    ] = None,
    data: Annotated[
        str | None, typer.Option("--data", metavar="SRC", help="As for calibrate.", show_default=False)
    ] = None,
    histograms: Annotated[
        Path | None,
        typer.Option("--histograms", metavar="H.npz", help="Saved histograms instead of a model.", show_default=False),
    ] = None,
    batch_size: options.BatchSize = None,
    max_samples: options.MaxSamples = None,
    shuffle: options.Shuffle = None,
    drop_last: options.DropLast = False,
    workers: options.Workers = None,
) -> None:
    """Draw a tensor's histogram of |x| with log counts and the amax of every method marked."""
    from trtcalib.calibration import calibrate
    from trtcalib.histogram_file import load_histograms

    options.image_kind(output)
    options.check_results([output], [model, data, histograms])
    if histograms is not None:
        if model is not None or data is not None:
            raise typer.BadParameter(
                "takes the place of MODEL.onnx and --data: give one or the other", param_hint="--histograms"
            )
        collected = load_histograms(histograms)
    elif model is None or data is None:
        raise typer.BadParameter("MODEL.onnx and --data are needed, or --histograms", param_hint="MODEL.onnx")
    else:
        _check_listed(model, tensor)
        with options.progress_bar() as progress:
            collected = calibrate(
                model,
                data,
                batch_size=batch_size,
                max_samples=max_samples,
                shuffle=shuffle,
                drop_last=drop_last,
                workers=workers,
                progress=progress,
            )
    draw(collected, tensor, output)
    typer.echo(str(output))


def draw(collected: Calibration, tensor: str, output: Path) -> None:
    """Write the picture of one tensor.

    Raises:
        HistogramError: If the tensor has no histogram.
    """
    from trtcalib.files import write_files
    from trtcalib.methods import clip_point, describe
    from trtcalib.specs import load_recipe
    from trtcalib.views.plots import draw_histogram, format_figure

    origin = collected.origins.get(tensor)
    if origin is None or origin not in collected.histograms:
        raise _unknown(tensor, (name for name, source in collected.origins.items() if source in collected.histograms))
    histogram = collected.histograms[origin]
    recipes = [load_recipe(name) for name in METHODS]
    marks = {describe(recipe): float(clip_point(histogram, recipe).amax) for recipe in recipes}
    figure = draw_histogram(tensor, histogram, marks)
    write_files({output: format_figure(figure, options.image_kind(output))})


def _check_listed(model: Path, tensor: str) -> None:
    """Refuse a tensor that the model does not have before the data are read."""
    from trtcalib.onnx_graph import read_model

    names = [known.name for known in read_model(model).tensors]
    if tensor not in names:
        raise _unknown(tensor, names)


def _unknown(tensor: str, names: Iterable[str]) -> HistogramError:
    from trtcalib.errors import HistogramError

    known = list(names)
    close = difflib.get_close_matches(tensor, known, n=1)
    hint = f", did you mean {close[0]!r}?" if close else f"; {len(known)} tensors have one"
    return HistogramError(f"no histogram for tensor {tensor!r}{hint}")
