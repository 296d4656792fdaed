"""The simulated ONNX parser: a real model becomes a simulated network, or errors as the real parser tells them."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import TYPE_CHECKING

import onnx

from tests.rig.simulated.abi import BOOL, INT, OBJECT, POINTER, SIZE, TEXT, Simulated, method
from tests.rig.simulated.network import ConstantPart, Layer, NetworkDefinition, Tensor
from tests.rig.vtable import LoggerDriver

if TYPE_CHECKING:
    from tests.rig.simulated.record import Shape, Simulation

__all__ = ["Parser", "ParserError"]

_KINDS = {
    "ACTIVATION": "Relu Sigmoid Tanh LeakyRelu Elu Selu Softplus Softsign HardSigmoid Clip ThresholdedRelu",
    "CAST": "Cast",
    "CONCATENATION": "Concat",
    "CONSTANT": "Constant",
    "CONVOLUTION": "Conv",
    "DECONVOLUTION": "ConvTranspose",
    "DEQUANTIZE": "DequantizeLinear",
    "ELEMENTWISE": "Add Sub Mul Div Pow Max Min And Or Xor Equal Greater Less PRelu",
    "GATHER": "Gather GatherElements GatherND",
    "MATRIX_MULTIPLY": "MatMul Gemm",
    "NORMALIZATION": "InstanceNormalization GroupNormalization LayerNormalization",
    "POOLING": "MaxPool AveragePool GlobalMaxPool GlobalAveragePool",
    "QUANTIZE": "QuantizeLinear",
    "REDUCE": "ReduceMean ReduceSum ReduceMax ReduceMin ReduceProd ReduceL1 ReduceL2",
    "RESIZE": "Resize Upsample",
    "SCALE": "BatchNormalization",
    "SHAPE": "Shape",
    "SHUFFLE": "Reshape Transpose Flatten Squeeze Unsqueeze DepthToSpace SpaceToDepth",
    "SLICE": "Slice Pad Split Expand Tile",
    "SOFTMAX": "Softmax LogSoftmax",
    "TOPK": "TopK ArgMax ArgMin",
    "UNARY": "Exp Log Sqrt Reciprocal Abs Neg Sin Cos Erf Floor Ceil Round Not",
}
_KIND_OF_OPERATOR = {operator: kind for kind, operators in _KINDS.items() for operator in operators.split()}
_OTHER_KIND = "IDENTITY"
_TAKES_WEIGHTS = ("Conv", "ConvTranspose", "BatchNormalization", "InstanceNormalization")
"""Operators whose constants are weights of the layer and no tensors."""

_DATA_TYPES = {
    onnx.TensorProto.FLOAT: "FLOAT",
    onnx.TensorProto.DOUBLE: "FLOAT",
    onnx.TensorProto.FLOAT16: "HALF",
    onnx.TensorProto.BFLOAT16: "BF16",
    onnx.TensorProto.INT8: "INT8",
    onnx.TensorProto.UINT8: "UINT8",
    onnx.TensorProto.INT32: "INT32",
    onnx.TensorProto.INT64: "INT64",
    onnx.TensorProto.BOOL: "BOOL",
}


class ParserError(Simulated):
    """One thing that the parser could not do."""

    TABLE = "IParserError"

    def __init__(
        self, simulation: Simulation, code: str, text: str, index: int = -1, node: onnx.NodeProto | None = None
    ) -> None:
        super().__init__(simulation)
        self.kind = code
        self.text = text
        self.index = index
        self.name = node.name if node is not None else ""
        self.operator = node.op_type if node is not None else ""

    @method(INT)
    def code(self):
        return int(getattr(self.simulation.trt.ErrorCode, self.kind))

    @method(TEXT)
    def desc(self):
        return self.text

    @method(TEXT)
    def file(self):
        return "simulated.cpp"

    @method(INT)
    def line(self):
        return 1

    @method(TEXT)
    def func(self):
        return "parseNode"

    @method(INT)
    def node(self):
        return self.index

    @method(TEXT)
    def nodeName(self):
        return self.name

    @method(TEXT)
    def nodeOperator(self):
        return self.operator

    @method(INT)
    def localFunctionStackSize(self):
        return 0


class Parser(Simulated):
    """Reads ONNX models into one network."""

    TABLE = "IParser"

    def __init__(self, simulation: Simulation, network: NetworkDefinition, logger: int) -> None:
        super().__init__(simulation)
        self.network = network
        self.flags = 0
        self.errors: list[ParserError] = []
        self._logger = LoggerDriver(logger, simulation.major)

    @method(BOOL, POINTER, SIZE, TEXT)
    def parse(self, content, size, path):
        return self._parse(ctypes.string_at(content, size), Path(path).parent if path else None)

    @method(BOOL, TEXT, INT)
    def parseFromFile(self, path, verbosity):
        try:
            content = Path(path).read_bytes()
        except OSError:
            return self._fail("MODEL_DESERIALIZE_FAILED", f"Could not open file {path}")
        return self._parse(content, Path(path).parent)

    @method(BOOL, TEXT)
    def supportsOperator(self, name):
        return onnx.defs.has(name) and name not in self.simulation.knobs.unknown_operators

    @method(INT)
    def getNbErrors(self):
        return len(self.errors)

    @method(OBJECT, INT)
    def getError(self, index):
        return self.errors[index] if 0 <= index < len(self.errors) else None

    @method(None)
    def clearErrors(self):
        self.errors.clear()

    @method(None, INT)
    def setFlag(self, flag):
        self.flags |= 1 << flag

    @method(None, INT)
    def clearFlag(self, flag):
        self.flags &= ~(1 << flag)

    @method(BOOL, INT)
    def getFlag(self, flag):
        return bool(self.flags >> flag & 1)

    @method(None, INT)
    def setFlags(self, flags):
        self.flags = flags

    @method(INT)
    def getFlags(self):
        return self.flags

    def _fail(self, code: str, text: str, index: int = -1, node: onnx.NodeProto | None = None) -> bool:
        self.errors.append(ParserError(self.simulation, code, text, index, node))
        severity = self.simulation.trt.Logger.ERROR
        self.simulation.messages.append(("ERROR", text))
        self._logger.log(int(severity), text)
        return False

    def _parse(self, content: bytes, folder: Path | None) -> bool:
        """Fill the network; in the order of the real parser: read, look at every operator, then make layers."""
        try:
            model = onnx.load_model_from_string(content)
            if not model.graph.node and not model.graph.output:
                return self._fail("MODEL_DESERIALIZE_FAILED", "Failed to parse the ONNX model.")
            if any(onnx.external_data_helper.uses_external_data(tensor) for tensor in model.graph.initializer):
                onnx.external_data_helper.load_external_data_for_model(model, str(folder or Path()))
            inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
        except Exception as error:
            return self._fail("MODEL_DESERIALIZE_FAILED", f"Failed to parse the ONNX model: {error}")
        functions = {(function.domain, function.name) for function in model.functions}
        for index, node in enumerate(model.graph.node):
            if not self._is_known(node, functions):
                text = f"Plugin not found, are the plugin name, version, and namespace correct? Operator {node.op_type}"
                self._fail("UNSUPPORTED_NODE", text, index, node)
        if self.errors:
            return False
        _fill(self.network, model, inferred)
        return True

    def _is_known(self, node: onnx.NodeProto, functions: set[tuple[str, str]]) -> bool:
        if node.op_type in self.simulation.knobs.unknown_operators:
            return False
        if (node.domain, node.op_type) in functions:
            return True
        return node.domain in ("", "ai.onnx") and onnx.defs.has(node.op_type)


def _fill(network: NetworkDefinition, model: onnx.ModelProto, inferred: onnx.ModelProto) -> None:
    """Make tensors and layers of a model."""
    graph = inferred.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    infos = {info.name: info for info in [*graph.input, *graph.value_info, *graph.output]}
    tensors: dict[str, Tensor] = {}

    def tensor(name: str) -> Tensor:
        if name not in tensors:
            if name in constants:
                kind, shape = constants[name].data_type, tuple(constants[name].dims)
                tensors[name] = _new_tensor(network, name, kind, shape)
                network.layers.append(Layer(network.simulation, name, "CONSTANT", [], [tensors[name]]))
                _add_values(network.layers[-1], constants[name])
            else:
                tensors[name] = _new_tensor(network, name, *_type_and_shape(infos.get(name)))
        return tensors[name]

    network.model = model
    network.name = graph.name or network.name
    network.inputs = [tensor(info.name) for info in graph.input if info.name not in constants]
    for each in network.inputs:
        each.is_input = True
    for index, node in enumerate(graph.node):
        names = [name for name in node.input if name and not (name in constants and node.op_type in _TAKES_WEIGHTS)]
        inputs = [tensor(name) for name in names]
        kind = _KIND_OF_OPERATOR.get(node.op_type, _OTHER_KIND)
        name = node.name or f"(Unnamed Layer* {index}) [{node.op_type}]"
        outputs = [tensor(output) for output in node.output if output]
        network.layers.append(Layer(network.simulation, name, kind, inputs, outputs, _axis(node, constants)))
        for attribute in node.attribute:
            if kind == "CONSTANT" and attribute.name == "value":
                _add_values(network.layers[-1], attribute.t)
    network.outputs = [tensor(info.name) for info in graph.output]
    for each in network.outputs:
        each.is_output = True


def _add_values(layer: Layer, constant: onnx.TensorProto) -> None:
    values = onnx.numpy_helper.to_array(constant)
    layer.add_part(ConstantPart(layer.simulation, layer.outputs[0].dtype, values))


def _new_tensor(network: NetworkDefinition, name: str, kind: int, shape: Shape | None) -> Tensor:
    types = network.simulation.trt.DataType
    data_type = _DATA_TYPES.get(kind, "FLOAT")
    # TensorRT 8 has no 64-bit integers: its parser makes them 32 bits, network inputs included.
    dtype = getattr(types, data_type, None) or types.INT32
    return Tensor(network.simulation, name, int(dtype), shape)


def _type_and_shape(info: onnx.ValueInfoProto | None) -> tuple[int, Shape | None]:
    if info is None or not info.type.HasField("tensor_type"):
        return onnx.TensorProto.FLOAT, None
    kind = info.type.tensor_type
    if not kind.HasField("shape"):
        return kind.elem_type, None
    return kind.elem_type, tuple(dim.dim_value if dim.HasField("dim_value") else -1 for dim in kind.shape.dim)


def _axis(node: onnx.NodeProto, constants: dict[str, onnx.TensorProto]) -> int:
    """Return the axis of a Q/DQ node whose scale has a value per channel; -1 for all else."""
    if node.op_type not in ("QuantizeLinear", "DequantizeLinear") or len(node.input) < 2:
        return -1
    scale = constants.get(node.input[1])
    if scale is None or not scale.dims:
        return -1
    return next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 1)
