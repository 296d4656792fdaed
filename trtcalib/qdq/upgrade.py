"""A model that may be rewritten: a copy, at an opset that has the Q/DQ nodes that are wanted; or the reason why there is none."""

from __future__ import annotations

from collections.abc import Iterator

import onnx

from trtcalib.errors import MissingPackageError, ModelError
from trtcalib.onnx_graph import QDQ_OPERATORS, ModelGraph
from trtcalib.onnx_tensors import subgraphs
from trtcalib.qdq.lean import with_weights, without_weights
from trtcalib.qdq.wiring import is_standard, opset_of
from trtcalib.spec_files import brief

__all__ = ["FIRST_HALF_OPSET", "FIRST_OPSET", "rewritable"]

FIRST_OPSET = 13
"""The first with per-channel QuantizeLinear and DequantizeLinear."""

FIRST_HALF_OPSET = 23
"""The first whose DequantizeLinear gives float16 from a float32 scale (``output_dtype``). Before, the scale itself would have to be
float16, and no longer be the cache's."""

_QOPERATORS = frozenset(
    {
        "QLinearConv",
        "QLinearMatMul",
        "ConvInteger",
        "MatMulInteger",
        "DynamicQuantizeLinear",
        "QLinearAdd",
        "QLinearMul",
        "QLinearAveragePool",
        "QLinearGlobalAveragePool",
        "QLinearConcat",
        "QLinearLeakyRelu",
        "QLinearSigmoid",
        "QLinearSoftmax",
        "QGemm",
    }
)
"""Operators of integers: ONNX's own and those of ONNX Runtime."""

_NEW_SCAN = 9
"""The opset in which Scan lost its batch axis; ONNX's converter (1.23) takes the axis from the model's inputs and outputs."""

_ASIDE = "trtcalib.aside"
"""Domain under which operators that ONNX does not know stand while its converter runs, which refuses unknown ones."""


def rewritable(model: ModelGraph, opset: int = FIRST_OPSET) -> onnx.ModelProto:
    """Return a copy of a float model at the given opset or a later one.

    Raises:
        ModelError: If the model is broken or quantized already, or ONNX cannot convert it.
        MissingPackageError: If the installed ONNX is too old for that opset.
    """
    for node in model.proto.graph.node:
        if not node.output:
            raise ModelError(model.path, f"{node.op_type} {brief(node.name)} has no output: the graph is broken")
    _refuse_quantized(model)
    was = opset_of(model.proto)
    if was >= opset:
        proto = onnx.ModelProto()
        proto.CopyFrom(model.proto)
        return proto
    if was == 0:
        raise ModelError(model.path, "it states no opset of ONNX's own operators: there is nothing to quantize")
    if onnx.defs.onnx_opset_version() < opset:
        raise MissingPackageError("onnx", f"a version that knows opset {opset} is needed: pip install -U onnx")
    return _converted(model, was, opset)


def _refuse_quantized(model: ModelGraph) -> None:
    for node in _all_nodes(model.proto):
        if node.op_type in QDQ_OPERATORS:
            raise ModelError(
                model.path,
                f"the model holds Q/DQ nodes already ({node.op_type} {brief(node.name)}): convert the float model that it was made from",
            )
        if node.op_type in _QOPERATORS:
            raise ModelError(
                model.path,
                f"the model is quantized already ({node.op_type} {brief(node.name)}), in a form that TensorRT does not take: convert the "
                "float model that it was made from",
            )


def _all_nodes(proto: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    for graph in (proto.graph, *subgraphs(proto.graph)):
        yield from graph.node
    for function in proto.functions:
        yield from function.node


def _converted(model: ModelGraph, was: int, opset: int) -> onnx.ModelProto:
    """Run ONNX's converter on the model without its weights."""
    slim, weights = without_weights(model.proto)
    slim.ir_version = max(slim.ir_version, 4)
    aside = _set_aside(slim)
    try:
        problem = _old_scan(slim, was)
        proto = slim if problem else onnx.version_converter.convert_version(slim, opset)
        if problem is None and _is_valid(slim) and not _is_valid(proto):
            problem = "what comes of it is not valid"
    except Exception as error:
        problem = (str(error).splitlines() or [""])[0][:300]
    if problem is not None:
        raise ModelError(
            model.path,
            f"opset {was} is too old: {opset} is needed, and ONNX {onnx.__version__} cannot convert the model to it ({problem}); export it "
            f"again with opset {opset} or later",
        )
    for node in proto.graph.node:
        if node.domain == _ASIDE:
            node.domain = aside
    if not proto.functions:  # the converter drops them
        proto.functions.extend(model.proto.functions)
    stated = [entry for entry in proto.opset_import if entry.domain != _ASIDE]
    del proto.opset_import[:]
    proto.opset_import.extend(stated)
    known = {entry.domain for entry in stated}
    proto.opset_import.extend(e for e in model.proto.opset_import if e.domain not in known and e.domain != "ai.onnx")
    return with_weights(proto, weights, {info.name for info in model.proto.graph.input})


def _old_scan(proto: onnx.ModelProto, was: int) -> str | None:
    """Return what is wrong with converting a model's Scan nodes; ``None`` where nothing is."""
    if was < _NEW_SCAN and any(node.op_type == "Scan" for node in _all_nodes(proto)):
        return f"Scan had a batch axis before opset {_NEW_SCAN}, and the converted model's inputs would have none"
    return None


def _is_valid(proto: onnx.ModelProto) -> bool:
    """Whether ONNX's checker takes a model; some conversions leave attributes as they were."""
    try:
        onnx.checker.check_model(proto, full_check=True)
    except Exception:
        return False
    return True


def _set_aside(slim: onnx.ModelProto) -> str:
    """Give nodes of ONNX's domain that ONNX does not know, TensorRT's plugins, a domain of their own; return the one they had."""
    domain = ""
    for node in slim.graph.node:
        if is_standard(node) and not onnx.defs.has(node.op_type):
            domain = node.domain
            node.domain = _ASIDE
    slim.opset_import.append(onnx.helper.make_opsetid(_ASIDE, 1))
    return domain
