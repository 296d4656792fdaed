"""Simulated execution contexts: shapes and addresses are checked as TensorRT does, and ONNX Runtime does the work."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from numpy.typing import NDArray

from tests.rig.simulated.abi import (
    BOOL,
    DIMS,
    DIMS_BY_REFERENCE,
    INT,
    INT64,
    OBJECT,
    POINTER,
    SIZE,
    TEXT,
    Simulated,
    address_of_text,
    method,
)

if TYPE_CHECKING:
    from tests.rig.simulated.record import Shape
    from tests.rig.simulated.runtime import CudaEngine

__all__ = ["NUMPY_TYPES", "ExecutionContext", "numpy_type"]

NUMPY_TYPES = {
    "FLOAT": np.float32,
    "HALF": np.float16,
    "INT8": np.int8,
    "UINT8": np.uint8,
    "INT32": np.int32,
    "INT64": np.int64,
    "BOOL": np.bool_,
}


class ExecutionContext(Simulated):
    """One caller's shapes and addresses of an engine's tensors."""

    TABLE = "VExecutionContext"

    def __init__(self, engine: CudaEngine) -> None:
        super().__init__(engine.simulation)
        self.engine = engine
        self.name = ""
        self.profile = 0
        self.flags: dict[str, Any] = {}
        self.shapes: dict[str, Shape] = {}
        self.addresses: dict[str, int] = {}
        self._output_shapes: tuple[dict[str, Shape], dict[str, Shape | None]] | None = None

    def missing(self) -> list[str]:
        """Return the inputs whose shape is not known yet."""
        return [name for name in self.engine.inputs if -1 in self.shape_of(name)]

    def shape_of(self, name: str) -> Shape:
        """Return the shape of an input or output, -1 where it is not known."""
        given = tuple(self.engine.tensors[name]["shape"] or ())
        if name in self.engine.inputs:
            return self.shapes.get(name, given)
        if -1 not in given or self.missing():
            return given
        return self._inferred().get(name) or given

    @method(OBJECT)
    def getEngine(self):
        return self.engine

    @method(TEXT)
    def getName(self):
        return self.name

    @method(None, TEXT)
    def setName(self, name):
        self.name = name

    @method(INT)
    def getOptimizationProfile(self):
        return self.profile

    @method(BOOL, INT, POINTER)
    def setOptimizationProfileAsync(self, index, stream):
        if not 0 <= index < self.engine.number_of_profiles:
            return self._fail(f"Optimization profile {index} is out of range [0, {self.engine.number_of_profiles})")
        self.profile = index
        self.shapes.clear()
        return True

    @method(BOOL, TEXT, DIMS_BY_REFERENCE)
    def setInputShape(self, name, shape):
        if name not in self.engine.inputs:
            return self._fail(f"Given invalid tensor name: {name}. Get valid tensor names with getIOTensorName()")
        smallest, largest = (self.engine.profile_shape(name, self.profile, which) for which in (0, 2))
        fits = len(shape) == len(smallest) and all(
            low <= extent <= high for low, extent, high in zip(smallest, shape, largest, strict=True)
        )
        if not fits:
            return self._fail(
                f"Set dimension {list(shape)} for tensor {name} does not satisfy any optimization profiles. "
                f"Valid range for profile {self.profile}: {list(smallest)}..{list(largest)}."
            )
        self.shapes[name] = shape
        return True

    @method(DIMS, TEXT)
    def getTensorShape(self, name):
        return self.shape_of(name) if name in self.engine.tensors else None

    @method(DIMS, TEXT)
    def getTensorStrides(self, name):
        shape = self.shape_of(name)
        return tuple(int(np.prod(shape[axis + 1 :])) for axis in range(len(shape)))

    @method(BOOL, TEXT, POINTER)
    def setTensorAddress(self, name, address):
        if name not in self.engine.tensors:
            return self._fail(f"Given invalid tensor name: {name}. Get valid tensor names with getIOTensorName()")
        self.addresses[name] = address
        return True

    @method(BOOL, TEXT, POINTER)
    def setInputTensorAddress(self, name, address):
        self.addresses[name] = address
        return name in self.engine.inputs

    @method(BOOL, TEXT, POINTER)
    def setOutputTensorAddress(self, name, address):
        self.addresses[name] = address
        return name in self.engine.tensors and name not in self.engine.inputs

    @method(POINTER, TEXT)
    def getTensorAddress(self, name):
        return self.addresses.get(name, 0)

    @method(POINTER, TEXT)
    def getOutputTensorAddress(self, name):
        return self.addresses.get(name, 0)

    @method(INT64, TEXT)
    def getMaxOutputSize(self, name):
        return self._bytes_of(name)

    @method(INT, INT, POINTER)
    def inferShapes(self, room, names):
        missing = self.missing()[:room]
        table = ctypes.cast(names, ctypes.POINTER(ctypes.c_void_p))
        for index, name in enumerate(missing):
            table[index] = address_of_text(name)
        return len(missing)

    @method(BOOL)
    def allInputDimensionsSpecified(self):
        return not self.missing()

    @method(BOOL)
    def allInputShapesSpecified(self):
        return True

    @method(None, POINTER)
    def setDeviceMemory(self, address):
        self.flags["device_memory"] = address

    @method(None, POINTER, INT64)
    def setDeviceMemoryV2(self, address, size):
        self.flags["device_memory"] = address

    @method(SIZE)
    def updateDeviceMemorySizeForShapes(self):
        return 0 if self.missing() else 1 << 20

    @method(None, BOOL)
    def setDebugSync(self, value):
        self.flags["debug_sync"] = value

    @method(BOOL)
    def getDebugSync(self):
        return self.flags.get("debug_sync", False)

    @method(None, POINTER)
    def setProfiler(self, profiler):
        self.flags["profiler"] = profiler

    @method(POINTER)
    def getProfiler(self):
        return self.flags.get("profiler", 0)

    @method(None, BOOL)
    def setEnqueueEmitsProfile(self, value):
        self.flags["enqueue_emits_profile"] = value

    @method(BOOL)
    def getEnqueueEmitsProfile(self):
        return self.flags.get("enqueue_emits_profile", True)

    @method(BOOL, POINTER)
    def enqueueV3(self, stream):
        # Real work is queued behind the copies on this stream, and behind those on no other.
        if self.simulation.knobs.wait_for_stream is not None:
            self.simulation.knobs.wait_for_stream(stream or 0)
        return self._run()

    @method(BOOL, POINTER)
    def executeV2(self, bindings):
        addresses = ctypes.cast(bindings, ctypes.POINTER(ctypes.c_void_p))
        self.addresses = {name: addresses[index] or 0 for index, name in enumerate(self.engine.tensors)}
        return self._run()

    def _run(self) -> bool:
        """Run the model on what lies at the addresses; false after an error that was logged."""
        if self.missing():
            return self._fail(f"The shapes of {', '.join(self.missing())} are not set")
        for name in self.engine.tensors:
            address, size = self.addresses.get(name, 0), self._bytes_of(name)
            if not address:
                return self._fail(f"Neither address or allocator is set for output tensor {name}.")
            if self.simulation.knobs.is_device is not None and not self.simulation.knobs.is_device(address, size):
                return self._fail(f"Cuda Runtime (an illegal memory access was encountered): {size} bytes of {name}")
        session = self.engine.session
        wanted = {each.name: numpy_type(each.type) for each in session.get_inputs()}
        feeds = {name: self._read(name).astype(wanted[name]) for name in self.engine.inputs}
        names = [each.name for each in session.get_outputs()]
        for name, values in zip(names, session.run(names, feeds), strict=True):
            content = np.ascontiguousarray(values, NUMPY_TYPES[self.engine.tensors[name]["dtype"]]).tobytes()
            ctypes.memmove(self.addresses[name], content, len(content))
        self.simulation.executions += 1
        return True

    def _bytes_of(self, name: str) -> int:
        itemsize = np.dtype(NUMPY_TYPES[self.engine.tensors[name]["dtype"]]).itemsize
        return max(0, int(np.prod(self.shape_of(name)))) * itemsize

    def _read(self, name: str) -> NDArray[Any]:
        content = ctypes.string_at(self.addresses[name], self._bytes_of(name))
        return np.frombuffer(content, NUMPY_TYPES[self.engine.tensors[name]["dtype"]]).reshape(self.shape_of(name))

    def _inferred(self) -> dict[str, Shape | None]:
        """Return the shapes of the outputs for the input shapes that are set."""
        if self._output_shapes is None or self._output_shapes[0] != self.shapes:
            model = onnx.load_model_from_string(self.engine.model)
            for info in model.graph.input:
                if info.name in self.shapes:
                    for dim, extent in zip(info.type.tensor_type.shape.dim, self.shapes[info.name], strict=True):
                        dim.dim_value = extent
            for info in [*model.graph.output, *model.graph.value_info]:
                info.type.tensor_type.ClearField("shape")
            inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
            shapes = {info.name: _known_shape(info) for info in inferred.graph.output}
            self._output_shapes = (dict(self.shapes), shapes)
        return self._output_shapes[1]

    def _fail(self, text: str) -> bool:
        self.engine.runtime.log("ERROR", text)
        return False


def _known_shape(info: onnx.ValueInfoProto) -> Shape | None:
    dims = info.type.tensor_type.shape.dim
    return tuple(dim.dim_value if dim.HasField("dim_value") else -1 for dim in dims) if dims else None


def numpy_type(text: str) -> Any:
    """Return the type that ONNX Runtime names ``tensor(float)``."""
    name = text.removeprefix("tensor(").removesuffix(")")
    return np.dtype({"float": "float32", "double": "float64"}.get(name, name))
