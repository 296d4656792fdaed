"""The embedded sample, whole: calibrated, converted, and still right; and how long a conversion takes."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import onnx
import pytest

import trtcalib
from tests.qdq.graphs import cache, graph, needs_opset_23, run
from trtcalib.core.cache import parse_cache
from trtcalib.files import sample_folder
from trtcalib.onnx_graph import read_model
from trtcalib.qdq.convert import convert
from trtcalib.qdq.prepared import QdqOptions

DIGITS = sample_folder() / "digits"

LARGEST_LOSS = 0.005
"""Of top-1, as a share of all images."""

LONGEST = 2.0
"""Seconds for 300 nodes."""


def top1(proto: onnx.ModelProto) -> float:
    images = np.load(DIGITS / "validation-images.npy")
    labels = np.load(DIGITS / "validation-labels.npy")
    name = proto.graph.input[0].name
    spec = proto.graph.input[0].type.tensor_type.shape.dim[0]
    assert spec.dim_value in (0, 1), "a batch that is not free"
    prepared = images.astype(np.float32).reshape(len(images), 1, *images.shape[-2:]) / np.float32(images.max())
    (logits,) = run(proto, {name: prepared}, optimised=True)
    return float((logits.argmax(axis=1) == labels).mean())


@pytest.mark.parametrize("recipe", ["entropy", "percentile-99.99"])
@pytest.mark.parametrize(
    "options",
    [
        QdqOptions(),
        QdqOptions(int8_weights=True),
        pytest.param(QdqOptions(half=True, target="onnxruntime"), marks=needs_opset_23),
    ],
    ids=["float weights", "int8 weights", "float16"],
)
def test_top1_is_within_half_a_point(recipe: str, options: QdqOptions) -> None:
    result = trtcalib.calibrate(DIGITS / "model.onnx", sample_folder() / "digits-calibration.yaml", recipe)
    model = read_model(DIGITS / "model.onnx")
    single = top1(model.proto)
    assert single > 0.95
    quantized = convert(model, result.scales, options)
    assert quantized.coverage.share == 1
    assert quantized.coverage.residuals == 1
    assert quantized.coverage.stale == []
    assert top1(quantized.proto) >= single - LARGEST_LOSS


def test_three_hundred_nodes_take_less_than_two_seconds(tmp_path: Path) -> None:
    """75 convolutions of 64 channels, each with a BatchNormalization, a skip connection and a Relu."""
    lines, scales, last = [], {"x": 1 / 16}, "x"
    for index in range(75):
        lines.append(f"c{index} = Conv<pads=[1,1,1,1]>({last}, w{index})")
        lines.append(f"n{index} = BatchNormalization(c{index}, g, h, m, v)")
        lines.append(f"s{index} = Add(n{index}, {last})")
        lines.append(f"r{index} = Relu(s{index})")
        last = f"r{index}"
        scales[last] = 1 / 16
    declared = ", ".join(f"float[64,64,3,3] w{index}" for index in range(75))
    ones = ", ".join(["1"] * 64)
    text = (
        f"g (float[1,64,8,8] x) => (float[1,64,8,8] {last}) <{declared}, float[64] g = {{{ones}}}, float[64] h = {{{ones}}}, "
        f"float[64] m = {{{ones}}}, float[64] v = {{{ones}}}> {{ {' '.join(lines)} }}"
    )
    model = graph(tmp_path, text)
    assert len(model.proto.graph.node) == 300
    start = time.perf_counter()
    result = convert(model, cache(scales), QdqOptions(int8_weights=True))
    took = time.perf_counter() - start
    assert (result.coverage.quantized, result.coverage.residuals, len(result.coverage.folded)) == (75, 75, 75)
    assert took < LONGEST, f"{took:.2f} s"


def test_a_cache_that_tensorrt_wrote(golden: Path) -> None:
    """LeNet with the scales of TensorRT 7.2.2: every weighted node, and the very bits of the cache."""
    folder = golden / "lenet_mnist_trt7202"
    scales = parse_cache((folder / "golden.cache").read_bytes()).scales
    result = convert(read_model(folder / "model.onnx"), scales, QdqOptions())
    assert (result.coverage.quantized, result.coverage.weighted) == (4, 4)
    assert result.coverage.matched == ["data", "pool1", "pool2", "ip1"]
    made = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in result.proto.graph.initializer}
    used = {node.input[0]: made[node.input[1]] for node in result.proto.graph.node if node.op_type == "QuantizeLinear"}
    assert {name: used[name].tobytes() for name in ("data", "pool1", "ip1")} == {
        name: scales[name].tobytes() for name in ("data", "pool1", "ip1")
    }
    assert used["flat"].tobytes() == scales["pool2"].tobytes()
