"""An FP32 engine on the device, whose inputs and outputs are counted where they lie."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trtcalib.errors import DeviceError, EngineError
from trtcalib.trt.buffers import Device, DeviceBuffer
from trtcalib.trt.histograms import DeviceArray, DeviceHistograms
from trtcalib.trt.input_profile import InputProfile
from trtcalib.trt.require import import_tensorrt, numpy_dtype

__all__ = ["ObservedRun"]


class ObservedRun:
    """One engine with its buffers and histograms; a context manager that frees them.

    Args:
        engine: TensorRT's.
        device: Where it runs.
        profile: What batches look like.
        model: What errors name.

    Attributes:
        nbytes: Bytes of a batch of each output; those whose size depends on the data are left out.
        endless: Those.
        histograms: Of what is observed, after :meth:`observe`.

    Raises:
        DeviceError: If memory is not enough for an execution context.
        EngineError: If TensorRT does not take the shapes.
    """

    histograms: DeviceHistograms
    _engine: Any
    _context: Any

    def __init__(self, engine: Any, device: Device, profile: InputProfile, model: Path) -> None:
        self._engine, self._context = engine, None
        self._device = device
        self._profile = profile
        self._model = model
        self._buffers: dict[str, DeviceBuffer] = {}
        self._arrays: list[DeviceArray] = []
        try:
            with device.current():
                self._context = self._new_context()
            shapes = {name: tuple(self._context.get_tensor_shape(name)) for name in self._outputs()}
        except BaseException:
            self.close()
            raise
        self.endless = [name for name, shape in shapes.items() if min(shape, default=0) < 0]
        known = {name: shape for name, shape in shapes.items() if name not in self.endless}
        self._shapes: dict[str, tuple[int, ...]] = {**profile.shapes, **known}
        self.nbytes = {name: self._bytes_of(name) for name in known}

    def observe(self, inputs: Sequence[str]) -> None:
        """Allocate everything, and count all outputs and some inputs from now on.

        Raises:
            DeviceError: If memory is not enough.
        """
        for name in self._shapes:
            is_input = name in self._profile.shapes
            self._buffers[name] = self._device.allocate(max(self._bytes_of(name), 1), copies=is_input)
            self._context.set_tensor_address(name, self._buffers[name].pointer)
        observed = [*inputs, *self.nbytes]
        self._arrays = [
            DeviceArray(self._buffers[name].pointer, _count(self._shapes[name]), self._dtype(name)) for name in observed
        ]
        self.histograms = DeviceHistograms(self._device, observed)

    def add(self, label: str, feed: Mapping[str, NDArray[Any]]) -> None:
        """Run one batch and count what it gives.

        Raises:
            ActivationError: If a tensor holds NaN.
            CalibrationError: If the batch does not have the profile's shapes.
            EngineError: If TensorRT reports a failure.
        """
        with self._device.current():
            for name in self._profile.shapes:
                array = self._profile.prepare(name, feed[name])
                # An FP16 input takes in the engine what calibrators are handed as float32.
                self._buffers[name].upload(array.astype(self._dtype(name), copy=False))
            if not self._context.execute_async_v3(self._device.stream):
                raise EngineError(self._model, f"TensorRT cannot run batch {label}: {_last_error()}")
            self.histograms.add(label, self._arrays)

    def close(self) -> None:
        """Free everything."""
        with self._device.current():
            self._device.synchronize()  # after a failure something may still be under way
            if hasattr(self, "histograms"):
                self.histograms.free()
            buffers, self._buffers = self._buffers, {}
            for buffer in buffers.values():
                buffer.free()
            self._context = self._engine = None

    def __enter__(self) -> ObservedRun:  # noqa: PYI034 - Self is Python 3.11's
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def _new_context(self) -> Any:
        context = self._engine.create_execution_context()
        if context is None:
            raise DeviceError(f"TensorRT makes no execution context: {_last_error()}", 0)
        for name, shape in self._profile.shapes.items():
            if not context.set_input_shape(name, shape):
                raise EngineError(self._model, f"TensorRT does not take {shape} for {name!r}: {_last_error()}")
        return context

    def _outputs(self) -> list[str]:
        output = import_tensorrt().TensorIOMode.OUTPUT
        names = [self._engine.get_tensor_name(i) for i in range(self._engine.num_io_tensors)]
        return [name for name in names if self._engine.get_tensor_mode(name) == output]

    def _dtype(self, name: str) -> np.dtype[Any]:
        return numpy_dtype(name, self._engine.get_tensor_dtype(name))

    def _bytes_of(self, name: str) -> int:
        return _count(self._shapes[name]) * self._dtype(name).itemsize


def _count(shape: tuple[int, ...]) -> int:
    return int(np.prod(shape, dtype=np.int64))


def _last_error() -> str:
    from trtcalib.trt.callbacks import tensorrt_log

    return tensorrt_log().last_error or "it gives no reason"
