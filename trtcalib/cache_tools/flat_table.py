"""ONNX Runtime's calibration table as its TensorRT provider reads it: amax per tensor, in FlatBuffers' binary form.

The schema, as ``onnxruntime.quantization.CalTableFlatBuffers`` reads it in 1.31.1: a root table with one vector of tables of two texts, the
tensor's name and its amax in decimal digits.

Source: FlatBuffers' "Internals" page: little-endian, offsets of 32 bits from where they stand, and per table a list of where its fields are.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

import numpy as np

from trtcalib.core.scale import amax_from_scale, scale_from_amax

__all__ = ["amax_that_gives", "flat_table"]

_WORD = 4
"""Bytes of an offset and of a length; everything is aligned to it."""

_ROOT_FIELDS = struct.pack("<HHHH", 6, 8, 4, 0)
"""This list's size, the table's, where its field stands; a pad."""

_PAIR_FIELDS = struct.pack("<HHHH", 8, 12, 4, 8)


def flat_table(values: Mapping[str, str]) -> bytes:
    """Return a table of texts.

    Args:
        values: Text per name, in the order to write.
    """
    pairs = [(name.encode(), value.encode()) for name, value in values.items()]
    # The root's offset, its list of fields, the root, the vector's length, the vector, then the other list.
    root = _WORD + len(_ROOT_FIELDS)
    vector = root + 2 * _WORD
    fields = vector + _WORD * (1 + len(pairs))
    tables, place = fields + len(_PAIR_FIELDS), fields + len(_PAIR_FIELDS)
    body, offsets = bytearray(), []
    for number, (name, value) in enumerate(pairs):
        key, text = _string(name), _string(value)
        offsets.append(place - (vector + _WORD * (1 + number)))
        # From each offset's own place: the name follows the table, the text follows the name.
        body += struct.pack("<iII", place - fields, 2 * _WORD, _WORD + len(key)) + key + text
        place = tables + len(body)
    head = struct.pack("<I", root) + _ROOT_FIELDS + struct.pack("<iI", len(_ROOT_FIELDS), _WORD)
    return head + struct.pack(f"<{1 + len(pairs)}I", len(pairs), *offsets) + _PAIR_FIELDS + bytes(body)


def _string(text: bytes) -> bytes:
    """Return a length, the bytes, a NUL, and zeros up to the next word."""
    size = len(text) + 1
    return struct.pack("<I", len(text)) + text + bytes(1 + -size % _WORD)


def amax_that_gives(scale: np.float32) -> np.float32:
    """Return the float32 amax whose scale is this one, where there is one; else ``f32(scale * 127)``, whose scale is a neighbour.

    The float32 numbers ``a / 127`` lie further apart than float32 itself in places, so that not every scale is one of them; every scale that
    was made from an amax is. Infinite for a scale beyond the largest float32 divided by 127.
    """
    near = amax_from_scale(scale)
    with np.errstate(all="ignore"):
        candidates = (near, np.nextafter(near, np.float32(0)), np.nextafter(near, np.float32(np.inf)))
        return next((np.float32(amax) for amax in candidates if scale_from_amax(amax) == scale), near)
