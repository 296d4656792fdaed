"""Compile a kernel at its first call, so that importing trtcalib does not import numba."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import cache
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


def prefetch(values: Any, position: Any) -> None:
    """In a compiled kernel, ask for ``values[position]`` to be brought into the cache; past the end is harmless.

    Uncompiled it does nothing. It changes when a kernel is fast, never what it computes.
    """


@cache
def _teach_prefetch() -> None:
    """Tell numba what :func:`prefetch` is: LLVM's intrinsic, which takes an address and may be given any."""
    from llvmlite import ir
    from numba.core import types
    from numba.extending import intrinsic, overload

    @intrinsic  # type: ignore[untyped-decorator]  # numba is untyped
    def emit(_context: Any, values: Any, position: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            array = context.make_array(signature.args[0])(context, builder, arguments[0])
            byte, word = ir.IntType(8).as_pointer(), ir.IntType(32)
            address = builder.bitcast(builder.gep(array.data, [arguments[1]]), byte)
            kind = ir.FunctionType(ir.VoidType(), [byte, word, word, word])
            function = builder.module.declare_intrinsic("llvm.prefetch", [byte], kind)
            read, keep, data = ir.Constant(word, 0), ir.Constant(word, 3), ir.Constant(word, 1)
            builder.call(function, [address, read, keep, data])
            return context.get_dummy_value()

        return types.void(values, position), generate

    def implement(values: Any, position: Any) -> Any:  # noqa: ARG001 - numba matches by the names
        def implementation(values: Any, position: Any) -> None:
            emit(values, position)

        return implementation

    overload(prefetch)(implement)


def _compile(python: Callable[P, R]) -> Callable[P, R]:
    import numba

    _teach_prefetch()
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": False}
    try:
        compiled: Callable[P, R] = numba.njit(cache=True, **options)(python)
    except RuntimeError:
        # Neither the package's folder nor the user's cache folder can be written (a read-only container).
        compiled = numba.njit(**options)(python)
    return compiled
