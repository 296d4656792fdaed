"""``trtcalib report``: accuracy studies, studies of batch sizes, histograms and caches as one HTML page, with its numbers as JSON and CSV beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from trtcalib.cli import options
from trtcalib.errors import OutputError

EXAMPLE = "Example: trtcalib report model.cache model.npz -o report.html"


def report(
    results: Annotated[
        list[Path],
        typer.Argument(
            metavar="RESULT...",
            help="Folders or JSON files of study, evaluate, ablate, sweep, sensitivity and advise, files of calibrate --histograms, "
            "calibration caches; any number.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            metavar="REPORT.html",
            help="The page to write; REPORT.json and REPORT.csv go beside it.",
            show_default=False,
        ),
    ],
    open_page: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
) -> None:
    """Write one page that shows and explains results: how accurate, what moved, why, and where each method clips. It loads nothing."""
    if output.suffix.lower() not in (".html", ".htm"):
        raise OutputError(output, "a report is written as .html")
    beside = [output.with_suffix(suffix) for suffix in (".json", ".csv")]
    from trtcalib.reports.inputs import files_of

    options.check_results([output, *beside], [*results, *(file for result in results for file in files_of(result))])
    from trtcalib.reports.report import write_report
    from trtcalib.views.text import printable

    written = write_report(results, output)
    for note in written.notes:
        typer.echo(f"note: {printable(note)}", err=True)
    for path in (output, *beside):
        typer.echo(printable(str(path)))
    if open_page:
        _open(output)


def _open(page: Path) -> None:
    import webbrowser

    try:
        opened = webbrowser.open(page.resolve().as_uri())
    except webbrowser.Error:
        opened = False
    if not opened:
        typer.echo(f"no browser was found here: open {page} in one", err=True)
