"""What a benchmark section found, and how it is shown; nothing is measured here."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

__all__ = ["Section", "markdown"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """One table.

    Attributes:
        title: Its heading.
        setting: How it was measured, in a sentence or two.
        columns: Heads of the columns.
        rows: Cells as they are shown.
        facts: The numbers behind the cells, for the JSON file.
    """

    title: str
    setting: str
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]]
    facts: dict[str, Any] = field(default_factory=dict)


def markdown(section: Section) -> str:
    """Return a section as Markdown, its columns aligned so that it reads as plain text as well."""
    table = [section.columns, *section.rows]
    widths = [max(len(row[column]) for row in table) for column in range(len(section.columns))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in table
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join([f"## {section.title}", "", section.setting, "", *lines, ""])
