"""TensorRT's logger and progress monitor: objects that C++ calls, and out of which no exception may come."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from typing import Any

from trtcalib.trt.require import import_tensorrt
from trtcalib.trt.stopping import BuildProgress, Stop

__all__ = ["TensorRTLog", "progress_monitor", "tensorrt_log"]

trt = import_tensorrt()

logger = logging.getLogger("trtcalib.tensorrt")
"""Where TensorRT's messages go."""

_MOST_MESSAGES = 200
_LONGEST_MESSAGE = 2000


class TensorRTLog(trt.ILogger):  # type: ignore[misc,name-defined]  # tensorrt is untyped
    """TensorRT's messages, given to Python's logging under ``trtcalib.tensorrt``; warnings and errors are kept for a while.

    Attributes:
        kept: Warnings and errors since :meth:`recording` began, each once.
    """

    def __init__(self) -> None:
        trt.ILogger.__init__(self)
        severity = trt.ILogger.Severity
        self._levels = {
            severity.INTERNAL_ERROR: logging.ERROR,
            severity.ERROR: logging.ERROR,
            severity.WARNING: logging.WARNING,
            severity.INFO: logging.INFO,
            severity.VERBOSE: logging.DEBUG,
        }
        self.kept: list[str] = []
        self.last_error = ""

    def log(self, severity: Any, message: str) -> None:
        """Take one message; called from any thread."""
        # Whatever a handler raises, Ctrl-C too, must not cross C++.
        with contextlib.suppress(BaseException):
            level = self._levels.get(severity, logging.ERROR)
            text = message[:_LONGEST_MESSAGE]
            if level >= logging.ERROR:
                self.last_error = text
            if level >= logging.WARNING and text not in self.kept and len(self.kept) < _MOST_MESSAGES:
                self.kept.append(text)
            logger.log(level, "%s", text)

    @contextlib.contextmanager
    def recording(self) -> Iterator[TensorRTLog]:
        """Forget what was kept before."""
        self.kept, self.last_error = [], ""
        yield self


_log: TensorRTLog | None = None


def tensorrt_log() -> TensorRTLog:
    """Return this process's logger: TensorRT keeps the first one that it is given, for ever."""
    global _log  # noqa: PLW0603 - one per process, as TensorRT has it
    if _log is None:
        _log = TensorRTLog()
    return _log


def progress_monitor(progress: BuildProgress | None, stop: Stop, failed: Callable[[], bool]) -> Any:
    """Return an ``IProgressMonitor`` that tells the phases and ends the build early after a failure; ``None`` on 8.6."""
    if not hasattr(trt, "IProgressMonitor"):
        return None

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc,name-defined]  # tensorrt is untyped
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self._steps: dict[str, int] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            del parent_phase
            self._steps[phase_name] = num_steps
            self._tell(phase_name, 0)

        def step_complete(self, phase_name: str, step: int) -> bool:
            self._tell(phase_name, step + 1)
            return stop.error is None and not failed()

        def phase_finish(self, phase_name: str) -> None:
            self._tell(phase_name, self._steps.get(phase_name, 0))

        def _tell(self, phase: str, done: int) -> None:
            try:
                if progress is not None:
                    progress(phase, done, self._steps.get(phase))
            except BaseException as error:
                stop.hold(error)

    return Monitor()
