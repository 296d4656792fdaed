"""Markdown tables, each under a mark by which the page's copy is found."""

# ruff: noqa: INP001 - scripts of one page, not a package

from __future__ import annotations

from collections.abc import Iterable, Sequence

__all__ = ["markdown"]


def markdown(name: str, head: Sequence[str], rows: Iterable[Sequence[str]], texts: int = 1) -> str:
    """Return a table in Markdown, after a comment that names it; the first ``texts`` columns are left-aligned, the others right."""
    lines = [f"<!-- table: {name} -->", "", _line(head), _line([":--"] * texts + ["--:"] * (len(head) - texts))]
    lines += [_line(row) for row in rows]
    return "\n".join([*lines, ""])


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
