"""Files that can be trusted: atomic writes, and the sha256 that a manifest states."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from trtcalib.errors import OutputError

__all__ = [
    "check_writable",
    "folder_for_results",
    "make_folder",
    "new_file",
    "sample_folder",
    "sha256_of",
    "sha256_of_bytes",
    "write_files",
]

_CHUNK = 1 << 20


def write_files(contents: Mapping[Path, bytes]) -> None:
    """Write files that belong together: all of them whole, or none.

    Every file is written beside its place and flushed to the disk before the first one takes its place, so that a full
    disk or an interruption leaves what stood there before.

    Raises:
        OutputError: If one cannot be written; nothing is left behind.
    """
    staged: dict[Path, Path] = {}
    try:
        for path, content in contents.items():
            check_writable(path)
            # Beside the target, so that the rename stays on one file system; 40 characters are at most 160 bytes.
            staged[path] = path.with_name(f".{path.name[:40]}.{secrets.token_hex(4)}.tmp")
            _write_through(staged[path], path, content)
        for path, temporary in staged.items():
            _rename(temporary, path)
    finally:
        for temporary in staged.values():
            with contextlib.suppress(OSError):
                temporary.unlink()


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """Give a file to write to piece by piece, which takes its place when the block ends well and vanishes otherwise.

    Raises:
        OutputError: If it cannot be written.
    """
    check_writable(path)
    temporary = path.with_name(f".{path.name[:40]}.{secrets.token_hex(4)}.tmp")
    try:
        try:
            with temporary.open("xb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise OutputError(path, f"cannot be written: {error.strerror or error}") from error
        _rename(temporary, path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def _write_through(temporary: Path, path: Path, content: bytes) -> None:
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise OutputError(path, f"cannot be written: {error.strerror or error}") from error


def _rename(temporary: Path, path: Path) -> None:
    try:
        temporary.replace(path)
    except OSError as error:
        raise OutputError(path, f"cannot be written: {error.strerror or error}") from error


def check_writable(path: Path | str) -> None:
    """Fail early if a result could not be written here, before any work is done.

    Raises:
        OutputError: If the folder is missing or not writable, or the path is a folder.
    """
    path = Path(path)
    try:
        if path.is_dir():
            raise OutputError(path, "is a folder; expected the name of a file to write")
        if path.exists() and not path.is_file():
            raise OutputError(path, "is no regular file; a result takes the place of what stands there")
        if not path.parent.is_dir():
            raise OutputError(path, f"the folder {str(path.parent)!r} does not exist: create it first")
        if not os.access(path.parent, os.W_OK):
            raise OutputError(path, f"the folder {str(path.parent)!r} cannot be written to")
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(path, f"cannot be written: {error.strerror or error}") from error


def make_folder(path: Path | str) -> None:
    """Make a folder for results, with its parents.

    Raises:
        OutputError: If it cannot be made, or a file stands there.
    """
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(path, f"cannot be made a folder: {error.strerror}") from error


@contextlib.contextmanager
def folder_for_results(path: Path) -> Iterator[None]:
    """Make a folder for results; where nothing comes of the block, not even something to go on from, a new one goes again.

    Raises:
        OutputError: As :func:`make_folder`.
    """
    try:
        is_new = not path.exists()
    except OSError:
        is_new = False  # a name too long, say, of which making it tells
    make_folder(path)
    try:
        yield
    except BaseException:
        if is_new:
            with contextlib.suppress(OSError):  # something is in it
                path.rmdir()
        raise


def sha256_of(path: Path | str) -> str:
    """Return the SHA-256 of a file's bytes in hexadecimal."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def sha256_of_bytes(content: bytes) -> str:
    """Return the SHA-256 of bytes in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def sample_folder() -> Path:
    """Return the folder of the embedded sample: in the installed package, or data/ of a source checkout."""
    installed = Path(__file__).parent / "sample"
    return installed if installed.is_dir() else Path(__file__).parent.parent / "data"
