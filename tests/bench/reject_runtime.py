"""ONNX Runtime's part of docs/side-by-side.md: quantization by a table of ranges, and running a Q/DQ model on the CPU."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from tests.bench.reject_cells import MODEL, OUTPUT, short
from trtcalib.core.cache import CalibrationCache

__all__ = ["as_runtime_table", "quantize_by_runtime", "run_in_runtime"]


def as_runtime_table(cache: CalibrationCache, path: Path) -> None:
    """Write scales as ``onnxruntime.quantization`` saves ranges: -amax to amax per tensor, NaN and infinity as Python's JSON has them."""
    amax = {name: float(scale) * 127 for name, scale in cache.scales.items()}
    data = {
        name: {"CLS": "TensorData", "lowest": _number(-value), "highest": _number(value)}
        for name, value in amax.items()
    }
    method = {"CLS": "CalibrationMethod", "value": "CalibrationMethod.MinMax"}
    table = {"CLS": "TensorsData", "calibration_method": method, "data": data, "smooth_quant": False}
    path.write_text(json.dumps(table), encoding="utf-8")


def _number(value: float) -> dict[str, Any]:
    return {"data": value, "dtype": "float32", "CLS": "numpy.array"}


def quantize_by_runtime(table: Path) -> str:
    """Return ``success`` or the error of ONNX Runtime's quantize_static, symmetric int8 and weights per channel."""
    try:
        from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    except ImportError:
        return "missing"
    quiet = io.StringIO()
    try:
        with contextlib.redirect_stdout(quiet), contextlib.redirect_stderr(quiet):
            quantize_static(
                MODEL,
                OUTPUT,
                None,
                quant_format=QuantFormat.QDQ,
                activation_type=QuantType.QInt8,
                weight_type=QuantType.QInt8,
                per_channel=True,
                op_types_to_quantize=["Conv"],
                extra_options={"ActivationSymmetric": True},
                calibration_cache_path=table,
            )
    except Exception as error:
        return short(f"{type(error).__name__}: {error}")
    return "success"


def run_in_runtime(proto: onnx.ModelProto) -> str:
    """Load and run a model in ONNX Runtime on the CPU."""
    try:
        import onnxruntime
    except ImportError:
        return "missing"
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        return short(f"does not load: {error}")
    random = np.random.default_rng(1)
    feeds = {each.name: random.normal(size=each.shape).astype(np.float32) for each in session.get_inputs()}
    try:
        (result,) = session.run(None, feeds)
    except Exception as error:
        return short(f"loads, does not run: {error}")
    return "loads and runs" + ("" if np.isfinite(result).all() else "; NaN or infinity in its output")
