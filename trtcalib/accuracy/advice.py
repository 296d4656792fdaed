"""One command that says what to do: inputs, method, batch size, layers, samples; each advice tried before it is given."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from trtcalib.accuracy.ablation import AblationViews, ablate
from trtcalib.accuracy.advice_items import (
    Commands,
    items_of_batches,
    items_of_inputs,
    items_of_layers,
    items_of_method,
    items_of_samples,
    loss_text,
)
from trtcalib.accuracy.paired import gain, gain_interval
from trtcalib.accuracy.remedies import Prepared, Tried, judge_recipe, prepare_both, prepare_calibration, without_samples
from trtcalib.accuracy.result import Ablation, Advice, AdviceItem, Sensitivity
from trtcalib.accuracy.sensitivity import measure_sensitivity
from trtcalib.accuracy.task import OpenTask, Task, open_task
from trtcalib.batch_study.result import OutlierSample, Study
from trtcalib.batch_study.study import study
from trtcalib.errors import SpecError
from trtcalib.files import make_folder, write_files
from trtcalib.manifest import portable_path
from trtcalib.passes import Progress
from trtcalib.reports.inputs import read_results
from trtcalib.specs import load_recipe, recipe_of

__all__ = ["CACHE", "MAX_LOSS", "RESULT", "Views", "advise"]

RESULT = "advice.json"

CACHE = "advised.cache"

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
    sensitivity: Callable[[Sensitivity], Mapping[str, bytes]] | None = None
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
    unless ``eval_data`` are given.

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
    commands = _commands(task, folder)
    task = replace(task, hold_out=True)
    opened = open_task(task)
    results = _Given(given, opened)
    make_folder(folder)
    say("entropy, everything in INT8")
    before = judge_recipe(task, USUAL)
    say("the inputs")
    prepared = _inputs(opened, before)
    if prepared is not None:
        task = replace(prepared.after.task, hold_out=True)
    now = before if prepared is None else prepared.after
    job = _Job(task, folder, max_loss, now, views or Views(), progress)
    say("batch sizes and orders")
    studied = results.study or job.study()
    say("methods")
    ablation = results.ablation or ablate(task, folder, views=job.views.ablation, progress=progress)
    method = _method(ablation, max_loss)
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
        sources=_sources(results, folder),
    )
    job.write(result, after or now)
    return result


def _commands(task: Task, folder: Path) -> Commands:
    """Return how the user named things; data that have no name on a command line get a placeholder."""
    data = _word(task.data)
    judged = ["--data", data]
    judged += ["--hold-out"] if task.eval_data is None else ["--eval-data", _word(task.eval_data)]
    if task.labels is not None:
        judged += ["--labels", _word(task.labels)]
    if isinstance(task.metric, str):
        judged += ["--metric", task.metric]
    if task.output is not None:
        judged += ["--output-name", task.output]
    grouped = {
        "--batch-size": task.batching.batch_size,
        "--max-samples": task.batching.max_samples,
        "--shuffle": task.batching.shuffle,
    }
    options = [text for name, value in grouped.items() if value is not None for text in (name, str(value))]
    return Commands(str(task.model), (*judged, *options), ("--data", data, *options), str(folder))


def _word(given: Any) -> str:
    return str(given) if isinstance(given, str | Path) else "DATA"


def _inputs(opened: OpenTask, before: Tried) -> Prepared | None:
    """Return the preparation of the inputs that is missing, if one is seen to help."""
    findings = before.calibration.findings
    return prepare_both(opened, before, findings, USUAL) or prepare_calibration(
        opened, before, before.calibration.inputs, USUAL
    )


class _Given:
    """Results that were given, held against the task.

    Attributes:
        study: ``None`` where none was given.
        ablation: Likewise.
        sensitivity: Likewise.
        paths: Where they stand, by kind.
    """

    def __init__(self, given: Sequence[Path], opened: OpenTask) -> None:
        self.study: Study | None = None
        self.ablation: Ablation | None = None
        self.sensitivity: Sensitivity | None = None
        self.paths: dict[str, Path] = {}
        found = read_results(given)
        model = opened.facts(None, Path()).get("model")
        digest = None if model is None else model.sha256
        for file in found.studies:
            self._check(file.path, file.study.model.sha256, digest)
            self.study, self.paths["study"] = file.study, file.path
        for result in found.accuracy:
            if isinstance(result.result, Ablation | Sensitivity):
                self._check(result.path, result.result.model.sha256, digest)
                self._check_metric(result.path, result.result.metric.name, opened.metric.name)
                self.paths[result.result.kind] = result.path
            if isinstance(result.result, Ablation):
                self.ablation = result.result
            elif isinstance(result.result, Sensitivity):
                self.sensitivity = result.result

    def _check(self, path: Path, found: str, wanted: str | None) -> None:
        if found != wanted:
            raise SpecError(path, ("is of another model: its sha256 differs; make it again, or leave it out",))

    def _check_metric(self, path: Path, found: str, wanted: str) -> None:
        if found != wanted:
            raise SpecError(
                path,
                (f"judges by {found}, and the advice is to be by {wanted}: give --metric {found}, or leave it out",),
            )


@dataclass(frozen=True, slots=True)
class _Found:
    """Everything that advice rests on."""

    prepared: Prepared | None
    samples: tuple[list[OutlierSample], Tried | None]
    study: Study
    ablation: Ablation
    method: str
    sensitivity: Sensitivity


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
            self.task, self.folder, calibrator=recipe, max_loss=self.max_loss, progress=self.progress
        )

    def samples(self, studied: Study) -> tuple[list[OutlierSample], Tried | None]:
        """Return the samples that stretch ranges, and what happens without them."""
        outliers = [
            sample for sample in studied.summary.outliers if sample.stretch is None or sample.stretch >= _STRETCH
        ][:_MOST_SAMPLES]
        if not outliers:
            return [], None
        opened = open_task(self.task)
        return outliers, without_samples(opened, self.task, [sample.sample for sample in outliers], USUAL)

    def items(self, found: _Found, commands: Commands) -> tuple[Tried | None, list[AdviceItem]]:
        """Return everything together, judged, and what to do about it, most important first."""
        metric, opened = found.ablation.metric, open_task(self.task)
        outliers, fewer = found.samples
        helps = fewer is not None and gain_interval(self.now.scored, fewer.scored, opened.metric).low > 0
        task = fewer.task if helps and fewer is not None else self.task
        row = next(row for row in found.ablation.rows if row.method == found.method)
        fallback = found.sensitivity.fallback if row.cells[-1].judgement.loss > self.max_loss else None
        after = None
        if helps or found.method != USUAL or fallback is not None:
            after = judge_recipe(task, recipe_of(row.recipe), () if fallback is None else fallback.outputs)
        items = []
        if fallback is not None:
            items += [
                (gain(self.now.scored, after.scored) if after else 0.0, 1, i)
                for i in items_of_layers(found.sensitivity, after, commands)
            ]
        method = items_of_method(found.ablation, found.method, found.sensitivity, commands, self.max_loss)
        items += [(self.now.scored.judgement.loss - row.cells[-1].judgement.loss, 2, item) for item in method]
        if outliers:
            samples = items_of_samples(outliers, self.now, fewer, commands, metric, helps=helps)
            items += [
                (gain(self.now.scored, fewer.scored) if helps and fewer else 0.0, 0 if helps else 3, i) for i in samples
            ]
        ranked = [item for _, _, item in sorted(items, key=lambda each: (-round(each[0], 9), each[1]))]
        first = [] if found.prepared is None else list(items_of_inputs(found.prepared, commands, metric))
        last = list(items_of_batches(found.study, found.method, commands))
        if not first and not items:
            last.insert(0, self._fine(found, commands))
        return after or (self.now if found.prepared else None), [*first, *ranked, *last]

    def _fine(self, found: _Found, commands: Commands) -> AdviceItem:
        judged = self.now.scored.judgement
        between = judged.loss_interval
        evidence = [f"entropy loses {loss_text(found.ablation.metric, judged.loss)}"]
        if between is not None and between.low is not None and between.high is not None:
            evidence.append(
                f"with 95 % confidence it lies between {loss_text(found.ablation.metric, between.low)} and {loss_text(found.ablation.metric, between.high)}: "
                "more samples would tell it more closely"
            )
        return AdviceItem(
            code="fine",
            title="Keep entropy and everything in INT8: the loss is within what was allowed",
            evidence=evidence,
            command=commands.calibrate("-o", "model.cache"),
            reproduce=commands.study("evaluate"),
            checked=judged,
        )

    def write(self, result: Advice, after: Tried) -> None:
        """Write the advice, and the cache that it ends at with its manifest."""
        text = f"{result.model_dump_json(indent=2)}\n".encode()
        more = {} if self.views.advice is None else self.views.advice(result)
        files = {self.folder / name: content for name, content in {RESULT: text, **more}.items()}
        write_files(files | after.calibration.files(self.folder / CACHE))


def _method(ablation: Ablation, max_loss: float) -> str:
    """Return the method to take: the usual one where it does well enough and none is seen to do better."""
    usual = next((row for row in ablation.rows if row.method == USUAL), None)
    alike = usual is not None and USUAL in (ablation.best, *ablation.indistinguishable)
    if usual is not None and alike and usual.cells[-1].judgement.loss <= max_loss:
        return USUAL
    return ablation.best


def _facts(opened: OpenTask, before: Tried, folder: Path) -> dict[str, Any]:
    """Return what a result starts with."""
    opened.samples.batches.seen = before.scored.samples.shape[1]
    return opened.facts(before.calibration, folder)


def _sources(results: _Given, folder: Path) -> dict[str, str]:
    """Return where the results stand that the advice rests on."""
    made = {"study": "study/study.json", "ablation": "ablation.json", "sensitivity": "sensitivity.json"}
    given = {kind: portable_path(str(path.resolve()), folder.resolve()) for kind, path in results.paths.items()}
    return made | given
