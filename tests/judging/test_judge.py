"""Outputs beside FP32's, sample by sample: laws, literals, a slow loop, and who gets which label."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tests.models import save_model
from trtcalib.accuracy.task import Task, open_task
from trtcalib.batches import Batching, Run
from trtcalib.errors import DataError, MetricError
from trtcalib.judging.judge import (
    COSINE,
    LARGEST,
    NOISE,
    ROWS,
    SAME,
    SIGNAL,
    Judged,
    ModelRunner,
    compare_outputs,
    judge,
    single_samples,
)
from trtcalib.onnx_graph import read_model

DOUBLE = "d (float[N,2] x) => (float[N,2] y, float[N,2] z) { y = Add(x, x) z = Neg(x) }"

PAIRS = "p (float[2,2] x) => (float[2,2] y) { y = Identity(x) }"

FLOATS = st.floats(-1000, 1000, width=32)

SHAPES = hnp.array_shapes(min_dims=0, max_dims=3, min_side=1, max_side=5)


def arrays(shape: Any = SHAPES) -> st.SearchStrategy[np.ndarray]:
    return hnp.arrays(np.float32, shape, elements=FLOATS)


def pairs() -> st.SearchStrategy[tuple[np.ndarray, np.ndarray]]:
    return SHAPES.flatmap(lambda shape: st.tuples(arrays(shape), arrays(shape)))


class TestComparison:
    """compare_outputs."""

    def test_a_row_by_hand(self) -> None:
        found = compare_outputs(np.array([[3, 4]], np.float32), np.array([[3, 5]], np.float32))
        assert found.tolist() == [25, 1, pytest.approx(29 / (5 * math.sqrt(34))), 1, 1, 1]

    @given(pair=pairs())
    def test_a_slow_loop_finds_the_same(self, pair: tuple[np.ndarray, np.ndarray]) -> None:
        expected, found = pair
        a, b = ([float(v) for v in array.ravel()] for array in pair)
        result = compare_outputs(expected, found)
        assert result[SIGNAL] == pytest.approx(math.fsum(v * v for v in a))
        assert result[NOISE] == pytest.approx(math.fsum((v - w) ** 2 for v, w in zip(a, b, strict=True)))
        assert result[LARGEST] == max(abs(v - w) for v, w in zip(a, b, strict=True))
        if any(a) and any(b):
            lengths = math.sqrt(math.fsum(v * v for v in a)) * math.sqrt(math.fsum(v * v for v in b))
            assert result[COSINE] == pytest.approx(math.fsum(v * w for v, w in zip(a, b, strict=True)) / lengths)
        width = expected.shape[-1] if expected.ndim else 1
        if width == 1:
            assert (result[SAME], result[ROWS]) == (0, 0)
            return
        rows = [(a[i : i + width], b[i : i + width]) for i in range(0, len(a), width)]
        assert result[ROWS] == len(rows)
        assert result[SAME] == sum(v.index(max(v)) == w.index(max(w)) for v, w in rows)

    @given(expected=arrays())
    def test_an_output_beside_itself_has_no_noise(self, expected: np.ndarray) -> None:
        result = compare_outputs(expected, expected.copy())
        assert (result[NOISE], result[COSINE], result[LARGEST]) == (0, 1, 0)
        assert result[SAME] == result[ROWS]

    @given(pair=pairs(), exponent=st.integers(-8, 8))
    def test_a_power_of_two_scales_the_sums_alone(self, pair: tuple[np.ndarray, np.ndarray], exponent: int) -> None:
        factor = 2.0**exponent
        one, other = compare_outputs(*pair), compare_outputs(*(array.astype(np.float64) * factor for array in pair))
        assert other.tolist() == [
            one[0] * factor**2,
            one[1] * factor**2,
            pytest.approx(one[2]),
            one[3],
            one[4],
            one[5] * factor,
        ]

    @given(pair=pairs())
    def test_no_argument_is_changed_and_cosines_are_cosines(self, pair: tuple[np.ndarray, np.ndarray]) -> None:
        before = [array.tobytes() for array in pair]
        assert -1 <= compare_outputs(*pair)[COSINE] <= 1
        assert [array.tobytes() for array in pair] == before

    @pytest.mark.parametrize(
        "found",
        [[[3, np.nan]], [[3, np.inf]], [[3, 4, 0]], [[3]], [3, 4]],
        ids=["NaN", "infinity", "wider", "narrower", "another rank"],
    )
    def test_what_cannot_be_compared_is_all_noise(self, found: Any) -> None:
        result = compare_outputs(np.array([[3, 4]], np.float32), np.array(found, np.float32))
        assert result.tolist() == [25, 25, 0, 0, 1, np.inf]

    def test_a_nan_that_fp32_has_too_is_all_noise(self) -> None:
        both = np.array([[3, np.nan]], np.float32)
        assert compare_outputs(both, both).tolist() == [9, 9, 0, 0, 1, np.inf]

    def test_noise_on_nothing_but_zeros_is_one(self) -> None:
        result = compare_outputs(np.zeros((1, 2), np.float32), np.full((1, 2), np.nan, np.float32))
        assert (result[SIGNAL], result[NOISE]) == (0, 1)

    def test_infinities_that_both_have_are_left_out(self) -> None:
        expected = np.array([[-np.inf, 3, 4], [np.inf, 0, 0]], np.float32)
        found = np.array([[-np.inf, 3, 5], [np.inf, 0, 0]], np.float32)
        assert compare_outputs(expected, found).tolist() == [25, 1, pytest.approx(29 / (5 * math.sqrt(34))), 2, 2, 1]
        assert compare_outputs(expected, -found)[NOISE] == 25

    @pytest.mark.parametrize("large", [1e160, 1e308])
    def test_magnitudes_whose_squares_have_no_end_still_give_finite_sums(self, large: float) -> None:
        expected = np.array([[large, 1.0]])
        for found in (expected, expected / 2, np.array([[1.0, 1.0]])):
            for a, b in ((expected, found), (found, expected)):
                assert np.isfinite(compare_outputs(a, b)[[SIGNAL, NOISE]]).all()

    def test_integers_and_booleans_have_no_cosine(self) -> None:
        for dtype in (np.int64, np.uint8, np.bool_):
            result = compare_outputs(np.array([1, 0], dtype), np.array([1, 1], dtype))
            assert np.isnan(result[COSINE])
            assert (result[SIGNAL], result[NOISE]) == (1, 1)

    @pytest.mark.parametrize(
        ("expected", "other"),
        [(np.array(["cat"], object), np.array(["dog"], object)), ([{0: 0.5}], [{0: 0.25}])],
        ids=["texts", "a sequence"],
    )
    def test_what_holds_no_numbers_is_the_same_or_not(self, expected: Any, other: Any) -> None:
        assert compare_outputs(expected, expected)[[SIGNAL, NOISE, LARGEST]].tolist() == [0, 0, 0]
        assert compare_outputs(expected, other)[[SIGNAL, NOISE, LARGEST]].tolist() == [0, 1, np.inf]

    def test_an_output_without_elements_has_no_noise(self) -> None:
        empty = np.zeros((0, 6), np.float32)
        assert compare_outputs(empty, empty).tolist() == [0, 0, 1, 0, 0, 0]
        assert compare_outputs(empty, np.zeros((2, 6), np.float32))[NOISE] == 1


def judged(folder: Path, text: str, data: Any, **choices: Any) -> Judged:
    """Judge a model beside itself."""
    opened = open_task(Task(model=save_model(folder / "model.onnx", text), data=data, **choices))
    (found,) = judge(
        ModelRunner(opened.graph), [ModelRunner(opened.graph)], opened.samples, workers=choices.get("workers")
    )
    return found


def numbered(samples: int) -> np.ndarray:
    """Sample i holds i and 0."""
    return np.array([[i, 0] for i in range(samples)], np.float32)


def is_own(outputs: Any, label: Any) -> float:
    """1 where an output of one sample is that of the sample with this number."""
    assert outputs["y"].shape == (1, 2)
    return float(outputs["y"][0, 0] in (label, 2 * label))


class TestLabels:
    """Each sample gets its own label."""

    @pytest.mark.parametrize("workers", [1, 4])
    def test_one_sample_at_a_time(self, tmp_path: Path, workers: int) -> None:
        found = judged(tmp_path, DOUBLE, numbered(30), labels=np.arange(30), metric=is_own, workers=workers)
        assert found.scores.tolist() == found.reference_scores.tolist() == [1] * 30

    @pytest.mark.parametrize(("samples", "left_out"), [(8, 0), (9, 1)])
    def test_a_fixed_batch_is_taken_apart(self, tmp_path: Path, samples: int, left_out: int) -> None:
        found = judged(tmp_path, PAIRS, numbered(samples), labels=np.arange(samples), metric=is_own)
        assert found.scores.tolist() == [1] * (samples - left_out)
        assert found.compared.shape == (samples - left_out, 1, 6)

    def test_whole_feeds_of_a_fixed_batch(self, tmp_path: Path) -> None:
        feeds = [{"x": numbered(8)[i : i + 2]} for i in range(0, 8, 2)]
        found = judged(tmp_path, PAIRS, feeds, labels=np.arange(8), metric=is_own)
        assert found.scores.tolist() == [1] * 8

    def test_only_the_first_samples(self, tmp_path: Path) -> None:
        for choices in ({"max_eval_samples": 5}, {"batching": Batching(max_samples=5)}):
            found = judged(tmp_path, DOUBLE, numbered(9), labels=np.arange(9), metric=is_own, **choices)
            assert found.scores.tolist() == [1] * 5

    def test_a_function_that_gives_more_or_fewer_samples_than_there_are_labels(self, tmp_path: Path) -> None:
        def feeds() -> Any:
            return ({"x": row[None]} for row in numbered(5))

        assert judged(tmp_path, DOUBLE, feeds, labels=np.arange(5), metric=is_own).scores.tolist() == [1] * 5
        with pytest.raises(DataError, match="found 4 labels, and the data give more samples"):
            judged(tmp_path, DOUBLE, feeds, labels=np.arange(4), metric=is_own)
        with pytest.raises(DataError, match="found 6 labels for the 5 samples of the data"):
            judged(tmp_path, DOUBLE, feeds, labels=np.arange(6), metric=is_own)


def test_the_number_of_workers_changes_no_bit(tmp_path: Path) -> None:
    data = np.random.default_rng(0).normal(size=(50, 2)).astype(np.float32)
    one, four = (judged(tmp_path, DOUBLE, data, metric="cosine", workers=workers) for workers in (1, 4))
    assert one.outputs == four.outputs == ("y", "z")
    for name in ("reference_scores", "scores", "compared"):
        assert getattr(one, name).tobytes() == getattr(four, name).tobytes()


def test_variants_are_judged_side_by_side_in_one_pass(tmp_path: Path) -> None:
    reference = ModelRunner(read_model(save_model(tmp_path / "model.onnx", DOUBLE)))
    other = ModelRunner(read_model(save_model(tmp_path / "other.onnx", DOUBLE.replace("Add(x, x)", "Identity(x)"))))
    opened = open_task(Task(model=tmp_path / "model.onnx", data=numbered(4), metric="sqnr"))
    told: list[tuple[int, int | None]] = []
    same, half = judge(
        reference,
        [reference, other],
        opened.samples,
        workers=2,
        progress=lambda done, total: told.append((done, total)),
    )
    assert same.compared[:, :, NOISE].sum() == 0
    # y = 2x: the signal is 4 i^2 and the noise i^2.
    assert half.compared[:, 0, SIGNAL].tolist() == [0, 4, 16, 36]
    assert half.compared[:, 0, NOISE].tolist() == [0, 1, 4, 9]
    assert half.compared[:, 1, NOISE].sum() == 0
    assert np.isnan(half.scores).all()
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_an_output_that_does_not_count_the_samples_is_refused() -> None:
    run = Run(0, 2, "0 to 1", dict)
    assert list(single_samples({"y": np.array([[1], [2]])}, run)) == [{"y": [[1]]}, {"y": [[2]]}]
    for odd, shape in ((np.zeros((3, 4)), r"\[3, 4\]"), (np.zeros(()), r"\[\]"), (["a sequence"], r"\[\]")):
        with pytest.raises(DataError, match=f"output 'y' has shape {shape}: the model runs 2 samples at a time"):
            list(single_samples({"y": odd}, run))  # type: ignore[dict-item]


def test_an_error_names_the_sample_within_a_fixed_batch(tmp_path: Path) -> None:
    def third(outputs: Any, label: Any) -> float:
        if label == 3:
            raise KeyError("boxes")
        return 1.0

    with pytest.raises(MetricError, match="number 1 raised KeyError: 'boxes'") as raised:
        judged(tmp_path, PAIRS, numbered(6), labels=np.arange(6), metric=third)
    assert "in third" in str(raised.value)
    assert raised.value.sample == "2 to 3, number 1"


@pytest.mark.parametrize("score", [1e300, -1e300])
def test_scores_that_cannot_be_summed_are_refused(tmp_path: Path, score: float) -> None:
    metric: Callable[..., float] = lambda outputs, label: score  # noqa: E731 - a name of its own is not needed
    with pytest.raises(MetricError, match=r"expected a magnitude of at most 1e\+290"):
        judged(tmp_path, DOUBLE, numbered(3), metric=metric)


def test_float32_is_scored_once_for_all_variants(tmp_path: Path) -> None:
    save_model(tmp_path / "model.onnx", "g (float[N,4] x) => (float[N,4] y) { y = Identity(x) }")
    asked: list[int] = []

    def count(outputs: Any, label: Any) -> float:
        asked.append(1)
        return 1.0

    data = {"x": np.ones((5, 4), np.float32)}
    opened = open_task(Task(model=tmp_path / "model.onnx", data=data, metric=count))
    runner = ModelRunner(opened.graph)
    judged = judge(runner, [runner] * 3, opened.samples, workers=1)
    assert len(asked) == 5 * (1 + 3)
    assert [list(each.reference_scores) for each in judged] == [[1.0] * 5] * 3


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_judged_sample_that_is_not_finite_is_refused_by_name(tmp_path: Path, value: float) -> None:
    save_model(tmp_path / "model.onnx", "g (float[N,4] x) => (float[N,4] y) { y = Identity(x) }")
    data = {"x": np.ones((5, 4), np.float32)}
    data["x"][3, 1] = value
    opened = open_task(Task(model=tmp_path / "model.onnx", data=data))
    runner = ModelRunner(opened.graph)
    with pytest.raises(DataError, match="sample 3: input 'x' holds NaN or an infinite value"):
        judge(runner, [runner], opened.samples)
