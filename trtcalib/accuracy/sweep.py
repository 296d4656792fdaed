"""The best recipe for one model: found on the calibration samples, judged on samples that were held out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from trtcalib.accuracy.result import Candidate, MetricFacts, Score, Sweep
from trtcalib.accuracy.rounds import Rounds, Steps
from trtcalib.accuracy.search import BASELINE, Search, Tried
from trtcalib.accuracy.simulation import Choice, Simulation, check_quantized
from trtcalib.accuracy.study_folder import open_journal, result_folder
from trtcalib.accuracy.task import OpenTask, Task, open_task
from trtcalib.accuracy.used_scales import used_part
from trtcalib.calibration import DEFAULT_TENSORRT, Calibration, solve
from trtcalib.core.cache import encode_version, format_cache
from trtcalib.core.intervals import Interval
from trtcalib.edit_record import ChosenBy
from trtcalib.errors import SpecError
from trtcalib.files import sha256_of_bytes, write_files
from trtcalib.judging.judge import JudgedSamples
from trtcalib.judging.judgements import as_range
from trtcalib.judging.paired import Scored, gain, gain_interval
from trtcalib.judging.scores import Metric
from trtcalib.manifest import manifest_path
from trtcalib.methods import describe
from trtcalib.passes import Progress
from trtcalib.provenance import portable_name
from trtcalib.specs import Recipe

__all__ = ["BUDGET", "CACHE", "JOURNAL", "RESULT", "SweepViews", "sweep"]

BUDGET = 40
"""Candidates that are judged, where the caller does not say. All of the coarse grid and three refinements are fewer. Ours."""

RESULT = "sweep.json"

CACHE = "winner.cache"

JOURNAL = "sweep.journal"
"""What is judged already, in the result's folder while the job is under way."""

SweepViews = Callable[[Sweep], Mapping[str, bytes]]
"""Gives further files for the folder, by name, from the finished result."""

_TIES_NOTE = "of candidates that the metric cannot tell apart, the one with the highest SQNR of the judged outputs wins"

_SEARCHED, _HELD_OUT = "searched: ", "held out: "
"""What the journal calls the two sets of samples."""

_FINALISTS = ("baseline", "winner")
"""What is judged on the held-out samples."""


def sweep(
    task: Task,
    output: Path | str,
    *,
    budget: int = BUDGET,
    tensorrt_version: str = DEFAULT_TENSORRT,
    views: SweepViews | None = None,
    progress: Progress | None = None,
) -> Sweep:
    """Find the recipe that suits a model best, and write its calibration cache.

    Candidates are the four variants of entropy, minmax, mse, and percentiles from 99 to 100 on a grid of ``log10(1 - p)`` that is refined
    around the best. They are compared on the calibration samples by the metric of the whole model with everything in INT8; where it cannot tell
    two apart, the SQNR of the judged outputs decides, and of equals the first. Candidates with the scales of one that was judged are not
    judged again.

    The winner and entropy are then judged on samples that neither the scales nor the choice have seen: ``task.eval_data``, else every fourth
    sample, which is left out of the calibration. ``winner.cache`` holds the scales that were judged. What is judged is noted in
    ``sweep.journal``, from which the same call goes on after an interruption; not where the judged data come from a function.

    Args:
        task: Model, data, labels and metric.
        output: Folder for ``sweep.json``, ``winner.cache`` and its manifest.
        budget: Candidates that are judged, at most; with 1 entropy alone.
        tensorrt_version: The TensorRT that is to read the cache.
        views: Makes more files, which are written together with the result.
        progress: Called with (samples done, samples in all or ``None``), each variant's samples counted; it may end early.

    Raises:
        SpecError: If the budget is below 1.
        DataError: If no sample can be held out.
        ModelError: If the model has no weighted node.
        OutputError: If the results cannot be written.
        TrtcalibError: One of its kinds, for input that cannot be used.
    """
    if budget < 1:
        raise SpecError("budget", (f"found {budget}, expected at least 1 evaluation",))
    encode_version(tensorrt_version)
    opened = open_task(task, split=True)
    simulation = Simulation(opened.graph)
    empty = simulation.plan(Choice(scales={}))
    if empty.of == 0:
        check_quantized(opened.graph, empty)
    folder = Path(output)
    extra = [f"sweep.{kind}" for kind in ("md", "png")] if views is not None else []
    with result_folder(folder, [RESULT, CACHE, manifest_path(CACHE).name, JOURNAL, *extra], task):
        job = _Job(opened, simulation, folder, tensorrt_version)
        return job.run(budget, views, progress)


@dataclass(frozen=True, slots=True)
class _Job:
    """A sweep whose inputs are ready."""

    opened: OpenTask
    simulation: Simulation
    folder: Path
    tensorrt_version: str

    def run(self, budget: int, views: SweepViews | None, progress: Progress | None) -> Sweep:
        """Calibrate, search, judge, write."""
        opened, simulation = self.opened, self.simulation
        searched, held = opened.calibration_samples(), opened.samples
        sizes = searched.batches.samples, held.batches.samples
        ahead = None if sizes[0] is None or sizes[1] is None else budget * sizes[0] + len(_FINALISTS) * sizes[1]
        steps = Steps(progress, ahead)
        calibration = opened.calibrate(BASELINE, steps.calibration)
        used = used_part(calibration, simulation)
        check_quantized(opened.graph, simulation.plan(Choice(scales=used.scales)))
        with open_journal(self.folder / JOURNAL, opened, used.histograms) as journal:
            comparing = Rounds(opened.graph, searched, journal, opened.task.workers, steps)
            search = Search(used, simulation, partial(comparing.judge, part=_SEARCHED), budget)
            best = search.run()
            judging = Rounds(opened.graph, held, journal, opened.task.workers, steps)
            finals = _judge_finalists(judging, simulation, search.tried[0], best)
            found = _Found(opened, calibration, searched, search, best, finals, judging.reference)
            result = found.result(self.folder)
            write_files(self._files(result, found, views))
        return result

    def _files(self, result: Sweep, found: _Found, views: SweepViews | None) -> dict[Path, bytes]:
        """Return everything that is to stand in the folder; the cache's manifest names the result by its digest."""
        content = f"{result.model_dump_json(indent=2)}\n".encode()
        path = self.folder / CACHE
        winner = solve(found.calibration, found.best.recipe)
        manifest = winner.manifest(path, self.tensorrt_version).model_copy(
            update={"chosen_by": found.chosen_by(result, sha256_of_bytes(content))}
        )
        files = {
            self.folder / RESULT: content,
            path: format_cache(winner.cache(self.tensorrt_version)),
            manifest_path(path): f"{manifest.model_dump_json(indent=2)}\n".encode("utf-8", "backslashreplace"),
        }
        return files | {self.folder / name: each for name, each in (views(result) if views else {}).items()}


def _judge_finalists(judging: Rounds, simulation: Simulation, baseline: Tried, best: Tried) -> tuple[Scored, Scored]:
    """Judge baseline and winner on the held-out samples; once where they are the same."""
    plans = dict.fromkeys(_FINALISTS, baseline.plan) | {_FINALISTS[1]: best.plan}
    keys = {role: tried.recipe.model_dump_json() for role, tried in zip(_FINALISTS, (baseline, best), strict=True)}
    scored = judging.judge(
        {keys[role]: partial(simulation.model, plan) for role, plan in plans.items()},
        part=_HELD_OUT,
    )
    return scored[keys[_FINALISTS[0]]], scored[keys[_FINALISTS[1]]]


@dataclass(frozen=True, slots=True)
class _Found:
    """What came of the search and of the judging."""

    opened: OpenTask
    calibration: Calibration
    searched: JudgedSamples
    search: Search
    best: Tried
    finals: tuple[Scored, Scored]
    reference: Score | None

    def result(self, folder: Path) -> Sweep:
        """Put the result together."""
        metric = self.opened.metric
        between = self._interval()
        facts = self.opened.facts(self.calibration, folder)
        made = facts["calibration"]
        assert self.reference is not None  # for the type checker: both were judged
        baseline, winner = self.finals
        return Sweep(
            **{**facts, "notes": [*facts["notes"], *self._notes(between)]},
            reference=self.reference,
            searched=made.model_copy(update={"samples": self.searched.batches.seen}),
            search_metric=None if self.searched.metric.name == metric.name else _metric_facts(self.searched.metric),
            candidates=[_candidate(tried.recipe, tried.scored) for tried in self.search.tried],
            evaluations=len(self.search.tried) + len({id(each) for each in self.finals}),
            baseline=_candidate(BASELINE, baseline),
            winner=_candidate(self.best.recipe, winner),
            gain=gain(baseline, winner),
            gain_interval=as_range(between),
            is_significant=between.low > 0,
            cache=CACHE,
        )

    def chosen_by(self, result: Sweep, sha256: str) -> ChosenBy:
        """Return what the cache's manifest tells of this sweep."""
        return ChosenBy(
            study="sweep",
            file=RESULT,
            file_sha256=sha256,
            metric=result.metric.name,
            candidates=len(result.candidates),
            baseline=result.baseline.method,
            gain=result.gain,
            is_significant=result.is_significant,
            samples=result.evaluation.samples,
        )

    def _interval(self) -> Interval:
        baseline, winner = self.finals
        return Interval(0.0, 0.0) if baseline is winner else gain_interval(baseline, winner, self.opened.metric)

    def _notes(self, between: Interval) -> Iterator[str]:
        yield from self.search.notes()
        yield _TIES_NOTE
        if self.searched.metric.name != self.opened.metric.name:
            yield (
                f"the calibration samples have no labels, so that candidates were compared by {self.searched.metric.name}, and not by "
                f"{self.opened.metric.name}"
            )
        samples = self.opened.samples.batches.seen
        if self.best is self.search.tried[0]:
            yield "no candidate did better than entropy, whose scales winner.cache holds"
        elif between.low <= 0:
            yield (
                f"the gain over entropy lies within its 95 % confidence interval: {samples} held-out samples cannot tell it from chance, so "
                "that there is no reason yet to prefer winner.cache to entropy's"
            )


def _candidate(recipe: Recipe, scored: Scored) -> Candidate:
    return Candidate(
        method=portable_name(describe(recipe)),
        recipe=recipe.model_dump(mode="json"),
        judgement=scored.judgement,
    )


def _metric_facts(metric: Metric) -> MetricFacts:
    output = getattr(metric, "output", None)
    return MetricFacts(
        name=metric.name, output=None if output is None else portable_name(output), is_share=metric.is_share
    )
