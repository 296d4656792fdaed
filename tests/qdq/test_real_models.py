"""Networks that people run, from packages of the ``bench`` extra: converted whole, and what INT8 costs them in ONNX Runtime."""

from __future__ import annotations

from dataclasses import replace
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import numpy as np
import onnx
import pytest

import trtcalib
from tests.bench.models import MODELS, Model, feeds, model_path
from tests.qdq.graphs import run
from trtcalib.onnx_graph import read_model
from trtcalib.qdq.convert import convert
from trtcalib.qdq.prepared import QdqOptions

CLS = replace(
    MODELS["rec"],
    title="PP-OCR cls",
    file="rapidocr_onnxruntime/models/ch_ppocr_mobile_v2.0_cls_infer.onnx",
    size=(48, 192),
)

CASES = {
    "yolo": (MODELS["yolo"], 64, 0, 30.0),
    "rec": (MODELS["rec"], 51, 4, 40.0),
    "det": (replace(MODELS["det"], size=(320, 320)), 64, 0, 40.0),
    "cls": (CLS, 54, 7, 25.0),
}
"""Model, its weighted nodes, its skip Adds, and the peak signal over the noise, in dB, that INT8 must leave."""

PICTU0 = 4


def path_of(model: Model) -> Path:
    for package in (model.package, "scikit-image"):
        try:
            path = model_path(replace(model, package=package))
        except PackageNotFoundError:
            pytest.skip(f"{package} is not installed: pip install '.[bench]'")
    path = model_path(model)
    assert path.is_file()
    return path


def decibels(exact: np.ndarray, found: np.ndarray) -> float:
    """Return the peak signal over the noise. A peak of at least 1: det gives probabilities, which are all near 0 on a picture without text."""
    noise = np.square(found.astype(np.float64) - exact).mean()
    return float(10 * np.log10(max(1.0, float(np.abs(exact).max())) ** 2 / noise)) if noise else np.inf


@pytest.mark.parametrize("name", CASES)
def test_every_weighted_node_is_quantized(name: str) -> None:
    source, weighted, residuals, least = CASES[name]
    path = path_of(source)
    pictures = list(feeds(source, PICTU0))
    scales = trtcalib.calibrate(path, lambda: iter(pictures), "entropy", batch_size=2).scales
    model = read_model(path)
    exact = run(model.proto, pictures[0])
    sizes = []
    for options in (
        QdqOptions(),
        QdqOptions(int8_weights=True),
        QdqOptions(half=True, int8_weights=True, target="onnxruntime"),
    ):
        result = convert(model, scales, options)
        onnx.checker.check_model(result.proto, full_check=True)
        assert [node.reason for node in result.coverage.nodes if not node.quantized] == []
        assert (result.coverage.quantized, result.coverage.weighted) == (weighted, weighted)
        assert result.coverage.residuals == residuals
        assert result.coverage.macs_share == 1
        noise = [decibels(a, b) for a, b in zip(exact, run(result.proto, pictures[0]), strict=True)]
        assert min(noise) > least - (5 if options.half else 0)
        sizes.append(result.proto.ByteSize())
    assert max(sizes[1:]) < 0.45 * sizes[0]
