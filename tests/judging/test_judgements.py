"""What judged samples say, by hand and held against plain loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trtcalib.core.intervals import Interval
from trtcalib.judging.judge import Judged
from trtcalib.judging.judgements import as_range, decibels, judgement, plain_loss, reference_score
from trtcalib.judging.metrics import Agreement, Cosine, Function, Metric, Sqnr, Top


def judged(
    reference: list[float], found: list[float], *columns: list[list[float]], names: tuple[str, ...] = ("y",)
) -> Judged:
    """Scores, and per output and sample signal, noise, cosine, same, rows, largest difference."""
    compared = np.array(columns or [[[4.0, 1.0, 0.5, 1, 1, 1]] * len(reference)]).transpose(1, 0, 2)
    return Judged(outputs=names, reference_scores=np.array(reference), scores=np.array(found), compared=compared)


def sums(signal: float, noise: float, cosine: float = 0.5) -> list[float]:
    return [signal, noise, cosine, 1, 2, 0.25]


def test_a_share_by_hand() -> None:
    """4 of 5 against 2 of 5: two samples right with FP32 only, none with the variant only; McNemar: 2 * (1/2)^2."""
    samples = judged([1, 1, 1, 1, 0], [1, 0, 0, 1, 0])
    metric = Top(1, "y")
    assert reference_score(samples, metric).value == 0.8
    found = judgement(samples, metric)
    assert (found.value, found.loss) == (0.4, pytest.approx(0.4))
    assert found.p_value == 0.5
    low, high = wilson_by_hand(2, 5)
    assert found.interval is not None
    assert (found.interval.low, found.interval.high) == (pytest.approx(low), pytest.approx(high))
    assert found.loss_interval is not None
    assert found.loss_interval.low < 0
    assert found.loss_interval.high > 0.4
    assert plain_loss(samples, metric) == pytest.approx(found.loss)


def wilson_by_hand(right: int, n: int) -> tuple[float, float]:
    z, p = 1.959963984540054, right / n
    middle, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return (middle - half) / (1 + z * z / n), (middle + half) / (1 + z * z / n)


@pytest.mark.parametrize("metric", [Cosine(), Agreement("y"), Function(lambda outputs, label: 0)])
def test_a_mean_by_hand(metric: Metric) -> None:
    found = judgement(judged([1, 1, 1, 3], [1, 0.5, 1, 0.5]), metric)
    assert (found.value, found.loss, found.p_value) == (0.75, 0.75, None)
    assert found.loss_interval is not None
    assert found.loss_interval.low is not None
    assert 0 <= found.loss_interval.low <= 0.75


def test_noise_is_pooled_over_the_samples_and_the_worst_output_counts() -> None:
    """(0.1 + 0.3) / (10 + 30) = 0.01, which is 20 dB; (2 + 0) / (4 + 16) = 0.1, which is 10 dB."""
    first, second = [sums(10, 0.1), sums(30, 0.3)], [sums(4, 2), sums(16, 0)]
    samples = judged([np.nan] * 2, [np.nan] * 2, first, second, names=("a", "b"))
    found = judgement(samples, Sqnr())
    assert (found.value, found.loss, found.p_value) == (pytest.approx(10), pytest.approx(0.1), None)
    assert [output.sqnr_db for output in found.outputs] == [pytest.approx(20), pytest.approx(10)]
    assert [output.name for output in found.outputs] == ["a", "b"]
    assert judgement(samples, Sqnr("a")).value == pytest.approx(20)
    assert reference_score(samples, Sqnr()).value is None
    assert plain_loss(samples, Sqnr()) == pytest.approx(0.1)
    # The interval in dB is that of noise / signal, turned round.
    assert found.interval is not None
    assert found.loss_interval is not None
    assert found.interval.low is not None
    assert found.interval.low <= 10 <= (found.interval.high or math.inf)
    assert found.loss_interval.high == pytest.approx(10 ** (-found.interval.low / 10))


def test_outputs_of_integers_are_no_signal_that_is_judged() -> None:
    scores, classes = [sums(10, 0.1)] * 2, [sums(4, 4, math.nan)] * 2
    samples = judged([np.nan] * 2, [np.nan] * 2, scores, classes, names=("scores", "classes"))
    found = judgement(samples, Sqnr())
    assert found.value == pytest.approx(20)
    assert [output.cosine for output in found.outputs] == [0.5, None]
    assert "NaN" not in found.model_dump_json()


def test_no_noise_at_all_is_no_number_of_decibels() -> None:
    samples = judged([np.nan], [np.nan], [sums(10, 0)])
    found = judgement(samples, Sqnr())
    assert (found.value, found.loss, found.outputs[0].sqnr_db) == (None, 0, None)


def test_noise_without_signal_is_a_loss_that_json_can_hold() -> None:
    found = judgement(judged([np.nan], [np.nan], [sums(0, 1)]), Sqnr())
    assert found.loss == np.finfo(np.float64).max
    assert "Infinity" not in found.model_dump_json()
    assert "inf" not in found.model_dump_json().lower()


def test_each_output_s_facts_by_hand() -> None:
    columns = [[3.0, 1.0, 0.5, 1, 2, 0.5], [1.0, 0.0, 1.0, 2, 2, np.inf]]
    found = judgement(judged([1, 1], [1, 1], columns, names=("odd\udc80",)), Cosine()).outputs[0]
    assert found.name == "odd\\udc80"
    assert found.sqnr_db == pytest.approx(10 * math.log10(4))
    assert (found.cosine, found.agreement, found.largest_difference) == (0.75, 0.75, None)
    rowless = judgement(judged([1], [1], [[3.0, 1.0, 0.5, 0, 0, 0.5]]), Cosine()).outputs[0]
    assert (rowless.agreement, rowless.largest_difference) == (None, 0.5)


@given(ratio=st.floats(1e-30, 1e30))
def test_decibels_and_back(ratio: float) -> None:
    found = decibels(ratio)
    assert found is not None
    assert 10 ** (-found / 10) == pytest.approx(ratio)


def test_what_has_no_decibels() -> None:
    assert decibels(0) is None
    assert decibels(math.inf) is None
    assert decibels(0.01) == pytest.approx(20)


def test_ends_that_are_infinite_are_none() -> None:
    found = as_range(Interval(-math.inf, 3.0))
    assert (found.low, found.high) == (None, 3)


def test_a_function_that_gives_0_and_1_alone_is_judged_by_the_formulas_of_shares() -> None:
    metric = Function(lambda outputs, label: 1.0)
    ones = np.ones(20)
    judged = Judged(outputs=("y",), reference_scores=ones, scores=ones, compared=np.zeros((20, 1, 6)))
    found = judgement(judged, metric)
    # Wilson: 20 of 20 is at least 0.8389; the bootstrap would say 1 to 1.
    assert found.interval is not None
    assert found.interval.low == pytest.approx(0.8389, abs=1e-4)
    assert found.loss_interval is not None
    assert found.loss_interval.low is not None
    assert found.loss_interval.low < -0.1
    assert found.p_value == 1
    halves = Judged(outputs=("y",), reference_scores=ones / 2, scores=ones, compared=np.zeros((20, 1, 6)))
    assert judgement(halves, metric).p_value is None
