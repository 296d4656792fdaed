"""What a study refuses, in words, before any work is done; and what it takes all the same."""

from __future__ import annotations

import os
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path

import numpy as np
import pytest

import trtcalib.methods
from tests.batch_study.helpers import IDENTITY, check_equals_calibrate, contents, outcome, rows, tensor
from tests.models import FIXED, save_model
from trtcalib.batch_study import counting
from trtcalib.batch_study.study import study
from trtcalib.errors import (
    ActivationError,
    DataError,
    ModelError,
    OutputError,
    SpecError,
    TensorRTVersionError,
    TrtcalibError,
)
from trtcalib.specs import METHODS_GROUP, EntropyRecipe, PercentileRecipe, PluginRecipe

X = rows(1, 2, 3)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return save_model(tmp_path / "model.onnx", IDENTITY)


@pytest.fixture
def refused(tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch):
    """Refuse without a single inference, leaving nothing behind."""

    def run(kind: type[TrtcalibError], data=X, *, path: Path | None = None, **options) -> str:
        runs = []
        add = counting.MaximaTally.add
        monkeypatch.setattr(counting.MaximaTally, "add", lambda *args: runs.append(1) or add(*args))
        with pytest.raises(kind) as caught:
            study(path or model, data, tmp_path / "out", **options)
        assert not runs
        assert not (tmp_path / "out").exists()
        return str(caught.value)

    return run


class TestBatchSizes:
    @pytest.mark.parametrize("size", [0, -3])
    def test_must_be_positive(self, refused, size: int) -> None:
        assert refused(DataError, batch_sizes=[4, size]) == f"<arrays>: batch_size must be at least 1, got {size}"

    @pytest.mark.parametrize("size", ["8", "ALL", 8.0, True, None, np.float32(2)])
    def test_must_be_whole_numbers_or_all(self, refused, size: object) -> None:
        assert refused(DataError, batch_sizes=[size]) == (
            f"<arrays>: found batch size {size!r}, expected a positive whole number or 'all'"
        )

    @pytest.mark.parametrize("sizes", [[], ()])
    def test_there_must_be_one(self, refused, sizes) -> None:
        assert refused(DataError, batch_sizes=sizes) == (
            "<arrays>: no batch size was named: expected positive numbers or 'all'"
        )

    def test_larger_than_the_data_are_all_of_them_and_told(self, model: Path, tmp_path: Path) -> None:
        result = study(model, X, tmp_path / "out", batch_sizes=[10**15, 3, 2])
        assert [c.name for c in result.configurations] == ["all", "b2"]
        assert result.notes[:2] == [
            "batch size 1000000000000000 is more than the 3 samples, so that it is the same as all of them in one batch",
            "batch size 3 is all samples in one batch",
        ]


class TestFixedBatch:
    def test_sizes_must_be_its_multiples(self, refused, tmp_path: Path) -> None:
        path = save_model(tmp_path / "fixed.onnx", FIXED)
        assert refused(DataError, np.ones((16, 3), np.float32), path=path, batch_sizes=[8, 6]) == (
            "<arrays>: the model has a fixed batch of 4: the batch size must be a multiple of it, got 6"
        )

    def test_orders_would_give_other_runs(self, refused, tmp_path: Path) -> None:
        path = save_model(tmp_path / "fixed.onnx", FIXED)
        text = refused(DataError, np.ones((16, 3), np.float32), path=path, batch_sizes=[8], orders=1)
        assert text.startswith("<arrays>: the model runs 4 samples at a time, so that another order gives other runs")

    def test_multiples_and_the_default_sizes_are_taken(self, tmp_path: Path) -> None:
        path = save_model(tmp_path / "fixed.onnx", FIXED)
        result = study(path, np.ones((16, 3), np.float32), tmp_path / "out")
        assert [c.name for c in result.configurations] == ["all", "b4", "b8"]

    def test_fewer_samples_than_it_are_refused(self, refused, tmp_path: Path) -> None:
        path = save_model(tmp_path / "fixed.onnx", FIXED)
        text = refused(DataError, np.ones((3, 3), np.float32), path=path, batch_sizes=[4])
        assert text == "<arrays>: fewer samples than the 4 that one batch needs"

    def test_a_fixed_batch_of_one_takes_orders(self, tmp_path: Path) -> None:
        path = save_model(tmp_path / "one.onnx", IDENTITY.replace("N", "1"))
        result = study(path, X, tmp_path / "out", batch_sizes=[2], orders=2)
        check_equals_calibrate(result, tmp_path / "out", path, X)


def test_whole_feeds_have_no_batch_sizes(refused, tmp_path: Path) -> None:
    path = save_model(tmp_path / "whole.onnx", "whole (float[2, 4] x, float[3] s) => (float[2, 4] y) { y = Relu(x) }")
    feeds = {"x": np.ones((5, 2, 4), np.float32), "s": np.ones((5, 3), np.float32)}
    assert refused(DataError, feeds, path=path) == (
        "<arrays>: each sample is a whole feed of the model, whose first axis is no batch: there are no batch sizes to study"
    )


class TestRecipes:
    def test_ranges_must_follow_the_batches(self, refused) -> None:
        assert refused(SpecError, calibrator=EntropyRecipe(method="entropy", range="global")) == (
            "recipe: range: found 'global', whose ranges do not depend on batch size and order; a study needs 'doubling', TensorRT's"
        )

    def test_an_unknown_name(self, refused) -> None:
        assert "entrpy" in refused(SpecError, calibrator="entrpy")

    def test_minmax_moves_nothing(self, model: Path, tmp_path: Path) -> None:
        result = study(model, rows(1, 2, 9), tmp_path / "out", calibrator="minmax", batch_sizes=[1], orders=2)
        assert result.algorithm == "MinMaxCalibration"
        assert result.summary.score == 1
        assert {o.amax for o in tensor(result, "x").outcomes} == {9}

    def test_a_method_of_another_package(self, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        calls = []

        def method(histogram: trtcalib.Histogram, share: float) -> float:
            calls.append(histogram)
            return share * float(histogram.range)

        point = EntryPoint("share", "nowhere:method", METHODS_GROUP)
        monkeypatch.setattr(EntryPoint, "load", lambda _: method)
        monkeypatch.setattr(trtcalib.methods, "entry_points", lambda *, group: EntryPoints([point]))
        recipe = PluginRecipe(method="share", options={"share": 0.5})
        result = study(model, rows(3, 4, 4, 5), tmp_path / "out", batch_sizes=[1, 2], calibrator=recipe, workers=2)
        assert [o.amax for o in tensor(result, "x").outcomes] == [2.5, 3, 4]
        assert result.method == "share"
        # x and y are the same here but for the sign of one value: each has 3 histograms, and 3 and 4 without the last sample.
        assert result.cost.searches == len(calls)
        check_equals_calibrate(result, tmp_path / "out", model, rows(3, 4, 4, 5), calibrator=recipe)

    def test_identical_histograms_are_searched_once(self, model: Path, tmp_path: Path) -> None:
        result = study(model, rows(2, 2, 2, 2), tmp_path / "out", batch_sizes=[1, 2, 3], orders=5)
        assert len(result.configurations) == 19
        assert result.cost.searches == result.cost.distinct_ranges == result.cost.tensors == 2

    def test_a_percentile_of_few_bins(self, model: Path, tmp_path: Path) -> None:
        recipe = PercentileRecipe(method="percentile", percentile=75, bins=256)
        result = study(model, X, tmp_path / "out", batch_sizes=[1], calibrator=recipe)
        assert (result.bins, result.method) == (256, "percentile 75")


class TestValues:
    def test_nan_in_activations_is_named(self, tmp_path: Path) -> None:
        path = save_model(tmp_path / "m.onnx", "m (float[N, 4] x) => (float[N, 4] y) { y = Sqrt(x) }")
        with pytest.raises(ActivationError, match=r"^tensor 'y' at sample 1: holds NaN"):
            study(path, np.array([[1, 1, 1, 1], [1, -1, 1, 1]], np.float32), tmp_path / "out")
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize(("value", "told"), [(np.nan, "holds NaN"), (np.inf, "holds an infinite value")])
    def test_nan_and_infinity_in_inputs_are_named(self, model: Path, tmp_path: Path, value: float, told: str) -> None:
        x = X.copy()
        x[2, 1] = value
        with pytest.raises(DataError, match=rf"^<arrays>: sample 2: input 'x' {told}$"):
            study(model, x, tmp_path / "out")

    def test_scales_past_float32_are_found_in_the_reference(self, tmp_path: Path) -> None:
        path = save_model(tmp_path / "m.onnx", "m (float[N, 4] x) => (float[N, 4] y) {"
                          " huge = Constant<value_float = -inf>() y = Max(x, huge) }")  # fmt: skip
        result = study(path, X, tmp_path / "out", batch_sizes=[1])
        assert {"infinite-values", "infinite-scale"} == {finding.code for finding in result.findings}


class TestChangingData:
    """The second pass must see what the first saw."""

    def changing(self, *passes: np.ndarray):
        left = [*passes]

        def feeds():
            yield from ({"x": row[None]} for row in (left.pop(0) if len(left) > 1 else left[0]))

        return feeds

    def test_other_values(self, model: Path, tmp_path: Path) -> None:
        with pytest.raises(
            DataError, match=r"sample 1 gave other values when it was read again \(tensor 'x' reached 2\.0, then 5\.0\)"
        ):
            study(model, self.changing(rows(1, 2, 3), rows(1, 5, 3)), tmp_path / "out")
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize(("again", "count"), [(rows(1, 2), 2), (rows(1, 2, 3, 1), 4)])
    def test_another_length(self, model: Path, tmp_path: Path, again: np.ndarray, count: int) -> None:
        with pytest.raises(DataError, match=rf"the data gave 3 samples, and {count} when they were read again"):
            study(model, self.changing(X, again), tmp_path / "out")

    def test_nan_the_second_time(self, model: Path, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"reached 3\.0, then nan"):
            study(model, self.changing(X, rows(1, 2, np.nan)), tmp_path / "out")

    def test_infinity_the_second_time(self, model: Path, tmp_path: Path) -> None:
        """In the place of a small value, so that the maxima do not tell."""
        again = X.copy()
        again[1, 2] = np.inf
        with pytest.raises(DataError, match=r"sample 1: input 'x' holds an infinite value$"):
            study(model, self.changing(X, again), tmp_path / "out")


class TestOutput:
    def test_a_file_stands_there(self, model: Path, tmp_path: Path) -> None:
        (tmp_path / "out").write_text("mine")
        with pytest.raises(OutputError, match=r"out: cannot be made a folder"):
            study(model, X, tmp_path / "out")
        assert (tmp_path / "out").read_text() == "mine"

    @pytest.mark.parametrize(
        "name", ["study.json", "maxima.npz", "counts.npz", "b1-s1.cache", "all.cache.json", "b2.npz"]
    )
    def test_a_result_that_cannot_be_written_is_told_before_the_work(
        self, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
    ) -> None:
        (tmp_path / "out" / name).mkdir(parents=True)
        monkeypatch.setattr(counting.MaximaTally, "add", lambda *_: pytest.fail("ran"))
        with pytest.raises(OutputError, match=f"{name}: is a folder; expected the name of a file to write"):
            study(model, X, tmp_path / "out", batch_sizes=[1, 2], orders=2)
        assert [p.name for p in (tmp_path / "out").iterdir()] == [name]

    @pytest.mark.parametrize("name", ["all.npz", "maxima.npz", "counts.npz", "b2.npz"])
    def test_data_are_not_written_over(self, model: Path, tmp_path: Path, name: str) -> None:
        np.savez(tmp_path / name, x=X)
        before = contents(tmp_path)
        with pytest.raises(OutputError, match=f"{name}: is an input of this study: choose another folder"):
            study(model, str(tmp_path / name), tmp_path, batch_sizes=[2])
        assert contents(tmp_path) == before

    def test_a_folder_that_was_there_stays_after_a_refusal(self, model: Path, tmp_path: Path) -> None:
        (tmp_path / "out").mkdir()
        with pytest.raises(DataError):
            study(model, rows(1, np.nan), tmp_path / "out")
        assert contents(tmp_path / "out") == {}

    @pytest.mark.skipif(os.name == "nt", reason="Windows words it otherwise")
    def test_a_name_too_long_for_a_folder(self, model: Path, tmp_path: Path) -> None:
        with pytest.raises(OutputError, match=r"cannot be made a folder: File name too long$"):
            study(model, X, tmp_path / ("x" * 300))

    def test_folders_above_are_made(self, model: Path, tmp_path: Path) -> None:
        study(model, X, tmp_path / "a" / "b", batch_sizes=[1])
        assert (tmp_path / "a" / "b" / "study.json").is_file()


class TestElse:
    def test_no_model(self, refused, tmp_path: Path) -> None:
        assert refused(ModelError, path=tmp_path / "none.onnx").endswith("none.onnx: no such file")

    def test_no_data(self, refused) -> None:
        assert "no such file or folder" in refused(DataError, "none.npz")

    def test_a_tensorrt_without_calibrators(self, refused) -> None:
        assert refused(TensorRTVersionError, tensorrt_version="11.0.0").startswith("TensorRT version '11.0.0'")

    @pytest.mark.parametrize(("orders", "seed"), [(-1, 0), (1, -1)])
    def test_negative_orders_and_seeds(self, refused, orders: int, seed: int) -> None:
        assert refused(DataError, orders=orders, seed=seed) == (
            f"<arrays>: orders and seed must not be negative, got {orders} and {seed}"
        )

    def test_max_samples_must_be_positive(self, refused) -> None:
        assert "max_samples must be at least 1" in refused(DataError, max_samples=0)

    def test_empty_activations_count_nothing(self, tmp_path: Path) -> None:
        """NonZero of no positive value is empty: such samples contribute nothing, and the range starts later."""
        text = """m (float[N, 4] x) => (float[M] kept) <float nought = {0}> {
            positive = Greater(x, nought)
            kept = Compress(x, flat)
            flat = Identity(positive)
        }"""
        text = """m (float[N, 4] x) => (float[M] kept) <float nought = {0}, int64[1] row = {-1}> {
            positive = Greater(x, nought)
            mask = Reshape(positive, row)
            values = Reshape(x, row)
            kept = Compress<axis = 0>(values, mask)
        }"""
        path = save_model(tmp_path / "m.onnx", text)
        x = np.array([[-1, -2, 0, -3], [1, 0, 0, 0], [-1, 0, 0, 0], [3, 3, 0, 0]], np.float32)
        result = study(path, x, tmp_path / "out", batch_sizes=[1, 2])
        assert tensor(result, "kept").values == 3
        assert outcome(result, "kept", "b1").first_batch == 2
        assert outcome(result, "kept", "b1").without.range == 1
        check_equals_calibrate(result, tmp_path / "out", path, x)
