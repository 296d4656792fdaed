"""Compiling at the first call."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from trtcalib.core.jit import CompiledOnFirstCall


def add(a: int, b: int) -> int:
    return a + b


class FakeNjit:
    """Stands in for numba.njit and remembers the options it was asked for."""

    def __init__(self, *, refuses_cache: bool = False) -> None:
        self.refuses_cache = refuses_cache
        self.asked: list[dict[str, Any]] = []

    def __call__(self, **options: Any) -> Callable[[Callable[..., int]], Callable[..., int]]:
        self.asked.append(options)
        if self.refuses_cache and options.get("cache"):
            raise RuntimeError("cannot cache function: no locator available")
        return lambda python: python


def test_a_kernel_is_compiled_once_and_without_fast_math(monkeypatch: pytest.MonkeyPatch) -> None:
    njit = FakeNjit()
    monkeypatch.setattr("numba.njit", njit)
    kernel = CompiledOnFirstCall(add)
    assert njit.asked == []
    assert kernel(1, b=2) == kernel(3, 0) == 3
    assert kernel.compiled() is kernel.compiled()
    assert kernel.python is add
    assert njit.asked == [{"cache": True, "nogil": True, "error_model": "numpy", "fastmath": False}]


def test_a_kernel_works_where_no_cache_can_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    njit = FakeNjit(refuses_cache=True)
    monkeypatch.setattr("numba.njit", njit)
    assert CompiledOnFirstCall(add)(1, 2) == 3
    assert [options.get("cache") for options in njit.asked] == [True, None]
    assert njit.asked[1]["fastmath"] is False


def test_importing_the_kernels_does_not_import_numba() -> None:
    check = "import sys, trtcalib.core.entropy; sys.exit('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
