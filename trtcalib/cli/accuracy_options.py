"""Options that the accuracy studies share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from trtcalib.accuracy.result import Setting
    from trtcalib.accuracy.task import Task

EvalData = Annotated[
    str | None,
    typer.Option(
        "--eval-data",
        metavar="SRC",
        help="What is judged on, as for --data. Default: the data themselves, which flatters (see --hold-out; sweep and advise always hold out).",
        show_default=False,
    ),
]
Labels = Annotated[
    Path | None,
    typer.Option(
        "--labels",
        metavar="FILE",
        help="One label per judged sample: a .npy, a .txt (one integer per line) or a .csv (name,label). Default: the labels that "
        "the dataset .yaml names.",
        show_default=False,
    ),
]
Metric = Annotated[
    str | None,
    typer.Option(
        "--metric",
        metavar="NAME",
        help="top1, top5, agreement (with FP32), sqnr, cosine, or module:function called as function(outputs, label) (this runs its "
        "code). Default: top1 with labels, else agreement or sqnr.",
        show_default=False,
    ),
]
OutputName = Annotated[
    str | None,
    typer.Option(
        "--output-name", metavar="NAME", help="The output that is judged, where it is not clear.", show_default=False
    ),
]
MaxEvalSamples = Annotated[
    int | None,
    typer.Option("--max-eval-samples", min=1, help="Judge only the first so many samples.", show_default=False),
]
HoldOut = Annotated[
    bool,
    typer.Option(
        "--hold-out", help="Without --eval-data: judge on every fourth sample, and make the scales from the others."
    ),
]
Folder = Annotated[
    Path,
    typer.Option(
        "--output",
        "-o",
        metavar="OUT/",
        help="Folder for the result as JSON, Markdown and a plot; an interrupted study there goes on.",
        show_default=False,
    ),
]


def make_task(model: Path, data: str, **choices: Any) -> Task:
    """Return the task that the options ask for.

    Args:
        model: The model.
        data: What is calibrated on.
        choices: Fields of :class:`~trtcalib.batches.Batching` and of :class:`~trtcalib.accuracy.task.Task`.
    """
    from trtcalib.accuracy.task import Task
    from trtcalib.batches import Batching

    names = ("batch_size", "max_samples", "shuffle", "drop_last")
    batching = Batching(**{name: choices.pop(name) for name in names if name in choices})
    return Task(model=model, data=data, batching=batching, **choices)


def say(result: Setting) -> None:
    """Tell on stderr what a reader of the numbers must know."""
    from trtcalib.cli import options
    from trtcalib.views.text import printable

    for note in result.notes:
        typer.echo(f"note: {printable(note)}", err=True)
    options.print_findings(result.findings)
