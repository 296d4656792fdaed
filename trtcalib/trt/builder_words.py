"""Which weighted nodes take INT8 in an engine, as the builder itself lists its layers in the log."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator

__all__ = ["HEADING", "told_precisions"]

HEADING = "Layers:"
"""How the message begins that lists an engine's layers; TensorRT logs it, verbosely, where profiling verbosity is DETAILED."""

_PLAIN = frozenset({"correlation", "gemm", "deconv"})
"""Kinds of layers whose inputs' types are what they compute in; TensorRT-RTX calls a convolution a correlation."""

_FUSED = "runtime_fusion"
"""A kind that may convert its inputs before it multiplies: float inputs tell, INT8 inputs do not."""

_ORIGIN = "[ONNX Layer: "


def told_precisions(text: str, nodes: Collection[str]) -> dict[str, bool]:
    """Return for the nodes that the builder tells something of whether they take INT8; nothing where the text reads otherwise.

    The form of this text is not documented: seen with TensorRT-RTX 1.7.1, and the one of TensorRT's engine inspector.

    Args:
        text: The message.
        nodes: Weighted nodes as the parser's metadata has them.
    """
    told: dict[str, bool] = {}
    for line in text.split("\n"):
        _, _, rest = line.partition(", LayerType: ")
        kind, _, rest = rest.partition(", Inputs: [")
        if kind not in _PLAIN and kind != _FUSED:
            continue
        inputs, _, rest = rest.partition("], Constants: [")
        constants, _, rest = rest.partition("], Outputs: [")
        # The kernel's own weights come first among the constants, unless they are an input.
        data = _types(inputs)
        operands = [*data, *_types(constants)][:2]
        is_int8 = len(operands) == 2 and set(operands) == {"Int8"}  # noqa: PLR2004 - what is multiplied
        if not operands or (kind == _FUSED and not {"Float", "Half"} & set(data)):
            continue
        for node in _origins(rest.rpartition(", Metadata: ")[2], nodes):
            told[node] = told.get(node, True) and is_int8
    return told


def _types(listed: str) -> list[str]:
    return re.findall(r"Datatype: (\w+)", listed)


def _origins(text: str, nodes: Collection[str]) -> Iterator[str]:
    for part in text.split("\x1f"):
        name = part.removeprefix(_ORIGIN).removesuffix("]")
        if part == f"{_ORIGIN}{name}]" and name in nodes:
            yield name
