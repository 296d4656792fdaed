"""Small models that TensorRT-RTX must accept, must reject, or runs in float, each with one trait; and those that crash it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from trtcalib.errors import SpecError
from trtcalib.trt.conformance import COMPUTE_CAPABILITIES, check_model
from trtcalib.trt.conformance_values import Conformance

CORPUS = Path(__file__).parent / "corpus"

UNTOLD = {"conv_1d", "quantized_output", "quantized_scalar"}
"""Accepted models of which the builder's list tells nothing: no weighted layer, or a kernel that says nothing of its inputs."""


def model(name: str) -> onnx.ModelProto:
    proto = onnx.parser.parse_model((CORPUS / f"{name}.onnxtxt").read_text(encoding="utf-8"))
    onnx.checker.check_model(proto)
    return proto


def names(folder: str) -> list[str]:
    found = sorted(file.stem for file in (CORPUS / folder).glob("*.onnxtxt"))
    assert found
    return found


def says(proto: onnx.ModelProto) -> str:
    """Return what must be said of a model, which its metadata holds."""
    (entry,) = proto.metadata_props
    assert entry.key == "says"
    return entry.value


def said(result: Conformance) -> str:
    reasons = [reason for node in result.nodes for reason in node.reasons]
    return "\n".join(
        [*result.parser_faults, *result.parser_warnings, *reasons, *(build.reason for build in result.builds)]
    )


@pytest.mark.parametrize("name", names("accepted"))
def test_is_accepted_with_int8_inputs(check, name):
    result = check(model(f"accepted/{name}"))
    assert result.passed, said(result)
    assert result.tensorrt_rtx_version == "1.7.1.116"
    (build,) = result.builds
    assert build.told_int8 == (None if name in UNTOLD else 1)
    assert build.engine_bytes > 0


@pytest.mark.parametrize("name", names("rejected"))
def test_is_rejected_with_the_reason(check, name):
    proto = model(f"rejected/{name}")
    result = check(proto)
    assert not result.accepted
    assert says(proto) in said(result)


@pytest.mark.parametrize("name", names("float"))
def test_is_accepted_and_said_to_run_in_float(check, name):
    """By the rules, and where the builder lists the layer, in its own words too."""
    proto = model(f"float/{name}")
    result = check(proto)
    assert result.accepted
    assert not result.passed
    assert says(proto) in said(result)
    (build,) = result.builds
    assert build.told_float or build.told_int8 is None
    assert set(build.told_float) <= {node.node for node in result.in_float}


@pytest.mark.parametrize("name", names("crash"))
def test_crashes_and_the_reason_is_named(check, name):
    proto = model(f"crash/{name}")
    result = check(proto)
    assert result.parser == "accepted"
    assert [build.outcome for build in result.builds] == ["crashed"]
    assert says(proto) in said(result)


@pytest.mark.parametrize(
    "name",
    ["accepted/conv", "accepted/gemm", "float/wrong_axis_conv", "float/scale_of_shape_1", "float/conv_transpose"],
)
def test_every_capability_is_told_the_same_of(check, name):
    builds = check(model(name), *COMPUTE_CAPABILITIES).builds
    assert [build.compute_capability for build in builds] == [80, 86, 89, 120]
    assert {build.told_int8 for build in builds} == {int(name.startswith("accepted"))}


def test_turing_runs_a_quantized_convolution_in_float_and_that_fails(check):
    result = check(model("accepted/conv"), 75)
    assert result.accepted
    assert not result.in_float
    assert result.builds[0].told_float == ("node_of_y",)
    assert not result.passed


@pytest.mark.parametrize("tensor", ["sx", "sw"])
@pytest.mark.parametrize(("value", "reason"), [(np.nan, "must all be positive"), (np.inf, "is infinite")])
def test_scales_that_are_no_numbers(check, tensor, value, reason):
    """TensorRT-RTX takes an infinite scale, and the rules do not."""
    proto = model("accepted/conv")
    for initializer in proto.graph.initializer:
        if initializer.name == tensor:
            values = np.array(onnx.numpy_helper.to_array(initializer))
            values[...] = value
            initializer.CopyFrom(onnx.numpy_helper.from_array(values, tensor))
    result = check(proto)
    assert not result.passed
    assert reason in said(result)


def test_a_capability_that_it_does_not_have(check):
    with pytest.raises(
        SpecError, match=r"TensorRT-RTX 1\.7\.1\.116 does not build for 90; it builds for 75, 80, 86, 89, 120, 121"
    ):
        check(model("accepted/conv"), 86, 90)


def test_external_data_is_found_beside_the_model(tmp_path):
    file = tmp_path / "odd näme.onnx"
    proto = model("accepted/conv")
    for initializer in proto.graph.initializer:  # what ONNX text holds is not raw, and only raw data can be external
        initializer.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(initializer), initializer.name))
    options = {
        "save_as_external_data": True,
        "location": "weights.bin",
        "size_threshold": 0,
        "convert_attribute": False,
    }
    onnx.save_model(proto, file, **options)
    assert (tmp_path / "weights.bin").stat().st_size > 0
    assert check_model(file, compute_capabilities=(89,)).passed


def test_odd_node_names_are_found_again(check):
    proto = model("accepted/conv")
    proto.graph.node[-1].name = 'we]ird | [ONNX Layer: x]\n\x1b[31m"é'
    result = check(proto)
    assert result.passed
    assert [(node.node, node.operator) for node in result.nodes] == [(proto.graph.node[-1].name, "Conv")]


def test_two_nodes_of_one_name_are_rejected(check):
    proto = model("accepted/conv")
    for node in proto.graph.node:
        node.name = "same"
    result = check(proto)
    assert result.parser == "rejected"
    assert "already in use" in said(result)
