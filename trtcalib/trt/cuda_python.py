"""The protocols of buffers.py and kernels.py over cuda-python (``cuda.bindings``), for where PyCUDA is not installed.

The device's primary context is used as PyCUDA uses it there, but by the driver's own stack, which keeps what lay on it.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import logging
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trtcalib.errors import DeviceError
from trtcalib.manifest import DeviceFacts
from trtcalib.trt.kernels import COMPILER_OPTIONS
from trtcalib.trt.require import find_nvcc, import_cuda_python, kernel_driver, out_of_memory

__all__ = ["CudaPythonBuffer", "CudaPythonDevice", "CudaPythonKernels"]

logger = logging.getLogger(__name__)

_DEFAULT = 0
"""Flags of streams and of pinned memory."""

_PACKED_END, _PACKED_POINTER, _PACKED_SIZE = 0, 1, 2
"""``CU_LAUNCH_PARAM_END``, ``_BUFFER_POINTER`` and ``_BUFFER_SIZE``: how a kernel gets its arguments as one block of bytes."""


class _RefusedError(Exception):
    """The driver refused a call."""

    def __init__(self, function: str, reason: str, *, is_out_of_memory: bool) -> None:
        super().__init__(f"{function} failed: {reason}")
        self.is_out_of_memory = is_out_of_memory


class _Driver:
    """The driver's functions, which return what they give and raise where they refuse."""

    def __init__(self) -> None:
        self._module: Any = import_cuda_python()

    def __call__(self, function: str, *arguments: Any) -> Any:
        """Call a function: what it gives, a tuple where that is several things.

        Raises:
            _RefusedError: With the driver's reason.
        """
        code, *given = getattr(self._module, function)(*arguments)
        codes = self._module.CUresult
        if code != codes.CUDA_SUCCESS:
            _, text = self._module.cuGetErrorString(code)
            reason = text.decode() if text else f"error {int(code)}"
            raise _RefusedError(function, reason, is_out_of_memory=code == codes.CUDA_ERROR_OUT_OF_MEMORY)
        return given[0] if len(given) == 1 else tuple(given)

    def attribute(self, name: str, index: int) -> int:
        """Return an attribute of a device."""
        names = self._module.CUdevice_attribute
        return int(self("cuDeviceGetAttribute", getattr(names, f"CU_DEVICE_ATTRIBUTE_{name}"), index))

    def facts(self, index: int) -> DeviceFacts:
        """State which GPU and driver these are.

        Raises:
            DeviceError: If there is no such GPU.
        """
        count, known = int(self("cuDeviceGetCount")), int(self("cuDriverGetVersion"))
        if not 0 <= index < count:
            raise DeviceError(f"there is no GPU {index}: the driver sees {count}")
        return DeviceFacts(
            name=self("cuDeviceGetName", 256, index).split(b"\0")[0].decode("utf-8", "replace"),
            compute_capability=".".join(str(self.attribute(f"COMPUTE_CAPABILITY_{part}", index)) for part in _PARTS),
            memory=int(self("cuDeviceTotalMem", index)),
            cuda=f"{known // 1000}.{known % 1000 // 10}",
            driver=kernel_driver(),
        )


_PARTS = ("MAJOR", "MINOR")


class CudaPythonDevice:
    """A GPU's primary context, with one stream for copies."""

    def __init__(self, index: int = 0) -> None:
        self._driver = driver = _Driver()
        self._index = index
        self._kernels: list[CudaPythonKernels] = []
        self._stream: Any = None
        self.facts = driver.facts(index)
        try:
            self._context = _primary_context(driver, index)
            with self.current():
                self._stream = driver("cuStreamCreate", _DEFAULT)
        except _RefusedError as error:
            raise DeviceError(f"the GPU {self.facts.name!r} cannot be used: {error}") from error

    @property
    def stream(self) -> int:
        """Handle of the CUDA stream that copies are queued on."""
        return int(self._stream)

    @contextlib.contextmanager
    def current(self) -> Iterator[None]:
        """Make the primary context current on this thread; the one that was current before comes back after."""
        self._driver("cuCtxPushCurrent", self._context)
        try:
            yield
        finally:
            self._driver("cuCtxPopCurrent")

    @property
    def resident_threads(self) -> int:
        """How many threads the GPU holds at once."""
        each = self._driver.attribute("MAX_THREADS_PER_MULTIPROCESSOR", self._index)
        return each * self._driver.attribute("MULTIPROCESSOR_COUNT", self._index)

    def allocate(self, nbytes: int, *, copies: bool = True) -> CudaPythonBuffer:
        """Return a new buffer; for copies with a pinned one beside it, which they go through.

        Raises:
            DeviceError: If memory is not enough.
        """
        with self.current():
            try:
                return CudaPythonBuffer(self, nbytes, copies=copies)
            except _RefusedError as error:
                if not error.is_out_of_memory:
                    raise DeviceError(f"{nbytes} bytes of device memory cannot be allocated: {error}") from error
                raise out_of_memory(nbytes, *self._driver("cuMemGetInfo")) from error

    def free_memory(self) -> int:
        """Return how many bytes of device memory are free."""
        with self.current():
            return int(self._driver("cuMemGetInfo")[0])

    def compile(self, source: str) -> CudaPythonKernels:
        """Compile with nvcc; :meth:`close` unloads what was compiled.

        Raises:
            DeviceError: If nvcc is missing or refuses the source.
        """
        with self.current():
            self._kernels.append(CudaPythonKernels(self, source))
        return self._kernels[-1]

    def synchronize(self) -> None:
        """Wait for the stream."""
        with self.current():
            self._driver("cuStreamSynchronize", self._stream)

    def close(self) -> None:
        """Let go of the stream; the primary context stays for the life of the process, as CUDA's runtime API keeps it."""
        if self._stream is None:
            return
        with self.current():
            for kernels in self._kernels:
                kernels.unload()
            self._kernels.clear()
            self._driver("cuStreamDestroy", self._stream)
        self._stream = None


_contexts: dict[int, tuple[_Driver, Any]] = {}
"""The primary contexts that were taken, by device."""


def _primary_context(driver: _Driver, index: int) -> Any:
    """Return a device's primary context; retained once per process, and given back when it ends."""
    if index not in _contexts:
        _contexts[index] = driver, driver("cuDevicePrimaryCtxRetain", index)
        atexit.register(_give_back, index)
    return _contexts[index][1]


def _give_back(index: int) -> None:
    driver, _ = _contexts.pop(index)
    driver("cuDevicePrimaryCtxRelease", index)


class CudaPythonBuffer:
    """Device memory, and for copies pinned host memory of the same size that asynchronous ones need.

    The pinned memory is overwritten by the next upload, so the device must be synchronised between two of them.
    """

    def __init__(self, device: CudaPythonDevice, nbytes: int, *, copies: bool = True) -> None:
        self._driver = driver = device._driver  # noqa: SLF001 - the two classes are one unit
        self._device = device
        self.nbytes = nbytes
        self._pinned = 0
        self._staging: NDArray[np.uint8] | None = None
        self._memory = int(driver("cuMemAlloc", nbytes))
        if not copies:
            return
        try:
            self._pinned = int(driver("cuMemHostAlloc", nbytes, _DEFAULT))
        except _RefusedError:
            driver("cuMemFree", self._memory)
            raise
        self._staging = np.ctypeslib.as_array((ctypes.c_uint8 * nbytes).from_address(self._pinned))

    @property
    def pointer(self) -> int:
        """The device address."""
        return self._memory

    def upload(self, array: NDArray[Any]) -> None:
        """Copy an array into the pinned memory, and queue the copy from there."""
        source = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        if source.nbytes > self.nbytes or self._staging is None:
            raise DeviceError(f"an upload of {source.nbytes} bytes into a buffer of {self.nbytes}")
        np.copyto(self._staging[: source.nbytes], source)
        with self._device.current():
            self._driver("cuMemcpyHtoDAsync", self._memory, self._pinned, source.nbytes, self._device.stream)

    def download(self, array: NDArray[Any]) -> None:
        """Copy from the device through the pinned memory, and wait for it."""
        if array.nbytes > self.nbytes or self._staging is None:
            raise DeviceError(f"a download of {array.nbytes} bytes from a buffer of {self.nbytes}")
        with self._device.current():
            self._driver("cuMemcpyDtoHAsync", self._pinned, self._memory, array.nbytes, self._device.stream)
            self._driver("cuStreamSynchronize", self._device.stream)
        np.copyto(array, self._staging[: array.nbytes].view(array.dtype).reshape(array.shape))

    def free(self) -> None:
        """Free both memories; a second call does nothing."""
        memory, self._memory = self._memory, 0
        pinned, self._pinned = self._pinned, 0
        self._staging = None
        if not memory:
            return
        with self._device.current():
            self._driver("cuMemFree", memory)
            if pinned:
                self._driver("cuMemFreeHost", pinned)


class CudaPythonKernels:
    """Kernels that nvcc compiled for one GPU, loaded into its primary context."""

    def __init__(self, device: CudaPythonDevice, source: str) -> None:
        self._device = device
        self._driver = device._driver  # noqa: SLF001 - the two classes are one unit
        self._functions: dict[str, Any] = {}
        nvcc = find_nvcc()
        cubin = _compile(nvcc, source, device.facts.compute_capability)
        try:
            self._module: Any = self._driver("cuModuleLoadData", cubin)
        except _RefusedError as error:
            raise DeviceError(f"the GPU does not take what {nvcc} compiled: {error}") from error

    def launch(self, name: str, blocks: int, threads: int, arguments: Sequence[np.generic]) -> None:
        """Queue a kernel on the device's stream."""
        packed = _packed(arguments)
        size = ctypes.c_size_t(len(packed))
        content = ctypes.create_string_buffer(packed, len(packed))
        named = (_PACKED_POINTER, ctypes.addressof(content), _PACKED_SIZE, ctypes.addressof(size), _PACKED_END)
        extra = (ctypes.c_void_p * len(named))(*named)
        with self._device.current():
            try:
                if name not in self._functions:
                    self._functions[name] = self._driver("cuModuleGetFunction", self._module, name.encode())
                shape = (blocks, 1, 1, threads, 1, 1, 0)
                self._driver(
                    "cuLaunchKernel", self._functions[name], *shape, self._device.stream, 0, ctypes.addressof(extra)
                )
            except _RefusedError as error:
                raise DeviceError(f"the kernel {name!r} cannot be started: {error}") from error

    def unload(self) -> None:
        """Unload the module, on a thread where the context is current."""
        self._functions.clear()
        module, self._module = self._module, None
        if module is not None:
            self._driver("cuModuleUnload", module)


def _packed(arguments: Sequence[np.generic]) -> bytes:
    """Return a kernel's arguments as one block of bytes, each aligned to its size."""
    content = bytearray()
    for argument in arguments:
        content += bytes(-len(content) % argument.itemsize) + argument.tobytes()
    return bytes(content)


def _compile(nvcc: str, source: str, capability: str) -> bytes:
    """Return what nvcc makes of a source for one kind of GPU."""
    with tempfile.TemporaryDirectory(prefix="trtcalib-") as folder:
        path = Path(folder, "kernels.cu")
        path.write_text(source, encoding="utf-8")
        target = f"sm_{capability.replace('.', '')}"
        command = [nvcc, "--cubin", *COMPILER_OPTIONS, "-arch", target, path.name]
        done = subprocess.run(  # noqa: S603 - the CUDA compiler of this machine, on our own source
            command, cwd=folder, capture_output=True, text=True, errors="replace", check=False
        )
        said = [line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        if done.returncode:
            last = said[-1] if said else "it gives no reason"
            raise DeviceError(f"{nvcc} cannot compile the kernels for this GPU: {last}")
        for line in said:
            logger.info("%s: %s", nvcc, line)
        return path.with_suffix(".cubin").read_bytes()
