"""Open ``.npy`` and ``.npz`` files without reading them into memory, and without ever unpickling."""

from __future__ import annotations

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


def open_arrays(path: Path, wanted: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Return the arrays of a ``.npy`` (under the name ``""``) or ``.npz`` file, memory-mapped.

    Members of an ``.npz`` that are stored are mapped in place; compressed ones are unpacked once into a temporary
    folder that goes with the arrays. Members that are not wanted are not unpacked, unless there is only one.

    Raises:
        DataError: If the file is damaged or an array needs pickle.
    """
    try:
        if path.suffix == ".npy":
            with path.open("rb") as file:
                return {"": _map(path, file, 0, path)}
        return _open_npz(path, wanted)
    except zipfile.BadZipFile as error:
        raise DataError(path, f"not a .npz file, or truncated: {error}") from error
    except OSError as error:
        raise DataError(path, f"cannot be read: {error.strerror or error}") from error


def _open_npz(path: Path, wanted: Sequence[str]) -> dict[str, NDArray[Any]]:
    arrays: dict[str, NDArray[Any]] = {}
    with zipfile.ZipFile(path) as archive, path.open("rb") as file:
        members = {info.filename.removesuffix(".npy"): info for info in archive.infolist() if info.filename.endswith(".npy")}
        if len(members) > 1:
            members = {name: info for name, info in members.items() if name in wanted} or members
        for name, info in members.items():
            if info.compress_type == zipfile.ZIP_STORED:
                file.seek(info.header_offset)
                name_length, extra_length = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
                start = info.header_offset + _LOCAL_HEADER.size + name_length + extra_length
                arrays[name] = _map(path, file, start, f"{path}: array {name!r}")
            else:
                arrays[name] = _unpack(archive, info, f"{path}: array {name!r}")
    return arrays


def _unpack(archive: zipfile.ZipFile, info: zipfile.ZipInfo, label: str) -> NDArray[Any]:
    folder = tempfile.TemporaryDirectory(prefix="trtcalib-", ignore_cleanup_errors=True)
    target = Path(folder.name) / "array.npy"
    left = info.file_size
    with archive.open(info) as packed, target.open("wb") as unpacked:
        # A member that unpacks to more than its directory says is damaged or hostile.
        while chunk := packed.read(min(_COPY_CHUNK, left + 1)):
            left -= len(chunk)
            if left < 0:
                raise DataError(label, "unpacks to more bytes than the archive states: refused")
            unpacked.write(chunk)
    with target.open("rb") as file:
        array = _map(target, file, 0, label)
    weakref.finalize(array, folder.cleanup)
    return array


def _map(path: Path, file: IO[bytes], start: int, label: Path | str) -> NDArray[Any]:
    file.seek(start)
    try:
        major, minor = npy.read_magic(file)
        header = npy.read_array_header_1_0 if (major, minor) == (1, 0) else npy.read_array_header_2_0
        shape, fortran, dtype = header(file)
    except (ValueError, EOFError) as error:
        raise DataError(label, f"not a .npy array, or truncated: {str(error).splitlines()[0]}") from error
    if dtype.hasobject:
        raise DataError(label, "holds Python objects, which only pickle can read: refused; save it with a numeric dtype")
    if 0 in shape or not shape:
        return np.zeros(shape, dtype)
    try:
        return np.memmap(path, dtype, "r", file.tell(), tuple(shape), "F" if fortran else "C")
    except ValueError as error:
        raise DataError(label, f"truncated: shape {tuple(shape)} of {dtype} needs more bytes than the file has") from error
