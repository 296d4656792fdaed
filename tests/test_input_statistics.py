"""What the inputs look like: the same as a plain loop finds, whoever reads the samples and in whatever order."""

from __future__ import annotations

import math
import statistics as plain
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import trtcalib
from tests.models import DENSE, FIXED, save_model
from trtcalib.input_statistics import SAMPLES, InputStatistics, Statistics, WatchedSource
from trtcalib.onnx_graph import ModelInput
from trtcalib.samples.sources import open_source

X = (ModelInput("x", np.dtype(np.float32), (None, 3)),)


def of(*samples: np.ndarray) -> InputStatistics:
    found = Statistics()
    for position, sample in enumerate(samples):
        found.add(position, {"x": sample})
    (one,) = found.inputs()
    return one


def test_two_samples_by_hand() -> None:
    first, second = np.array([[0.0, 4.0]], np.float32), np.array([[1.5, 2.5]], np.float32)
    # mean 8 / 4; squares 0 + 16 + 2.25 + 6.25 = 24.5, 24.5 / 4 - 4 = 2.125
    assert of(first, second) == InputStatistics(
        name="x", floating=True, samples=2, values=4, minimum=0, maximum=4, mean=2, std=math.sqrt(2.125), whole=0.5
    )


def test_a_picture_of_one_value_per_channel_by_hand() -> None:
    picture = np.zeros((1, 3, 8, 8), np.float32)
    picture[:, 0], picture[:, 1, :4], picture[:, 2] = 0.5, 2, 7
    found = of(picture)
    assert (found.channels, found.channel_minima, found.channel_maxima) == (3, (0.5, 0, 7), (0.5, 2, 7))
    assert (found.channel_means, found.channel_stds) == ((0.5, 1, 7), (0, 1, 0))
    assert (found.minimum, found.maximum, found.mean, found.whole) == (0, 7, 8.5 / 3, 2 / 3)


@given(
    x=st.sampled_from([(2, 3, 8, 9), (1, 8, 8, 4), (3, 1, 8, 8), (1, 5, 8, 9), (4, 6)]).flatmap(
        lambda shape: arrays(np.float32, (2, *shape), elements=st.floats(-300, 300, width=32) | st.integers(-9, 9))
    )
)
def test_is_what_a_plain_loop_finds(x) -> None:
    found = of(*x)
    values = [float(v) for v in x.ravel()]
    check((found.minimum, found.maximum, found.mean, found.std), values)
    assert found.whole == sum(v == math.floor(v) for v in values) / len(values)
    axis = {(3, 8, 9): 2, (8, 8, 4): 4, (1, 8, 8): 2}.get(x.shape[2:])
    assert found.channels == (0 if axis is None else x.shape[axis])
    for c in range(found.channels):
        given_ = (found.channel_minima[c], found.channel_maxima[c], found.channel_means[c], found.channel_stds[c])
        check(given_, [float(v) for v in np.moveaxis(x, axis, 0)[c].ravel()])


def check(found: tuple[float, float, float, float], values: list[float]) -> None:
    assert found[:2] == (min(values), max(values))
    assert found[2:] == pytest.approx((plain.fmean(values), plain.pstdev(values)), rel=1e-9, abs=1e-4)


@given(
    x=arrays(np.float32, (9, 1, 5), elements=st.floats(-1e6, 1e6, width=32)),
    order=st.permutations([*range(9), 0, 4, 8]),
)
def test_neither_order_nor_repetition_changes_a_bit(x, order) -> None:
    before, found = x.copy(), Statistics()
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda position: found.add(position, {"x": x[position]}), order))
    assert found.inputs() == (of(*x),)
    assert np.array_equal(x, before)


def test_values_past_one_chunk_count() -> None:
    x = np.zeros((1, 3, 160, 160), np.float32)
    x[0, 1, -1, -1] = 5.5
    x[0, 2] = 1
    found = of(x)
    assert found.channel_maxima == (0, 5.5, 1)
    assert found.channel_means == (0, 5.5 / 25600, 1)
    assert found.whole == 1 - 1 / 76800


def test_only_the_first_samples_of_the_source_are_looked_at() -> None:
    found = Statistics()
    for position in (SAMPLES, SAMPLES - 1, 10**6):
        found.add(position, {"x": np.full((1, 1), position, np.float32)})
    (one,) = found.inputs()
    assert (one.samples, one.minimum, one.maximum) == (1, SAMPLES - 1, SAMPLES - 1)


def test_pictures_of_other_channels_are_no_pictures_of_one_kind() -> None:
    found = of(np.ones((1, 1, 8, 8), np.float32), np.ones((1, 3, 8, 8), np.float32))
    assert (found.channels, found.values) == (0, 256)


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.bool_])
def test_whole_types_hold_whole_numbers(dtype: type) -> None:
    found = of(np.array([[0, 1, 1, 1]], dtype))
    assert (found.floating, found.whole, found.mean) == (False, 1, 0.75)


def test_values_without_end_are_left_to_the_pass_that_refuses_them() -> None:
    found = of(np.array([np.inf, -np.inf, np.nan], np.float32), np.array([1e300, 1e300]))
    assert not math.isfinite(found.std)


def test_an_input_without_values_has_no_statistics() -> None:
    found = Statistics()
    found.add(0, {"x": np.zeros((1, 0), np.float32)})
    assert found.inputs() == ()


class TestAWatchedSource:
    def test_gives_what_the_source_gives_and_knows_the_positions_of_a_shuffled_order(self) -> None:
        data = np.arange(30, dtype=np.float32).reshape(10, 3)
        source = open_source(data, X)
        watched = WatchedSource(source)
        for wrapped, sample in zip(watched.samples([7, 2]), source.samples([7, 2]), strict=True):
            assert wrapped.label == sample.label
            assert np.array_equal(wrapped.load()["x"], sample.load()["x"])
        assert [p for p in range(10) if not watched.statistics.lacks(p)] == [2, 7]
        assert (watched.size(), watched.sha256(), watched.whole) == (10, source.sha256(), source.whole)

    def test_reads_what_is_missing_and_nothing_twice(self) -> None:
        read = []

        def rows():
            for position in range(6):
                read.append(position)
                yield {"x": np.full((1, 3), position, np.float32)}

        watched = WatchedSource(open_source(rows, X))
        samples = list(watched.samples(None))
        samples[1].load()
        watched.read_missing(4)
        assert watched.statistics.inputs()[0].maximum == 3
        assert read == [*range(6), *range(4)]
        watched.read_missing(4)
        assert len(read) == 10


class TestInACalibration:
    DATA = np.random.default_rng(2).normal(size=(300, 3)).astype(np.float32)

    def test_they_depend_neither_on_workers_nor_on_order_and_batches(self, tmp_path) -> None:
        model = save_model(tmp_path / "model.onnx", DENSE)
        one = trtcalib.calibrate(model, self.DATA, workers=1, batch_size=7).inputs
        assert one == trtcalib.calibrate(model, self.DATA, workers=3, shuffle=5).inputs
        assert (one[0].name, one[0].samples, one[0].values) == ("x", SAMPLES, 3 * SAMPLES)

    def test_rows_of_a_fixed_batch_are_samples(self, tmp_path) -> None:
        model = save_model(tmp_path / "model.onnx", FIXED)
        (found,) = trtcalib.calibrate(model, self.DATA[:11]).inputs
        assert found.samples == 8  # three rows fill no batch

    def test_a_function_is_called_no_more_often_for_them(self, tmp_path) -> None:
        calls = []

        def rows():
            calls.append(1)
            yield from ({"x": row[np.newaxis]} for row in self.DATA)

        trtcalib.calibrate(save_model(tmp_path / "model.onnx", DENSE), rows)
        assert len(calls) == 2  # the first batch, and all
