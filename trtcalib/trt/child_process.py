"""A Python process that may crash, hang or print anything: run with a time limit, its output bounded, its whole group ended afterwards."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from trtcalib.errors import DeviceError

__all__ = ["Ended", "run_module"]

MOST_OUTPUT = 64 << 20
"""Bytes of stdout that are kept; a weighted layer takes some hundred."""

MOST_COMPLAINT = 64 << 10
"""Bytes at the end of stderr that are kept."""

_CHUNK = 64 << 10

_GRACE = 5.0
"""Seconds that the readers get to empty the pipes of a process that has ended."""

_START = "import json, sys; request = sys.argv.pop(); sys.path[:] = json.loads(sys.argv.pop()); import {module}; {module}.main(request)"


@dataclass(frozen=True, slots=True)
class Ended:
    """How a process ended.

    Attributes:
        code: Its exit code; minus the signal's number where one ended it; ``None`` where it ran out of time.
        output: The beginning of its stdout.
        complaint: The end of its stderr.
    """

    code: int | None
    output: bytes
    complaint: str

    @property
    def how(self) -> str:
        """How it ended, in words."""
        if self.code is None:
            return "did not end in time"
        if self.code >= 0:
            return f"ended with exit code {self.code}"
        name = next((one.name for one in signal.Signals if one == -self.code), f"signal {-self.code}")
        if name == "SIGKILL":
            return "was killed (SIGKILL): either memory ran out, or someone ended it"
        return f"crashed ({name})"


def run_module(module: str, request: str, timeout: float) -> Ended:
    """Run ``main(request)`` of a module in a process of its own.

    It imports from where this process imports from, and from nowhere else.

    Args:
        module: Its full name.
        request: What it is given.
        timeout: Seconds until it and what it started are killed.

    Raises:
        DeviceError: If no process can be started.
    """
    path = json.dumps([entry or str(Path.cwd()) for entry in sys.path])
    # Isolated: otherwise the current folder could stand before the packages that are installed.
    flags = ["-I", *(["-B"] if sys.dont_write_bytecode else [])]
    return _run([sys.executable, *flags, "-c", _START.format(module=module), path, request], timeout)


def _run(command: Sequence[str], timeout: float) -> Ended:
    try:
        process = subprocess.Popen(  # noqa: S603 - this interpreter, and a list of arguments
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        raise DeviceError(f"no process can be started here for TensorRT-RTX ({command[0]!r}): {error}") from error
    assert process.stdout is not None
    assert process.stderr is not None
    output, complaint = _Head(process.stdout), _Tail(process.stderr)
    code: int | None = None
    try:
        with contextlib.suppress(subprocess.TimeoutExpired):
            code = process.wait(timeout)
    finally:
        _kill(process)
        for reader in (output, complaint):
            reader.join(_GRACE)
    return Ended(code, bytes(output.kept), complaint.kept.decode("utf-8", "replace"))


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End a process and what it started; the group may outlive its leader and hold the pipes."""
    if hasattr(os, "killpg"):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    else:
        with contextlib.suppress(OSError):
            process.kill()
    process.wait()


class _Reader(threading.Thread):
    """Empties a pipe, so that who writes into it never waits."""

    def __init__(self, pipe: IO[bytes]) -> None:
        super().__init__(daemon=True)
        self.kept = bytearray()
        self._pipe = pipe
        self.start()

    def run(self) -> None:
        with contextlib.suppress(OSError, ValueError), self._pipe:
            while chunk := os.read(self._pipe.fileno(), _CHUNK):
                self._keep(chunk)

    def _keep(self, chunk: bytes) -> None:
        raise NotImplementedError


class _Head(_Reader):
    def _keep(self, chunk: bytes) -> None:
        self.kept += chunk[: MOST_OUTPUT - len(self.kept)]


class _Tail(_Reader):
    def _keep(self, chunk: bytes) -> None:
        self.kept += chunk
        del self.kept[:-MOST_COMPLAINT]
