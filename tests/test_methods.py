"""A recipe's method on one histogram: the built-in ones, and those that other packages register."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path

import numpy as np
import pytest

import trtcalib
import trtcalib.methods
from trtcalib.core.entropy import VARIANTS, entropy_amax, entropy_bin
from trtcalib.core.histogram import Histogram, collect_histogram
from trtcalib.core.minmax import minmax_amax
from trtcalib.core.mse import mse_amax, quantization_noise
from trtcalib.core.percentile import percentile_amax
from trtcalib.errors import HistogramError, SpecError
from trtcalib.methods import ClipPoint, algorithm_of, clip_point, describe
from trtcalib.specs import METHODS_GROUP, EntropyRecipe, MinMaxRecipe, MseRecipe, PercentileRecipe, PluginRecipe

DATA = Path(__file__).parents[1] / "data"
DIGITS = DATA / "digits"
PICTURES = DATA / "digits-calibration.yaml"

HISTOGRAM = collect_histogram([np.random.default_rng(0).normal(size=5000).astype(np.float32)])
ZERO = collect_histogram([np.zeros(10, np.float32)])

ENTROPY = EntropyRecipe(method="entropy")
MINMAX = MinMaxRecipe(method="minmax")
MSE = MseRecipe(method="mse")
PERCENTILE = PercentileRecipe(method="percentile", percentile=99.9)
PLUGIN = PluginRecipe(method="mine", options={"times": 2})


@pytest.fixture
def register(monkeypatch: pytest.MonkeyPatch):
    """Register a function as the method ``mine``, as an installed package would."""

    def run(function: Callable) -> None:
        monkeypatch.setattr(trtcalib.methods, "a_method_of_the_test", function, raising=False)
        points = EntryPoints([EntryPoint("mine", "trtcalib.methods:a_method_of_the_test", METHODS_GROUP)])
        monkeypatch.setattr(trtcalib.methods, "entry_points", lambda *, group: points.select(group=group))

    return run


class TestBuiltIn:
    @pytest.mark.parametrize("variant", sorted(VARIANTS))
    def test_entropy_in_every_variant(self, variant: str) -> None:
        found = clip_point(HISTOGRAM, EntropyRecipe(method="entropy", variant=variant))
        assert found == ClipPoint(entropy_amax(HISTOGRAM, variant), entropy_bin(HISTOGRAM, variant))

    def test_the_recipes_variants_are_the_cores(self) -> None:
        assert set(EntropyRecipe.model_json_schema()["properties"]["variant"]["enum"]) == set(VARIANTS)

    def test_minmax(self) -> None:
        assert clip_point(HISTOGRAM, MINMAX) == ClipPoint(minmax_amax(HISTOGRAM), None)

    def test_mse(self) -> None:
        assert clip_point(HISTOGRAM, MSE) == ClipPoint(mse_amax(HISTOGRAM), None)

    def test_percentile(self) -> None:
        assert clip_point(HISTOGRAM, PERCENTILE) == ClipPoint(percentile_amax(HISTOGRAM, 99.9), None)

    @pytest.mark.parametrize("recipe", [ENTROPY, MINMAX, MSE, PERCENTILE])
    def test_a_tensor_that_was_all_zero(self, recipe) -> None:
        assert clip_point(ZERO, recipe) == ClipPoint(np.float32(0), None)

    @pytest.mark.parametrize("recipe", [ENTROPY, MINMAX, MSE, PERCENTILE])
    def test_amax_is_float32(self, recipe) -> None:
        assert clip_point(HISTOGRAM, recipe).amax.dtype == np.float32


class TestMseOnTheSample:
    """The whole way, from pictures to a cache."""

    def test_the_cache_does_not_depend_on_workers_nor_on_solving_again(self) -> None:
        one, many = (
            trtcalib.calibrate(DIGITS / "model.onnx", PICTURES, "mse", max_samples=96, workers=workers)
            for workers in (1, 3)
        )
        cache = trtcalib.format_cache(one.cache())
        assert trtcalib.format_cache(many.cache()) == cache
        assert trtcalib.format_cache(trtcalib.solve(many, "mse").cache()) == cache
        assert b"-EntropyCalibration2" in cache.splitlines()[0]

    def test_no_method_whose_amax_is_a_candidate_has_less_noise(self) -> None:
        mse = trtcalib.calibrate(DIGITS / "model.onnx", PICTURES, "mse", max_samples=96)
        others = [trtcalib.solve(mse, name) for name in ("minmax", "percentile-99", "percentile-99.9")]
        clipping = 0
        for name, histogram in mse.histograms.items():
            least = quantization_noise(histogram, mse.clips[name].amax)
            clipping += least.clipped > 0
            for amax in (other.clips[name].amax for other in others):
                noise = quantization_noise(histogram, amax)
                less = noise.clipped + noise.rounded < (1 - 1e-4) * (least.clipped + least.rounded)
                assert not less or amax > histogram.maximum
        assert 0 < clipping < len(mse.histograms)


class TestNames:
    @pytest.mark.parametrize(
        ("recipe", "algorithm", "name"),
        [
            (ENTROPY, "EntropyCalibration2", "entropy"),
            (EntropyRecipe(method="entropy", variant="smoothed"), "EntropyCalibration2", "entropy (smoothed)"),
            (MINMAX, "MinMaxCalibration", "minmax"),
            (MSE, "EntropyCalibration2", "mse"),
            (PERCENTILE, "EntropyCalibration2", "percentile 99.9"),
            (PercentileRecipe(method="percentile", percentile=100), "EntropyCalibration2", "percentile 100"),
            (PLUGIN, "EntropyCalibration2", "mine"),
        ],
    )
    def test_header_and_name(self, recipe, algorithm: str, name: str) -> None:
        assert algorithm_of(recipe) == algorithm
        assert describe(recipe) == name


class TestPlugins:
    def refusal(self) -> str:
        with pytest.raises(SpecError) as caught:
            clip_point(HISTOGRAM, PLUGIN)
        return str(caught.value)

    def test_gets_the_histogram_and_its_options(self, register) -> None:
        calls = []

        def method(histogram: Histogram, **options: object) -> float:
            calls.append((histogram, options))
            return 1.5

        register(method)
        assert clip_point(HISTOGRAM, PLUGIN) == ClipPoint(np.float32(1.5), None)
        assert calls == [(HISTOGRAM, {"times": 2})]

    def test_not_installed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(trtcalib.methods, "entry_points", lambda *, group: EntryPoints([]))
        assert self.refusal() == "recipe: method: no installed package registers 'mine' under 'trtcalib.methods'"

    def test_installed_but_broken(self, monkeypatch: pytest.MonkeyPatch) -> None:
        points = EntryPoints([EntryPoint("mine", "no_such_module:f", METHODS_GROUP)])
        monkeypatch.setattr(trtcalib.methods, "entry_points", lambda *, group: points)
        assert self.refusal() == "recipe: method: 'mine' raised ModuleNotFoundError: No module named 'no_such_module'"

    def test_raises(self, register) -> None:
        def method(histogram: Histogram, times: int) -> float:
            return 1 / 0

        register(method)
        assert self.refusal() == "recipe: method: 'mine' raised ZeroDivisionError: division by zero"

    def test_does_not_take_the_option(self, register) -> None:
        def method(histogram: Histogram) -> float:
            return 1.0

        register(method)
        assert "'mine' raised TypeError: " in self.refusal()
        assert self.refusal().endswith("got an unexpected keyword argument 'times'")

    def test_its_own_refusals_of_a_histogram_pass(self, register) -> None:
        def method(histogram: Histogram, times: int) -> float:
            raise HistogramError("too few bins")

        register(method)
        with pytest.raises(HistogramError, match=r"^too few bins$"):
            clip_point(HISTOGRAM, PLUGIN)

    @pytest.mark.parametrize(("value", "shown"), [(-1, "-1.0"), (float("nan"), "nan"), (float("inf"), "inf")])
    def test_gives_no_valid_amax(self, register, value: float, shown: str) -> None:
        register(lambda histogram, times: value)
        assert self.refusal() == f"recipe: method: 'mine' gave amax {shown}, expected a finite number >= 0"

    @pytest.mark.parametrize("value", [None, "abc", [1]])
    def test_gives_no_number(self, register, value: object) -> None:
        register(lambda histogram, times: value)
        assert self.refusal().startswith("recipe: method: 'mine' raised ")
