"""How a build is told about, and how it ends early: an error in a callback, or Ctrl-C, held until TensorRT has returned."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator

__all__ = ["BuildProgress", "Stop"]

BuildProgress = Callable[[str, int, int | None], None]
"""Called with (phase, steps done, steps in all or ``None``)."""


class Stop:
    """Why a build should end: an error in a callback, or Ctrl-C; the first one stays."""

    def __init__(self) -> None:
        self.error: BaseException | None = None

    def hold(self, error: BaseException) -> None:
        """Keep an error that must not cross C++."""
        if self.error is None:
            self.error = error

    @contextlib.contextmanager
    def on_ctrl_c(self, also: Callable[[BaseException], None] | None = None) -> Iterator[None]:
        """Hold Ctrl-C for a while instead of raising it, and tell it to somebody else too.

        Python would raise it wherever a callback happens to be, even before the callback's own ``try``, and TensorRT takes
        an exception in ``get_batch`` for the end of the data. Only the main thread has signals.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def held(*_: object) -> None:
            self.hold(KeyboardInterrupt())
            if also is not None:
                also(KeyboardInterrupt())

        before = signal.signal(signal.SIGINT, held)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)
