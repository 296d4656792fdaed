"""Top-1 on the validation digits with every activation rounded to INT8 by a calibration's scales; weights stay float."""

# ruff: noqa: INP001 - scripts of one page, not a package

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt

import numpy as np
import onnx
from activations import ROOT
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from trtcalib.sessions import SESSION_OPTIONS, session_options

__all__ = ["Answers", "answers", "wilson"]

Z95 = 1.959964
"""The normal distribution's 97.5 % point: a two-sided interval of 95 %."""


@dataclass(frozen=True, slots=True)
class Answers:
    """What the classifier said.

    Attributes:
        right: Images that it classified as labelled.
        images: Images in all.
        classes: int64, its answer for each.
    """

    right: int
    images: int
    classes: NDArray[np.int64]


def answers(scales: Mapping[str, np.float32] | None) -> Answers:
    """Classify the validation images, with activations rounded by these scales; ``None``: in float."""
    import onnxruntime

    folder = ROOT / "data" / "digits"
    model = onnx.load(folder / "model.onnx")
    if scales is not None:
        model = fake_quantized(model, scales)
    images = np.load(folder / "validation-images.npy").astype(np.float32) / np.float32(16)
    labels = np.load(folder / "validation-labels.npy")
    options = session_options()
    # Nothing may be fused over the inserted nodes, into integer kernels say.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=[str(SESSION_OPTIONS["provider"])]
    )
    (probabilities,) = session.run(None, {"image": images})
    classes = probabilities.argmax(axis=1)
    return Answers(int((classes == labels).sum()), labels.size, classes)


def fake_quantized(model: onnx.ModelProto, scales: Mapping[str, np.float32]) -> onnx.ModelProto:
    """Return the model with QuantizeLinear and DequantizeLinear behind its input and each node's output, but the model's own output."""
    graph = model.graph
    skipped = {output.name for output in graph.output} | {initializer.name for initializer in graph.initializer}
    produced = [graph.input[0].name, *(name for node in graph.node for name in node.output)]
    rounded = {name: f"{name}/rounded" for name in produced if name in scales and name not in skipped}
    nodes = [node for name in produced[:1] for node in _pair(name, rounded)]
    initializers = [numpy_helper.from_array(np.int8(0), "zero_point")]
    initializers += [numpy_helper.from_array(np.float32(scales[name]), f"{name}/scale") for name in rounded]
    for node in graph.node:
        changed = onnx.NodeProto()
        changed.CopyFrom(node)
        del changed.input[:]
        changed.input.extend(rounded.get(name, name) for name in node.input)
        nodes.append(changed)
        nodes += [added for name in node.output for added in _pair(name, rounded)]
    result = onnx.ModelProto()
    result.CopyFrom(model)
    del result.graph.node[:]
    result.graph.node.extend(nodes)
    result.graph.initializer.extend(initializers)
    onnx.checker.check_model(result)
    return result


def _pair(name: str, rounded: Mapping[str, str]) -> list[onnx.NodeProto]:
    if name not in rounded:
        return []
    scale, integers = f"{name}/scale", f"{name}/int8"
    return [
        helper.make_node("QuantizeLinear", [name, scale, "zero_point"], [integers]),
        helper.make_node("DequantizeLinear", [integers, scale, "zero_point"], [rounded[name]]),
    ]


def wilson(right: int, images: int) -> tuple[float, float]:
    """Return Wilson's 95 % interval of a share.

    Source:
        E. B. Wilson (1927), "Probable inference, the law of succession, and statistical inference", JASA 22.
    """
    share, z2 = right / images, Z95**2
    middle = share + z2 / (2 * images)
    half = Z95 * sqrt(share * (1 - share) / images + z2 / (4 * images**2))
    return (middle - half) / (1 + z2 / images), (middle + half) / (1 + z2 / images)
