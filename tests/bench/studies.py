"""Section 7: what a study of batch sizes and orders costs, beside calibrating once per configuration."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any, Literal

import numpy as np
from models import MODELS, images, model_path
from numpy.typing import NDArray
from processes import ROOT, run_child
from report import Section
from timing import Times, interleave, measure, ratio

from trtcalib import calibrate, study
from trtcalib.batch_study.result import Study

__all__ = ["study_section"]

BATCH_SIZES: tuple[int | Literal["all"], ...] = (1, 2, 4, 8, 16, 32, 64, "all")
"""Those that ``trtcalib study`` takes without ``--batch-sizes``."""

ORDERS = 10
"""Shuffled ones, beside the data's own."""

ONCE = "one calibrate run"
SIZES = f"study, {len(BATCH_SIZES)} batch sizes"
ALL = f"study, {len(BATCH_SIZES)} batch sizes x {ORDERS} orders"
LOOP = f"loop of {len(BATCH_SIZES)} calibrate runs"

ROUNDS = 2
"""Of minutes each."""

TARGETS = {SIZES: "<= 3x", ALL: "<= 8x"}

RUNTIME_PICTURES = 64
"""ONNX Runtime's calibrator keeps all activations: 4.1 GB of YOLOv8n at 320 x 320."""


@dataclass(frozen=True, slots=True)
class Subject:
    """A model and its data.

    Attributes:
        title: What the table calls it.
        model: The ONNX file.
        data: Prepared samples.
    """

    title: str
    model: Path
    data: NDArray[np.float32]


def study_section(*, quick: bool, workers: int) -> Section:
    """Time studies in turn with calibrate runs, for each model; then against ONNX Runtime's calibrator, in fresh processes."""
    rounds = 1 if quick else ROUNDS
    rows: list[tuple[str, ...]] = []
    facts: dict[str, Any] = {}
    for make in _subjects(quick=quick):
        subject = make()
        print(f"  {subject.title}, {len(subject.data)} samples ...", file=sys.stderr)
        found, loop, costs = _times(subject, rounds, workers)
        cost = costs[SIZES].cost
        title = f"**{subject.title}**, {cost.tensors} tensors, {len(subject.data)} samples"
        rows += [(title, "", "", "", ""), *_rows(found, loop, costs)]
        facts[subject.title] = {
            "samples": len(subject.data),
            **{name: asdict(times) for name, times in found.items()},
            LOOP: loop,
            "cost": {name: result.cost.model_dump() for name, result in costs.items()},
        }
    runtime_rows, facts["onnxruntime"] = _runtime(8 if quick else RUNTIME_PICTURES, workers)
    return Section(
        title="A study of batch sizes and orders",
        setting=f"{rounds} interleaved round{'s' * (rounds > 1)}, medians; {workers} workers x 1 thread. Batch sizes {', '.join(map(str, BATCH_SIZES))}; calibrate's own is 32. "
        f"With {ORDERS} shuffled orders beside the data's own: 78 configurations where all sizes differ, since one batch has one order. The study writes every cache, "
        "calibrate writes none. The loop of calibrate runs, one per batch size, ran once, beside the first round; longer loops and further runs of "
        "ONNX Runtime's calibrator are extrapolated, not run.",
        columns=("what", "seconds", "over one calibrate run (min .. max)", "the same in CPU time", "target"),
        rows=[*rows, *runtime_rows],
        facts=facts,
    )


def _subjects(*, quick: bool) -> list[Callable[[], Subject]]:
    """Return what is studied; made when it is its turn, because the pictures take memory."""
    small = replace(MODELS["det"], title="PP-OCRv4 det 320", size=(320, 320))
    plan = [(MODELS["yolo"], 256), (small, 128), (MODELS["rec"], 64)]
    made = [
        lambda model=model, count=count: Subject(model.title, model_path(model), images(model, 16 if quick else count))
        for model, count in plan
    ]
    return [lambda: _digits(quick=quick), *made]


def _digits(*, quick: bool) -> Subject:
    folder = ROOT / "data" / "digits"
    pixels = np.load(folder / "calibration-images.npy").astype(np.float32) / np.float32(16)
    return Subject("Embedded sample", folder / "model.onnx", pixels[:128] if quick else pixels)


def _times(
    subject: Subject, rounds: int, workers: int
) -> tuple[dict[str, Times], tuple[float, float], dict[str, Study]]:
    """Return the times by contender, the loop's wall and CPU seconds, and what the studies found."""
    results: dict[str, Study] = {}

    def once(batch_size: int) -> None:
        calibrate(subject.model, subject.data, batch_size=batch_size, workers=workers)

    def studied(name: str, orders: int) -> None:
        with tempfile.TemporaryDirectory() as folder:  # a new one each time: a study goes on from what it finds
            results[name] = study(
                subject.model,
                subject.data,
                Path(folder, "study"),
                batch_sizes=BATCH_SIZES,
                orders=orders,
                workers=workers,
            )

    def loop() -> None:
        for size in BATCH_SIZES:
            once(len(subject.data) if size == "all" else size)

    contenders = {ONCE: lambda: once(32), SIZES: lambda: studied(SIZES, 0), ALL: lambda: studied(ALL, ORDERS)}
    few = replace(subject, data=subject.data[:4])
    calibrate(few.model, few.data, workers=workers)  # compiles or loads the kernels
    with tempfile.TemporaryDirectory() as folder:
        study(few.model, few.data, Path(folder, "study"), workers=workers)
    first = interleave(contenders, 1)
    looped = measure(loop)
    further = interleave(contenders, rounds - 1)
    times = {
        name: Times(first[name].wall + further[name].wall, first[name].cpu + further[name].cpu) for name in contenders
    }
    return times, looped, results


def _rows(found: dict[str, Times], loop: tuple[float, float], results: dict[str, Study]) -> list[tuple[str, ...]]:
    rows = [
        (
            name if name == ONCE else f"{name}: {_cost(results[name])}",
            f"{median(times.wall):.1f}",
            str(ratio(times.wall, found[ONCE].wall)),
            str(ratio(times.cpu, found[ONCE].cpu)),
            TARGETS.get(name, ""),
        )
        for name, times in found.items()
    ]
    wall, cpu = loop
    # Its neighbour in time is the first round.
    walls, cpus = wall / found[ONCE].wall[0], cpu / found[ONCE].cpu[0]
    configurations = len(results[ALL].configurations)
    longer = configurations / len(BATCH_SIZES)
    rows.append((LOOP, f"{wall:.1f}", f"{walls:.2f}x", f"{cpus:.2f}x", ""))
    title = f"loop of {configurations} calibrate runs, extrapolated"
    return [*rows, (title, f"{wall * longer:.0f}", f"{walls * longer:.0f}x", f"{cpus * longer:.0f}x", "")]


def _cost(result: Study) -> str:
    return f"{len(result.configurations)} configurations, {result.cost.distinct_ranges} ranges"


def _runtime(pictures: int, workers: int) -> tuple[list[tuple[str, ...]], dict[str, Any]]:
    """Return rows and facts of one run of ONNX Runtime's calibrator between two studies of the same pictures."""
    ours = [run_child("study", pictures, workers)]
    theirs = run_child("onnxruntime", pictures, workers)
    ours.append(run_child("study", pictures, workers))
    runs = ours[0]["configurations"]
    seconds = [run["seconds"] for run in ours]
    once = ratio([theirs["seconds"]] * len(ours), seconds)
    all_runs = ratio([theirs["seconds"] * runs] * len(ours), seconds)
    peak = max(run["peak_mb"] for run in ours)
    rows: list[tuple[str, ...]] = [
        (f"**YOLOv8n 320, {pictures} pictures, a fresh process each**", "", "over the study (min .. max)", "", ""),
        (f"{SIZES}: {runs} configurations, peak {peak:.0f} MB", f"{median(seconds):.1f}", "1.00x", "", ""),
        (
            f"ONNX Runtime's entropy calibrator, one run, peak {theirs['peak_mb']:.0f} MB",
            f"{theirs['seconds']:.0f}",
            str(once),
            "",
            "",
        ),
        (f"a run for each of the {runs}, extrapolated", f"{theirs['seconds'] * runs:.0f}", str(all_runs), "", ""),
    ]
    return rows, {"study": ours, "onnxruntime": theirs}
