"""The models and pictures of the benchmark, all from packages of the ``bench`` extra; nothing is downloaded."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.metadata import distribution
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["MODELS", "Model", "feeds", "images", "model_path"]

PICTURES = (
    "astronaut.png",
    "brick.png",
    "camera.png",
    "chelsea.png",
    "coffee.png",
    "coins.png",
    "hubble_deep_field.jpg",
    "ihc.png",
    "motorcycle_left.png",
    "page.png",
    "retina.jpg",
    "rocket.jpg",
    "text.png",
)
"""Photographs and scans that ship in scikit-image's wheel."""

SMALLEST_CROP = 0.4
"""Side of the smallest crop, over the largest that fits the picture."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A model and how its pictures are usually prepared.

    Attributes:
        title: What the table calls it.
        package: The distribution that holds it.
        file: Its file inside that distribution.
        input: Its input's name.
        size: Height and width of the input.
        mean: Subtracted from pixels in [0, 1].
        std: What the difference is divided by.
        pictures: How many the collection is timed on.
        target: Most that collection may cost, over plain inference.
    """

    title: str
    package: str
    file: str
    input: str
    size: tuple[int, int]
    mean: float
    std: float
    pictures: int
    target: float


MODELS = {
    "yolo": Model(
        title="YOLOv8n 320",
        package="nudenet",
        file="nudenet/320n.onnx",
        input="images",
        size=(320, 320),
        mean=0.0,
        std=1.0,
        pictures=128,
        target=2.2,
    ),
    "rec": Model(
        title="PP-OCRv4 rec 48x320",
        package="rapidocr-onnxruntime",
        file="rapidocr_onnxruntime/models/ch_PP-OCRv4_rec_infer.onnx",
        input="x",
        size=(48, 320),
        mean=0.5,
        std=0.5,
        pictures=128,
        target=4.0,
    ),
    "det": Model(
        title="PP-OCRv4 det 640",
        package="rapidocr-onnxruntime",
        file="rapidocr_onnxruntime/models/ch_PP-OCRv4_det_infer.onnx",
        input="x",
        size=(640, 640),
        mean=0.5,
        std=0.5,
        pictures=64,
        target=1.8,
    ),
}


def model_path(model: Model) -> Path:
    """Return where the model's package keeps it; the package itself is not imported."""
    return Path(str(distribution(model.package).locate_file(model.file)))


def images(model: Model, count: int) -> NDArray[np.float32]:
    """Return ``count`` prepared pictures, shape [count, 3, height, width]."""
    prepared = np.empty((count, 3, *model.size), np.float32)
    for index in range(count):
        prepared[index] = _image(model, index)
    return prepared


def feeds(model: Model, count: int) -> Iterator[dict[str, NDArray[np.float32]]]:
    """Yield the same pictures as :func:`images`, made one at a time; the same ones on every call."""
    for index in range(count):
        yield {model.input: _image(model, index)[np.newaxis]}


def _image(model: Model, index: int) -> NDArray[np.float32]:
    """Cut a random piece out of a random picture, resize and normalise it; the index decides everything."""
    random = np.random.default_rng(index)
    picture = _pictures()[random.integers(len(PICTURES))]
    height, width = model.size
    largest = min(picture.width / width, picture.height / height)
    scale = largest * random.uniform(SMALLEST_CROP, 1)
    left = random.uniform(0, picture.width - width * scale)
    top = random.uniform(0, picture.height - height * scale)
    box = (left, top, left + width * scale, top + height * scale)
    piece = picture.resize((width, height), Image.Resampling.BILINEAR, box=box)
    pixels = np.asarray(piece, np.float32).transpose(2, 0, 1) / np.float32(255)
    return np.ascontiguousarray((pixels - np.float32(model.mean)) / np.float32(model.std))


@cache
def _pictures() -> list[Image.Image]:
    wheel = distribution("scikit-image")
    pictures = []
    for name in PICTURES:
        with Image.open(str(wheel.locate_file(f"skimage/data/{name}"))) as picture:
            pictures.append(picture.convert("RGB"))
    return pictures
