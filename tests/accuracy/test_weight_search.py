"""Scales of weights by several methods at once are those of one method at a time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.accuracy import planted
from trtcalib.accuracy import weight_search
from trtcalib.accuracy.ablation import METHODS
from trtcalib.accuracy.simulation import Choice, Simulation, weight_scales
from trtcalib.accuracy.weight_search import SearchedSimulation, search_channels
from trtcalib.calibration import calibrate
from trtcalib.onnx_graph import read_model
from trtcalib.specs import EntropyRecipe, load_recipe

SEARCHED = [load_recipe(method) for method in METHODS if method != "minmax"]


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("workers", [1, 3])
def test_every_axis_and_number_of_threads(axis: int, workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weight_search, "_BLOCK", 4)
    weights = np.random.default_rng(axis).normal(size=(9, 10, 11)).astype(np.float32)
    found = search_channels(weights, axis, SEARCHED, workers)
    for recipe, scales in zip(SEARCHED, found, strict=True):
        assert scales.dtype == np.float32
        assert scales.tolist() == weight_scales(weights, axis, recipe).tolist()


@pytest.mark.parametrize("change", ["zeros", "tiny", "huge", "empty"])
def test_odd_weights(change: str) -> None:
    weights = np.random.default_rng(0).normal(size=(3, 8)).astype(np.float32)
    if change == "empty":
        weights = weights[:, :1]
    weights[1] = {"zeros": 0, "tiny": 1e-40, "huge": 3e38, "empty": 0}[change]
    found = search_channels(weights, 0, SEARCHED, 1)
    for recipe, scales in zip(SEARCHED, found, strict=True):
        assert scales.tolist() == weight_scales(weights, 0, recipe).tolist()


def test_recipes_of_different_bins_and_other_variants_are_searched_one_by_one() -> None:
    weights = np.random.default_rng(0).normal(size=(3, 400)).astype(np.float32)
    recipes = [
        load_recipe("mse").model_copy(update={"bins": 512}),
        load_recipe("mse"),
        EntropyRecipe(method="entropy", variant="pytorch-quantization"),
    ]
    for recipe, scales in zip(recipes, search_channels(weights, 0, recipes, 1), strict=True):
        assert scales.tolist() == weight_scales(weights, 0, recipe).tolist()


def test_the_samples_variants_are_the_same_bytes(tmp_path: Path) -> None:
    fault = planted.sound(tmp_path)
    graph = read_model(fault.model)
    scales = calibrate(fault.model, fault.calibration, "minmax", max_samples=32).scales
    recipes = [load_recipe(method) for method in METHODS]
    plain, searched = Simulation(graph), SearchedSimulation(graph, recipes, 2)
    for recipe in (*recipes, EntropyRecipe(method="entropy", variant="pytorch-quantization")):
        for parts in ("tensor", "channel"):
            choice = Choice(scales=scales, activations=False, weights=parts, weight_recipe=recipe)
            ours, theirs = (each.model(each.plan(choice)).proto for each in (searched, plain))
            assert ours.SerializeToString() == theirs.SerializeToString()
