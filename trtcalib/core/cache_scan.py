"""A calibration cache read line by line: all of its faults with their lines, where the strict reader stops at the first.

:func:`trtcalib.core.cache.parse_cache` takes a file exactly when :attr:`CacheScan.readable` is true, and finds the same entries.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

__all__ = ["BREAKING", "MOST_FAULTS", "CacheScan", "FaultKind", "ScannedEntry", "TextFault", "scan_cache"]

MOST_FAULTS = 1000
"""Faults of one kind that are kept; the others are counted. A binary file has millions. Ours."""

LONGEST_TEXT = 80
"""Characters of a line that a fault quotes. Ours."""

FaultKind = Literal[
    "header",
    "line",
    "digits",
    "byte-order-mark",
    "carriage-return",
    "blank-line",
    "white-space",
    "no-line-end",
    "nul",
    "unusual-digits",
]

BREAKING: frozenset[FaultKind] = frozenset({"header", "line", "digits", "byte-order-mark"})
"""Faults that the strict reader refuses; it keeps the others as they are."""

_MARK = "\ufeff"
"""The byte order mark that editors put before UTF-8."""

_HEADER = re.compile(r"TRT-([0-9]{1,9})-(\S+)")
_HEX = re.compile(r"[0-9a-fA-F]{1,8}")
_USUAL_HEX = re.compile(r"0|[1-9a-f][0-9a-f]{0,7}")
_USUAL_HEADER = re.compile(r"TRT-(?:0|[1-9][0-9]*)-\S+")


@dataclass(frozen=True, slots=True)
class ScannedEntry:
    """A line that could be read.

    Attributes:
        line: One-based.
        name: The tensor's name; bytes that are not UTF-8 are kept as surrogate escapes.
        bits: The scale's float32 bits.
    """

    line: int
    name: str
    bits: int


@dataclass(frozen=True, slots=True)
class TextFault:
    """Something in the text that is wrong or unusual.

    Attributes:
        kind: What.
        line: One-based.
        found: What stands there, cut to 80 characters; of the digits' faults the digits.
        name: The tensor's name, where the line could be split.
    """

    kind: FaultKind
    line: int
    found: str = ""
    name: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheScan:
    """What could be read of a cache.

    Attributes:
        version: The number in the header; ``None`` where the header is none.
        algorithm: The algorithm in the header.
        entries: The lines that could be read, in file order, duplicates included.
        faults: At most :data:`MOST_FAULTS` of a kind, in file order.
        counts: How many there are of each kind.
    """

    version: int | None
    algorithm: str | None
    entries: tuple[ScannedEntry, ...]
    faults: tuple[TextFault, ...] = ()
    counts: Mapping[FaultKind, int] = field(default_factory=dict)

    @property
    def readable(self) -> bool:
        """Whether the strict reader takes the file."""
        return not BREAKING & self.counts.keys()


def scan_cache(content: bytes) -> CacheScan:
    """Read what can be read of a calibration cache, whatever the bytes are; nothing is raised.

    A first line that is no header but that of a tensor counts as one. A byte order mark is a fault, and the header behind it
    is read.
    """
    lines = content.decode("utf-8", "surrogateescape").split("\n")
    found = _Found()
    if lines[0].startswith(_MARK):
        found.add("byte-order-mark", 1)
        lines[0] = lines[0].removeprefix(_MARK)
    header = _scan_header(lines[0], found)
    for number, line in enumerate(lines, start=1):
        last = number == len(lines)
        if last and not line:
            break
        _scan_ends(line, number, found, last=last)
        text = line.rstrip(" \t\r")
        if number > 1:
            _scan_line(text, number, found)
        elif header is None and (entry := _split(text)) and _HEX.fullmatch(entry[1]):
            found.entries.append(ScannedEntry(1, entry[0], int(entry[1], 16)))
    return CacheScan(
        version=None if header is None else int(header[1]),
        algorithm=None if header is None else header[2],
        entries=tuple(found.entries),
        faults=tuple(found.faults),
        counts=dict(found.counts),
    )


class _Found:
    """What was found so far."""

    def __init__(self) -> None:
        self.entries: list[ScannedEntry] = []
        self.faults: list[TextFault] = []
        self.counts: Counter[FaultKind] = Counter()

    def add(self, kind: FaultKind, line: int, found: str = "", name: str | None = None) -> None:
        self.counts[kind] += 1
        if self.counts[kind] <= MOST_FAULTS:
            self.faults.append(TextFault(kind, line, found[:LONGEST_TEXT], name))


def _scan_header(line: str, found: _Found) -> re.Match[str] | None:
    text = line.rstrip("\r").rstrip(" \t")
    header = _HEADER.fullmatch(text)
    if header is None:
        found.add("header", 1, text)
    elif _USUAL_HEADER.fullmatch(text) is None:
        found.add("unusual-digits", 1, header[1])
    return header


def _scan_ends(line: str, number: int, found: _Found, *, last: bool) -> None:
    """Look at what follows the text of a line, and for NUL."""
    text = line.rstrip(" \t\r")
    end = line[len(text) :]
    if end == "\r":
        found.add("carriage-return", number)
    elif end:
        found.add("white-space", number)
    if "\0" in text:
        found.add("nul", number)
    if not text and number > 1:
        found.add("blank-line", number)
    if last:
        found.add("no-line-end", number)


def _scan_line(text: str, number: int, found: _Found) -> None:
    if not text:
        return
    entry = _split(text)
    if entry is None:
        found.add("line", number, text)
        return
    name, digits = entry
    if _HEX.fullmatch(digits) is None:
        found.add("digits", number, digits, name)
        return
    if _USUAL_HEX.fullmatch(digits) is None:
        found.add("unusual-digits", number, digits, name)
    found.entries.append(ScannedEntry(number, name, int(digits, 16)))


def _split(text: str) -> tuple[str, str] | None:
    """Split ``name: hex`` at the last ``": "``."""
    name, separator, digits = text.rpartition(": ")
    return (name, digits) if separator and name else None
