"""Two variants on the same samples: the difference is judged in pairs, and a journal gives back the same bits."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from trtcalib.core.bootstrap import mean_interval, pooled_ratio
from trtcalib.core.intervals import wilson
from trtcalib.judging.judge import Judged
from trtcalib.judging.metrics import Agreement, Cosine, Sqnr, Top
from trtcalib.judging.paired import Scored, gain, gain_interval

TOP1 = Top(1, "y")


def judged(scores: NDArray[np.float64], reference: NDArray[np.float64] | None = None) -> Judged:
    """Samples with these scores, of one output without noise."""
    compared = np.zeros((scores.size, 1, 6))
    compared[:, 0, 0] = 1
    return Judged(
        outputs=("y",),
        reference_scores=np.ones(scores.size) if reference is None else reference,
        scores=scores,
        compared=compared,
    )


def noisy(noise: list[float], signal: list[float]) -> Judged:
    """Samples of two outputs, the first without noise."""
    compared = np.zeros((len(noise), 2, 6))
    compared[:, :, 0] = np.array(signal)[:, None]
    compared[:, 1, 1] = noise
    nothing = np.full(len(noise), np.nan)
    return Judged(outputs=("x", "y"), reference_scores=nothing, scores=nothing, compared=compared)


def test_shares_by_hand() -> None:
    """Of 10 samples the one is right on 9, the other on 7 of these: Newcombe's interval of (7, 2, 0, 1)."""
    better = Scored.of(judged(np.array([1.0] * 9 + [0])), TOP1)
    worse = Scored.of(judged(np.array([1.0] * 7 + [0] * 3)), TOP1)
    assert gain(worse, better) == pytest.approx(0.2)
    found = gain_interval(worse, better, TOP1)
    assert found.low < 0
    assert found.high > 0.2
    turned = gain_interval(better, worse, TOP1)
    assert (turned.low, turned.high) == pytest.approx((-found.high, -found.low))


def test_shares_whose_own_intervals_overlap_are_told_apart_in_pairs() -> None:
    right = np.repeat([1.0, 0.0], [150, 50])
    fewer = np.repeat([0.0, 1.0, 0.0], [8, 142, 50])
    better, worse = (Scored.of(judged(scores), TOP1) for scores in (right, fewer))
    assert wilson(150, 200).low < wilson(142, 200).high
    assert gain_interval(worse, better, TOP1).low > 0


def test_means_whose_own_intervals_overlap_are_told_apart_in_pairs() -> None:
    spread = np.linspace(0, 1, 50)
    metric = Cosine()
    better, worse = Scored.of(judged(spread), metric), Scored.of(judged(spread - 0.01), metric)
    assert mean_interval(spread).low < mean_interval(spread - 0.01).high
    found = gain_interval(worse, better, metric)
    assert (found.low, found.high) == pytest.approx((0.01, 0.01))
    assert gain(worse, better) == pytest.approx(0.01)


def test_pooled_ratios_are_of_the_worst_output_and_told_apart_in_pairs() -> None:
    signal = list(np.geomspace(1, 1000, 60))
    more = [0.011 * s for s in signal]
    less = [0.010 * s for s in signal]
    better, worse = Scored.of(noisy(less, signal), Sqnr()), Scored.of(noisy(more, signal), Sqnr())
    assert better.noise == pytest.approx(0.01) == better.judgement.loss
    found = gain_interval(worse, better, Sqnr())
    assert (found.low, found.high) == pytest.approx((0.001, 0.001))
    assert gain(worse, better) == pytest.approx(0.001)


def test_noise_without_signal_is_equal_to_itself() -> None:
    endless = Scored.of(noisy([1.0] * 5, [0.0] * 5), Sqnr())
    assert gain_interval(endless, endless, Sqnr()).holds(0)
    assert gain(endless, endless) == 0


def test_of_one_sample_nothing_is_known() -> None:
    one = Scored.of(judged(np.array([0.5])), Agreement("y"))
    assert gain_interval(one, one, Agreement("y")).holds(1e9)


scores = arrays(np.float64, st.integers(1, 30), elements=st.floats(-1, 1))


@given(scores)
def test_a_journal_gives_back_the_same_bits(values: NDArray[np.float64]) -> None:
    scored = Scored.of(judged(values), Agreement("y"))
    noted = json.loads(json.dumps(scored.as_json()))
    again = Scored.from_json(noted, values.size)
    assert again is not None
    assert (again.judgement, again.noise) == (scored.judgement, scored.noise)
    assert again.samples.tobytes() == scored.samples.tobytes()


@given(scores, scores)
def test_a_gain_lies_in_its_interval_and_turns_its_sign(a: NDArray[np.float64], b: NDArray[np.float64]) -> None:
    n = min(a.size, b.size)
    metric = Agreement("y")
    first, second = Scored.of(judged(a[:n]), metric), Scored.of(judged(b[:n]), metric)
    found = gain_interval(first, second, metric)
    assert found.low - 1e-9 <= gain(first, second) <= found.high + 1e-9
    assert gain(second, first) == -gain(first, second)


@pytest.mark.parametrize(
    "change",
    [
        {"samples": "AAAA"},
        {"samples": "x"},
        {"samples": None},
        {"rows": 2},
        {"rows": "many"},
        {"rows": -1},
        {"noise": "much"},
        {"judgement": {}},
    ],
)
def test_what_is_damaged_is_none(change: dict[str, object]) -> None:
    noted = Scored.of(judged(np.ones(4)), TOP1).as_json()
    assert Scored.from_json(noted, 4) is not None
    assert Scored.from_json({**noted, **change}, 4) is None


@pytest.mark.parametrize("noted", [None, 7, [], "x", {}])
def test_what_was_never_noted_is_none(noted: object) -> None:
    assert Scored.from_json(noted, 4) is None


def test_other_samples_are_none() -> None:
    assert Scored.from_json(Scored.of(judged(np.ones(4)), TOP1).as_json(), 5) is None


def test_the_noise_pools_all_samples() -> None:
    noise, signal = [1.0, 3.0], [10.0, 30.0]
    assert Scored.of(noisy(noise, signal), Sqnr("y")).noise == pooled_ratio(noise, signal) == 0.1
