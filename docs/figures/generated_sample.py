"""Write the models and data that docs/batch-size-and-order.md asks its questions of.

    python docs/figures/generated_sample.py FOLDER

Everything is seeded. ``FOLDER/`` gets, beside two variants of the embedded digits:

    model.onnx    x -> MatMul -> hidden -> Relu -> relu -> MatMul -> y
    robust.onnx   the same with every activation bounded: Clip, Sigmoid, Softmax
    normal.npy    512 samples of 64 normal values
    outlier.npy   the same, and one huge value in the last sample
    even.npy      samples of 16 loudnesses, dealt out so that every 16 in a row hold one of each
    sorted.npy    the same samples, the quietest first
    digits-outlier.npy, digits-even.npy   the embedded sample: one pixel of 100 in the last image, where others reach 1; the images dealt
                  out so that, as far as there are enough of each, every ten in a row are the ten digits

Values and weights are multiples of 1/64, so that float32 sums are exact up to ``relu``: every machine gets the same histograms.
"""

# ruff: noqa: INP001 - scripts of one page, not a package

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

__all__ = ["BIG_PIXEL", "HUGE", "KINDS", "ROOT", "write_samples"]

ROOT = Path(__file__).resolve().parents[2]

SAMPLES, FEATURES = 512, 64

GRID = 64
"""Values are multiples of 1/64."""

KINDS = 16
"""Loudnesses, and samples per batch in the question about even batches."""

STEP = 2 ** (1 / 4)
"""From one loudness to the next: the loudest is 13.5 times the quietest."""

HUGE = 400.0
"""About 100 times the largest of the other values."""

BIG_PIXEL = 100.0
"""The other pixels are in [0, 1]."""

HEADER = '<ir_version: 8, opset_import: ["" : 17]>'

MODEL = f"""{HEADER}
plain (float[N,{FEATURES}] x) => (float[N,{FEATURES}] y) {{
    hidden = MatMul(x, w1)
    relu = Relu(hidden)
    y = MatMul(relu, w2)
}}"""

ROBUST = f"""{HEADER}
robust (float[N,{FEATURES}] x) => (float[N,{FEATURES}] probabilities) <float low = {{-1.0}}, float zero = {{0.0}}, float high = {{1.0}}> {{
    clipped = Clip(x, low, high)
    hidden = MatMul(clipped, w1)
    capped = Clip(hidden, zero, high)
    gate = Sigmoid(hidden)
    gated = Mul(capped, gate)
    y = MatMul(gated, w2)
    probabilities = Softmax(y)
}}"""


def main() -> None:
    """Write everything into the folder that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    folder = parser.parse_args().folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_samples(folder)
    except OSError as error:
        sys.exit(f"generated_sample.py: {folder}: cannot be written: {error.strerror}")


def write_samples(folder: Path) -> None:
    """Write both models and all data into an existing folder.

    Raises:
        OSError: If a file cannot be written.
    """
    random = np.random.default_rng(5)
    weights = {
        name: _on_grid(random.standard_normal((FEATURES, FEATURES)) / np.sqrt(FEATURES)) for name in ("w1", "w2")
    }
    for name, text in (("model", MODEL), ("robust", ROBUST)):
        (folder / f"{name}.onnx").write_bytes(_with_weights(text, weights))
    for name, values in {**_made_up(random), **_digits()}.items():
        np.save(folder / f"{name}.npy", values)


def _made_up(random: np.random.Generator) -> dict[str, NDArray[np.float32]]:
    normal = _on_grid(random.standard_normal((SAMPLES, FEATURES)))
    outlier = normal.copy()
    outlier[-1, 0] = HUGE
    kind = np.arange(SAMPLES) % KINDS
    loudness = STEP ** (kind - (KINDS - 1.0))
    # Dealt out, but in each 16 in another order: the first sample of all is of no particular loudness.
    dealt = np.concatenate([start + random.permutation(KINDS) for start in range(0, SAMPLES, KINDS)])
    loud = _on_grid(random.standard_normal((SAMPLES, FEATURES)) * loudness[:, np.newaxis] * 4)
    return {"normal": normal, "outlier": outlier, "even": loud[dealt], "sorted": loud[np.argsort(kind, kind="stable")]}


def _digits() -> dict[str, NDArray[np.float32]]:
    folder = ROOT / "data" / "digits"
    images = np.load(folder / "calibration-images.npy").astype(np.float32) / np.float32(16)
    labels = np.load(folder / "calibration-labels.npy")
    outlier = images.copy()
    outlier[-1, 0, 4, 4] = BIG_PIXEL
    # Each image's position among those of its digit: the first of every digit, then the second of every digit ...
    position = np.array([np.count_nonzero(labels[:i] == label) for i, label in enumerate(labels)])
    return {
        "digits-outlier": outlier,
        "digits-even": images[np.lexsort((labels, position))],
    }


def _on_grid(values: NDArray[np.float64]) -> NDArray[np.float32]:
    return (np.rint(values * GRID) / GRID).astype(np.float32)


def _with_weights(text: str, weights: dict[str, NDArray[np.float32]]) -> bytes:
    model = onnx.parser.parse_model(text)
    model.graph.initializer.extend(onnx.numpy_helper.from_array(values, name) for name, values in weights.items())
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


if __name__ == "__main__":
    main()
