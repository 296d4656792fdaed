"""Acceptance: the whole way from model and data to the scales that TensorRT itself wrote."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from trtcalib import calibrate
from trtcalib.core.cache import parse_cache
from trtcalib.core.scale import ulp_distance

CASES = ("lenet_mnist_trt7202", "add_scalar_trt8204", "add_scalar_trt100001", "qwen3_rotary_trt10300")

MOST_ULP = 8
"""GPU and CPU sums differ: the real scales were seen up to 6 ULP away."""

BIT_EXACT = ("add_scalar_trt8204", "add_scalar_trt100001")


def samples(folder: Path) -> np.ndarray:
    arrays = np.load(folder / "inputs.npz")
    if "images" in arrays:
        return (arrays["images"][:, np.newaxis] / np.float32(255)).astype(np.float32)
    return next(iter(arrays.values()))


@pytest.mark.golden
@pytest.mark.parametrize("case", CASES)
def test_every_row_of_a_real_cache_is_reproduced(golden: Path, case: str) -> None:
    folder = golden / case
    meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
    written = parse_cache((folder / "golden.cache").read_bytes()).scales
    result = calibrate(folder / "model.onnx", samples(folder), batch_size=meta["batch_size"])
    assert meta["reproduction"]
    for row in meta["reproduction"]:
        name = row["onnx_tensor"]
        assert result.clips[result.origins[name]].bin_m == row["m"], name
        distance = ulp_distance(result.scales[name], written[row["cache_name"]])
        assert distance <= (0 if case in BIT_EXACT else MOST_ULP), name


@pytest.mark.golden
def test_pools_inherit_as_in_the_real_cache(golden: Path) -> None:
    folder = golden / "lenet_mnist_trt7202"
    result = calibrate(folder / "model.onnx", samples(folder), batch_size=50)
    assert result.origins["pool1"] == "conv1"
    assert result.scales["pool1"] == result.scales["conv1"]
    assert result.scales["pool2"] == result.scales["conv2"]


@pytest.mark.golden
@pytest.mark.parametrize("batch_size", [1, 25])
def test_another_batch_size_gives_other_scales(golden: Path, batch_size: int) -> None:
    folder = golden / "lenet_mnist_trt7202"
    right = calibrate(folder / "model.onnx", samples(folder), batch_size=50).scales
    other = calibrate(folder / "model.onnx", samples(folder), batch_size=batch_size).scales
    assert other != right
