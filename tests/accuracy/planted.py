"""The embedded sample with planted faults: models and data of which it is known what is wrong, and which node an accuracy study must blame.

Faults in the model keep what it computes in float32: its class for each of the 500 validation images is the sample's. What each does in INT8
is measured in ``test_planted.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from trtcalib.files import sample_folder

__all__ = [
    "BROKEN_SAMPLE",
    "CALIBRATION_SAMPLES",
    "OUTLIER_CHANNEL",
    "Planted",
    "broken_image",
    "forgotten_scale",
    "outlier_channel",
    "rare_values",
    "scaled_twice",
    "sound",
]

CALIBRATION_SAMPLES = 320
"""Of the sample's 1297: enough for its accuracy, and calibrated in half a second."""

OUTLIER_CHANNEL = 7
"""Of residual_relu1's 24 channels one without which the float32 model loses 0.2 points: the fault is the scale that all channels share, much
more than this channel's own weights, which INT8 loses too."""

BROKEN_SAMPLE = 0
"""Which of the calibration images is broken."""

_SAMPLE_PIXEL = 16
"""The largest pixel of the sample's images."""

_CLASSES = 10

_SMALL = np.float32(2**-3)
"""Makes the map's values small beside the scores. Measured: with 2^-2 to 2^-4 the entropy search clips into the scores."""

_LIFT = np.float32(16)
"""Added to scores of -10 to 13, so that the scores are the large values of the tensor, whatever the class."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Planted:
    """A model and data with one fault.

    Attributes:
        fault: What is wrong, as one word.
        model: The ONNX file.
        calibration: Dataset YAML of the calibration images, with labels.
        evaluation: Dataset YAML of the 500 validation images, with labels.
        labels: The digits of the evaluation images, uint8 [500], ``.npy``.
        culprit: Name of the node that must be ranked first; ``None`` where the fault is no one node's.
        culprit_output: The node's output in a converted model, where a BatchNormalization behind it is folded into it.
        activation: The tensor whose scale is wrong: the culprit's input.
        broken_sample: Which calibration image is to be left out.
    """

    fault: str
    model: Path
    calibration: Path
    evaluation: Path
    labels: Path
    culprit: str | None = None
    culprit_output: str | None = None
    activation: str | None = None
    broken_sample: int | None = None


def sound(folder: Path) -> Planted:
    """Write the sample as it is, with :data:`CALIBRATION_SAMPLES` calibration images: the control."""
    return Planted(fault="sound", model=_write_model(folder), **_write_data(folder))


def outlier_channel(folder: Path, *, exponent: int = 10) -> Planted:
    """Make one channel of residual_relu1 ``2^exponent`` times as large, and its weights in residual_conv2 as much smaller.

    Exact in float32: powers of two, and a Relu between. All channels share the activation's scale, so that the others round to 0; the
    channel's own weights do too, since an output channel's weights share one scale. From 10 on no method helps; with 8 minmax and percentiles
    suffer, and entropy, which clips the channel, hardly does.
    """

    def edit(model: onnx.ModelProto) -> None:
        factor = np.float32(2.0**exponent)
        for name in ("residual_bn1.weight", "residual_bn1.bias"):
            _edit_constant(
                model, name, lambda values: values.__setitem__(OUTLIER_CHANNEL, values[OUTLIER_CHANNEL] * factor)
            )
        column = np.s_[:, OUTLIER_CHANNEL]
        _edit_constant(
            model, "residual_conv2.weight", lambda values: values.__setitem__(column, values[column] / factor)
        )

    return Planted(
        fault="outlier-channel",
        model=_write_model(folder, edit),
        **_write_data(folder),
        culprit="residual_conv2",
        culprit_output="residual_bn2",
        activation="residual_relu1",
    )


def rare_values(folder: Path) -> Planted:
    """Lead the ten scores, lifted by a constant, beside 3072 small values into one more Gemm, which takes the scores back out.

    0.3 % of the Gemm's input decide, and they are its large values: methods that clip (entropy, percentile-99.9) make them equal. Float32 differs
    by the rounding of ``score + 16 - 16`` alone.
    """
    return Planted(
        fault="rare-values",
        model=_write_model(folder, _add_verdict),
        **_write_data(folder),
        culprit="verdict",
        culprit_output="verdict",
        activation="evidence",
    )


def forgotten_scale(folder: Path, *, largest_pixel: int = _SAMPLE_PIXEL, evaluation_too: bool = False) -> Planted:
    """Leave out the factor ``1/largest_pixel`` for the calibration images, and on request for the evaluation images.

    Args:
        folder: Where to write.
        largest_pixel: 16 for the sample's images as they are; 255 for the same in eight bits, for which the factor is 1/255.
        evaluation_too: Forget it there too, so that the float32 model is fed wrongly as well.
    """
    scale = f"1/{largest_pixel}"
    data = _write_data(
        folder,
        change=lambda pixels: np.rint(pixels.astype(np.float64) * largest_pixel / _SAMPLE_PIXEL).astype(np.uint8),
        calibration_scale="1",
        evaluation_scale="1" if evaluation_too else scale,
    )
    return Planted(fault="forgotten-scale", model=_write_model(folder), **data)


def scaled_twice(folder: Path) -> Planted:
    """Apply the factor 1/16 twice to the calibration images."""
    data = _write_data(folder, calibration_scale=f"1/{_SAMPLE_PIXEL**2}")
    return Planted(fault="scaled-twice", model=_write_model(folder), **data)


def broken_image(folder: Path) -> Planted:
    """Set one pixel of one calibration image to 100 times the largest.

    Under entropy the first convolution alone is hurt; under minmax all that follow it are as well, and no one node is to blame for the whole loss.
    """
    data = _write_data(folder)
    images = np.load(folder / "calibration-images.npy").astype(np.float32)
    images[BROKEN_SAMPLE, 0, 3, 3] = 100 * _SAMPLE_PIXEL
    np.save(folder / "calibration-images.npy", images)
    return Planted(
        fault="broken-image",
        model=_write_model(folder),
        **data,
        culprit="stem_conv",
        culprit_output="stem_bn",
        activation="image",
        broken_sample=BROKEN_SAMPLE,
    )


def _write_model(folder: Path, edit: Callable[[onnx.ModelProto], None] | None = None) -> Path:
    model = onnx.load_model(sample_folder() / "digits" / "model.onnx")
    if edit is not None:
        edit(model)
    onnx.checker.check_model(model, full_check=True)
    path = folder / "model.onnx"
    onnx.save_model(model, path)
    return path


def _write_data(
    folder: Path,
    *,
    change: Callable[[NDArray[np.uint8]], NDArray[Any]] | None = None,
    calibration_scale: str = f"1/{_SAMPLE_PIXEL}",
    evaluation_scale: str = f"1/{_SAMPLE_PIXEL}",
) -> dict[str, Any]:
    """Write both data sets, images changed on request, and return the paths by :class:`Planted`'s names."""
    digits = sample_folder() / "digits"
    paths = {"labels": folder / "validation-labels.npy"}
    parts = (
        ("calibration", "calibration", CALIBRATION_SAMPLES, calibration_scale),
        ("evaluation", "validation", None, evaluation_scale),
    )
    for name, part, count, scale in parts:
        images = np.load(digits / f"{part}-images.npy")[:count]
        np.save(folder / f"{part}-images.npy", images if change is None else change(images))
        np.save(folder / f"{part}-labels.npy", np.load(digits / f"{part}-labels.npy")[:count])
        paths[name] = folder / f"{part}.yaml"
        paths[name].write_text(
            f"source: {part}-images.npy\nlabels: {part}-labels.npy\ninputs:\n  image:\n    scale: {scale}\n    dtype: float32\n",
            encoding="utf-8",
        )
    return paths


def _edit_constant(model: onnx.ModelProto, name: str, edit: Callable[[NDArray[np.float32]], None]) -> None:
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == name)
    values = numpy_helper.to_array(tensor).copy()
    edit(values)
    tensor.CopyFrom(numpy_helper.from_array(values, name))


def _add_verdict(model: onnx.ModelProto) -> None:
    """Put small map, lifted scores and one more Gemm between the scores and the Softmax."""
    graph = model.graph
    small = 48 * 8 * 8  # the elements of `concat`
    weights = np.zeros((small + _CLASSES, _CLASSES), np.float32)
    weights[small:] = np.eye(_CLASSES)
    constants: Mapping[str, NDArray[np.float32]] = {
        "small": np.asarray(_SMALL),
        "lift": np.asarray(_LIFT),
        "verdict.weight": weights,
        "verdict.bias": np.full(_CLASSES, -_LIFT),
    }
    graph.initializer.extend(numpy_helper.from_array(values, name) for name, values in constants.items())
    softmax = graph.node.pop()
    softmax.input[0] = "verdict"
    graph.node.extend(
        [
            _node("Mul", "small_map", ["concat", "small"]),
            _node("Flatten", "small_values", ["small_map"], axis=1),
            _node("Add", "rare_values", ["logits", "lift"]),
            _node("Concat", "evidence", ["small_values", "rare_values"], axis=1),
            _node("Gemm", "verdict", ["evidence", "verdict.weight", "verdict.bias"]),
            softmax,
        ]
    )


def _node(operator: str, name: str, inputs: list[str], **attributes: int) -> onnx.NodeProto:
    """Return a node that has the name of its only output, as in the sample."""
    return helper.make_node(operator, inputs, [name], name=name, **attributes)
