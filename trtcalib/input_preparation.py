"""What a model does with its input first, and which preparation its first batch normalization was trained on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from trtcalib.errors import ActivationError
from trtcalib.input_statistics import InputStatistics, channel_axis
from trtcalib.onnx_graph import ModelGraph
from trtcalib.onnx_tensors import FLOATS, constant_tensors, tensor_values

__all__ = [
    "SMALL_LEVELS",
    "Expectation",
    "Preparation",
    "expected_preparation",
    "first_operators",
    "starts_with_arithmetic",
    "usual_preparations",
]

SMALL_LEVELS = 16
"""The largest grey level that is taken for one of 16 or 17 rather than of 256: 4-bit pixels reach 15, the embedded sample's 16."""

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
"""Red, green, blue over pixels in 0 to 1: the numbers that torchvision's ImageNet models are trained with."""

_MOVING = frozenset(
    {
        "Cast",
        "Transpose",
        "Reshape",
        "Flatten",
        "Identity",
        "Unsqueeze",
        "Squeeze",
        "Pad",
        "Slice",
        "Resize",
        "Upsample",
    }
    | {"Concat", "Gather", "Split", "SpaceToDepth", "DepthToSpace", "Dropout"}
)
"""Operators that move, copy or interpolate values and keep their range."""

_CHANNEL_KEEPING = frozenset({"Cast", "Transpose", "Identity", "Pad", "Resize", "Upsample", "Dropout"})
"""Those of them after which a channel is still the same channel."""

_MEASURING = frozenset({"Shape", "Size"})
"""Operators that take an input's shape and not its values."""

_ARITHMETIC = frozenset(
    {"Sub", "Div", "Mul", "Add", "Sum", "Neg", "Pow", "Sqrt", "Log", "Exp", "Abs", "Clip", "ReduceMean", "ReduceMax"}
    | {"BatchNormalization", "InstanceNormalization", "LayerNormalization", "GroupNormalization", "LpNormalization"}
    | {"MeanVarianceNormalization", "QuantizeLinear", "DynamicQuantizeLinear", "DequantizeLinear"}
)
"""Operators that a model prepares its own input with."""

_FAR = 2.0
"""Standard deviations between the mean that a convolution gives on the data and the one its batch normalization remembers, in the
median channel. Measured: 0.08 to 0.23 on the embedded sample and three PP-OCR models fed as they should be; 8 for that sample's
pixels 16 times too large, 48 and more for pixels 255 times too large."""

_CONV_RANK = 4

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Preparation:
    """What is done with a value x of channel c: ``(x * scale - mean[c]) / std[c]``.

    Attributes:
        name: For people, in terms of x, the data as they are fed.
        scale: Factor.
        mean: One number, or one per channel.
        std: Likewise.
    """

    name: str
    scale: float = 1.0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)

    def apply(self, values: NDArray[Any]) -> NDArray[Any]:
        """Return an image-like input as it is after this preparation, in its own type."""
        axis = channel_axis(values.shape)
        shape = [-1 if i == axis else 1 for i in range(values.ndim)]
        mean, std = (np.array(each) if axis is None else np.reshape(each, shape) for each in (self.mean, self.std))
        prepared: NDArray[Any] = ((values * np.float64(self.scale) - mean) / std).astype(values.dtype)
        return prepared

    @property
    def dataset_keys(self) -> str:
        """The same in a dataset YAML, behind what stands there already: ``scale: 1/255, mean: [0.5]``."""
        inverse = 1 / self.scale
        scale = f"1/{inverse:.10g}" if self.scale < 1 else f"{self.scale:.10g}"
        keys = {} if self.scale == 1 else {"scale": scale}
        if any(self.mean):
            keys["mean"] = str([round(mean, 6) for mean in self.mean])
        if any(std != 1 for std in self.std):
            keys["std"] = str([round(std, 6) for std in self.std])
        return ", ".join(f"{key}: {value}" for key, value in keys.items())


@dataclass(frozen=True, slots=True)
class Expectation:
    """What the model's first batch normalization says of an input.

    Attributes:
        as_fed: Whether the data can be what it was trained on.
        fitting: Names of the usual preparations of these data that can be, the best first.
    """

    as_fed: bool
    fitting: tuple[str, ...]


def first_operators(graph: ModelGraph, name: str) -> list[onnx.NodeProto]:
    """Return the first operators that compute with an input, past those that only move or interpolate its values."""
    return _entry(graph, name)[0]


def starts_with_arithmetic(graph: ModelGraph, name: str) -> bool:
    """Whether the model scales, shifts, normalises or quantizes an input by itself, so that any range may be right.

    Args:
        graph: The model.
        name: The input.
    """
    return any(node.op_type in _ARITHMETIC for node in first_operators(graph, name))


def expected_preparation(graph: ModelGraph, statistics: InputStatistics) -> Expectation | None:
    """Say which preparation of an image-like input fits the batch normalization after the first convolution.

    A batch normalization remembers mean and variance of what it was trained on. From the weights and the channels' means follows
    the mean that the convolution gives on these data, away from the border: ``bias + sum_c mean_c sum_k W[o, c, k]``. From their
    standard deviations follows the largest that it can give, however the pixels hang together: ``sum_c std_c sum_k |W[o, c, k]|``
    (Minkowski's inequality). A preparation does not fit where, in the median over the convolution's outputs, the mean is more than
    2 of the remembered standard deviations off, or the remembered standard deviation is more than that largest one.

    The two bounds are wide: data that are half as large as they should be fit as a rule, and several preparations can fit.

    Returns:
        ``None`` where there is no evidence: the batch normalization was folded into the convolution, the model begins otherwise, or
        its numbers are not finite.
    """
    layer = _first_layer(graph, statistics)
    if layer is None:
        return None
    fits = {p.name: _distance(layer, statistics, p) for p in (Preparation("x"), *usual_preparations(statistics))}
    as_fed = fits.pop("x")
    possible = {name: distance for name, distance in fits.items() if distance is not None}
    return Expectation(as_fed is not None, tuple(sorted(possible, key=lambda name: possible[name])))


def _entry(graph: ModelGraph, name: str) -> tuple[list[onnx.NodeProto], set[str]]:
    """Return the first operators after an input, and the kinds of operators on the way."""
    consumers = _consumers(graph)
    found: list[onnx.NodeProto] = []
    passed: set[str] = set()
    seen, pending = {name}, [name]
    while pending:
        tensor = pending.pop()
        for node in consumers.get(tensor, ()):
            if node.op_type in _MEASURING:
                continue
            if node.op_type not in _MOVING:
                if not any(node is other for other in found):
                    found.append(node)
            elif node.op_type == "Concat" or node.input[0] == tensor:
                passed.add(node.op_type)
                pending += [output for output in node.output if output and output not in seen]
                seen.update(node.output)
    return found, passed


def _consumers(graph: ModelGraph) -> dict[str, list[onnx.NodeProto]]:
    consumers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.proto.graph.node:
        for tensor in dict.fromkeys(node.input):
            consumers.setdefault(tensor, []).append(node)
    return consumers


@dataclass(frozen=True, slots=True)
class _Layer:
    """A convolution and what its batch normalization remembers; float64, O outputs and C channels.

    Attributes:
        sums: Sums of the weights, [O, C].
        sizes: Sums of their magnitudes, [O, C].
        bias: [O].
        mean: [O].
        std: [O].
    """

    sums: Floats
    sizes: Floats
    bias: Floats
    mean: Floats
    std: Floats


def _first_layer(graph: ModelGraph, statistics: InputStatistics) -> _Layer | None:
    operators, passed = _entry(graph, statistics.name)
    if [node.op_type for node in operators] != ["Conv"] or passed - _CHANNEL_KEEPING or not statistics.channels:
        return None
    conv = operators[0]
    after = _consumers(graph).get(conv.output[0], ())
    norm = next((node for node in after if node.op_type == "BatchNormalization"), None)
    if norm is None:
        return None
    try:
        weights, *biases = _constants(graph, conv.input[1:3])
        mean, variance = _constants(graph, norm.input[3:5])
    except (ValueError, ActivationError):  # computed by the model, or of another type or shape
        return None
    if weights.ndim != _CONV_RANK or weights.shape[1] != statistics.channels or mean.shape != (len(weights),):
        return None
    if variance.shape != mean.shape or any(bias.shape != mean.shape for bias in biases):
        return None
    epsilon = next((a.f for a in norm.attribute if a.name == "epsilon"), 1e-5)  # ONNX's default
    with np.errstate(all="ignore"):
        std = np.sqrt(variance + epsilon)
        layer = _Layer(
            weights.sum((2, 3)), np.abs(weights).sum((2, 3)), biases[0] if biases else np.zeros(len(mean)), mean, std
        )
        finite = np.isfinite([layer.bias, layer.mean, layer.std]).all() and np.isfinite(layer.sizes).all()
    return layer if len(mean) and finite and (std > 0).all() else None


def _constants(graph: ModelGraph, names: Sequence[str]) -> Iterator[Floats]:
    """Yield the named constants as float64.

    Raises:
        ValueError: If one is no floating-point constant.
        ActivationError: If one cannot be decoded.
    """
    constants = {t.name: t for t in constant_tensors(graph.proto.graph) if t.name in names}
    for name in names:
        if not name:  # a bias that is left out
            continue
        if name not in constants or constants[name].data_type not in FLOATS:
            raise ValueError(name)
        tensor = constants[name]
        yield tensor_values(tensor, graph.path).astype(np.float64).reshape(tuple(tensor.dims))


def usual_preparations(statistics: InputStatistics) -> list[Preparation]:
    """Return the usual preparations of such data: of pixels, of pixels in 0 to 1, or back from values around zero."""
    imagenet = statistics.channels == len(IMAGENET_MEAN)
    if statistics.minimum >= 0 and statistics.maximum > 1:
        top = _top(statistics)
        found = [Preparation(f"x/{top}", 1 / top), Preparation(f"x/{top / 2:g}-1", 2 / top, (1.0,))]
        return [*found, *[Preparation(f"(x/{top}-mean)/std", 1 / top, IMAGENET_MEAN, IMAGENET_STD)] * imagenet]
    if statistics.minimum >= 0:
        found = [Preparation("x*255", 255), Preparation("(x-0.5)/0.5", 1, (0.5,), (0.5,))]
        return [*found, *[Preparation("(x-mean)/std", 1, IMAGENET_MEAN, IMAGENET_STD)] * imagenet]
    found = [Preparation("(x+1)/2", 0.5, (-0.5,)), Preparation("(x+1)*127.5", 127.5, (-127.5,))]
    if imagenet:
        back = tuple(-m / s for m, s in zip(IMAGENET_MEAN, IMAGENET_STD, strict=True))
        for factor, name in ((1, "x*std+mean"), (255, "(x*std+mean)*255")):
            found.append(Preparation(name, 1, back, tuple(1 / (s * factor) for s in IMAGENET_STD)))
    return found


def _top(statistics: InputStatistics) -> int:
    return 255 if statistics.maximum > SMALL_LEVELS else int(np.ceil(statistics.maximum))


def _distance(layer: _Layer, statistics: InputStatistics, preparation: Preparation) -> float | None:
    """Return how far off the mean is, in the median output; ``None`` where the preparation does not fit."""
    means = (np.array(statistics.channel_means) * preparation.scale - preparation.mean) / preparation.std
    stds = np.array(statistics.channel_stds) * preparation.scale / preparation.std
    given, largest = layer.bias + layer.sums @ means, layer.sizes @ stds
    with np.errstate(all="ignore"):
        distance = float(np.median(np.abs(given - layer.mean) / layer.std))
        spread = float(np.median(layer.std / largest))
    return distance if distance <= _FAR and spread <= 1 else None
