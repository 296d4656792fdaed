"""Skip connections: the residual input of an Add is quantized, so that TensorRT can add it in the convolution's epilogue."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import onnx

from trtcalib.qdq.placement import Decision, Rules, add_activation
from trtcalib.qdq.scales import Scales
from trtcalib.qdq.wiring import Wiring, is_standard

__all__ = ["decide_residuals"]

_OPERANDS = 2


def decide_residuals(
    wiring: Wiring,
    scales: Scales,
    weighted: Sequence[Decision],
    shapes: Mapping[str, tuple[int, ...]],
    rules: Rules,
) -> Iterator[Decision]:
    """Yield a decision per Add of which one input comes from a quantized node, its bias added or not, and the other, of the same shape, is the residual.

    Args:
        wiring: Of the graph.
        scales: Per tensor.
        weighted: What becomes of the weighted nodes.
        shapes: Where they are known.
        rules: What may be quantized.
    """
    constant = _constant(wiring)
    quantized = _results(wiring, {name for each in weighted if each.quantized for name in each.node.output}, constant)
    position = {name: index for index, node in enumerate(wiring.graph.node) for name in node.output}
    for node in wiring.graph.node:
        if not _adds_two_tensors(node, constant, shapes):
            continue
        fused = [name for name in node.input if name in quantized and wiring.only_consumer(name) is node]
        if not fused:
            continue
        # Of two convolutions the later one adds in its epilogue; what was ready before is the residual.
        last = max(fused, key=lambda name: position[name])
        slot = 1 - list(node.input).index(last)
        decision = Decision(node, reason="excluded by --exclude" if rules.excluded(node) else None)
        add_activation(decision, scales, slot, node.input[slot])
        yield decision


def _constant(wiring: Wiring) -> set[str]:
    """Return the constants and what is computed from them alone: exporters reshape a bias before they add it."""
    found = set(wiring.constants)
    for node in wiring.graph.node:
        inputs = [name for name in node.input if name]
        if inputs and found.issuperset(inputs):
            found.update(node.output)
    return found


def _results(wiring: Wiring, quantized: set[str], constant: set[str]) -> set[str]:
    """Return what quantized nodes make, and the sums of that with a constant: exporters write a bias as an Add of its own."""
    found = set(quantized)
    for node in wiring.graph.node:
        if node.op_type == "Add" and is_standard(node) and len(node.input) == _OPERANDS:
            rest = [name for name in node.input if name not in constant]
            if len(rest) == 1 and rest[0] in found and wiring.only_consumer(rest[0]) is not None:
                found.update(node.output)
    return found


def _adds_two_tensors(node: onnx.NodeProto, constant: set[str], shapes: Mapping[str, tuple[int, ...]]) -> bool:
    if node.op_type != "Add" or not is_standard(node) or len(set(node.input)) != _OPERANDS:
        return False
    if not constant.isdisjoint(node.input):
        return False
    known = [shapes[name] for name in node.input if name in shapes]
    return len(known) < _OPERANDS or known[0] == known[1]
