"""Stream a model's activations into histograms: model + batches -> {tensor: Histogram}, in one pass, in flat memory.

ONNX Runtime runs one sample at a time on several worker threads; each worker counts into histograms of its own and a
ledger, which sees the samples in order, decides what TensorRT's range was at every batch. The result does not depend
on the number of workers.

Memory: (workers + 1) x tensors x bins x 8 bytes for the counts, and one sample's activations per worker.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trtcalib.batches import Batches, Run
from trtcalib.core.histogram import Histogram, collect_histogram
from trtcalib.core.tally import BINS, INFINITY_BITS, finite_values, flat_float32
from trtcalib.errors import ActivationError, ModelError
from trtcalib.onnx_graph import GraphTensor, ModelGraph, constant_values, own_histograms
from trtcalib.passes import Collection, Passes, Progress
from trtcalib.sessions import Session

__all__ = [
    "Collection",
    "Collector",
    "collect",
    "collect_maxima",
    "default_workers",
]


def default_workers() -> int:
    """Return the number of CPUs that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def collect(
    graph: ModelGraph,
    batches: Batches,
    *,
    policy: str = "doubling",
    bins: int = BINS,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Collection:
    """Collect the histogram of every tensor that TensorRT lists.

    Args:
        graph: The model.
        batches: The data, grouped.
        policy: How ranges follow the data: ``doubling`` (TensorRT's) in one pass after the first batch, or
            ``global``, ``square``, ``extend``, which need a pass of their own for the maxima.
        bins: Bins per histogram.
        workers: Threads; ``None``: one per CPU.
        progress: Called after each sample.

    Raises:
        ActivationError: If a NaN appears, naming the tensor and the sample.
        DataError: If the data do not fit the model, hold NaN or infinities, or change from pass to pass.
        ModelError: If ONNX Runtime refuses the model.
        MissingPackageError: If ONNX Runtime is not installed.
    """
    collector = Collector(graph, batches, bins=bins, workers=workers, progress=progress)
    passes = collector.passes
    return collector.collection(passes.doubling() if policy == "doubling" else passes.planned(policy))


class Collector:
    """A model opened to be collected from; what does not depend on the data is counted once.

    Attributes:
        names: Every tensor with a histogram of its own, in graph order.
        passes: The passes over the data, which show the tensors that depend on them.
        once: Histogram and number of infinities of each constant and each tensor computed from constants alone.

    Raises:
        ModelError: If ONNX Runtime refuses the model, or it computes no floating-point tensor.
        MissingPackageError: If ONNX Runtime is not installed.
    """

    def __init__(
        self,
        graph: ModelGraph,
        batches: Batches,
        *,
        bins: int = BINS,
        workers: int | None = None,
        progress: Progress | None = None,
    ) -> None:
        own = own_histograms(graph)
        if all(tensor.kind == "constant" for tensor in own):
            raise ModelError(graph.path, "the model computes no floating-point tensor: there is nothing to calibrate")
        self.names = [t.name for t in own]
        constants = _constant_histograms(graph, set(self.names), bins)
        observer = _Observer(graph, [t for t in own if t.kind != "constant"], batches.source.name)
        folded = {name: _single_histogram(name, values, bins) for name, values in observer.run_folded(batches).items()}
        self.once = {**constants, **folded}
        self.passes = Passes(observer, batches, bins, workers or default_workers(), progress)

    def collection(self, found: Collection) -> Collection:
        """Return what the passes found together with what is the same for any data."""
        histograms = {**{name: h for name, (h, _) in self.once.items()}, **found.histograms}
        return Collection(
            histograms={name: histograms[name] for name in self.names if name in histograms},
            infinite={**{name: n for name, (_, n) in self.once.items() if n}, **found.infinite},
            late=found.late,
            unseen=frozenset(self.names) - histograms.keys(),
        )


def collect_maxima(
    graph: ModelGraph, batches: Batches, *, workers: int | None = None, progress: Progress | None = None
) -> tuple[list[str], NDArray[np.float32]]:
    """Return the names of the tensors that depend on the data, and their largest magnitude in each batch.

    Returns:
        Names, and float32 ``[batches, tensors]``.

    Raises:
        TrtcalibError: As :func:`collect`.
    """
    observer = _Observer(graph, [t for t in own_histograms(graph) if t.kind != "constant"], batches.source.name)
    passes = Passes(observer, batches, BINS, workers or default_workers(), progress)
    return observer.names, passes.sample_maxima()


def _constant_histograms(graph: ModelGraph, wanted: set[str], bins: int) -> dict[str, tuple[Histogram, int]]:
    """Return histogram and number of infinities of each constant; they are counted once, whatever the data."""
    found = {}
    for name, values in constant_values(graph):
        if name in wanted:
            found[name] = _single_histogram(name, values, bins)
    return found


def _single_histogram(name: str, array: NDArray[Any], bins: int) -> tuple[Histogram, int]:
    finite, top = finite_values(flat_float32(array))
    if top > INFINITY_BITS:
        raise ActivationError(name, None, "the constant holds NaN")
    return collect_histogram([finite], bins=bins), array.size - finite.size


class _Observer:
    """Runs the model and gives the observed tensors of one inference."""

    def __init__(self, graph: ModelGraph, tensors: Sequence[GraphTensor], source: str) -> None:
        self._graph = graph
        self._source = source
        self._fed = [t.name for t in tensors if t.kind == "input"]
        produced = [t for t in tensors if t.kind != "input"]
        self._session = Session(graph, [t.name for t in produced])
        floats = [t for t in produced if t.name in self._session.floats]
        self._computed = [t.name for t in floats if t.kind == "activation"]
        self.names = [*self._fed, *self._computed]
        self.inputs = len(self._fed)
        self._folded = [t.name for t in floats if t.kind == "folded"]

    def run(self, run: Run, wanted: frozenset[str] | None) -> list[NDArray[Any] | None]:
        """Return the values of :attr:`names`, in that order; of the others ``None`` where only some are wanted."""
        feed = run.load()
        if wanted is None:
            return [
                *(feed[name] for name in self._fed),
                *self._session.run(self._computed, feed, self._source, run.label),
            ]
        computed = [name for name in self._computed if name in wanted]
        values = dict(zip(computed, self._session.run(computed, feed, self._source, run.label), strict=True))
        values.update((name, feed[name]) for name in self._fed if name in wanted)
        return [values.get(name) for name in self.names]

    def run_folded(self, batches: Batches) -> dict[str, NDArray[Any]]:
        """Return the values of the tensors that are the same for every sample, computed once."""
        if not self._folded:
            return {}
        first = next(batches.runs(1))
        return dict(
            zip(self._folded, self._session.run(self._folded, first.load(), self._source, first.label), strict=True)
        )
