"""Broken graphs: the conversion answers with a result or with a sentence, and never with a traceback."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable
from functools import cache as cached
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.models import make_model
from tests.qdq.graphs import ACCEPTED, cache, fill_in
from trtcalib.errors import TrtcalibError
from trtcalib.onnx_graph import ModelGraph, read_model
from trtcalib.qdq.convert import convert
from trtcalib.qdq.names import propose_names
from trtcalib.qdq.prepared import PARTIAL_CHOICES, QdqOptions
from trtcalib.qdq.readback import scales_of

OPERATORS = (
    *("Conv", "ConvTranspose", "MatMul", "Gemm", "Add", "Relu", "Reshape", "Transpose", "BatchNormalization", "Clip"),
    *("Concat", "Cast", "Identity", "If", "Constant", "Sigmoid", "MaxPool", "Resize", "Pad"),
)

ATTRIBUTES = ("axis", "group", "transB", "to", "perm", "value", "mode", "epsilon", "output_dtype")


@cached
def protos() -> list[onnx.ModelProto]:
    return [fill_in(make_model(case.text)) for case in ACCEPTED.values()]


def node_inputs(node: Any, names: list[str], choice: random.Random) -> None:
    match choice.randrange(3):
        case 0 if node.input:
            node.input[choice.randrange(len(node.input))] = choice.choice(names)
        case 1 if node.input:
            del node.input[-1]
        case _:
            node.input.append(choice.choice(names))


def node_outputs(node: Any, names: list[str], choice: random.Random) -> None:
    if node.output and choice.random() < 0.7:
        node.output[choice.randrange(len(node.output))] = choice.choice(names)
    else:
        del node.output[:1]


def node_kind(node: Any, _names: list[str], choice: random.Random) -> None:
    node.op_type = choice.choice(OPERATORS)
    value = choice.choice([1, -5, 2.5, "x", [1, 0], [9]])
    node.attribute.append(onnx.helper.make_attribute(choice.choice(ATTRIBUTES), value))


def a_constant(graph: Any, choice: random.Random) -> None:
    if not graph.initializer:
        return
    tensor = choice.choice(graph.initializer)
    match choice.randrange(4):
        case 0:
            tensor.dims[:] = [choice.choice([0, 1, 2, 3, -1, 5]) for _ in range(choice.randrange(4))]
        case 1:
            tensor.data_type = choice.choice([0, 1, 2, 3, 6, 7, 8, 9, 10, 11, 16, 17, 21, 99])
        case 2:
            tensor.raw_data = choice.randbytes(choice.randrange(40))
        case _:
            graph.initializer.remove(tensor)


BREAKS: tuple[Callable[[Any, list[str], random.Random], None], ...] = (node_inputs, node_outputs, node_kind)


def broken(choice: random.Random) -> onnx.ModelProto:
    proto = onnx.ModelProto()
    proto.CopyFrom(choice.choice(protos()))
    names = [name for node in proto.graph.node for name in (*node.input, *node.output)] + [""]
    for _ in range(choice.randint(1, 4)):
        match choice.randrange(5):
            case 0 | 1 | 2:
                choice.choice(BREAKS)(choice.choice(proto.graph.node), names, choice)
            case 3:
                a_constant(proto.graph, choice)
            case _:
                proto.opset_import[0].version = choice.choice([0, 1, 7, 11, 13, 17, 22, 23, 99])
    return proto


@pytest.mark.skipif(
    onnx.defs.onnx_opset_version() < 23,
    reason="older versions of ONNX crash on broken graphs (1.15 in shape inference, on every command that reads a model)",
)
@given(seed=st.integers(0, 2**32 - 1), partial=st.sampled_from(PARTIAL_CHOICES), half=st.booleans(), int8=st.booleans())
@settings(max_examples=300)
def test_broken_graphs(tmp_path_factory: Any, seed: int, partial: str, half: bool, int8: bool) -> None:
    proto = broken(random.Random(seed))
    path = tmp_path_factory.getbasetemp() / "broken.onnx"
    path.write_bytes(proto.SerializeToString())
    names = [name for node in proto.graph.node for name in (*node.input, *node.output)]
    scales = cache({name: [1, 0, np.nan, -1][index % 4] for index, name in enumerate(names) if index % 3})
    with contextlib.suppress(TrtcalibError):
        model = read_model(path)
        propose_names(model, ["(Unnamed Layer* 3) [Convolution]_output", *names])
        result = convert(model, scales, QdqOptions(partial=partial, half=half, int8_weights=int8))
        if result.coverage.quantized:
            scales_of(ModelGraph(path=Path("q.onnx"), proto=result.proto, inputs=(), tensors=()))
