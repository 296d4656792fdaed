"""Calibrations by NVIDIA ModelOpt, in an environment of its own: ``modelopt_int8.py ANSWER.json MODEL.onnx DATA.npz METHOD OUTPUT.onnx``.

It answers through a file, since ModelOpt and ONNX Runtime write to stdout and stderr.
"""

from __future__ import annotations

import json
import sys
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np

WEIGHTED = ["Conv", "ConvTranspose", "MatMul", "Gemm"]


def main(answer: Path, model: str, data: str, method: str, output: str) -> None:
    """Calibrate on one sample at a time, quantize, and write how long it took and what went wrong."""
    from modelopt.onnx.quantization import quantize

    with np.load(data) as file:
        arrays = dict(file)
    shapes = ",".join(f"{name}:{'x'.join(map(str, (1, *array.shape[1:])))}" for name, array in arrays.items())
    found: dict[str, object] = {"version": version("nvidia-modelopt")}
    wall, cpu = time.perf_counter(), time.process_time()
    try:
        quantize(
            model,
            quantize_mode="int8",
            calibration_data=arrays,
            calibration_shapes=shapes,
            calibration_method=method,
            calibration_eps=["cpu"],
            op_types_to_quantize=WEIGHTED,
            high_precision_dtype="fp32",
            output_path=output,
        )
    except Exception as error:
        found["error"] = f"{type(error).__name__}: {error}"
    found |= {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
    answer.write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
