"""Models for the tests, written as ONNX text so that the reader sees the graph."""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import parser

OPSET = '<ir_version: 8, opset_import: ["" : 17]>'

DENSE = """
dense (float[N, 3] x) => (float[N, 2] y)
<float[3, 2] w = {1, 0, 0, 1, 1, 1}>
{
    h = MatMul(x, w)
    y = Relu(h)
}
"""
"""One input with a free batch, a weight, two activations."""

FIXED = """
fixed (float[4, 3] x) => (float[4, 3] y)
{
    y = Relu(x)
}
"""
"""A batch that the model fixes to 4."""

IMAGE = """
image (float[N, 3, 8, 8] pixels) => (float[N, 3, 8, 8] y)
{
    y = Relu(pixels)
}
"""


def make_model(text: str) -> onnx.ModelProto:
    """Parse a graph; opset 17 unless the text brings its own header."""
    return parser.parse_model(text if text.lstrip().startswith("<") else OPSET + text)


def save_model(path: Path, text: str) -> Path:
    """Write a graph to a file and return the file."""
    onnx.save_model(make_model(text), path)
    return path
