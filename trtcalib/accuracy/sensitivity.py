"""Which layers cost accuracy: each weighted node alone in INT8, all but it, and the few to leave in float."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from trtcalib.accuracy.fallback import Found, dialects, find_fallback, macs_left
from trtcalib.accuracy.journal import Journal
from trtcalib.accuracy.judgements import decibels, judgement, plain_loss, reference_score, worst_noise
from trtcalib.accuracy.judging import Judged, ModelRunner, judge
from trtcalib.accuracy.layers import MeasuredLayer, group_size, measure_layers
from trtcalib.accuracy.result import Fallback, LayerSensitivity, NetworkTensor, Sensitivity, VariantFacts
from trtcalib.accuracy.simulation import Choice, Plan, Simulation, check_quantized
from trtcalib.accuracy.task import OpenTask, Task, open_task
from trtcalib.calibration import Calibration
from trtcalib.core.mse import quantization_noise
from trtcalib.core.scale import amax_from_scale
from trtcalib.files import make_folder, sha256_of_bytes
from trtcalib.manifest import environment
from trtcalib.methods import describe
from trtcalib.passes import Progress
from trtcalib.provenance import model_facts, portable_name
from trtcalib.qdq.coverage import NodeFacts, node_facts
from trtcalib.qdq.placement import Slot
from trtcalib.qdq.prepared import QdqOptions
from trtcalib.qdq_files import read_inputs
from trtcalib.specs import Recipe

__all__ = ["JOURNAL", "measure_sensitivity"]

JOURNAL = "sensitivity.journal"
"""What is measured already, in the result's folder while the job is under way."""


def measure_sensitivity(  # noqa: PLR0913 - the public call names every choice that changes the result
    task: Task,
    output: Path | str,
    *,
    calibrator: str | Path | Recipe = "entropy",
    cache: Path | None = None,
    names: Path | None = None,
    max_loss: float | None = None,
    progress: Progress | None = None,
) -> Sensitivity:
    """Rank the weighted nodes by what INT8 costs there, and find a small set to leave in float.

    Args:
        task: Model, data, labels and metric.
        output: Folder of the result; an interrupted job with the same inputs goes on from what is noted there.
        calibrator: Chooses the scales.
        cache: Scales of a calibration cache instead; the histograms, of which the clipped shares are told, are still made.
        names: For the cache, the model's tensor for each name that TensorRT's parser made.
        max_loss: Search for a set to leave in float that brings the metric's loss to this or below.
        progress: Called with (samples done, samples in all), over all passes that are known to come.

    Raises:
        CacheMismatchError: If the cache has a scale for nothing that could be quantized.
        TrtcalibError: One of its kinds, for input that cannot be used.
    """
    opened = open_task(task)
    output = Path(output)
    calibration = opened.calibrate(calibrator)
    scales = calibration.scales if cache is None else read_inputs(opened.graph.path, cache, names).scales
    simulation = Simulation(opened.graph)
    choice = Choice(scales=scales)
    plan = simulation.plan(choice)
    check_quantized(opened.graph, plan, cache)
    make_folder(output)
    job = _Job(opened, simulation, choice, plan, calibration, progress)
    journal = Journal(output / JOURNAL, _identity(job))
    layers = job.layers(journal)
    method = describe(calibration.recipe) if cache is None else f"cache {cache.name}"
    result = _result(job, layers, max_loss, method, output)
    journal.remove()
    return result


def _identity(job: _Job) -> dict[str, Any]:
    """Return what decides the measurements; the scales stand for everything that they were made from."""
    opened = job.opened
    source = opened.samples.batches.source
    labels = opened.samples.labels
    versions, cpu = environment()
    return {
        "model": model_facts(opened.graph).model_dump(),
        "scales": {portable_name(name): float(scale).hex() for name, scale in job.choice.scales.items()},
        # What a function gives is known only when it was called to its end, and may be other data the next time.
        "data": source.sha256() if source.size() is not None else time.time_ns(),
        "samples": opened.samples.batches.samples,
        "labels": None if labels is None else sha256_of_bytes(np.ascontiguousarray(labels.values).tobytes()),
        "metric": [opened.metric.name, getattr(opened.metric, "output", None)],
        "versions": versions,
        "cpu": cpu,
    }


@dataclass(frozen=True, slots=True)
class _Layer:
    """What is noted of one node.

    Attributes:
        noise: Noise over signal of the worst judged output with it alone in INT8: what ranks.
        loss: The metric's loss with it alone in INT8.
        others_noise: As ``noise``, with all but it in INT8.
        others_loss: As ``loss``, with all but it in INT8.
        local: Signal and noise at its own output, with it alone in INT8.
        network: The same under full INT8.
    """

    noise: float
    loss: float
    others_noise: float
    others_loss: float
    local: tuple[float, float]
    network: tuple[float, float]


@dataclass(frozen=True, slots=True)
class _Job:
    """A sensitivity job whose inputs are ready."""

    opened: OpenTask
    simulation: Simulation
    choice: Choice
    plan: Plan
    calibration: Calibration
    progress: Progress | None

    def layers(self, journal: Journal) -> dict[str, _Layer]:
        """Measure every quantized node, group by group; those that are noted already are not measured again."""
        found = {name: _Layer(**noted) for name in self.plan.weighted if (noted := journal.get(name)) is not None}
        missing = [name for name in self.plan.weighted if name not in found]
        size = group_size(self.opened.graph)
        groups = [missing[start : start + size] for start in range(0, len(missing), size)]
        for number, group in enumerate(groups):
            measured = measure_layers(
                self.simulation,
                self.choice,
                group,
                self.opened.samples,
                workers=self.opened.task.workers,
                progress=self._of(number, len(groups)),
            )
            for each in measured:
                found[each.output] = layer = self._layer(each)
                journal.note(each.output, asdict(layer))
        return {name: found[name] for name in self.plan.weighted}

    def _of(self, number: int, passes: int) -> Progress | None:
        """Return a progress callback for one of several passes."""
        if self.progress is None:
            return None
        progress = self.progress

        def move(done: int, total: int | None) -> None:
            progress(done if total is None else number * total + done, None if total is None else passes * total)

        return move

    def _layer(self, measured: MeasuredLayer) -> _Layer:
        metric = self.opened.metric
        return _Layer(
            noise=worst_noise(measured.only, metric)[1],
            loss=plain_loss(measured.only, metric),
            others_noise=worst_noise(measured.all_but, metric)[1],
            others_loss=plain_loss(measured.all_but, metric),
            local=measured.local,
            network=measured.network,
        )

    def full(self) -> Judged:
        """Judge full INT8."""
        return self.judge([frozenset()])[0]

    def judge(self, sets: Sequence[frozenset[str]]) -> list[Judged]:
        """Judge full INT8 but for some nodes, several such sets in one pass."""
        plans = [self.simulation.plan(replace(self.choice, float_outputs=nodes)) for nodes in sets]
        return judge(
            ModelRunner(self.simulation.reference),
            [ModelRunner(self.simulation.model(plan)) for plan in plans],
            self.opened.samples,
            workers=self.opened.task.workers,
            progress=self.progress,
        )


def _facts_of_nodes(job: _Job) -> list[NodeFacts]:
    """Return every weighted node of the model, and whether full INT8 quantizes it."""
    ready = job.simulation.prepared
    weighted, _ = ready.decide(job.choice.scales, QdqOptions(partial="skip"))
    return node_facts(ready.wiring, weighted, ready.shapes)


def _ranked(layers: Mapping[str, _Layer]) -> list[str]:
    """Return the nodes, first that which alone brings the judged outputs most noise: it tells more than a metric of few samples does."""
    return sorted(layers, key=lambda name: (-layers[name].noise, -layers[name].loss))


def _relieving(layers: Mapping[str, _Layer]) -> list[str]:
    """Return the nodes, first those without which full INT8 loses least."""
    return sorted(layers, key=lambda name: (layers[name].others_loss, layers[name].others_noise))


def _result(job: _Job, layers: Mapping[str, _Layer], max_loss: float | None, method: str, folder: Path) -> Sensitivity:
    metric = job.opened.metric
    judged = job.full()
    full = judgement(judged, metric)
    facts = {fact.output: fact for fact in _facts_of_nodes(job)}
    found = None
    if max_loss is not None and full.loss > max_loss:
        found = find_fallback([_ranked(layers), _relieving(layers)], max_loss, metric, job.judge)
    return Sensitivity(
        **job.opened.facts(job.calibration, folder),
        reference=reference_score(judged, metric),
        variant=VariantFacts(method=method, activations=True, weights="channel"),
        full=full,
        layers=[_told(job, rank, facts[name], layers[name], full.loss) for rank, name in enumerate(_ranked(layers), 1)],
        network=[
            NetworkTensor(output=portable_name(name), sqnr_db=_sqnr(layer.network)) for name, layer in layers.items()
        ],
        fallback=None if found is None or max_loss is None else _fallback(found, max_loss, facts),
    )


def _told(job: _Job, rank: int, fact: NodeFacts, layer: _Layer, full_loss: float) -> LayerSensitivity:
    slot, share = _clipped(job, fact.output)
    return LayerSensitivity(
        rank=rank,
        name=portable_name(fact.name),
        operator=fact.operator,
        output=portable_name(fact.output),
        tensor=None if slot is None else portable_name(slot.name),
        macs=fact.macs,
        only_sqnr_db=decibels(layer.noise),
        only_loss=layer.loss,
        all_but_sqnr_db=decibels(layer.others_noise),
        all_but_loss=layer.others_loss,
        gain=full_loss - layer.others_loss,
        local_sqnr_db=_sqnr(layer.local),
        clipped_share=share,
    )


def _sqnr(sums: tuple[float, float]) -> float | None:
    signal, noise = sums
    return decibels(noise / signal) if signal else None


def _clipped(job: _Job, output: str) -> tuple[Slot | None, float | None]:
    """Return the activation that brings a node the most noise, and how much of that noise is clipping, by its histogram."""
    found: list[tuple[float, Slot, float | None]] = []
    origins = job.calibration.origins
    for slot in job.plan.decisions[output][0]:
        histogram = job.calibration.histograms.get(origins.get(slot.source, slot.source))
        if histogram is None or histogram.total == 0:
            found.append((-1.0, slot, None))
            continue
        noise = quantization_noise(histogram, amax_from_scale(slot.scale))
        total = noise.clipped + noise.rounded
        found.append((total / noise.signal if noise.signal else 0.0, slot, noise.clipped / total if total else None))
    if not found:
        return None, None
    _, slot, share = max(found, key=lambda each: each[0])
    return slot, share


def _fallback(found: Found, max_loss: float, facts: Mapping[str, NodeFacts]) -> Fallback:
    names = {output: fact.name for output, fact in facts.items()}
    return Fallback(
        max_loss=max_loss,
        reached=found.reached,
        nodes=[portable_name(names[output] or output) for output in found.outputs],
        outputs=[portable_name(output) for output in found.outputs],
        loss=found.judgement.loss,
        loss_interval=found.judgement.loss_interval,
        macs_int8=macs_left(list(facts.values()), found.outputs),
        evaluations=found.evaluations,
        dialects=dialects(names, found.outputs),
    )
