"""Regenerates the digits sample: the images, the labels and `model.onnx`.

Run as `python make_sample.py`; the files land beside this script, or in the folder given as `--output`.

PyTorch and scikit-learn are needed for this script alone and are no dependencies of the project. The committed files
were made on Linux x86-64 with Python 3.11, torch 2.13.0 (CPU build), scikit-learn 1.9.1, numpy 2.4.6, onnx 1.23.2 and
onnxruntime 1.31.1. The same machine and versions give the same bytes; another CPU or torch version may round
differently while training and so give other weights.
"""

from __future__ import annotations

import argparse
import logging
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.nn import functional

SEED = 0
VALIDATION_SAMPLES = 500
CLASSES = 10
# scikit-learn's pixels count the set points of a 4x4 block, so they run from 0 to 16.
PIXEL_MAXIMUM = 16

# Channels of the stem and of each of the two branches; the features after the concatenation have twice as many.
STEM_CHANNELS = 24
FEATURE_CHANNELS = 2 * STEM_CHANNELS
HEAD_CHANNELS = 64

EPOCHS = 60
BATCH_SIZE = 64
PEAK_LEARNING_RATE = 4e-3
WEIGHT_DECAY = 1e-3

# Opset 17 and IR version 8 belong to the same ONNX release (1.12), so any reader of one reads the other.
OPSET = 17
IR_VERSION = 8
MINIMUM_ACCURACY = 0.98
PARITY_TOLERANCE = 1e-5

LOG = logging.getLogger(__name__)


def main() -> None:
    """Trains the network and writes the sample's five files."""
    parser = argparse.ArgumentParser(description="Regenerate the digits sample.")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent, help="folder to write to")
    folder: Path = parser.parse_args().output
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    # One thread, so that sums are taken in the same order on every run.
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(mode=True)
    torch.manual_seed(SEED)

    calibration, validation = _load_splits()
    network = DigitsNetwork()
    _train(network, calibration)
    model = _build_model(network)
    accuracy = _check_model(model, network, validation)

    folder.mkdir(parents=True, exist_ok=True)
    for name, split in (("calibration", calibration), ("validation", validation)):
        np.save(folder / f"{name}-images.npy", split.images)
        np.save(folder / f"{name}-labels.npy", split.labels)
    onnx.save(model, folder / "model.onnx")
    LOG.info("validation accuracy: %.2f %% of %d", 100 * accuracy, len(validation.labels))


class Split(NamedTuple):
    """One part of the data.

    Attributes:
        images: Raw pixel values as uint8 [n, 1, 8, 8].
        labels: Digits as uint8 [n].
    """

    images: np.ndarray
    labels: np.ndarray

    def inputs(self) -> np.ndarray:
        """Returns the images as the network takes them: float32 from 0 to 1."""
        return self.images.astype(np.float32) * np.float32(1 / PIXEL_MAXIMUM)


class DigitsNetwork(nn.Module):
    """Small CNN whose layers carry the names that the ONNX graph gives their outputs."""

    def __init__(self) -> None:
        """Creates the layers with PyTorch's default initial weights."""
        super().__init__()
        self.stem_conv, self.stem_bn = _conv_and_bn(1, STEM_CHANNELS, kernel=3)
        self.residual_conv1, self.residual_bn1 = _conv_and_bn(STEM_CHANNELS, STEM_CHANNELS, kernel=3)
        self.residual_conv2, self.residual_bn2 = _conv_and_bn(STEM_CHANNELS, STEM_CHANNELS, kernel=3)
        self.branch_a_conv, self.branch_a_bn = _conv_and_bn(STEM_CHANNELS, STEM_CHANNELS, kernel=1)
        self.branch_b_conv, self.branch_b_bn = _conv_and_bn(STEM_CHANNELS, STEM_CHANNELS, kernel=3)
        self.gate_conv = nn.Conv2d(FEATURE_CHANNELS, FEATURE_CHANNELS, kernel_size=1)
        self.head_conv, self.head_bn = _conv_and_bn(FEATURE_CHANNELS, HEAD_CHANNELS, kernel=3)
        self.logits = nn.Linear(HEAD_CHANNELS, CLASSES)

    def forward(self, image: Tensor) -> Tensor:
        """Returns the logits; the ONNX graph adds the softmax."""
        stem = functional.relu(self.stem_bn(self.stem_conv(image)))
        residual = functional.relu(self.residual_bn1(self.residual_conv1(stem)))
        residual = self.residual_bn2(self.residual_conv2(residual))
        residual = functional.relu(residual + stem)
        branch_a = functional.relu(self.branch_a_bn(self.branch_a_conv(residual)))
        branch_b = functional.relu(self.branch_b_bn(self.branch_b_conv(residual)))
        pool = functional.max_pool2d(torch.cat([branch_a, branch_b], dim=1), kernel_size=2)
        gated = pool * torch.sigmoid(self.gate_conv(pool))
        head = functional.relu(self.head_bn(self.head_conv(gated)))
        return self.logits(head.mean(dim=(2, 3)))


def _conv_and_bn(inputs: int, outputs: int, kernel: int) -> tuple[nn.Conv2d, nn.BatchNorm2d]:
    """Returns a size-preserving convolution and its batch normalisation, which brings the bias."""
    conv = nn.Conv2d(inputs, outputs, kernel_size=kernel, padding=kernel // 2, bias=False)
    return conv, nn.BatchNorm2d(outputs)


def _load_splits() -> tuple[Split, Split]:
    """Returns the calibration and the validation part, with every digit's share alike in both."""
    digits = load_digits()
    images = digits.images.astype(np.uint8)[:, np.newaxis]
    labels = digits.target.astype(np.uint8)
    calibration_images, validation_images, calibration_labels, validation_labels = train_test_split(
        images, labels, test_size=VALIDATION_SAMPLES, random_state=SEED, stratify=labels
    )
    return Split(calibration_images, calibration_labels), Split(validation_images, validation_labels)


def _train(network: DigitsNetwork, split: Split) -> None:
    """Trains the network in place for a fixed number of epochs and leaves it in inference mode.

    There is no early stopping and no choice among checkpoints, so the validation part stays unseen.
    """
    shifted = _shift_by_one_pixel(torch.from_numpy(split.inputs()))
    labels = torch.from_numpy(split.labels.astype(np.int64))
    batches = -(-len(labels) // BATCH_SIZE)
    optimizer = torch.optim.AdamW(network.parameters(), lr=PEAK_LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_LEARNING_RATE, total_steps=EPOCHS * batches)
    start = time.monotonic()
    network.train()
    for _ in range(EPOCHS):
        # Chunks of nearly equal size: a tiny last batch would upset the batch normalisation's statistics.
        for rows in torch.randperm(len(labels)).chunk(batches):
            shifts = torch.randint(len(shifted), rows.shape)
            loss = functional.cross_entropy(network(shifted[shifts, rows]), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    network.eval()
    LOG.info("last training loss: %.4f after %.0f s", loss.item(), time.monotonic() - start)


def _shift_by_one_pixel(images: Tensor) -> Tensor:
    """Returns the images moved by -1, 0 and 1 pixel in both directions, as [9, n, 1, 8, 8]."""
    height, width = images.shape[2:]
    padded = functional.pad(images, (1, 1, 1, 1))
    return torch.stack([padded[:, :, top : top + height, left : left + width] for top in range(3) for left in range(3)])


def _build_model(network: DigitsNetwork) -> onnx.ModelProto:
    """Builds the ONNX model by hand, so that names are readable and batch normalisations stay unfolded."""
    initializers = [
        numpy_helper.from_array(weights.numpy(), name)
        for name, weights in network.state_dict().items()
        # PyTorch's step counter, which inference does not use.
        if not name.endswith(".num_batches_tracked")
    ]
    graph = helper.make_graph(
        [*_feature_nodes(network), *_classifier_nodes(network)],
        "digits",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 1, 8, 8])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", CLASSES])],
        initializers,
    )
    return helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="trtcalib",
        doc_string=(
            "Classifier of 8x8 handwritten digits; the input is the pixel value (0 to 16) times 1/16. "
            "Trained by data/digits/make_sample.py of trtcalib on 1297 images of scikit-learn's copy of the UCI data "
            "set Optical Recognition of Handwritten Digits (E. Alpaydin, C. Kaynak, 1998, CC BY 4.0, "
            "DOI 10.24432/C50P49). Weights: Apache-2.0."
        ),
    )


def _feature_nodes(network: DigitsNetwork) -> list[onnx.NodeProto]:
    """Returns the nodes at full resolution: stem, residual block and the two concatenated branches."""
    return [
        _conv_node(network, "stem_conv", "image"),
        _bn_node(network, "stem_bn", "stem_conv"),
        _node("Relu", "stem_relu", ["stem_bn"]),
        _conv_node(network, "residual_conv1", "stem_relu"),
        _bn_node(network, "residual_bn1", "residual_conv1"),
        _node("Relu", "residual_relu1", ["residual_bn1"]),
        _conv_node(network, "residual_conv2", "residual_relu1"),
        _bn_node(network, "residual_bn2", "residual_conv2"),
        _node("Add", "residual_add", ["residual_bn2", "stem_relu"]),
        _node("Relu", "residual_relu2", ["residual_add"]),
        _conv_node(network, "branch_a_conv", "residual_relu2"),
        _bn_node(network, "branch_a_bn", "branch_a_conv"),
        _node("Relu", "branch_a_relu", ["branch_a_bn"]),
        _conv_node(network, "branch_b_conv", "residual_relu2"),
        _bn_node(network, "branch_b_bn", "branch_b_conv"),
        _node("Relu", "branch_b_relu", ["branch_b_bn"]),
        _node("Concat", "concat", ["branch_a_relu", "branch_b_relu"], axis=1),
    ]


def _classifier_nodes(network: DigitsNetwork) -> list[onnx.NodeProto]:
    """Returns the nodes from the pooling on: gate, head and classifier."""
    return [
        _node("MaxPool", "pool", ["concat"], kernel_shape=[2, 2], strides=[2, 2]),
        _conv_node(network, "gate_conv", "pool"),
        _node("Sigmoid", "gate_sigmoid", ["gate_conv"]),
        _node("Mul", "gate_mul", ["pool", "gate_sigmoid"]),
        _conv_node(network, "head_conv", "gate_mul"),
        _bn_node(network, "head_bn", "head_conv"),
        _node("Relu", "head_relu", ["head_bn"]),
        _node("GlobalAveragePool", "global_pool", ["head_relu"]),
        _node("Flatten", "flatten", ["global_pool"], axis=1),
        _node("Gemm", "logits", ["flatten", "logits.weight", "logits.bias"], transB=1),
        _node("Softmax", "probabilities", ["logits"], axis=1),
    ]


def _conv_node(network: DigitsNetwork, name: str, source: str) -> onnx.NodeProto:
    """Returns the convolution that the network's layer of that name does."""
    layer = network.get_submodule(name)
    weights = [f"{name}.{parameter}" for parameter, _ in layer.named_parameters()]
    # ONNX lists the padding of all edges: top and left, then bottom and right.
    pads = [*layer.padding, *layer.padding]
    return _node("Conv", name, [source, *weights], kernel_shape=list(layer.kernel_size), pads=pads)


def _bn_node(network: DigitsNetwork, name: str, source: str) -> onnx.NodeProto:
    """Returns the batch normalisation that the network's layer of that name does."""
    weights = [f"{name}.{suffix}" for suffix in ("weight", "bias", "running_mean", "running_var")]
    return _node("BatchNormalization", name, [source, *weights], epsilon=network.get_submodule(name).eps)


def _node(operator: str, name: str, inputs: list[str], **attributes: float | list[int]) -> onnx.NodeProto:
    """Returns a node that has the name of its only output."""
    return helper.make_node(operator, inputs, [name], name=name, **attributes)


def _check_model(model: onnx.ModelProto, network: DigitsNetwork, split: Split) -> float:
    """Checks the ONNX model against the specification and the trained network.

    Returns:
        The share of the split's images that the ONNX model classifies rightly.

    Raises:
        RuntimeError: If the model differs from the network or its accuracy is too low.
    """
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (probabilities,) = session.run(["probabilities"], {"image": split.inputs()})
    with torch.no_grad():
        expected = network(torch.from_numpy(split.inputs())).softmax(dim=1).numpy()
    difference = float(np.abs(probabilities - expected).max())
    LOG.info("largest difference between ONNX Runtime and PyTorch: %.1e", difference)
    if difference > PARITY_TOLERANCE:
        message = f"ONNX Runtime differs from PyTorch by {difference:.1e}, more than {PARITY_TOLERANCE:.0e}."
        raise RuntimeError(message)
    accuracy = float((probabilities.argmax(axis=1) == split.labels).mean())
    if accuracy < MINIMUM_ACCURACY:
        message = f"The validation accuracy is {accuracy:.2%}, less than {MINIMUM_ACCURACY:.0%}."
        raise RuntimeError(message)
    return accuracy


if __name__ == "__main__":
    main()
