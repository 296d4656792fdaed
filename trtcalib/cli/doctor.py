"""``trtcalib doctor``: what is installed, and what each command can therefore do here."""

from __future__ import annotations

import json as json_module

import typer

from trtcalib.cli import options

EXAMPLE = "Example: trtcalib doctor"


def doctor(json: options.Json = False) -> None:
    """Say what is installed, what each command can do here, and how to get the rest."""
    from rich.table import Table
    from rich.text import Text

    from trtcalib.diagnosis import diagnose

    report = diagnose()
    if json:
        typer.echo(json_module.dumps({"schema_version": 1, **report.as_json()}, indent=2))
        return
    parts = Table("part", "found", "what to do", box=None, pad_edge=False, title="installed", title_justify="left")
    for part in report.parts:
        parts.add_row(part.name, Text(part.found or "-"), Text(part.advice))
    options.print_table(parts)
    jobs = Table("command", "here", "why", box=None, pad_edge=False, title="\nwhat works here", title_justify="left")
    for job in report.jobs:
        jobs.add_row(Text(job.command), "yes" if job.works else "no", Text(job.reason))
    options.print_table(jobs)
