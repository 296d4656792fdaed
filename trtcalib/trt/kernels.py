"""Kernels on the GPU: the protocol that the rest of trt/ is written against, and nvcc through PyCUDA behind it."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import numpy as np

from trtcalib.errors import DeviceError
from trtcalib.trt.require import find_nvcc, import_compiler

__all__ = ["COMPILER_OPTIONS", "Kernels", "PyCudaKernels"]

logger = logging.getLogger(__name__)

COMPILER_OPTIONS = ("-ftz=false", "-prec-div=true")
"""IEEE arithmetic with subnormal numbers: nvcc's defaults, stated because PYCUDA_DEFAULT_NVCC_FLAGS could change them."""


class Kernels(Protocol):
    """Compiled CUDA kernels."""

    def launch(self, name: str, blocks: int, threads: int, arguments: Sequence[np.generic]) -> None:
        """Queue a kernel on :attr:`Device.stream`; addresses are given as uint64.

        Args:
            name: Of an ``extern "C"`` kernel in the source.
            blocks: Of the grid, which has one axis.
            threads: Of a block, as above.
            arguments: NumPy scalars of exactly the kernel's types.

        Raises:
            DeviceError: If there is no such kernel or the device refuses it.
        """


class PyCudaKernels:
    """Kernels that nvcc compiled for one GPU, loaded into its primary context."""

    def __init__(
        self, cuda: Any, current: Callable[[], AbstractContextManager[None]], stream: Any, source: str
    ) -> None:
        self._cuda = cuda
        self._current = current
        self._stream = stream
        self._functions: dict[str, Any] = {}
        compiler, nvcc = import_compiler(), find_nvcc()
        try:
            with warnings.catch_warnings(record=True) as said:
                warnings.simplefilter("always")
                # No cache on disk: PyCUDA's needs a home folder that can be written, and is not written atomically.
                cubin = compiler.compile(source, nvcc, list(COMPILER_OPTIONS), no_extern_c=True, cache_dir=False)
            self._module = cuda.module_from_buffer(cubin)
        except cuda.CompileError as error:
            raise DeviceError(f"{nvcc} cannot compile the kernels for this GPU: {_last_line(error.stderr)}") from error
        except cuda.Error as error:
            raise DeviceError(f"the GPU does not take what {nvcc} compiled: {error}") from error
        for each in said:
            logger.info("%s: %s", nvcc, each.message)

    def launch(self, name: str, blocks: int, threads: int, arguments: Sequence[np.generic]) -> None:
        """Queue a kernel on the device's stream."""
        with self._current():
            try:
                if name not in self._functions:
                    self._functions[name] = self._module.get_function(name)
                self._functions[name](*arguments, grid=(blocks, 1), block=(threads, 1, 1), stream=self._stream)
            except self._cuda.Error as error:
                raise DeviceError(f"the kernel {name!r} cannot be started: {error}") from error

    def unload(self) -> None:
        """Unload the module, on a thread where the context is current."""
        self._functions.clear()
        self._module = self._stream = None


def _last_line(text: str) -> str:
    return next((line.strip() for line in reversed((text or "").splitlines()) if line.strip()), "it gives no reason")
