"""Section 9: what it costs to measure every weighted node alone and all but it, beside the loop that runs whole models for each."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from models import MODELS, images, model_path
from numpy.typing import NDArray
from processes import ROOT, run_child
from report import Section
from timing import Times, interleave, ratio

from trtcalib.accuracy.layers import PARTS, MeasuredLayer, group_size, measure_layers
from trtcalib.accuracy.simulation import Choice, Simulation
from trtcalib.accuracy.task import OpenTask, Task, open_task
from trtcalib.judging.judgements import worst_noise
from trtcalib.judging.scores import Sqnr
from trtcalib.qdq.convert import convert
from trtcalib.qdq.prepared import QdqOptions
from trtcalib.sessions import Session

__all__ = ["sensitivity_section"]

PICTURES = 64

EVERY = 8
"""Of a large model the loop is timed on every eighth node, and the rest is taken to cost the same on average."""

ROUNDS = 2

OURS = "sensitivity"
ONE = "loop, 1 thread"
ALL = "loop, all threads"
KEPT = "loop, all threads, FP32's outputs kept"

TARGETS = {ONE: ">= 5x"}

NODES_OF_SAMPLE = 1
"""Of the sample the loop is timed on every node."""


@dataclass(frozen=True, slots=True)
class Subject:
    """A model with its data, calibrated.

    Attributes:
        title: What the table calls it.
        opened: Model and samples.
        choice: Everything in INT8.
        nodes: All weighted nodes.
        looped: Those that the loop is timed on.
    """

    title: str
    opened: OpenTask
    choice: Choice
    nodes: tuple[str, ...]
    looped: tuple[str, ...]


def sensitivity_section(*, quick: bool, workers: int) -> Section:
    """Time the study and the loop in turn, and take the study's peak memory in a process of its own."""
    rows: list[tuple[str, ...]] = []
    facts: dict[str, Any] = {}
    rounds = 1 if quick else ROUNDS
    pictures = 8 if quick else PICTURES
    for make in (partial(_digits, quick=quick), partial(_yolo, pictures)):
        subject = make()
        samples = subject.opened.samples.batches.samples
        print(f"  {subject.title}, {samples} samples ...", file=sys.stderr)
        times, apart = _times(subject, rounds, workers)
        share = f", the loop on {len(subject.looped)} of them and scaled" * (subject.looped != subject.nodes)
        rows.append((f"**{subject.title}**, {len(subject.nodes)} nodes, {samples} samples{share}", "", "", "", ""))
        rows += _rows(times)
        facts[subject.title] = {name: asdict(each) for name, each in times.items()} | {"apart_db": apart}
    child = run_child("sensitivity", pictures, workers)
    rows.append(
        (
            f"**YOLOv8n 320, {pictures} pictures, calibration too, a fresh process**: peak {child['peak_mb']:.0f} MB",
            f"{child['seconds']:.1f}",
            "",
            "",
            "",
        )
    )
    return Section(
        title="Sensitivity, node by node",
        setting=f"{rounds} interleaved round{'s' * (rounds > 1)}, medians; {workers} threads. Both questions for every node: it alone in INT8, and all but it. The loop "
        "converts a model for each node and question, and runs FP32 and it whole over all samples. Calibration is in neither. The two agree within "
        f"{max(each['apart_db'] for each in facts.values()):.2g} dB on every node and question that both measured.",
        columns=("what", "seconds", "over sensitivity (min .. max)", "the same in CPU time", "target"),
        rows=rows,
        facts={**facts, "memory": child},
    )


def _digits(*, quick: bool) -> Subject:
    folder = ROOT / "data" / "digits"
    pixels = np.load(folder / "calibration-images.npy").astype(np.float32) / np.float32(16)
    return _subject("Embedded sample", folder / "model.onnx", pixels[: 64 if quick else 512], NODES_OF_SAMPLE)


def _yolo(pictures: int) -> Subject:
    return _subject(MODELS["yolo"].title, model_path(MODELS["yolo"]), images(MODELS["yolo"], pictures), EVERY)


def _subject(title: str, model: Path, data: NDArray[np.float32], every: int) -> Subject:
    opened = open_task(Task(model=model, data=data, metric="sqnr"))
    choice = Choice(scales=opened.calibrate("entropy").scales)
    nodes = Simulation(opened.graph).plan(choice).weighted
    return Subject(title, opened, choice, nodes, nodes[::every])


def _times(subject: Subject, rounds: int, workers: int) -> tuple[dict[str, Times], float]:
    """Return the times by contender, the loops' scaled to all nodes, and how far the two are apart in dB at most."""
    ours: list[MeasuredLayer] = []
    loops: list[dict[tuple[str, int], float]] = []
    contenders: dict[str, Callable[[], Any]] = {
        OURS: lambda: ours.extend(_measure(subject, workers)),
        ONE: lambda: loops.append(_Loop(subject, 1, keep=False).run()),
        ALL: lambda: loops.append(_Loop(subject, workers, keep=False).run()),
        KEPT: lambda: loops.append(_Loop(subject, workers, keep=True).run()),
    }
    times = interleave(contenders, rounds)
    larger = len(subject.nodes) / len(subject.looped)
    scaled = {
        name: each if name == OURS else Times([s * larger for s in each.wall], [s * larger for s in each.cpu])
        for name, each in times.items()
    }
    found = {(each.output, i): part for each in ours for i, part in enumerate((each.only, each.all_but))}
    apart = max(
        abs(10 * np.log10(worst_noise(found[key], Sqnr())[1] / noise)) for loop in loops for key, noise in loop.items()
    )
    return scaled, float(apart)


def _measure(subject: Subject, workers: int) -> Iterator[MeasuredLayer]:
    simulation = Simulation(subject.opened.graph)
    size = group_size(subject.opened.graph)
    for start in range(0, len(subject.nodes), size):
        group = subject.nodes[start : start + size]
        yield from measure_layers(simulation, subject.choice, group, subject.opened.samples, workers=workers)


class _Loop:
    """The loop: its own pass over the samples for each node and question."""

    def __init__(self, subject: Subject, threads: int, *, keep: bool) -> None:
        self._subject = subject
        self._threads = threads
        self._keep = keep
        self._kept: list[list[NDArray[Any]]] | None = None
        self._feeds = [run.load() for run in subject.opened.samples.batches.runs()]
        self._outputs = [output.name for output in subject.opened.graph.proto.graph.output]

    def run(self) -> dict[tuple[str, int], float]:
        """Return noise over signal of the worst output, by node and question."""
        plan = Simulation(self._subject.opened.graph).plan(self._subject.choice)
        found = {}
        for node in self._subject.looped:
            for question in range(PARTS):
                floats = frozenset({node} if question else plan.decisions.keys() - {node})
                found[node, question] = self._noise(floats, [] if question else [node])
        return found

    def _noise(self, floats: frozenset[str], more: Sequence[str]) -> float:
        graph = self._subject.opened.graph
        options = QdqOptions(partial="skip", float_outputs=floats)
        variant = replace(graph, proto=convert(graph, self._subject.choice.scales, options).proto)
        names = [*self._outputs, *more]
        found = self._run(Session(variant, names, simulate=True), names)
        if self._kept is None or not self._keep:
            # Kept, it shows every node that is asked for.
            shown = [*self._outputs, *(self._subject.looped if self._keep else more)]
            self._kept = self._run(Session(graph, shown, simulate=True), shown)
        sums = np.zeros((len(self._outputs), 2))
        for exact, other in zip(self._kept, found, strict=True):
            for i, (a, b) in enumerate(zip(exact[: len(sums)], other, strict=False)):
                signal = a.astype(np.float64)
                sums[i] += np.square(signal - b).sum(), np.square(signal).sum()
        return float((sums[:, 0] / sums[:, 1]).max())

    def _run(self, session: Session, names: Sequence[str]) -> list[list[NDArray[Any]]]:
        with ThreadPoolExecutor(self._threads) as pool:
            return list(pool.map(lambda feed: session.run(names, feed, "", ""), self._feeds))


def _rows(times: dict[str, Times]) -> list[tuple[str, ...]]:
    ours = times[OURS]
    return [
        (
            name,
            f"{median(each.wall):.1f}",
            str(ratio(each.wall, ours.wall)),
            str(ratio(each.cpu, ours.cpu)),
            TARGETS.get(name, ""),
        )
        for name, each in times.items()
    ]
