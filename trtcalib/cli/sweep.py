"""``trtcalib sweep``: the recipe that suits a model best, and its cache."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trtcalib.cli import accuracy_options, accuracy_study, options

if TYPE_CHECKING:
    from trtcalib.accuracy.result import Sweep
    from trtcalib.accuracy.task import Task

EXAMPLE = "Example: trtcalib sweep model.onnx --data images.npz --batch-size 8 -o sweep-out"


def sweep(
    model: options.Model,
    data: options.Data,
    output: accuracy_options.Folder,
    eval_data: accuracy_options.EvalData = None,
    labels: accuracy_options.Labels = None,
    budget: Annotated[
        int, typer.Option("--budget", metavar="N", min=1, help="Candidates that are judged, at most.")
    ] = 40,
    metric: accuracy_options.Metric = None,
    output_name: accuracy_options.OutputName = None,
    batch_size: options.BatchSize = None,
    max_samples: options.MaxSamples = None,
    max_eval_samples: accuracy_options.MaxEvalSamples = None,
    shuffle: options.Shuffle = None,
    drop_last: options.DropLast = False,
    skip_bad_images: options.SkipBadImages = False,
    tensorrt_version: options.TensorRTVersion = "10.16.1",
    workers: options.Workers = None,
    json: options.Json = False,
) -> None:
    """Find the recipe that loses least on the calibration data, judge it on held-out data, and write its cache: winner.cache."""
    choices = {
        "eval_data": eval_data,
        "labels": labels,
        "metric": metric,
        "output": output_name,
        "batch_size": batch_size,
        "max_samples": max_samples,
        "max_eval_samples": max_eval_samples,
        "shuffle": shuffle,
        "drop_last": drop_last,
        "skip_bad_images": skip_bad_images,
        "workers": workers,
    }
    result = _sweep(accuracy_options.make_task(model, data, **choices), output, budget, tensorrt_version)
    _show(result, output, json=json)


def _sweep(task: Task, output: Path, budget: int, tensorrt_version: str) -> Sweep:
    from trtcalib.accuracy.sweep import JOURNAL
    from trtcalib.accuracy.sweep import sweep as run

    going_on = accuracy_study.telling_how_to_go_on(output / JOURNAL)
    with going_on, options.progress_bar(title="judging") as progress:
        return run(task, output, budget=budget, tensorrt_version=tensorrt_version, views=_views, progress=progress)


def _views(result: Sweep) -> Mapping[str, bytes]:
    from trtcalib.views.accuracy_markdown import sweep_markdown
    from trtcalib.views.accuracy_plots import plot_sweep

    return {
        "sweep.md": sweep_markdown(result, accuracy_study.command_line()).encode(),
        "sweep.png": plot_sweep(result, "png"),
    }


def _show(result: Sweep, output: Path, *, json: bool) -> None:
    from trtcalib.accuracy.sweep import CACHE, RESULT
    from trtcalib.views.accuracy_tables import sweep_lines, sweep_table

    if json:
        typer.echo(result.model_dump_json())
    else:
        options.print_table(sweep_table(result))
        for line in sweep_lines(result):
            typer.echo(line)
    accuracy_options.say(result)
    typer.echo(f"{output / RESULT}: {len(result.candidates)} candidates, {result.evaluations} evaluations", err=json)
    typer.echo(f"{output / CACHE}: the scales of {result.winner.method}", err=json)
