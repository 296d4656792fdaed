"""Remedies that are tried before they are advised: another preparation of the inputs, calibration samples left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from trtcalib.accuracy.result import Score
from trtcalib.accuracy.simulation import Choice, Simulation, check_quantized
from trtcalib.accuracy.task import OpenTask, Task, open_task
from trtcalib.calibration import Calibration
from trtcalib.core.intervals import compare_shares
from trtcalib.input_checks import compare_inputs, likely_factor
from trtcalib.input_preparation import Preparation, usual_preparations
from trtcalib.input_statistics import InputStatistics
from trtcalib.judging.judge import ModelRunner, judge
from trtcalib.judging.judgements import reference_score
from trtcalib.judging.labels import stated_labels
from trtcalib.judging.paired import Scored, gain, gain_interval
from trtcalib.judging.scores import Outputs, Top
from trtcalib.manifest import Finding
from trtcalib.onnx_graph import read_model
from trtcalib.samples.chosen_source import ChosenSource
from trtcalib.samples.feeds import DataSource, Feed
from trtcalib.samples.prepared_source import PreparedSource
from trtcalib.samples.sources import open_source
from trtcalib.specs import Recipe

__all__ = [
    "Prepared",
    "Tried",
    "judge_recipe",
    "prepare_both",
    "prepare_calibration",
    "search_task",
    "without_samples",
]

_DOUBTFUL = 0.9
"""FP32's share of right samples below which other preparations of the inputs are tried; ours. Where it is right that the model is no
better, this costs some passes of FP32."""

_SPREAD = 2.0
"""How many times the standard deviation of the others' inputs makes another preparation worth a try; ours: the usual mistakes make 2 and
more, two draws of the same data much less."""

_CERTAIN = 0.001
"""McNemar's p below which FP32 is said to be better with another preparation; ours, strict, since several are tried."""


@dataclass(frozen=True, slots=True)
class Tried:
    """A recipe on some calibration samples, judged.

    Attributes:
        scored: With everything in INT8.
        reference: FP32's score on the same samples.
        task: What it was judged on and calibrated with.
        calibration: The scales.
        float_outputs: First outputs of the nodes that were left in float.
    """

    scored: Scored
    reference: Score
    task: Task
    calibration: Calibration
    float_outputs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Prepared:
    """Inputs prepared another way, which helps.

    Attributes:
        finding: What gave it away, or ``None``: FP32's own score alone.
        name: The input.
        preparation: What is missing.
        after: With it.
        reference: FP32's score without it and with it; ``None`` where the judged samples were right.
    """

    finding: Finding | None
    name: str
    preparation: Preparation
    after: Tried
    reference: tuple[float, float] | None = None


def judge_recipe(task: Task, recipe: str | Recipe, float_outputs: Sequence[str] = ()) -> Tried:
    """Calibrate with a recipe and judge everything in INT8 but some nodes, given by their first outputs.

    Raises:
        TrtcalibError: As evaluate.
    """
    opened = open_task(task)
    calibration = opened.calibrate(recipe)
    simulation = Simulation(opened.graph)
    plan = simulation.plan(Choice(scales=calibration.scales, float_outputs=frozenset(float_outputs)))
    if not float_outputs:
        check_quantized(opened.graph, plan)
    runners = ModelRunner(opened.graph), ModelRunner(simulation.model(plan))
    (judged,) = judge(runners[0], [runners[1]], opened.samples, workers=task.workers)
    scored, reference = Scored.of(judged, opened.metric), reference_score(judged, opened.metric)
    return Tried(scored, reference, task, calibration, tuple(float_outputs))


def prepare_calibration(
    opened: OpenTask, before: Tried, calibrated: Sequence[InputStatistics], recipe: str
) -> Prepared | None:
    """Where calibration and judged samples were not prepared alike, try to prepare the calibration samples as the others.

    Args:
        opened: The task.
        before: Judged as the data are.
        calibrated: Statistics of the calibration inputs.
        recipe: What to calibrate with.
    """
    judged = opened.judged_inputs()
    found = []
    for finding in compare_inputs(calibrated, judged):
        ours = next(each for each in calibrated if each.name == finding.tensor)
        theirs = next(each for each in judged if each.name == finding.tensor)
        if max(ours.std, theirs.std) < _SPREAD * min(ours.std, theirs.std) or _one_sample_explains(ours, theirs):
            continue  # single values are odd, as in a broken picture, and not how all were prepared
        factor = likely_factor(theirs, ours)
        name = f"x*{factor:.4g}" if factor >= 1 else f"x/{1 / factor:.4g}"
        for preparation in (Preparation(name, factor), *usual_preparations(ours)):
            task = _prepared(before.task, ours.name, preparation, both=False)
            found.append(Prepared(finding, ours.name, preparation, judge_recipe(task, recipe)))
    better = [each for each in found if gain_interval(before.scored, each.after.scored, opened.metric).low > 0]
    return max(better, key=lambda each: gain(before.scored, each.after.scored), default=None)


def _one_sample_explains(ours: InputStatistics, theirs: InputStatistics) -> bool:
    """Whether one sample, full of the largest magnitude, could make the difference of sums and of sums of squares."""
    wide, narrow = (ours, theirs) if ours.std > theirs.std else (theirs, ours)
    largest = max(abs(wide.minimum), abs(wide.maximum))
    shift = abs(wide.mean - narrow.mean)
    excess = wide.std**2 + wide.mean**2 - narrow.std**2 - narrow.mean**2
    return shift * wide.samples <= largest and excess * wide.samples <= largest**2


def prepare_both(opened: OpenTask, before: Tried, findings: Sequence[Finding], recipe: str) -> Prepared | None:
    """Where FP32 itself does badly on labelled samples, try the usual preparations on it.

    Args:
        opened: The task.
        before: Judged as the data are.
        findings: What was odd about the calibration inputs.
        recipe: What to calibrate with.
    """
    own = before.reference.value
    odd = {finding.tensor: finding for finding in findings if finding.code.startswith("input-")}
    if not opened.metric.is_share or opened.samples.labels is None or own is None or not (odd or own < _DOUBTFUL):
        return None
    for statistics in opened.judged_inputs():
        if not statistics.channels:
            continue
        tries = usual_preparations(statistics)
        runners = [_PreparedRunner(opened, statistics.name, preparation) for preparation in tries]
        judged = judge(ModelRunner(opened.graph), runners, opened.samples, workers=opened.task.workers)
        compared = [compare_shares(each.reference_scores > 0, each.scores > 0) for each in judged]
        best = max(range(len(tries)), key=lambda i: compared[i].second)
        if compared[best].second > compared[best].first and compared[best].p_value < _CERTAIN:
            task = _prepared(before.task, statistics.name, tries[best], both=True)
            after = judge_recipe(task, recipe)
            reference = (compared[best].first, compared[best].second)
            return Prepared(odd.get(statistics.name), statistics.name, tries[best], after, reference)
    return None


def without_samples(opened: OpenTask, task: Task, names: Sequence[str], recipe: str) -> Tried | None:
    """Calibrate without some samples, and judge; ``None`` where samples cannot be chosen.

    Args:
        opened: The task as it was opened.
        task: The same, not opened.
        names: What the samples are called.
        recipe: What to calibrate with.
    """
    source = open_source(opened.calibration_data, opened.graph.inputs, skip_bad_images=task.skip_bad_images)
    if source.size() is None:
        return None
    kept = [i for i, sample in enumerate(source.samples(None)) if sample.label not in set(names)]
    if not kept:
        return None
    fewer = ChosenSource(source, kept, f"without {', '.join(names)}"[:200])
    judged_source = opened.samples.batches.source
    labels = None if opened.samples.labels is None else opened.samples.labels.values
    judged = replace(task, data=fewer, eval_data=judged_source, labels=labels, hold_out=False)
    return judge_recipe(judged, recipe)


def search_task(opened: OpenTask) -> Task:
    """Return a task that is judged on calibration samples, no more than are judged here, so that a choice can be judged on samples unseen.

    Where the metric needs labels and the calibration samples have none, FP32 says what is right; where the model's outputs are not such that
    the loss would be in the same units, it is the task itself.

    Args:
        opened: The task.
    """
    task, labels = opened.task, opened.calibration_labels
    metric = task.metric
    if opened.metric.needs_labels and labels is None:
        metric = "agreement"
        if not isinstance(opened.metric, Top):
            return task
    most = opened.samples.batches.samples
    return replace(
        task,
        data=opened.calibration_data,
        eval_data=None,
        labels=None if labels is None else labels.values,
        metric=metric,
        max_eval_samples=most,
        hold_out=False,
    )


def _prepared(task: Task, name: str, preparation: Preparation, *, both: bool) -> Task:
    """Return the task with its data prepared once more."""
    inputs = read_model(task.model).inputs

    def change(data: Any) -> DataSource:
        source = open_source(data, inputs, skip_bad_images=task.skip_bad_images)
        return PreparedSource(source, name, preparation.apply, preparation.name)

    judged = task.data if task.eval_data is None else task.eval_data
    labels = stated_labels(judged) if task.labels is None else task.labels
    evaluation = task.eval_data
    if both and evaluation is not None:
        evaluation = change(evaluation)
    return replace(task, data=change(task.data), eval_data=evaluation, labels=labels)


class _PreparedRunner:
    """FP32 on inputs that are prepared once more."""

    def __init__(self, opened: OpenTask, name: str, preparation: Preparation) -> None:
        self._runner = ModelRunner(opened.graph)
        self.outputs = self._runner.outputs
        self._name = name
        self._preparation = preparation

    def run(self, feed: Feed, source: str, label: str) -> Outputs:
        return self._runner.run({**feed, self._name: self._preparation.apply(feed[self._name])}, source, label)
