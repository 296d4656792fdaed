"""Search the batch size, offset and number of samples that a calibration cache was made with (``crosscheck --find``)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trtcalib.batches import Batching, plan_batches
from trtcalib.collect import collect, collect_maxima
from trtcalib.core.agreement import invert, is_whole
from trtcalib.core.cache import CalibrationCache
from trtcalib.core.entropy import entropy_bin
from trtcalib.core.layouts import Layout, first_maxima, fitting_layouts
from trtcalib.core.tally import BINS
from trtcalib.errors import CacheMismatchError, DataError
from trtcalib.onnx_graph import ModelGraph, own_histograms, read_model
from trtcalib.passes import Progress
from trtcalib.samples.feeds import DataSource, Sample
from trtcalib.samples.sources import open_source

__all__ = ["FoundLayout", "LayoutSearch", "find_layouts"]

MOST_CHECKED = 40
"""Layouts whose histograms are collected; each costs a pass over its samples."""

MOST_FITTING = 100_000
"""Layouts that may fit; where more do, too few tensors are known, and nothing is told by listing them."""

LARGEST_OF_ALL = 256
"""Up to this batch size every size is tried, beyond it powers of two and the whole data."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundLayout:
    """A layout whose ranges fit every scale.

    Attributes:
        batch_size: Samples per batch.
        offset: The first sample, from 0.
        samples: How many samples were fed.
        same_bins: Tensors for which our search over these samples chooses TensorRT's bin; ``None`` where it was not run. Layouts
            with the same samples and the same first maxima have the same histograms, and are listed with the same number.
    """

    batch_size: int
    offset: int
    samples: int
    same_bins: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LayoutSearch:
    """The result, best layout first.

    Attributes:
        tensors: How many tensors were compared: those that depend on the data and have a histogram of their own.
        samples: How many samples the data have.
        batch_sizes: How many batch sizes were tried.
        layouts: Those that fit.
    """

    tensors: int
    samples: int
    batch_sizes: int
    layouts: tuple[FoundLayout, ...]

    def as_json(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {
            "schema_version": 1,
            "tensors": self.tensors,
            "samples": self.samples,
            "batch_sizes": self.batch_sizes,
            "layouts": [asdict(layout) for layout in self.layouts],
        }


def find_layouts(  # noqa: PLR0913 - the public call names every choice
    cache: CalibrationCache,
    model: Path | str,
    data: Any,
    *,
    names: Mapping[str, str] | None = None,
    batch_sizes: Sequence[int] | None = None,
    skip_bad_images: bool = False,
    path: Path | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
) -> LayoutSearch:
    """Search the layouts of the data whose ranges make every scale of a cache a whole bin.

    One pass gives the maxima per sample, which decide the ranges of every layout. For those that fit, the histograms are collected
    and searched, because several layouts may share a first maximum.

    Args:
        cache: TensorRT's; an entropy calibration's.
        model: The ONNX file.
        data: As for :func:`trtcalib.calibrate`; the order matters.
        names: The model's tensor for names that TensorRT's parser made.
        batch_sizes: Which to try; by default all up to 256, powers of two beyond, and all samples in one batch.
        skip_bad_images: Leave out images that cannot be decoded.
        path: The cache's file, for errors.
        workers: Threads.
        progress: Called with (samples done, samples in all or ``None``) during the first pass.

    Raises:
        CacheMismatchError: If the cache is no entropy calibration's, no tensor can be compared, or too few to tell layouts apart.
        DataError: If the data cannot be read at an offset, or a batch size cannot be made of the model's fixed batch.
    """
    if cache.algorithm == "MinMaxCalibration":
        raise CacheMismatchError(
            path,
            "the header says MinMaxCalibration, whose scales are maxima over all data and do not depend on the batch size: there is "
            "nothing to search, leave out --find",
        )
    graph = read_model(model)
    source = open_source(data, graph.inputs, skip_bad_images=skip_bad_images)
    if source.size() is None:
        raise DataError(source.name, "a function's samples cannot be read from an offset: give them as .npz or .npy")
    per_run = graph.fixed_batch or 1
    for size in batch_sizes or ():
        plan_batches(source, graph.fixed_batch, Batching(batch_size=size))  # says what is wrong with one
    single = plan_batches(source, graph.fixed_batch, Batching(batch_size=per_run))
    listed, maxima = collect_maxima(graph, single, workers=workers, progress=progress)
    scales = _scales(cache, graph, names or {})
    chosen = [t for t, name in enumerate(listed) if name in scales and maxima[:, t].any()]
    if not chosen:
        raise CacheMismatchError(
            path,
            f"none of its {len(cache.scales)} names is a tensor of the model that depends on the data and has a scale of its own: no "
            "layout can be told from it",
        )
    tops = maxima[:, chosen]
    wanted = {listed[t]: scales[listed[t]] for t in chosen}
    sizes = _sizes(len(maxima)) if batch_sizes is None else [size // per_run for size in batch_sizes]
    values = np.array(list(wanted.values()), np.float32)
    fitting = list(islice(fitting_layouts(tops, values, BINS, sizes), MOST_FITTING + 1))
    if len(fitting) > MOST_FITTING:
        raise CacheMismatchError(
            path,
            f"over {MOST_FITTING} layouts fit the {len(chosen)} tensors that depend on the data, so that they tell too little: "
            "give fewer samples, or --names for tensors that TensorRT's parser named",
        )
    same_bins = _check(_by_histograms(fitting, tops), lambda layout: _same_bins(graph, source, layout, wanted, workers))
    fitting.sort(key=lambda layout: (-same_bins.get(layout, -1), -layout.samples, layout.offset, layout.batch_size))
    found = [
        FoundLayout(
            batch_size=layout.batch_size * per_run,
            offset=layout.offset * per_run,
            samples=layout.samples * per_run,
            same_bins=same_bins.get(layout),
        )
        for layout in fitting
    ]
    return LayoutSearch(
        tensors=len(chosen), samples=len(maxima) * per_run, batch_sizes=len(sizes), layouts=tuple(found)
    )


def _scales(cache: CalibrationCache, graph: ModelGraph, names: Mapping[str, str]) -> dict[str, np.float32]:
    """Return the scales of tensors with a histogram of their own, by our names; pools' are other tensors' scales."""
    own = {tensor.name for tensor in own_histograms(graph) if tensor.scale_of is None}
    ours = {names.get(name, name): scale for name, scale in cache.scales.items()}
    return {name: scale for name, scale in ours.items() if name in own and 0 < scale < np.inf}


def _sizes(samples: int) -> list[int]:
    powers = [1 << k for k in range(LARGEST_OF_ALL.bit_length(), samples.bit_length()) if 1 << k <= samples]
    return sorted({*range(1, min(samples, LARGEST_OF_ALL) + 1), *powers, samples})


def _by_histograms(layouts: Sequence[Layout], maxima: NDArray[np.float32]) -> list[list[Layout]]:
    """Return the layouts with the same samples and the same first maxima together, those of one first batch side by side.

    Their histograms are the same, up to values that equalled a range when they were counted, which lie one bin apart.
    """
    alike: dict[tuple[int, bytes, int], list[Layout]] = {}
    for layout in layouts:
        key = (layout.offset, first_maxima(maxima, layout).tobytes(), layout.samples)
        alike.setdefault(key, []).append(layout)
    return [alike[key] for key in sorted(alike)]


def _check(groups: Sequence[Sequence[Layout]], score: Callable[[Layout], int]) -> dict[Layout, int]:
    """Return scores of up to :data:`MOST_CHECKED` groups: those with the most samples, some of all, then more beside the best.

    Data are often given as they were fed, to the last sample. Where they are not, the nearer a number of samples is to the right
    one, the more bins are the same, so that the last ones close in on it.
    """
    if len(groups) <= MOST_CHECKED:
        first = set(range(len(groups)))
    else:
        by_samples = sorted(range(len(groups)), key=lambda position: -groups[position][0].samples)
        spread = np.linspace(0, len(groups) - 1, MOST_CHECKED // 4).astype(int).tolist()
        first = {*by_samples[: MOST_CHECKED // 2], *spread}
    scores = {position: score(groups[position][0]) for position in first}
    while len(scores) < min(len(groups), MOST_CHECKED):
        position = _next(scores)
        scores[position] = score(groups[position][0])
    return {layout: same for position, same in scores.items() for layout in groups[position]}


def _next(scores: Mapping[int, int]) -> int:
    """Return the middle of the gap beside the best position whose other end is the better one; of equal ones, of the wider."""
    gaps = [(low, high) for low, high in pairwise(sorted(scores)) if high - low > 1]

    def promise(gap: tuple[int, int]) -> tuple[int, int, int]:
        ends = sorted(scores[end] for end in gap)
        return ends[1], ends[0], gap[1] - gap[0]

    low, high = max(gaps, key=promise)
    return (low + high) // 2


def _same_bins(
    graph: ModelGraph, source: DataSource, layout: Layout, scales: Mapping[str, np.float32], workers: int | None
) -> int:
    """Return for how many tensors our search over a layout's samples chooses TensorRT's bin; the layout counts inferences."""
    per_run = graph.fixed_batch or 1
    part = _Part(source, layout, 1 if source.whole else per_run)
    batches = plan_batches(part, graph.fixed_batch, Batching(batch_size=layout.batch_size * per_run))
    histograms = collect(graph, batches, workers=workers).histograms
    same = 0
    for name, scale in scales.items():
        found = invert(scale, histograms[name])
        same += found is not None and is_whole(found) and found.bin_m == entropy_bin(histograms[name])
    return same


class _Part:
    """Some consecutive samples of a source."""

    def __init__(self, source: DataSource, layout: Layout, unit: int) -> None:
        self.name = source.name
        self.whole = source.whole
        self._source = source
        self._indices = range(layout.offset * unit, (layout.offset + layout.samples) * unit)

    def size(self) -> int | None:
        """Return the number of samples."""
        return len(self._indices)

    def samples(self, order: Sequence[int] | None) -> Iterator[Sample]:
        """Yield the samples."""
        return self._source.samples(self._indices if order is None else [self._indices[i] for i in order])

    def sha256(self) -> str:
        """Return the digest of the whole source."""
        return self._source.sha256()
