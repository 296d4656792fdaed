"""Stand-ins for the GPU and for NVIDIA's packages, so that what is built on them is tested on any machine."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from trtcalib.errors import DeviceError
from trtcalib.manifest import DeviceFacts

FACTS = DeviceFacts(name="Fake GPU", compute_capability="9.0", memory=1 << 30, cuda="12.4", driver="550.54")

PACKAGES = ("tensorrt", "pycuda", "cuda")

NEED_TENSORRT = tuple(
    f"trtcalib.trt.{name}" for name in ("calibrators", "callbacks", "engine", "inference", "inspection")
)
"""Modules of the package that import TensorRT when they are imported."""


class FakeBuffer:
    """Device memory in NumPy; an upload reads the array as late as the protocol allows."""

    def __init__(self, device: FakeDevice, nbytes: int, pointer: int) -> None:
        self.nbytes = nbytes
        self.pointer = pointer
        self.memory = np.zeros(nbytes, np.uint8)
        self.freed = 0
        self._device = device

    def upload(self, array: np.ndarray) -> None:
        assert not self.freed
        assert self._device.depth > 0, "the context is not current"
        assert array.nbytes <= self.nbytes
        assert array.flags.c_contiguous
        self._device.pending.append((self, array))

    def free(self) -> None:
        self.freed += 1


class FakeDevice:
    """The protocol ``Device``, counting: what was allocated, what is still queued, how deep the context is pushed."""

    def __init__(self, memory: int = 1 << 20, first: int = 0x7F0000000000) -> None:
        self.facts = FACTS
        self.stream = 1
        self.depth = 0
        self.buffers: list[FakeBuffer] = []
        self.pending: list[tuple[FakeBuffer, np.ndarray]] = []
        self._memory = memory
        self._next = first

    @contextlib.contextmanager
    def current(self) -> Iterator[None]:
        self.depth += 1
        try:
            yield
        finally:
            self.depth -= 1

    def allocate(self, nbytes: int) -> FakeBuffer:
        assert nbytes > 0, "CUDA gives no buffer of 0 bytes"
        if nbytes > self._memory - sum(buffer.nbytes for buffer in self.live):
            raise DeviceError(f"out of device memory: asked for {nbytes} bytes", nbytes)
        self.buffers.append(FakeBuffer(self, nbytes, self._next))
        self._next += 1 << 12
        return self.buffers[-1]

    def synchronize(self) -> None:
        queued, self.pending = self.pending, []
        for buffer, array in queued:
            content = np.frombuffer(array.tobytes(), np.uint8)
            buffer.memory[: content.size] = content

    def close(self) -> None:
        assert not self.live

    @property
    def live(self) -> list[FakeBuffer]:
        return [buffer for buffer in self.buffers if not buffer.freed]

    def read(self, pointer: int, like: np.ndarray) -> np.ndarray:
        """Return what TensorRT would find at an address."""
        (buffer,) = [b for b in self.live if b.pointer == pointer]
        return np.frombuffer(buffer.memory.tobytes()[: like.nbytes], like.dtype).reshape(like.shape)


def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have NVIDIA's packages, and what imports them, imported anew."""
    for name in list(sys.modules):
        if name in NEED_TENSORRT or name.partition(".")[0] in PACKAGES:
            monkeypatch.delitem(sys.modules, name)


def hide(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make NVIDIA's packages missing, whether they are installed or not."""

    class Nowhere:
        @staticmethod
        def find_spec(name: str, *_: object) -> None:
            package = name.partition(".")[0]
            if package in PACKAGES:
                raise ModuleNotFoundError(f"No module named {package!r}", name=package)

    forget(monkeypatch)
    monkeypatch.setattr(sys, "meta_path", [Nowhere, *sys.meta_path])


def tensorrt(version: str = "10.16.1.11", *, calibrators: bool = True, **names: Any) -> ModuleType:
    """Return a module like TensorRT's, as far as importing ours needs it."""
    module = ModuleType("tensorrt")
    levels = ("INTERNAL_ERROR", "ERROR", "WARNING", "INFO", "VERBOSE")
    severity = SimpleNamespace(**{level: number for number, level in enumerate(levels)})
    module.__version__ = version
    module.ILogger = type("ILogger", (), {"Severity": severity})
    module.TensorIOMode = SimpleNamespace(INPUT="input", OUTPUT="output")
    module.LayerInformationFormat = SimpleNamespace(JSON="json")
    if calibrators:
        module.IInt8EntropyCalibrator2 = type("IInt8EntropyCalibrator2", (), {})
        module.IInt8MinMaxCalibrator = type("IInt8MinMaxCalibrator", (), {})
    vars(module).update(names)
    return module


@contextlib.contextmanager
def installed(module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Have a fake TensorRT installed; what was imported over it is forgotten afterwards."""
    with monkeypatch.context() as patch:
        forget(patch)
        patch.setitem(sys.modules, "tensorrt", module)
        try:
            yield
        finally:
            package = sys.modules.get("trtcalib.trt")
            for name in NEED_TENSORRT:
                sys.modules.pop(name, None)
                vars(package or SimpleNamespace()).pop(name.rpartition(".")[2], None)


class FakeEngine:
    """An engine that is asked for its layers and its inputs."""

    def __init__(self, layers: str, inputs: Mapping[str, Sequence[Sequence[int]]]) -> None:
        self.layers = layers
        self.inputs = inputs
        self.num_io_tensors = len(inputs) + 1
        self.set: dict[str, tuple[int, ...]] = {}

    def get_tensor_name(self, index: int) -> str:
        return [*self.inputs, "out"][index]

    def get_tensor_mode(self, name: str) -> str:
        return "input" if name in self.inputs else "output"

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        low, _, high = self.inputs[name]
        return tuple(a if a == b else -1 for a, b in zip(low, high, strict=True))

    def get_tensor_profile_shape(self, name: str, profile: int) -> Sequence[Sequence[int]]:
        assert profile == 0
        return self.inputs[name]

    def create_execution_context(self) -> Any:
        return SimpleNamespace(set_input_shape=self.set.__setitem__)

    def create_engine_inspector(self) -> Any:
        return SimpleNamespace(execution_context=None, get_engine_information=lambda kind: self.layers)


class FakeCudaError(Exception):
    pass


def pycuda(count: int = 1, fault: str | None = None) -> dict[str, ModuleType]:
    """Return modules like PyCUDA's; ``fault`` is what the driver says when it is initialised."""

    class Device:
        def __init__(self, index: int) -> None:
            self.index = index

        @staticmethod
        def count() -> int:
            return count

        def compute_capability(self) -> tuple[int, int]:
            return (9, 0)

        def name(self) -> str:
            return f"Fake GPU {self.index}"

        def total_memory(self) -> int:
            return 80 << 30

    def init() -> None:
        if fault is not None:
            raise FakeCudaError(fault)

    package, driver = ModuleType("pycuda"), ModuleType("pycuda.driver")
    vars(driver).update(Error=FakeCudaError, Device=Device, init=init, get_driver_version=lambda: 12040)
    package.driver = driver
    return {"pycuda": package, "pycuda.driver": driver}
