"""NVIDIA's real TensorRT-RTX, without a GPU: skipped with a reason where it is not installed, failing instead under TRTCALIB_REQUIRE_RTX=1."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest

from trtcalib.trt.conformance import check_model
from trtcalib.trt.conformance_values import Conformance


@pytest.fixture(scope="session", autouse=True)
def rtx() -> None:
    """See that it is there; the processes that the tests start import it, this one does not."""
    if importlib.util.find_spec("tensorrt_rtx_bindings") is None:
        reason = "TensorRT-RTX is not installed: pip install 'trtcalib[rtx]', or make test-rtx"
        if os.environ.get("TRTCALIB_REQUIRE_RTX") == "1":
            pytest.fail(f"TRTCALIB_REQUIRE_RTX=1, but {reason}")
        pytest.skip(reason)


@pytest.fixture
def check(tmp_path: Path) -> Callable[..., Conformance]:
    """Check a model, for SM89 unless others are named."""

    def run(model: onnx.ModelProto, *capabilities: int) -> Conformance:
        onnx.save_model(model, tmp_path / "model.onnx")
        return check_model(tmp_path / "model.onnx", compute_capabilities=capabilities or (89,), timeout=120)

    return run
