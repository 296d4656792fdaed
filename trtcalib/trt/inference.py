"""Load an engine and run it on batches. An engine is executable: load only what you built, or trust as you trust a program."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trtcalib.errors import DataError, EngineError, SpecError
from trtcalib.manifest import manifest_path, read_engine_manifest
from trtcalib.onnx_graph import ModelInput
from trtcalib.trt.buffers import Device, DeviceBuffer
from trtcalib.trt.require import import_tensorrt, numpy_dtype

__all__ = ["LoadedEngine", "Outputs", "load_engine"]

logger = logging.getLogger(__name__)

WARNING = "%s: engines are executable: TensorRT runs what is in them, so load only those that you built or trust"

_warned: set[str] = set()
"""Engines that were warned of in this process."""


@dataclass(frozen=True, slots=True)
class Outputs:
    """What one batch gave.

    Attributes:
        arrays: By output name.
        seconds: Wall time of copying the inputs in, running, and copying the outputs out.
    """

    arrays: Mapping[str, NDArray[Any]]
    seconds: float


def load_engine(path: Path | str) -> Any:
    """Return TensorRT's engine in a file, with a warning, once, that this is like starting a program.

    Raises:
        EngineError: If the file cannot be read, or TensorRT does not take it: it was built by another version or for another GPU.
    """
    path = Path(path)
    trt = import_tensorrt()
    from trtcalib.trt.callbacks import tensorrt_log

    try:
        content = path.read_bytes()
    except OSError as error:
        raise EngineError(path, f"cannot be read: {error.strerror}") from error
    if not content:
        raise EngineError(path, "is empty")
    if str(path.resolve()) not in _warned:
        _warned.add(str(path.resolve()))
        logger.warning(WARNING, path)
    log = tensorrt_log()
    with log.recording():
        try:
            runtime = trt.Runtime(log)
            core = _dla_core(path)
            if core is not None:
                runtime.DLA_core = core
            engine = runtime.deserialize_cuda_engine(content)
        except Exception as error:  # a runtime that could not be made
            raise EngineError(path, f"TensorRT cannot load engines here: {log.last_error or error}") from error
        if engine is None:
            raise EngineError(path, _refusal(path, str(trt.__version__), log.last_error))
    return engine


def _dla_core(path: Path) -> int | None:
    """Return the DLA core that an engine was built for, as its manifest says; the engine itself does not keep it."""
    try:
        core = read_engine_manifest(manifest_path(path)).settings.get("dla")
    except SpecError:
        return None
    return core if isinstance(core, int) else None


def _last_error() -> str:
    from trtcalib.trt.callbacks import tensorrt_log

    return tensorrt_log().last_error or "it gives no reason"


def _refusal(path: Path, version: str, said: str) -> str:
    """Say why TensorRT may not have taken an engine; its manifest tells what it was built with."""
    reason = f"TensorRT {version} does not take it ({said or 'it gives no reason'})"
    try:
        built = read_engine_manifest(manifest_path(path))
    except SpecError:  # it is missing or damaged, and was only to explain
        return f"{reason}: an engine runs only on the TensorRT version and the kind of GPU that it was built with; build it here"
    return (
        f"{reason}: it was built by TensorRT {built.tensorrt_version} on {built.device.name} (compute capability "
        f"{built.device.compute_capability}), and runs only there; build it here from {built.model.path}"
    )


class LoadedEngine:
    """An engine on a device, ready to run; use it as a context manager.

    Attributes:
        path: The file.
        inputs: What it takes; free axes are ``None``.
        opt_batch: The batch that it was tuned for.
    """

    def __init__(self, path: Path | str, device: Device) -> None:
        trt = import_tensorrt()
        self.path = Path(path)
        self._device = device
        self._engine = load_engine(path)
        names = [self._engine.get_tensor_name(i) for i in range(self._engine.num_io_tensors)]
        is_input = {name: self._engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT for name in names}
        self._outputs = [name for name in names if not is_input[name]]
        self.inputs = tuple(self._input(name) for name in names if is_input[name])
        self._dtypes = {name: numpy_dtype(name, self._engine.get_tensor_dtype(name)) for name in names}
        self._context = self._engine.create_execution_context()
        if self._context is None:
            raise EngineError(self.path, f"TensorRT makes no execution context: {_last_error()}")
        self._buffers: dict[str, DeviceBuffer] = {}

    @property
    def opt_batch(self) -> int:
        """The first axis of the first input in the first profile's kOPT shape; 1 where there is none."""
        for wanted in self.inputs:
            shape = self._range(wanted.name)[1]
            if shape:
                return int(shape[0])
        return 1

    @property
    def smallest_batch(self) -> int:
        """The first axis of the first input in the first profile's kMIN shape; 1 where there is none."""
        for wanted in self.inputs:
            shape = self._range(wanted.name)[0]
            if shape:
                return int(shape[0])
        return 1

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the outputs."""
        return tuple(self._outputs)

    def run(self, feed: Mapping[str, NDArray[Any]]) -> Outputs:
        """Run one batch.

        Raises:
            DataError: If a shape is outside the engine's profile.
            DeviceError: If device memory is not enough.
            EngineError: If TensorRT reports a failure.
        """
        for wanted in self.inputs:
            shape = feed[wanted.name].shape
            if not self._context.set_input_shape(wanted.name, shape):
                low, _, high = self._range(wanted.name)
                raise DataError(
                    str(self.path), f"input {wanted.name!r} has shape {shape}, the engine takes {low} to {high}"
                )
        shapes = {name: tuple(self._context.get_tensor_shape(name)) for name in self._outputs}
        endless = [name for name, shape in shapes.items() if min(shape, default=0) < 0]
        if endless:
            raise EngineError(
                self.path, f"the size of output {endless[0]!r} depends on the data, which is not supported"
            )
        # ascontiguousarray would give a single number an axis.
        arrays = {i.name: np.asarray(feed[i.name], order="C") for i in self.inputs}
        results = {name: np.empty(shape, self._dtypes[name]) for name, shape in shapes.items()}
        with self._device.current():
            for name, array in {**arrays, **results}.items():
                buffer = self._buffer(name, array.nbytes)
                self._context.set_tensor_address(name, buffer.pointer)
            started = time.perf_counter()
            for name, array in arrays.items():
                self._buffers[name].upload(array)
            if not self._context.execute_async_v3(self._device.stream):
                raise EngineError(self.path, f"TensorRT cannot run the batch: {_last_error()}")
            for name, array in results.items():
                self._buffers[name].download(array)
            self._device.synchronize()
        return Outputs(results, time.perf_counter() - started)

    def close(self) -> None:
        """Free device memory, context and engine."""
        buffers, self._buffers = self._buffers, {}
        for buffer in buffers.values():
            buffer.free()
        with self._device.current():
            self._context = self._engine = None

    def __enter__(self) -> LoadedEngine:  # noqa: PYI034 - Self is Python 3.11's
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def _buffer(self, name: str, nbytes: int) -> DeviceBuffer:
        """Return a buffer that is large enough; a larger one takes the place of the one that was used before."""
        buffer = self._buffers.get(name)
        if buffer is None or buffer.nbytes < nbytes:
            if buffer is not None:
                buffer.free()
            buffer = self._buffers[name] = self._device.allocate(max(nbytes, 1))
        return buffer

    def _input(self, name: str) -> ModelInput:
        if self._engine.is_shape_inference_io(name):
            raise EngineError(self.path, f"input {name!r} is a shape, not data, which is not supported")
        shape = tuple(size if size >= 0 else None for size in self._engine.get_tensor_shape(name))
        return ModelInput(name, numpy_dtype(name, self._engine.get_tensor_dtype(name)), shape)

    def _range(self, name: str) -> Sequence[tuple[int, ...]]:
        """Return min, opt and max of an input in the first profile."""
        return [tuple(shape) for shape in self._engine.get_tensor_profile_shape(name, 0)]
