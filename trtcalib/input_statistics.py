"""What the calibration inputs look like: ranges, means and spreads of the first samples, taken while they are read.

A source is watched rather than read once more: an image is decoded once per pass, and a function is called no more often.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count, islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trtcalib.samples.feeds import DataSource, Feed, Sample

__all__ = ["SAMPLES", "InputStatistics", "Statistics", "WatchedSource", "channel_axis"]

SAMPLES = 256
"""Samples that are looked at, the source's first ones whatever the order: ours. Ranges and means of pictures hardly move after
a few hundred, and what is kept of each stays small."""

_CHUNK = 1 << 16
"""Values that are worked on at a time: half a megabyte as float64, which stays in a CPU's cache."""

_IMAGE_RANK = 4
_CHANNEL_COUNTS = (1, 3, 4)
_CHANNEL_AXES = (1, 3)
_SMALLEST_SIDE = 8
"""Pixels: the side of the embedded sample's digits; what is smaller is rather a table than a picture."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InputStatistics:
    """What the values of one input look like, in the units of the input.

    Attributes:
        name: The input.
        floating: Whether it is floating point.
        samples: Samples of the source that were looked at.
        values: Numbers in them.
        minimum: Smallest.
        maximum: Largest.
        mean: Of all values.
        std: Standard deviation of all values (of the population).
        whole: Share of whole numbers, 0 to 1.
        channel_minima: Per channel of an image-like input; empty for any other.
        channel_maxima: Likewise.
        channel_means: Likewise.
        channel_stds: Likewise.
    """

    name: str
    floating: bool
    samples: int
    values: int
    minimum: float
    maximum: float
    mean: float
    std: float
    whole: float
    channel_minima: tuple[float, ...] = ()
    channel_maxima: tuple[float, ...] = ()
    channel_means: tuple[float, ...] = ()
    channel_stds: tuple[float, ...] = ()

    @property
    def channels(self) -> int:
        """Channels of an image-like input; 0 for any other."""
        return len(self.channel_means)


class Statistics:
    """Gathers the statistics of samples that come in any order, more than once, and from several threads.

    What was found in each sample is kept by its position and put together in that order, so that the bits depend on the samples
    only. An input is image-like where each sample has four axes, 1, 3 or 4 channels at axis 1 (NCHW) or else at axis 3 (NHWC), the
    same in all of them, and sides of at least 8.
    """

    def __init__(self) -> None:
        self._parts: dict[int, dict[str, _Part]] = {}

    def add(self, position: int, feed: Feed) -> None:
        """Look at a sample, unless it is past the first 256 or was looked at before.

        Args:
            position: The sample's, in the source's own order.
            feed: Arrays of numbers by input name.
        """
        if position < SAMPLES and position not in self._parts:
            self._parts[position] = {name: _part(array) for name, array in feed.items()}

    def lacks(self, position: int) -> bool:
        """Whether a sample is wanted and was not looked at."""
        return position < SAMPLES and position not in self._parts

    def inputs(self) -> tuple[InputStatistics, ...]:
        """Return the statistics of each input that had any values, by name."""
        by_name: dict[str, list[_Part]] = {}
        for _, parts in sorted(self._parts.items()):
            for name, part in parts.items():
                if part.values:
                    by_name.setdefault(name, []).append(part)
        return tuple(_merged(name, parts) for name, parts in sorted(by_name.items()))


class WatchedSource:
    """A data source whose samples are looked at as they are read.

    Attributes:
        name: The source's.
        whole: The source's.
        statistics: Of what was read so far.
    """

    def __init__(self, source: DataSource) -> None:
        self.name = source.name
        self.whole = source.whole
        self.statistics = Statistics()
        self._source = source

    @property
    def skipped(self) -> Sequence[str]:
        """Samples that the source left out."""
        return getattr(self._source, "skipped", ())

    def size(self) -> int | None:
        """Return the source's number of samples."""
        return self._source.size()

    def samples(self, order: Sequence[int] | None) -> Iterator[Sample]:
        """Yield the source's samples, each of which is looked at when it is loaded."""
        positions = count() if order is None else iter(order)
        for sample, position in zip(self._source.samples(order), positions, strict=False):
            yield Sample(sample.label, partial(self._load, int(position), sample)) if position < SAMPLES else sample

    def sha256(self) -> str:
        """Return the source's digest."""
        return self._source.sha256()

    def read_missing(self, samples: int) -> None:
        """Read those of the first so many samples that were not read yet: all of them when none was.

        Raises:
            DataError: If they cannot be read.
        """
        wanted = min(samples, SAMPLES)
        if any(map(self.statistics.lacks, range(wanted))):
            for position, sample in enumerate(islice(self._source.samples(None), wanted)):
                if self.statistics.lacks(position):
                    self._load(position, sample)

    def _load(self, position: int, sample: Sample) -> Feed:
        feed = sample.load()
        self.statistics.add(position, feed)
        return feed


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """What one sample holds; the arrays are float64, one number per channel, or one in all."""

    floating: bool
    axis: int | None
    values: int
    whole: int
    minima: NDArray[np.float64]
    maxima: NDArray[np.float64]
    sums: NDArray[np.float64]
    squares: NDArray[np.float64]


def _part(array: NDArray[Any]) -> _Part:
    axis = channel_axis(array.shape)
    planes = [array] if axis is None else [np.take(array, c, axis) for c in range(array.shape[axis])]
    with np.errstate(all="ignore"):  # NaN and infinities are refused where values are counted
        found = np.array([_plane(plane.reshape(-1)) for plane in planes])
    return _Part(
        floating=array.dtype.kind == "f",
        axis=axis,
        values=array.size,
        whole=int(found[:, 4].sum()),
        minima=found[:, 0],
        maxima=found[:, 1],
        sums=found[:, 2],
        squares=found[:, 3],
    )


def channel_axis(shape: tuple[int, ...]) -> int | None:
    """Return the axis of a picture's channels; ``None`` for what is no picture."""
    if len(shape) != _IMAGE_RANK:
        return None
    for axis in _CHANNEL_AXES:
        sides = [shape[a] for a in (1, 2, 3) if a != axis]
        if shape[axis] in _CHANNEL_COUNTS and min(sides) >= _SMALLEST_SIDE:
            return axis
    return None


def _plane(values: NDArray[Any]) -> tuple[float, float, float, float, int]:
    """Return minimum, maximum, sum, sum of squares, and how many values are whole."""
    low, high, total, squares, whole = np.inf, -np.inf, 0.0, 0.0, 0
    for start in range(0, values.size, _CHUNK):
        chunk = values[start : start + _CHUNK]
        whole += chunk.size if chunk.dtype.kind != "f" else int(np.count_nonzero(chunk == np.rint(chunk)))
        low, high = min(low, float(chunk.min())), max(high, float(chunk.max()))
        wide = chunk.astype(np.float64)
        total += float(wide.sum())
        # Not a dot product, whose bits depend on how many threads the BLAS has.
        squares += float(np.einsum("i,i->", wide, wide))
    return low, high, total, squares, whole


def _merged(name: str, parts: Sequence[_Part]) -> InputStatistics:
    channels = {(part.axis, len(part.sums)) for part in parts}
    like_image = len(channels) == 1 and parts[0].axis is not None
    values = sum(part.values for part in parts)
    per_channel = _numbers(parts, values) if like_image else None
    overall = _numbers([_flat(part) for part in parts], values)
    return InputStatistics(
        name=name,
        floating=parts[0].floating,
        samples=len(parts),
        values=values,
        minimum=overall["minima"][0],
        maximum=overall["maxima"][0],
        mean=overall["means"][0],
        std=overall["stds"][0],
        whole=sum(part.whole for part in parts) / values,
        **({f"channel_{key}": numbers for key, numbers in per_channel.items()} if per_channel else {}),
    )


def _flat(part: _Part) -> _Part:
    """Return the same sample without its channels."""
    return _Part(
        floating=part.floating,
        axis=None,
        values=part.values,
        whole=part.whole,
        minima=part.minima.min(keepdims=True),
        maxima=part.maxima.max(keepdims=True),
        sums=part.sums.sum(keepdims=True),
        squares=part.squares.sum(keepdims=True),
    )


def _numbers(parts: Sequence[_Part], values: int) -> Mapping[str, tuple[float, ...]]:
    """Return minima, maxima, means and standard deviations per channel; every channel has as many values."""
    each = values // len(parts[0].sums)
    with np.errstate(all="ignore"):
        means = sum(part.sums for part in parts) / each
        variances = sum(part.squares for part in parts) / each - means**2
        stds = np.sqrt(np.maximum(variances, 0))  # rounding can leave a little less than nothing
    minima = np.min([part.minima for part in parts], axis=0)
    maxima = np.max([part.maxima for part in parts], axis=0)
    found = {"minima": minima, "maxima": maxima, "means": means, "stds": stds}
    return {key: tuple(numbers.tolist()) for key, numbers in found.items()}
