"""One command that says what to do: inputs, method, batch size, layers, samples; each advice tried before it is given."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from trtcalib.accuracy.ablation import AblationViews, ablate
from trtcalib.accuracy.result import Ablation, AblationRow, Advice, AdviceItem, Sensitivity
from trtcalib.accuracy.sensitivity import SensitivityViews, measure_sensitivity
from trtcalib.accuracy.study_folder import result_folder
from trtcalib.accuracy.task import OpenTask, Task, open_task
from trtcalib.advising.commands import CACHE, Commands, commands_for
from trtcalib.advising.given import Given
from trtcalib.advising.items import (
    BatchSize,
    items_of_batches,
    items_of_inputs,
    items_of_layers,
    items_of_method,
    items_of_samples,
    items_of_the_loss,
)
from trtcalib.advising.remedies import (
    Prepared,
    Tried,
    judge_recipe,
    prepare_both,
    prepare_calibration,
    search_task,
    without_samples,
)
from trtcalib.batch_study.result import OutlierSample, Study
from trtcalib.batch_study.study import study
from trtcalib.files import write_files
from trtcalib.judging.paired import gain, gain_interval
from trtcalib.passes import Progress
from trtcalib.samples.sources import open_source
from trtcalib.specs import load_recipe, recipe_of

__all__ = ["CACHE", "MAX_LOSS", "RESULT", "Views", "advise", "choose_method"]

RESULT = "advice.json"

MAX_LOSS = 0.01
"""What INT8 may lose, in the metric's own terms: a point of a hundred, or 20 dB. Ours; the literature calls a point acceptable."""

USUAL = "entropy"
"""What TensorRT users get who choose nothing."""

_STRETCH = 2.0
"""How much larger than in all other samples a maximum must be for its sample to be looked at; ours: half the levels are lost to it."""

_MOST_SAMPLES = 3

_ORDERS = 2
"""Shuffled orders per batch size in the study that is made here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Views:
    """Make further files from finished results, by name; ``None``: none."""

    ablation: AblationViews | None = None
    sensitivity: SensitivityViews | None = None
    advice: Callable[[Advice], Mapping[str, bytes]] | None = None


def advise(  # noqa: PLR0913 - the public call names every choice that changes the result
    task: Task,
    output: Path | str,
    *,
    max_loss: float = MAX_LOSS,
    given: Sequence[Path] = (),
    views: Views | None = None,
    progress: Progress | None = None,
    tell: Callable[[str], None] | None = None,
) -> Advice:
    """Find out what to do about INT8's loss, try it, and say it.

    Makes what was not given: a study of batch sizes, an ablation of methods, a sensitivity ranking. Samples are held out for all judging
    unless ``eval_data`` are given. Nodes to leave in float are searched on calibration samples, so that the judged ones have no part in the choice
    that they judge.

    Args:
        task: Model, data, labels and metric.
        output: Folder for ``advice.json``, ``advised.cache`` with its manifest, and what was made.
        max_loss: What INT8 may lose, in the metric's own terms.
        given: Results of study, ablate and sensitivity, as files or folders, to rest on instead of making them.
        views: Make further files.
        progress: Called with (samples done, samples in all or ``None``), for each step anew.
        tell: Called with a sentence as each step begins.

    Raises:
        SpecError: If a given result is of another model, or judged by another metric.
        TrtcalibError: One of its kinds, for input that cannot be used.
    """
    say = tell or (lambda _: None)
    folder = Path(output)
    commands = commands_for(task, folder, max_loss)
    task = replace(task, hold_out=True)
    opened = open_task(task)
    results = Given.read(given, opened)
    with result_folder(folder, [RESULT, CACHE, f"{CACHE}.json"], task):
        say("entropy, everything in INT8")
        before = judge_recipe(task, USUAL)
        say("the inputs")
        prepared = _inputs(opened, before)
        if prepared is not None:
            task = replace(prepared.after.task, hold_out=True)
        now = before if prepared is None else prepared.after
        job = _Job(task, folder, max_loss, now, views or Views(), progress)
        say("batch sizes and orders")
        studied = results.study or (job.study() if _has_batches(opened) else None)
        say("methods")
        ablation = results.ablation or ablate(task, folder, views=job.views.ablation, progress=progress)
        method = choose_method(ablation, max_loss)
        say("layers")
        sensitivity = results.sensitivity or job.sensitivity(ablation, method)
        say("samples, and everything together")
        found = _Found(prepared, job.samples(studied), studied, ablation, method, sensitivity)
        after, items = job.items(found, commands)
        result = Advice(
            **_facts(opened, before, folder),
            reference=before.reference,
            before=before.scored.judgement,
            after=None if after is None else after.scored.judgement,
            items=items,
            sources=results.sources(folder, studied=studied is not None),
        )
        job.write(result, after or now)
        return result


def _inputs(opened: OpenTask, before: Tried) -> Prepared | None:
    """Return the preparation of the inputs that is missing, if one is seen to help."""
    findings = before.calibration.findings
    return prepare_both(opened, before, findings, USUAL) or prepare_calibration(
        opened, before, before.calibration.inputs, USUAL
    )


def _has_batches(opened: OpenTask) -> bool:
    """Whether samples can be grouped in batches, which whole feeds of a model without a batch axis cannot."""
    source = open_source(opened.calibration_data, opened.graph.inputs, skip_bad_images=opened.task.skip_bad_images)
    return not source.whole or opened.graph.fixed_batch is not None


@dataclass(frozen=True, slots=True)
class _Found:
    """Everything that advice rests on."""

    prepared: Prepared | None
    samples: tuple[list[OutlierSample], Tried | None]
    study: Study | None
    ablation: Ablation
    method: str
    sensitivity: Sensitivity

    @property
    def row(self) -> AblationRow:
        """What the method comes to."""
        return next(row for row in self.ablation.rows if row.method == self.method)


@dataclass(frozen=True, slots=True)
class _Job:
    """The steps; the inputs are prepared as advised."""

    task: Task
    folder: Path
    max_loss: float
    now: Tried
    views: Views
    progress: Progress | None

    def study(self) -> Study:
        opened = open_task(self.task)
        batching = self.task.batching
        return study(
            self.task.model,
            opened.calibration_data,
            self.folder / "study",
            batch_sizes=[8, 32, "all"] if opened.graph.fixed_batch is None else None,
            orders=_ORDERS if (opened.graph.fixed_batch or 1) == 1 else 0,
            max_samples=batching.max_samples,
            skip_bad_images=self.task.skip_bad_images,
            workers=self.task.workers,
            progress=self.progress,
        )

    def sensitivity(self, ablation: Ablation, method: str) -> Sensitivity:
        """Rank the nodes: under the method that is advised where it loses too much, else under the usual one, whose loss it explains."""
        row = next(row for row in ablation.rows if row.method == method)
        recipe = recipe_of(row.recipe) if row.cells[-1].judgement.loss > self.max_loss else load_recipe(USUAL)
        return measure_sensitivity(
            search_task(open_task(self.task)),
            self.folder,
            calibrator=recipe,
            max_loss=self.max_loss,
            views=self.views.sensitivity,
            progress=self.progress,
        )

    def samples(self, studied: Study | None) -> tuple[list[OutlierSample], Tried | None]:
        """Return the samples that stretch ranges, and what happens without them."""
        found = [] if studied is None else studied.summary.outliers
        outliers = [sample for sample in found if sample.stretch is None or sample.stretch >= _STRETCH][:_MOST_SAMPLES]
        if not outliers:
            return [], None
        opened = open_task(self.task)
        return outliers, without_samples(opened, self.task, [sample.sample for sample in outliers], USUAL)

    def items(self, found: _Found, commands: Commands) -> tuple[Tried | None, list[AdviceItem]]:
        """Return everything together, judged, and what to do about it, most important first."""
        metric = found.ablation.metric
        outliers, fewer = found.samples
        helps = fewer is not None and gain_interval(self.now.scored, fewer.scored, open_task(self.task).metric).low > 0
        task = fewer.task if helps and fewer is not None else self.task
        plain, after, tried = self._together(found, task)
        items = []
        if after is not plain and after is not None:
            base = found.row.cells[-1].judgement.loss if plain is None else plain.scored.judgement.loss
            layers = items_of_layers(found.sensitivity, found.row.recipe, after, commands)
            items += [(base - after.scored.judgement.loss, 1, item) for item in layers]
        method = items_of_method(found.ablation, found.method, found.sensitivity, commands, self.max_loss)
        items += [(self.now.scored.judgement.loss - found.row.cells[-1].judgement.loss, 2, item) for item in method]
        if outliers:
            samples = items_of_samples(outliers, self.now, fewer, commands, metric, helps=helps)
            items += [
                (gain(self.now.scored, fewer.scored) if helps and fewer else 0.0, 0 if helps else 3, i) for i in samples
            ]
        ranked = [item for _, _, item in sorted(items, key=lambda each: (-round(each[0], 9), each[1]))]
        first = [] if found.prepared is None else list(items_of_inputs(found.prepared, commands, metric))
        last = list(self._batches(found, plain or self.now, commands))
        ends = after or plain or self.now
        if ends.scored.judgement.loss > self.max_loss or not (first or items):
            last.insert(0, items_of_the_loss(ends, tried, found.method, commands, metric, self.max_loss))
        changed = after or plain or (self.now if found.prepared else None)
        return changed, [*first, *ranked, *last]

    def _together(self, found: _Found, task: Task) -> tuple[Tried | None, Tried | None, Tried | None]:
        """Return the method on the task, if anything changed; the same with nodes in float, where that is seen to help; and what was tried."""
        recipe, fallback = recipe_of(found.row.recipe), found.sensitivity.fallback
        plain = judge_recipe(task, recipe) if found.method != USUAL or task is not self.task else None
        base = self.now if plain is None else plain
        if fallback is None or base.scored.judgement.loss <= self.max_loss:
            return plain, plain, None
        tried = judge_recipe(task, recipe, fallback.outputs)
        lowest = gain_interval(base.scored, tried.scored, open_task(self.task).metric).low
        suffices = tried.scored.judgement.loss <= self.max_loss and gain(base.scored, tried.scored) > 0
        return plain, tried if lowest > 0 or suffices else plain, tried

    def _batches(self, found: _Found, before: Tried, commands: Commands) -> Iterator[AdviceItem]:
        """Advise a batch size where scales move with it, after trying what it does to the loss."""
        studied, row = found.study, found.row
        if studied is None or found.method == "minmax" or studied.summary.score == 1:
            return
        size = studied.summary.stable_batch_size
        samples = max(each.batch_size for each in studied.configurations)
        tried, helps = None, False
        if size is not None and min(before.calibration.provenance.batching.batch_size, samples) < size:
            batching = replace(before.task.batching, batch_size=size)
            tried = judge_recipe(replace(before.task, batching=batching), recipe_of(row.recipe))
            helps = gain_interval(before.scored, tried.scored, open_task(self.task).metric).low > 0
        given = self._everything() if size == samples else size
        facts = BatchSize(given, found.method, row.recipe, before, tried, helps)
        yield from items_of_batches(studied, facts, commands, found.ablation.metric)

    def _everything(self) -> int | None:
        """Return how many samples the user's data hold, those that are held out here included."""
        opened = open_task(self.task)
        size = open_source(self.task.data, opened.graph.inputs, skip_bad_images=self.task.skip_bad_images).size()
        if size is None:
            return None
        most = self.task.batching.max_samples or size
        return min(size, most) - min(size, most) % (opened.graph.fixed_batch or 1)

    def write(self, result: Advice, after: Tried) -> None:
        """Write the advice, and the cache that it ends at with its manifest."""
        text = f"{result.model_dump_json(indent=2)}\n".encode()
        more = {} if self.views.advice is None else self.views.advice(result)
        files = {self.folder / name: content for name, content in {RESULT: text, **more}.items()}
        write_files(files | after.calibration.files(self.folder / CACHE))


def choose_method(ablation: Ablation, max_loss: float) -> str:
    """Return the method to take: the usual one where none is seen to do better, unless the best alone is within what may be lost."""
    losses = {row.method: row.cells[-1].judgement.loss for row in ablation.rows}
    if USUAL not in (ablation.best, *ablation.indistinguishable) or USUAL not in losses:
        return ablation.best
    return ablation.best if losses[ablation.best] <= max_loss < losses[USUAL] else USUAL


def _facts(opened: OpenTask, before: Tried, folder: Path) -> dict[str, Any]:
    """Return what a result starts with."""
    opened.samples.batches.seen = before.scored.samples.shape[1]
    return opened.facts(before.calibration, folder)
