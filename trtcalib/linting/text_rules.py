"""Rules that need the file's text alone: header, lines, names."""

from __future__ import annotations

from collections.abc import Iterator

from trtcalib.core.cache import ALGORITHMS, FIRST_VERSION_WITHOUT_CALIBRATORS, is_cut_off, version_text
from trtcalib.core.cache_scan import CacheScan, FaultKind, ScannedEntry, TextFault
from trtcalib.linting.rules import LintFinding, finding

__all__ = ["text_findings"]

NEWEST_VERSION = 101699
"""The last TensorRT with calibrators is 10.16; headers of its patches end here."""

_FIRST_OF_TWO_DIGITS = 100000
_LAST_OF_ONE_DIGIT = 9999
_FIRST_OF_ONE_DIGIT = 1000
"""Headers count major * 1000 up to 9 and major * 10000 from 10, so that nothing lies between 9999 and 100000."""

_ONCE: dict[FaultKind, tuple[str, str]] = {
    "unusual-digits": ("TC012", "has upper case or leading zeros{n}, where TensorRT writes lower case without them: the value is the same"),
    "carriage-return": ("TC013", "CRLF line end{n}, where TensorRT writes LF: was it edited on Windows, or changed by git?"),
    "blank-line": ("TC014", "blank line{n}: take it out, since NVIDIA ModelOpt's reader fails at a blank last one"),
    "no-line-end": ("TC015", "no line end after the last line: was the file cut off?"),
    "nul": ("TC017", "NUL bytes{n}: readers that take text as C strings stop there"),
    "white-space": ("TC018", "spaces, tabs or several carriage returns at the end{n}: trtcalib passes over them, other readers may not"),
}  # fmt: skip
"""What is told once for the whole file; {n} is how often, where it is more than once."""


def text_findings(scan: CacheScan) -> Iterator[LintFinding]:
    """Yield what is wrong or unusual in the text."""
    yield from _header_findings(scan)
    # A file without a header and without a tensor is something else: its lines tell nothing.
    if scan.version is None and not scan.entries:
        return
    for fault in scan.faults:
        if fault.kind == "line":
            message = f"found {fault.found!r}, expected 'tensor name: hexadecimal scale': was the line cut or wrapped?"
            yield finding("TC004", message, line=fault.line)
        elif fault.kind == "digits":
            message = f"tensor {fault.name!r} has scale {fault.found!r}, expected one to eight hexadecimal digits, the bits of a float32"
            yield finding("TC005", message, line=fault.line, tensor=fault.name)
    if not scan.entries and not scan.counts.keys() & {"line", "digits"}:
        yield finding("TC006", "no tensor has a scale: was the calibration stopped before its end?")
    for kind, (rule, text) in _ONCE.items():
        if count := scan.counts.get(kind, 0):
            first = next(fault for fault in scan.faults if fault.kind == kind)
            often = "" if count == 1 else f" (the first of {count} lines)"
            yield finding(rule, _subject(first) + text.replace("{n}", often), line=first.line)
    yield from _cut_off(scan)
    yield from _repeated(scan.entries)
    yield from _names(scan.entries)


def _cut_off(scan: CacheScan) -> Iterator[LintFinding]:
    unended = next((fault for fault in scan.faults if fault.kind == "no-line-end"), None)
    if unended is not None and scan.version is not None and scan.entries and scan.entries[-1].line == unended.line:
        last = scan.entries[-1]
        if is_cut_off(last.bits):
            message = f"the file ends within the scale of tensor {last.name!r}, {last.bits:x}, of which eight digits are due: it was cut off"
            yield finding("TC019", message, line=last.line, tensor=last.name)


def _subject(fault: TextFault) -> str:
    if fault.kind != "unusual-digits":
        return ""
    return (
        f"the version {fault.found!r} "
        if fault.name is None
        else f"the scale {fault.found!r} of tensor {fault.name!r} "
    )


def _header_findings(scan: CacheScan) -> Iterator[LintFinding]:
    if scan.counts.get("byte-order-mark"):
        yield finding(
            "TC016",
            "the file starts with a byte order mark, so that its header is not read: save it without one",
            line=1,
        )
    for fault in scan.faults:
        if fault.kind == "header":
            yield finding("TC001", _about_header(fault, scan), line=1)
    if scan.version is not None and (reason := _about_version(scan.version)):
        yield finding("TC002", reason, line=1)
    if scan.algorithm is not None and scan.algorithm not in ALGORITHMS:
        message = f"unknown algorithm {scan.algorithm[:80]!r}, expected one of {', '.join(ALGORITHMS)}; TensorRT calibrates anew where it is not its own"
        yield finding("TC003", message, line=1)


def _about_header(fault: TextFault, scan: CacheScan) -> str:
    expected = "expected a header such as 'TRT-101601-EntropyCalibration2'"
    if not fault.found:
        return f"the first line is empty, {expected}: is it a calibration cache?"
    if "\r" in fault.found:
        return f"found {fault.found!r}, {expected}: do its lines end in CR alone?"
    if scan.entries and scan.entries[0].line == 1:
        return f"the first line is that of tensor {scan.entries[0].name!r}, {expected}: was the header lost?"
    if "\0" in fault.found:
        return f"found {fault.found!r}, {expected}: is it a binary file, or UTF-16?"
    return f"found {fault.found!r}, {expected}: is it a calibration cache?"


def _about_version(number: int) -> str:
    if number >= FIRST_VERSION_WITHOUT_CALIBRATORS * 10000:
        return (
            f"{number} is TensorRT {version_text(number)}, and from 11 on TensorRT has no calibrators and reads no cache: write the header of the "
            "version that is to read it"
        )
    if _FIRST_OF_ONE_DIGIT <= number <= _LAST_OF_ONE_DIGIT or _FIRST_OF_TWO_DIGITS <= number <= NEWEST_VERSION:
        return ""
    return (
        f"{number} is no TensorRT that is known: expected major*1000 + minor*100 + patch up to 9 (8601 is 8.6.1), "
        "major*10000 + minor*100 + patch from 10 on (101601 is 10.16.1), and no later one than 10.16"
    )


def _repeated(entries: tuple[ScannedEntry, ...]) -> Iterator[LintFinding]:
    """Yield one finding per line that repeats an earlier one's name."""
    first: dict[str, ScannedEntry] = {}
    for entry in entries:
        before = first.setdefault(entry.name, entry)
        if before is entry:
            continue
        same = before.bits == entry.bits
        scales = f"the same scale {entry.bits:x}" if same else f"scale {entry.bits:x}, there {before.bits:x}"
        advice = "take one of them out" if same else "which one a reader takes is its own choice: keep the right one"
        message = f"tensor {entry.name!r} stands in line {before.line} already, here with {scales}; {advice}"
        yield finding("TC007" if same else "TC008", message, line=entry.line, tensor=entry.name)


def _names(entries: tuple[ScannedEntry, ...]) -> Iterator[LintFinding]:
    colons = [entry for entry in entries if ":" in entry.name]
    for entry in entries:
        if entry.name.isascii() and entry.name.isprintable():
            continue
        if any("\ud800" <= character <= "\udfff" for character in entry.name):
            message = f"the name {entry.name!r} is not UTF-8, and no ONNX model has such a name"
            yield finding("TC009", message, line=entry.line, tensor=entry.name)
        elif not entry.name.isprintable():
            message = (
                f"the name {entry.name!r} holds characters that cannot be seen: is it the name that the model has?"
            )
            yield finding("TC010", message, line=entry.line, tensor=entry.name)
    if colons:
        worst = next((entry for entry in colons if ": " in entry.name), colons[0])
        others = f" and {len(colons) - 1} more hold" if colons[1:] else " holds"
        message = (
            f"the name {worst.name!r}{others} ':'; ONNX Runtime's TensorRT provider splits a line at the first one, and NVIDIA "
            "ModelOpt's reader fails at ': '; TensorRT itself writes such names"
        )
        yield finding("TC011", message, line=worst.line, tensor=worst.name)
