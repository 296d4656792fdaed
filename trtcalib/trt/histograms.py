"""Histograms that the GPU makes of what lies in its memory: TensorRT's doubling, the same counts as ``core.histogram``.

Batch after batch: the kernels (``histograms.cu``) count what lies inside a tensor's range and tell the batch's maximum; where that
exceeds the range, it is doubled here, by the rule of the core, and the values outside are counted. So a tensor is read once per
batch, and twice where its range is new or doubles.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

from trtcalib.core.histogram import Histogram, doublings_needed, range_to_float32
from trtcalib.core.tally import BINS, bits_of_range, float32_of_bits
from trtcalib.errors import ActivationError
from trtcalib.trt.buffers import Device, DeviceBuffer

__all__ = ["DeviceArray", "DeviceHistograms", "kernel_source"]

_THREADS = 512
"""Of a block; ``THREADS`` in histograms.cu."""

_VALUES_PER_THREAD = 16
"""Fewer leave more blocks that add their bins to the same few thousand words."""

_MOST_VALUES = 1 << 30
"""Of one launch: 32-bit counts within it cannot wrap."""

_SEEN = np.dtype([("infinite", np.uint64), ("at_range", np.uint64), ("top", np.uint32), ("nan", np.uint32)])
"""``Seen`` in histograms.cu."""

_NO_VALUE = 0xFFFFFFFF
"""Bits that no magnitude has."""

_FORMATS = {np.dtype(np.float32): "float32", np.dtype(np.float16): "float16"}


@cache
def kernel_source() -> str:
    """Return the CUDA source of the kernels."""
    return files("trtcalib.trt").joinpath("histograms.cu").read_text(encoding="utf-8")


@dataclass(frozen=True, slots=True)
class DeviceArray:
    """Values in device memory.

    Attributes:
        pointer: Address of the first, a multiple of their size.
        size: How many.
        dtype: float32 or float16.
    """

    pointer: int
    size: int
    dtype: np.dtype[np.generic]


@dataclass(slots=True)
class _Range:
    """What is known of one tensor; the bins are on the device.

    Attributes:
        first: Maximum of the first batch that was not all zero; 0 before.
        maximum: Largest finite magnitude.
        doublings: Of the range ``first * 2**doublings``.
        clamped: Values equal to the range when they were counted.
        zeros: Values that were counted before there was a range; they belong to bin 0.
        infinite: Infinite values, which are left out.
        late: Whether the first batch was all zero and a later one was not.
    """

    first: np.float32 = field(default_factory=np.float32)
    maximum: np.float32 = field(default_factory=np.float32)
    doublings: int = 0
    clamped: int = 0
    zeros: int = 0
    infinite: int = 0
    late: bool = False

    @property
    def exact(self) -> float:
        """The range; may be past float32."""
        return math.ldexp(float(self.first), self.doublings)


class DeviceHistograms:
    """One histogram per tensor, in device memory; a context manager that frees it.

    Everything is queued on the device's stream, behind what wrote the values.

    Args:
        device: Where the values lie.
        names: The tensors.

    Attributes:
        names: The tensors.

    Raises:
        DeviceError: If the kernels cannot be compiled, or memory is not enough: 16 kB and 24 bytes per tensor.
    """

    def __init__(self, device: Device, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self._device = device
        self._ranges = [_Range() for _ in self.names]
        self._batches = 0
        self._most_blocks = max(1, device.resident_threads // _THREADS)
        self._kernels = device.compile(kernel_source())
        self._buffers: list[DeviceBuffer] = []
        try:
            self._bins = self._zeroed((len(self.names), BINS), np.dtype(np.uint64))
            self._seen = self._zeroed((len(self.names),), _SEEN)
        except BaseException:
            self.free()
            raise

    def add(self, batch: str | int, arrays: Sequence[DeviceArray]) -> None:
        """Count one batch; returns when that is done, so that the values may be overwritten.

        Args:
            batch: What an error calls it.
            arrays: Per tensor its values, in the order of :attr:`names`; those of size 0 contribute nothing.

        Raises:
            ActivationError: If a tensor holds NaN.
        """
        self._forget()
        for t, array in enumerate(arrays):
            if self._ranges[t].first > 0:
                self._tally(t, array, smallest=0)
            else:
                self._look(t, array)
        seen = self._look_up()
        self._refuse_nan(seen, batch)
        again = [t for t, array in enumerate(arrays) if self._settle(t, array.size, seen[t])]
        if again:
            self._forget()
            for t in again:
                self._tally(t, arrays[t], smallest=self._resize(t, seen[t]))
            for t, clamped in enumerate(self._look_up()["at_range"]):
                self._ranges[t].clamped += int(clamped)
        self._batches += 1

    def result(self) -> dict[str, Histogram]:
        """Return the histograms so far, those of tensors that never held a value too."""
        counts = np.empty((len(self.names), BINS), np.uint64)
        self._bins.download(counts)
        return {
            name: _histogram(each, row.astype(np.int64))
            for name, each, row in zip(self.names, self._ranges, counts, strict=True)
        }

    @property
    def infinite(self) -> dict[str, int]:
        """How many infinite values were left out, per tensor that had any."""
        return {name: each.infinite for name, each in zip(self.names, self._ranges, strict=True) if each.infinite}

    @property
    def late(self) -> tuple[str, ...]:
        """The tensors that were all zero in the first batch and not later."""
        return tuple(name for name, each in zip(self.names, self._ranges, strict=True) if each.late)

    def free(self) -> None:
        """Free the device memory; a second call does nothing."""
        buffers, self._buffers = self._buffers, []
        for buffer in buffers:
            buffer.free()

    def __enter__(self) -> DeviceHistograms:  # noqa: PYI034 - Self is Python 3.11's
        return self

    def __exit__(self, *raised: object) -> None:
        self.free()

    def _zeroed(self, shape: tuple[int, ...], dtype: np.dtype[np.void] | np.dtype[np.uint64]) -> DeviceBuffer:
        content = np.zeros(shape, dtype)
        buffer = self._device.allocate(max(content.nbytes, 1))
        self._buffers.append(buffer)
        buffer.upload(content)
        self._device.synchronize()
        return buffer

    def _forget(self) -> None:
        """Make what the last launches saw zero."""
        self._seen.upload(np.zeros(len(self.names), _SEEN))

    def _look_up(self) -> NDArray[np.void]:
        """Wait for the launches and return what they saw."""
        seen = np.empty(len(self.names), _SEEN)
        self._seen.download(seen)
        return seen

    def _refuse_nan(self, seen: NDArray[np.void], batch: str | int) -> None:
        for t in np.flatnonzero(seen["nan"]).tolist():
            raise ActivationError(
                self.names[t], batch, "holds NaN: the model divides by zero or overflows on this batch"
            )

    def _settle(self, t: int, size: int, seen: np.void) -> bool:
        """Take note of a batch; whether its values outside the range are still to be counted."""
        each = self._ranges[t]
        top = float32_of_bits(int(seen["top"]))
        each.infinite += int(seen["infinite"])
        if each.first == 0 and top == 0:
            each.zeros += size - int(seen["infinite"])
            return False
        each.maximum = max(each.maximum, top)
        if each.first == 0 or doublings_needed(each.first, each.maximum) > each.doublings:
            return True
        each.clamped += int(seen["at_range"])
        return False

    def _resize(self, t: int, seen: np.void) -> int:
        """Bring a tensor's range to its maximum; return the bits of the smallest value that is still to be counted."""
        each = self._ranges[t]
        if each.first == 0:
            each.first = each.maximum
            each.late = self._batches > 0
            return 0
        needed = doublings_needed(each.first, each.maximum)
        smallest = bits_of_range(each.exact)
        # Values equal to the old range were clamped into its last bin. They are counted anew, where the new one has them.
        arguments = (self._bins_of(t), np.uint64(seen["at_range"]), np.uint32(needed - each.doublings))
        self._kernels.launch("fold", 1, _THREADS, arguments)
        each.doublings = needed
        return smallest

    def _look(self, t: int, array: DeviceArray) -> None:
        for values, size in _launches(array):
            self._launch("look", array, size, (values, np.uint64(size), self._seen_of(t)))

    def _tally(self, t: int, array: DeviceArray, *, smallest: int) -> None:
        """Count the values from the one with the bits ``smallest`` up to the range."""
        exact = self._ranges[t].exact
        largest = bits_of_range(exact)
        past_float32 = bool(np.isinf(range_to_float32(exact)))
        # Halving both sides of a quotient is exact; so is doubling, but not past float32.
        shrink = np.float32(0.5 if past_float32 else 1)
        window = (
            np.uint32(smallest),
            np.uint32(largest),
            np.uint32(_NO_VALUE if past_float32 else largest),
            np.float32(exact * float(shrink)),
            shrink,
        )
        for values, size in _launches(array):
            self._launch("tally", array, size, (values, np.uint64(size), self._bins_of(t), self._seen_of(t), *window))

    def _launch(self, kind: str, array: DeviceArray, size: int, arguments: Sequence[np.generic]) -> None:
        blocks = min(self._most_blocks, -(-size // (_THREADS * _VALUES_PER_THREAD)))
        self._kernels.launch(f"{kind}_{_FORMATS[array.dtype]}", blocks, _THREADS, arguments)

    def _bins_of(self, t: int) -> np.uint64:
        return np.uint64(self._bins.pointer + t * BINS * np.dtype(np.uint64).itemsize)

    def _seen_of(self, t: int) -> np.uint64:
        return np.uint64(self._seen.pointer + t * _SEEN.itemsize)


def _launches(array: DeviceArray) -> list[tuple[np.uint64, int]]:
    """Return address and number of the values of each launch; none for no values."""
    return [
        (np.uint64(array.pointer + first * array.dtype.itemsize), min(_MOST_VALUES, array.size - first))
        for first in range(0, array.size, _MOST_VALUES)
    ]


def _histogram(each: _Range, counts: NDArray[np.int64]) -> Histogram:
    counts[0] += each.zeros
    return Histogram(
        counts=counts,
        range=range_to_float32(each.exact),
        first_max=each.first,
        maximum=each.maximum,
        doublings=each.doublings,
        clamped=each.clamped,
    )
