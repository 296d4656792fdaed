"""What the accuracy studies that write a folder do alike."""

from __future__ import annotations

import contextlib
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import typer

__all__ = ["command_line", "telling_how_to_go_on"]


@contextlib.contextmanager
def telling_how_to_go_on(journal: Path) -> Iterator[None]:
    """Say after Ctrl-C that the same command goes on, where something was noted."""
    try:
        yield
    except KeyboardInterrupt:
        if journal.exists():
            typer.echo(f"{journal.parent}: the same command goes on from what is saved here", err=True)
        raise


def command_line() -> str:
    """Return the command that runs, as a shell takes it."""
    return shlex.join(["trtcalib", *sys.argv[1:]])
