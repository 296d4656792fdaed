"""Bootstrap intervals against a plain loop over the same random words, exact distributions and the normal law."""

from __future__ import annotations

import itertools
import math
import time
import tracemalloc
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from trtcalib.core import bootstrap as module
from trtcalib.core.bootstrap import (
    BLOCK_CELLS,
    LARGEST,
    bootstrap,
    compare_means,
    mean_difference_interval,
    mean_interval,
    pooled_ratio,
    ratio_interval,
)
from trtcalib.core.intervals import Interval

Values = NDArray[np.float64]

scores = arrays(np.float64, st.integers(1, 30), elements=st.floats(-1e6, 1e6))
two_scores = st.integers(1, 30).flatmap(
    lambda n: st.tuples(*[arrays(np.float64, n, elements=st.floats(-1e6, 1e6))] * 2)
)
two_energies = st.integers(1, 30).flatmap(
    lambda n: st.tuples(*[arrays(np.float64, n, elements=st.just(0.0) | st.floats(1e-3, 1e6))] * 2)
)
confidences = st.sampled_from([0.5, 0.9, 0.95, 0.999])
seeds = st.integers(0, 2**32)


def plain_resamples(n: int, resamples: int, seed: int) -> list[list[int]]:
    """The drawn sample numbers, one at a time from the bit generator's words: its low half, then its high half."""
    bits = np.random.PCG64(seed)
    drawn = []
    for _ in range(resamples):
        halves = [half for _ in range((n + 1) // 2) for half in divmod(int(bits.random_raw()), 2**32)[::-1]]
        drawn.append([half * n // 2**32 for half in halves[:n]])
    return drawn


def plain_ends(drawn: list[Fraction], confidence: Fraction) -> tuple[Fraction, Fraction]:
    rank = max(1, math.floor((len(drawn) + 1) * (1 - confidence) / 2))
    return sorted(drawn)[rank - 1], sorted(drawn)[-rank]


@settings(max_examples=30)
@given(scores, confidences, st.integers(1, 60), seeds)
def test_mean_interval_is_what_a_plain_loop_finds(values: Values, confidence: float, resamples: int, seed: int) -> None:
    exact = [Fraction(value) for value in values.tolist()]
    n = len(exact)
    drawn = [sum(exact[i] for i in row) / Fraction(n) for row in plain_resamples(n, resamples, seed)]
    low, high = plain_ends(drawn, Fraction(str(confidence)))
    found = mean_interval(values, confidence, resamples, seed)
    mean = sum(exact) / n
    if n == 1:
        assert found == Interval(-math.inf, math.inf)
    else:
        assert (found.low, found.high) == pytest.approx((float(min(low, mean)), float(max(high, mean))), abs=1e-8)


@settings(max_examples=30)
@given(two_energies, confidences, st.integers(1, 60), seeds)
def test_ratio_interval_is_what_a_plain_loop_finds(
    pair: tuple[Values, Values], confidence: float, resamples: int, seed: int
) -> None:
    over, under = ([Fraction(value) for value in values.tolist()] for values in pair)
    n = len(over)

    def ratio(rows: list[int]) -> Fraction | float:
        top, bottom = sum(over[i] for i in rows), sum(under[i] for i in rows)
        if bottom:
            return top / bottom
        return math.inf if top else Fraction(0)

    drawn = [ratio(row) for row in plain_resamples(n, resamples, seed)] + [ratio(list(range(n)))]
    low, high = plain_ends(drawn[:-1], Fraction(str(confidence)))  # type: ignore[arg-type]  # infinity sorts among fractions
    found = ratio_interval(*pair, confidence, resamples, seed)
    expected = (0.0, math.inf) if n == 1 else (float(min(low, drawn[-1])), float(max(high, drawn[-1])))
    assert (found.low, found.high) == pytest.approx(expected, rel=1e-9)


def test_the_same_seed_gives_the_same_interval_on_every_numpy() -> None:
    """The mean of 0 to 9: the ends are whole tenths, so no rounding can hide another stream of random numbers."""
    assert mean_interval(np.arange(10)) == Interval(2.7, 6.3)
    ends = [mean_interval(np.arange(10) ** 3, seed=seed) for seed in range(5)]
    assert len(set(ends)) > 1
    assert ends == [mean_interval(np.arange(10) ** 3, seed=seed) for seed in range(5)]


@pytest.mark.parametrize(
    ("confidence", "resamples", "rank"), [(0.95, 2000, 50), (0.9, 1999, 100), (0.5, 7, 2), (0.95, 10, 1)]
)
def test_the_ends_are_the_ranks_of_the_book(confidence: float, resamples: int, rank: int) -> None:
    """floor((resamples + 1) * tail) by hand, from either end; 1 - 0.9 in binary must not lose the rank 100."""
    drawn: list[float] = []

    def statistic(weights: Values) -> Values:
        values = weights @ np.sqrt(np.arange(20.0))
        drawn.extend(values.tolist())
        return values

    found = bootstrap(statistic, 20, confidence, resamples)
    ordered = sorted(drawn[1:])
    assert ordered[0] < drawn[0] < ordered[-1]
    assert found == Interval(ordered[rank - 1], ordered[-rank])


def test_two_samples_have_the_exact_distribution() -> None:
    """0 and 1 give the means 0, 1/2, 1 with chances 1/4, 1/2, 1/4: a middle 40 % is the point 1/2, a middle 60 % is all."""
    assert mean_interval([0.0, 1.0], confidence=0.4) == Interval(0.5, 0.5)
    assert mean_interval([0.0, 1.0], confidence=0.6) == Interval(0.0, 1.0)


def test_four_samples_agree_with_all_their_resamples() -> None:
    values = [0.0, 1.0, 3.0, 9.0]
    means = sorted(sum(row) / 4 for row in itertools.product(values, repeat=4))
    found = mean_interval(values, confidence=0.8, resamples=20_000)
    assert found == Interval(means[round(0.1 * len(means))], means[round(0.9 * len(means)) - 1])


def test_many_samples_agree_with_the_normal_law() -> None:
    values = np.random.default_rng(5).exponential(size=2000)
    found = mean_interval(values, resamples=4000)
    error = float(values.std()) / math.sqrt(values.size)
    assert found.low == pytest.approx(float(values.mean()) - 1.96 * error, abs=0.25 * error)
    assert found.high == pytest.approx(float(values.mean()) + 1.96 * error, abs=0.25 * error)


@pytest.mark.parametrize(("n", "covered"), [(5, 0.83), (10, 0.91), (30, 0.92), (100, 0.94)])
def test_the_coverage_is_what_the_docstring_says(n: int, covered: float) -> None:
    generator = np.random.default_rng(n)
    held = [mean_interval(generator.normal(size=n), resamples=1000, seed=seed).holds(0.0) for seed in range(1000)]
    assert np.mean(held) == pytest.approx(covered, abs=0.04)  # three standard errors of 1000 trials


@given(scores, confidences, st.integers(1, 40), seeds)
def test_the_interval_holds_the_mean(values: Values, confidence: float, resamples: int, seed: int) -> None:
    kept = values.copy()
    found = compare_means(values, -values, confidence, resamples, seed)
    assert found.first_interval.holds(found.first)
    assert found.second_interval.holds(found.second)
    assert found.difference_interval.holds(found.difference)
    assert found.first == pytest.approx(math.fsum(values) / values.size, abs=1e-8)
    assert np.array_equal(kept, values)


@given(two_energies, confidences, st.integers(1, 40), seeds)
def test_the_interval_holds_the_ratio(pair: tuple[Values, Values], level: float, resamples: int, seed: int) -> None:
    assert ratio_interval(*pair, level, resamples, seed).holds(pooled_ratio(*pair))


@given(two_scores, seeds)
def test_the_difference_is_negated_when_the_two_change_places(pair: tuple[Values, Values], seed: int) -> None:
    one, other = compare_means(*pair, seed=seed, resamples=99), compare_means(*pair[::-1], seed=seed, resamples=99)
    assert other.difference == -one.difference
    assert other.difference_interval == Interval(-one.difference_interval.high, -one.difference_interval.low)
    assert (other.first, other.second) == (one.second, one.first)


@given(scores.map(np.rint), st.sampled_from([2.0**-20, 0.5, 4.0]), seeds)
def test_the_interval_scales_with_the_values(values: Values, factor: float, seed: int) -> None:
    once, scaled = (mean_interval(v, resamples=99, seed=seed) for v in (values, values * factor))
    assert scaled == Interval(once.low * factor, once.high * factor)


def test_compare_means_joins_the_single_intervals() -> None:
    generator = np.random.default_rng(3)
    first, second = generator.normal(size=(2, 50))
    found = compare_means(first, second, 0.9, 500, 7)
    assert found.n == 50
    assert found.difference == pytest.approx(found.first - found.second)
    for part, alone in [
        (found.first_interval, mean_interval(first, 0.9, 500, 7)),
        (found.second_interval, mean_interval(second, 0.9, 500, 7)),
        (found.difference_interval, mean_difference_interval(first, second, 0.9, 500, 7)),
    ]:
        assert (part.low, part.high) == pytest.approx((alone.low, alone.high), rel=1e-12)


def test_pairing_sees_a_small_loss_that_the_spread_of_the_scores_would_hide() -> None:
    first = np.random.default_rng(11).normal(size=200)
    second = first - np.linspace(0.009, 0.011, 200)
    found = compare_means(first, second)
    assert found.difference_interval.low > 0.0098
    assert found.first_interval.holds(found.second)


def test_a_mean_written_as_a_statistic_gives_the_same_interval() -> None:
    values = np.random.default_rng(2).normal(size=40)
    found, expected = bootstrap(lambda weights: weights @ values / 40, 40), mean_interval(values)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), rel=1e-12)


def test_every_resample_draws_n_samples_and_all_equally_often() -> None:
    blocks: list[Values] = []
    bootstrap(lambda weights: (blocks.append(weights), weights[:, 0])[1], 7, resamples=20_000)
    weights = np.concatenate(blocks[1:])
    assert np.array_equal(blocks[0], np.ones((1, 7)))
    assert weights.dtype == np.float64
    assert set(weights.sum(axis=1).tolist()) == {7.0}
    assert weights.mean(axis=0).tolist() == pytest.approx([1.0] * 7, abs=0.03)
    assert weights.var(axis=0).tolist() == pytest.approx([6 / 7] * 7, abs=0.04)  # a multinomial count's 1 - 1/n


@pytest.mark.parametrize("cells", [1, 13, 130, 10**9])
def test_the_size_of_the_blocks_does_not_change_what_is_drawn(cells: int, monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.arange(13.0)  # whole numbers add up exactly in every order
    expected = mean_interval(values, resamples=101)
    monkeypatch.setattr(module, "BLOCK_CELLS", cells)
    assert mean_interval(values, resamples=101) == expected


@pytest.mark.parametrize("value", [0.0, 0.1, -1 / 3, 1e-300, LARGEST])
@pytest.mark.parametrize("n", [2, 3, 7, 49])
def test_equal_samples_give_a_point(value: float, n: int) -> None:
    assert mean_interval([value] * n) == Interval(value, value)
    found = compare_means([value] * n, [value] * n)
    assert (found.first, found.difference, found.difference_interval) == (value, 0.0, Interval(0.0, 0.0))


def test_one_sample_says_nothing_of_the_spread() -> None:
    everything = Interval(-math.inf, math.inf)
    found = compare_means([3.0], [1.0])
    assert (found.n, found.first, found.second, found.difference) == (1, 3.0, 1.0, 2.0)
    assert (found.first_interval, found.second_interval, found.difference_interval) == (everything,) * 3
    assert mean_difference_interval([3.0], [1.0]) == everything
    assert ratio_interval([3.0], [1.0]) == Interval(0.0, math.inf)
    assert bootstrap(lambda weights: weights[:, 0], 1) == everything


def test_zero_denominators_give_0_for_no_noise_and_infinity_otherwise() -> None:
    assert pooled_ratio([0.0, 0.0], [0.0, 0.0]) == 0.0
    assert pooled_ratio([1.0, 0.0], [0.0, 0.0]) == math.inf
    assert pooled_ratio([1.0, 2.0], [0.0, 6.0]) == 0.5
    assert ratio_interval([0.0, 0.0], [0.0, 0.0]) == Interval(0.0, 0.0)
    assert ratio_interval([1.0, 1.0], [0.0, 0.0]) == Interval(math.inf, math.inf)


def test_an_infinite_ratio_in_a_quarter_of_the_resamples_is_not_interpolated_away() -> None:
    """Two samples, one without signal: both draws take it in 1 of 4 resamples, each once in 1 of 2."""
    assert ratio_interval([1.0, 1.0], [0.0, 1.0]) == Interval(1.0, math.inf)
    assert ratio_interval([1.0, 1.0], [0.0, 1.0], confidence=0.4) == Interval(2.0, 2.0)


def test_values_near_the_largest_do_not_overflow() -> None:
    found = compare_means([LARGEST, -LARGEST, LARGEST], [-LARGEST, LARGEST, -LARGEST])
    ends = (found.difference_interval.low, found.difference_interval.high)
    assert ends == pytest.approx((-2 * LARGEST, 2 * LARGEST), rel=1e-15)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1e300])
def test_a_value_that_no_mean_can_hold_is_refused_by_its_position(bad: float) -> None:
    with pytest.raises(ValueError, match=r"values: sample 1 is .*: expected finite values of at most 1e\+290"):
        mean_interval([0.0, bad, bad])
    with pytest.raises(ValueError, match="second: sample 2 is"):
        compare_means([0.0, 1.0, 2.0], [0.0, 1.0, bad])
    with pytest.raises(ValueError, match="denominators: sample 0 is"):
        ratio_interval([0.0], [bad])


@pytest.mark.parametrize(("values", "shape"), [([], r"\[0\]"), ([[1.0, 2.0]], r"\[1, 2\]"), (5.0, r"\[\]")])
def test_anything_but_one_value_for_each_sample_is_refused(values: object, shape: str) -> None:
    with pytest.raises(ValueError, match=f"values: found the shape {shape}: expected"):
        mean_interval(values)  # type: ignore[arg-type]  # wrong on purpose


def test_pairs_of_different_length_are_refused() -> None:
    with pytest.raises(ValueError, match="3 first and 1 second values: expected one of each for every sample"):
        compare_means([1.0, 2.0, 3.0], [1.0])
    with pytest.raises(ValueError, match="1 numerators and 2 denominators values"):
        pooled_ratio([1.0], [1.0, 2.0])


def test_negative_energies_are_refused() -> None:
    with pytest.raises(
        ValueError, match=r"numerators: sample 1 is -2\.0: expected no negative value in a pooled ratio"
    ):
        ratio_interval([1.0, -2.0], [1.0, 1.0])
    with pytest.raises(ValueError, match=r"denominators: sample 0 is -1\.0"):
        pooled_ratio([1.0], [-1.0])


def test_no_samples_no_resamples_and_no_confidence_are_refused() -> None:
    with pytest.raises(ValueError, match="0 samples to resample: expected at least 1"):
        bootstrap(lambda weights: weights[:, 0], 0)
    with pytest.raises(ValueError, match="0 resamples: expected at least 1, such as 2000"):
        mean_interval([1.0], resamples=0)
    with pytest.raises(ValueError, match=r"a confidence of 95: expected more than 0 and less than 1"):
        mean_interval([1.0], confidence=95)


def test_a_statistic_of_the_wrong_shape_or_without_a_value_is_refused() -> None:
    with pytest.raises(ValueError, match=r"the statistic returned the shape \[3\]: expected \[1\], one value a row"):
        bootstrap(lambda weights: weights[0], 3)
    with pytest.raises(
        ValueError, match=r"the statistic returned the shape \[1, 3\] for weights \[1, 3\]: expected \[1\]"
    ):
        bootstrap(lambda weights: weights, 3)
    with pytest.raises(ValueError, match="the statistic returned NaN for a resample"):
        bootstrap(lambda weights: np.where(weights[:, 0] == 0, math.nan, 1.0), 3)


@pytest.mark.parametrize("n", [500, 50_000, 2 * BLOCK_CELLS])
def test_memory_stays_bounded_however_many_the_resamples(n: int) -> None:
    values = np.arange(n) % 7.0
    mean_interval(values, resamples=1)
    tracemalloc.start()
    try:
        mean_interval(values, resamples=max(5, 4 * BLOCK_CELLS // n))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1.2 * 40 * max(BLOCK_CELLS, n)


def test_five_hundred_samples_take_no_noticeable_time() -> None:
    values = np.arange(500.0)
    times = []
    for _ in range(5):
        start = time.perf_counter()
        mean_interval(values)
        times.append(time.perf_counter() - start)
    assert min(times) < 0.1  # 9 ms on an idle core; ten times that tells a loop from a product of matrices
