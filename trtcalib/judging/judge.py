"""FP32 and variants on the same samples: a score per sample and variant, and how far each output is from FP32's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from trtcalib.batches import Batches, Run, in_order
from trtcalib.collect import default_workers
from trtcalib.core.bootstrap import LARGEST as _MOST
from trtcalib.errors import DataError, MetricError
from trtcalib.judging.labels import Labels, check_count
from trtcalib.judging.scores import Metric, Outputs
from trtcalib.onnx_graph import ModelGraph
from trtcalib.passes import Progress
from trtcalib.samples.feeds import Feed, check_finite, shape_text
from trtcalib.sessions import Session
from trtcalib.spec_files import brief

__all__ = [
    "LARGEST",
    "NOISE",
    "ROWS",
    "SAME",
    "SIGNAL",
    "Judged",
    "JudgedSamples",
    "ModelRunner",
    "Runner",
    "SampleScore",
    "compare_outputs",
    "gather",
    "judge",
    "reference_scores",
    "score_sample",
    "single_samples",
]

_BLOCK = 1 << 15
"""Values that are compared at a time: their float64 copies stay in the cache, and need no new memory pages."""

SIGNAL, NOISE, COSINE, SAME, ROWS, LARGEST = range(6)
"""Columns of what :func:`compare_outputs` returns."""


class Runner(Protocol):
    """Gives a model's outputs.

    Attributes:
        outputs: Their names.
    """

    outputs: tuple[str, ...]

    def run(self, feed: Feed, source: str, label: str) -> Outputs:
        """Return the outputs for one feed; may be called from several threads."""


class ModelRunner:
    """A model in ONNX Runtime; Q/DQ nodes are simulated in float."""

    def __init__(self, graph: ModelGraph) -> None:
        """Open the model.

        Raises:
            ModelError: If ONNX Runtime refuses it.
        """
        self.outputs = tuple(output.name for output in graph.proto.graph.output)
        self._session = Session(graph, self.outputs, simulate=True)

    def run(self, feed: Feed, source: str, label: str) -> Outputs:
        """Return the outputs for one feed."""
        return dict(zip(self.outputs, self._session.run(self.outputs, feed, source, label), strict=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedSamples:
    """What is judged on, and by what.

    Attributes:
        batches: The samples, in the source's order.
        metric: Scores them.
        labels: One per sample; ``None`` without.
    """

    batches: Batches
    metric: Metric
    labels: Labels | None = None

    def load(self, run: Run) -> Feed:
        """Read an inference's feed.

        Raises:
            DataError: If it cannot be read, or holds what is not finite: nothing could be judged by it.
        """
        feed = run.load()
        check_finite(feed, self.batches.source.name, run.label)
        return feed

    def label(self, position: int) -> Any:
        """Return the label of a sample."""
        return None if self.labels is None else self.labels.at(position)


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """How one variant does, sample by sample.

    Attributes:
        outputs: Names of the outputs that were compared.
        reference_scores: float64 [samples], FP32's; empty for a pooled metric.
        scores: The same for the variant.
        compared: float64 [samples, outputs, 6], from :func:`compare_outputs`.
    """

    outputs: tuple[str, ...]
    reference_scores: NDArray[np.float64]
    scores: NDArray[np.float64]
    compared: NDArray[np.float64]


SampleScore = tuple[float, float, NDArray[np.float64]]
"""FP32's score, the variant's, and the comparison [outputs, 6] of one sample."""


def judge(
    reference: Runner,
    variants: Sequence[Runner],
    samples: JudgedSamples,
    *,
    workers: int | None = None,
    progress: Progress | None = None,
) -> list[Judged]:
    """Run FP32 and variants over the samples, once.

    Memory: one sample's outputs of all variants per worker, and a few numbers per sample, output and variant.

    Args:
        reference: FP32.
        variants: All of them have its outputs.
        samples: What to judge on.
        workers: Threads; ``None``: one per CPU. The result does not depend on it.
        progress: Called with (samples done, samples in all or ``None``).

    Raises:
        DataError: If the samples or labels do not fit.
        MetricError: If the metric cannot judge an output, or a user's function fails.
    """
    batches = samples.batches
    threads = workers or default_workers()

    def work(numbered: tuple[int, Run]) -> list[list[SampleScore]]:
        first, run = numbered
        feed = samples.load(run)
        expected = reference.run(feed, batches.source.name, run.label)
        found = [variant.run(feed, batches.source.name, run.label) for variant in variants]
        own = reference_scores(samples, first, run, expected)
        return [score_sample(samples, first, run, outputs, expected, own) for outputs in found]

    gathered: list[list[SampleScore]] = [[] for _ in variants]
    with ThreadPoolExecutor(threads, thread_name_prefix="trtcalib") as pool:
        for (first, run), scored in in_order(pool, work, batches.numbered_runs(), 2 * threads):
            for of_variant, new in zip(gathered, scored, strict=True):
                of_variant.extend(new)
            if progress is not None:
                progress(first + run.samples, batches.samples)
    if samples.labels is not None:
        check_count(samples.labels, batches.seen + batches.left_out)
    names = reference.outputs
    return [gather(names, of_variant) for of_variant in gathered]


def gather(outputs: tuple[str, ...], scored: Sequence[SampleScore]) -> Judged:
    """Put the samples of one variant together."""
    return Judged(
        outputs=outputs,
        reference_scores=np.array([score[0] for score in scored]),
        scores=np.array([score[1] for score in scored]),
        compared=np.stack([score[2] for score in scored]),
    )


def reference_scores(samples: JudgedSamples, first: int, run: Run, expected: Outputs) -> list[float]:
    """Return FP32's own score of each sample of one inference, which serves all variants; NaN for a pooled metric."""
    each = enumerate(single_samples(expected, run))
    return [_score(samples, first, run, i, outputs=theirs, reference=theirs) for i, theirs in each]


def score_sample(
    samples: JudgedSamples, first: int, run: Run, found: Outputs, expected: Outputs, own: Sequence[float]
) -> list[SampleScore]:
    """Score each sample of one inference.

    Args:
        samples: What is judged.
        first: Position of the inference's first sample.
        run: The inference.
        found: The variant's outputs.
        expected: FP32's.
        own: From :func:`reference_scores`.
    """
    scored = []
    one_by_one = zip(single_samples(found, run), single_samples(expected, run), own, strict=True)
    for i, (ours, theirs, score) in enumerate(one_by_one):
        compared = np.stack([compare_outputs(theirs[n], ours[n]) for n in theirs])
        scored.append((score, _score(samples, first, run, i, outputs=ours, reference=theirs), compared))
    return scored


def _score(samples: JudgedSamples, first: int, run: Run, i: int, *, outputs: Outputs, reference: Outputs) -> float:
    metric, label = samples.metric, samples.label(first + i)
    if metric.pooled:
        return np.nan
    name = run.label if run.samples == 1 else f"{run.label}, number {i}"
    score = metric.score(outputs, reference, label, name)
    if not abs(score) <= _MOST:
        raise MetricError(metric.name, f"gave {score:g}, expected a magnitude of at most {_MOST:g}", name)
    return score


def single_samples(outputs: Outputs, run: Run) -> Iterator[Outputs]:
    """Yield the outputs of each sample of an inference, a batch axis of 1 kept."""
    if run.samples == 1:
        yield outputs
        return
    for name, array in outputs.items():
        shape = getattr(array, "shape", ())  # a sequence of tensors has none
        if shape[:1] != (run.samples,):
            raise DataError(
                "outputs",
                f"output {brief(name)} has shape {shape_text(shape)}: the model runs {run.samples} samples at a time, and its first "
                "axis does not count them, so that samples cannot be judged one by one",
                run.label,
            )
    for i in range(run.samples):
        yield {name: array[i : i + 1] for name, array in outputs.items()}


def compare_outputs(expected: Any, found: Any) -> NDArray[np.float64]:
    """Compare one output of one sample with FP32's.

    What cannot be compared (another shape, as detections have after a cut; a NaN; an infinity that FP32 has not; magnitudes whose squares
    have no end) counts as if nothing of it were right: the noise is the signal. Infinities that both have, as in attention masks, are left
    out. Of what holds no numbers, such as texts, only whether it is the same counts, as a noise of 0 or 1.

    Returns:
        float64 [6]: sum of squares, sum of squared differences, cosine (NaN where the output is no floating point), rows along the
        last axis whose largest element is at the same place, rows of at least two elements, largest difference.
    """
    if not _is_numeric(expected) or not _is_numeric(found):
        wrong = float(not _is_same(expected, found))
        return np.array([0.0, wrong, np.nan, 0, 0, np.inf if wrong else 0.0])
    result = _compare(expected, found)
    if expected.dtype.kind != "f":
        result[COSINE] = np.nan
    return result


def _is_numeric(output: Any) -> bool:
    return isinstance(output, np.ndarray | np.generic) and output.dtype.kind in "biuf"


def _is_same(expected: Any, found: Any) -> bool:
    try:
        return repr(expected) == repr(found) if isinstance(expected, list) else bool(np.array_equal(expected, found))
    except (TypeError, ValueError):
        return False


def _compare(expected: NDArray[Any], found: NDArray[Any]) -> NDArray[np.float64]:
    rows = expected.size // expected.shape[-1] if expected.ndim and expected.shape[-1] > 1 else 0
    a, b = expected.ravel(), found.ravel()
    if expected.shape == found.shape:
        result = _compare_values(a, b)
        if result is None:
            different = ~(np.isinf(a) & (a == b))
            result = _compare_values(a[different], b[different])
        if result is not None:
            same = np.count_nonzero(expected.argmax(axis=-1) == found.argmax(axis=-1)) if rows else 0
            result[SAME], result[ROWS] = same, rows
            return result
    with np.errstate(over="ignore"):
        signal = min(float(np.square(a[np.isfinite(a)], dtype=np.float64).sum()), _MOST)
    # Where FP32's own values are all 0, a noise of 1 still says that something is wrong.
    return np.array([signal, signal or 1.0, 0.0, 0, rows, np.inf])


def _compare_values(a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.float64] | None:
    """Compare values one by one; ``None`` where one is not finite, or too large for sums of squares."""
    signal = other = noise = both = largest = 0.0
    with np.errstate(over="ignore", invalid="ignore"):
        for start in range(0, a.size, _BLOCK):
            x, y = a[start : start + _BLOCK].astype(np.float64), b[start : start + _BLOCK].astype(np.float64)
            signal, other, both = signal + _product(x, x), other + _product(y, y), both + _product(x, y)
            x -= y
            noise, largest = noise + _product(x, x), max(largest, float(x.max()), -float(x.min()))
    if not (signal <= _MOST and other <= _MOST and noise <= _MOST):  # false for NaN
        return None
    cosine = both / (np.sqrt(signal) * np.sqrt(other)) if signal and other else float(signal == other)
    return np.array([signal, noise, 1.0 if noise == 0 else np.clip(cosine, -1, 1), 0, 0, largest])


def _product(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    """Return the sum of products; not by BLAS, whose threads get in the way of those that run models."""
    return float(np.einsum("i,i->", x, y))
