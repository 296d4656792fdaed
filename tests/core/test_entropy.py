"""The entropy search: laws, hand-worked divergences, and two slow readings of the rules."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from tests.core.oracles import BAND, numpy_search, plain_search
from trtcalib.core.entropy import (
    TIE_TOLERANCE,
    VARIANTS,
    EntropyVariant,
    _interval_kernel,
    amax_of_bin,
    divergences,
    entropy_amax,
    entropy_bin,
)
from trtcalib.core.histogram import Histogram, collect_histogram, doublings_needed
from trtcalib.core.tally import BINS
from trtcalib.errors import HistogramError

Counts = NDArray[np.int64]

FIRST = 128
HUGE = 10**12  # counts in one bin; float32 counters would have stopped at 2**24
SHAPES = ("smooth", "steep", "sparse", "plateaus", "far_outlier", "single", "zeros_first", "huge", "few_values")

small_counts = arrays(
    np.int64,
    st.integers(FIRST + 1, 300),
    elements=st.integers(0, 4) | st.integers(0, 1000) | st.integers(0, HUGE),
    fill=st.integers(0, 1),
).filter(np.any)
every_variant = pytest.mark.parametrize("variant", VARIANTS)


def histogram_of(counts: Counts | list[int], range_: float | None = None) -> Histogram:
    """A histogram whose bins are 1 wide unless the range is given."""
    range_ = float(len(counts)) if range_ is None else range_
    return Histogram(counts=np.array(counts), range=np.float32(range_), first_max=np.float32(range_))


def shaped(shape: str, bins: int, rng: np.random.Generator) -> Counts:
    """Counts like those of real activations, and unlike."""
    position = np.arange(bins)
    decay = np.exp(-position * rng.uniform(2, 12) / bins)
    makers: dict[str, Callable[[], NDArray[Any]]] = {
        "smooth": lambda: rng.poisson(rng.uniform(5, 5000) * decay),
        "steep": lambda: rng.poisson(1e6 * decay**4),
        "sparse": lambda: rng.poisson(0.05 + 20 * decay**3),
        "plateaus": lambda: np.repeat(rng.integers(0, 4, -(-bins // 32)), 32)[:bins],
        "far_outlier": lambda: rng.poisson(300 * decay) * (position < bins // 3),
        "single": lambda: (position == rng.integers(0, bins)) * rng.integers(1, HUGE),
        "zeros_first": lambda: rng.poisson(50 * decay) + (position == 0) * HUGE,
        "huge": lambda: (rng.random(bins) * HUGE * decay).astype(np.int64),
        "few_values": lambda: np.bincount(rng.integers(0, bins, 5), minlength=bins),
    }
    counts = makers[shape]().astype(np.int64)
    counts[-1] += 1  # a collected histogram always has its maximum in the upper half
    return counts


def finite_part_agrees(curve: NDArray[np.float64], expected: list[float]) -> bool:
    """Whether the same candidates are allowed, and all divergences agree within the band."""
    same = np.isfinite(curve) == np.isfinite(expected)
    allowed = np.isfinite(expected)
    return bool(same.all()) and bool((np.abs(curve[allowed] - np.array(expected)[allowed]) <= BAND).all())


@every_variant
@settings(max_examples=15)
@given(counts=small_counts)
def test_every_variant_agrees_with_plain_loops(variant: str, counts: Counts) -> None:
    expected = plain_search(counts, variant)
    histogram = histogram_of(counts)
    assert finite_part_agrees(divergences(histogram, variant), expected.curve)
    assert entropy_bin(histogram, variant) in expected.acceptable


@every_variant
@pytest.mark.parametrize("shape", SHAPES)
def test_every_variant_agrees_with_plain_loops_on_every_shape(variant: str, shape: str) -> None:
    for bins in (FIRST + 1, 257):
        counts = shaped(shape, bins, np.random.default_rng(bins))
        expected = plain_search(counts, variant)
        assert finite_part_agrees(divergences(histogram_of(counts), variant), expected.curve)
        assert entropy_bin(histogram_of(counts), variant) in expected.acceptable


@pytest.mark.parametrize("shape", SHAPES)
def test_agrees_with_numpy_on_many_small_histograms(shape: str) -> None:
    rng = np.random.default_rng(SHAPES.index(shape))
    for _ in range(250):
        counts = shaped(shape, int(rng.integers(192, 600)), rng)
        expected = numpy_search(counts)
        assert finite_part_agrees(divergences(histogram_of(counts)), expected.curve)
        assert entropy_bin(histogram_of(counts)) in expected.acceptable


@pytest.mark.parametrize("shape", SHAPES)
def test_agrees_with_numpy_on_histograms_of_tensorrts_size(shape: str) -> None:
    rng = np.random.default_rng(len(shape))
    for _ in range(4):
        counts = shaped(shape, BINS, rng)
        expected = numpy_search(counts)
        assert finite_part_agrees(divergences(histogram_of(counts)), expected.curve)
        assert entropy_bin(histogram_of(counts)) in expected.acceptable


def test_the_two_oracles_agree() -> None:
    for seed, shape in enumerate(SHAPES):
        counts = shaped(shape, 200, np.random.default_rng(seed))
        assert finite_part_agrees(np.array(numpy_search(counts).curve), plain_search(counts, "tensorrt").curve)


@settings(max_examples=15)
@given(counts=small_counts.filter(lambda counts: counts[1:].any()), min_occupied=st.integers(1, 3))
def test_the_compiled_kernel_equals_its_python_form(counts: Counts, min_occupied: int) -> None:
    before = counts.copy()
    compiled = _interval_kernel(counts, FIRST, min_occupied)
    with np.errstate(all="ignore"):
        python = _interval_kernel.python(counts, FIRST, min_occupied)
    assert finite_part_agrees(compiled, python.tolist())
    assert np.array_equal(counts, before)


@every_variant
@settings(max_examples=15)
@given(counts=small_counts)
def test_a_divergence_is_never_negative_and_nothing_is_changed(variant: str, counts: Counts) -> None:
    histogram = histogram_of(counts)
    assert divergences(histogram, variant).min() > -BAND
    assert FIRST <= entropy_bin(histogram, variant) <= counts.size
    assert np.array_equal(histogram.counts, counts)


@pytest.mark.parametrize("variant", [name for name in VARIANTS if name != "smoothed"])
@settings(max_examples=15)
@given(counts=small_counts, factor=st.sampled_from([1, 3, 10]))
def test_the_winner_does_not_depend_on_the_sample_size(variant: str, counts: Counts, factor: int) -> None:
    """Powers of two scale floats exactly; variant ``smoothed`` is left out because its eps is in counts."""
    once, scaled = histogram_of(counts), histogram_of(counts * 2**factor)
    assert np.array_equal(divergences(once, variant), divergences(scaled, variant))
    assert entropy_bin(once, variant) == entropy_bin(scaled, variant)


@given(counts=small_counts, zeros=st.integers(0, HUGE))
def test_zeros_play_no_part_in_tensorrts_choice(counts: Counts, zeros: int) -> None:
    more = counts.copy()
    more[0] = zeros
    more[-1] += 1
    counts[-1] += 1
    assert np.array_equal(divergences(histogram_of(more)), divergences(histogram_of(counts)))


@given(counts=small_counts, range_=st.floats(2.0**-100, 2.0**100, width=32), exponent=st.integers(-20, 20))
def test_the_threshold_scales_with_the_range(counts: Counts, range_: float, exponent: int) -> None:
    amax = entropy_amax(histogram_of(counts, range_))
    assert entropy_amax(histogram_of(counts, range_ * 2.0**exponent)) == amax * np.float32(2.0**exponent)


# Worked by hand, 130 bins of width 1: h[1] = 1 (so h[0] = 1), h[65] = 1, h[66] = 3, h[128] = 1, h[129] = 1; total 8.
# i = 128: h[127] = 0 but 2 counts are clipped onto it: forbidden.
# i = 129: every level is one bin but {0, 1}, which are equal. Q = 1 1 1 3 1 of 7, P = 1 1 1 3 2 of 8:
#          6/8 ln(7/8) + 2/8 ln((2/8) / (1/7)).
# i = 130: level 0 = {0, 1}, level 64 = {65, 66}: Q = 1 1 2 2 1 1 of 8, P = 1 1 1 3 1 1 of 8:
#          1/8 ln(1/2) + 3/8 ln(3/2).
HAND = {1: 1, 65: 1, 66: 3, 128: 1, 129: 1}
HAND_CURVE = [
    math.inf,
    6 / 8 * math.log(7 / 8) + 2 / 8 * math.log(7 / 4),
    1 / 8 * math.log(1 / 2) + 3 / 8 * math.log(3 / 2),
]


def hand_histogram() -> Histogram:
    counts = np.zeros(130, np.int64)
    counts[list(HAND)] = list(HAND.values())
    return histogram_of(counts)


@pytest.mark.parametrize("variant", ["tensorrt", "pytorch-quantization"])
def test_hand_worked_divergences(variant: str) -> None:
    curve = divergences(hand_histogram(), variant)
    assert curve.dtype == np.float64
    assert curve == pytest.approx(HAND_CURVE, abs=1e-14)
    assert entropy_bin(hand_histogram(), variant) == 129


def test_the_threshold_is_in_the_middle_of_the_bin_or_at_its_edge() -> None:
    assert entropy_amax(hand_histogram()) == 129.5
    assert entropy_amax(hand_histogram(), "pytorch-quantization") == 129
    assert entropy_amax(hand_histogram()).dtype == np.float32


def test_hand_worked_divergences_of_the_published_loop() -> None:
    """Bin 0 is kept, so P = 1 1 3 2 of 7 and Q = 1 1 3 1 of 6 at 129; 130 is left out."""
    expected = [math.inf, 5 / 7 * math.log(6 / 7) + 2 / 7 * math.log(12 / 7)]
    assert divergences(hand_histogram(), "pseudocode") == pytest.approx(expected, abs=1e-14)
    assert entropy_amax(hand_histogram(), "pseudocode") == 129.5


def test_the_published_loop_puts_the_remainder_into_the_last_level() -> None:
    """129 bins by one: the last level is bins 127 and 128. P = 2 1+5 of 8 at i = 129, Q = 1.5 1.5 of 3."""
    counts = np.zeros(130, np.int64)
    counts[[127, 128, 129]] = [2, 1, 5]
    expected = [0, 2 / 8 * math.log(2 / 8 * 2) + 6 / 8 * math.log(6 / 8 * 2)]
    assert divergences(histogram_of(counts), "pseudocode") == pytest.approx(expected, abs=1e-14)


def test_hand_worked_divergence_of_the_smoothed_search() -> None:
    """129 bins, bin 0 dropped: 128 bins remain, one candidate, Q = P where nothing is clipped."""
    counts = np.zeros(129, np.int64)
    counts[[0, 1, 128]] = [50, 3, 1]
    curve = divergences(histogram_of(counts), "smoothed")
    assert curve == pytest.approx([0], abs=1e-14)
    assert entropy_amax(histogram_of(counts), "smoothed") == 128.5


def test_smoothing_that_would_empty_a_bin_forbids_the_candidate(monkeypatch: pytest.MonkeyPatch) -> None:
    """One count and eps 1/128: 127 empty bins leave it 1/128, 128 empty bins leave it nothing."""
    monkeypatch.setattr("trtcalib.core.entropy.SMOOTHING_EPS", 1 / 128)
    counts = np.zeros(131, np.int64)
    counts[1] = 1
    assert np.isfinite(divergences(histogram_of(counts), "smoothed")).tolist() == [True, False, False]


def test_ties_go_to_the_first_in_tensorrt_and_to_the_last_in_pytorch_quantization() -> None:
    """Equal counts up to bin 199: from i = 200 on nothing is clipped and Q = P, whatever the levels."""
    counts = np.zeros(256, np.int64)
    counts[:200] = 7
    assert entropy_bin(histogram_of(counts)) == 200
    assert entropy_bin(histogram_of(counts), "pytorch-quantization") == 256


def test_divergences_within_the_tolerance_are_ties(monkeypatch: pytest.MonkeyPatch) -> None:
    near, far = 0.9 * TIE_TOLERANCE, 1.2 * TIE_TOLERANCE
    curve = np.array([1.0, near, 0.0, near, far])
    monkeypatch.setattr(
        "trtcalib.core.entropy.VARIANTS",
        {
            ties: EntropyVariant(kl=lambda _counts, _rule: curve, bin_zero="keep", ties=ties)
            for ties in ("first", "last")
        },
    )
    histogram = histogram_of([1] * 132)
    assert entropy_bin(histogram, "first") == FIRST + 1
    assert entropy_bin(histogram, "last") == FIRST + 3


def test_a_window_with_a_single_bin_must_not_win() -> None:
    """i = 128 holds one bin and has KL 0 whatever it clips; the first window of two bins is 2001."""
    counts = np.zeros(BINS, np.int64)
    counts[[127, 2000]] = [5, 7]
    assert entropy_bin(histogram_of(counts)) == 2001
    assert divergences(histogram_of(counts))[0] == np.inf
    assert divergences(histogram_of(counts), "pytorch-quantization")[0] == 0


def test_the_search_starts_at_128() -> None:
    """Bins 0 to 127 are a level each at i = 128; wider windows merge full bins with nearly empty ones."""
    counts = np.zeros(BINS, np.int64)
    counts[:FIRST:2], counts[1:FIRST:2] = 1, 1000
    counts[2000] = 1
    assert entropy_bin(histogram_of(counts)) == FIRST
    assert divergences(histogram_of(counts)).size == BINS - FIRST + 1


@given(value=st.floats(2.0**-120, 2.0**120, width=32), size=st.integers(1, 50), sign=st.sampled_from([1, -1]))
def test_a_constant_lands_on_the_last_candidate(value: float, size: int, sign: int) -> None:
    """absmax * 2048.5 / 2048, in float32."""
    histogram = collect_histogram([np.full(size, sign * value, np.float32)])
    assert entropy_bin(histogram) == BINS
    assert entropy_amax(histogram) == np.float32(2048.5) * (np.float32(value) / np.float32(BINS))


@pytest.mark.parametrize(
    ("variant", "m"), [("tensorrt", BINS), ("pytorch-quantization", BINS), ("smoothed", BINS), ("pseudocode", FIRST)]
)
def test_where_no_candidate_is_allowed_all_bins_are_kept(variant: str, m: int) -> None:
    """Everything in bin 0: only the published loop, which keeps that bin, finds a candidate."""
    counts = np.zeros(BINS, np.int64)
    counts[0] = 3
    assert entropy_bin(histogram_of(counts), variant) == m


def test_a_tensor_of_zeros_has_amax_zero() -> None:
    amax = entropy_amax(collect_histogram([np.zeros(4, np.float32)]))
    assert amax == 0
    assert amax.dtype == np.float32
    assert entropy_amax(collect_histogram([[0.0]], bins=2)) == 0, "there is nothing to search, so two bins will do"


def test_an_unknown_variant_is_refused_for_a_tensor_of_zeros_too() -> None:
    with pytest.raises(HistogramError, match="unknown entropy variant"):
        entropy_amax(collect_histogram([[0.0]]), "tensort")


@every_variant
def test_an_empty_histogram_is_refused(variant: str) -> None:
    with pytest.raises(HistogramError, match=r"^the histogram is empty: was any batch collected\?$"):
        entropy_amax(collect_histogram([]), variant)
    with pytest.raises(HistogramError, match=r"^the histogram is empty: was any batch collected\?$"):
        entropy_bin(histogram_of([0] * BINS), variant)


@every_variant
def test_too_few_bins_to_search_are_refused(variant: str) -> None:
    with pytest.raises(HistogramError, match="^the entropy search needs more than 128 bins, got 128$"):
        entropy_amax(histogram_of([1] * FIRST), variant)
    assert entropy_bin(histogram_of([1] * (FIRST + 1)), variant) in {FIRST, FIRST + 1}


def test_an_unknown_variant_is_refused_with_the_known_ones() -> None:
    expected = (
        "^unknown entropy variant 'tensort': expected one of tensorrt, pseudocode, smoothed, pytorch-quantization$"
    )
    for function in (entropy_amax, entropy_bin, divergences):
        with pytest.raises(HistogramError, match=expected):
            function(hand_histogram(), "tensort")


def test_the_variants_cannot_be_edited() -> None:
    assert list(VARIANTS) == ["tensorrt", "pseudocode", "smoothed", "pytorch-quantization"]
    with pytest.raises(TypeError):
        VARIANTS["tensorrt"] = VARIANTS["smoothed"]  # type: ignore[index]  # that it cannot be is what is tested


def test_both_steps_of_the_threshold_round_in_float32() -> None:
    """R = 0.1 over 1000 bins: f32(777.5 * f32(0.1 / 1000))."""
    histogram = histogram_of([1] * 1000, 0.1)
    width = np.float32(np.float32(0.1) / np.float32(1000))
    assert amax_of_bin(777, histogram) == np.float32(777.5) * width
    assert amax_of_bin(777, histogram, half_bin=False) == np.float32(777) * width
    assert amax_of_bin(777, histogram).dtype == np.float32


def test_a_subnormal_bin_width_is_rounded_before_it_is_multiplied() -> None:
    """R = 3000 * 2**-149: the width 1.46 rounds to 1, and 2048.5 to 2048 (ties to even); not 3001, rounded once."""
    smallest = 2.0**-149
    assert entropy_amax(collect_histogram([[3000 * smallest]])) == np.float32(2048 * smallest)


def test_a_threshold_past_float32_is_infinite() -> None:
    largest = float(np.finfo(np.float32).max)
    assert doublings_needed(1.0, largest) == 128
    assert np.isinf(entropy_amax(collect_histogram([[-largest]])))
    assert np.isinf(entropy_amax(collect_histogram([[1.0], [largest]])))
