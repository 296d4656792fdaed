"""An ONNX model as TensorRT's network: parsed, with the shapes that it may have and the shape that it is calibrated at."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from trtcalib.batches import DEFAULT_BATCH_SIZE
from trtcalib.engine_spec import ShapeRange
from trtcalib.errors import InstalledTensorRTError, ModelError, SpecError
from trtcalib.onnx_graph import ModelGraph
from trtcalib.spec_files import nearest
from trtcalib.trt.input_profile import InputProfile
from trtcalib.trt.require import numpy_dtype

if TYPE_CHECKING:
    from trtcalib.trt.callbacks import TensorRTLog

__all__ = [
    "calibration_profile",
    "elementwise_inputs",
    "float_tensors",
    "has_qdq",
    "input_shapes",
    "no_qdq",
    "parse_network",
]

_MOST_FAULTS = 10


def parse_network(trt: Any, builder: Any, graph: ModelGraph, log: TensorRTLog, *, strongly_typed: bool = False) -> Any:
    """Return the network of a model.

    Args:
        trt: The module.
        builder: TensorRT's.
        graph: The model.
        log: What the parser says.
        strongly_typed: Whether the model's types are binding. From TensorRT 11 on they always are.

    Raises:
        InstalledTensorRTError: If this TensorRT has no strongly typed networks.
        ModelError: If TensorRT's parser refuses the model; it names node and operator.
    """
    network = builder.create_network(_creation_flags(trt, strongly_typed=strongly_typed))
    parser = trt.OnnxParser(network, log)
    # From the file, not from memory: external data is found beside it.
    if not parser.parse_from_file(str(graph.path)):
        faults = [_parser_fault(parser.get_error(i), graph) for i in range(min(parser.num_errors, _MOST_FAULTS))]
        raise ModelError(graph.path, f"TensorRT's parser refuses the model: {'; '.join(faults) or log.last_error}")
    return network


def _creation_flags(trt: Any, *, strongly_typed: bool) -> int:
    flags = trt.NetworkDefinitionCreationFlag
    # TensorRT 8.6 knows implicit batches too; 10 has explicit ones only and keeps the flag, 11 dropped it.
    wanted = 1 << int(flags.EXPLICIT_BATCH) if hasattr(flags, "EXPLICIT_BATCH") else 0
    if not strongly_typed:
        return wanted
    if not hasattr(flags, "STRONGLY_TYPED"):
        raise InstalledTensorRTError(
            trt.__version__,
            "has no strongly typed networks, which --qdq (builder.strongly_typed) asks for: leave it out to build the same Q/DQ "
            "nodes weakly typed, or install TensorRT 10 or 11",
        )
    # Where no flag chooses INT8, typing is always strong: 11's bindings call STRONGLY_TYPED deprecated and ignored.
    is_a_choice = hasattr(trt.BuilderFlag, "INT8")
    return wanted | (1 << int(flags.STRONGLY_TYPED) if is_a_choice else 0)


def _parser_fault(error: Any, graph: ModelGraph) -> str:
    index = int(error.node())
    nodes = graph.proto.graph.node
    known = nodes[index] if 0 <= index < len(nodes) else None
    # TensorRT 8.6 tells the node's position only.
    name = (error.node_name() if hasattr(error, "node_name") else "") or (known.name if known else "")
    operator = (error.node_operator() if hasattr(error, "node_operator") else "") or (known.op_type if known else "")
    where = f"node {name or f'number {index}'!r} ({operator}): " if operator else ""
    return f"{where}{str(error.desc()).strip()}"


def has_qdq(trt: Any, network: Any) -> bool:
    """Whether the network holds Q/DQ nodes; then TensorRT ignores every calibrator."""
    kinds = (trt.LayerType.QUANTIZE, trt.LayerType.DEQUANTIZE)
    return any(network.get_layer(i).type in kinds for i in range(network.num_layers))


def no_qdq(graph: ModelGraph) -> str:
    """Return why a model without Q/DQ nodes is not built strongly typed, and what to do."""
    return (
        "the model holds no QuantizeLinear/DequantizeLinear (Q/DQ) nodes, which --qdq (builder.strongly_typed) builds: convert it "
        f"first: trtcalib qdq {graph.path} CACHE -o OUT.onnx"
    )


def float_tensors(trt: Any, network: Any) -> Iterator[str]:
    """Yield the names of the tensors that can have a scale: floating-point inputs and layer outputs."""
    floats = (trt.float32, trt.float16)
    for i in range(network.num_inputs):
        if network.get_input(i).dtype in floats:
            yield str(network.get_input(i).name)
    for i in range(network.num_layers):
        layer = network.get_layer(i)
        for j in range(layer.num_outputs):
            tensor = layer.get_output(j)
            if tensor is not None and tensor.dtype in floats:
                yield str(tensor.name)


def elementwise_inputs(trt: Any, network: Any) -> Iterator[tuple[str, ...]]:
    """Yield the names of the floating-point inputs of each element-wise layer that has several."""
    floats = (trt.float32, trt.float16)
    for layer in (network.get_layer(i) for i in range(network.num_layers)):
        if layer.type == trt.LayerType.ELEMENTWISE:
            inputs = [tensor for j in range(layer.num_inputs) if (tensor := layer.get_input(j)) is not None]
            names = dict.fromkeys(str(tensor.name) for tensor in inputs if tensor.dtype in floats)
            if len(names) > 1:
                yield tuple(names)


def input_shapes(
    network: Any, given: Mapping[str, ShapeRange], batch_size: int | None, *, is_fixed: bool = False
) -> dict[str, ShapeRange]:
    """Return the shapes that each input may have: what was given, and the batch where only that is free.

    Args:
        network: TensorRT's.
        given: Per input.
        batch_size: The batch where only that is free.
        is_fixed: Whether each input must have one shape only, as on DLA.

    Raises:
        SpecError: With all faults: unknown inputs, wrong ranks or fixed sizes, free axes that nothing fixes.
    """
    inputs = [network.get_input(i) for i in range(network.num_inputs)]
    known = {tensor.name: tuple(tensor.shape) for tensor in inputs}
    faults = [
        f"{name}: the model has no such input{nearest(name, known)}; it has {', '.join(known)}"
        for name in given
        if name not in known
    ]
    shapes: dict[str, ShapeRange] = {}
    for tensor in inputs:
        name, shape = tensor.name, known[tensor.name]
        if tensor.is_shape_tensor:
            faults.append(
                f"{name}: this input is a shape, not data: TensorRT cannot calibrate such a model from batches"
            )
        elif name in given:
            shapes[name] = given[name]
            faults += _range_faults(name, shape, given[name])
            if is_fixed and given[name].min != given[name].max:
                faults.append(_moving_axes(name, given[name]))
        elif -1 not in shape[1:]:
            shapes[name] = _batch_range(shape, batch_size, is_fixed=is_fixed)
        else:
            faults.append(_free_axes(name, shape))
    if faults:
        raise SpecError("shapes", tuple(faults))
    return shapes


def _range_faults(name: str, shape: tuple[int, ...], wanted: ShapeRange) -> Iterator[str]:
    text = _text(shape)
    if len(wanted.opt) != len(shape):
        yield f"{name}: has {len(shape)} axes, {text}, but the shapes given have {len(wanted.opt)}"
        return
    for axis, size in enumerate(shape):
        sizes = {wanted.min[axis], wanted.opt[axis], wanted.max[axis]}
        if size != -1 and sizes != {size}:
            yield f"{name}: axis {axis} is fixed to {size} by the model, {text}, found {sorted(sizes)}"


def _moving_axes(name: str, wanted: ShapeRange) -> str:
    return (
        f"{name}: DLA takes one shape only, the same for min, opt and max, found {_text(wanted.min)} to {_text(wanted.max)}: "
        f"give --shapes {name}:{'x'.join(map(str, wanted.opt))}"
    )


def _batch_range(shape: tuple[int, ...], batch_size: int | None, *, is_fixed: bool) -> ShapeRange:
    if shape[:1] != (-1,):
        return ShapeRange(min=shape, opt=shape, max=shape)
    largest = (batch_size or DEFAULT_BATCH_SIZE, *shape[1:])
    return ShapeRange(min=largest if is_fixed else (1, *shape[1:]), opt=largest, max=largest)


def _free_axes(name: str, shape: tuple[int, ...]) -> str:
    example = "x".join(str(size if size != -1 else 8 if axis == 0 else 224) for axis, size in enumerate(shape))
    return f"{name}: axes are free besides the batch, {_text(shape)}: give --shapes {name}:MIN,OPT,MAX, such as {name}:{example}"


def _text(shape: tuple[int, ...]) -> str:
    return "[" + ", ".join("?" if size == -1 else str(size) for size in shape) + "]"


def calibration_profile(
    trt: Any, network: Any, shapes: Mapping[str, ShapeRange], batch_size: int | None
) -> InputProfile:
    """Return what batches must look like: kOPT, with another batch where one was asked for.

    Raises:
        SpecError: If the model fixes the batch to another size.
    """
    fixed: dict[str, tuple[int, ...]] = {}
    faults = []
    for i in range(network.num_inputs):
        tensor = network.get_input(i)
        name, opt = tensor.name, shapes[tensor.name].opt
        if batch_size is not None and opt and tuple(tensor.shape)[:1] == (-1,):
            opt = (batch_size, *opt[1:])
        elif batch_size is not None and opt and opt[0] != batch_size:
            faults.append(f"batch_size: found {batch_size}, but the model fixes the first axis of {name!r} to {opt[0]}")
        fixed[name] = opt
    if faults:
        raise SpecError("engine spec", tuple(faults))
    return InputProfile(
        fixed, {network.get_input(i).name: _dtype(trt, network.get_input(i)) for i in range(network.num_inputs)}
    )


def _dtype(trt: Any, tensor: Any) -> np.dtype[Any]:
    """Return what calibration takes: TensorRT calibrates in FP32, for FP16 inputs too."""
    if tensor.dtype in (trt.float32, trt.float16):
        return np.dtype(np.float32)
    return numpy_dtype(tensor.name, tensor.dtype)
