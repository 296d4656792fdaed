"""What every accuracy study starts from: the model, what is calibrated on, what is judged on, and by what."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from trtcalib import __version__
from trtcalib.accuracy.result import MetricFacts
from trtcalib.batches import Batches, Batching, plan_batches
from trtcalib.calibration import Calibration, calibrate
from trtcalib.errors import DataError
from trtcalib.input_checks import compare_inputs
from trtcalib.input_statistics import SAMPLES, InputStatistics, WatchedSource
from trtcalib.judging.judge import JudgedSamples
from trtcalib.judging.labels import Labels, class_labels, read_labels, stated_labels
from trtcalib.judging.metrics import find_metric, output_facts
from trtcalib.judging.scores import Metric, Top
from trtcalib.manifest import DataFacts, Finding, environment, portable_path
from trtcalib.onnx_graph import ModelGraph, read_model
from trtcalib.passes import Progress
from trtcalib.provenance import data_facts, model_facts, portable_name
from trtcalib.samples.chosen_source import ChosenSource
from trtcalib.samples.feeds import DataSource
from trtcalib.samples.sources import open_source
from trtcalib.specs import Recipe

__all__ = ["HELD_OUT", "OpenTask", "Task", "open_task"]

HELD_OUT = 4
"""One sample in so many is held out where no other data are given to judge on. Ours."""

_ORDINAL = "fourth"

_SPOKEN_SAMPLES = 100
"""Below so many samples a note says that a share's 95 % interval is wider than about ten points either way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What is asked.

    Attributes:
        model: The ONNX file.
        data: What is calibrated on, as for ``calibrate``; and judged on, where nothing else is given for that.
        eval_data: What is judged on; ``None``: the same data.
        labels: One per judged sample: a file or an array; ``None``: those that the dataset YAML of the judged data names.
        metric: As for :func:`~trtcalib.judging.metrics.find_metric`.
        output: The output that is scored.
        batching: How the calibration samples are grouped; its ``max_samples`` is theirs alone where ``eval_data`` is given.
        max_eval_samples: Judge only the first so many.
        hold_out: Hold every fourth sample out for the judging, where no ``eval_data`` are given.
        skip_bad_images: Leave out images that cannot be decoded.
        workers: Threads; ``None``: one per CPU. The result does not depend on it.
    """

    model: Path | str
    data: Any
    eval_data: Any = None
    labels: Any = None
    metric: str | Callable[..., Any] | None = None
    output: str | None = None
    batching: Batching = field(default_factory=Batching)
    max_eval_samples: int | None = None
    hold_out: bool = False
    skip_bad_images: bool = False
    workers: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenTask:
    """A task whose inputs were opened and fit together.

    Attributes:
        task: What is asked.
        graph: The model.
        calibration_data: For :func:`trtcalib.calibration.calibrate`.
        samples: What is judged on.
        held_out: Whether the scales are made without the judged samples.
        calibration_labels: One per calibration sample; ``None`` without.
    """

    task: Task
    graph: ModelGraph
    calibration_data: Any
    samples: JudgedSamples
    held_out: bool
    calibration_labels: Labels | None = None

    @property
    def metric(self) -> Metric:
        """What judges."""
        return self.samples.metric

    def calibrate(self, recipe: str | Path | Recipe, progress: Progress | None = None) -> Calibration:
        """Calibrate on the calibration samples.

        Raises:
            TrtcalibError: As :func:`trtcalib.calibration.calibrate`.
        """
        return calibrate(
            self.task.model,
            self.calibration_data,
            recipe,
            **asdict(self.task.batching),
            skip_bad_images=self.task.skip_bad_images,
            workers=self.task.workers,
            progress=progress,
        )

    def facts(self, calibration: Calibration | None, folder: Path) -> dict[str, Any]:
        """Return the fields of a result's :class:`~trtcalib.accuracy.result.Setting` but ``reference``, after the judging.

        Args:
            calibration: What was calibrated; ``None`` where a cache was given.
            folder: Where the result is to stand; paths are told relative to it.
        """
        versions, cpu = environment()
        model = model_facts(self.graph)
        judged = data_facts(
            self.task.data if self.task.eval_data is None else self.task.eval_data, self.samples.batches
        )
        made = None if calibration is None else calibration.provenance
        labels = self.samples.labels
        held_out = self.held_out and (made is None or made.data.sha256 != judged.sha256)
        folder = folder.resolve()
        return {
            "tool_version": __version__,
            "model": model.model_copy(update={"path": portable_path(model.path, folder)}),
            "calibration": made and self._calibration_facts(made.data, folder),
            "batching": made and made.batching,
            "evaluation": _relative(judged, folder),
            "held_out": held_out,
            "labels": None if labels is None else portable_name(Path(labels.name).name),
            "metric": MetricFacts(
                name=self.metric.name,
                output=_named(getattr(self.metric, "output", None)),
                is_share=self.metric.is_share,
            ),
            "versions": versions,
            "cpu": cpu,
            "findings": [] if calibration is None else [*calibration.findings, *self._input_findings(calibration)],
            "notes": list(self._notes(calibrated=made is not None, held_out=held_out)),
        }

    def judged_inputs(self) -> tuple[InputStatistics, ...]:
        """Return the statistics of the first judged samples, which are read for it.

        Raises:
            DataError: If they cannot be read.
        """
        watched = WatchedSource(self.samples.batches.source)
        watched.read_missing(self.samples.batches.samples or SAMPLES)
        return watched.statistics.inputs()

    def _input_findings(self, calibration: Calibration) -> Iterator[Finding]:
        """Yield where calibration and judged samples were not prepared alike."""
        if self.task.eval_data is not None:
            yield from compare_inputs(calibration.inputs, self.judged_inputs())

    def _calibration_facts(self, made: DataFacts, folder: Path) -> DataFacts:
        """Name the file where only a part of its samples was taken."""
        if isinstance(self.calibration_data, ChosenSource) and isinstance(self.task.data, str | Path):
            path = Path(self.task.data)
            if path.exists():
                made = made.model_copy(update={"path": str(path.resolve()), "is_path": True})
        return _relative(made, folder)

    def calibration_samples(self) -> JudgedSamples:
        """Return the calibration samples, to be judged by the same metric, or by FP32 alone where they have no labels.

        Raises:
            DataError: If the data cannot be used.
        """
        fixed = self.graph.fixed_batch
        source = open_source(self.calibration_data, self.graph.inputs, skip_bad_images=self.task.skip_bad_images)
        limit = None if isinstance(source, ChosenSource) else self.task.batching.max_samples
        batches: Batches = plan_batches(source, fixed, Batching(batch_size=fixed, max_samples=limit))
        metric = self.metric
        if self.samples.labels is not None and self.calibration_labels is None:
            metric = find_metric(None, output=self.task.output, has_labels=False, outputs=output_facts(self.graph))
        return JudgedSamples(batches=batches, metric=metric, labels=self.calibration_labels)

    def _notes(self, *, calibrated: bool, held_out: bool) -> Iterator[str]:
        seen = self.samples.batches.seen
        if isinstance(self.samples.batches.source, ChosenSource):
            yield f"every {_ORDINAL} sample was held out for the judging; the scales were made from the others"
        elif not calibrated and not held_out:
            yield "whether the scales were made from the judged samples is not known here; if they were, the figures flatter"
        elif not held_out:
            yield "the samples that are judged are those that the scales were made from: give --eval-data, or --hold-out, for an honest figure"
        if self.task.metric is None and self.metric.name == "sqnr":
            yield "judged by SQNR, since no output is plainly one row of class scores; where rows of an output are, --metric agreement says more"
        if seen < _SPOKEN_SAMPLES:
            yield f"{seen} sample{'s are' if seen != 1 else ' is'} few: look at the intervals before the values"
        if self.samples.batches.left_out:
            yield f"{self.samples.batches.left_out} samples at the end fill no batch of the model and are not judged"


def open_task(task: Task, *, split: bool = False) -> OpenTask:
    """Read the model, open the data, and find labels and metric; nothing is run.

    Args:
        task: What is asked.
        split: As the task's ``hold_out``, whatever that is.

    Raises:
        ModelError: If the model cannot be read.
        DataError: If data or labels cannot be used, or no sample can be held out.
        MetricError: If the metric does not fit the model.
    """
    graph = read_model(task.model)
    judged = task.data if task.eval_data is None else task.eval_data
    source = open_source(judged, graph.inputs, skip_bad_images=task.skip_bad_images)
    holds_out = (split or task.hold_out) and task.eval_data is None
    limit = task.max_eval_samples
    if holds_out or (task.eval_data is None and limit is None):
        limit = task.batching.max_samples
    labels = _labels(task.labels, judged, source, limit, graph)
    metric = find_metric(task.metric, output=task.output, has_labels=labels is not None, outputs=output_facts(graph))
    labels = _for_metric(labels, metric)
    calibration_data, others = task.data, labels
    if holds_out:
        parts = _positions(source, limit, task.max_eval_samples, _rows(source, graph))
        calibration_data, source = (ChosenSource(source, *part) for part in parts)
        others, labels = (_chosen(labels, positions, _rows(source, graph)) for positions, _ in parts)
        limit = None
    elif task.eval_data is not None and labels is not None:
        known = open_source(task.data, graph.inputs, skip_bad_images=task.skip_bad_images)
        others = _for_metric(_labels(None, task.data, known, task.batching.max_samples, graph), metric)
    batches = plan_batches(source, graph.fixed_batch, Batching(max_samples=limit, batch_size=graph.fixed_batch))
    return OpenTask(
        task=task,
        graph=graph,
        calibration_data=calibration_data,
        samples=JudgedSamples(batches=batches, metric=metric, labels=labels),
        held_out=holds_out or task.eval_data is not None,
        calibration_labels=others,
    )


def _labels(given: Any, data: Any, source: DataSource, limit: int | None, graph: ModelGraph) -> Labels | None:
    found = stated_labels(data) if given is None else given
    return None if found is None else read_labels(found, source, limit, rows=_rows(source, graph))


def _rows(source: DataSource, graph: ModelGraph) -> int:
    """Return how many samples each of the source's feeds holds."""
    return graph.fixed_batch or 1 if source.whole else 1


def _for_metric(labels: Labels | None, metric: Metric) -> Labels | None:
    return replace(labels, values=class_labels(labels)) if labels is not None and isinstance(metric, Top) else labels


def _positions(
    source: DataSource, limit: int | None, most_held: int | None, rows: int
) -> tuple[tuple[list[int], str], tuple[list[int], str]]:
    """Return which of the source's feeds are calibrated on and which are held out, each with what to call them."""
    size = source.size()
    if size is None:
        raise DataError(
            source.name, "its samples can be read in one order only, so that none can be held out: give --eval-data"
        )
    positions = range(size if limit is None else min(size, limit // rows))
    held = [i for i in positions if i % HELD_OUT == HELD_OUT - 1]
    rest = [i for i in positions if i % HELD_OUT != HELD_OUT - 1]
    return (rest, "the others"), (held[: None if most_held is None else most_held // rows], f"every {_ORDINAL} sample")


def _chosen(labels: Labels | None, positions: Sequence[int], rows: int) -> Labels | None:
    if labels is None:
        return None
    return replace(labels, values=labels.values[[i * rows + row for i in positions for row in range(rows)]])


def _relative(facts: DataFacts, folder: Path) -> DataFacts:
    return facts.model_copy(update={"path": portable_path(facts.path, folder)}) if facts.is_path else facts


def _named(output: str | None) -> str | None:
    return None if output is None else portable_name(output)
