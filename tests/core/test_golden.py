"""Acceptance on calibration caches that TensorRT itself wrote.

The tests on literals always run: their data follow from a seed or a formula. The folder of whole caches lies beside the
repository; without it those tests are skipped, except in CI, where they fail.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests import goldens
from tests.goldens import golden_folder
from trtcalib.core.cache import encode_version, format_cache, make_cache, oddities, parse_cache
from trtcalib.core.entropy import entropy_amax, entropy_bin
from trtcalib.core.histogram import Histogram, collect_histogram
from trtcalib.core.scale import bits_from_scale, scale_from_amax, scale_from_bits, ulp_distance
from trtcalib.core.tally import BINS

CASES = ("add_scalar_trt100001", "add_scalar_trt8204", "lenet_mnist_trt7202", "qwen3_rotary_trt10300")
GPU_SUM_ULP = 8  # what sums and exponentials on a GPU may differ by; the caches themselves show up to 6

FLT_MAX = float(np.finfo(np.float32).max)


def cache_hex(histogram: Histogram) -> str:
    """The digits that a cache would hold for a tensor."""
    return f"{bits_from_scale(scale_from_amax(entropy_amax(histogram))):x}"


def trt824_input() -> NDArray[np.float32]:
    """The cookbook's useINT8-PTQ sample: numpy.random.seed(97)."""
    return np.asarray(np.random.RandomState(97).rand(32) * 200 - 100, np.float32)


def trt1001_input() -> NDArray[np.float32]:
    """The cookbook's UseINT8-PTQ-V2 sample: numpy.random.seed(31193)."""
    return np.asarray(np.random.RandomState(31193).rand(48) * 96 - 48, np.float32)


@pytest.mark.parametrize(
    ("tensor", "values", "golden"),
    [
        ("8.2.4 inputT0", trt824_input(), "3f4014c9"),
        ("10.0.1 inputT0", trt1001_input(), "3ebfcfb9"),
        ("10.0.1 plugin output, x + 1", trt1001_input() + np.float32(1), "3ec3d80a"),
        ("10.0.1 outputT0, the same", trt1001_input() + np.float32(1), "3ec3d80a"),
    ],
)
def test_the_cookbook_samples_are_bit_exact(tensor: str, values: NDArray[np.float32], golden: str) -> None:
    histogram = collect_histogram([values])
    assert entropy_bin(histogram) == BINS, tensor
    assert cache_hex(histogram) == golden, tensor


@pytest.mark.parametrize(
    ("tensor", "absmax", "golden"),
    [
        ("10.10.0 sqrt 64", 8.0, "3d810a14"),
        ("10.10.0 1/8", 0.125, "3a810a14"),
        ("10.10.0 gelu constant", 1.0, "3c010a14"),
        ("10.10.0 gelu add, max 2", 2.0, "3c810a14"),
        ("10.10.0 sqrt 8", 2.8284270763397217, "3cb67d3d"),
        ("7.2.3 eps 1e-12", 9.999999960041972e-13, "280de15b"),
        ("a mask of -FLT_MAX: no clamp", -FLT_MAX, "7f800000"),
    ],
)
def test_scalar_constants_are_bit_exact(tensor: str, absmax: float, golden: str) -> None:
    histogram = collect_histogram([np.float32(absmax)])
    assert entropy_bin(histogram) == BINS, tensor
    assert cache_hex(histogram) == golden, tensor


def rotary_tensors() -> dict[str, NDArray[np.float32]]:
    """Qwen3's rotary embedding for 483 positions: head size 128, base 1e6, all in float32."""
    positions = np.arange(483, dtype=np.float32)
    inverse_frequency = (1 / 1e6 ** (2 * np.arange(64) / 128)).astype(np.float32)
    angles = np.outer(positions, inverse_frequency).astype(np.float32)
    emb = np.concatenate([angles, angles], axis=1)
    return {"positions": positions, "emb": emb, "cos": np.cos(emb)}


@pytest.mark.parametrize(
    ("tensor", "m", "golden"), [("positions", 2048, "4072f4fa"), ("emb", 1651, "4043df2e"), ("cos", 2048, "3c010a14")]
)
def test_the_rotary_tensors_of_trt_10_3_0_pick_the_same_bin(tensor: str, m: int, golden: str) -> None:
    histogram = collect_histogram([rotary_tensors()[tensor]])
    assert entropy_bin(histogram) == m
    scale = scale_from_amax(entropy_amax(histogram))
    assert ulp_distance(scale, scale_from_bits(int(golden, 16))) <= GPU_SUM_ULP


@pytest.mark.parametrize("case", CASES)
def test_caches_that_tensorrt_wrote_come_back_byte_for_byte(case: str) -> None:
    folder = golden_folder() / case
    content = (folder / "golden.cache").read_bytes()
    meta = json.loads((folder / "meta.json").read_text())
    cache = parse_cache(content)
    assert format_cache(cache) == content
    assert cache.version == encode_version(meta["trt_version"].split()[0])
    assert cache.algorithm == meta["algorithm"]
    assert oddities(cache) == []
    assert format_cache(make_cache(cache.scales, meta["trt_version"].split()[0], cache.algorithm)) == content
    for row in meta["reproduction"]:
        assert f"{bits_from_scale(cache.scales[row['cache_name']]):x}" == row["golden"]


def test_the_literal_constants_are_all_rows_of_the_golden_file() -> None:
    rows = json.loads((golden_folder() / "scalar_constants.json").read_text())["rows"]
    assert rows
    for row in rows:
        assert cache_hex(collect_histogram([np.float32(row["absmax"])])) == row["golden"], row["tensor"]


def test_no_golden_cache_is_forgotten() -> None:
    assert sorted(path.parent.name for path in golden_folder().glob("*/golden.cache")) == sorted(CASES)


def test_missing_golden_caches_fail_in_ci_and_are_skipped_elsewhere(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(goldens, "GOLDEN", tmp_path / "absent")
    monkeypatch.setenv("CI", "true")
    monkeypatch.delenv("TRTCALIB_ALLOW_SKIP_GOLDEN", raising=False)
    with pytest.raises(pytest.fail.Exception, match="no golden caches in"):
        golden_folder()
    monkeypatch.delenv("CI")
    with pytest.raises(pytest.skip.Exception, match="no golden caches in"):
        golden_folder()
