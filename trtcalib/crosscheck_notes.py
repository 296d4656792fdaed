"""What the scales of a calibration cache tell as a whole: another batch size, method, model or other data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from trtcalib.calibration import Calibration
from trtcalib.core.agreement import MOST_ULP, Agreement, invert, is_edge, is_whole
from trtcalib.core.cache import CalibrationCache
from trtcalib.core.histogram import Histogram
from trtcalib.core.scale import scale_from_amax, ulp_distance
from trtcalib.methods import describe
from trtcalib.specs import EntropyRecipe, MinMaxRecipe

__all__ = ["notes"]

MOST_WORDS = 5
"""Names that a sentence shows."""

CHANCE = 0.5
"""Of right ranges nearly all scales are whole bins, of other ones one in 25 by chance: half lies well between."""

FEWEST = 3
"""Tensors that a statement about the whole cache needs."""

KNOWN = ("EntropyCalibration2", "MinMaxCalibration")
"""The algorithms whose rules real caches have shown."""


class _Own(NamedTuple):
    """A tensor that both have, with a histogram that is not all zero and that no tensor before it shows, and a scale that could be one."""

    found: Agreement
    histogram: Histogram
    constant: bool

    @property
    def is_maximum(self) -> bool:
        """Whether TensorRT's scale is the largest magnitude / 127."""
        return ulp_distance(np.float32(self.found.theirs), scale_from_amax(self.histogram.maximum)) <= MOST_ULP


def notes(tensors: Sequence[Agreement], cache: CalibrationCache, ours: Calibration) -> Iterator[str]:
    """Say what the comparison as a whole tells, one sentence each.

    Args:
        tensors: One per name of the cache.
        cache: TensorRT's.
        ours: Our calibration.
    """
    yield from _name_notes(tensors, cache)
    if cache.algorithm not in KNOWN:
        yield (
            f"the header says {cache.algorithm!r}: our reference follows the rules of EntropyCalibration2, and no real cache of another "
            "entropy algorithm was compared with it"
        )
    own = list(_own(tensors, ours))
    match ours.recipe:
        case EntropyRecipe():
            yield from _entropy_notes(own, cache, ours.recipe)
        case MinMaxRecipe():
            yield from _minmax_notes(own, cache)
        case _:
            others = [one for one in own if not one.found.agrees]
            if others:
                yield (
                    f"{len(others)} of {len(own)} scales are not those of {describe(ours.recipe)}: the model, the data or their "
                    f"batches are other ones: {_listed(others)}"
                )


def _name_notes(tensors: Sequence[Agreement], cache: CalibrationCache) -> Iterator[str]:
    """Tell of names and scales that stand out by themselves."""
    unknown = [tensor.name for tensor in tensors if tensor.ours is None]
    if unknown:
        yield (
            f"{len(tensors) - len(unknown)} of {len(tensors)} names are tensors of the model; the others were made by TensorRT's "
            f"parser, or belong to another model: {_named(unknown)}"
        )
    twice = [name for name, times in Counter(entry.name for entry in cache.entries).items() if times > 1]
    if twice:
        yield f"{len(twice)} names stand more than once in the cache, and the last scale of each counts: {_named(twice)}"
    zero = [t.name for t in tensors if t.theirs == 0 and t.ours is not None and not t.agrees]
    if zero:
        yield f"{len(zero)} scales are zero and ours are not: TensorRT saw nothing but zeros there: {_named(zero)}"
    odd = [t.name for t in tensors if not (np.isfinite(t.theirs) and t.theirs >= 0) and not t.agrees]
    if odd:
        yield f"{len(odd)} scales are NaN, infinite or negative: {_named(odd)}"


def _own(tensors: Sequence[Agreement], ours: Calibration) -> Iterator[_Own]:
    constants = {tensor.name for tensor in ours.tensors if tensor.kind in ("constant", "folded")}
    seen = set()
    for found in tensors:
        # A view shows its source's histogram, which is told of once; a pool's scale is its source's.
        name = found.origin or found.tensor or found.name
        histogram = ours.histograms.get(name)
        if (
            histogram is not None
            and found.ours is not None
            and found.verdict != "inherited"
            and histogram.maximum > 0
            and 0 < found.theirs < np.inf
            and name not in seen
        ):
            seen.add(name)
            yield _Own(found, histogram, name in constants)


def _entropy_notes(own: Sequence[_Own], cache: CalibrationCache, recipe: EntropyRecipe) -> Iterator[str]:
    """Tell whose scales these are where our reference is an entropy search."""
    others = [one for one in own if not one.found.agrees]
    maxima = sum(one.is_maximum for one in others)
    if maxima >= FEWEST and maxima > CHANCE * len(own):
        yield (
            f"{maxima} of {len(own)} scales are the largest magnitude / 127: they were made by a MinMax calibration, whatever the "
            f"header {cache.header!r} says"
        )
        return
    edges = sum(is_edge(one.found.residual) for one in others)
    if recipe.variant == "tensorrt" and edges >= FEWEST and edges > CHANCE * len(own):
        yield (
            f"{edges} of {len(own)} scales lie on the edge between two bins: they were made by percentiles, or by an entropy search "
            f"that is not TensorRT's, whatever the header {cache.header!r} says"
        )
        return
    yield from _weight_notes(others, own)
    fed = [one for one in own if not one.constant]
    yield from _range_notes(fed, recipe)
    near = [one for one in fed if one.found.verdict == "bins off"]
    if near:
        yield (
            f"{len(near)} scales are other bins of the same ranges: the first batch is the right one, and other data or another "
            f"number of samples came after it: {_listed(near)}"
        )


def _minmax_notes(own: Sequence[_Own], cache: CalibrationCache) -> Iterator[str]:
    """Tell whose scales these are where our reference is a running maximum."""
    others = [one for one in own if not one.found.agrees]
    bins = sum(is_whole(invert(one.found.theirs, one.histogram)) for one in others)
    if bins >= FEWEST and bins > CHANCE * len(own):
        yield (
            f"{bins} of {len(own)} scales are bins of our ranges: they were made by an entropy calibration, whatever the header "
            f"{cache.header!r} says"
        )
        return
    yield from _weight_notes(others, own)
    moved = [one for one in others if not one.constant]
    if moved:
        yield (
            f"{len(moved)} of {sum(not one.constant for one in own)} scales are not the largest magnitude / 127: the cache was made from "
            f"other data, or by another algorithm than its header says: {_listed(moved)}"
        )


def _weight_notes(others: Sequence[_Own], own: Sequence[_Own]) -> Iterator[str]:
    """Tell of weights, whose scales no data and no batch size can move."""
    weights = [one for one in others if one.constant]
    if weights:
        yield (
            f"{len(weights)} of {sum(one.constant for one in own)} constants have other scales, which do not depend on the data: the "
            f"cache is of a model with other weights: {_listed(weights)}"
        )


def _range_notes(fed: Sequence[_Own], recipe: EntropyRecipe) -> Iterator[str]:
    """Tell of ranges that are not TensorRT's; whole bins are counted before our own bins come into it."""
    moved = [one for one in fed if one.found.their_bin is None and not one.found.agrees]
    if not moved:
        return
    hint = "; --find looks for it" if recipe == EntropyRecipe(method="entropy") else ""
    whole = len(fed) - len(moved)
    if len(fed) >= FEWEST and whole < CHANCE * len(fed):
        yield (
            f"only {whole} of {len(fed)} scales that depend on the data are a bin of our ranges: the cache was made with another batch "
            f"size or order, from other data, in TF32, or not by the entropy search{hint}"
        )
    else:
        yield (
            f"{len(moved)} of {len(fed)} scales that depend on the data are no bin of our ranges: with another batch size or order, or "
            f"from other data, their first batch's maximum, or how often it doubled, was another one{hint}: {_listed(moved)}"
        )


def _listed(tensors: Sequence[_Own]) -> str:
    return _named([one.found.name for one in tensors])


def _named(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:MOST_WORDS])) + (", ..." if len(names) > MOST_WORDS else "")
