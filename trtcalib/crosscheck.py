"""TensorRT's calibration cache against our reference: do both choose the same bins, and if not, what does the cache tell?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from trtcalib.batches import Batching
from trtcalib.calibration import Calibration, calibrate
from trtcalib.core.agreement import MOST_ULP, Agreement, compare
from trtcalib.core.cache import CalibrationCache
from trtcalib.core.histogram import Histogram
from trtcalib.core.scale import scale_from_amax, ulp_distance
from trtcalib.errors import CacheMismatchError
from trtcalib.manifest import CrosscheckFacts
from trtcalib.methods import ClipPoint
from trtcalib.passes import Progress

__all__ = ["Crosscheck", "crosscheck", "reference"]

MOST_WORDS = 5
"""Names that a sentence shows."""

CHANCE = 0.5
"""Below this share of whole bins the ranges are other ones: by chance one in 25 is whole, and of right ones nearly all."""

FEWEST = 3
"""Tensors that a statement about the whole cache needs."""


class _Ours(NamedTuple):
    """What our calibration says, computed once."""

    scales: Mapping[str, np.float32]
    origins: Mapping[str, str]
    histograms: Mapping[str, Histogram]
    clips: Mapping[str, ClipPoint]


@dataclass(frozen=True, slots=True, kw_only=True)
class Crosscheck:
    """The result.

    Attributes:
        header: First line of the cache.
        method: What our side computed.
        batch_size: Samples per batch on our side.
        samples: Samples on our side.
        tensors: One entry per line of the cache, in its order.
        only_ours: Tensors of ours that the cache does not list.
        min_agreement: The share that was asked for.
        notes: What the cache tells as a whole, one sentence each.
    """

    header: str
    method: str
    batch_size: int
    samples: int
    tensors: tuple[Agreement, ...]
    only_ours: tuple[str, ...]
    min_agreement: float
    notes: tuple[str, ...]

    @property
    def shared(self) -> tuple[Agreement, ...]:
        """The tensors that both have."""
        return tuple(tensor for tensor in self.tensors if tensor.ours is not None)

    @property
    def agreement(self) -> float:
        """The share of the shared tensors that agree."""
        return sum(tensor.agrees for tensor in self.shared) / len(self.shared)

    @property
    def passed(self) -> bool:
        """Whether enough of them agree."""
        return self.agreement >= self.min_agreement

    @property
    def counts(self) -> dict[str, int]:
        """How many tensors have each verdict."""
        return dict(Counter(tensor.verdict for tensor in self.tensors))

    @property
    def facts(self) -> CrosscheckFacts:
        """What a manifest keeps of it."""
        return CrosscheckFacts(
            method=self.method,
            tensors=len(self.shared),
            agreement=self.agreement,
            passed=self.passed,
            counts=self.counts,
            notes=list(self.notes),
        )

    def as_json(self) -> dict[str, Any]:
        """Return it as plain values; numbers that JSON cannot hold are null."""
        return {
            "schema_version": 1,
            "header": self.header,
            "method": self.method,
            "batch_size": self.batch_size,
            "samples": self.samples,
            "agreement": self.agreement,
            "min_agreement": self.min_agreement,
            "passed": self.passed,
            "counts": self.counts,
            "notes": list(self.notes),
            "only_ours": list(self.only_ours),
            "tensors": [_plain(tensor) for tensor in self.tensors],
        }


def crosscheck(
    cache: CalibrationCache,
    ours: Calibration,
    *,
    min_agreement: float = 0.95,
    names: Mapping[str, str] | None = None,
    path: Path | None = None,
) -> Crosscheck:
    """Compare a cache with our calibration of the same model and data.

    Args:
        cache: TensorRT's.
        ours: The reference, by the method that the cache's header names.
        min_agreement: The share of shared names that must agree.
        names: The model's tensor for names that TensorRT's parser made.
        path: The cache's file, for errors.

    Raises:
        CacheMismatchError: If no name of the cache is a tensor of the model.
    """
    mine = _Ours(ours.scales, ours.origins, ours.histograms, ours.clips)
    scales, theirs = mine.scales, cache.scales
    inherits = {tensor.name: tensor.scale_of for tensor in ours.tensors if tensor.scale_of is not None}
    known = {name: (names or {}).get(name, name) for name in theirs}
    by_ours = {known[name]: scale for name, scale in theirs.items()}
    tensors = tuple(
        _agreement(name, known[name], by_ours, mine, inherits)
        if known[name] in scales
        else Agreement(name=name, verdict="unknown name", theirs=float(scale))
        for name, scale in theirs.items()
    )
    if not any(tensor.ours is not None for tensor in tensors):
        raise CacheMismatchError(
            path,
            f"none of its {len(theirs)} names is a tensor of the model, which has {len(scales)}: it is the cache of another model",
        )
    facts = ours.provenance
    result = Crosscheck(
        header=cache.header,
        method=str(ours.recipe.method),
        batch_size=facts.batching.batch_size,
        samples=facts.data.samples,
        tensors=tensors,
        only_ours=tuple(name for name in scales if name not in by_ours),
        min_agreement=min_agreement,
        notes=(),
    )
    return replace(result, notes=tuple(_notes(result, cache, ours)))


def reference(  # noqa: PLR0913 - the public call names every choice that changes the result
    cache: CalibrationCache,
    model: Path | str,
    data: Any,
    batching: Batching,
    *,
    skip_bad_images: bool = False,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Calibration:
    """Calibrate on the CPU by the method that a cache's header names."""
    return calibrate(
        model,
        data,
        "minmax" if cache.algorithm == "MinMaxCalibration" else "entropy",
        batch_size=batching.batch_size,
        max_samples=batching.max_samples,
        shuffle=batching.shuffle,
        drop_last=batching.drop_last,
        skip_bad_images=skip_bad_images,
        workers=workers,
        progress=progress,
    )


def _agreement(
    name: str, tensor: str, theirs: Mapping[str, np.float32], ours: _Ours, inherits: Mapping[str, str]
) -> Agreement:
    """Compare one tensor; ``theirs`` goes by our names."""
    origin = ours.origins[tensor]
    clip = ours.clips[origin]
    found = compare(
        name,
        theirs[tensor],
        ours.scales[tensor],
        ours.histograms.get(origin),
        clip.bin_m,
        None if origin == tensor else origin,
    )
    if tensor != name:
        found = replace(found, tensor=tensor)
    source = inherits.get(tensor)
    if source is not None and theirs.get(source) == theirs[tensor]:
        return replace(found, verdict="inherited", origin=source)
    return found


def _notes(result: Crosscheck, cache: CalibrationCache, ours: Calibration) -> Iterator[str]:
    """Say what the cache as a whole tells."""
    shared = len(result.shared)
    if shared < len(result.tensors):
        unknown = [tensor.name for tensor in result.tensors if tensor.ours is None]
        yield (
            f"{shared} of {len(result.tensors)} names are tensors of the model; the others were made by TensorRT's parser, or belong "
            f"to another model: {_listed(unknown)}"
        )
    maxima = list(_maxima_of(result, ours))
    if len(maxima) >= FEWEST and cache.algorithm != "MinMaxCalibration" and sum(maxima) > CHANCE * len(maxima):
        yield (
            f"{sum(maxima)} of {len(maxima)} scales are the largest magnitude / 127: they were made by a MinMax calibration, whatever "
            f"the header {cache.header!r} says"
        )
        return
    if cache.algorithm == "MinMaxCalibration":
        if len(maxima) >= FEWEST and sum(maxima) < CHANCE * len(maxima):
            yield (
                f"only {sum(maxima)} of {len(maxima)} scales are the largest magnitude / 127: the cache was made from other data, or by "
                "another algorithm than its header says"
            )
        return
    tried = [tensor for tensor in result.shared if tensor.residual is not None and tensor.origin is None]
    whole = sum(tensor.their_bin is not None for tensor in tried)
    if len(tried) >= FEWEST and whole < CHANCE * len(tried):
        yield (
            f"only {whole} of {len(tried)} scales are a bin of our ranges: the cache was made with another batch size or order, from "
            "other data, or not by the entropy search; --find looks for the batch size"
        )
    elif whole < len(tried):
        yield (
            f"{len(tried) - whole} of {len(tried)} scales are no bin of our ranges: their first batch's maximum, or how often it doubled, "
            "was another one; --find looks for the batch size"
        )
    near = [tensor for tensor in result.shared if tensor.verdict == "bins off"]
    if near:
        yield f"{len(near)} scales are other bins of the same ranges: the batches are the right ones and some data are other: {_listed([t.name for t in near])}"


def _maxima_of(result: Crosscheck, ours: Calibration) -> Iterator[bool]:
    """Yield per tensor with a range of its own whether TensorRT's scale is its largest magnitude / 127."""
    for tensor in result.shared:
        histogram = ours.histograms.get(tensor.tensor or tensor.name)
        if histogram is not None and tensor.origin is None and histogram.maximum > 0 and np.isfinite(tensor.theirs):
            yield ulp_distance(np.float32(tensor.theirs), scale_from_amax(histogram.maximum)) <= MOST_ULP


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:MOST_WORDS])) + (", ..." if len(names) > MOST_WORDS else "")


def _plain(tensor: Agreement) -> dict[str, Any]:
    numbers = {key: None if isinstance(v, float) and not np.isfinite(v) else v for key, v in asdict(tensor).items()}
    name = tensor.name.encode("utf-8", "backslashreplace").decode()
    return {**numbers, "name": name, "bins_off": tensor.bins_off}
