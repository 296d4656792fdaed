"""FP32 against INT8 on labelled or unlabelled samples: simulated by ONNX Runtime, or an engine on a GPU."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trtcalib.accuracy.result import ClassScore, Evaluation, VariantFacts
from trtcalib.accuracy.simulation import Choice, Plan, Simulation, check_quantized
from trtcalib.accuracy.task import OpenTask, Task, open_task
from trtcalib.calibration import Calibration
from trtcalib.core.intervals import wilson
from trtcalib.judging.engine_runner import open_engine
from trtcalib.judging.judge import Judged, ModelRunner, judge
from trtcalib.judging.judgements import as_range, judgement, reference_score, right_or_wrong
from trtcalib.judging.scores import Top
from trtcalib.manifest import portable_path
from trtcalib.methods import describe
from trtcalib.onnx_graph import ModelGraph
from trtcalib.passes import Progress
from trtcalib.provenance import portable_name
from trtcalib.qdq_files import read_inputs
from trtcalib.spec_files import brief
from trtcalib.specs import Recipe

__all__ = ["Under", "evaluate"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Under:
    """What is evaluated: one of the three.

    Attributes:
        calibrator: Calibrate first, with this recipe.
        cache: The scales of a calibration cache; goes before ``calibrator``.
        names: For the cache, the model's tensor for each name that TensorRT's parser made.
        engine: A TensorRT engine, run on the GPU; goes before both.
    """

    calibrator: str | Path | Recipe = "entropy"
    cache: Path | None = None
    names: Path | None = None
    engine: Path | None = None


def evaluate(
    task: Task, under: Under | None = None, *, folder: Path | str = ".", progress: Progress | None = None
) -> Evaluation:
    """Judge INT8 beside FP32 on the same samples.

    Args:
        task: Model, data, labels and metric.
        under: What is evaluated; ``None``: entropy calibration on the task's data.
        folder: Where the result is to stand; paths are told relative to it.
        progress: Called with (samples done, samples in all or ``None``), for calibration and judging each.

    Raises:
        CacheMismatchError: If the cache has a scale for nothing that could be quantized.
        TrtcalibError: One of its kinds, for input that cannot be used.
    """
    under = under or Under()
    opened = open_task(task)
    reference = ModelRunner(opened.graph)
    if under.engine is not None:
        with open_engine(under.engine, opened.graph) as engine:
            (judged,) = judge(reference, [engine], opened.samples, workers=1, progress=progress)
        return _evaluation(opened, judged, _Variant(method="an engine"), under, Path(folder))
    variant = _variant(opened, under, progress)
    runner = ModelRunner(variant.graph)
    (judged,) = judge(reference, [runner], opened.samples, workers=task.workers, progress=progress)
    return _evaluation(opened, judged, variant, under, Path(folder))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Variant:
    """What is judged.

    Attributes:
        method: How its scales were chosen, for people.
        calibration: Where they come from, if not from a cache.
        notes: What was odd in the cache, one sentence each.
        plan: What is quantized.
        model: The simulated model.
    """

    method: str
    calibration: Calibration | None = None
    notes: tuple[str, ...] = ()
    plan: Plan | None = None
    model: ModelGraph | None = None

    @property
    def graph(self) -> ModelGraph:
        assert self.model is not None  # for the type checker: only an engine has none
        return self.model


def _variant(opened: OpenTask, under: Under, progress: Progress | None) -> _Variant:
    simulation = Simulation(opened.graph)
    notes: tuple[str, ...] = ()
    if under.cache is not None:
        read = read_inputs(opened.graph.path, under.cache, under.names)
        scales, method, calibration = read.scales, f"cache {portable_name(under.cache.name)}", None
        known = simulation.prepared.wiring.names.union(tensor.name for tensor in opened.graph.tensors)
        notes = (*read.cache.notes, *_stale(scales, known))
    else:
        calibration = opened.calibrate(under.calibrator, progress)
        scales, method = calibration.scales, describe(calibration.recipe)
    plan = simulation.plan(Choice(scales=scales))
    check_quantized(opened.graph, plan, under.cache)
    return _Variant(method=method, calibration=calibration, notes=notes, plan=plan, model=simulation.model(plan))


def _stale(scales: Mapping[str, np.float32], known: Collection[str]) -> Iterator[str]:
    stale = [name for name in scales if name not in known]
    if stale:
        yield (
            f"{len(stale)} of the cache's {len(scales)} names are no tensors of the model, the first {brief(portable_name(stale[0]))}: "
            "trtcalib cache lint --model lists them, --names maps names that TensorRT's parser made"
        )


def _evaluation(opened: OpenTask, judged: Judged, variant: _Variant, under: Under, folder: Path) -> Evaluation:
    metric = opened.metric
    right = (
        (judged.reference_scores > 0, judged.scores > 0)
        if right_or_wrong(metric, judged.reference_scores, judged.scores)
        else None
    )
    plan = variant.plan
    facts = opened.facts(variant.calibration, folder)
    facts["notes"] += variant.notes
    return Evaluation(
        **facts,
        simulated=plan is not None,
        reference=reference_score(judged, metric),
        variant=VariantFacts(method=variant.method, activations=True, weights="channel"),
        cache=_told(under.cache, folder),
        engine=_told(under.engine, folder),
        judgement=judgement(judged, metric),
        only_reference=None if right is None else int((right[0] & ~right[1]).sum()),
        only_variant=None if right is None else int((right[1] & ~right[0]).sum()),
        classes=_classes(opened, judged),
        quantized=None if plan is None else len(plan.weighted),
        weighted=None if plan is None else plan.of,
    )


def _told(path: Path | None, folder: Path) -> str | None:
    return None if path is None else portable_name(portable_path(path.resolve(), folder.resolve()))


def _classes(opened: OpenTask, judged: Judged) -> list[ClassScore]:
    """Return how each class does, where samples are right or wrong and have a class."""
    labels = opened.samples.labels
    if labels is None or not isinstance(opened.metric, Top):
        return []
    classes, which = np.unique(labels.values[: len(judged.scores)], return_inverse=True)
    samples = np.bincount(which)
    reference = np.bincount(which, judged.reference_scores).astype(int)
    right = np.bincount(which, judged.scores).astype(int)
    return [
        ClassScore(
            label=int(label),
            samples=int(n),
            reference=int(first),
            reference_interval=as_range(wilson(int(first), int(n))),
            right=int(second),
            interval=as_range(wilson(int(second), int(n))),
        )
        for label, n, first, second in zip(classes, samples, reference, right, strict=True)
    ]
