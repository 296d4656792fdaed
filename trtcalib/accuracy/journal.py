"""What an interrupted study has judged already, line by line on disk, so that the same command goes on from there."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trtcalib.errors import OutputError

__all__ = ["Journal"]

_LONGEST = 1 << 24
"""Bytes of the longest journal that is read: thousands of judged variants; a longer one is no journal of ours."""


class Journal:
    """A file of results, one JSON value per line under a name, that belongs to one job.

    Its first line holds the digest of everything that decides the results. A journal of another job is begun anew; a last line that was
    cut off is left out.
    """

    def __init__(self, path: Path, job: Mapping[str, Any]) -> None:
        """Open a journal.

        Args:
            path: The file; its folder exists.
            job: Everything that decides the results; JSON can hold it.

        Raises:
            OutputError: If the file cannot be written.
        """
        self._path = path
        text = json.dumps(job, sort_keys=True, default=str)
        self._is_cut_off = False
        self._head = {"journal": hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()}
        self._found = self._read()
        if not self._found:
            self._write(json.dumps(self._head) + "\n", "w")
        elif self._is_cut_off:
            self._write("\n", "a")  # else the next result would go on in the line that was cut off
        self.resumed = len(self._found)

    def get(self, name: str) -> Any:
        """Return what was noted under a name; ``None`` where nothing was."""
        return self._found.get(name)

    def note(self, name: str, value: Any) -> None:
        """Add a result.

        Raises:
            OutputError: If it cannot be written.
        """
        self._found[name] = value
        self._write(json.dumps({"name": name, "value": value}) + "\n", "a")

    def remove(self) -> None:
        """Remove the file: the job is done."""
        with contextlib.suppress(OSError):
            self._path.unlink()

    def _write(self, text: str, mode: str) -> None:
        if mode == "w" and self._path.exists() and not self._path.is_file() and not self._path.is_dir():
            raise OutputError(self._path, "is no regular file: choose another folder")
        try:
            with self._path.open(mode, encoding="utf-8") as file:
                file.write(text)
        except OSError as error:
            raise OutputError(self._path, f"cannot be written: {error.strerror or error}") from error

    def _read(self) -> dict[str, Any]:
        try:
            if not self._path.is_file() or self._path.stat().st_size > _LONGEST:
                return {}
            lines = self._path.read_text(encoding="utf-8").splitlines(keepends=True)
        except (OSError, UnicodeDecodeError):
            return {}
        found: dict[str, Any] = {}
        self._is_cut_off = bool(lines) and not lines[-1].endswith("\n")
        for number, line in enumerate(lines):
            try:
                entry = json.loads(line)
            except (ValueError, RecursionError):
                entry = None
            if number == 0 and entry != self._head:
                return {}
            if number and isinstance(entry, dict) and isinstance(entry.get("name"), str):
                found[entry["name"]] = entry.get("value")
        return found
