"""Why a scale is what it is: numbers worked out by hand, and the counterfactual against a calibration without the sample."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.batch_study.helpers import IDENTITY, ZOO, outcome, rows, tensor
from tests.models import save_model
from trtcalib.batch_study.outcomes import change, json_number
from trtcalib.batch_study.result import Doubling, Study
from trtcalib.batch_study.study import study
from trtcalib.core.entropy import entropy_clip
from trtcalib.core.histogram import clipped_share, collect_histogram
from trtcalib.core.percentile import percentile_amax
from trtcalib.core.scale import scale_from_amax


@pytest.fixture
def run(tmp_path: Path):
    """Study a model on some samples."""

    def go(x: np.ndarray, sizes=(1,), model: str = IDENTITY, **options) -> Study:
        path = save_model(tmp_path / "model.onnx", model)
        return study(path, x, tmp_path / "out", batch_sizes=[*sizes], **options)

    return go


class TestGrowth:
    def test_1_54_then_2_4_gives_3_08(self, run) -> None:
        found = outcome(run(rows(1.54, 2.4)), "x", "b1")
        assert found.range == 2 * float(np.float32(1.54))
        assert found.first_maximum == float(np.float32(1.54))
        assert (found.first_batch, found.first_sample) == (1, "0")
        assert found.doublings == [Doubling(batch=2, times=1, sample="1", maximum=float(np.float32(2.4)), alone=True)]

    def test_each_batch_that_doubles_is_listed_with_how_often(self, run) -> None:
        """1, then 7 (8: three doublings), 8 (none), 9 (16), 100 (128: three)."""
        found = outcome(run(rows(1, 7, 8, 9, 100)), "x", "b1")
        assert [(d.batch, d.times, d.sample, d.maximum, d.alone) for d in found.doublings] == [
            (2, 3, "1", 7, False),  # 8, 9 and 100 exceed 1 as well
            (4, 1, "3", 9, False),  # 100 exceeds 8 as well
            (5, 3, "4", 100, True),
        ]
        assert found.range == 128

    def test_batches_are_counted_in_the_orders_own_sequence(self, run) -> None:
        result = run(rows(1, 1, 1, 1, 1, 100), orders=3, seed=4)
        for seed in (4, 5, 6):
            order = np.random.Generator(np.random.PCG64(seed)).permutation(6).tolist()
            found = outcome(result, "x", f"b1-s{seed}")
            if order[0] == 5:
                assert (found.doublings, found.first_sample, found.first_maximum) == ([], "5", 100)
                continue
            assert [(d.batch, d.sample) for d in found.doublings] == [(order.index(5) + 1, "5")]
            assert found.first_sample == str(order[0])

    def test_a_late_tensor_starts_at_the_batch_that_is_not_zero(self, run) -> None:
        """late = max(x - 5, 0): zero up to sample 4, then 1, then 3."""
        x = np.zeros((8, 6), np.float32)
        x[:, 0] = [1, 2, 3, 5, 0, 6, 2, 8]
        result = run(x, sizes=[2, 1], model=ZOO)
        found = outcome(result, "late", "b2")
        assert (found.first_batch, found.first_sample, found.first_maximum) == (3, "5", 1)
        assert [(d.batch, d.times, d.sample, d.alone) for d in found.doublings] == [(4, 2, "7", True)]
        assert outcome(result, "late", "b1").first_batch == 6
        assert outcome(result, "late", "all").first_batch == 1

    def test_a_tensor_of_zeros_has_no_first_batch_and_scale_0(self, run) -> None:
        result = run(np.ones((2, 6), np.float32), model=ZOO)
        for name in ("all", "b1"):
            found = outcome(result, "zero", name)
            assert (found.first_batch, found.first_sample, found.first_maximum) == (0, None, 0)
            assert (found.scale, found.scale_hex, found.change, found.clipped) == (0, "0", 0, 0)
            assert (found.range, found.wasted_bins, found.without) == (0, 0, None)
        assert tensor(result, "zero").instability == 0


class TestBins:
    def test_wasted_bins_lie_wholly_above_the_maximum(self, run) -> None:
        """Range 2 * 4 = 8; the maximum 5 is in bin 1280 (5 * 2048 / 8), so 767 of 2048 bins lie above it."""
        result = run(rows(4, 5))
        assert outcome(result, "x", "b1").wasted_bins == 2047 - 1280
        assert outcome(result, "x", "all").wasted_bins == 0

    def test_a_maximum_at_the_end_of_the_range_wastes_none(self, run) -> None:
        assert outcome(run(rows(4, 8)), "x", "b1").wasted_bins == 0

    def test_clipped_is_the_share_of_values_in_bins_at_or_above_amax(self, run) -> None:
        """Percentile 50 of 8 values: the bins from amax on hold those above the median."""
        x = np.array([[1, 2, 3, 4], [5, 6, 7, 8]], np.float32)
        found = outcome(run(x, calibrator="percentile-50"), "x", "all")
        above = np.ceil(found.amax / 8 * 2048)
        index = np.minimum(x * 2048 / 8, 2047).astype(int)
        assert found.clipped == (index >= above).sum() / 8
        assert 0.25 <= found.clipped <= 0.5

    @pytest.mark.parametrize("recipe", ["entropy", "minmax", "percentile-60"])
    def test_a_range_past_float32_is_null_and_the_rest_is_told(self, run, recipe: str) -> None:
        """1.4e38 doubles past float32 at 3.3e38; nothing lies beyond an amax that is infinite too."""
        x = np.array([[1.4e38, 1, 2, 3], [3.3e38, 0, 0, 0]], np.float32)
        result = run(x, calibrator=recipe)
        found = outcome(result, "x", "b1")
        assert found.range is None
        assert found.doublings[0].times == 2
        exact = 4 * float(np.float32(1.4e38))
        assert found.wasted_bins == 2047 - int(float(np.float32(3.3e38)) * 2048 / exact)
        histogram = collect_histogram([x[:1], x[1:]])
        if found.amax is None:
            assert (found.scale_hex, found.scale, found.clipped) == ("7f800000", None, 0)
            assert found.change is None
        else:
            first = int(np.ceil(found.amax / exact * 2048))
            assert found.clipped == histogram.counts[first:].sum() / 8
        assert tensor(result, "x").maximum == float(np.float32(3.3e38))


def test_the_clipped_share_follows_the_exact_range_past_float32() -> None:
    histogram = collect_histogram([[1.5 * 2.0**126, 2.0], [1.25 * 2.0**127], [3 * 2.0**126 * 1.125]])
    assert np.isinf(histogram.range)
    assert histogram.exact_range == 1.5 * 2.0**128
    assert clipped_share(histogram, np.float32(np.inf)) == 0
    # 1.25 * 2**127 is 0.4167 and 1.6875 * 2**127 is 0.5625 of the range.
    assert clipped_share(histogram, np.float32(1.5 * 2.0**127)) == 1 / 4
    assert clipped_share(histogram, np.float32(2.0**127)) == 2 / 4


class TestChange:
    def test_is_relative_to_all_in_one_batch(self, run) -> None:
        result = run(rows(1.54, 2.4))
        b1, all_ = outcome(result, "x", "b1"), outcome(result, "x", "all")
        assert all_.change == 0
        assert b1.change == b1.scale / all_.scale - 1
        assert tensor(result, "x").instability == abs(b1.scale - all_.scale) / all_.scale
        assert tensor(result, "x").scale == all_.scale
        assert tensor(result, "x").scale_hex == all_.scale_hex

    def test_literals(self) -> None:
        assert change(np.float32(3), np.float32(2)) == 0.5
        assert change(np.float32(0), np.float32(0)) == 0
        assert change(np.float32(np.inf), np.float32(np.inf)) == 0
        assert change(np.float32(1), np.float32(0)) is None
        assert change(np.float32(np.inf), np.float32(1)) is None
        assert change(np.float32(1), np.float32(np.inf)) is None
        assert change(np.float32(0), np.float32(2)) == -1
        assert json_number(np.float32(0.5)) == 0.5
        assert json_number(np.float32(np.inf)) is None
        assert json_number(float("nan")) is None

    def test_a_view_of_a_pool_changes_against_its_own_scale_in_the_reference(self, run) -> None:
        """The pool's output carries grid's scale, and flat, a view of it, its own."""
        x = np.random.default_rng(2).normal(size=(9, 6)).astype(np.float32)
        result = run(x, sizes=[9, 8, 2], model=ZOO, calibrator="minmax")
        assert result.configurations[0].moved == 0
        assert tensor(result, "flat").scale != tensor(result, "pooled").scale
        assert [c.moved for c in result.configurations] == [0, 0, 0]
        assert result.summary.score == 1
        assert [o.change for o in tensor(result, "flat").outcomes] == [0, 0, 0]
        assert tensor(result, "flat").outcomes[0].scale == tensor(result, "flat").scale
        assert tensor(result, "pooled").outcomes == []
        assert tensor(result, "grid").outcomes == []


@st.composite
def few_samples(draw: st.DrawFn) -> np.ndarray:
    value = st.sampled_from([0.0, 0.75, 1.5, 3.0, 6.0, 12.0, 0.3]) | st.floats(0, 20, width=32)
    return np.array(draw(st.lists(st.lists(value, min_size=4, max_size=4), min_size=2, max_size=7)), np.float32)


@pytest.fixture(scope="module")
def identity(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("identity") / "model.onnx", IDENTITY)


def check_without(result: Study, x: np.ndarray, clip) -> None:
    """What is told of x without its largest sample is what its batches without that sample give."""
    tops = x.max(axis=1).tolist()
    largest = tops.index(max(tops))
    alone = tops.count(max(tops)) == 1
    told = tensor(result, "x")
    assert told.maximum_sample == str(largest)
    assert told.next_maximum == max(tops[:largest] + tops[largest + 1 :])
    for configuration, found in zip(result.configurations, told.outcomes, strict=True):
        order = np.arange(len(x))
        if configuration.shuffle is not None:
            order = np.random.Generator(np.random.PCG64(configuration.shuffle)).permutation(len(x))
        batches = [order[i : i + configuration.batch_size] for i in range(0, len(x), configuration.batch_size)]
        expected = collect_histogram([x[batch[batch != largest]] for batch in batches])
        full = collect_histogram([x[batch] for batch in batches])
        assert found.scale == float(scale_from_amax(clip(full)[0]))
        if not alone or expected.range == full.range:
            assert found.without is None
            continue
        amax, bin_m = clip(expected)
        assert found.without is not None
        scale = float(scale_from_amax(amax))
        assert found.without.sample == str(largest)
        assert found.without.range == expected.range
        assert found.without.doublings == expected.doublings
        assert found.without.scale == scale
        assert found.without.change == scale / found.scale - 1
        if expected.range:
            assert found.without.bin_m == bin_m


class TestWithout:
    @settings(max_examples=40)
    @given(x=few_samples(), size=st.integers(1, 6))
    def test_is_a_calibration_without_that_sample_in_its_batch(
        self, identity: Path, tmp_path_factory: pytest.TempPathFactory, x: np.ndarray, size: int
    ) -> None:
        folder = tmp_path_factory.mktemp("out")
        check_without(study(identity, x, folder, batch_sizes=[size], orders=1), x, entropy_clip)

    def test_is_not_taken_for_the_same_range_with_that_sample_in_another_order(self, run) -> None:
        """5 first leaves 1.5 doubled to 6 behind; and so does 1.5 first, with the 5 among the values: other percentiles."""
        x = np.array([[5, 4, 4, 4], [1.5, 1, 1, 1], [4, 1, 1, 1]], np.float32)
        result = run(x, orders=12, calibrator="percentile-60", workers=1)
        starts = {o.first_maximum for o in tensor(result, "x").outcomes[1:]}
        assert starts == {5, 1.5, 4}
        check_without(result, x, lambda histogram: (percentile_amax(histogram, 60), None))

    def test_its_maximum_is_that_of_the_others(self, run) -> None:
        found = outcome(run(rows(1, 5), calibrator="minmax"), "x", "b1")
        assert found.without.scale == float(np.float32(1) / np.float32(127))
        assert found.without.change == pytest.approx(-0.8)

    def test_a_shared_maximum_has_no_sample_that_alone_holds_it(self, run) -> None:
        result = run(rows(1, 5, 5))
        assert outcome(result, "x", "b1").without is None
        assert tensor(result, "x").next_maximum == 5
        assert [d.alone for d in outcome(result, "x", "b1").doublings] == [False]

    def test_a_shared_maximum_that_starts_the_range_has_none_either(self, run) -> None:
        """Without the first 5 the range would go from 1.5 to 6; but the last one holds the maximum too."""
        assert outcome(run(rows(5, 1.5, 5)), "x", "b1").without is None

    def test_one_sample_of_two_leaves_the_other(self, run) -> None:
        found = outcome(run(rows(1, 5)), "x", "b1").without
        assert (found.sample, found.range, found.doublings) == ("1", 1, 0)

    def test_data_of_one_sample_have_nothing_to_compare_with(self, run) -> None:
        result = run(rows(3))
        assert [c.name for c in result.configurations] == ["all"]
        assert tensor(result, "x").outcomes[0].without is None
        assert result.summary.outliers == []
        assert result.summary.recommendation == (
            "Only one batch of all 1 samples was studied: name smaller batch sizes to compare it with."
        )
        assert result.notes == ["batch size 1 is all samples in one batch"]


def test_with_a_fixed_batch_samples_are_runs_named_by_both_ends(run) -> None:
    model = "fixed (float[2, 4] x) => (float[2, 4] y) { y = Relu(x) }"
    found = outcome(run(rows(1, 1, 1, 9), sizes=[2], model=model), "x", "b2")
    assert found.first_sample == "0 to 1"
    assert [(d.batch, d.sample, d.alone) for d in found.doublings] == [(2, "2 to 3", True)]
    assert found.without.sample == "2 to 3"


def test_progress_counts_both_passes_together(run) -> None:
    calls = []
    run(rows(1, 2, 3), progress=lambda done, total: calls.append((done, total)), workers=2)
    assert calls == [(n, 6) for n in range(1, 7)]


def test_progress_in_a_fixed_batch_counts_samples(run) -> None:
    calls = []
    model = "fixed (float[2, 4] x) => (float[2, 4] y) { y = Relu(x) }"
    run(rows(1, 2, 3, 4, 5), sizes=[2], model=model, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(2, 8), (4, 8), (6, 8), (8, 8)]


def test_values_and_costs_are_counted(run) -> None:
    """5 samples: two passes; naively each configuration runs them all, and its first batch twice."""
    result = run(rows(1, 1, 1, 1, 3), sizes=[2, 1], orders=1)
    assert tensor(result, "x").values == 20
    cost = result.cost
    assert (cost.inferences, cost.tensors) == (10, 2)
    assert cost.naive_inferences == 5 * 5 + 5 + 2 + 2 + 1 + 1
    # Per tensor: ranges 3 and 4 (1 doubled twice), and 1 without the last sample.
    assert cost.distinct_ranges == 6
