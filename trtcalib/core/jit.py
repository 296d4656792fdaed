"""Compile a kernel at its first call, so that importing trtcalib does not import numba."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Generic, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

_lock = threading.Lock()


class CompiledOnFirstCall(Generic[P, R]):
    """A numba kernel that is compiled (or loaded from numba's disk cache) when it is first called.

    ``python`` is the same function uncompiled; tests hold the two equal. Compiled without fast-math, so that
    every division and comparison is IEEE 754's, and without the GIL, so that worker threads run side by side.
    """

    def __init__(self, python: Callable[P, R]) -> None:
        self.python = python
        self._compiled: Callable[P, R] | None = None

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:  # noqa: D102 - the kernel's own docstring tells
        return self.compiled()(*args, **kwargs)

    def compiled(self) -> Callable[P, R]:
        """Return the compiled kernel; hold on to it in a hot loop."""
        if self._compiled is None:
            with _lock:
                if self._compiled is None:
                    self._compiled = _compile(self.python)
        return self._compiled


def _compile(python: Callable[P, R]) -> Callable[P, R]:
    import numba

    options: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": False}
    try:
        compiled: Callable[P, R] = numba.njit(cache=True, **options)(python)
    except RuntimeError:
        # Neither the package's folder nor the user's cache folder can be written (a read-only container).
        compiled = numba.njit(**options)(python)
    return compiled
