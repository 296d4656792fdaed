"""The models that the accuracy section judges, each with samples for calibration and others to judge on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.version_converter
from numpy.typing import NDArray
from qdq import _models, _pictures, _with_usable_shapes

from trtcalib.accuracy.task import Task
from trtcalib.files import sample_folder
from trtcalib.onnx_graph import read_model
from trtcalib.qdq.upgrade import FIRST_OPSET
from trtcalib.samples.sources import open_source

__all__ = ["Subject", "subjects"]

PICTURES = {"cls": 128}
"""By what a model's title holds: for calibration, and as many others to judge on, where two classes say little of each."""

USUAL_PICTURES = 32
"""Of the other models. ONNX Runtime's calibrators keep the quantized activations of all of them."""

QUICK = 4
"""Of both, to see that it runs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A float model, what is calibrated on and what is judged on.

    Attributes:
        title: What the table calls it.
        model: Its file.
        prepared: The same, brought to an opset with Q/DQ nodes by onnx and pre-processed by ONNX Runtime, which quantize_static asks for.
        input: Its input's name.
        calibration: float32 [count, ...].
        judged: float32 [count, ...], none of which stands among the former.
        labels: int [count] of the judged; ``None``: FP32 says what is right.
    """

    title: str
    model: Path
    prepared: Path
    input: str
    calibration: NDArray[np.float32]
    judged: NDArray[np.float32]
    labels: NDArray[np.integer[Any]] | None = None

    @property
    def task(self) -> Task:
        """The same for the accuracy studies."""
        return Task(
            model=self.model,
            data={self.input: self.calibration},
            eval_data={self.input: self.judged},
            labels=self.labels,
            metric="agreement" if self.labels is None else "top1",
        )


def subjects(*, quick: bool) -> Iterator[Callable[[Path], Subject]]:
    """Yield what makes each subject in a folder."""
    yield partial(_sample, quick=quick)
    for model in _models():
        if "det" in model.title:
            continue  # its map of probabilities has no rows whose largest element means something
        usual = next((number for word, number in PICTURES.items() if word in model.title), USUAL_PICTURES)
        count = QUICK if quick else usual

        def make(folder: Path, model: Any = model, count: int = count) -> Subject:
            pictures = _pictures(model, 2 * count)
            path = _with_usable_shapes(model, folder)
            return Subject(
                title=model.title,
                model=path,
                prepared=_prepared(path, folder),
                input=model.input,
                calibration=pictures[:count],
                judged=pictures[count:],
            )

        yield make


def _sample(folder: Path, *, quick: bool) -> Subject:
    """Return the embedded sample with its labels."""
    path = sample_folder() / "digits" / "model.onnx"
    inputs = read_model(path).inputs
    parts = []
    for name in ("calibration", "validation"):
        source = open_source(sample_folder() / f"digits-{name}.yaml", inputs)
        feeds = [sample.load()[inputs[0].name] for sample in source.samples(None)]
        parts.append(np.concatenate([feed.reshape(-1, *feed.shape[-3:]) for feed in feeds])[: 50 if quick else None])
    labels = np.load(sample_folder() / "digits" / "validation-labels.npy")[: len(parts[1])]
    return Subject(
        title="digits sample",
        model=path,
        prepared=_prepared(path, folder),
        input=inputs[0].name,
        calibration=parts[0],
        judged=parts[1],
        labels=labels,
    )


def _prepared(path: Path, folder: Path) -> Path:
    from onnxruntime.quantization.shape_inference import quant_pre_process

    proto = onnx.load(path)
    if proto.opset_import[0].version < FIRST_OPSET:
        path = folder / "upgraded.onnx"
        onnx.save(onnx.version_converter.convert_version(proto, FIRST_OPSET), path)
    quant_pre_process(str(path), str(folder / "prepared.onnx"), skip_symbolic_shape=True)
    return folder / "prepared.onnx"
