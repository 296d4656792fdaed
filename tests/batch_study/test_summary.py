"""A model's study in a few numbers and one sentence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.batch_study.helpers import IDENTITY, rows
from tests.models import save_model
from trtcalib.batch_study.configurations import Layout
from trtcalib.batch_study.result import Outcome, OutlierSample
from trtcalib.batch_study.study import study
from trtcalib.batch_study.summary import find_outliers, instability, moved_share, summarise
from trtcalib.core.growth import SampleMaxima

ALL = Layout("all", 16)


def moved(change: float | None) -> Outcome:
    """An outcome of which only the change counts."""
    return Outcome(
        first_maximum=1,
        first_batch=1,
        first_sample="0",
        doublings=[],
        range=1,
        wasted_bins=0,
        bin_m=None,
        amax=1,
        scale=1,
        scale_hex="3f800000",
        change=change,
        clipped=0,
        without=None,
    )


def outcomes(*changes: float | None) -> dict[str, Outcome]:
    return {f"t{n}": moved(change) for n, change in enumerate(changes)}


def summary(shares: dict[Layout, int], outliers=(), of: int = 20):
    """A study in which so many of the tensors moved by 50 % in each layout."""
    found = {layout.name: outcomes(*[0.5] * n, *[0.0] * (of - n)) for layout, n in {ALL: 0, **shares}.items()}
    return summarise([ALL, *shares], found, list(outliers))


def test_moved_means_by_more_than_one_per_cent_or_from_or_to_infinity() -> None:
    assert moved_share(outcomes(0.0, 0.01, -0.01, 0.0101, -0.5, None)) == 3 / 6
    assert moved_share({}) == 0


@pytest.mark.parametrize(
    ("scales", "reference", "expected"),
    [
        ([2.0, 3.0, 1.5], 2.0, 0.75),
        ([2.0], 2.0, 0.0),
        ([0.0, 0.0], 0.0, 0.0),
        ([0.0, 1.0], 0.0, None),
        ([None, None], None, 0.0),
        ([2.0, None], 2.0, None),
        ([None, 2.0], None, None),
    ],
)
def test_instability_is_how_far_the_scales_are_apart_over_the_references(scales, reference, expected) -> None:
    assert instability(scales, reference) == expected


class TestStableBatchSize:
    def test_one_tensor_of_twenty_may_move(self) -> None:
        assert summary({Layout("b8", 8): 1, Layout("b4", 4): 2}).stable_batch_size == 8

    def test_the_worst_order_decides(self) -> None:
        assert summary({Layout("b8", 8): 0, Layout("b8-s0", 8, 0): 2, Layout("b4", 4): 0}).stable_batch_size == 16

    def test_from_there_on_no_larger_size_moves_more(self) -> None:
        """4 moves, so that 2 does not count although it does not move."""
        sizes = {Layout("b2", 2): 0, Layout("b4", 4): 9, Layout("b8", 8): 0}
        assert summary(sizes).stable_batch_size == 8

    def test_the_smallest_where_nothing_moves(self) -> None:
        assert summary({Layout("b1", 1): 0, Layout("b8", 8): 0}).stable_batch_size == 1


class TestScore:
    def test_is_the_share_of_pairs_that_stay_the_reference_left_out(self) -> None:
        assert summary({Layout("b8", 8): 5, Layout("b4", 4): 15}).score == 0.5

    def test_without_other_configurations_nothing_moves(self) -> None:
        assert summary({}).score == 1


class TestRecommendation:
    def test_nothing_else_was_studied(self) -> None:
        assert summary({}).recommendation == (
            "Only one batch of all 16 samples was studied: name smaller batch sizes to compare it with."
        )

    def test_nothing_moves(self) -> None:
        assert summary({Layout("b1", 1): 0, Layout("b8", 8): 0}).recommendation == (
            "Any batch size will do: no scale moved by more than 1% in any of the 3 configurations."
        )

    def test_a_stable_size(self) -> None:
        assert summary({Layout("b8", 8): 0, Layout("b4", 4): 10}).recommendation == (
            "Take a batch size of 8 or more: from there on at least 95% of the tensors stay within 1% of one batch of all 16 samples, "
            "while in b4 50% of the tensors move by more than 1%, up to +50% at 't0', because the first batch's maximum decides where a "
            "range can end."
        )

    def test_only_all(self) -> None:
        """2 does not move: what is said of smaller sizes must be true of it too."""
        text = summary({Layout("b8", 8): 5, Layout("b4", 4): 10, Layout("b2", 2): 0}).recommendation
        assert text.startswith(
            "Take all 16 samples as one batch: already at a batch size of 8 more than 5% of the tensors move;"
        )
        assert "in b4 50% of the tensors move by more than 1%" in text

    def test_the_worst_of_equals_is_the_smaller_size(self) -> None:
        assert "in b4 50% of" in summary({Layout("b8", 8): 10, Layout("b4", 4): 10}).recommendation

    def test_an_outlier_of_several_tensors_is_named(self) -> None:
        outlier = OutlierSample(sample="img-7.png", tensors=12, stretch=3.26, examples=["t0"])
        text = summary({Layout("b8", 8): 5}, [outlier]).recommendation
        assert text.endswith("; and look at sample img-7.png, which alone stretches 12 tensors, up to 3.26 x.")
        endless = outlier.model_copy(update={"stretch": None})
        assert summary({Layout("b8", 8): 5}, [endless]).recommendation.endswith("which alone stretches 12 tensors.")

    def test_an_outlier_of_one_tensor_is_not(self) -> None:
        outlier = OutlierSample(sample="img-7.png", tensors=1, stretch=3.26, examples=["t0"])
        assert "img-7" not in summary({Layout("b8", 8): 5}, [outlier]).recommendation

    def test_a_long_name_does_not_make_a_long_sentence(self) -> None:
        name = "conv" * 2500
        found = {"all": {name: moved(0.0)}, "b8": {name: moved(0.5)}}
        text = summarise([ALL, Layout("b8", 8)], found, []).recommendation
        assert "up to +50% at 'conv" in text
        assert len(text) < 500

    def test_changes_that_no_number_tells_leave_out_the_largest(self) -> None:
        found = {"all": outcomes(0.0), "b8": outcomes(None)}
        text = summarise([ALL, Layout("b8", 8)], found, []).recommendation
        assert "in b8 100% of the tensors move by more than 1%, because" in text


class TestOutliers:
    def find(self, maxima: list[list[float]]) -> list[OutlierSample]:
        table = np.array(maxima, np.float32)
        samples = SampleMaxima(table, np.ones(table.shape, np.int64))
        rest = samples.without(samples.largest).maxima.max(axis=0)
        names = [f"t{t}" for t in range(table.shape[1])]
        return find_outliers(names, [f"s{n}" for n in range(len(table))], samples, rest)

    def test_a_quarter_more_than_the_next_sample_stretches(self) -> None:
        assert self.find([[4, 4], [5, 4.9]]) == [OutlierSample(sample="s1", tensors=1, stretch=1.25, examples=["t0"])]

    def test_ranked_by_tensors_then_by_how_much(self) -> None:
        found = self.find([[1, 1, 1, 1, 1], [2, 3, 1, 1, 1], [1, 1, 9, 1, 1], [1, 1, 1, 0, 99]])
        assert [(o.sample, o.tensors, o.stretch, o.examples) for o in found] == [
            ("s1", 2, 3, ["t1", "t0"]),
            ("s3", 1, 99, ["t4"]),
            ("s2", 1, 9, ["t2"]),
        ]

    def test_zero_in_all_others_is_the_largest_stretch_of_all(self) -> None:
        found = self.find([[0, 1], [3, 1], [0, 50]])
        assert [(o.sample, o.stretch) for o in found] == [("s1", None), ("s2", 50)]

    def test_a_factor_past_float32_is_a_number_all_the_same(self) -> None:
        assert self.find([[2.0**-149], [2.0**127]])[0].stretch == 2.0**276

    def test_tensors_of_zeros_and_ties_have_none(self) -> None:
        assert self.find([[0, 7], [0, 7]]) == []

    def test_at_most_five_examples_and_a_hundred_samples(self) -> None:
        assert len(self.find([[1] * 8, [2, 3, 4, 5, 6, 7, 8, 9]])[0].examples) == 5
        table = np.ones((150, 150)) + 4 * np.eye(150)
        found = self.find(table.tolist())
        assert len(found) == 150
        assert len(summary({Layout("b8", 8): 1}, found).outliers) == 100


class TestWhole:
    def study(self, tmp_path: Path, x: np.ndarray, **options):
        return study(save_model(tmp_path / "m.onnx", IDENTITY), x, tmp_path / "out", **options)

    def test_equal_samples_never_move(self, tmp_path: Path) -> None:
        result = self.study(tmp_path, rows(*[2.0] * 6), batch_sizes=[1, 3], orders=2)
        assert result.summary.score == 1
        assert result.summary.stable_batch_size == 1
        assert result.summary.recommendation.startswith("Any batch size will do")
        assert list(result.histograms) == ["all"]

    def test_an_outlier_stretches_both_tensors(self, tmp_path: Path) -> None:
        result = self.study(tmp_path, rows(1, 1.1, 1, 40, 1, 1), batch_sizes=[1, 3])
        assert [(o.sample, o.tensors, sorted(o.examples)) for o in result.summary.outliers] == [("3", 2, ["x", "y"])]
        assert result.summary.outliers[0].stretch == pytest.approx(40 / 1.1)
        assert "look at sample 3, which alone stretches 2 tensors, up to 36.4 x" in result.summary.recommendation
