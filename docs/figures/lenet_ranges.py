"""Which way of growing a range a real cache supports: the LeNet cache of TensorRT 7.2.2, the only one at hand with ten batches."""

# ruff: noqa: INP001 - scripts of one page, not a package

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trtcalib import Calibration, calibrate
from trtcalib.core.cache import parse_cache
from trtcalib.core.planned import POLICIES
from trtcalib.core.scale import ulp_distance
from trtcalib.specs import EntropyRecipe

__all__ = ["LENET", "Lenet", "implied_rows", "load_lenet", "policy_rows"]

LENET = "lenet_mnist_trt7202"

MOST_ULP = 8
"""A scale this close is the same: sums on GPU and CPU differ, and a neighbouring bin is thousands of ULP away."""


@dataclass(frozen=True, slots=True)
class Lenet:
    """What TensorRT wrote, and what trtcalib makes of the same model and images.

    Attributes:
        written: TensorRT's scale per tensor, by the ONNX name; pools, which inherit, are left out.
        found: A calibration per range policy.
    """

    written: Mapping[str, np.float32]
    found: Mapping[str, Calibration]


def load_lenet(folder: Path) -> Lenet:
    """Read the cache, and calibrate the model under each policy of :data:`trtcalib.core.planned.POLICIES`."""
    meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
    scales = parse_cache((folder / "golden.cache").read_bytes()).scales
    images = np.load(folder / "inputs.npz")["images"][:, np.newaxis].astype(np.float32) / np.float32(255)
    recipes = {policy: EntropyRecipe(method="entropy", range=policy) for policy in POLICIES}
    return Lenet(
        {row["onnx_tensor"]: scales[row["cache_name"]] for row in meta["reproduction"]},
        {
            policy: calibrate(folder / "model.onnx", images, recipe, batch_size=meta["batch_size"])
            for policy, recipe in recipes.items()
        },
    )


def policy_rows(lenet: Lenet) -> Iterator[tuple[str, ...]]:
    """Yield how many of the cache's tensors each range policy reproduces, and how far off the others are, nearest and furthest."""
    for policy, found in lenet.found.items():
        off = [
            abs(float(found.scales[name]) / float(scale) - 1)
            for name, scale in lenet.written.items()
            if ulp_distance(found.scales[name], scale) > MOST_ULP
        ]
        others = f"{min(off):.2%} .. {max(off):.2%}" if off else "-"
        yield f"`{policy}`", f"{len(lenet.written) - len(off)} of {len(lenet.written)}", others


def implied_rows(lenet: Lenet) -> Iterator[tuple[str, ...]]:
    """Yield which m TensorRT's own scale implies under each range, without any search: it must be a whole number."""
    for name, scale in lenet.written.items():
        histograms = [found.histograms[name] for found in lenet.found.values()]
        implied = [float(scale) * 127 / (float(h.range) / h.bins) - 0.5 for h in histograms]
        doubled, square = lenet.found["doubling"].histograms[name], lenet.found["square"].histograms[name]
        ranges = (doubled.first_max, doubled.maximum, doubled.range, square.range)
        yield f"`{name}`", *(f"{range_:.6g}" for range_ in ranges), *(f"{m:.2f}" for m in implied)
