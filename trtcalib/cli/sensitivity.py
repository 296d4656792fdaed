"""``trtcalib sensitivity``: which layers cost accuracy, and which few to leave in float."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trtcalib.cli import accuracy_options, accuracy_study, options

if TYPE_CHECKING:
    from trtcalib.accuracy.result import Sensitivity
    from trtcalib.accuracy.task import Task

EXAMPLE = "Example: trtcalib sensitivity model.onnx --data images.npz --max-loss 0.01 -o sensitivity-out"


def sensitivity(
    model: options.Model,
    data: options.Data,
    output: accuracy_options.Folder,
    eval_data: accuracy_options.EvalData = None,
    labels: accuracy_options.Labels = None,
    max_loss: Annotated[
        float | None,
        typer.Option(
            "--max-loss",
            metavar="X",
            min=0,
            help="Search for few nodes to leave in float so that INT8 loses no more of the metric than this. 0.01 of top1, top5 or agreement is one "
            "sample in a hundred, one point; of cosine and a function of yours, 0.01 of its mean; of sqnr, noise / signal: 0.01 is 20 dB.",
            show_default=False,
        ),
    ] = None,
    calibrator: Annotated[
        str | None,
        typer.Option(
            "--calibrator",
            metavar="NAME|RECIPE.yaml",
            help="What chooses the scales: entropy (the default), minmax, mse, percentile-<p>, or a recipe's YAML file.",
            show_default=False,
        ),
    ] = None,
    cache: Annotated[
        Path | None,
        typer.Option(
            "--cache",
            metavar="C",
            help="Take the scales of this cache; --data still tells how much is clipped.",
            show_default=False,
        ),
    ] = None,
    names: options.Names = None,
    metric: accuracy_options.Metric = None,
    output_name: accuracy_options.OutputName = None,
    top: Annotated[
        int, typer.Option("--top", metavar="N", min=1, help="Nodes that are shown; the files hold them all.")
    ] = 20,
    batch_size: options.BatchSize = None,
    max_samples: options.MaxSamples = None,
    max_eval_samples: accuracy_options.MaxEvalSamples = None,
    hold_out: accuracy_options.HoldOut = False,
    shuffle: options.Shuffle = None,
    drop_last: options.DropLast = False,
    skip_bad_images: options.SkipBadImages = False,
    workers: options.Workers = None,
    json: options.Json = False,
) -> None:
    """Rank the layers by what INT8 costs there: each alone in INT8, and all but it; then find the few to leave in float.

    The lines for trtcalib qdq, trtcalib build, trtexec and ModelOpt that leave them in float are part of the result.
    """
    if cache is not None and calibrator is not None:
        raise typer.BadParameter("give one of --cache and --calibrator", param_hint="--cache")
    if names is not None and cache is None:
        raise typer.BadParameter("it maps names of a cache: give --cache", param_hint="--names")
    if max_loss is not None and not max_loss >= 0:
        raise typer.BadParameter(f"found {max_loss}, expected a number of at least 0", param_hint="--max-loss")
    choices = {
        "eval_data": eval_data,
        "labels": labels,
        "metric": metric,
        "output": output_name,
        "batch_size": batch_size,
        "max_samples": max_samples,
        "max_eval_samples": max_eval_samples,
        "hold_out": hold_out,
        "shuffle": shuffle,
        "drop_last": drop_last,
        "skip_bad_images": skip_bad_images,
        "workers": workers,
    }
    scales = _Scales(calibrator or "entropy", cache, names)
    result = _measure(accuracy_options.make_task(model, data, **choices), output, scales, max_loss)
    _show(result, output, top, max_loss, json=json)


@dataclass(frozen=True, slots=True)
class _Scales:
    """Where the scales come from; a cache goes before."""

    calibrator: str
    cache: Path | None
    names: Path | None


def _measure(task: Task, output: Path, scales: _Scales, max_loss: float | None) -> Sensitivity:
    from trtcalib.accuracy.sensitivity import JOURNAL, measure_sensitivity

    going_on = accuracy_study.telling_how_to_go_on(output / JOURNAL)
    with going_on, options.progress_bar(title="measuring") as progress:
        return measure_sensitivity(
            task,
            output,
            calibrator=scales.calibrator,
            cache=scales.cache,
            names=scales.names,
            max_loss=max_loss,
            views=views,
            progress=progress,
        )


def views(result: Sensitivity) -> Mapping[str, bytes]:
    """Return the files that stand beside sensitivity.json, by name."""
    from trtcalib.views.accuracy_markdown import sensitivity_markdown
    from trtcalib.views.accuracy_plots import plot_sensitivity

    text = sensitivity_markdown(result, accuracy_study.command_line())
    return {
        "sensitivity.md": text.encode("utf-8", "backslashreplace"),
        "sensitivity.png": plot_sensitivity(result, "png"),
    }


def _show(result: Sensitivity, output: Path, top: int, max_loss: float | None, *, json: bool) -> None:
    from trtcalib.accuracy.sensitivity import RESULT
    from trtcalib.views.accuracy_tables import fallback_lines, sensitivity_table

    if json:
        typer.echo(result.model_dump_json())
    else:
        options.print_table(sensitivity_table(result, top))
        for line in fallback_lines(result):
            typer.echo(line)
        if max_loss is not None and result.fallback is None:
            typer.echo(f"everything in INT8 is within --max-loss {max_loss:g}: nothing need be left in float")
    accuracy_options.say(result)
    sets = "" if result.fallback is None else f", {result.fallback.evaluations} sets judged for the nodes in float"
    typer.echo(f"{output / RESULT}: {len(result.layers)} nodes{sets}, simulated INT8", err=json)
