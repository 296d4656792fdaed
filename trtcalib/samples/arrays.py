"""Open ``.npy`` and ``.npz`` files without reading them into memory, and without ever unpickling."""

from __future__ import annotations

import math
import shutil
import struct
import tempfile
import weakref
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from trtcalib.errors import DataError

__all__ = ["open_arrays"]

_LOCAL_HEADER = struct.Struct("<26xHH")
"""A zip member's local header: the lengths of its name and extra field stand in its last four bytes."""

_COPY_CHUNK = 1 << 20

_LARGEST_AXIS = 1 << 48
"""Elements along one axis: more than any file system holds."""


_HEADERS = {
    (1, 0): npy.read_array_header_1_0,
    (2, 0): npy.read_array_header_2_0,
    (3, 0): npy.read_array_header_2_0,  # differs in the encoding of field names, which no array of numbers has
}


def open_arrays(path: Path, wanted: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Return the arrays of a ``.npy`` (under the name ``""``) or ``.npz`` file, memory-mapped.

    Members of an ``.npz`` that are stored are mapped in place; compressed ones are unpacked once into a temporary
    folder that goes with the arrays. Members that are not wanted are not unpacked, unless one that is wanted is missing.

    Raises:
        DataError: If the file is damaged, an array needs pickle, or it holds something other than numbers.
    """
    if not path.is_file():
        raise DataError(path, "is no regular file")
    try:
        if path.suffix == ".npy":
            with path.open("rb") as file:
                return {"": _map(path, file, 0, path.stat().st_size, path)}
        return _open_npz(path, wanted)
    except DataError:
        raise
    except OSError as error:
        raise DataError(path, f"cannot be read: {error.strerror or error}") from error
    except Exception as error:  # zipfile and its decoders raise almost anything on hostile bytes
        raise DataError(path, f"not a .npz file, or truncated: {str(error)[:200]}") from error


def _open_npz(path: Path, wanted: Sequence[str]) -> dict[str, NDArray[Any]]:
    arrays: dict[str, NDArray[Any]] = {}
    with zipfile.ZipFile(path) as archive, path.open("rb") as file:
        members = {
            info.filename.removesuffix(".npy"): info for info in archive.infolist() if info.filename.endswith(".npy")
        }
        if all(name in members for name in wanted):
            members = {name: members[name] for name in wanted}
        for name, info in members.items():
            label = f"{path}: array {name!r}"
            if info.compress_type == zipfile.ZIP_STORED:
                file.seek(info.header_offset)
                name_length, extra_length = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
                start = info.header_offset + _LOCAL_HEADER.size + name_length + extra_length
                arrays[name] = _map(path, file, start, info.file_size, label)
            else:
                arrays[name] = _unpack(archive, info, label)
    return arrays


def _unpack(archive: zipfile.ZipFile, info: zipfile.ZipInfo, label: str) -> NDArray[Any]:
    folder = tempfile.TemporaryDirectory(prefix="trtcalib-", ignore_cleanup_errors=True)
    target = Path(folder.name) / "array.npy"
    try:
        size = _copy(archive, info, target)
        with target.open("rb") as file:
            array = _map(target, file, 0, size, label)
    except OSError as error:
        folder.cleanup()
        raise DataError(label, f"cannot be unpacked into {folder.name}: {error.strerror or error}") from error
    except BaseException:
        folder.cleanup()
        raise
    weakref.finalize(array, folder.cleanup)
    return array


def _copy(archive: zipfile.ZipFile, info: zipfile.ZipInfo, target: Path) -> int:
    """Unpack a member, never more bytes than the archive states (zipfile stops there); return how many there were."""
    with archive.open(info) as packed, target.open("wb") as unpacked:
        shutil.copyfileobj(packed, unpacked, _COPY_CHUNK)
        return unpacked.tell()


def _map(path: Path, file: IO[bytes], start: int, size: int, label: Path | str) -> NDArray[Any]:
    """Map the array whose header starts at ``start``; header and values have ``size`` bytes."""
    file.seek(start)
    try:
        shape, fortran, dtype = _HEADERS[npy.read_magic(file)](file)
    except Exception as error:  # numpy reads the header as Python literals, which fail in many ways
        raise DataError(label, "not a .npy array, or truncated: its header cannot be read") from error
    if dtype.hasobject:
        raise DataError(
            label, "holds Python objects, which only pickle can read: refused; save it with a numeric dtype"
        )
    if dtype.kind not in "biuf":
        raise DataError(label, f"holds {dtype}, expected numbers or booleans")
    if any(isinstance(n, bool) or not 0 <= n <= _LARGEST_AXIS for n in shape):
        raise DataError(label, f"not a .npy array: its header states the shape {shape}")
    if file.tell() - start + math.prod(shape) * dtype.itemsize > size:
        raise DataError(label, f"truncated: shape {shape} of {dtype} needs more bytes than the file has")
    if 0 in shape:
        raise DataError(label, f"the data are empty: there is no sample to calibrate on (shape {shape})")
    if not shape:
        return np.zeros((), dtype)  # refused by who asked; nothing to map
    return np.memmap(path, dtype, "r", file.tell(), shape, "F" if fortran else "C")
