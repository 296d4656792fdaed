"""``trtcalib ablate``: which method for which part of the model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trtcalib.cli import accuracy_options, accuracy_study, options

if TYPE_CHECKING:
    from trtcalib.accuracy.result import Ablation
    from trtcalib.accuracy.task import Task

EXAMPLE = "Example: trtcalib ablate model.onnx --data images.npz -o ablation-out"


def ablate(
    model: options.Model,
    data: options.Data,
    output: accuracy_options.Folder,
    eval_data: accuracy_options.EvalData = None,
    labels: accuracy_options.Labels = None,
    methods: Annotated[
        str | None,
        typer.Option(
            "--methods",
            metavar="LIST",
            help="The rows: calibrators as for calibrate, YAML files too, with commas between. Default: minmax, entropy, percentile-99.9, "
            "-99.99, -99.999 and -99.9999, mse.",
            show_default=False,
        ),
    ] = None,
    metric: accuracy_options.Metric = None,
    output_name: accuracy_options.OutputName = None,
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
    """Judge methods on the weights alone, the activations alone, and both, from one collection pass: the literature's table for this model."""
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
    result = _ablate(accuracy_options.make_task(model, data, **choices), output, methods)
    _show(result, output, json=json)


def _ablate(task: Task, output: Path, methods: str | None) -> Ablation:
    from trtcalib.accuracy.ablation import JOURNAL, METHODS
    from trtcalib.accuracy.ablation import ablate as run

    chosen = METHODS if methods is None else tuple(part.strip() for part in methods.split(",") if part.strip())
    going_on = accuracy_study.telling_how_to_go_on(output / JOURNAL)
    with going_on, options.progress_bar(title="judging") as progress:
        return run(task, output, methods=chosen, views=views, progress=progress)


def views(result: Ablation) -> Mapping[str, bytes]:
    """Return the files that stand beside ablation.json, by name."""
    from trtcalib.views.accuracy_markdown import ablation_markdown
    from trtcalib.views.accuracy_plots import plot_ablation

    return {
        "ablation.md": ablation_markdown(result, accuracy_study.command_line()).encode(),
        "ablation.png": plot_ablation(result, "png"),
    }


def _show(result: Ablation, output: Path, *, json: bool) -> None:
    from trtcalib.accuracy.ablation import RESULT
    from trtcalib.views.accuracy_tables import ablation_table

    if json:
        typer.echo(result.model_dump_json())
    else:
        options.print_table(ablation_table(result))
    accuracy_options.say(result)
    cells = sum(len(row.cells) for row in result.rows)
    typer.echo(f"{output / RESULT}: {len(result.rows)} methods, {cells} variants, simulated INT8", err=json)
