"""Which layers cost accuracy: each weighted node alone in INT8, all but it, and the few to leave in float."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from trtcalib.accuracy.dialects import dialects
from trtcalib.accuracy.fallback import Found, find_fallback, macs_left, most_evaluations
from trtcalib.accuracy.journal import Journal
from trtcalib.accuracy.layer_facts import Measured, layer_facts, network_facts
from trtcalib.accuracy.layers import PARTS, group_size, measure_layers
from trtcalib.accuracy.result import Fallback, Judgement, Sensitivity, VariantFacts
from trtcalib.accuracy.rounds import Rounds, Steps
from trtcalib.accuracy.simulation import Choice, Plan, Simulation, check_quantized
from trtcalib.accuracy.study_folder import open_journal, result_folder
from trtcalib.accuracy.task import OpenTask, Task, open_task
from trtcalib.accuracy.used_scales import used_part
from trtcalib.calibration import Calibration
from trtcalib.errors import SpecError
from trtcalib.files import write_files
from trtcalib.methods import describe
from trtcalib.onnx_graph import ModelGraph
from trtcalib.passes import Progress
from trtcalib.provenance import portable_name
from trtcalib.qdq.coverage import NodeFacts, node_facts
from trtcalib.qdq.prepared import QdqOptions
from trtcalib.qdq_files import read_inputs
from trtcalib.specs import Recipe

__all__ = ["JOURNAL", "RESULT", "SensitivityViews", "measure_sensitivity"]

RESULT = "sensitivity.json"

JOURNAL = "sensitivity.journal"
"""What is measured already, in the result's folder while the job is under way."""

SensitivityViews = Callable[[Sensitivity], Mapping[str, bytes]]
"""Gives further files for the folder, by name, from the finished result."""

_FULL: frozenset[str] = frozenset()
"""Nothing in float."""

_ORDERS = 2
"""In which the search takes the nodes: by their own noise, and by what full INT8 loses without them."""

_CACHE_NOTE = (
    "the scales are those of the cache; how much of a node's noise is clipping is told by histograms of the data"
)


def measure_sensitivity(  # noqa: PLR0913 - the public call names every choice that changes the result
    task: Task,
    output: Path | str,
    *,
    calibrator: str | Path | Recipe = "entropy",
    cache: Path | None = None,
    names: Path | None = None,
    max_loss: float | None = None,
    views: SensitivityViews | None = None,
    progress: Progress | None = None,
) -> Sensitivity:
    """Rank the weighted nodes by what INT8 costs there, and find a small set to leave in float.

    What is measured is noted in ``sensitivity.journal``, from which the same call goes on after an interruption; not where the
    judged data come from a function, since only calling it to its end tells what they are.

    Args:
        task: Model, data, labels and metric.
        output: Folder for ``sensitivity.json``.
        calibrator: Chooses the scales.
        cache: Scales of a calibration cache instead; the histograms, of which the clipped shares are told, are still made.
        names: For the cache, the model's tensor for each name that TensorRT's parser made.
        max_loss: Search for a set to leave in float that brings the metric's loss to this or below: for shares and means in the metric's
            own units, 0.01 being one of a hundred samples; for sqnr noise over signal, 0.01 being 20 dB.
        views: Makes more files, which are written together with the result.
        progress: Called with (samples done, samples in all or ``None``), each variant's samples counted; the search's at most.

    Raises:
        SpecError: If ``max_loss`` is no number of at least 0.
        ModelError: If the model has no weighted node.
        CacheMismatchError: If the cache has a scale for nothing that could be quantized.
        OutputError: If the results cannot be written.
        TrtcalibError: One of its kinds, for input that cannot be used.
    """
    if max_loss is not None and not max_loss >= 0:
        raise SpecError("max_loss", (f"found {max_loss}, expected a number of at least 0",))
    opened = open_task(task)
    simulation = Simulation(opened.graph)
    empty = simulation.plan(Choice(scales={}))
    if empty.of == 0:
        check_quantized(opened.graph, empty)
    folder = Path(output)
    extra = [f"sensitivity.{kind}" for kind in ("md", "png")] if views is not None else []
    with result_folder(folder, [RESULT, JOURNAL, *extra], task):
        steps = _steps(opened, empty.of, progress, searches=max_loss is not None)
        scales = _scales(opened, simulation, (calibrator, cache, names), steps)
        with open_journal(folder / JOURNAL, opened, used_part(scales.calibration, simulation).histograms) as journal:
            rounds = Rounds(simulation.reference, opened.samples, journal, task.workers, steps)
            result = _Job(opened, simulation, scales, journal, rounds, steps).result(max_loss, folder)
            files = {RESULT: f"{result.model_dump_json(indent=2)}\n".encode(), **(views(result) if views else {})}
            write_files({folder / name: content for name, content in files.items()})
    return result


def _steps(opened: OpenTask, nodes: int, progress: Progress | None, *, searches: bool) -> Steps:
    size = opened.samples.batches.samples
    judgings = 1 + PARTS * nodes + (most_evaluations(nodes, _ORDERS) if searches else 0)
    return Steps(progress, None if size is None else size * judgings)


@dataclass(frozen=True, slots=True)
class _Scales:
    """What INT8 is simulated with.

    Attributes:
        calibration: Of the data.
        choice: Everything in INT8.
        plan: What that quantizes.
        method: How the scales were chosen, for people.
        notes: What was odd in the cache; ``None`` where they come from the calibration.
    """

    calibration: Calibration
    choice: Choice
    plan: Plan
    method: str
    notes: tuple[str, ...] | None

    @property
    def digest(self) -> str:
        """What the journal has the results under."""
        text = json.dumps(sorted((portable_name(n), float(scale).hex()) for n, scale in self.choice.scales.items()))
        return hashlib.sha256(text.encode()).hexdigest()


def _scales(
    opened: OpenTask, simulation: Simulation, asked: tuple[str | Path | Recipe, Path | None, Path | None], steps: Steps
) -> _Scales:
    calibrator, cache, names = asked
    read = None if cache is None else read_inputs(opened.graph.path, cache, names)
    calibration = opened.calibrate(calibrator, steps.calibration)
    choice = Choice(scales=calibration.scales if read is None else read.scales)
    plan = simulation.plan(choice)
    check_quantized(opened.graph, plan, cache)
    if read is None:
        return _Scales(calibration, choice, plan, describe(calibration.recipe), None)
    method = f"cache {portable_name(read.cache.path.name)}"
    return _Scales(calibration, choice, plan, method, (*read.cache.notes, _CACHE_NOTE))


@dataclass(frozen=True, slots=True)
class _Job:
    """A sensitivity job whose inputs are ready."""

    opened: OpenTask
    simulation: Simulation
    scales: _Scales
    journal: Journal | None
    rounds: Rounds
    steps: Steps

    def result(self, max_loss: float | None, folder: Path) -> Sensitivity:
        """Measure everything, and put it together."""
        (full,) = self.judge([_FULL])
        layers = self.layers()
        ranked = {name: layers[name] for name in _ranked(layers)}
        nodes = self.nodes()
        found = None
        if max_loss is not None and full.loss > max_loss:
            singles = {name: layer.others_loss for name, layer in layers.items()}
            found = find_fallback([list(ranked), _relieving(layers)], singles, max_loss, self.judge)
        told = dialects(self.simulation.prepared.proto.graph.node, found.outputs if found else ())
        scales = self.scales
        facts = self.opened.facts(scales.calibration if scales.notes is None else None, folder)
        facts["notes"] += [*(scales.notes or ()), *told.notes]
        assert self.rounds.reference is not None  # for the type checker: full INT8 was judged
        return Sensitivity(
            **facts,
            reference=self.rounds.reference,
            variant=VariantFacts(method=scales.method, activations=True, weights="channel"),
            full=full,
            layers=layer_facts(ranked, nodes, scales.plan, scales.calibration, full.loss),
            network=network_facts(layers),
            fallback=None if found is None or max_loss is None else _fallback(found, max_loss, nodes, told.lines),
        )

    def nodes(self) -> list[NodeFacts]:
        """Return every weighted node of the model, and whether full INT8 quantizes it."""
        ready = self.simulation.prepared
        weighted, _ = ready.decide(self.scales.choice.scales, QdqOptions(partial="skip"))
        return node_facts(ready.wiring, weighted, ready.shapes)

    def judge(self, sets: Sequence[frozenset[str]]) -> list[Judgement]:
        """Judge full INT8 but for some nodes, several such sets in one pass."""
        variants = {_key(nodes): partial(self._model, nodes) for nodes in sets}
        scored = self.rounds.judge(variants, f"{self.scales.digest} ")
        return [scored[_key(nodes)].judgement for nodes in sets]

    def _model(self, nodes: frozenset[str]) -> ModelGraph:
        return self.simulation.model(self.simulation.plan(replace(self.scales.choice, float_outputs=nodes)))

    def layers(self) -> dict[str, Measured]:
        """Measure every quantized node, group by group, in graph order; those that are noted already are not measured again."""
        names = self.scales.plan.weighted
        found = {name: layer for name in names if (layer := self._noted(name)) is not None}
        missing = [name for name in names if name not in found]
        self.steps.skip(PARTS * len(found) * self.opened.samples.batches.seen)
        size = group_size(self.opened.graph)
        for start in range(0, len(missing), size):
            for name, layer in self._measure(missing[start : start + size]).items():
                found[name] = layer
                if self.journal is not None:
                    self.journal.note(self._place(name), layer.model_dump())
        return {name: found[name] for name in names}

    def _measure(self, group: Sequence[str]) -> dict[str, Measured]:
        measured = measure_layers(
            self.simulation,
            self.scales.choice,
            group,
            self.opened.samples,
            workers=self.opened.task.workers,
            progress=self.steps.judging(PARTS * len(group)),
        )
        return {each.output: Measured.of(each, self.opened.metric) for each in measured}

    def _noted(self, name: str) -> Measured | None:
        return None if self.journal is None else Measured.from_json(self.journal.get(self._place(name)))

    def _place(self, name: str) -> str:
        return f"{self.scales.digest} node {name}"


def _key(nodes: frozenset[str]) -> str:
    """Return what the journal has a set under; hashed, for the sets of a large model are long."""
    return f"float {hashlib.sha256(json.dumps(sorted(nodes)).encode()).hexdigest()}"


def _ranked(layers: Mapping[str, Measured]) -> list[str]:
    """Return the nodes, first that which alone brings the judged outputs most noise: it tells more than a metric of few samples does."""
    return sorted(layers, key=lambda name: (-layers[name].noise, -layers[name].loss))


def _relieving(layers: Mapping[str, Measured]) -> list[str]:
    """Return the nodes, first those without which full INT8 loses least."""
    return sorted(layers, key=lambda name: (layers[name].others_loss, layers[name].others_noise))


def _fallback(found: Found, max_loss: float, nodes: Sequence[NodeFacts], lines: dict[str, str]) -> Fallback:
    names = {node.output: node.name for node in nodes}
    return Fallback(
        max_loss=max_loss,
        reached=found.reached,
        nodes=[portable_name(names[output] or output) for output in found.outputs],
        outputs=[portable_name(output) for output in found.outputs],
        loss=found.judgement.loss,
        loss_interval=found.judgement.loss_interval,
        macs_int8=macs_left(nodes, found.outputs),
        evaluations=found.evaluations,
        dialects=lines,
    )
