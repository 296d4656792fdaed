"""Options that several commands share, and what they all do with a terminal."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trtcalib.errors import OutputError

if TYPE_CHECKING:
    from rich.table import Table

    from trtcalib.manifest import Finding
    from trtcalib.passes import Progress

Model = Annotated[Path, typer.Argument(metavar="MODEL.onnx", help="The ONNX model.", show_default=False)]
Data = Annotated[
    str,
    typer.Option(
        "--data",
        metavar="SRC",
        help="Calibration data: a .npz or .npy (first axis: samples), a folder of images or any of these through a dataset "
        ".yaml, or module:function yielding {input: array} (this runs its code).",
        show_default=False,
    ),
]
Calibrator = Annotated[
    str,
    typer.Option(
        "--calibrator",
        metavar="NAME|RECIPE.yaml",
        help="entropy, minmax, mse, percentile-<p>, or a recipe's YAML file.",
    ),
]
BatchSize = Annotated[
    int | None,
    typer.Option(
        "--batch-size", min=1, help="Samples per batch. Default: the model's fixed batch, else 32.", show_default=False
    ),
]
MaxSamples = Annotated[
    int | None, typer.Option("--max-samples", min=1, help="Use only the first so many samples.", show_default=False)
]
Shuffle = Annotated[
    int | None,
    typer.Option(
        "--shuffle", metavar="SEED", min=0, help="Shuffle the samples (NumPy PCG64, this seed).", show_default=False
    ),
]
DropLast = Annotated[bool, typer.Option("--drop-last", help="Leave out a last batch that is not full.")]
SkipBadImages = Annotated[
    bool, typer.Option("--skip-bad-images", help="Leave out images that cannot be decoded, and count them.")
]
Workers = Annotated[
    int | None,
    typer.Option(
        "--workers",
        min=1,
        max=256,
        help="Threads. Default: one per CPU. The result does not depend on it.",
        show_default=False,
    ),
]
Names = Annotated[
    Path | None,
    typer.Option(
        "--names",
        metavar="MAP.yaml",
        help="The model's tensor for each name that TensorRT's parser made.",
        show_default=False,
    ),
]
Shapes = Annotated[
    list[str] | None,
    typer.Option(
        "--shapes",
        metavar="INPUT:MIN,OPT,MAX",
        help="For TensorRT: shapes of an input with free axes, such as x:1x3x224x224,8x3x224x224,32x3x224x224. May be repeated.",
        show_default=False,
    ),
]
TensorRTVersion = Annotated[
    str, typer.Option("--tensorrt-version", metavar="X.Y.Z", help="The TensorRT that is to read the cache.")
]
OutputCache = Annotated[
    Path,
    typer.Option(
        "--output",
        "-o",
        metavar="OUT.cache",
        help="The cache to write; its manifest goes beside it.",
        show_default=False,
    ),
]
Json = Annotated[
    bool, typer.Option("--json", help="Print the result as JSON on stdout; everything else goes to stderr.")
]
FailOn = Annotated[
    list[str] | None,
    typer.Option(
        "--fail-on",
        metavar="finding|CODE",
        help="Exit 1 if there is any finding, or one with this code. May be repeated.",
        show_default=False,
    ),
]


def check_fail_on(fail_on: Sequence[str] | None) -> None:
    """Refuse an unknown code before any work is done."""
    from trtcalib.findings import CODES

    for code in fail_on or ():
        if code != "finding" and code not in CODES:
            raise typer.BadParameter(
                f"{code!r} is no finding; expected finding or one of {', '.join(CODES)}", param_hint="--fail-on"
            )


def check_results(results: Sequence[Path | None], inputs: Sequence[Path | str | None]) -> None:
    """Refuse results before any work is done.

    Raises:
        OutputError: If one cannot be written, or would take the place of an input or of another result.
    """
    from trtcalib.files import check_writable

    taken = {Path(given).resolve() for given in inputs if given is not None}
    for path in results:
        if path is None:
            continue
        check_writable(path)
        if path.resolve() in taken:
            raise OutputError(path, "is an input or another result of this command: choose another name")
        taken.add(path.resolve())


def is_fatal(findings: Sequence[Finding], fail_on: Sequence[str] | None) -> bool:
    """Whether ``--fail-on`` asks to fail for one of the findings."""
    wanted = set(fail_on or ())
    return bool(findings) and ("finding" in wanted or any(finding.code in wanted for finding in findings))


def print_findings(findings: Sequence[Finding]) -> None:
    """Print findings on stderr."""
    from trtcalib.views.tables import finding_lines

    for line in finding_lines(findings):
        typer.echo(f"finding: {line}", err=True)


def print_table(table: Table) -> None:
    """Print a table on stdout; as wide as it needs when that is no terminal."""
    from rich.console import Console

    console = Console()
    Console(width=None if console.is_terminal else 240).print(table)


def image_kind(path: Path) -> str:
    """Return ``png`` or ``svg`` from a file name.

    Raises:
        OutputError: For another suffix.
    """
    kind = path.suffix.lower().removeprefix(".")
    if kind not in ("png", "svg"):
        raise OutputError(path, "pictures are written as .png or .svg")
    return kind


@contextlib.contextmanager
def progress_bar(quiet: bool = False, title: str = "calibrating") -> Iterator[Progress | None]:
    """Give a callback that moves a progress bar on stderr; ``None`` where stderr is no terminal."""
    if quiet or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"), TimeRemainingColumn())
    with Progress(TextColumn(title), *columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None, rate="")

        def move(done: int, total: int | None) -> None:
            elapsed = bar.tasks[0].elapsed or 0.0
            rate = f"{done / elapsed:.1f} images/s" if elapsed > 0 else ""
            bar.update(task, completed=done, total=total, rate=rate)

        yield move
