"""Section 9: what an ablation costs beside its evaluations, part by part, in calibrate runs."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from models import MODELS, images, model_path
from report import Section
from timing import Times, interleave, ratio

from trtcalib.accuracy.ablation import METHODS, ablate
from trtcalib.accuracy.simulation import Choice, Simulation
from trtcalib.accuracy.task import OpenTask, Task, open_task
from trtcalib.accuracy.used_scales import used_part
from trtcalib.accuracy.weight_search import SearchedSimulation, search_channels
from trtcalib.calibration import Calibration, solve
from trtcalib.files import sample_folder
from trtcalib.specs import Recipe, load_recipe

__all__ = ["ablation_section"]

ROUNDS = 5

PICTURES = 64
"""Of YOLOv8n's."""

ONCE = "one calibrate run (entropy)"
COLLECT = "the collection, with minmax solved"
SOLVE = "solving 7 methods for what variants use"
SEARCH = "searching the scales of the weights' channels"
MAKE = "making 28 variants, the channels' scales known"
WITHOUT = "all of these"
WHOLE = "ablate with its evaluations"

TARGET = "<= 1.3x"


@dataclass(frozen=True, slots=True)
class Subject:
    """A model with its data, opened."""

    title: str
    task: Task


def ablation_section(*, quick: bool, workers: int) -> Section:
    """Time the parts of an ablation in turn with calibrate runs, for each model."""
    rows: list[tuple[str, ...]] = []
    facts: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for subject in _subjects(Path(folder), quick=quick, workers=workers):
            print(f"  {subject.title} ...", file=sys.stderr)
            times, channels = _measure(subject, Path(folder), 1 if quick else ROUNDS)
            rows += [(f"**{subject.title}**, {channels} channels of weights", "", "", "", ""), *_rows(times)]
            facts[subject.title] = {name: asdict(each) for name, each in times.items()}
    return Section(
        title="An ablation",
        setting=f"{len(METHODS)} methods x 4 parts of the model, calibrated and judged on the same samples; medians of turns with a calibrate run, "
        f"{workers} workers. Ratios are round by round, of processor time of all threads and of the clock.",
        columns=("part", "processor s", "calibrate runs (min .. max)", "by the clock", "target"),
        rows=rows,
        facts=facts,
    )


def _subjects(folder: Path, *, quick: bool, workers: int) -> list[Subject]:
    digits = sample_folder() / "digits"
    dataset = folder / "calibration.yaml"
    dataset.write_text(
        f"source: {digits / 'calibration-images.npy'}\nlabels: {digits / 'calibration-labels.npy'}\n"
        "inputs:\n  image:\n    scale: 1/16\n    dtype: float32\n",
        encoding="utf-8",
    )
    pictures = images(MODELS["yolo"], 4 if quick else PICTURES)
    yolo = MODELS["yolo"]
    return [
        Subject("the sample, 1297 images", Task(model=digits / "model.onnx", data=dataset, workers=workers)),
        Subject(
            f"{yolo.title}, {len(pictures)} pictures",
            Task(model=model_path(yolo), data=pictures, metric="sqnr", workers=workers),
        ),
    ]


def _measure(subject: Subject, folder: Path, rounds: int) -> tuple[dict[str, Times], int]:
    opened = open_task(subject.task)
    recipes = [load_recipe(method) for method in METHODS]
    calibration = opened.calibrate("minmax")  # compiles, and is what the other parts start from
    used = used_part(calibration, Simulation(opened.graph))
    contenders = _contenders(subject, opened, used, recipes)
    for work in contenders.values():
        work()
    times = interleave(contenders, rounds)
    parts = [times[name] for name in (COLLECT, SOLVE, SEARCH, MAKE)]
    times[WITHOUT] = Times(
        [sum(each) for each in zip(*(part.wall for part in parts), strict=True)],
        [sum(each) for each in zip(*(part.cpu for part in parts), strict=True)],
    )
    whole = {WHOLE: lambda: ablate(subject.task, folder / "out"), ONCE: contenders[ONCE]}
    last = interleave(whole, 1)
    # Its one round is told against the calibrate run beside it.
    times[WHOLE] = last[WHOLE]
    times["beside it"] = last[ONCE]
    return times, sum(values.shape[axis] for values, axis in _weights(opened, used))


def _contenders(
    subject: Subject, opened: OpenTask, used: Calibration, recipes: list[Recipe]
) -> dict[str, Callable[[], Any]]:
    workers = subject.task.workers or 1
    searched = recipes[1:]  # minmax needs none
    simulation = SearchedSimulation(opened.graph, recipes, workers)
    weights = _weights(opened, used)

    def make() -> None:
        for recipe in recipes:
            scales = solved[recipe.model_dump_json()]
            for choice in (
                Choice(scales=scales, activations=False, weights="tensor", weight_recipe=recipe),
                Choice(scales=scales, activations=False, weights="channel", weight_recipe=recipe),
                Choice(scales=scales, weights="float"),
                Choice(scales=scales),
            ):
                simulation.model(simulation.plan(choice))

    solved = {recipe.model_dump_json(): solve(used, recipe).scales for recipe in recipes}
    return {
        ONCE: lambda: opened.calibrate("entropy"),
        COLLECT: lambda: opened.calibrate(recipes[0]),
        SOLVE: lambda: [solve(used, recipe) for recipe in recipes],
        SEARCH: lambda: [search_channels(values, axis, searched, workers) for values, axis in weights],
        MAKE: make,
    }


def _weights(opened: OpenTask, used: Calibration) -> list[tuple[Any, int]]:
    """Return every weight that is quantized per channel, with its axis."""
    simulation = Simulation(opened.graph)
    plan = simulation.plan(Choice(scales=used.scales))
    found = {(each.name, each.axis) for _, weights in plan.decisions.values() for each in weights}
    return [(simulation.prepared.wiring.values(name), axis) for name, axis in sorted(found) if axis is not None]


def _rows(times: dict[str, Times]) -> list[tuple[str, ...]]:
    beside = times.pop("beside it")
    rows = []
    for name, each in times.items():
        under = beside if name == WHOLE else times[ONCE]
        rows.append(
            (
                name,
                f"{median(each.cpu):.2f}",
                str(ratio(each.cpu, under.cpu)),
                str(ratio(each.wall, under.wall)),
                TARGET if name == WITHOUT else "",
            )
        )
    return rows
