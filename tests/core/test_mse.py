"""The squared-error search: laws, cases by hand, and exact fractions piece by piece."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from trtcalib.core.histogram import Histogram, collect_histogram
from trtcalib.core.mse import TIE_TOLERANCE, Noise, _search_kernel, mse_amax, quantization_noise
from trtcalib.core.tally import BINS
from trtcalib.errors import HistogramError

Counts = NDArray[np.int64]

FLT_MAX = float(np.finfo(np.float32).max)
ROUNDING = 1e-13  # of the signal; far above what float64 sums of some thousand terms lose
SHAPES = ("normal", "laplace", "heavy", "relu", "constant", "two_values", "sparse")

counts = arrays(np.int64, st.integers(1, 8), elements=st.integers(0, 3) | st.integers(0, 10**9)).filter(np.any)
shares = st.fractions(0, 1, max_denominator=64)
ranges = st.floats(2.0**-60, 2.0**60, width=32)


def histogram_of(counts: Counts | list[int], range_: float | None = None, share: Fraction | None = None) -> Histogram:
    """A histogram whose bins are 1 wide unless the range is given; the maximum at a share of the last bin's width."""
    found = np.array(counts)
    range_ = float(len(found)) if range_ is None else range_
    last = int(np.flatnonzero(found)[-1]) if found.any() else 0
    maximum = 0.0 if share is None else float((last + share) * Fraction(range_) / len(found))
    return Histogram(counts=found, range=np.float32(range_), first_max=np.float32(range_), maximum=np.float32(maximum))


def shaped(shape: str, seed: int) -> Histogram:
    """A histogram of values like those of real activations, and unlike; the second batch may double the range."""
    rng = np.random.default_rng(seed)
    makers = {
        "normal": lambda: rng.normal(size=4000),
        "laplace": lambda: rng.laplace(size=4000),
        "heavy": lambda: rng.standard_t(2, size=4000),
        "relu": lambda: np.maximum(rng.normal(size=4000), 0),
        "constant": lambda: np.full(10, rng.uniform(0.1, 100)),
        "two_values": lambda: rng.choice([0.25, 4.0], size=1000, p=[0.999, 0.001]),
        "sparse": lambda: rng.normal(size=5) * (rng.random(5) < 0.5) + 0.01,
    }
    return collect_histogram([makers[shape]().astype(np.float32), makers[shape]().astype(np.float32)])


def exact_bins(histogram: Histogram) -> list[tuple[Fraction, Fraction, int]]:
    """Lower end, upper end and count of each bin that holds a value; the last ends at the maximum, where there is one."""
    width = Fraction(histogram.exact_range) / histogram.bins
    bins = [(j * width, (j + 1) * width, int(count)) for j, count in enumerate(histogram.counts) if count]
    if histogram.maximum > 0:
        low, high, count = bins[-1]
        bins[-1] = (low, min(max(Fraction(float(histogram.maximum)), low), high), count)
    return bins


def exact_noise(histogram: Histogram, amax: Fraction) -> tuple[Fraction, Fraction, Fraction]:
    """Signal, clipped and rounded noise: every bin against every level, in fractions."""
    scale = amax / 127
    signal = clipped = rounded = Fraction(0)
    for low, high, count in exact_bins(histogram):
        signal += integral(low, high, Fraction(0), low, high, count)
        clipped += integral(max(low, amax), high, amax, low, high, count)
        if amax > 0 and low == high <= amax:
            nearest = min(range(128), key=lambda k: abs(low - k * scale))
            rounded += count * (low - nearest * scale) ** 2
        elif amax > 0 and low < high:
            for k in range(128):
                start, stop = (k - Fraction(1, 2)) * scale, min((k + Fraction(1, 2)) * scale, amax)
                rounded += integral(max(low, start), min(high, stop), k * scale, low, high, count)
    return signal, clipped, rounded


def integral(start: Fraction, stop: Fraction, level: Fraction, low: Fraction, high: Fraction, count: int) -> Fraction:
    """The sum of (x - level)^2 over ``[start, stop]`` of ``count`` values spread over ``[low, high]``."""
    if low == high:
        return count * (low - level) ** 2 if start <= stop else Fraction(0)
    if start >= stop:
        return Fraction(0)
    return count * ((stop - level) ** 3 - (start - level) ** 3) / 3 / (high - low)


def candidates_of(histogram: Histogram) -> list[Fraction]:
    """Every amax that may be chosen, before it is rounded to float32."""
    width = Fraction(histogram.exact_range) / histogram.bins
    top = exact_bins(histogram)[-1][1]
    return [i * width for i in range(1, histogram.bins + 1) if i * width < top] + [top]


@given(counts, st.none() | shares, ranges, st.floats(0, 3) | st.sampled_from([1e-6, 1, 127 / 128, 1e6]))
def test_the_noise_agrees_with_exact_fractions(
    counts: Counts, share: Fraction | None, range_: float, part: float
) -> None:
    histogram = histogram_of(counts, range_, share)
    amax = part * range_
    found = quantization_noise(histogram, amax)
    signal, clipped, rounded = exact_noise(histogram, Fraction(amax))
    assert found.signal == pytest.approx(float(signal), rel=1e-14)
    assert abs(found.clipped - clipped) <= ROUNDING * signal
    assert abs(found.rounded - rounded) <= ROUNDING * signal
    assert np.array_equal(histogram.counts, counts)


@settings(max_examples=30)
@given(counts, st.none() | shares, ranges)
def test_the_choice_is_the_largest_of_the_best_in_exact_fractions(
    counts: Counts, share: Fraction | None, range_: float
) -> None:
    histogram = histogram_of(counts, range_, share)
    curve = [(amax, sum(exact_noise(histogram, amax)[1:])) for amax in candidates_of(histogram)]
    signal = exact_noise(histogram, Fraction(0))[0]
    least = min(noise for _, noise in curve)
    chosen = mse_amax(histogram)
    assert chosen.dtype == np.float32
    matching = [noise for amax, noise in curve if np.float32(float(amax)) == chosen]
    assert matching
    assert min(matching) <= least + Fraction(TIE_TOLERANCE + ROUNDING) * signal
    larger = [noise for amax, noise in curve if np.float32(float(amax)) > chosen]
    assert all(noise > least + Fraction(TIE_TOLERANCE - ROUNDING) * signal for noise in larger)


@settings(max_examples=15)
@given(st.sampled_from(SHAPES), st.integers(0, 10**6))
def test_no_candidate_of_2048_bins_has_less_noise(shape: str, seed: int) -> None:
    """The search sums twofold cumulative counts, the noise integrates piece by piece: two ways to one number."""
    histogram = shaped(shape, seed)
    chosen = quantization_noise(histogram, mse_amax(histogram))
    least = chosen.clipped + chosen.rounded
    # d noise / d amax is -2 sum (x - q) q / amax, so rounding amax to float32 costs by Cauchy and Schwarz at most:
    rounding_amax = 2 * (least * chosen.signal) ** 0.5 * 2.0**-24
    allowed = chosen.signal * (TIE_TOLERANCE + ROUNDING) + 1.01 * rounding_amax
    for amax in candidates_of(histogram)[::7]:
        noise = quantization_noise(histogram, float(amax))
        assert least <= noise.clipped + noise.rounded + allowed


@given(st.sampled_from(SHAPES), st.integers(0, 10**6), st.integers(-60, 60))
def test_a_power_of_two_on_the_values_is_one_on_amax(shape: str, seed: int, power: int) -> None:
    histogram = shaped(shape, seed)
    factor = np.float32(2.0**power)
    scaled = Histogram(
        counts=histogram.counts,
        range=histogram.range * factor,
        first_max=histogram.first_max * factor,
        maximum=histogram.maximum * factor,
        doublings=histogram.doublings,
    )
    assert mse_amax(scaled) == mse_amax(histogram) * factor


@given(st.sampled_from(SHAPES), st.integers(0, 10**6))
def test_amax_is_positive_and_no_more_than_the_true_maximum(shape: str, seed: int) -> None:
    histogram = shaped(shape, seed)
    assert 0 < mse_amax(histogram) <= histogram.maximum


@given(counts, shares, st.floats(1, 200))
def test_nothing_is_clipped_from_the_true_maximum_on(counts: Counts, share: Fraction, factor: float) -> None:
    histogram = histogram_of(counts, share=share)
    assume(histogram.maximum > 0)  # 0 means that no maximum is known
    assert quantization_noise(histogram, float(histogram.maximum) * factor).clipped == 0


@settings(max_examples=10)
@given(st.integers(0, 10**6))
def test_the_compiled_search_has_the_bits_of_the_python_one(seed: int) -> None:
    rng = np.random.default_rng(seed)
    table = rng.random((40, 3)) * 1000
    candidates = np.append(np.arange(1.0, 40, 7), 39.3)
    assert np.array_equal(_search_kernel(candidates, table, 1e9), _search_kernel.python(candidates, table, 1e9))


@pytest.mark.parametrize("shape", ["normal", "laplace", "heavy"])
def test_the_model_tells_the_noise_of_real_values(shape: str) -> None:
    """Quantized one by one: within 1 % of what the histogram tells, and no amax 10 % off does better."""
    rng = np.random.default_rng(7)
    make = {"normal": rng.normal, "laplace": rng.laplace, "heavy": lambda size: rng.standard_t(4, size)}[shape]
    values = make(size=200_000).astype(np.float32)
    histogram = collect_histogram([values])

    def real(amax: float) -> float:
        scale = amax / 127
        levels = np.clip(np.rint(values.astype(np.float64) / scale), -127, 127)
        return float(((values - levels * scale) ** 2).sum())

    amax = float(mse_amax(histogram))
    told = quantization_noise(histogram, amax)
    assert told.clipped + told.rounded == pytest.approx(real(amax), rel=0.01)
    assert real(amax) < min(real(amax * 0.9), real(amax * 1.1))
    assert amax < histogram.maximum


def test_one_even_bin_by_hand() -> None:
    """x over [0, 1]: 127 cells of 1/127 (two of them halves) have an error of scale^2 / 12; half of it clipped, 1/24."""
    histogram = histogram_of([1])
    whole, half = quantization_noise(histogram, 1.0), quantization_noise(histogram, 0.5)
    assert (whole.signal, whole.clipped) == (pytest.approx(1 / 3), 0.0)
    assert whole.rounded == pytest.approx(1 / 12 / 127**2)
    assert half.clipped == pytest.approx(1 / 24)
    assert half.rounded == pytest.approx(1 / 2 / 12 / 254**2)


@pytest.mark.parametrize(("many", "amax"), [(21503, 2), (21504, 2), (21505, 1)])
def test_clipping_one_value_by_hand(many: int, amax: float) -> None:
    """N in [0, 1] and one in [1, 2]: amax 1 costs N / (12 * 127^2) + 1/3, amax 2 costs (N + 1) * 4 / (12 * 127^2).

    Both are equal at 3 N = 4 * (127^2 - 1), N = 21504: the larger wins the tie.
    """
    assert mse_amax(histogram_of([many, 1])) == amax


@pytest.mark.parametrize(("times", "amax"), [(100, 1), (10_000, 2)])
def test_a_tie_is_within_a_millionth_of_a_millionth_of_the_signal(times: int, amax: float) -> None:
    """One value more than the tie: amax 1 is better by 3 / (12 * 127^2), of a signal of about 7170 * times."""
    gain = 3 / (12 * 127**2) / (7170 * times)
    assert (gain > TIE_TOLERANCE) == (amax == 1)
    assert mse_amax(histogram_of([21504 * times + 1, times])) == amax


def test_a_constant_keeps_its_value_though_one_bin_less_costs_the_same() -> None:
    """All in [2047, 2048] bins: from either end the mean squared distance is a third of a square bin."""
    histogram = collect_histogram([[3.0, -3.0]])
    below = quantization_noise(histogram, 3.0 * 2047 / 2048)
    at = quantization_noise(histogram, 3.0)
    assert at.clipped == 0
    assert below.clipped == pytest.approx(2 * (3 / 2048) ** 2 / 3)
    assert at.rounded == pytest.approx(below.clipped)
    assert mse_amax(histogram) == 3


def test_a_maximum_at_the_lower_edge_of_its_bin_is_a_point_and_has_no_error() -> None:
    """1.5 of a range of 2 is the edge of bin 1536; the 2 ** 40 values there cost nothing at amax 1.5."""
    at_edge = np.zeros(BINS, np.int64)
    at_edge[1536] = 2**40
    histogram = Histogram(
        counts=at_edge, range=np.float32(2), first_max=np.float32(1), maximum=np.float32(1.5), doublings=1
    )
    assert mse_amax(histogram) == 1.5
    assert quantization_noise(histogram, 1.5) == Noise(signal=2.25 * 2**40, clipped=0.0, rounded=0.0)
    assert quantization_noise(histogram, 1.0) == Noise(signal=2.25 * 2**40, clipped=0.25 * 2**40, rounded=0.0)


def test_zeros_favour_no_amax_of_254_bins_or_more() -> None:
    """Up to half a level, one bin or more, everything is rounded to 0: a third of a square bin for each zero."""
    histogram = shaped("laplace", 1)
    more = histogram.counts.copy()
    more[0] += 3000
    padded = Histogram(counts=more, range=histogram.range, maximum=histogram.maximum)
    width = float(histogram.width)
    for amax in (254 * width, 700.5 * width, float(histogram.maximum)):
        risen = quantization_noise(padded, amax).rounded - quantization_noise(histogram, amax).rounded
        assert risen == pytest.approx(1000 * width**2)
    assert mse_amax(padded) == mse_amax(histogram)


def test_without_a_maximum_the_upper_edge_of_the_last_bin_stands_for_it() -> None:
    assert mse_amax(histogram_of([0, 0, 5, 0])) == 3
    assert quantization_noise(histogram_of([0, 0, 5, 0]), 3.0).clipped == 0


def test_a_maximum_an_ulp_below_its_bin_is_chosen_as_it_is() -> None:
    """float32 division can round a value up into the next bin."""
    below = np.nextafter(np.float32(5), np.float32(0))
    histogram = Histogram(counts=[0, 0, 0, 0, 0, 4, 0, 0], range=np.float32(8), maximum=below)
    assert mse_amax(histogram) == below


@pytest.mark.parametrize(("maximum", "amax"), [(3.5, 3), (100, 3), (1.25, 1.25)])
def test_a_maximum_outside_the_last_bin_that_holds_a_value_moves_no_value(maximum: float, amax: float) -> None:
    histogram = Histogram(counts=[0, 0, 5, 0], range=np.float32(4), maximum=np.float32(maximum))
    assert mse_amax(histogram) == amax
    signal = quantization_noise(histogram, 1.0).signal
    assert signal == pytest.approx(5 * (19 / 3 if maximum > 3 else 4))


@pytest.mark.parametrize("bins", [1, 2, 3, 33])
def test_any_number_of_bins_is_searched(bins: int) -> None:
    assert mse_amax(histogram_of([1] * bins, 1.0)) == 1


def test_an_even_tensor_is_clipped_by_half_a_level() -> None:
    """127.5 cells of one level fill [0, 1] best when 127 of them are amax: 127 / 127.5 is 2039.97 of 2048 bins."""
    assert mse_amax(histogram_of([1] * BINS, 1.0)) == 2040 / 2048


def test_a_tensor_of_zeros_has_amax_zero_and_no_noise() -> None:
    histogram = collect_histogram([np.zeros(3, np.float32)])
    amax = mse_amax(histogram)
    assert amax == 0
    assert amax.dtype == np.float32
    assert quantization_noise(histogram, amax) == Noise(0.0, 0.0, 0.0)


def test_a_range_past_float32_gives_an_amax_inside_it() -> None:
    histogram = collect_histogram([[3e38], [3.2e38]])
    assert np.isinf(histogram.range)
    assert 3e38 <= mse_amax(histogram) <= np.float32(3.2e38)
    noise = quantization_noise(histogram, 3.2e38)
    assert noise.signal == pytest.approx(3e38**2 + 3.2e38**2, rel=1e-3)
    assert noise.clipped == 0


@pytest.mark.parametrize("value", [FLT_MAX, 2.0**-149])
def test_the_largest_and_the_smallest_float32_are_kept(value: float) -> None:
    assert mse_amax(collect_histogram([[value]])) == np.float32(value)


def test_amax_zero_clips_everything_and_amax_infinity_rounds_everything_away() -> None:
    histogram = shaped("normal", 3)
    signal = quantization_noise(histogram, 1.0).signal
    assert quantization_noise(histogram, 0.0) == Noise(signal, pytest.approx(signal), 0.0)
    assert quantization_noise(histogram, np.float32(np.inf)) == Noise(signal, 0.0, pytest.approx(signal))
    assert quantization_noise(histogram, 1e300).rounded == pytest.approx(signal)


@pytest.mark.parametrize("amax", [-1.0, float("nan")])
def test_an_amax_that_is_none_is_refused(amax: float) -> None:
    with pytest.raises(HistogramError, match=rf"^amax must be zero or positive, got {amax}$"):
        quantization_noise(histogram_of([1, 2]), amax)


def test_an_empty_histogram_is_refused() -> None:
    text = r"^the histogram is empty: was any batch collected\?$"
    with pytest.raises(HistogramError, match=text):
        mse_amax(collect_histogram([]))
    with pytest.raises(HistogramError, match=text):
        quantization_noise(collect_histogram([]), 1.0)
