"""``trtcalib evaluate``: what INT8 costs a model, judged sample by sample beside FP32."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trtcalib.cli import accuracy_options, options

if TYPE_CHECKING:
    from trtcalib.accuracy.evaluation import Under
    from trtcalib.accuracy.result import Evaluation
    from trtcalib.accuracy.task import Task

EXAMPLE = "Example: trtcalib evaluate model.onnx --data images.npz"


def evaluate(
    model: options.Model,
    data: options.Data,
    eval_data: accuracy_options.EvalData = None,
    labels: accuracy_options.Labels = None,
    cache: Annotated[
        Path | None,
        typer.Option(
            "--cache", metavar="C", help="Take the scales of this cache instead of calibrating.", show_default=False
        ),
    ] = None,
    names: options.Names = None,
    calibrator: Annotated[
        str | None,
        typer.Option(
            "--calibrator",
            metavar="NAME|RECIPE.yaml",
            help="Calibrate on --data with entropy (the default), minmax, mse, percentile-<p>, or a recipe's YAML file.",
            show_default=False,
        ),
    ] = None,
    engine: Annotated[
        Path | None,
        typer.Option(
            "--engine",
            metavar="OUT.engine",
            help="Run this engine of the model on the GPU, instead of INT8 simulated. It is executable: use only one that you trust.",
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
    max_loss: Annotated[
        float | None,
        typer.Option(
            "--max-loss",
            metavar="X",
            min=0,
            help="Exit 1 if INT8 loses more of the metric than this: 0.01 is one point of top1; for sqnr noise / signal, 0.01 is 20 dB.",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="OUT.json", help="Write the result here as JSON.", show_default=False),
    ] = None,
    json: options.Json = False,
    fail_on: options.FailOn = None,
) -> None:
    """Judge INT8 beside FP32 on the same samples: overall, per class and per output, with 95 % confidence intervals."""
    options.check_fail_on(fail_on)
    grouping = {"--batch-size": batch_size, "--shuffle": shuffle, "--drop-last": drop_last or None}
    _refuse_idle(cache=cache, names=names, calibrator=calibrator, engine=engine, grouping=grouping)
    options.check_results([output], [model, data, eval_data, labels, cache, names, calibrator, engine])
    from trtcalib.accuracy.evaluation import Under

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
    task = accuracy_options.make_task(model, data, **choices)
    under = Under(calibrator=calibrator or "entropy", cache=cache, names=names, engine=engine)
    result = _evaluate(task, under, output)
    _show(result, output, json=json)
    if options.is_fatal(result.findings, fail_on) or _loses_too_much(result, max_loss):
        raise typer.Exit(1)


def _refuse_idle(
    *,
    cache: Path | None,
    names: Path | None,
    calibrator: str | None,
    engine: Path | None,
    grouping: Mapping[str, object],
) -> None:
    """Refuse options that would change nothing."""
    given = {"--cache": cache, "--calibrator": calibrator, "--engine": engine}
    chosen = [option for option, value in given.items() if value is not None]
    if len(chosen) > 1:
        raise typer.BadParameter(f"give one of {' and '.join(chosen)}", param_hint=chosen[0])
    if names is not None and cache is None:
        raise typer.BadParameter("it maps names of a cache: give --cache", param_hint="--names")
    idle = [option for option, value in grouping.items() if value is not None]
    if idle and calibrator is None and chosen:
        raise typer.BadParameter(f"nothing is calibrated with {chosen[0]}: leave it out", param_hint=idle[0])


def _evaluate(task: Task, under: Under, output: Path | None) -> Evaluation:
    from trtcalib.accuracy.evaluation import evaluate as run
    from trtcalib.files import new_file

    folder = Path() if output is None else output.parent
    with options.progress_bar(title="evaluating") as progress:
        result = run(task, under, folder=folder, progress=progress)
    if output is not None:
        with new_file(output) as file:
            file.write(result.model_dump_json(indent=2).encode() + b"\n")
    return result


def _show(result: Evaluation, output: Path | None, *, json: bool) -> None:
    from trtcalib.views.accuracy_tables import class_table, evaluation_lines, output_table

    if json:
        typer.echo(result.model_dump_json())
    else:
        for line in evaluation_lines(result):
            typer.echo(line)
        if not result.simulated:
            typer.echo("the engine was run by TensorRT on this machine's GPU: nothing is simulated")
        if result.classes:
            options.print_table(class_table(result))
        options.print_table(output_table(result))
    accuracy_options.say(result)
    if output is not None:
        typer.echo(f"{output}: the result as JSON", err=json)


def _loses_too_much(result: Evaluation, max_loss: float | None) -> bool:
    """Say whether the loss is above what was allowed; a limit that is no number allows nothing."""
    loss = result.judgement.loss
    if max_loss is None or loss <= max_loss:
        return False
    from trtcalib.views.text import printable

    typer.echo(f"the loss of {printable(result.metric.name)}, {loss:.6g}, is above --max-loss {max_loss:g}", err=True)
    return True
