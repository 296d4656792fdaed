"""Memory on the GPU: the two protocols that the rest of trt/ is written against, and PyCUDA behind them; cuda_python.py is another.

PyCUDA uses the device's primary context, the one that TensorRT, torch and CUDA's runtime API use, so that all of them see
the same memory. A context is current on one thread at a time; every use is therefore inside :meth:`Device.current`.
"""

from __future__ import annotations

import atexit
import contextlib
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from trtcalib.errors import DeviceError, MissingPackageError
from trtcalib.manifest import DeviceFacts
from trtcalib.trt.kernels import Kernels, PyCudaKernels
from trtcalib.trt.require import device_facts, import_pycuda, out_of_memory

__all__ = ["Device", "DeviceBuffer", "PyCudaBuffer", "PyCudaDevice", "open_device"]


class DeviceBuffer(Protocol):
    """A block of device memory.

    Attributes:
        pointer: Its address, never 0.
        nbytes: Its size.
    """

    @property
    def pointer(self) -> int:
        """The device address."""

    @property
    def nbytes(self) -> int:
        """The size in bytes."""

    def upload(self, array: NDArray[Any]) -> None:
        """Start copying an array, at most as large as the buffer, to its start; done after :meth:`Device.synchronize`."""

    def download(self, array: NDArray[Any]) -> None:
        """Fill an array from the start of the buffer, after everything that was queued before."""

    def free(self) -> None:
        """Give the memory back; a second call does nothing."""


class Device(Protocol):
    """A GPU that gives buffers; what a calibrator takes as its allocator.

    Attributes:
        facts: Which GPU it is.
        stream: Handle of the CUDA stream that copies are queued on.
    """

    @property
    def facts(self) -> DeviceFacts:
        """Which GPU it is."""

    @property
    def stream(self) -> int:
        """Handle of the stream."""

    def current(self) -> AbstractContextManager[None]:
        """Make the device's context current on this thread for a while; may be nested."""

    @property
    def resident_threads(self) -> int:
        """How many threads the GPU holds at once."""

    def allocate(self, nbytes: int, *, copies: bool = True) -> DeviceBuffer:
        """Return a new buffer.

        Args:
            nbytes: Its size, at least 1.
            copies: Whether it will be uploaded to or downloaded from, which takes as much host memory.

        Raises:
            DeviceError: If the device has not that much memory; it says how much was asked for and how much is free.
        """

    def free_memory(self) -> int:
        """Return how many bytes of device memory are free."""

    def compile(self, source: str) -> Kernels:
        """Compile CUDA C++ for this GPU.

        Raises:
            DeviceError: If there is no compiler, or it refuses the source.
        """

    def synchronize(self) -> None:
        """Wait until everything that was queued has been done."""

    def close(self) -> None:
        """Let go of the device; buffers must have been freed before."""


def open_device(index: int = 0, backend: Literal["auto", "pycuda", "cuda-python"] = "auto") -> Device:
    """Return a GPU behind PyCUDA, or behind cuda-python where PyCUDA is not installed.

    Args:
        index: As CUDA counts the GPUs that it sees.
        backend: ``pycuda`` or ``cuda-python`` for that one and no other.

    Raises:
        DeviceError: If there is no driver, no such GPU, or its context cannot be made.
        MissingPackageError: If neither is installed, or the one that was named is not.
        ValueError: If there is no such backend.
    """
    from trtcalib.trt.cuda_python import CudaPythonDevice

    if backend == "cuda-python":
        return CudaPythonDevice(index)
    if backend not in ("auto", "pycuda"):
        raise ValueError(f"backend is {backend!r}, expected 'auto', 'pycuda' or 'cuda-python'")
    try:
        return PyCudaDevice(index)
    except MissingPackageError as missing:
        # A PyCUDA that is installed and broken is told, and nothing else taken in its place.
        if backend == "pycuda" or getattr(missing.__cause__, "name", None) != "pycuda":
            raise
        try:
            return CudaPythonDevice(index)
        except MissingPackageError:
            raise missing from missing.__cause__


class PyCudaDevice:
    """A GPU's primary context, with one stream for copies."""

    def __init__(self, index: int = 0) -> None:
        self._cuda = cuda = import_pycuda()
        self._index = index
        self._kernels: list[PyCudaKernels] = []
        self.facts = device_facts(cuda, index)
        try:
            self._context = _primary_context(cuda, index)
            with self.current():
                self._stream: Any = cuda.Stream()
        except cuda.Error as error:
            raise DeviceError(f"the GPU {self.facts.name!r} cannot be used: {error}") from error

    @property
    def stream(self) -> int:
        """Handle of the CUDA stream that copies are queued on."""
        return int(self._stream.handle)

    @contextlib.contextmanager
    def current(self) -> Iterator[None]:
        """Make the primary context current on this thread; the one that was current before comes back after."""
        self._context.push()
        try:
            yield
        finally:
            self._cuda.Context.pop()

    @property
    def resident_threads(self) -> int:
        """How many threads the GPU holds at once."""
        attribute = self._cuda.device_attribute
        device = self._cuda.Device(self._index)
        processors = device.get_attribute(attribute.MULTIPROCESSOR_COUNT)
        return int(processors * device.get_attribute(attribute.MAX_THREADS_PER_MULTIPROCESSOR))

    def allocate(self, nbytes: int, *, copies: bool = True) -> PyCudaBuffer:
        """Return a new buffer; for copies with a pinned one beside it, which they go through.

        Raises:
            DeviceError: If memory is not enough.
        """
        with self.current():
            try:
                return PyCudaBuffer(self, nbytes, copies=copies)
            except self._cuda.MemoryError as error:
                raise out_of_memory(nbytes, *self._cuda.mem_get_info()) from error

    def free_memory(self) -> int:
        """Return how many bytes of device memory are free."""
        with self.current():
            return int(self._cuda.mem_get_info()[0])

    def compile(self, source: str) -> PyCudaKernels:
        """Compile with nvcc, as PyCUDA does; :meth:`close` unloads what was compiled.

        Raises:
            DeviceError: If nvcc is missing or refuses the source.
        """
        with self.current():
            self._kernels.append(PyCudaKernels(self._cuda, self.current, self._stream, source))
        return self._kernels[-1]

    def synchronize(self) -> None:
        """Wait for the stream."""
        with self.current():
            self._stream.synchronize()

    def close(self) -> None:
        """Let go of the stream; the primary context stays for the life of the process, as CUDA's runtime API keeps it."""
        with self.current():
            for kernels in self._kernels:
                kernels.unload()
            self._kernels.clear()
            self._stream = None


_contexts: dict[int, Any] = {}
"""The primary contexts that were taken, by device."""


def _primary_context(cuda: Any, index: int) -> Any:
    """Return a device's primary context; one object per process, given back when it ends."""
    if index not in _contexts:
        _contexts[index] = cuda.Device(index).retain_primary_context()
        atexit.register(_give_back, index)
    return _contexts[index]


def _give_back(index: int) -> None:
    context = _contexts.pop(index)
    # PyCUDA's destructor takes a primary context for one of its own and complains on stderr, and its detach() does nothing on a
    # thread that did not make the context, unless it is current there. It stays current, which matters no more at the end.
    context.push()
    context.detach()


class PyCudaBuffer:
    """Device memory, and for copies pinned host memory of the same size that asynchronous ones need.

    The pinned memory is overwritten by the next upload, so the device must be synchronised between two of them.
    """

    def __init__(self, device: PyCudaDevice, nbytes: int, *, copies: bool = True) -> None:
        cuda = device._cuda  # noqa: SLF001 - the two classes are one unit
        self._device = device
        self.nbytes = nbytes
        self._freed = False
        self._staging: NDArray[np.uint8] | None = None
        self._memory = cuda.mem_alloc(nbytes)
        try:
            if copies:
                self._staging = cuda.pagelocked_empty(nbytes, np.uint8)
        except cuda.Error:
            self._memory.free()
            raise

    @property
    def pointer(self) -> int:
        """The device address."""
        # PyCUDA's allocation is converted here, once: TensorRT's bindings take nothing but an int.
        return int(self._memory)

    def upload(self, array: NDArray[Any]) -> None:
        """Copy an array into the pinned memory, and queue the copy from there."""
        source = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        if source.nbytes > self.nbytes or self._staging is None:
            raise DeviceError(f"an upload of {source.nbytes} bytes into a buffer of {self.nbytes}")
        staging = self._staging[: source.nbytes]
        np.copyto(staging, source)
        with self._device.current():
            self._device._cuda.memcpy_htod_async(self._memory, staging, self._device._stream)  # noqa: SLF001 - as above

    def download(self, array: NDArray[Any]) -> None:
        """Copy from the device through the pinned memory, and wait for it."""
        if array.nbytes > self.nbytes or self._staging is None:
            raise DeviceError(f"a download of {array.nbytes} bytes from a buffer of {self.nbytes}")
        staging = self._staging[: array.nbytes]
        with self._device.current():
            self._device._cuda.memcpy_dtoh_async(staging, self._memory, self._device._stream)  # noqa: SLF001 - as above
            self._device._stream.synchronize()  # noqa: SLF001 - as above
        np.copyto(array, staging.view(array.dtype).reshape(array.shape))

    def free(self) -> None:
        """Free both memories, on a thread where the context is current: PyCUDA only warns where it is not."""
        if self._freed:
            return
        with self._device.current():
            self._memory.free()
            if self._staging is not None:
                self._staging.base.free()  # type: ignore[union-attr]  # PyCUDA's pinned allocation
        self._freed, self._staging = True, None
