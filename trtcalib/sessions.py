"""ONNX Runtime, which runs models on the CPU: the one place that imports it, with fixed options that every manifest states."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from trtcalib.errors import DataError, MissingPackageError, ModelError
from trtcalib.onnx_graph import ModelGraph, expose
from trtcalib.samples.feeds import Feed

if TYPE_CHECKING:
    import onnxruntime

__all__ = ["SESSION_OPTIONS", "Session", "available_providers", "session_options"]

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


class Session:
    """A model that gives any of its tensors.

    Attributes:
        floats: Those of the named tensors that are floating point.

    Raises:
        ModelError: If ONNX Runtime refuses the model.
        MissingPackageError: If ONNX Runtime is not installed.
    """

    def __init__(self, graph: ModelGraph, names: Sequence[str], *, simulate: bool = False) -> None:
        """Open the model.

        Args:
            graph: The model.
            names: Tensors that may be asked for.
            simulate: Leave Q/DQ nodes as they are, so that what lies between them runs in float: INT8 simulated, and not the INT8
                kernels of this CPU.
        """
        runtime = _import_runtime()
        options = session_options()
        options.add_session_config_entry(
            "session.model_external_initializers_file_folder_path", str(graph.path.parent.resolve())
        )
        shown = list(names)
        if simulate:
            options.add_session_config_entry("session.disable_quant_qdq", "1")
            shown += _quantized(graph, shown)
        try:
            self._session = runtime.InferenceSession(
                expose(graph, shown), options, providers=[str(SESSION_OPTIONS["provider"])]
            )
        except ModelError:
            raise
        except Exception as error:
            raise ModelError(graph.path, f"ONNX Runtime refuses the model: {_reason(error)}") from error
        kinds = {output.name: output.type for output in self._session.get_outputs()}
        self.floats = frozenset(name for name in names if kinds.get(name) in _FLOAT_TYPES)

    def run(self, names: Sequence[str], feed: Feed, source: str, label: str) -> list[Any]:
        """Return the values of some of the tensors for one feed.

        Raises:
            DataError: If the model cannot be run on it, naming the source and the sample.
        """
        try:
            return list(self._session.run(names, dict(feed))) if names else []
        except Exception as error:
            raise DataError(source, f"ONNX Runtime cannot run the model: {_reason(error)}", label) from error


def _quantized(graph: ModelGraph, shown: Sequence[str]) -> list[str]:
    """Return what nodes of the model make for its QuantizeLinear nodes.

    ONNX Runtime 1.31 moves these nodes before a Transpose in front of them, and where a tensor that may be asked for stands before that, it
    then holds the rounded values. What may be asked for itself is not moved across.
    """
    nodes = graph.proto.graph.node
    made = {name for node in nodes for name in node.output} - set(shown)
    return list(dict.fromkeys(n.input[0] for n in nodes if n.op_type == "QuantizeLinear" and n.input[0] in made))


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
