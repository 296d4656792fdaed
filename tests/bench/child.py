"""One calibration or study in a process of its own: ``child.py trtcalib|study|sensitivity|onnxruntime PICTURES WORKERS [--collect-only]``; prints JSON.

A process of its own, because peak memory is a process's and never falls, and because a first call compiles or loads.
"""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from models import MODELS, feeds, model_path

MODEL = MODELS["yolo"]


def main(tool: str, pictures: int, workers: int, *, search: bool) -> None:
    """Calibrate YOLOv8n by entropy, pictures made one at a time, and print seconds, peak memory and tensors."""
    import onnxruntime  # noqa: F401 - all tools need it: outside the timing

    list(feeds(MODEL, 1))  # decodes the pictures
    start = time.perf_counter()
    with contextlib.redirect_stdout(sys.stderr):
        if tool == "study":
            found = _study(pictures, workers)
        elif tool == "sensitivity":
            found = _sensitivity(pictures, workers)
        elif tool == "trtcalib":
            found = _trtcalib(pictures, workers)
        else:
            found = _onnxruntime(pictures, search=search)
    taken = time.perf_counter() - start
    json.dump({"seconds": taken, "peak_mb": peak_mb(), **found}, sys.stdout)


def _study(pictures: int, workers: int) -> dict[str, Any]:
    """Return the number of tensors and of configurations: the default batch sizes that differ."""
    from trtcalib import study

    with tempfile.TemporaryDirectory() as folder:
        result = study(model_path(MODEL), lambda: feeds(MODEL, pictures), Path(folder, "study"), workers=workers)
    return {"tensors": len(result.tensors), "configurations": len(result.configurations)}


def _sensitivity(pictures: int, workers: int) -> dict[str, Any]:
    """Return the number of nodes."""
    from trtcalib import Task, measure_sensitivity

    task = Task(model=model_path(MODEL), data=lambda: feeds(MODEL, pictures), metric="sqnr", workers=workers)
    with tempfile.TemporaryDirectory() as folder:
        result = measure_sensitivity(task, Path(folder, "sensitivity"))
    return {"nodes": len(result.layers)}


def _trtcalib(pictures: int, workers: int) -> dict[str, Any]:
    """Return the number of tensors, and the seconds of a second search over the same histograms (calibrate() holds one)."""
    from trtcalib import calibrate, solve

    result = calibrate(model_path(MODEL), lambda: feeds(MODEL, pictures), "entropy", workers=workers)
    start = time.perf_counter()
    solve(result, "entropy")
    return {"tensors": len(result.amax), "search": time.perf_counter() - start}


def _onnxruntime(pictures: int, *, search: bool) -> dict[str, Any]:
    """Return the number of tensors, and the seconds of the search."""
    from onnxruntime.quantization import calibrate

    class Reader(calibrate.CalibrationDataReader):  # type: ignore[misc]  # untyped
        def __init__(self) -> None:
            self._feeds: Iterator[Any] = feeds(MODEL, pictures)

        def get_next(self) -> Any:
            return next(self._feeds, None)

    with tempfile.TemporaryDirectory() as folder:
        calibrator = calibrate.create_calibrator(
            str(model_path(MODEL)),
            None,
            augmented_model_path=str(Path(folder, "augmented.onnx")),
            calibrate_method=calibrate.CalibrationMethod.Entropy,
            extra_options={"num_bins": 2048, "num_quantized_bins": 128, "symmetric": False},
        )
        calibrator.collect_data(Reader())
        start = time.perf_counter()
        tensors = len(list(calibrator.compute_data().keys())) if search else 0
        return {"tensors": tensors, "search": time.perf_counter() - start}


def peak_mb() -> float:
    """Return this process's peak resident memory; not getrusage's, which a child inherits from its parent on Linux."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 1024


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), search="--collect-only" not in sys.argv)
