"""What an engine is made of: its layers with their precision, as TensorRT's engine inspector tells them."""

from __future__ import annotations

import fnmatch
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from trtcalib.errors import EngineError, SpecError
from trtcalib.manifest import EngineManifest, manifest_path, read_engine_manifest
from trtcalib.trt.inference import load_engine
from trtcalib.trt.require import import_tensorrt

__all__ = ["EngineLayer", "Inspection", "inspect_engine", "parse_layers"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineLayer:
    """One layer of an engine; TensorRT has fused the network's.

    Attributes:
        name: TensorRT's name, made of those of the network's layers.
        type: Such as ``Convolution`` or ``Reformat``.
        precision: What it computes in, ``INT8`` for instance: the type of its first input; ``unknown`` where TensorRT says nothing.
        formats: Type and memory layout of its inputs and outputs, as TensorRT words them.
        tensors: Names of its inputs and outputs.
        reason: Why it does not run in INT8, where that is known.
    """

    name: str
    type: str
    precision: str
    formats: tuple[str, ...] = ()
    tensors: tuple[str, ...] = ()
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """What ``trtcalib engine inspect`` tells.

    Attributes:
        path: The engine.
        tensorrt_version: The TensorRT that loaded it.
        detailed: Whether the engine was built so that TensorRT tells precisions.
        layers: In TensorRT's order.
    """

    path: str
    tensorrt_version: str
    detailed: bool
    layers: tuple[EngineLayer, ...]

    @property
    def counts(self) -> dict[str, int]:
        """How many layers run in each precision, most first."""
        return dict(Counter(layer.precision for layer in self.layers).most_common())

    def as_json(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {
            "schema_version": 1,
            "engine": self.path,
            "tensorrt_version": self.tensorrt_version,
            "detailed": self.detailed,
            "counts": self.counts,
            "layers": [asdict(layer) for layer in self.layers],
        }


def inspect_engine(path: Path | str) -> Inspection:
    """Load an engine and list its layers.

    Raises:
        EngineError: If it cannot be loaded, or TensorRT tells nothing.
    """
    trt = import_tensorrt()
    engine = load_engine(path)
    inspector = engine.create_engine_inspector()
    if inspector is not None:
        # Without shapes TensorRT tells no format of an engine with free axes.
        inspector.execution_context = _context_at_opt(trt, engine)
    text = inspector.get_engine_information(trt.LayerInformationFormat.JSON) if inspector is not None else ""
    try:
        content = json.loads(text)
        layers = parse_layers(content["Layers"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise EngineError(path, "TensorRT's engine inspector told nothing that can be read") from error
    try:
        manifest = read_engine_manifest(manifest_path(path))
    except SpecError:  # missing or damaged: then the reasons are not known
        manifest = None
    return Inspection(
        path=str(path),
        tensorrt_version=str(trt.__version__),
        detailed=any(isinstance(layer, Mapping) for layer in content["Layers"]),
        layers=tuple(_with_reason(layer, manifest) for layer in layers),
    )


def _context_at_opt(trt: Any, engine: Any) -> Any:
    """Return an execution context whose inputs have the kOPT shapes of the first profile."""
    context = engine.create_execution_context()
    for i in range(engine.num_io_tensors):
        name = engine.get_tensor_name(i)
        if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT and -1 in tuple(engine.get_tensor_shape(name)):
            context.set_input_shape(name, tuple(engine.get_tensor_profile_shape(name, 0)[1]))
    return context


def parse_layers(content: Sequence[Any]) -> tuple[EngineLayer, ...]:
    """Return the layers of the inspector's JSON; without detailed profiling it holds names only."""
    return tuple(_layer(item) if isinstance(item, Mapping) else _named(str(item)) for item in content)


def _named(name: str) -> EngineLayer:
    return EngineLayer(name=name, type="unknown", precision="unknown")


def _layer(item: Mapping[str, Any]) -> EngineLayer:
    ends = [end for key in ("Inputs", "Outputs") for end in _listed(item.get(key)) if isinstance(end, Mapping)]
    formats = tuple(_format(end) for end in ends)
    return EngineLayer(
        name=str(item.get("Name", "")),
        type=str(item.get("LayerType", "unknown")),
        precision=next((found for text in (*formats, *_hints(item)) if (found := _precision(text))), "unknown"),
        formats=formats,
        tensors=tuple(str(end.get("Name", "")) for end in ends),
    )


def _hints(item: Mapping[str, Any]) -> list[str]:
    """Return what else names a type where TensorRT gives no formats: the weights, and a tactic such as ``..._i8i8_i8i32_...``."""
    weights = item.get("Weights")
    kind = str(weights.get("Type", "")) if isinstance(weights, Mapping) else ""
    return [kind, "Int8" if re.search(r"(?<![a-z0-9])i8i8(?![a-z0-9])", str(item.get("TacticName", ""))) else ""]


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _format(end: Mapping[str, Any]) -> str:
    """Return how an input or output is stored; the key differs from version to version."""
    keys = ("Format/Datatype", "Format/DataType", "Datatype", "DataType", "Format")
    return ", ".join(str(end[key]) for key in keys if key in end)


_PRECISIONS = {
    "INT8": r"int8",
    "FP8": r"fp8|float8",
    "INT4": r"int4",
    "BF16": r"bf16|bfloat16",
    "FP16": r"fp16|half|float16",
    "FP32": r"fp32|float32|float",
    "INT64": r"int64",
    "INT32": r"int32",
    "BOOL": r"bool",
    "UINT8": r"uint8",
}


def _precision(text: str) -> str:
    """Return the type that a format names; ``""`` for none."""
    for name, pattern in _PRECISIONS.items():
        if re.search(rf"(?<![a-z0-9])({pattern})(?![0-9a-z])", text, re.IGNORECASE):
            return name
    return ""


_ONLY_MOVES = frozenset({"Reformat", "NoOp", "Constant", "Shuffle", "Signal", "Wait"})
"""Layer types that compute nothing, so that their precision is their neighbours'."""


def _with_reason(layer: EngineLayer, manifest: EngineManifest | None) -> EngineLayer:
    """Say why a layer does not run in INT8, from what TensorRT said during the build."""
    if layer.precision not in ("FP32", "FP16", "BF16") or layer.type in _ONLY_MOVES or manifest is None:
        return layer
    parts = [part.strip() for part in re.split(r"\s*\+\s*|\s*\|\|\s*", layer.name)]
    fallback = manifest.settings.get("fallback")
    patterns = [str(p) for listed in fallback.values() for p in _listed(listed)] if isinstance(fallback, dict) else []
    if any(part == pattern or fnmatch.fnmatchcase(part, pattern) for part in parts for pattern in patterns):
        reason = "asked for by fallback"
    else:
        names = {name for name in (*layer.tensors, *parts) if name}
        reason = next((m for m in manifest.messages if any(_mentions(m, name) for name in names)), "")
    return EngineLayer(**{**asdict(layer), "reason": reason})


def _mentions(message: str, name: str) -> bool:
    """Whether a message is about a tensor or layer of this name; the bare word may be anything."""
    before = r"(?:^|:\s+|\b(?:tensor|layer|node)s?\s+|[\['\"(])"
    return re.search(rf"{before}{re.escape(name)}(?![\w/])", message, re.IGNORECASE) is not None
