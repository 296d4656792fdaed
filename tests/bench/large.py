"""Section 6: a model over 2 GB with external data, made as a sparse file; peak memory beside plain inference's.

As a child process: ``large.py plain|trtcalib FOLDER``; prints JSON.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from child import peak_mb
from report import Section

__all__ = ["large_section"]

ROWS, COLUMNS = 24000, 23500
"""Shape of the one weight: 2.26 GB of float32, past protobuf's limit."""

WRITTEN = 100_000
"""Values at its start that are not zero; the rest of the file is a hole, which takes no disk."""


def large_section() -> Section:
    """Calibrate the model in a fresh process, after plain inference in another."""
    with tempfile.TemporaryDirectory() as folder:
        make_model(Path(folder))
        runs = {tool: _child(tool, folder) for tool in ("plain", "trtcalib")}
    rows = [
        ("plain inference", f"{runs['plain']['seconds']:.0f}", f"{runs['plain']['peak_mb']:.0f}", ""),
        (
            "trtcalib",
            f"{runs['trtcalib']['seconds']:.0f}",
            f"{runs['trtcalib']['peak_mb']:.0f}",
            f"{runs['trtcalib']['peak_mb'] - runs['plain']['peak_mb']:+.0f} MB",
        ),
    ]
    return Section(
        title="A model over 2 GB",
        setting=f"One MatMul with {ROWS * COLUMNS * 4 / 1e6:.0f} MB of weights in an external file, mostly a hole; 4 samples, "
        "a fresh process each. ONNX Runtime maps the file and keeps a repacked copy of the weights in both.",
        columns=("what", "seconds", "peak MB", "over plain"),
        rows=rows,
        facts=runs,
    )


def make_model(folder: Path) -> None:
    """Write the model and its weights."""
    weight = onnx.TensorProto(name="w", data_type=onnx.TensorProto.FLOAT, dims=[ROWS, COLUMNS])
    weight.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", "w.bin"), ("offset", "0"), ("length", str(ROWS * COLUMNS * 4))):
        weight.external_data.add(key=key, value=value)
    x = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["N", ROWS])
    y = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["N", COLUMNS])
    graph = onnx.helper.make_graph([onnx.helper.make_node("MatMul", ["x", "w"], ["y"])], "large", [x], [y], [weight])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    with (folder / "w.bin").open("wb") as file:
        file.write(np.random.default_rng(0).normal(size=WRITTEN).astype(np.float32).tobytes())
        file.truncate(ROWS * COLUMNS * 4)


def _child(tool: str, folder: str) -> dict[str, Any]:
    from processes import environment

    command = [sys.executable, __file__, tool, folder]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{tool} on the large model failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout)  # type: ignore[no-any-return]  # our own format


def _main(tool: str, folder: Path) -> None:
    samples = np.random.default_rng(1).normal(size=(4, ROWS)).astype(np.float32)
    start = time.perf_counter()
    if tool == "plain":
        import onnxruntime

        from trtcalib.sessions import session_options

        session = onnxruntime.InferenceSession(folder / "model.onnx", session_options())
        for row in range(len(samples)):
            session.run(None, {"x": samples[row : row + 1]})
    else:
        from trtcalib import calibrate

        calibrate(folder / "model.onnx", samples, batch_size=2)
    json.dump({"seconds": time.perf_counter() - start, "peak_mb": peak_mb()}, sys.stdout)


if __name__ == "__main__":
    _main(sys.argv[1], Path(sys.argv[2]))
