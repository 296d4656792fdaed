"""Sections 3 to 5: whole processes - ONNX Runtime's calibrator, peak memory, start-up."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

from report import Section
from timing import Ratio, interleave, ratio

__all__ = ["calibrator_section", "memory_section", "start_up_section"]

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
HEAVY = ("onnxruntime", "tensorrt", "pycuda", "numba")


def calibrator_section(*, quick: bool, workers: int) -> Section:
    """Time whole calibrations in turn, each in a fresh process."""
    pictures, rounds = (8, 1) if quick else (64, 3)
    runs: dict[str, list[dict[str, Any]]] = {"trtcalib": [], "onnxruntime": []}
    for _ in range(rounds):
        for tool, results in runs.items():
            results.append(_child(tool, pictures, workers))
    seconds = {tool: [run["seconds"] for run in results] for tool, results in runs.items()}
    gain = ratio(seconds["onnxruntime"], seconds["trtcalib"])
    rows = [
        (tool, str(results[0]["tensors"]), f"{median(seconds[tool]):.1f}", f"{max(r['peak_mb'] for r in results):.0f}", "", "")
        for tool, results in runs.items()
    ]
    rows[0] = (*rows[0][:4], str(gain), ">= 6x")
    return Section(
        title="Against ONNX Runtime's entropy calibrator",
        setting=f"YOLOv8n 320, the same {pictures} pictures, from the model file to every tensor's range, {rounds} interleaved "
        f"rounds, a fresh process each; ours with {workers} workers x 1 thread, ONNX Runtime's with its own defaults, "
        "2048 bins, 128 levels. Making the pictures is in both. Ours counts weights and biases too.",
        columns=("calibrator", "tensors", "seconds", "peak MB", "faster (min .. max)", "target"),
        rows=rows,
        facts={"seconds": seconds, "faster": asdict(gain)},
    )


def memory_section(*, quick: bool, workers: int) -> Section:
    """Measure peak memory as the number of pictures grows; all are made one at a time."""
    plan = {"trtcalib": (16, 64), "onnxruntime": (4, 8)} if quick else {"trtcalib": (64, 512), "onnxruntime": (16, 32, 64)}
    rows, facts = [], {}
    for tool, counts in plan.items():
        peaks = [_child(tool, pictures, workers)["peak_mb"] for pictures in counts]
        slope = (peaks[-1] - peaks[0]) / (counts[-1] - counts[0])
        for pictures, peak in zip(counts, peaks, strict=True):
            last = pictures == counts[-1]
            growth = f"{slope:+.2f} MB per picture, {(peak / peaks[0] - 1) * 100:+.1f} %" if last else ""
            rows.append((tool, str(pictures), f"{peak:.0f}", growth, "within 5 %" if last and tool == "trtcalib" else ""))
        facts[tool] = dict(zip(map(str, counts), peaks, strict=True))
    return Section(
        title="Peak memory",
        setting=f"YOLOv8n 320, entropy, a fresh process each, peak resident memory; ours with {workers} workers.",
        columns=("calibrator", "pictures", "peak MB", "growth", "target"),
        rows=rows,
        facts=facts,
    )


def start_up_section() -> Section:
    """Time ``--help`` beside an empty Python, and look at what importing the package pulls in."""
    imported = _python("import sys, trtcalib; print(*sorted({name.partition('.')[0] for name in sys.modules}))").split()
    found = [name for name in HEAVY if name in imported]
    rows = [("import trtcalib: heavy modules", ", ".join(found) or "none", "none of " + ", ".join(HEAVY))]
    facts: dict[str, Any] = {"heavy": found}
    if find_spec("trtcalib.cli.main") is None:
        rows.append(("trtcalib --help", "skipped: there is no trtcalib.cli.main", ""))
    else:
        help_ = "import sys; sys.argv = ['trtcalib', '--help']; from trtcalib.cli.main import run; run()"
        times = interleave({"python": lambda: _python("pass"), "help": lambda: _python(help_)}, rounds=7)
        for name, text in (("help", "trtcalib --help, seconds"), ("python", "python -c pass, seconds")):
            wall = times[name].wall
            rows.append((text, str(Ratio(median(wall), min(wall), max(wall))).replace("x", ""), ""))
            facts[name] = wall
    if found:
        rows.append(("**fault**", "importing trtcalib must stay light", ""))
    return Section(
        title="Start-up",
        setting="Median of 7 fresh processes (min .. max), interleaved; file cache warm.",
        columns=("what", "value", "target"),
        rows=rows,
        facts=facts,
    )


def _child(tool: str, pictures: int, workers: int) -> dict[str, Any]:
    command = [sys.executable, str(HERE / "child.py"), tool, str(pictures), str(workers)]
    done = subprocess.run(command, env=_environment(), capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{tool} with {pictures} pictures failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout)  # type: ignore[no-any-return]  # child.py's own format


def _python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], env=_environment(), capture_output=True, text=True, check=True)
    return done.stdout


def _environment() -> dict[str, str]:
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path}
