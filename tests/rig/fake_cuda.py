"""Loads the simulated CUDA driver, ``fake_cuda.c``, before PyCUDA looks for a real one, and tells what happened in it."""

from __future__ import annotations

import ctypes
import os
import sys
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Counts:
    """The state of the simulated driver; the fields of ``Counts`` in ``fake_cuda.c``, in its order.

    Attributes:
        live_bytes: Device memory in use.
        live_allocations: Device allocations in use.
        peak_bytes: The most device memory in use at once, since the last reset.
        pinned_allocations: Pinned or registered pieces of host memory.
        streams: Streams that exist.
        events: Events that exist.
        created_contexts: Contexts that exist because somebody created them.
        primary_retained: How often the primary context is retained.
        contexts_on_this_thread: Depth of the calling thread's stack of contexts.
        pending_copies: Copies and fills that were asked for and are not done.
        pageable_async_copies: Asynchronous copies from or to host memory that is not pinned, since the last reset.
        lost_copies: Copies whose memory was gone when they were to be done, since the last reset.
        abandoned_allocations: Device allocations that only the end of their context freed, since the last reset.
        refused_calls: Calls of driver functions that are not simulated, since the last reset.
    """

    live_bytes: int
    live_allocations: int
    peak_bytes: int
    pinned_allocations: int
    streams: int
    events: int
    created_contexts: int
    primary_retained: int
    contexts_on_this_thread: int
    pending_copies: int
    pageable_async_copies: int
    lost_copies: int
    abandoned_allocations: int
    refused_calls: int


class _CountsInC(ctypes.Structure):
    _fields_ = [(field.name, ctypes.c_uint64) for field in fields(Counts)]


class FakeCuda:
    """The simulated driver of this process, seen from outside of CUDA."""

    FRESH_POISON = 0xCD  # what device memory holds before anything is written to it

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        library.simulated_cuda_counts.argtypes = [ctypes.POINTER(_CountsInC)]
        library.simulated_cuda_counts.restype = None
        library.simulated_cuda_is_device.argtypes = [ctypes.c_uint64, ctypes.c_size_t]
        library.simulated_cuda_is_device.restype = ctypes.c_bool
        library.simulated_cuda_fail_allocation_after.argtypes = [ctypes.c_long]
        library.simulated_cuda_fail_allocation_after.restype = None
        library.simulated_cuda_set_capacity.argtypes = [ctypes.c_size_t]
        library.simulated_cuda_set_capacity.restype = None
        library.simulated_cuda_reset.restype = None
        library.cuStreamSynchronize.argtypes = [ctypes.c_void_p]
        library.simulated_cuda_last_refused.restype = ctypes.c_char_p

    def counts(self) -> Counts:
        """What there is now and what happened since the last reset."""
        now = _CountsInC()
        self._library.simulated_cuda_counts(ctypes.byref(now))
        return Counts(**{field.name: getattr(now, field.name) for field in fields(Counts)})

    def is_device(self, pointer: int, size: int = 1) -> bool:
        """Whether all these bytes are device memory in use."""
        return self._library.simulated_cuda_is_device(pointer, size)

    def read(self, pointer: int, size: int) -> bytes:
        """The bytes of device memory as a kernel would find them now: nothing is waited for.

        Raises:
            ValueError: If these bytes are not all device memory in use.
        """
        if not self.is_device(pointer, size):
            raise ValueError(f"{size} bytes at {pointer:#x} are not device memory in use")
        return ctypes.string_at(pointer, size)

    def finish(self, stream: int) -> None:
        """Do what is queued on a stream, as a kernel that is queued behind it would find it.

        Raises:
            ValueError: If there is no such stream in the calling thread's context.
        """
        if self._library.cuStreamSynchronize(stream):
            raise ValueError(f"{stream:#x} is no stream of the context that is current")

    def fail_allocation_after(self, count: int) -> None:
        """Let this many more device allocations succeed, and none after them."""
        self._library.simulated_cuda_fail_allocation_after(count)

    def set_capacity(self, size: int) -> None:
        """Say how much memory the device has."""
        self._library.simulated_cuda_set_capacity(size)

    def reset(self) -> None:
        """End all failures that were asked for and begin to count anew; what is alive stays."""
        self._library.simulated_cuda_reset()

    def last_refused(self) -> str:
        """The last driver function that was called and is not simulated; empty if none was."""
        return self._library.simulated_cuda_last_refused().decode()


@cache
def load() -> FakeCuda:
    """Make the simulated driver this process's libcuda.so.1.

    Raises:
        RuntimeError: If PyCUDA is there already, and so has found another driver, or none.
    """
    if "pycuda._driver" in sys.modules:
        raise RuntimeError("PyCUDA was imported before the simulated driver: call load() first")
    library = Path(os.environ["TRTCALIB_RIG"]) / "cuda" / "libcuda.so.1"
    # Whoever asks for a library of this name from now on gets the one that is loaded.
    return FakeCuda(ctypes.CDLL(str(library), ctypes.RTLD_GLOBAL))
