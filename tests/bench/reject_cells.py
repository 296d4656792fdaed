"""What a cell of docs/side-by-side.md shows: a message in one line, what came of a conversion; and the files of a case."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx

__all__ = ["CACHE", "MODEL", "OUTPUT", "TABLE", "came_of_it", "markdown", "short"]

MODEL, CACHE, OUTPUT, TABLE = "m.onnx", "m.cache", "q.onnx", "m.json"
"""In the current folder: the model, its calibration cache, what a contender writes, and the cache as ONNX Runtime's table."""

LONGEST = 150
"""Characters of a message that a cell shows."""


def came_of_it() -> list[str]:
    """Tell of the model that was written into the current folder: Convs with a quantized input, Q/DQ nodes, the broken tensor's scale."""
    if not Path(OUTPUT).exists():
        return ["no model"]
    graph = onnx.load(OUTPUT).graph
    values = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant":
            values[node.output[0]] = onnx.numpy_helper.to_array(node.attribute[0].t)
    scales = {node.output[0]: values.get(node.input[1]) for node in graph.node if node.op_type == "DequantizeLinear"}
    convs = [node for node in graph.node if node.op_type == "Conv"]
    nodes = sum(node.op_type in ("QuantizeLinear", "DequantizeLinear") for node in graph.node)
    quantized = sum(node.input[0] in scales for node in convs)
    told = [f"{quantized} of {len(convs)} Conv, {nodes} Q/DQ nodes"]
    second = scales.get(convs[-1].input[0])
    if second is not None:
        told.append(f"scale {' '.join(f'{value:.4g}' for value in np.atleast_1d(second))}")
    return told


def short(text: str, most: int = LONGEST) -> str:
    """Return text as one line for a cell."""
    line = " ".join(text.split())
    line = line if len(line) <= most else line[:most].rstrip() + " ..."
    return line.replace("|", "\\|")


def markdown(name: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table behind a mark by which the tests find it."""
    lines = [heads, ["---"] * len(heads), *rows]
    return f"<!-- table: {name} -->\n\n" + "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"
