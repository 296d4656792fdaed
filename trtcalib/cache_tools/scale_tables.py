"""ONNX Runtime's calibration tables and plain JSON of dynamic ranges: bytes -> amax per tensor.

What is read, as ``onnxruntime.quantization.write_calibration_table`` and ``save_tensors_data`` write it (read in 1.18.0
and 1.31.1):

- ``calibration.cache``: a line ``name amax`` per tensor. 1.18 writes the larger of ``|lowest|`` and ``|highest|``; 1.31.1 the larger of
  ``lowest`` and ``highest`` with its sign. It is taken as it stands.
- ``calibration.json``: ``{name: [lowest, highest]}`` in 1.18, ``{name: {"lowest": ..., "highest": ..., "CLS": "TensorData"}}``
  in 1.31, with numpy arrays as ``{"data": ..., "dtype": ..., "CLS": "numpy.array"}``; also the same below the key ``data`` of
  ``{"CLS": "TensorsData", ...}``.
- ``{name: amax}``.

``calibration.flatbuffers`` is not read: the other two hold the same scales. Nothing is evaluated; histograms are dropped while they are
read.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from trtcalib.errors import CacheFormatError

__all__ = ["RangeTable", "TableFormat", "parse_table"]

TableFormat = Literal["onnxruntime-json", "onnxruntime-text", "dynamic-ranges-json"]

_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*(?:[eE][+-]?[0-9]{1,4})?|inf|nan)")
_HEX = re.compile(r"[0-9a-fA-F]{1,8}")
_SHOWN = 80


@dataclass(frozen=True, slots=True, kw_only=True)
class RangeTable:
    """A table of dynamic ranges.

    Attributes:
        format: Which form it has.
        amax: Per tensor, in the file's order; of a name that stands twice, the last.
        notes: What is odd in it, one sentence each.
    """

    format: TableFormat
    amax: dict[str, float]
    notes: tuple[str, ...] = ()


class _Object(dict[str, Any]):
    """A JSON object that remembers which keys stood more than once."""

    repeated: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Reach:
    """Of an array, what an amax needs."""

    size: int
    largest: float


def parse_table(content: bytes) -> RangeTable:
    """Parse a table.

    Raises:
        CacheFormatError: If it is none of the forms, names no tensor, or a tensor has no range.
    """
    if b"\0" in content:
        raise CacheFormatError(
            None,
            0,
            "is binary: of ONNX Runtime's tables take calibration.json or calibration.cache, which stand beside calibration.flatbuffers and "
            "hold the same ranges; an engine or a model is no table of scales",
        )
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise CacheFormatError(None, 0, f"is not UTF-8 at byte {error.start}: is it a table of scales?") from error
    table = _parse_json(text) if text.lstrip()[:1] == "{" else _parse_text(text)
    if not table.amax:
        raise CacheFormatError(None, 0, "names no tensor")
    return table


def _parse_json(text: str) -> RangeTable:
    try:
        # Floats only: Python's int() of a million digits takes seconds.
        found = json.loads(text, object_pairs_hook=_object, parse_int=float)
    except json.JSONDecodeError as error:
        raise CacheFormatError(None, error.lineno, f"is no JSON: {error.msg} at column {error.colno}") from error
    except RecursionError as error:
        raise CacheFormatError(None, 0, "is nested too deeply for a table of ranges") from error
    if isinstance(found, _Object) and found.get("CLS") == "TensorsData":
        found = found.get("data")
    if not isinstance(found, _Object):
        raise CacheFormatError(None, 0, f"holds {_kind(found)}, expected an object of tensor names and ranges")
    if found.get("tool") == "trtcalib":
        raise CacheFormatError(None, 0, "is a manifest that trtcalib wrote: name the cache beside it")
    amax = {name: _amax(name, value) for name, value in found.items()}
    plain = all(isinstance(value, float) for value in found.values())
    return RangeTable(
        format="dynamic-ranges-json" if plain else "onnxruntime-json",
        amax=amax,
        notes=(*_repeated(found.repeated), *_channels(found)),
    )


def _object(pairs: list[tuple[str, Any]]) -> Any:
    """Make an object as soon as it is read; an array keeps only what an amax needs, so that histograms are not held."""
    found = _Object(pairs)
    if found.get("CLS") == "numpy.array":
        return _reach(found.get("data"))
    if len(found) < len(pairs):
        seen: set[str] = set()
        found.repeated = tuple(dict.fromkeys(key for key, _ in pairs if key in seen or seen.add(key)))  # type: ignore[func-returns-value]  # add() gives None
    return found


def _reach(value: Any) -> _Reach | None:
    """Return size and largest magnitude of a number or of nested lists of numbers; NaN counts as the largest."""
    size, largest, rest = 0, 0.0, [value]
    while rest:
        item = rest.pop()
        if isinstance(item, list):
            rest.extend(item)
        elif isinstance(item, float):
            size += 1
            largest = item if math.isnan(item) else max(abs(item), largest) if not math.isnan(largest) else largest
        else:
            return None
    return _Reach(size, abs(largest)) if size else None


def _amax(name: str, value: Any) -> float:
    """Return the largest magnitude of a range; a plain number is the amax itself."""
    if isinstance(value, float):
        return value
    ends = _ends(value)
    if ends is None:
        raise CacheFormatError(
            None,
            0,
            f"tensor {_brief(name)} has {_kind(value)}, expected a number, a pair of numbers, or an object with 'lowest' and 'highest'",
        )
    largest = [end.largest for end in ends]
    return math.nan if any(map(math.isnan, largest)) else max(largest)


def _ends(value: Any) -> tuple[_Reach, _Reach] | None:
    if isinstance(value, list) and len(value) >= 2:  # noqa: PLR2004 - lowest, highest, and in some files a histogram
        low, high = value[:2]
    elif isinstance(value, _Object):
        low, high = value.get("lowest"), value.get("highest")
    else:
        return None
    ends = [end if isinstance(end, _Reach) else _reach(end) for end in (low, high)]
    return (ends[0], ends[1]) if ends[0] is not None and ends[1] is not None else None


def _channels(found: _Object) -> Iterator[str]:
    """Tell of ranges per channel, which a calibration cache cannot hold."""
    several = [name for name, value in found.items() if (ends := _ends(value)) and max(end.size for end in ends) > 1]
    if several:
        yield f"{len(several)} tensors have a range per channel, of which the largest counts: {', '.join(map(_brief, several[:5]))}"


def _parse_text(text: str) -> RangeTable:
    amax: dict[str, float] = {}
    repeated: list[str] = []
    digits_only = True
    for number, line in enumerate(text.split("\n"), start=1):
        entry = line.strip(" \t\r")
        if not entry:
            continue
        name, separator, value = entry.rpartition(" ")
        if not separator or not name.strip() or _NUMBER.fullmatch(value) is None:
            raise CacheFormatError(
                None,
                number,
                f"found {_brief(entry)}, expected a calibration cache with a header such as 'TRT-101601-EntropyCalibration2', or ONNX "
                "Runtime's table with a line 'name amax' per tensor",
            )
        digits_only &= name.endswith(":") and _HEX.fullmatch(value) is not None
        if name in amax:
            repeated.append(name)
        amax[name] = float(value)
    if amax and digits_only:
        raise CacheFormatError(
            None,
            1,
            "every line is 'name: hexadecimal digits', as in a calibration cache, and there is no header such as "
            "'TRT-101601-EntropyCalibration2': put the first line back",
        )
    return RangeTable(format="onnxruntime-text", amax=amax, notes=tuple(_repeated(tuple(dict.fromkeys(repeated)))))


def _repeated(names: tuple[str, ...]) -> Iterator[str]:
    if names:
        yield f"{len(names)} names stand more than once, and the last range of each counts: {', '.join(map(_brief, names[:5]))}"


def _kind(value: Any) -> str:
    match value:
        case None:
            return "null, or an array that holds no numbers"
        case bool():
            return str(value).lower()
        case str():
            return f"the text {_brief(value)}"
        case _Object():
            return "an object without numbers as 'lowest' and 'highest'"
        case list():
            return f"a list of {len(value)}"
        case _:
            return f"{value!r}"[:_SHOWN]


def _brief(name: str) -> str:
    return repr(name if len(name) <= _SHOWN else name[:_SHOWN] + "…")
