"""A model that shows every kind of tensor, and what a study's folder holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import trtcalib
from trtcalib.batch_study.result import Outcome, StudiedTensor, Study
from trtcalib.manifest import manifest_path

ZOO = """
zoo (float[N, 6] x) => (float[N, 2] flat)
<float[6] k = {0.5, -1, 2, 0.25, 1.5, -0.5}, float five = {5}, float nought = {0}, float big = {1e30},
 int64[4] grid_shape = {-1, 1, 2, 3}, int64[2] flat_shape = {-1, 2}>
{
    endless = Constant<value_float = -inf>()
    twice = Add(k, k)
    positive = Relu(x)
    shifted = Sub(x, five)
    late = Relu(shifted)
    zero = Mul(x, nought)
    inverse = Reciprocal(x)
    huge = Mul(x, big)
    bounded = Max(positive, endless)
    sum = Add(positive, twice)
    grid = Reshape(x, grid_shape)
    pooled = MaxPool<kernel_shape = [2, 2]>(grid)
    flat = Reshape(pooled, flat_shape)
}
"""
"""Late, zero, infinite, overflowing, constant and folded tensors, views, a pool, and a view of the pool."""

IDENTITY = "identity (float[N, 4] x) => (float[N, 4] y) { y = Relu(x) }"
"""Two tensors: x, and y, which is x where it is positive."""


def calibrated(model: Path, data: Any, path: Path, version: str, **options: Any) -> dict[Path, bytes]:
    """What ``calibrate`` would write."""
    return trtcalib.calibrate(model, data, workers=1, **options).files(path, version)


def check_equals_calibrate(study: Study, folder: Path, model: Path, data: Any, **options: Any) -> None:
    """Every cache and manifest is, byte for byte, what a calibration of its own writes; study.json tells the same of them."""
    for index, configuration in enumerate(study.configurations):
        path = folder / configuration.cache
        wanted = calibrated(
            model,
            data,
            path,
            study.tensorrt_version,
            batch_size=configuration.batch_size,
            shuffle=configuration.shuffle,
            **options,
        )
        assert path.read_bytes() == wanted[path], configuration.name
        assert manifest_path(path).read_bytes() == wanted[manifest_path(path)], configuration.name
        facts = {tensor["name"]: tensor for tensor in json.loads(wanted[manifest_path(path)])["tensors"]}
        assert [tensor.name for tensor in study.tensors] == list(facts)
        for tensor in study.tensors:
            if tensor.outcomes and tensor.inherited_from is None:
                check_outcome(tensor.outcomes[index], facts[tensor.name])


def check_outcome(outcome: Outcome, facts: dict[str, Any]) -> None:
    """What is told of a tensor in one configuration is what the manifest tells."""
    for key in ("range", "bin_m", "amax", "scale", "scale_hex", "first_maximum"):
        assert getattr(outcome, key) == facts[key], (facts["name"], key)
    assert sum(doubling.times for doubling in outcome.doublings) == facts["doublings"]


def tensor(study: Study, name: str) -> StudiedTensor:
    """One tensor of a study."""
    return next(tensor for tensor in study.tensors if tensor.name == name)


def outcome(study: Study, name: str, configuration: str) -> Outcome:
    """One tensor in one configuration."""
    index = [c.name for c in study.configurations].index(configuration)
    return tensor(study, name).outcomes[index]


def rows(*tops: float) -> NDArray[np.float32]:
    """Samples of four values: the maximum, half of it, and two small ones that are the same in all."""
    return np.array([[top, -top / 2, 0.01, 0.02] for top in tops], np.float32)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder."""
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}
