"""Which recipes a sweep tries, and in what order: entropy's variants, minmax, mse, and percentiles on a logarithmic grid, refined at the best."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from trtcalib.accuracy.simulation import Choice, Plan, Simulation
from trtcalib.calibration import Calibration, solve
from trtcalib.judging.paired import Scored
from trtcalib.methods import describe
from trtcalib.onnx_graph import ModelGraph
from trtcalib.specs import VARIANTS_OF_RECIPE, EntropyRecipe, MinMaxRecipe, MseRecipe, PercentileRecipe, Recipe

__all__ = ["BASELINE", "Search", "Tried"]

BASELINE = EntropyRecipe(method="entropy")
"""What TensorRT does, and what every winner is held against."""

_FIRST, _LAST, _STEP = 2.0, 7.0, 0.5
"""The coarse grid of ``-log10(clipped share)``: 99 % to 99.99999 %, three percentiles to a factor of ten in what is clipped. Ours."""

_FINEST = 0.01
"""Steps of the grid below it are not tried: 2.3 % more or fewer clipped values. Ours."""

_AT_ONCE = (-2, -1, 1, 2)
"""A refinement: thirds of the step before, on both sides of the best."""

_THIRD = 3

_DIGITS = 2
"""Decimals of a percentile behind its nines."""

Judge = Callable[[Mapping[str, Callable[[], ModelGraph]]], Mapping[str, Scored]]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Tried:
    """A candidate.

    Attributes:
        recipe: Its method.
        plan: What its scales make of the model.
        scored: What it does on the samples that candidates are compared on.
    """

    recipe: Recipe
    plan: Plan
    scored: Scored

    @property
    def rank(self) -> tuple[float, float]:
        """Less is better: the metric's loss, and where the metric cannot tell, the noise of the judged outputs."""
        return self.scored.judgement.loss, self.scored.noise


@dataclass(slots=True)
class Search:
    """A search that is deterministic in its arguments.

    Attributes:
        used: The calibration, of the tensors whose scales decide.
        simulation: Makes the variants.
        judge: Judges some of them together.
        budget: Candidates that are judged, at most.
        tried: In the order in which they were judged; the first is the baseline.
        same: Recipes that were not judged, since their scales are those of one that was.
        fewer: Recipes that were not judged, since they leave nodes in float that the baseline quantizes.
    """

    used: Calibration
    simulation: Simulation
    judge: Judge
    budget: int
    tried: list[Tried] = field(default_factory=list)
    same: list[Recipe] = field(default_factory=list)
    fewer: list[Recipe] = field(default_factory=list)

    def run(self) -> Tried:
        """Return the best candidate; of equal ones the first that was tried."""
        self._try([BASELINE, *_others(), *(_percentile(x) for x in _grid())])
        step = _STEP / _THIRD
        while step >= _FINEST and len(self.tried) < self.budget:
            best = min((each for each in self.tried if _is_percentile(each)), key=lambda each: each.rank, default=None)
            if best is None:
                break
            centre = _position(best.recipe)
            self._try([_percentile(centre + k * step) for k in _AT_ONCE])
            step /= _THIRD
        return min(self.tried, key=lambda each: each.rank)

    def _try(self, recipes: Sequence[Recipe]) -> None:
        """Judge those recipes that are new, together, as far as the budget goes."""
        new: dict[str, tuple[Recipe, Plan]] = {}
        known = {each.recipe.model_dump_json() for each in self.tried} | {r.model_dump_json() for r in self._left_out}
        for recipe in recipes:
            key = recipe.model_dump_json()
            if key in known or len(self.tried) + len(new) >= self.budget:
                continue
            known.add(key)
            plan = self.simulation.plan(Choice(scales=solve(self.used, recipe).scales))
            plans = [*(each.plan for each in self.tried), *(other for _, other in new.values())]
            if plans and plan.weighted != plans[0].weighted:
                self.fewer.append(recipe)
            elif any(not plan.changed(other) for other in plans):
                self.same.append(recipe)
            else:
                new[key] = recipe, plan
        scored = self.judge({key: _maker(self.simulation, plan) for key, (_, plan) in new.items()})
        self.tried += [Tried(recipe=new[key][0], plan=new[key][1], scored=scored[key]) for key in new]

    @property
    def _left_out(self) -> list[Recipe]:
        return [*self.same, *self.fewer]

    def notes(self) -> Iterator[str]:
        """Yield what a reader should know of candidates that were left out."""
        if self.same:
            yield f"not judged, since their scales are those of a candidate that was: {_listed(self.same)}"
        if self.fewer:
            yield f"not judged, since they leave nodes in float that entropy quantizes: {_listed(self.fewer)}"
        if len(self.tried) == self.budget:
            yield f"the budget of {self.budget} evaluations was spent"


def _others() -> Iterator[Recipe]:
    yield MinMaxRecipe(method="minmax")
    yield MseRecipe(method="mse")
    for variant in VARIANTS_OF_RECIPE:
        yield EntropyRecipe(method="entropy", variant=variant)


def _grid() -> Iterator[float]:
    steps = round((_LAST - _FIRST) / _STEP)
    yield from (_FIRST + i * _STEP for i in range(steps + 1))
    yield math.inf


def _percentile(position: float) -> PercentileRecipe:
    """Return the percentile that clips ``10 ** -position`` of the values, rounded to two digits behind its nines; 99 to 100."""
    position = max(position, _FIRST)
    if position > _LAST:
        return PercentileRecipe(method="percentile", percentile=100.0)
    exact = 100 * (1 - 10.0**-position)
    return PercentileRecipe(method="percentile", percentile=round(exact, math.ceil(position) - 2 + _DIGITS))


def _position(recipe: Recipe) -> float:
    """Return where a percentile lies on the grid; 100 one step past its end."""
    assert isinstance(recipe, PercentileRecipe)  # for the type checker: only those are refined
    clipped = 1 - recipe.percentile / 100
    return -math.log10(clipped) if clipped > 0 else _LAST + _STEP


def _is_percentile(tried: Tried) -> bool:
    return isinstance(tried.recipe, PercentileRecipe)


def _maker(simulation: Simulation, plan: Plan) -> Callable[[], ModelGraph]:
    return lambda: simulation.model(plan)


def _listed(recipes: Sequence[Recipe]) -> str:
    return ", ".join(describe(recipe) for recipe in recipes)
