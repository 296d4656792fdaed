"""The calibration cache, TensorRT's text file of scales: bytes -> value -> the same bytes.

The first line is ``TRT-<version>-<algorithm>``; then one line per tensor, ``name: hex``, with the float32 bits of the
scale in hexadecimal, most significant digit first, without leading zeros (``0`` for a tensor that was all zero). Names may
hold ``": "`` themselves, so a line is split at its last one. TensorRT refuses a cache whose version or algorithm is not
its own.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from trtcalib.core.scale import bits_from_scale, scale_from_bits
from trtcalib.errors import CacheFormatError, TensorRTVersionError

__all__ = [
    "ALGORITHMS",
    "CacheEntry",
    "CalibrationCache",
    "encode_version",
    "format_cache",
    "is_cut_off",
    "is_writable",
    "make_cache",
    "oddities",
    "parse_cache",
    "parse_version",
    "version_text",
]

ALGORITHMS = ("EntropyCalibration2", "MinMaxCalibration", "EntropyCalibration", "LegacyCalibration")
"""The algorithms that TensorRT 8 and 10 write into headers."""

FIRST_VERSION_WITHOUT_CALIBRATORS = 11

_FIRST_MAJOR_OF_TWO_DIGITS = 10
_UNIT_TO_9 = 1000
_UNIT_FROM_10 = 10000

_EIGHT_DIGITS = 0x10000000
"""The smallest bits that take eight hexadecimal digits."""

_HEADER = re.compile(r"TRT-([0-9]{1,9})-(\S+)")
_HEX = re.compile(r"[0-9a-fA-F]{1,8}")
_VERSION = re.compile(r"([0-9]{1,4})\.([0-9]{1,2})\.([0-9]{1,2})(?:\.[0-9]+)?")


@dataclass(frozen=True, slots=True)
class CacheEntry:
    """One line of a cache.

    Attributes:
        name: The tensor's name; bytes that are not UTF-8 are kept as surrogate escapes.
        bits: The scale's float32 bits.
        hex: The digits as written; canonical is lower case without leading zeros.
        end: What follows the digits up to the next entry: line ends, blank lines.
    """

    name: str
    bits: int
    hex: str = ""
    end: str = "\n"

    @property
    def scale(self) -> np.float32:
        """The scale, amax / 127."""
        return scale_from_bits(self.bits)


@dataclass(frozen=True, slots=True)
class CalibrationCache:
    """A calibration cache as a value.

    Attributes:
        version: The number in the header, ``101601`` for TensorRT 10.16.1.
        algorithm: The algorithm in the header, ``EntropyCalibration2`` for instance; kept as found.
        entries: One per line, in file order, duplicates included.
        start: The header line as written, with what follows it up to the first entry.
    """

    version: int
    algorithm: str
    entries: tuple[CacheEntry, ...]
    start: str = ""

    @property
    def scales(self) -> dict[str, np.float32]:
        """Scale per tensor, in file order; of a name that stands twice, the last (see :func:`oddities`)."""
        return {entry.name: entry.scale for entry in self.entries}

    @property
    def header(self) -> str:
        """The header in canonical form."""
        return f"TRT-{self.version}-{self.algorithm}"


def parse_cache(content: bytes) -> CalibrationCache:
    """Parse a calibration cache; ``format_cache`` of the result gives the same bytes back.

    CRLF, blank lines, a missing last line end, non-canonical digits, unknown algorithms, duplicate names, names that
    are not UTF-8 and scales that are NaN, infinite, zero or negative are kept; :func:`oddities` tells of them.

    Raises:
        CacheFormatError: If the file is empty, its header is none, a line has no ``": "`` or no name, or what stands
            behind it is not one to eight hexadecimal digits.
    """
    lines = content.decode("utf-8", "surrogateescape").split("\n")
    header_text = lines[0].rstrip("\r")
    header = _HEADER.fullmatch(header_text.rstrip(" \t"))
    if header is None:
        found = repr(header_text[:80]) if header_text.strip() else "nothing"
        raise CacheFormatError(
            None,
            1,
            f"found {found}, expected a header such as 'TRT-101601-EntropyCalibration2': is it a calibration cache?",
        )
    start, ends, parsed = header_text, [""], []
    for number, line in enumerate(lines, start=1):
        text = line.rstrip(" \t\r")
        newline = "\n" if number < len(lines) else ""
        if number > 1 and text:
            name, digits = _split_line(text, number)
            parsed.append((name, digits))
            ends.append(line[len(text) :] + newline)
        else:
            ends[-1] += (line[len(header_text) :] if number == 1 else line) + newline
    entries = tuple(
        CacheEntry(name, int(digits, 16), digits, end) for (name, digits), end in zip(parsed, ends[1:], strict=True)
    )
    return CalibrationCache(int(header[1]), header[2], entries, start + ends[0])


def _split_line(text: str, number: int) -> tuple[str, str]:
    """Split ``name: hex`` at the last ``": "``."""
    name, separator, digits = text.rpartition(": ")
    if not separator or not name:
        raise CacheFormatError(None, number, f"found {text[:80]!r}, expected 'tensor name: hexadecimal scale'")
    if _HEX.fullmatch(digits) is None:
        raise CacheFormatError(
            None, number, f"tensor {name!r} has scale {digits[:80]!r}, expected one to eight hexadecimal digits"
        )
    return name, digits


def format_cache(cache: CalibrationCache) -> bytes:
    """Return the bytes of a cache: those it was parsed from, or the canonical form of a made one."""
    text = cache.start or cache.header + "\n"
    text += "".join(f"{entry.name}: {entry.hex or f'{entry.bits:x}'}{entry.end}" for entry in cache.entries)
    return text.encode("utf-8", "surrogateescape")


def make_cache(scales: Mapping[str, np.float32], tensorrt_version: str, algorithm: str) -> CalibrationCache:
    """Make a cache as the given TensorRT would write it.

    Args:
        scales: Scale per tensor name, in the order to write.
        tensorrt_version: Such as ``10.16.1``.
        algorithm: One of :data:`ALGORITHMS`.

    Raises:
        TensorRTVersionError: If the version is malformed or has no calibration caches.
        ValueError: If the algorithm is unknown, or a name cannot stand on one line.
    """
    if algorithm not in ALGORITHMS:
        raise ValueError(f"unknown algorithm {algorithm!r}: expected one of {', '.join(ALGORITHMS)}")
    for name in scales:
        if not is_writable(name):
            raise ValueError(f"tensor name {name!r} cannot stand on a line of a calibration cache")
    entries = tuple(CacheEntry(name, bits_from_scale(scale)) for name, scale in scales.items())
    return CalibrationCache(encode_version(tensorrt_version), algorithm, entries)


def is_writable(name: str) -> bool:
    """Whether a tensor name can stand on a line of a calibration cache and be read back."""
    try:
        name.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False
    return bool(name) and "\n" not in name and name == name.strip(" \t\r")


def is_cut_off(bits: int) -> bool:
    """Whether a scale that ends a file without a line end was likely cut within its digits.

    TensorRT leaves leading zeros out, so that fewer than eight digits are a scale below 2.5e-29, which no tensor has; a lone ``0`` is one
    that was all zero.

    Args:
        bits: Of the last line's scale.
    """
    return 0 < bits < _EIGHT_DIGITS


def parse_version(version: str) -> tuple[int, int, int]:
    """Return (major, minor, patch) of ``10.16.1`` or ``10.16.1.11``.

    Raises:
        TensorRTVersionError: If it is not of that form.
    """
    match = _VERSION.fullmatch(version)
    if match is None:
        raise TensorRTVersionError(version, "expected MAJOR.MINOR.PATCH, such as 10.16.1 or 8.6.1")
    return int(match[1]), int(match[2]), int(match[3])


def encode_version(version: str) -> int:
    """Return a header's number: 8.6.1 -> 8601, 10.16.1 -> 101601.

    Raises:
        TensorRTVersionError: If the version is malformed, or is 11 or later, which have no calibrators.
    """
    major, minor, patch = parse_version(version)
    if major >= FIRST_VERSION_WITHOUT_CALIBRATORS:
        raise TensorRTVersionError(
            version,
            "TensorRT 11 removed calibrators and reads no calibration cache; it takes INT8 only as explicit Q/DQ nodes. "
            "Write the cache for a TensorRT that reads it (up to 10.16.1) and convert the model to Q/DQ with it",
        )
    return major * (_UNIT_FROM_10 if major >= _FIRST_MAJOR_OF_TWO_DIGITS else _UNIT_TO_9) + minor * 100 + patch


def version_text(number: int) -> str:
    """Return ``10.16.1`` for 101601 and ``8.6.1`` for 8601."""
    unit = _UNIT_FROM_10 if number >= _FIRST_MAJOR_OF_TWO_DIGITS * _UNIT_FROM_10 else _UNIT_TO_9
    return f"{number // unit}.{number % unit // 100}.{number % 100}"


def oddities(cache: CalibrationCache) -> list[str]:
    """Return what is unusual in a cache that could still be read, one sentence each, naming the tensor."""
    found: list[str] = []
    if cache.algorithm not in ALGORITHMS:
        found.append(f"unknown algorithm {cache.algorithm!r} in the header: expected one of {', '.join(ALGORITHMS)}")
    times = Counter(entry.name for entry in cache.entries)
    found += [f"tensor {name!r} stands {n} times; the last is used" for name, n in times.items() if n > 1]
    found += [f"the name {e.name!r} is not UTF-8" for e in cache.entries if _has_surrogates(e.name)]
    found += [f"tensor {e.name!r} has {kind} scale" for e in cache.entries if (kind := _unusual(e.scale))]
    return found


def _has_surrogates(name: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in name)


def _unusual(scale: np.float32) -> str:
    if np.isnan(scale):
        return "a NaN"
    if np.isinf(scale):
        return "an infinite"
    if scale == 0:
        return "a zero"
    return "a negative" if scale < 0 else ""
