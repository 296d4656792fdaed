"""Weights' scales by several methods at once: each channel is counted once, and searched by every method, on several threads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnx
from numpy.typing import NDArray

from trtcalib.accuracy.simulation import Simulation, weight_scales
from trtcalib.core.channels import (
    count_channels,
    entropy_of_channels,
    fits,
    mse_of_channels,
    percentile_of_channels,
)
from trtcalib.core.scale import INT8_MAX
from trtcalib.onnx_graph import ModelGraph
from trtcalib.qdq.placement import Weight
from trtcalib.qdq.weights import SMALLEST_SCALE, quantized
from trtcalib.specs import EntropyRecipe, MseRecipe, PercentileRecipe, Recipe

__all__ = ["SearchedSimulation", "search_channels"]

_BLOCK = 64
"""Channels that a thread counts and searches at a time: their histograms are 1 MB. Ours."""

_ChannelSearch = Callable[[NDArray[np.int64], NDArray[np.float32]], NDArray[np.float32]]


class SearchedSimulation(Simulation):
    """A simulation that chooses the scales of a weight's channels by all its methods when the first of them is asked for."""

    def __init__(self, model: ModelGraph, recipes: Sequence[Recipe], workers: int) -> None:
        """Prepare a model.

        Args:
            model: The model in float.
            recipes: The methods that variants will apply to weights.
            workers: Threads.

        Raises:
            ModelError: As :class:`~trtcalib.accuracy.simulation.Simulation`.
        """
        super().__init__(model)
        self._recipes = [recipe for recipe in recipes if _search_of(recipe) is not None]
        self._workers = workers
        self._scales: dict[tuple[str, int], dict[str, NDArray[np.float32]]] = {}

    def simulated_weights(self, weight: Weight, recipe: Recipe) -> onnx.TensorProto:
        """Return a weight tensor rounded to INT8 and back, float32; the same as :class:`~trtcalib.accuracy.simulation.Simulation`'s."""
        if weight.axis is None or recipe not in self._recipes:
            return super().simulated_weights(weight, recipe)
        values = self.prepared.wiring.values(weight.name)
        assert values is not None  # for the type checker: placement saw them
        key = (weight.name, weight.axis)
        if key not in self._scales:
            found = search_channels(values, weight.axis, self._recipes, self._workers)
            self._scales[key] = {
                each.model_dump_json(): scales for each, scales in zip(self._recipes, found, strict=True)
            }
        scales = self._scales[key][recipe.model_dump_json()]
        levels = quantized(values, scales, weight.axis)
        shape = [-1 if axis == weight.axis else 1 for axis in range(values.ndim)]
        return onnx.numpy_helper.from_array(levels * scales.reshape(shape))


def search_channels(
    weights: NDArray[np.float32], axis: int, recipes: Sequence[Recipe], workers: int
) -> list[NDArray[np.float32]]:
    """Return the scale of each channel, float32 ``[channels]``, by each recipe: those of :func:`~trtcalib.accuracy.simulation.weight_scales`.

    Args:
        weights: float32, all finite.
        axis: The output channels' axis.
        recipes: The methods.
        workers: Threads; the result does not depend on it.
    """
    rows = np.moveaxis(weights, axis, 0).reshape(weights.shape[axis], -1)
    searches = [_search_of(recipe) for recipe in recipes]
    bins = {recipe.bins for recipe in recipes}
    if None in searches or len(bins) != 1 or not fits(rows, *bins):
        return [weight_scales(weights, axis, recipe) for recipe in recipes]

    def work(start: int) -> list[NDArray[np.float32]]:
        counts, maxima = count_channels(rows[start : start + _BLOCK], *bins)
        return [search(counts, maxima) for search in searches if search is not None]

    with ThreadPoolExecutor(workers, thread_name_prefix="trtcalib") as pool:
        blocks = list(pool.map(work, range(0, len(rows), _BLOCK)))
    amax = [np.concatenate(parts) for parts in zip(*blocks, strict=True)]
    return [np.maximum(each / np.float32(INT8_MAX), SMALLEST_SCALE) for each in amax]


def _search_of(recipe: Recipe) -> _ChannelSearch | None:
    """Return the search of all channels at once; ``None`` where the method has none."""
    match recipe:
        case EntropyRecipe(variant="tensorrt"):
            return entropy_of_channels
        case MseRecipe():
            return mse_of_channels
        case PercentileRecipe():
            return lambda counts, maxima: percentile_of_channels(counts, maxima, recipe.percentile)
        case _:
            return None
