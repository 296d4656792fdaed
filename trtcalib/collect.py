"""Stream a model's activations into histograms: model + batches -> {tensor: Histogram}, in one pass, in flat memory.

ONNX Runtime runs one sample at a time on several worker threads; each worker counts into histograms of its own and a
ledger, which sees the samples in order, decides what TensorRT's range was at every batch. The result does not depend
on the number of workers.

Memory: (workers + 1) x tensors x bins x 8 bytes for the counts, and one sample's activations per worker.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from trtcalib.batches import Batches, Run
from trtcalib.core.histogram import Histogram, collect_histogram
from trtcalib.core.planned import PlannedTally, plan_ranges, planned_histogram
from trtcalib.core.ranges import Ledger, Record, Tally
from trtcalib.core.tally import INFINITY_BITS, largest_bits
from trtcalib.errors import ActivationError, DataError, HistogramError, MissingPackageError, ModelError
from trtcalib.onnx_graph import GraphTensor, ModelGraph, constant_values, expose, own_histograms

if TYPE_CHECKING:
    import onnxruntime

__all__ = ["SESSION_OPTIONS", "Collection", "available_providers", "collect", "default_workers"]

SESSION_OPTIONS: dict[str, str | int] = {
    "provider": "CPUExecutionProvider",
    "graph_optimization_level": "ORT_ENABLE_EXTENDED",
    "execution_mode": "ORT_SEQUENTIAL",
    "intra_op_num_threads": 1,
    "inter_op_num_threads": 1,
}
"""Fixed, and stated in every manifest: ONNX Runtime's results change with its optimisation level (but not with its
number of threads), so they are part of what makes a calibration reproducible."""

_FLOAT_TYPES = ("tensor(float)", "tensor(float16)", "tensor(double)")

Progress = Callable[[int, int | None], None]
"""Called with (samples done, samples in all or ``None``)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Collection:
    """What a pass over the data found.

    Attributes:
        histograms: Per tensor with a histogram of its own, in graph order.
        infinite: How many infinite values were left out, per tensor that had any.
        late: Tensors that were all zero in the first batch and not later.
        unseen: Candidates that ONNX Runtime did not give as floating point, or never produced.
    """

    histograms: dict[str, Histogram]
    infinite: dict[str, int] = field(default_factory=dict)
    late: tuple[str, ...] = ()
    unseen: frozenset[str] = frozenset()


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
    bins: int = 2048,
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
    own = own_histograms(graph)
    constants = _constant_histograms(graph, {t.name for t in own}, bins)
    observer = _Observer(graph, [t for t in own if t.kind != "constant"], batches.source.name)
    passes = _Passes(observer, batches, bins, workers or default_workers(), progress)
    found = passes.doubling() if policy == "doubling" else passes.planned(policy)
    folded = {name: _single_histogram(name, values, bins) for name, values in passes.folded_values().items()}
    once = {**constants, **folded}
    histograms = {**{name: h for name, (h, _) in once.items()}, **found.histograms}
    names = [t.name for t in own]
    return Collection(
        histograms={name: histograms[name] for name in names if name in histograms},
        infinite={**{name: n for name, (_, n) in once.items() if n}, **found.infinite},
        late=found.late,
        unseen=frozenset(names) - histograms.keys(),
    )


def _constant_histograms(graph: ModelGraph, wanted: set[str], bins: int) -> dict[str, tuple[Histogram, int]]:
    """Return histogram and number of infinities of each constant; they are counted once, whatever the data."""
    found = {}
    for name, values in constant_values(graph):
        if name in wanted:
            found[name] = _single_histogram(name, values, bins)
    return found


def _single_histogram(name: str, array: NDArray[Any], bins: int) -> tuple[Histogram, int]:
    values = finite = np.ascontiguousarray(array, dtype=np.float32).reshape(-1)
    top = largest_bits(values)
    if top > INFINITY_BITS:
        raise ActivationError(name, None, "the constant holds NaN")
    if top == INFINITY_BITS:
        finite = values[np.isfinite(values)]
    return collect_histogram([finite], bins=bins), values.size - finite.size


def session_options() -> onnxruntime.SessionOptions:
    """Return :data:`SESSION_OPTIONS` as ONNX Runtime's object.

    Raises:
        MissingPackageError: If ONNX Runtime is not installed.
    """
    runtime = _import_runtime()
    options = runtime.SessionOptions()
    options.graph_optimization_level = getattr(
        runtime.GraphOptimizationLevel, str(SESSION_OPTIONS["graph_optimization_level"])
    )
    options.execution_mode = getattr(runtime.ExecutionMode, str(SESSION_OPTIONS["execution_mode"]))
    options.intra_op_num_threads = SESSION_OPTIONS["intra_op_num_threads"]
    options.inter_op_num_threads = SESSION_OPTIONS["inter_op_num_threads"]
    options.log_severity_level = 4  # errors come back as exceptions; the log would repeat them on stderr
    return options


def available_providers() -> list[str]:
    """Return ONNX Runtime's execution providers; none where it is not installed."""
    try:
        return list(_import_runtime().get_available_providers())
    except MissingPackageError:
        return []


def _import_runtime() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingPackageError(
            "onnxruntime",
            "it runs the model on the CPU; install one of: pip install 'trtcalib[cpu]' (onnxruntime) or "
            "pip install 'trtcalib[cuda]' (onnxruntime-gpu). The two clash, so install only one",
        ) from error
    return onnxruntime


class _Observer:
    """Runs the model and gives the observed tensors of one inference."""

    def __init__(self, graph: ModelGraph, tensors: Sequence[GraphTensor], source: str) -> None:
        self._graph = graph
        self._source = source
        self._fed = [t.name for t in tensors if t.kind == "input"]
        produced = [t for t in tensors if t.kind != "input"]
        self._session = self._open([t.name for t in produced])
        types = {output.name: output.type for output in self._session.get_outputs()}
        floats = [t for t in produced if types.get(t.name) in _FLOAT_TYPES]
        self._computed = [t.name for t in floats if t.kind == "activation"]
        self.names = [*self._fed, *self._computed]
        self.inputs = len(self._fed)
        self.folded = [t.name for t in floats if t.kind == "folded"]

    def run(self, run: Run) -> list[NDArray[Any] | None]:
        """Return the values of :attr:`names`, in that order."""
        feed = run.load()
        computed = self._call(self._computed, feed, run.label)
        return [*(feed[name] for name in self._fed), *computed]

    def run_folded(self, run: Run) -> dict[str, NDArray[Any]]:
        """Return the values of the tensors that are the same for every sample."""
        return dict(zip(self.folded, self._call(self.folded, run.load(), run.label), strict=True)) if self.folded else {}

    def _call(self, names: list[str], feed: Any, label: str) -> list[Any]:
        try:
            return list(self._session.run(names, dict(feed))) if names else []
        except Exception as error:
            raise DataError(self._source, f"ONNX Runtime cannot run the model: {_first_line(error)}", label) from error

    def _open(self, names: list[str]) -> onnxruntime.InferenceSession:
        runtime = _import_runtime()
        options = session_options()
        options.add_session_config_entry(
            "session.model_external_initializers_file_folder_path", str(self._graph.path.parent.resolve())
        )
        try:
            return runtime.InferenceSession(
                expose(self._graph, names), options, providers=[str(SESSION_OPTIONS["provider"])]
            )
        except ModelError:
            raise
        except Exception as error:
            raise ModelError(self._graph.path, f"ONNX Runtime refuses the model: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    """Return the telling part of one of ONNX Runtime's messages."""
    text = str(error).strip().splitlines()
    return text[0][:500] if text else type(error).__name__


class _Passes:
    """Passes over the data, each with all workers."""

    def __init__(
        self, observer: _Observer, batches: Batches, bins: int, workers: int, progress: Progress | None
    ) -> None:
        self._observer = observer
        self._batches = batches
        self._bins = bins
        self._workers = workers
        self._progress = progress
        self._names = observer.names

    def doubling(self) -> Collection:
        """Collect under TensorRT's policy: the first batch twice, everything else once."""
        first = self._maxima(batches=1)[0]
        found, ledger = self._doubling_pass(first)
        if not np.array_equal(ledger.batch_maxima[0], first):
            t = int(np.flatnonzero(ledger.batch_maxima[0] != first)[0])
            raise DataError(
                self._batches.source.name,
                f"the first batch gave other values when it was read again (tensor {self._names[t]!r} reached {first[t]!r}, "
                f"then {ledger.batch_maxima[0][t]!r}): the data must be the same on every pass, without random augmentation",
            )
        late = np.array([h is None for h in found])
        if late.any():
            # Their first maximum is known only now: one more pass, for them alone.
            again, _ = self._doubling_pass(np.where(late, ledger.first_maxima, np.float32(0)))
            found = [b if is_late else a for a, b, is_late in zip(found, again, late, strict=True)]
        return self._collection(found, ledger, [name for name, is_late in zip(self._names, late, strict=True) if is_late])

    def planned(self, policy: str) -> Collection:
        """Collect under a policy that needs all maxima first: one pass for them, one to count."""
        table = np.stack(self._maxima(batches=None))
        plans = []
        for t, name in enumerate(self._names):
            try:
                plans.append(plan_ranges(policy, table[:, t], self._bins))
            except HistogramError as error:
                raise HistogramError(f"tensor {name!r}: {error}") from error
        tallies: list[PlannedTally] = []
        ledger = Ledger(np.zeros(len(self._names), np.float32), self._bins)

        def make() -> PlannedTally:
            tallies.append(PlannedTally(plans))
            return tallies[-1]

        self._pass(make, ledger, None)
        found = [planned_histogram(plan, t, tallies) for t, plan in enumerate(plans)]
        return self._collection(found, ledger, [])

    def folded_values(self) -> dict[str, NDArray[Any]]:
        """Return the tensors that are the same for every sample, computed once."""
        return self._observer.run_folded(next(self._batches.runs(1))) if self._observer.folded else {}

    def _maxima(self, batches: int | None) -> list[NDArray[np.float32]]:
        """Return the maxima per batch."""
        unknown = np.zeros(len(self._names), np.float32)
        ledger = Ledger(unknown, self._bins)
        self._pass(lambda: Tally(unknown, self._bins), ledger, batches)
        return ledger.batch_maxima

    def _doubling_pass(self, first: NDArray[np.float32]) -> tuple[list[Histogram | None], Ledger]:
        ledger = Ledger(first, self._bins)
        tallies: list[Tally] = []

        def make() -> Tally:
            tallies.append(Tally(first, self._bins))
            return tallies[-1]

        self._pass(make, ledger, None)
        return [ledger.histogram(t, tallies) for t in range(len(self._names))], ledger

    def _collection(
        self, found: Sequence[Histogram | None], ledger: Ledger, late: Sequence[str]
    ) -> Collection:
        named = zip(self._names, found, strict=True)
        return Collection(
            histograms={name: histogram for name, histogram in named if histogram is not None and histogram.total},
            infinite={name: int(n) for name, n in zip(self._names, ledger.infinite, strict=True) if n},
            late=tuple(late),
        )

    def _pass(self, make: Callable[[], _Counter], ledger: Ledger, batches: int | None) -> None:
        """Run the batches through the workers and the records through the ledger, in order."""
        local = threading.local()

        def work(run: Run) -> Record:
            if not hasattr(local, "counter"):
                local.counter = make()
            record: Record = local.counter.add(run.batch, self._observer.run(run))
            if record.nan:
                self._refuse_nan(record.nan[0], run.label)
            if record.infinite[: self._observer.inputs].any():
                t = int(np.flatnonzero(record.infinite[: self._observer.inputs])[0])
                raise DataError(self._batches.source.name, f"input {self._names[t]!r} holds an infinite value", run.label)
            return record

        total = self._batches.samples
        done = 0
        with ThreadPoolExecutor(self._workers, thread_name_prefix="trtcalib") as pool:
            for run, record in _in_order(pool, work, self._batches.runs(batches), 2 * self._workers):
                ledger.add(run.batch, record)
                done += run.samples
                if self._progress is not None and batches is None:
                    self._progress(done, total)
        ledger.end_batch()

    def _refuse_nan(self, t: int, label: str) -> None:
        if t < self._observer.inputs:
            raise DataError(self._batches.source.name, f"input {self._names[t]!r} holds NaN", label)
        raise ActivationError(self._names[t], label, "holds NaN: the model divides by zero or overflows on this sample")


class _Counter(Protocol):
    def add(self, batch: int, arrays: Sequence[NDArray[Any] | None]) -> Record: ...


def _in_order(
    pool: ThreadPoolExecutor, work: Callable[[Run], Record], runs: Iterator[Run], window: int
) -> Iterator[tuple[Run, Record]]:
    """Yield each run with its record in the order of the runs; at most ``window`` are under way or waiting.

    The pool's threads take runs in order, so that each thread sees its own runs in increasing order.
    """
    waiting: deque[tuple[Run, Future[Record]]] = deque()
    try:
        for run in runs:
            waiting.append((run, pool.submit(work, run)))
            if len(waiting) >= window:
                first, future = waiting.popleft()
                yield first, future.result()
        while waiting:
            first, future = waiting.popleft()
            yield first, future.result()
    finally:
        for _, future in waiting:
            future.cancel()
