"""Read what the accuracy studies wrote, and refuse a file whose parts do not fit together before anything relies on them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ValidationError

from trtcalib.accuracy.result import Ablation, Advice, Evaluation, Range, Sensitivity, Sweep
from trtcalib.errors import SpecError

__all__ = ["FILES", "KINDS", "AccuracyFile", "AccuracyResult", "read_accuracy"]

AccuracyResult = Advice | Evaluation | Ablation | Sweep | Sensitivity

KINDS: Final[dict[str, type[AccuracyResult]]] = {
    "advice": Advice,
    "evaluation": Evaluation,
    "ablation": Ablation,
    "sweep": Sweep,
    "sensitivity": Sensitivity,
}
"""What a JSON file's ``kind`` says that it holds."""

FILES = tuple(f"{kind}.json" for kind in KINDS)
"""What they are called in a folder."""

_COLUMNS = ((False, ("tensor",)), (False, ("channel",)), (True, ("float",)), (True, ("tensor", "channel")))
"""What each cell of an ablation's row quantizes: activations or not, and the weights' kinds that it may have."""

_LARGEST = 1 << 63
"""Below which whole numbers stay: more nodes, samples or multiply-accumulates than that are none."""

_SHOWN = 80
"""Characters of a name that stand in an error."""


@dataclass(frozen=True, slots=True)
class AccuracyFile:
    """One result of an accuracy study.

    Attributes:
        path: Where it stands.
        sha256: Of its bytes.
        result: What it holds.
    """

    path: Path
    sha256: str
    result: AccuracyResult


def read_accuracy(path: Path, kind: str) -> AccuracyResult:
    """Read a result of a kind of :data:`KINDS`.

    Raises:
        SpecError: If it cannot be read, lacks something, or its parts do not fit together.
    """
    try:
        result = KINDS[kind].model_validate_json(path.read_bytes())
    except OSError as error:
        raise SpecError(path, (f"cannot be read: {error.strerror}",)) from error
    except ValidationError as error:
        first, count = error.errors()[0], error.error_count()
        where = ".".join(map(str, first["loc"])) or "file"
        more = f" (and {count - 1} more faults)" if count > 1 else ""
        raise SpecError(path, (f"damaged: {_one_line(where)}: {first['msg']}{more}",)) from error
    fault = next(_faults(result), None)
    if fault is not None:
        raise SpecError(path, (f"damaged: {fault}",))
    return result


def _one_line(text: str) -> str:
    return " ".join(text.split())[: 2 * _SHOWN]


def _faults(result: AccuracyResult) -> Iterator[str]:
    yield from _number_faults(result, "")
    checks: dict[type[AccuracyResult], Callable[[Any], Iterator[str]]] = {
        Evaluation: _evaluation_faults,
        Ablation: _ablation_faults,
        Sweep: _sweep_faults,
        Sensitivity: _sensitivity_faults,
    }
    if type(result) in checks:
        yield from checks[type(result)](result)


def _number_faults(value: object, where: str) -> Iterator[str]:
    """Find numbers that JSON or a page cannot hold, and intervals whose ends stand the wrong way round."""
    if isinstance(value, BaseModel):
        for key in type(value).model_fields:
            yield from _number_faults(getattr(value, key), f"{where}.{key}" if where else key)
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _number_faults(item, f"{where}.{key}")
    elif isinstance(value, list):
        for i, item in enumerate(value):
            yield from _number_faults(item, f"{where}.{i}")
    elif isinstance(value, float) and not math.isfinite(value):
        yield f"{_one_line(where)} is {value}, expected a finite number"
    elif isinstance(value, int) and abs(value) >= _LARGEST:
        yield f"{_one_line(where)} is a number of {len(hex(value)) * 4} bits, expected at most 63"
    if isinstance(value, Range) and value.low is not None and value.high is not None and value.low > value.high:
        yield f"{_one_line(where)} goes from {value.low:.5g} to {value.high:.5g}, expected the lower end first"


def _evaluation_faults(result: Evaluation) -> Iterator[str]:
    if not _distinct([scored.label for scored in result.classes]):
        yield "classes: a label stands twice"
    for scored in result.classes:
        if not (0 <= scored.right <= scored.samples and 0 <= scored.reference <= scored.samples):
            yield f"classes: label {scored.label} has more right samples than samples"
    if result.quantized is not None and result.weighted is not None and not 0 <= result.quantized <= result.weighted:
        yield f"quantized is {result.quantized} of {result.weighted} weighted nodes"


def _ablation_faults(result: Ablation) -> Iterator[str]:
    methods = [row.method for row in result.rows]
    if not methods or not _distinct(methods):
        yield "rows: expected one row per method, at least one"
    for row in result.rows:
        if len(row.cells) != len(_COLUMNS):
            yield f"rows: method {row.method[:_SHOWN]!r} has {len(row.cells)} cells, expected {len(_COLUMNS)}"
        for cell, (activations, weights) in zip(row.cells, _COLUMNS, strict=False):
            if cell.activations != activations or cell.weights not in weights:
                yield f"rows: method {row.method[:_SHOWN]!r} has its cells in another order"
    for name in (result.best, *result.indistinguishable):
        if name not in methods:
            yield f"{name[:_SHOWN]!r} is told to be among the best and is none of the methods"


def _sweep_faults(result: Sweep) -> Iterator[str]:
    if not result.candidates:
        yield "candidates: expected at least one"


def _sensitivity_faults(result: Sensitivity) -> Iterator[str]:
    if [layer.rank for layer in result.layers] != list(range(1, len(result.layers) + 1)):
        yield f"layers: the ranks are not 1 to {len(result.layers)} in this order"
    if not _distinct([layer.output for layer in result.layers]):
        yield "layers: an output stands twice"
    if not _distinct([tensor.output for tensor in result.network]):
        yield "network: an output stands twice"
    for layer in result.layers:
        if layer.clipped_share is not None and not 0 <= layer.clipped_share <= 1:
            yield f"layers: {layer.name[:_SHOWN]!r} has a clipped_share of {layer.clipped_share:.5g}"
    fallback = result.fallback
    if fallback is not None and len(fallback.nodes) != len(fallback.outputs):
        yield f"fallback: {len(fallback.nodes)} nodes with {len(fallback.outputs)} outputs"
    if fallback is not None and fallback.macs_int8 is not None and not 0 <= fallback.macs_int8 <= 1:
        yield f"fallback: macs_int8 is {fallback.macs_int8:.5g}, expected a share"


def _distinct(values: Sequence[object]) -> bool:
    return len(set(values)) == len(values)
