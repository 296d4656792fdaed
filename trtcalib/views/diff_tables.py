"""Files of scales side by side, for the terminal."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from trtcalib.cache_tools.diff import FilePair, ScaleDiff
from trtcalib.cache_tools.scale_files import ScaleFile
from trtcalib.core.cache_diff import Change, Row
from trtcalib.core.scale import scale_from_bits
from trtcalib.views.text import printable, shortened

__all__ = ["diff_lines", "diff_table", "file_lines"]

SHOWN_NAMES = 10
"""Added and missing names that a line shows."""

SHOWN_SAME = 2
"""Names that a row shows beside its first."""

SHOWN_NOTES = 5
"""Notes of a file that are shown."""

LONGEST_NOTE = 400

LONGEST_REASON = 200


def file_lines(result: ScaleDiff) -> list[str]:
    """Return one line per file: what it is; and one per thing that is odd in it."""
    lines = []
    for place, file in enumerate((result.reference, *(pair.file for pair in result.pairs))):
        lines.append(f"{_letter(place)}  {shortened(str(file.path))}: {_what(file)}")
        lines += [f"   {shortened(note, LONGEST_NOTE)}" for note in file.notes[:SHOWN_NOTES]]
        if file.notes[SHOWN_NOTES:]:
            lines.append(f"   ... {len(file.notes) - SHOWN_NOTES} more; --json lists them")
    return lines


def _what(file: ScaleFile) -> str:
    beside = "" if file.manifest is None else ", manifest beside it"
    return f"{shortened(file.header or file.format)}, {len(file.scales.bits)} tensors{beside}"


def _letter(place: int) -> str:
    """Return A, B, ... Z, and a number from then on."""
    return chr(ord("A") + place) if place < 26 else str(place + 1)  # noqa: PLR2004 - letters


def diff_table(result: ScaleDiff, rows: Sequence[Row]) -> Table:
    """Show what moved; tensors that moved between the same scales share a row.

    Args:
        result: The comparison.
        rows: Those of its rows that are to be shown.
    """
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("tensor", overflow="fold")
    table.add_column("scale in A", justify="right", no_wrap=True)
    for place in range(len(result.pairs)):
        table.add_column(f"{_letter(place + 1)} / A", justify="right", no_wrap=True)
    table.add_column("why", overflow="fold")
    for row in rows:
        label = Text(shortened(row.names[0]))
        if row.names[1:]:
            label.append(f"  = {_listed(row.names[1:], SHOWN_SAME)}", style="dim")
        cells = [_ratio(change, present=present) for change, present in zip(row.changes, row.present, strict=True)]
        table.add_row(label, f"{scale_from_bits(row.before):.8g}", *cells, Text(_why(row)))
    return table


def _ratio(change: Change | None, *, present: bool) -> str:
    if change is None:
        return "=" if present else "-"
    if change.ratio is None or not math.isfinite(change.log_ratio):
        return f"-> {scale_from_bits(change.after):.6g}"
    return f"{change.ratio:.7f}" if abs(change.ratio - 1) < 1e-3 else f"{change.ratio:.5g}"  # noqa: PLR2004 - digits that tell


def _why(row: Row) -> str:
    """Return the reason of each change; one that several pairs share stands once."""
    reasons: dict[str, list[str]] = {}
    for place, change in enumerate(row.changes):
        if change is not None and change.reason.text:
            reasons.setdefault(change.reason.text, []).append(_letter(place + 1))
    several = len(row.changes) > 1
    return "\n".join(
        f"{','.join(places)}: {shortened(text, LONGEST_REASON)}" if several else shortened(text, LONGEST_REASON)
        for text, places in reasons.items()
    )


def diff_lines(result: ScaleDiff) -> list[str]:
    """Return for each file what differs from the reference and which explanations fit."""
    return [line for place, pair in enumerate(result.pairs, start=1) for line in _pair_lines(result, pair, place)]


def _pair_lines(result: ScaleDiff, pair: FilePair, place: int) -> Iterator[str]:
    diff = pair.diff
    distinct = f" ({len(diff.distinct)} distinct)" if len(diff.distinct) != len(diff.changes) else ""
    ignored = f", {diff.within_rtol} within {result.rtol:g}" if result.rtol else ""
    yield (
        f"{_letter(place)} against A: {'the same' if diff.same else 'different'}; {diff.matching} names match: {len(diff.changes)} changed{distinct}, "
        f"{diff.unchanged} unchanged{ignored}; {len(diff.added)} added, {len(diff.missing)} missing"
    )
    if diff.added:
        yield f"  added: {_listed(diff.added, SHOWN_NAMES)}"
    if diff.missing:
        yield f"  missing: {_listed(diff.missing, SHOWN_NAMES)}"
    for found in pair.explanations:
        yield f"  {'stated' if found.basis == 'manifests' else 'why'}: {printable(found.sentence)}"
    if diff.order_differs:
        yield "  the lines stand in another order, which makes no difference to the scales"


def _listed(names: Sequence[str], most: int) -> str:
    more = f", ... {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(shortened, names[:most])) + more
