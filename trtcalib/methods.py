"""A recipe's method, applied to one histogram: the built-in ones, and those of other packages."""

from __future__ import annotations

import math
from importlib.metadata import entry_points
from typing import NamedTuple

import numpy as np

from trtcalib.core.entropy import entropy_clip
from trtcalib.core.histogram import Histogram
from trtcalib.core.minmax import minmax_amax
from trtcalib.core.mse import mse_amax
from trtcalib.core.percentile import percentile_amax
from trtcalib.errors import HistogramError, SpecError
from trtcalib.specs import (
    METHODS_GROUP,
    EntropyRecipe,
    MinMaxRecipe,
    MseRecipe,
    PercentileRecipe,
    PluginRecipe,
    Recipe,
)

__all__ = ["ClipPoint", "algorithm_of", "clip_point", "describe", "method_of"]


class ClipPoint(NamedTuple):
    """Where a method clips.

    Attributes:
        amax: float32, in the tensor's units.
        bin_m: The entropy search's candidate; ``None`` for other methods.
    """

    amax: np.float32
    bin_m: int | None


def clip_point(histogram: Histogram, recipe: Recipe) -> ClipPoint:
    """Apply a recipe's method to a histogram.

    Raises:
        HistogramError: If the method refuses the histogram.
        SpecError: If a third-party method is not installed, fails, or gives no valid amax.
    """
    match recipe:
        case EntropyRecipe():
            return ClipPoint(*entropy_clip(histogram, recipe.variant))
        case MinMaxRecipe():
            return ClipPoint(minmax_amax(histogram), None)
        case MseRecipe():
            return ClipPoint(mse_amax(histogram), None)
        case PercentileRecipe():
            return ClipPoint(percentile_amax(histogram, recipe.percentile), None)
        case PluginRecipe():
            return ClipPoint(_plugin_amax(histogram, recipe), None)


def algorithm_of(recipe: Recipe) -> str:
    """Return the algorithm for the cache's header: TensorRT has none for mse and percentiles, and takes them as entropy's."""
    return "MinMaxCalibration" if isinstance(recipe, MinMaxRecipe) else "EntropyCalibration2"


def method_of(algorithm: str) -> str:
    """Return the method behind an algorithm in a cache's header, of those that we have."""
    return "minmax" if algorithm == "MinMaxCalibration" else "entropy"


def describe(recipe: Recipe) -> str:
    """Return a short name for people: ``entropy``, ``mse``, ``percentile 99.99``, ``entropy (smoothed)``."""
    match recipe:
        case EntropyRecipe():
            return "entropy" if recipe.variant == "tensorrt" else f"entropy ({recipe.variant})"
        case PercentileRecipe():
            return f"percentile {recipe.percentile:.12g}"
        case _:
            return recipe.method


def _plugin_amax(histogram: Histogram, recipe: PluginRecipe) -> np.float32:
    found = [point for point in entry_points(group=METHODS_GROUP) if point.name == recipe.method]
    if not found:
        raise SpecError(
            "recipe", (f"method: no installed package registers {recipe.method!r} under {METHODS_GROUP!r}",)
        )
    try:
        amax = float(found[0].load()(histogram, **recipe.options))
    except HistogramError:
        raise
    except Exception as error:
        raise SpecError("recipe", (f"method: {recipe.method!r} raised {type(error).__name__}: {error}",)) from error
    if not (amax >= 0 and math.isfinite(amax)):
        raise SpecError("recipe", (f"method: {recipe.method!r} gave amax {amax!r}, expected a finite number >= 0",))
    return np.float32(amax)
