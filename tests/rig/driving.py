"""What the tests of our calibrators share: a device in host memory, and the calls that TensorRT makes, in its order."""

from __future__ import annotations

import atexit
import contextlib
import ctypes
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from tests.rig.vtable import CalibratorDriver
from trtcalib.core.cache import encode_version, format_cache, make_cache

ALGORITHMS = {
    "EntropyCalibrator": "EntropyCalibration2",
    "MinMaxCalibrator": "MinMaxCalibration",
    "PercentileCalibrator": "EntropyCalibration2",
}
"""Our calibrators, and the algorithm in the header of the caches that TensorRT takes from each."""

FED = ["EntropyCalibrator", "MinMaxCalibrator"]
"""Those that are fed batches."""


def cache_for(version: str, kind: str = "EntropyCalibrator", **scales: float) -> bytes:
    """Return a cache as TensorRT of a version would write it for one of our calibrators."""
    values = {name: np.float32(scale) for name, scale in (scales or {"x": 0.5}).items()}
    return format_cache(make_cache(values, ".".join(version.split(".")[:3]), ALGORITHMS[kind]))


def header_of(version: str, kind: str = "EntropyCalibrator") -> str:
    """Return the first line of these caches."""
    return f"TRT-{encode_version('.'.join(version.split('.')[:3]))}-{ALGORITHMS[kind]}"


def our_calibrators(version: str) -> Any:
    """Return the module of our calibrators; the calling test is skipped where TensorRT has none."""
    if int(version.split(".", maxsplit=1)[0]) >= 11:
        pytest.skip("TensorRT 11 has no calibrators")
    from trtcalib.trt import calibrators

    return calibrators


def driver_of(calibrator: Any, version: str) -> CalibratorDriver:
    """Return what calls a calibrator."""
    return CalibratorDriver(calibrator, int(version.split(".", maxsplit=1)[0]))


def batches_of(*values: float, name: str = "x", shape: tuple[int, ...] = (2, 3)) -> list[dict[str, np.ndarray]]:
    """Return one constant float32 batch per value."""
    return [{name: np.full(shape, value, np.float32)} for value in values]


def calibrate(driver: CalibratorDriver, written: bytes, names: Sequence[str] = ("x",)) -> list[list[int]]:
    """Do what TensorRT does, and return the addresses of each batch.

    It asks for a cache, takes batches until there is none, and hands over its cache, whyever the batches ended.
    """
    if driver.read() is not None:
        return []
    taken = []
    while (answer := driver.batch(names))[0]:
        taken.append(answer[1])
    driver.write_then_overwrite(written)
    return taken


def on_another_thread(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function on a thread that ends, and return its result."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        return pool.submit(function, *arguments).result()


BACKENDS = ["pycuda", "cuda-python"]
"""What a device can be opened through."""


@contextlib.contextmanager
def opened_device(backend: str = "pycuda") -> Iterator[Any]:
    """Open the GPU, and let go of its primary context after, which product code keeps until the process ends."""
    from trtcalib.trt import buffers, cuda_python

    device = buffers.open_device(backend=backend)
    home = buffers if backend == "pycuda" else cuda_python
    try:
        yield device
    finally:
        device.close()
        atexit.unregister(home._give_back)
        on_another_thread(home._give_back, 0)


class HostBuffer:
    """Host memory in place of device memory; nothing is asynchronous."""

    def __init__(self, device: HostDevice, nbytes: int) -> None:
        self._device = device
        self._memory = ctypes.create_string_buffer(nbytes)
        self.nbytes = nbytes
        self.pointer = device.as_pointer(ctypes.addressof(self._memory))

    def upload(self, array: np.ndarray) -> None:
        self._device.note("upload")
        ctypes.memmove(self._memory, array.tobytes(), array.nbytes)

    def free(self) -> None:
        """Do nothing: it goes with the object."""


class HostDevice:
    """A device for tests in which CUDA plays no part.

    Attributes:
        calls: What was asked of it and its buffers: the name, and whether it was current.
        buffers: Those that it gave.
    """

    def __init__(self, as_pointer: Callable[[int], Any] = int) -> None:
        self.as_pointer = as_pointer
        self.calls: list[tuple[str, bool]] = []
        self.buffers: list[HostBuffer] = []
        self._depth = 0

    @contextlib.contextmanager
    def current(self) -> Iterator[None]:
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1

    def note(self, call: str) -> None:
        self.calls.append((call, self._depth > 0))

    def allocate(self, nbytes: int) -> HostBuffer:
        self.note("allocate")
        self.buffers.append(HostBuffer(self, nbytes))
        return self.buffers[-1]

    def synchronize(self) -> None:
        self.note("synchronize")
