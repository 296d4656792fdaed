"""The builder's list of an engine's layers, as it stands in the log."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trtcalib.trt.builder_words import told_precisions

CONVOLUTION = (
    "Name: node_of_y_myl0_1, LayerType: correlation, Inputs: [ { Name: a, Dimensions: [1,4,8,8], Datatype: Int8, Format: (Linear) Row major }], "
    "Constants: [ { Name: w, Dimensions: [4,4,1,1], Datatype: Int8, Format: (Linear) }, { Name: s, Dimensions: [1,4,1,1], Datatype: Float, "
    "Format: (Linear) }], Outputs: [ { Name: c, Dimensions: [1,4,8,8], Datatype: Float, Format: (Linear) }], TacticName: __myelin_CASK_STUB, "
    "StreamId: 0, Metadata: [ONNX Layer: y]\x1f[ONNX Layer: xd]\x1f[ONNX Layer: wd]"
)
"""As TensorRT-RTX 1.7.1 writes it, strides left out."""


def told(*lines: str, nodes: tuple[str, ...] = ("y",)) -> dict[str, bool]:
    return told_precisions("\n".join(["Layers:", *lines, "", "I/O Tensors:"]), nodes)


def test_a_convolution_with_int8_operands_takes_int8() -> None:
    assert told(CONVOLUTION) == {"y": True}


def test_weights_may_be_an_input() -> None:
    moved = CONVOLUTION.replace(
        "Row major }]", "Row major }, { Name: v, Dimensions: [4], Datatype: Float, Format: (Linear) }]"
    )
    assert told(moved) == {"y": False}


@pytest.mark.parametrize("place", [1, 2])
def test_one_float_operand_makes_it_float(place: int) -> None:
    parts = CONVOLUTION.split("Datatype: Int8")
    assert told("Datatype: Int8".join(parts[:place]) + "Datatype: Float" + "Datatype: Int8".join(parts[place:])) == {
        "y": False
    }


@pytest.mark.parametrize("kind", ["kgen", "maxpool", "memset"])
def test_other_kinds_of_layers_tell_nothing(kind: str) -> None:
    assert told(CONVOLUTION.replace("correlation", kind)) == {}


def test_a_fusion_tells_float_only() -> None:
    fused = CONVOLUTION.replace("correlation", "runtime_fusion")
    assert told(fused) == {}
    assert told(fused.replace("Datatype: Int8", "Datatype: Float")) == {"y": False}


def test_a_node_in_two_layers_takes_float_if_one_does() -> None:
    in_float = CONVOLUTION.replace("Int8", "Float")
    assert told(CONVOLUTION, in_float) == told(in_float, CONVOLUTION) == {"y": False}


def test_only_weighted_nodes_are_told_of() -> None:
    assert told(CONVOLUTION, nodes=("xd", "other")) == {"xd": True}


@given(st.text())
def test_whatever_else_it_says_is_no_error(text: str) -> None:
    assert told(text) == {}


def test_long_lines_take_no_time() -> None:
    assert told("Name: , LayerType: gemm, Inputs: [" * 20_000) == {}
