"""Section 12: faults planted into the embedded sample, what advise says first, and top-1 on held-out images when it is followed."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from report import Section

from tests.accuracy import planted
from trtcalib.accuracy.task import Task
from trtcalib.advising.advice import advise

__all__ = ["planted_section"]

FAULTS: dict[str, Callable[[Path], planted.Planted]] = {
    "one channel 2^10 times too large": planted.outlier_channel,
    "rare large values that decide": planted.rare_values,
    "one broken calibration image": planted.broken_image,
    "/255 forgotten in the calibration data": lambda folder: planted.forgotten_scale(folder, largest_pixel=255),
    "/16 forgotten everywhere": lambda folder: planted.forgotten_scale(folder, largest_pixel=16, evaluation_too=True),
    "none": planted.sound,
}


def planted_section(*, workers: int) -> Section:
    """Advise on each fault."""
    rows: list[tuple[str, ...]] = []
    facts: dict[str, Any] = {}
    for name, plant in FAULTS.items():
        print(f"  {name} ...", file=sys.stderr)
        with tempfile.TemporaryDirectory() as folder:
            fault = plant(Path(folder))
            task = Task(model=fault.model, data=fault.calibration, eval_data=fault.evaluation, workers=workers)
            started = time.perf_counter()
            advice = advise(task, Path(folder) / "advice")
            seconds = time.perf_counter() - started
        followed = advice.before if advice.after is None else advice.after
        values = [f"{100 * (found.value or 0):.1f} %" for found in (advice.before, followed)]
        rows.append((name, *values, advice.items[0].title, f"{seconds:.0f} s"))
        facts[name] = {"advice": advice.model_dump(mode="json"), "seconds": seconds}
    columns = ("fault", "INT8 with entropy", "advice followed", "what advise says first", "time")
    return Section(
        title="Planted faults",
        setting="The embedded sample, 320 calibration images, top-1 on 500 held-out images, INT8 simulated; FP32 has 99.6 %, with /16 forgotten "
        "everywhere 58.6 %.",
        columns=columns,
        rows=rows,
        facts=facts,
    )
