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

__all__ = ["ROOT", "calibrator_section", "environment", "memory_section", "run_child", "start_up_section"]

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
HEAVY = ("onnxruntime", "tensorrt", "pycuda", "numba")


def calibrator_section(*, quick: bool, workers: int) -> Section:
    """Time whole calibrations in turn, each in a fresh process; ours before and after the other, which takes minutes."""
    pictures, rounds = (8, 1) if quick else (64, 1)
    ours, theirs = [run_child("trtcalib", pictures, workers)], []
    for _ in range(rounds):
        theirs.append(run_child("onnxruntime", pictures, workers))
        ours.append(run_child("trtcalib", pictures, workers))
    other = median(run["seconds"] for run in theirs)
    gain = ratio([other] * len(ours), [run["seconds"] for run in ours])
    without_search = [run["seconds"] - run["search"] for run in theirs]
    collected = ratio(without_search * len(ours), [run["seconds"] for run in ours])
    rows = [
        (*_calibration("trtcalib", ours), str(gain), ">= 6x"),
        (*_calibration("ONNX Runtime", theirs), "", ""),
        ("ONNX Runtime without its search", "", f"{median(without_search):.1f}", "", "", f"ours is {collected}", ""),
    ]
    return Section(
        title="Against ONNX Runtime's entropy calibrator",
        setting=f"YOLOv8n 320, the same {pictures} pictures, from the model file to every tensor's range, a fresh process each, "
        f"ours before and after the other; ours with {workers} workers x 1 thread, ONNX Runtime's with its own defaults, "
        "2048 bins, 128 levels. Making the pictures is in both, compiling or loading kernels in ours.",
        columns=("calibrator", "tensors", "seconds", "of these search", "peak MB", "faster (min .. max)", "target"),
        rows=rows,
        facts={"trtcalib": ours, "onnxruntime": theirs, "faster": asdict(gain)},
    )


def _calibration(title: str, runs: list[dict[str, Any]]) -> tuple[str, ...]:
    seconds, search = (median(run[key] for run in runs) for key in ("seconds", "search"))
    return (
        title,
        str(runs[0]["tensors"]),
        f"{seconds:.1f}",
        f"{search:.2f}",
        f"{max(run['peak_mb'] for run in runs):.0f}",
    )


def memory_section(*, quick: bool, workers: int) -> Section:
    """Measure peak memory as the number of pictures grows; all are made one at a time."""
    plan = {"trtcalib": (64, 512), "onnxruntime": (16, 32, 64)}
    if quick:
        plan = {"trtcalib": (16, 64), "onnxruntime": (4, 8)}
    rows, facts = [], {}
    for tool, counts in plan.items():
        peaks = [run_child(tool, pictures, workers, "--collect-only")["peak_mb"] for pictures in counts]
        for pictures, peak in zip(counts, peaks, strict=True):
            rows.append((tool, str(pictures), f"{peak:.0f}", "", ""))
        slope = (peaks[-1] - peaks[0]) / (counts[-1] - counts[0])
        growth = f"{slope:+.2f} MB per picture, {(peaks[-1] / peaks[0] - 1) * 100:+.1f} %"
        rows[-1] = (*rows[-1][:3], growth, "within 5 %" if tool == "trtcalib" else "")
        facts[tool] = dict(zip(map(str, counts), peaks, strict=True))
    return Section(
        title="Peak memory",
        setting=f"YOLOv8n 320, a fresh process each, peak resident memory; ours with {workers} workers, search included; "
        "ONNX Runtime's calibrator without its search.",
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


def run_child(tool: str, pictures: int, workers: int, *options: str) -> dict[str, Any]:
    """Run ``child.py`` in a fresh process and return what it prints.

    Raises:
        RuntimeError: If it fails.
    """
    command = [sys.executable, str(HERE / "child.py"), tool, str(pictures), str(workers), *options]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{tool} with {pictures} pictures failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout)  # type: ignore[no-any-return]  # child.py's own format


def _python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True)
    return done.stdout


def environment() -> dict[str, str]:
    """Return the environment of a child process that is to find this package."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path}
