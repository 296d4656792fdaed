"""Read a file of scales, whatever wrote it: TensorRT's calibration cache, ONNX Runtime's tables, or plain JSON of dynamic ranges."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np

from trtcalib.cache_tools.scale_tables import TableFormat, parse_table
from trtcalib.core.cache import CalibrationCache, oddities, parse_cache
from trtcalib.core.cache_causes import RangeFacts
from trtcalib.core.cache_diff import ScaleSet
from trtcalib.core.scale import INT8_MAX
from trtcalib.edit_record import EditRecord
from trtcalib.errors import CacheFormatError, SpecError
from trtcalib.files import sha256_of_bytes
from trtcalib.manifest import Manifest, TensorFacts, manifest_path, read_manifest

__all__ = ["MOST_BYTES", "ScaleFile", "read_believed", "read_scales"]

MOST_BYTES = 64 << 20
"""The largest file of scales that is read. Five thousand tensors are 0.4 MB as a cache; tables with histograms are larger. Python
holds JSON of this size in about 2 GB at worst (an empty list per two characters). Ours."""

MOST_ODDITIES = 20
"""Sentences about odd lines that are kept; the others are counted."""

ScaleFormat = Literal["calibration-cache"] | TableFormat

Beside = TypeVar("Beside", Manifest, EditRecord)

_HEADER = re.compile(rb"TRT-[0-9]")

_AMAX_NOTES: dict[TableFormat, str] = {
    "onnxruntime-json": "an ONNX Runtime table of lowest and highest: taken as scale = max(|lowest|, |highest|) / 127 in float32",
    "onnxruntime-text": "an ONNX Runtime table in text: its number is taken as amax, scale = amax / 127 in float32; ONNX Runtime 1.31 "
    "writes the larger of lowest and highest there, so that a range that is mostly negative comes out too small; calibration.json has both",
    "dynamic-ranges-json": "a table of dynamic ranges: taken as scale = amax / 127 in float32",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaleFile:
    """A file of scales.

    Attributes:
        path: Where it stands.
        format: Which kind of file.
        header: First line of a calibration cache in canonical form.
        cache: The calibration cache itself; ``None`` for a table.
        scales: What it holds.
        manifest: What stands beside it and is of these very bytes.
        notes: What was odd, and how its numbers were taken, one sentence each.
    """

    path: Path
    format: ScaleFormat
    header: str | None
    scales: ScaleSet
    cache: CalibrationCache | None = None
    manifest: Manifest | None = None
    notes: tuple[str, ...] = ()


def read_scales(path: Path) -> ScaleFile:
    """Read a file of scales; a calibration cache with its manifest, where that is of these very bytes.

    Raises:
        CacheFormatError: If it cannot be read, is too large or none of the known kinds.
    """
    content = _read(path)
    try:
        if _HEADER.match(content):
            return _cache_file(path, content)
        if not content.strip():
            raise CacheFormatError(None, 0, "is empty: expected a calibration cache or a table of ranges")
        return _table_file(path, content)
    except CacheFormatError as error:
        raise CacheFormatError(path, error.line, error.reason) from error


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise CacheFormatError(path, 0, f"cannot be read: {error.strerror}") from error
    if len(content) > MOST_BYTES:
        raise CacheFormatError(path, 0, f"is larger than {MOST_BYTES >> 20} MiB: is it a table of scales?")
    return content


def _cache_file(path: Path, content: bytes) -> ScaleFile:
    cache = parse_cache(content)
    manifest, note = read_believed(manifest_path(path), read_manifest, content)
    line_ends = ("its lines end in CRLF",) if b"\r\n" in content else ()
    return ScaleFile(
        path=path,
        format="calibration-cache",
        header=cache.header,
        cache=cache,
        scales=ScaleSet(
            bits={entry.name: entry.bits for entry in cache.entries},
            header=(cache.version, cache.algorithm),
            facts={} if manifest is None else _facts(cache, manifest),
        ),
        manifest=manifest,
        notes=(*_bounded(oddities(cache)), *line_ends, *note),
    )


def read_believed(path: Path, read: Callable[[Path], Beside], content: bytes) -> tuple[Beside | None, tuple[str, ...]]:
    """Read what stands beside a cache; a broken one, or one of other bytes, is told of and not used.

    Args:
        path: The manifest, or the record of edits.
        read: Reads it.
        content: The cache.
    """
    try:
        if not path.is_file():
            return None, ()
        if path.stat().st_size > MOST_BYTES:
            return None, (f"the manifest {path} is larger than {MOST_BYTES >> 20} MiB: it was not read",)
        found = read(path)
    except (SpecError, OSError) as error:
        return None, (f"the manifest {path} cannot be used: {str(error).splitlines()[0]}",)
    if found.cache_sha256 != sha256_of_bytes(content):
        return None, (
            f"the manifest {path} is of another cache, or the cache was changed after it: nothing in it was believed",
        )
    return found, ()


def _facts(cache: CalibrationCache, manifest: Manifest) -> dict[str, RangeFacts]:
    by_text = {tensor.name: tensor for tensor in manifest.tensors}
    found = {}
    for entry in cache.entries:
        # A manifest writes bytes that are not UTF-8 as escapes.
        tensor = by_text.get(entry.name.encode("utf-8", "backslashreplace").decode())
        if tensor is not None and _is_known(tensor):
            found[entry.name] = RangeFacts(
                first_maximum=tensor.first_maximum,
                doublings=tensor.doublings,
                maximum=tensor.maximum,
                bin_m=tensor.bin_m,
            )
    return found


def _is_known(tensor: TensorFacts) -> bool:
    """Whether there was a histogram; TensorRT itself tells of none."""
    return tensor.first_maximum is not None and tensor.doublings is not None and tensor.maximum is not None


def _table_file(path: Path, content: bytes) -> ScaleFile:
    table = parse_table(content)
    with np.errstate(all="ignore"):
        amax = np.array(list(table.amax.values()), np.float64).astype(np.float32)
        scales = amax / np.float32(INT8_MAX)
    bits = dict(zip(table.amax, map(int, scales.view(np.uint32)), strict=True))
    odd = ~np.isfinite(scales) | (scales < 0)
    return ScaleFile(
        path=path,
        format=table.format,
        header=None,
        scales=ScaleSet(bits=bits),
        notes=(
            _AMAX_NOTES[table.format],
            *table.notes,
            *_bounded(
                [f"tensor {name!r} has the amax {table.amax[name]!r}" for name, is_odd in zip(bits, odd) if is_odd]
            ),
        ),
    )


def _bounded(sentences: list[str]) -> list[str]:
    if len(sentences) <= MOST_ODDITIES:
        return sentences
    return [*sentences[:MOST_ODDITIES], f"... and {len(sentences) - MOST_ODDITIES} more oddities"]
