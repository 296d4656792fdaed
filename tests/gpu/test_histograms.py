"""The histogram kernels on a real GPU, bit for bit against the core; no TensorRT needed, but nvcc."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from trtcalib.core.histogram import Histogram, collect_histogram
from trtcalib.errors import ActivationError
from trtcalib.trt.buffers import Device
from trtcalib.trt.histograms import DeviceArray, DeviceHistograms

MILLIONS = 10_000_000
FLT_MAX = float(np.finfo(np.float32).max)


def collect(device: Device, batches: Sequence[NDArray[Any]], misaligned: int = 0) -> DeviceHistograms:
    """Return what counted the batches of one tensor ``x``; its memory is given back, so that only facts remain."""
    with ExitStack() as stack:
        made = stack.enter_context(DeviceHistograms(device, ["x"]))
        for number, batch in enumerate(batches):
            buffer = device.allocate(batch.nbytes + misaligned * batch.itemsize + 16)
            stack.callback(buffer.free)
            padded = np.concatenate([np.zeros(misaligned, batch.dtype), batch.reshape(-1)])
            buffer.upload(padded)
            device.synchronize()
            made.add(number, [DeviceArray(buffer.pointer + misaligned * batch.itemsize, batch.size, batch.dtype)])
        result = made.result()
    made.result = lambda: result  # type: ignore[method-assign]  # the bins are freed
    return made


def same(device: Device, *batches: Any, misaligned: int = 0) -> Histogram:
    arrays = [b if getattr(b, "dtype", None) == np.float16 else np.asarray(b, np.float32) for b in batches]
    found = collect(device, arrays, misaligned).result()["x"]
    assert found == collect_histogram([a[np.isfinite(a)] for a in arrays])
    return found


@pytest.fixture(scope="module")
def normal() -> NDArray[np.float32]:
    return np.random.default_rng(0).standard_normal(MILLIONS, np.float32)


def test_random_values(device: Device, normal: NDArray[np.float32]) -> None:
    same(device, normal, normal[: MILLIONS // 3] * np.float32(3), normal * np.float32(0.1))


@pytest.mark.parametrize("misaligned", range(4))
def test_misaligned_addresses(device: Device, normal: NDArray[np.float32], misaligned: int) -> None:
    same(device, normal[: 1_000_003 + misaligned], misaligned=misaligned)


@pytest.mark.parametrize("misaligned", range(8))
def test_float16(device: Device, normal: NDArray[np.float32], misaligned: int) -> None:
    same(device, normal[:1_000_001].astype(np.float16), misaligned=misaligned)


def test_every_float16(device: Device) -> None:
    every = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    same(device, every[~np.isnan(every)])


def test_after_a_relu_half_of_the_values_are_zero(device: Device, normal: NDArray[np.float32]) -> None:
    same(device, np.maximum(normal, 0), np.maximum(normal * np.float32(4), 0))


@pytest.mark.parametrize("value", [0.0, -0.0, 1.0, 1e-45, FLT_MAX])
def test_all_values_equal(device: Device, value: float) -> None:
    assert same(device, np.full(MILLIONS, value, np.float32)).total == MILLIONS


def test_values_around_every_edge_of_a_bin(device: Device) -> None:
    edges = np.arange(1, 2049, dtype=np.float32) * np.float32(0.7) / np.float32(2048)
    around = [edges, np.nextafter(edges, np.float32(0)), np.nextafter(edges, np.float32(1))]
    same(device, np.concatenate([[0.7], *around]), [0.7 * 1024])


def test_random_bits(device: Device) -> None:
    bits = np.random.default_rng(1).integers(0, 1 << 32, (8, 500_000), np.uint32).view(np.float32)
    same(device, *(row[~np.isnan(row)] for row in bits))


def test_subnormals_are_not_flushed(device: Device) -> None:
    bits = np.random.default_rng(2).integers(0, 0x800000, MILLIONS, np.uint32)
    assert np.count_nonzero(same(device, bits.view(np.float32)).counts) == 2048


def test_a_range_past_float32(device: Device) -> None:
    assert np.isinf(same(device, [2e38, 1.0], [FLT_MAX, -3e38, 1e38], [FLT_MAX, 2e38, 1e-45]).range)


def test_values_equal_to_a_range_that_doubles(device: Device) -> None:
    assert same(device, [1.0], [1.0, 1.0, 3.0, 4.0], [4.0, 2.0, 0.0]).clamped == 3


def test_infinities_are_counted_and_nan_is_refused(device: Device, normal: NDArray[np.float32]) -> None:
    values = normal[:100_000].copy()
    values[::1000] = -np.inf
    assert collect(device, [values]).infinite == {"x": 100}
    values[77_777] = np.nan
    with pytest.raises(ActivationError, match="tensor 'x' at sample 1: holds NaN"):
        collect(device, [normal[:10], values])
