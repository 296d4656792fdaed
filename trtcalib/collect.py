"""Stream a model's activations into histograms: model + batches -> {tensor: Histogram}, in one pass, in flat memory.

ONNX Runtime runs one sample at a time on several worker threads; each worker counts into histograms of its own and a
ledger, which sees the samples in order, decides what TensorRT's range was at every batch. The result does not depend
on the number of workers.

Memory: (workers + 1) x tensors x bins x 8 bytes for the counts, and one sample's activations per worker.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from trtcalib.batches import Batches, Run
from trtcalib.core.histogram import Histogram, collect_histogram
from trtcalib.core.tally import BINS, INFINITY_BITS, finite_values, flat_float32
from trtcalib.errors import ActivationError, DataError, MissingPackageError, ModelError
from trtcalib.onnx_graph import GraphTensor, ModelGraph, constant_values, expose, own_histograms
from trtcalib.passes import Collection, Passes, Progress

if TYPE_CHECKING:
    import onnxruntime

__all__ = [
    "SESSION_OPTIONS",
    "Collection",
    "Collector",
    "available_providers",
    "collect",
    "collect_maxima",
    "default_workers",
]

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
        self._folded = [t.name for t in floats if t.kind == "folded"]

    def run(self, run: Run, wanted: frozenset[str] | None) -> list[NDArray[Any] | None]:
        """Return the values of :attr:`names`, in that order; of the others ``None`` where only some are wanted."""
        feed = run.load()
        if wanted is None:
            return [*(feed[name] for name in self._fed), *self._call(self._computed, feed, run.label)]
        computed = [name for name in self._computed if name in wanted]
        values = dict(zip(computed, self._call(computed, feed, run.label), strict=True))
        values.update((name, feed[name]) for name in self._fed if name in wanted)
        return [values.get(name) for name in self.names]

    def run_folded(self, batches: Batches) -> dict[str, NDArray[Any]]:
        """Return the values of the tensors that are the same for every sample, computed once."""
        if not self._folded:
            return {}
        first = next(batches.runs(1))
        return dict(zip(self._folded, self._call(self._folded, first.load(), first.label), strict=True))

    def _call(self, names: list[str], feed: Any, label: str) -> list[Any]:
        try:
            return list(self._session.run(names, dict(feed))) if names else []
        except Exception as error:
            raise DataError(self._source, f"ONNX Runtime cannot run the model: {_reason(error)}", label) from error

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
            raise ModelError(self._graph.path, f"ONNX Runtime refuses the model: {_reason(error)}") from error


_NOISE = re.compile(r"^\[ONNXRuntimeError\] : \d+ : \w+ : |\S*/onnxruntime/\S+:\d+ .*?\) (?=\S)")
_NEW_OPSET = re.compile(r"Opset (\d+) is under development")


def _reason(error: Exception) -> str:
    """Return what one of ONNX Runtime's messages says, without codes and source files."""
    text = str(error).strip()
    newer = _NEW_OPSET.search(text)
    if newer:
        runtime = _import_runtime()
        return (
            f"opset {newer[1]} is newer than version {runtime.__version__} knows; update it, or export an older opset"
        )
    lines = _NOISE.sub("", text).splitlines()
    return lines[0][:500] if lines else type(error).__name__
