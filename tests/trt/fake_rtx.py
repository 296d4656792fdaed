"""Stands in for TensorRT-RTX: a network that is put together by hand, and bindings that do what the name of the model's file says."""

from __future__ import annotations

import enum
import os
import signal
import sys
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

KINDS = (  # noqa: SIM905 - a list of words
    "ACTIVATION CAST CONCATENATION CONDITIONAL_INPUT CONSTANT CONVOLUTION DECONVOLUTION DEQUANTIZE EINSUM GATHER IDENTITY MATRIX_MULTIPLY "
    "POOLING QUANTIZE RESIZE SHUFFLE SLICE SQUEEZE UNSQUEEZE"
).split()

LayerType = enum.Enum("LayerType", KINDS)
PoolingType = enum.Enum("PoolingType", "MAX AVERAGE")
MatrixOperation = enum.Enum("MatrixOperation", "NONE TRANSPOSE VECTOR")
DataType = enum.Enum("DataType", "FLOAT INT8 FP8 INT4")
ComputeCapability = enum.Enum(
    "ComputeCapability", {"NONE": 0, "CURRENT": 1, "SM75": 75, "SM80": 80, "SM86": 86, "SM89": 89, "SM120": 120}
)


class Tensor:
    def __init__(self, name: str, shape: tuple[int, ...] | None, dtype: Any = DataType.FLOAT) -> None:
        self.name, self._shape, self.dtype, self.is_shape_tensor = name, shape, dtype, False

    @property
    def shape(self) -> tuple[int, ...]:
        if self._shape is None:
            raise ValueError("__len__() should return >= 0")  # what the bindings do where the rank is not known
        return self._shape


class ILayer:
    """As the bindings hand layers out: of the base class, until their class is set."""

    def __init__(self, kind: str, name: str, inputs: list[Any], output: Tensor, **facts: Any) -> None:
        self._kind, self.name, self._inputs, self._output, self._facts = LayerType[kind], name, inputs, output, facts
        self.metadata = f"[ONNX Layer: {facts['node']}]" if "node" in facts else ""
        self.num_inputs, self.num_outputs = len(inputs), 1

    @property
    def type(self) -> Any:
        return self._kind

    def get_input(self, i: int) -> Any:
        return self._inputs[i] if i < len(self._inputs) else None

    def get_output(self, i: int) -> Tensor:
        return self._output


class IDequantizeLayer(ILayer):
    axis = property(lambda self: self._facts.get("axis", 1))


class IConstantLayer(ILayer):
    weights = property(lambda self: self._facts["values"])


class IShuffleLayer(ILayer):
    first_transpose = property(lambda self: self._facts.get("first", tuple(range(8))))
    second_transpose = property(lambda self: self._facts.get("second", tuple(range(8))))


class IPoolingLayer(ILayer):
    type = property(lambda self: self._facts["pooling"])


class IMatrixMultiplyLayer(ILayer):
    op0 = property(lambda self: self._facts.get("op0", MatrixOperation.NONE))
    op1 = property(lambda self: self._facts.get("op1", MatrixOperation.NONE))


class IEinsumLayer(ILayer):
    equation = property(lambda self: self._facts["equation"])


class Network:
    """Layers in the order in which they were added."""

    def __init__(self) -> None:
        self.layers: list[ILayer] = []
        self.inputs: list[Tensor] = []

    def input(self, name: str, *shape: int) -> Tensor:
        self.inputs.append(Tensor(name, shape))
        return self.inputs[-1]

    def add(self, kind: str, inputs: list[Any], shape: tuple[int, ...] | None, **facts: Any) -> Tensor:
        name = facts.pop("name", f"{kind.lower()}_{len(self.layers)}")
        output = Tensor(f"{name}_output", shape, facts.pop("dtype", DataType.FLOAT))
        self.layers.append(ILayer(kind, name, inputs, output, **facts))
        return output

    def constant(self, name: str, values: Any, dtype: Any = DataType.FLOAT) -> Tensor:
        values = np.asarray(values)
        return self.add("CONSTANT", [], values.shape, name=name, dtype=dtype, values=values)

    def quantized(self, tensor: Tensor, scale: Any = 0.05, *, name: str = "sx", axis: int = 1) -> Tensor:
        """Return a tensor behind a QuantizeLinear and a DequantizeLinear; ``scale`` may be a tensor."""
        if not isinstance(scale, Tensor):
            scale = self.constant(name, np.float32(scale))
        integers = self.add("QUANTIZE", [tensor, scale], tensor._shape, dtype=DataType.INT8, axis=axis)
        return self.add("DEQUANTIZE", [integers, scale], tensor._shape, axis=axis)

    def weights(self, shape: tuple[int, ...], axis: int, dtype: Any = DataType.INT8) -> Tensor:
        """Return int8 weights behind a DequantizeLinear with a scale per channel of an axis."""
        scale = self.constant("sw", np.full(shape[axis], 0.02, np.float32))
        return self.add("DEQUANTIZE", [self.constant("w", np.ones(shape), dtype), scale], shape, axis=axis)

    num_layers = property(lambda self: len(self.layers))
    num_inputs = property(lambda self: len(self.inputs))

    def get_layer(self, i: int) -> ILayer:
        return self.layers[i]

    def get_input(self, i: int) -> Tensor:
        return self.inputs[i]


class ILogger:
    Severity = enum.Enum("Severity", "INTERNAL_ERROR ERROR WARNING INFO VERBOSE")


class Builder:
    def __init__(self, log: Any) -> None:
        self.log = log

    def create_network(self, flags: int) -> Network:
        self.network = Network()
        return self.network

    def create_builder_config(self) -> Any:
        return SimpleNamespace(
            set_compute_capability=lambda wanted, i: wanted.value != 1, add_optimization_profile=lambda profile: 0
        )

    def create_optimization_profile(self) -> Any:
        return SimpleNamespace(set_shape=lambda *shapes: None)

    def build_serialized_network(self, network: Network, config: Any) -> Any:
        assert config.num_compute_capabilities == 1
        match _WANTED:
            case "reject":
                self.log.log(ILogger.Severity.ERROR, "catchCudaError: no driver")
                self.log.log(ILogger.Severity.ERROR, "this cannot\nbe built")
                return None
            case "crash":
                os.kill(os.getpid(), signal.SIGSEGV)
            case "hang":
                time.sleep(600)
            case "leave":
                os.write(2, b"first line\nthe last word\n")
                os._exit(7)
        said = "Float" if _WANTED == "told-float" else "Int8"
        if _WANTED.startswith("told"):
            listing = (
                f"Layers:\nName: k, LayerType: correlation, Inputs: [ {{ Datatype: {said}, }}], Constants: [ {{ Datatype: {said}, }}], "
                "Outputs: [ {  }], TacticName: , StreamId: 0, Metadata: [ONNX Layer: conv]"
            )
            self.log.log(ILogger.Severity.VERBOSE, listing)
        return memoryview(bytes(1000))


class OnnxParser:
    def __init__(self, network: Network, log: Any) -> None:
        self.network, self.log, self.errors = network, log, []

    def parse_from_file(self, path: str) -> bool:
        global _WANTED  # noqa: PLW0603 - what the builder is to do
        _WANTED = Path(path).stem
        os.write(1, b"the library prints what it likes\n")
        match _WANTED:
            case "refuse":
                self.errors = [
                    _Error("conv", "Conv", "false"),
                    _Error("", "Relu", "Assertion failed:\nno\ncatchCudaError [35]"),
                ]
                return False
            case "crash-early":
                os.kill(os.getpid(), signal.SIGSEGV)
            case "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            case "warn":
                self.log.log(ILogger.Severity.WARNING, "something is taken for something else")
            case "chatty":
                for i in range(5000):
                    self.log.log(ILogger.Severity.WARNING, str(i).ljust(5000, "x"))
            case "raise":
                raise RuntimeError("odd")
        x = self.network.input("x", -1 if _WANTED == "free" else 1, 4, 8, 8)
        scale = self.network.add("ACTIVATION", [x], (), name="s") if "crash" in _WANTED else 0.05
        data = x if _WANTED == "float" else self.network.quantized(x, scale)
        self.network.add(
            "CONVOLUTION", [data, self.network.weights((4, 4, 1, 1), 0)], (-1, 4, 8, 8), name="conv", node="conv"
        )
        return True

    num_errors = property(lambda self: len(self.errors))

    def get_error(self, i: int) -> Any:
        return self.errors[i]


class _Error:
    def __init__(self, name: str, operator: str, text: str) -> None:
        self.node_name, self.node_operator, self.desc, self.node = (
            (lambda: name),
            (lambda: operator),
            (lambda: text),
            (lambda: 3),
        )


_WANTED = ""


def bindings() -> ModuleType:
    """Return this module as the bindings."""
    module = sys.modules[__name__]
    module.__version__ = "1.7.1.116"  # type: ignore[attr-defined]
    module.ProfilingVerbosity = SimpleNamespace(DETAILED=1)  # type: ignore[attr-defined]
    return module


PACKAGE = "import sys\nfrom tests.trt.fake_rtx import bindings\nsys.modules[__name__] = bindings()\n"
"""What a file ``tensorrt_rtx_bindings.py`` holds that is this fake."""
