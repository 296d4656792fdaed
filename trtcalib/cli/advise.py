"""``trtcalib advise``: what to do about what INT8 loses."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trtcalib.cli import ablate, accuracy_options, accuracy_study, options, sensitivity

if TYPE_CHECKING:
    from trtcalib.accuracy.result import Advice
    from trtcalib.accuracy.task import Task

EXAMPLE = "Example: trtcalib advise model.onnx --data images.npz -o advice-out"


def advise(
    model: options.Model,
    data: options.Data,
    output: accuracy_options.Folder,
    eval_data: accuracy_options.EvalData = None,
    labels: accuracy_options.Labels = None,
    metric: accuracy_options.Metric = None,
    output_name: accuracy_options.OutputName = None,
    max_loss: Annotated[
        float,
        typer.Option(
            "--max-loss",
            metavar="X",
            min=0,
            help="What INT8 may lose of the metric: 0.01 is one point of top1; for sqnr noise / signal, 0.01 is 20 dB.",
        ),
    ] = 0.01,
    results: Annotated[
        list[Path] | None,
        typer.Option(
            "--from",
            metavar="RESULT",
            help="Rest on this result of study, ablate or sensitivity, a file or a folder, instead of making it. May be repeated.",
            show_default=False,
        ),
    ] = None,
    batch_size: options.BatchSize = None,
    max_samples: options.MaxSamples = None,
    max_eval_samples: accuracy_options.MaxEvalSamples = None,
    shuffle: options.Shuffle = None,
    drop_last: options.DropLast = False,
    skip_bad_images: options.SkipBadImages = False,
    workers: options.Workers = None,
    json: options.Json = False,
) -> None:
    """Say what to do about what INT8 loses: inputs, samples, method, batch size, layers to leave in FP16; each advice tried on held-out data."""
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
    task = accuracy_options.make_task(model, data, **choices)
    _show(_advise(task, output, max_loss, results or []), output, json=json)


def _advise(task: Task, output: Path, max_loss: float, given: list[Path]) -> Advice:
    from trtcalib.advising.advice import Views
    from trtcalib.advising.advice import advise as run

    views = Views(ablation=ablate.views, sensitivity=sensitivity.views, advice=_views)
    with options.progress_bar(title="trying") as progress:
        return run(
            task,
            output,
            max_loss=max_loss,
            given=given,
            views=views,
            progress=progress,
            tell=lambda step: typer.echo(f"... {step}", err=True),
        )


def _views(result: Advice) -> Mapping[str, bytes]:
    from trtcalib.views.accuracy_markdown import advice_markdown

    return {"advice.md": advice_markdown(result, accuracy_study.command_line()).encode("utf-8", "backslashreplace")}


def _show(result: Advice, output: Path, *, json: bool) -> None:
    from trtcalib.advising.advice import CACHE, RESULT
    from trtcalib.views.accuracy_tables import advice_lines

    if json:
        typer.echo(result.model_dump_json())
    else:
        for line in advice_lines(result):
            typer.echo(line)
    accuracy_options.say(result)
    typer.echo(f"{output / RESULT}, and the scales it ends at: {output / CACHE}", err=json)
    typer.echo(f"as a page: trtcalib report {output} -o report.html", err=json)
