"""Change a calibration cache: merge, convert, rename, set. Values in, values out; a line whose name and scale stay keeps its bytes."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from trtcalib.core.cache import CacheEntry, CalibrationCache
from trtcalib.core.scale import bits_from_scale, scale_from_bits

__all__ = ["MERGES", "How", "Merge", "convert_header", "line_numbers", "merge_caches", "rename_tensors", "set_scales"]

How = Literal["max", "median", "mean", "first"]

MERGES: tuple[How, ...] = ("max", "median", "mean", "first")

_HEADER = re.compile(r"TRT-[0-9]{1,9}-\S+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Merge:
    """Several caches in one.

    Attributes:
        cache: The header and the lines of the first cache, then new names in the order of the others.
        partial: Names that not every cache has; they take what those say that have them.
        zeros_left_out: Names of which some caches, not all, have the scale 0, where a mean or a median left those out.
    """

    cache: CalibrationCache
    partial: tuple[str, ...]
    zeros_left_out: tuple[str, ...]


def merge_caches(caches: Sequence[CalibrationCache], how: How) -> Merge:
    """Merge caches tensor by tensor; the names are the union.

    - ``max``: the largest scale; infinity is larger than all.
    - ``mean``, ``median``: of the scales in float64 (the sum is exact; of an even number the mean of the middle two), rounded to float32
      at the end. A zero scale says that the tensor was all zero there, which is no range: it is left out unless all are zero. An infinite
      scale makes the mean infinite, and counts as the largest in a median.
    - ``first``: that of the first cache that has the tensor.

    Of a name that stands twice in one cache the last line counts, and all its lines in the first cache get the result.

    Args:
        caches: At least one. No scale is NaN or negative.
        how: One of :data:`MERGES`.
    """
    entries: list[dict[str, CacheEntry]] = [{entry.name: entry for entry in cache.entries} for cache in caches]
    found = {
        name: [own[name] for own in entries if name in own] for name in dict.fromkeys(n for own in entries for n in own)
    }
    bits = {name: _merged_bits([entry.bits for entry in lines], how) for name, lines in found.items()}
    zeros = {name for name, lines in found.items() if 0 < sum(entry.scale == 0 for entry in lines) < len(lines)}
    first = set_scales(caches[0], {name: scale_from_bits(bits[name]) for name in entries[0]})
    added = [_with_bits(lines[0], bits[name]) for name, lines in found.items() if name not in entries[0]]
    return Merge(
        cache=_appended(first, added),
        partial=tuple(name for name, lines in found.items() if len(lines) < len(caches)),
        zeros_left_out=tuple(name for name in found if name in zeros) if how in ("mean", "median") else (),
    )


def _merged_bits(bits: Sequence[int], how: How) -> int:
    if how == "first":
        return bits[0]
    if how == "max":
        return max(bits, key=lambda own: float(scale_from_bits(own)))
    scales = [scale for own in bits if (scale := float(scale_from_bits(own)))]
    if not scales:
        return bits[0]
    return bits_from_scale(np.float32(math.fsum(scales) / len(scales) if how == "mean" else _median(scales)))


def _median(scales: Iterable[float]) -> float:
    ordered = sorted(scales)
    upper = len(ordered) // 2
    return ordered[upper] if len(ordered) % 2 else (ordered[upper - 1] + ordered[upper]) / 2


def set_scales(cache: CalibrationCache, scales: Mapping[str, np.float32]) -> CalibrationCache:
    """Give tensors other scales, on every line that names them; a tensor that the cache lacks is added at the end.

    A line whose scale has these bits already keeps its digits.
    """
    bits = {name: bits_from_scale(scale) for name, scale in scales.items()}
    entries = tuple(_with_bits(entry, bits.get(entry.name, entry.bits)) for entry in cache.entries)
    known = {entry.name for entry in entries}
    added = [CacheEntry(name, own) for name, own in bits.items() if name not in known]
    return _appended(replace(cache, entries=entries), added)


def _with_bits(entry: CacheEntry, bits: int) -> CacheEntry:
    return entry if bits == entry.bits else replace(entry, bits=bits, hex=f"{bits:x}")


def _appended(cache: CalibrationCache, entries: Sequence[CacheEntry]) -> CalibrationCache:
    """Add lines at the end, with the line ends of the header."""
    if not entries:
        return cache
    start = cache.start or cache.header + "\n"
    end = "\r\n" if "\r\n" in start else "\n"
    before = list(cache.entries)
    if not before and "\n" not in start:
        start += end
    if before and "\n" not in before[-1].end:
        before[-1] = replace(before[-1], end=before[-1].end + end)
    return replace(cache, start=start, entries=(*before, *(replace(entry, end=end) for entry in entries)))


def convert_header(cache: CalibrationCache, version: int, algorithm: str) -> CalibrationCache:
    """Write another version and algorithm into the header; what follows it on its line, and every other line, stays.

    Args:
        cache: The cache.
        version: As in a header: ``101601`` for 10.16.1.
        algorithm: One of :data:`trtcalib.core.cache.ALGORITHMS`.
    """
    if (cache.version, cache.algorithm) == (version, algorithm):
        return cache
    written = _HEADER.match(cache.start)
    rest = "\n" if written is None else cache.start[written.end() :]
    return CalibrationCache(version, algorithm, cache.entries, f"TRT-{version}-{algorithm}{rest}")


def rename_tensors(cache: CalibrationCache, names: Mapping[str, str]) -> CalibrationCache:
    """Rename tensors, all at once: ``{"a": "b", "b": "a"}`` swaps two.

    Args:
        cache: The cache.
        names: The new name per old one; two must not lead to one.
    """
    entries = (replace(entry, name=names[entry.name]) if entry.name in names else entry for entry in cache.entries)
    return replace(cache, entries=tuple(entries))


def line_numbers(cache: CalibrationCache) -> list[int]:
    """Return the one-based line on which each entry stands."""
    number = 1 + (cache.start or "\n").count("\n")
    numbers = []
    for entry in cache.entries:
        numbers.append(number)
        number += entry.end.count("\n")
    return numbers
