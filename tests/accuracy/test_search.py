"""The order in which a sweep tries recipes, and where it stops; judged by a made-up curve."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from trtcalib.accuracy import search as module
from trtcalib.accuracy.result import Judgement
from trtcalib.accuracy.search import BASELINE, Search
from trtcalib.accuracy.simulation import Plan
from trtcalib.judging.paired import Scored
from trtcalib.specs import PercentileRecipe, Recipe

FIXED = ["entropy", "minmax", "mse", "pseudocode", "smoothed", "pytorch-quantization"]

COARSE = [99.0, 99.684, 99.9, 99.9684, 99.99, 99.99684, 99.999, 99.999684, 99.9999, 99.9999684, 99.99999, 100.0]


@dataclass
class Solved:
    """In place of a calibration: its scales are the recipe."""

    recipe: Recipe

    @property
    def scales(self) -> Recipe:
        return self.recipe


class FakeSimulation:
    """Plans by recipe; recipes of one ``alike`` value have one plan."""

    def __init__(self, alike: Callable[[Recipe], object], float_nodes: Callable[[Recipe], bool]) -> None:
        self._alike = alike
        self._float_nodes = float_nodes

    def plan(self, choice: Any) -> Plan:
        recipe = choice.scales
        weighted = ("a",) if self._float_nodes(recipe) else ("a", "b")
        return Plan({"a": self._alike(recipe)}, weighted, 2)  # type: ignore[dict-item]

    def model(self, plan: Plan) -> Plan:
        return plan


def clipped(recipe: Recipe) -> float:
    """-log10 of what a percentile clips; NaN for others."""
    if not isinstance(recipe, PercentileRecipe):
        return math.nan
    return -math.log10(max(1 - recipe.percentile / 100, 1e-9))


def run(
    monkeypatch: pytest.MonkeyPatch,
    loss: Callable[[Recipe], tuple[float, float]],
    budget: int = 100,
    alike: Callable[[Recipe], object] = lambda recipe: recipe.model_dump_json(),
    float_nodes: Callable[[Recipe], bool] = lambda _: False,
) -> Search:
    """Search on a curve of (loss, noise)."""
    monkeypatch.setattr(module, "solve", lambda _, recipe: Solved(recipe))
    recipes: dict[str, Recipe] = {}
    simulation = FakeSimulation(alike, float_nodes)

    def judge(variants: Mapping[str, Any]) -> dict[str, Scored]:
        for key in variants:
            recipes.setdefault(key, module.BASELINE if "tensorrt" in key else parse(key))
        return {key: scored(*loss(recipes[key])) for key in variants}

    search = Search(None, simulation, judge, budget)  # type: ignore[arg-type]
    search.run()
    return search


def parse(key: str) -> Recipe:
    from trtcalib.specs import _BUILTIN

    recipe: Recipe = _BUILTIN.validate_json(key)
    return recipe


def scored(loss: float, noise: float) -> Scored:
    judgement = Judgement(value=0, interval=None, loss=loss, loss_interval=None, p_value=None, outputs=[])
    return Scored(judgement=judgement, noise=noise, samples=np.zeros((1, 1)))


def names(search: Search) -> list[object]:
    return [
        tried.recipe.percentile
        if isinstance(tried.recipe, PercentileRecipe)
        else getattr(tried.recipe, "variant", tried.recipe.method).replace("tensorrt", "entropy")
        for tried in search.tried
    ]


def valley(at: float) -> Callable[[Recipe], tuple[float, float]]:
    """Least where a percentile clips ``10 ** -at``; other methods lose more."""
    return lambda recipe: (abs(clipped(recipe) - at) if clipped(recipe) == clipped(recipe) else 9.0, 0.0)


def test_entropy_first_then_the_others_then_the_coarse_grid(monkeypatch: pytest.MonkeyPatch) -> None:
    search = run(monkeypatch, valley(4))
    assert names(search)[:18] == [*FIXED, *COARSE]
    assert search.tried[0].recipe == BASELINE


def test_the_grid_is_refined_around_the_best(monkeypatch: pytest.MonkeyPatch) -> None:
    search = run(monkeypatch, valley(4.27))
    best = min(search.tried, key=lambda each: each.rank)
    assert clipped(best.recipe) == pytest.approx(4.27, abs=0.01)
    # Thirds of the step before, on both sides of 4.5 (99.99684), in clipped shares of two digits.
    assert names(search)[18:22] == [99.99319, 99.99536, 99.99785, 99.99853]
    assert len(search.tried) == 18 + 3 * 4


@pytest.mark.parametrize("at", [2.0, 7.0, 9.0])
def test_the_ends_of_the_grid_are_not_left(monkeypatch: pytest.MonkeyPatch, at: float) -> None:
    search = run(monkeypatch, valley(at))
    tried = [name for name in names(search) if isinstance(name, float)]
    assert min(tried) == 99.0
    assert max(tried) == 100.0
    assert len(tried) == len(set(tried))
    best = min(search.tried, key=lambda each: each.rank)
    assert isinstance(best.recipe, PercentileRecipe)
    assert best.recipe.percentile == {2.0: 99.0, 7.0: 99.99999, 9.0: 100.0}[at]


@pytest.mark.parametrize("budget", [1, 2, 7, 18, 19, 23, 40])
def test_no_more_than_the_budget_and_the_same_to_begin_with(monkeypatch: pytest.MonkeyPatch, budget: int) -> None:
    whole = names(run(monkeypatch, valley(4.27)))
    search = run(monkeypatch, valley(4.27), budget=budget)
    assert names(search) == whole[:budget]
    assert any("budget" in note for note in search.notes()) == (budget < len(whole))


def test_of_equal_losses_the_least_noise_wins_and_then_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    def flat(recipe: Recipe) -> tuple[float, float]:
        return 0.0, {"mse": 1.0, "minmax": 1.0}.get(recipe.method, 2.0)

    search = run(monkeypatch, flat)
    assert min(search.tried, key=lambda each: each.rank).recipe.method == "minmax"


def test_the_same_scales_are_judged_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def alike(recipe: Recipe) -> object:
        return "end" if clipped(recipe) > 5 else recipe.model_dump_json()

    search = run(monkeypatch, valley(6), alike=alike)
    assert names(search)[:18].count(99.999684) == 1
    assert not {99.9999, 99.99999, 100.0} & set(names(search))
    note = next(iter(search.notes()))
    assert note.startswith("not judged, since their scales are those of a candidate that was: percentile 99.9999, ")
    assert note.endswith("percentile 99.99999, percentile 100") or "percentile 100" in note


def test_what_leaves_nodes_in_float_does_not_win_by_that(monkeypatch: pytest.MonkeyPatch) -> None:
    def loss(recipe: Recipe) -> tuple[float, float]:
        return (0.0 if recipe.method == "mse" else 1.0), 0.0

    search = run(monkeypatch, loss, float_nodes=lambda recipe: recipe.method == "mse")
    assert "mse" not in names(search)
    assert list(search.notes()) == ["not judged, since they leave nodes in float that entropy quantizes: mse"]
