"""Rules over names: those that the model does not have, and tensors of the model that have no scale."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from trtcalib.core.cache_scan import CacheScan
from trtcalib.linting.model_view import ModelView
from trtcalib.linting.renames import Rename, likely_renames
from trtcalib.linting.rules import LintFinding, finding
from trtcalib.onnx_graph import GraphTensor

__all__ = ["is_parser_made", "name_findings"]

PARSER_MADE = ("(Unnamed Layer*", "ONNXTRT_")
"""How names begin that TensorRT's ONNX parser makes."""

FEW = 0.2
"""Where a smaller share of the names is the model's, the cache is taken for another model's. Names that the parser made are not
counted. Between versions of one model exporters rename some tensors, weights first; half and more is common, and models of one
family share a few names ('input', 'output'). Ours."""

SHOWN = 10
"""Names that a finding about many shows."""


def name_findings(scan: CacheScan, view: ModelView) -> Iterator[LintFinding]:
    """Yield names without a tensor and tensors without a scale."""
    if view.quantized:
        message = (
            "the model holds QuantizeLinear or DequantizeLinear nodes, and TensorRT then ignores calibrators and their cache: "
            "take the model without them, or the scales in them"
        )
        yield finding("TC053", message)
    lines = {entry.name: entry.line for entry in scan.entries}
    made = [name for name in lines if name not in view.names and is_parser_made(name)]
    own = len(lines) - len(made)
    matched = sum(name in view.names for name in lines)
    if made:
        yield finding(
            "TC043",
            f"{_count(made, 'name was', 'names were')} made by TensorRT's parser, and the model cannot tell whose: {_listed(made)}",
            line=lines[made[0]],
        )
    if own and matched < FEW * own:
        few = f"only {matched} of" if matched else "none of"
        message = (
            f"{few} the {own} names that TensorRT's parser did not make {'is a tensor' if matched < 2 else 'are tensors'} of "  # noqa: PLR2004 - grammar
            f"{view.graph.path.name}: it is the cache of another model, or all tensors were renamed"
        )
        yield finding("TC041", message)
        return
    renames = likely_renames(scan, view, frozenset(made))
    yield from _stale(lines, view, frozenset(made), renames)
    yield from _missing(lines, view, made, {rename.name for rename in renames.values()})


def is_parser_made(name: str) -> bool:
    """Whether a name looks as if TensorRT's ONNX parser had made it."""
    return name.startswith(PARSER_MADE)


def _stale(
    lines: Mapping[str, int], view: ModelView, made: frozenset[str], renames: Mapping[str, Rename]
) -> Iterator[LintFinding]:
    for name, line in lines.items():
        if name in view.names or name in made:
            continue
        rename = renames.get(name)
        advice = "" if rename is None else f"; it is likely {rename.name!r} now ({rename.why}), which has no scale"
        yield finding(
            "TC042", f"{name!r} is no tensor of {view.graph.path.name}{advice}", line=line, tensor=name
        )  # fmt: skip


def _missing(
    lines: Mapping[str, int], view: ModelView, made: list[str], renamed: set[str]
) -> Iterator[LintFinding]:  # fmt: skip
    missing = [
        tensor
        for tensor in view.tensors.values()
        if tensor.name not in lines
        and tensor.name not in renamed
        and tensor.name not in view.from_shapes
        and view.is_float(tensor)
    ]
    varying = [tensor for tensor in missing if tensor.kind in ("input", "activation")]
    important = [tensor for tensor in varying if tensor.name in view.users]
    minor = [tensor.name for tensor in varying if tensor.name not in view.users]
    constants = [tensor.name for tensor in missing if tensor.kind in ("constant", "folded")]
    if len(important) <= len(made):
        if important:
            names = [tensor.name for tensor in important]
            yield finding(
                "TC045",
                f"{_count(names, 'input', 'inputs')} of Conv, MatMul, Gemm or Add without a scale may stand under the "
                f"{_count(made, 'name', 'names')} that TensorRT's parser made: {_listed(names)}",
            )
    else:
        yield from (_important(tensor, lines, view) for tensor in important)
    if minor:
        text = f"{_count(minor, 'other tensor has', 'other tensors have')} no scale, and what makes or takes such a tensor may not run in INT8"
        yield finding("TC045", f"{text}: {_listed(minor)}")
    if constants:
        text = f"{_count(constants, 'constant has', 'constants have')} no scale; some versions of TensorRT list them and some do not"
        yield finding("TC045", f"{text}: {_listed(constants)}")


def _important(tensor: GraphTensor, lines: Mapping[str, int], view: ModelView) -> LintFinding:
    node = view.users[tensor.name]
    of = f" {node.name!r}" if node.name else ""
    source = tensor.view_of or tensor.scale_of
    advice = "calibrate again with this model"
    if source in lines:
        advice = f"TensorRT's caches give it that of {source!r}"
    message = f"tensor {tensor.name!r}, an input of {node.op_type}{of}, has no scale, which INT8 needs: {advice}"
    return finding("TC044", message, tensor=tensor.name)


def _count(names: list[str], one: str, many: str) -> str:
    return f"{len(names)} {one if len(names) == 1 else many}"


def _listed(names: list[str]) -> str:
    more = f", ... {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(repr(name) for name in names[:SHOWN]) + more
