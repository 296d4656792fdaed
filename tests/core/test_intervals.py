"""Shares: Wilson, Newcombe and McNemar against published examples, exact sums and exact enumeration."""

from __future__ import annotations

import math
import time
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from trtcalib.core.intervals import Interval, compare_shares, mcnemar, one_tail, paired_difference, wilson

confidences = st.floats(0.01, 0.9999)
tables = st.tuples(*[st.integers(0, 60) | st.integers(0, 10**7)] * 4)
Z95 = 1.959963984540054  # the standard table's 1.96, in full


@st.composite
def shares(draw: st.DrawFn) -> tuple[int, int]:
    n = draw(st.integers(1, 200) | st.integers(1, 10**9))
    return draw(st.integers(0, n)), n


def test_an_interval_holds_its_ends_and_nothing_beyond() -> None:
    interval = Interval(-1.0, 2.0)
    assert [interval.holds(value) for value in (-1.0, 0.0, 2.0)] == [True] * 3
    assert [interval.holds(value) for value in (-1.1, 2.1, math.nan)] == [False] * 3


@pytest.mark.parametrize(("low", "high"), [(1.0, 0.0), (math.nan, 0.0), (0.0, math.nan)])
def test_an_interval_refuses_ends_out_of_order(low: float, high: float) -> None:
    with pytest.raises(ValueError, match="expected low <= high, and no NaN"):
        Interval(low, high)


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_gives_newcombes_published_examples(successes: int, n: int, low: float, high: float) -> None:
    """Statistics in Medicine 17 (1998) 857-872, table I, method 3, to its four decimals."""
    interval = wilson(successes, n)
    assert (round(interval.low, 4), round(interval.high, 4)) == (low, high)


@given(shares(), confidences)
def test_wilsons_ends_are_where_the_score_test_turns(share: tuple[int, int], confidence: float) -> None:
    """The definition: the p with (share - p)^2 = z^2 p (1 - p) / n, which the code solves and this test inserts."""
    successes, n = share
    interval = wilson(successes, n, confidence)
    ends = [Fraction(end) for end in (interval.low, interval.high)]
    middle = Fraction(successes, n)
    z2 = [(middle - p) ** 2 * n / (p * (1 - p)) for p in ends if 0 < p < 1 and abs(middle - p) > Fraction(1, 10**9)]
    z = 0.0 if not z2 else math.sqrt(z2[0])
    assert all(float(other) == pytest.approx(float(z2[0]), rel=1e-5) for other in z2)
    if z:
        assert math.erf(z / math.sqrt(2)) == pytest.approx(confidence, rel=1e-5)


@given(shares(), confidences)
def test_wilson_holds_the_share_and_stays_within_0_and_1(share: tuple[int, int], confidence: float) -> None:
    successes, n = share
    interval = wilson(successes, n, confidence)
    assert 0.0 <= interval.low <= interval.high <= 1.0
    assert interval.holds(successes / n)


def test_wilson_holds_the_share_where_rounding_is_wider_than_the_interval() -> None:
    successes, n = 9656075238577515, 24990796792338212
    assert wilson(successes, n, 3.5e-14).holds(successes / n)
    assert wilson(n - successes, n, 3.5e-14).holds((n - successes) / n)


@given(shares(), confidences)
def test_wilson_mirrors_when_successes_and_failures_change_places(share: tuple[int, int], confidence: float) -> None:
    successes, n = share
    one, other = wilson(successes, n, confidence), wilson(n - successes, n, confidence)
    assert one.low == pytest.approx(1 - other.high, abs=1e-12)
    assert one.high == pytest.approx(1 - other.low, abs=1e-12)


@given(shares(), st.integers(2, 50))
def test_wilson_narrows_with_more_samples_of_the_same_share(share: tuple[int, int], factor: int) -> None:
    successes, n = share
    few, many = wilson(successes, n), wilson(successes * factor, n * factor)
    assert many.high - many.low < few.high - few.low


@given(shares(), confidences, confidences)
def test_wilson_widens_with_confidence(share: tuple[int, int], one: float, other: float) -> None:
    narrow, wide = (wilson(*share, confidence) for confidence in sorted((one, other)))
    assert wide.low <= narrow.low
    assert narrow.high <= wide.high


def test_wilson_of_one_kind_only_ends_exactly_at_0_or_1() -> None:
    for n in range(1, 400):
        assert wilson(0, n).low == 0.0
        assert wilson(n, n).high == 1.0
        assert wilson(0, n).high == pytest.approx(Z95**2 / (n + Z95**2))


def test_wilson_of_no_samples_is_everything() -> None:
    assert wilson(0, 0) == Interval(0.0, 1.0)


def test_wilson_covers_95_percent_on_average_and_no_share_badly() -> None:
    """Exactly enumerated for 30 samples: the chance that the interval holds the true share."""
    n = 30
    intervals = [wilson(successes, n) for successes in range(n + 1)]
    coverage = []
    for share in np.linspace(0.0005, 0.9995, 1000).tolist():
        chances = [math.comb(n, k) * share**k * (1 - share) ** (n - k) for k in range(n + 1)]
        coverage.append(sum(p for p, interval in zip(chances, intervals, strict=True) if interval.holds(share)))
    assert np.mean(coverage) == pytest.approx(0.95, abs=0.01)
    assert min(coverage) > 0.82  # near 0 and 1 Wilson's is known to dip


@pytest.mark.parametrize(("successes", "n"), [(-1, 5), (6, 5), (0, -1)])
def test_wilson_refuses_counts_that_cannot_be(successes: int, n: int) -> None:
    with pytest.raises(ValueError, match=rf"{successes} successes of {n}: expected 0 <= successes <= n"):
        wilson(successes, n)


@pytest.mark.parametrize("confidence", [0.0, 1.0, 95.0, -0.5, math.nan])
def test_a_confidence_outside_0_and_1_is_refused(confidence: float) -> None:
    with pytest.raises(ValueError, match=r"expected more than 0 and less than 1, such as 0\.95"):
        wilson(1, 2, confidence)
    with pytest.raises(ValueError, match="a confidence of"):
        paired_difference(0, 0, 0, 0, confidence)


def test_one_tail_is_half_of_what_is_left_out() -> None:
    assert one_tail(0.5) == 0.25


@pytest.mark.parametrize(
    ("table", "low", "high"),
    [((59, 6, 16, 80), -0.1186, -0.0046), ((1, 1, 7, 12), -0.5069, -0.0256), ((14, 5, 0, 22), 0.0115, 0.2265)],
)
def test_paired_difference_of_textbook_tables(table: tuple[int, int, int, int], low: float, high: float) -> None:
    """Response before and after therapy (161 pairs), airways (21), and Altman's "Statistics with Confidence" table 6.2 (41).

    The first interval is the one that the R package contingencytables (of Fagerland, Lydersen and Laake's book) is tested
    with; the others are worked from the paper's formulas.
    """
    interval = paired_difference(*table)
    assert (round(interval.low, 4), round(interval.high, 4)) == (low, high)


def plain_method_10(e: int, f: int, g: int, h: int, z: float = Z95) -> tuple[float, float]:
    """The paper's formulas with its letters, on proportions, sharing nothing with the code."""
    n = e + f + g + h

    def score(p: float) -> tuple[float, float]:
        root = z * math.sqrt(z * z + 4 * n * p * (1 - p))
        return (2 * n * p + z * z - root) / (2 * (n + z * z)), (2 * n * p + z * z + root) / (2 * (n + z * z))

    p2, p3 = (e + f) / n, (e + g) / n
    (l2, u2), (l3, u3) = score(p2), score(p3)
    product = float(e + f) * (g + h) * (e + g) * (f + h)
    if product == 0:
        phi = 0.0
    elif e * h > f * g:
        phi = max(e * h - f * g - n / 2, 0) / math.sqrt(product)
    else:
        phi = (e * h - f * g) / math.sqrt(product)
    delta = (p2 - l2) ** 2 - 2 * phi * (p2 - l2) * (u3 - p3) + (u3 - p3) ** 2
    epsilon = (u2 - p2) ** 2 - 2 * phi * (u2 - p2) * (p3 - l3) + (p3 - l3) ** 2
    return (f - g) / n - math.sqrt(max(delta, 0)), (f - g) / n + math.sqrt(max(epsilon, 0))


@given(st.tuples(*[st.integers(0, 300)] * 4).filter(any))
def test_paired_difference_agrees_with_the_published_formulas(table: tuple[int, int, int, int]) -> None:
    interval = paired_difference(*table)
    assert (interval.low, interval.high) == pytest.approx(plain_method_10(*table), abs=1e-7)


@given(tables, confidences)
def test_paired_difference_is_negated_when_the_two_change_places(
    table: tuple[int, int, int, int], confidence: float
) -> None:
    both, only_first, only_second, neither = table
    one = paired_difference(both, only_first, only_second, neither, confidence)
    other = paired_difference(both, only_second, only_first, neither, confidence)
    assert (other.low, other.high) == (-one.high, -one.low)


@given(tables.filter(any), confidences)
def test_paired_difference_holds_the_difference_and_stays_within_its_range(
    table: tuple[int, int, int, int], confidence: float
) -> None:
    interval = paired_difference(*table, confidence)
    assert -1.0 <= interval.low <= interval.high <= 1.0
    assert interval.holds((table[1] - table[2]) / sum(table))


@given(st.integers(0, 5000), st.integers(0, 5000))
def test_without_a_discordant_pair_the_difference_still_has_a_width(both: int, neither: int) -> None:
    interval = paired_difference(both, 0, 0, neither)
    assert interval.low < 0 < interval.high
    assert interval.low == -interval.high


def test_all_right_for_both_leaves_wilsons_own_doubt() -> None:
    """Worked by hand: phi is 0 and each share of 1 reaches down to n / (n + z^2)."""
    interval = paired_difference(100, 0, 0, 0)
    assert interval.high == pytest.approx(1 - 100 / (100 + Z95**2))


def test_paired_difference_of_no_samples_is_everything() -> None:
    assert paired_difference(0, 0, 0, 0) == Interval(-1.0, 1.0)


@pytest.mark.parametrize("chances", [(0.7, 0.05, 0.05, 0.2), (0.4, 0.3, 0.1, 0.2), (0.85, 0.1, 0.02, 0.03)])
def test_paired_difference_covers_about_95_percent(chances: tuple[float, float, float, float]) -> None:
    """Exactly enumerated over all tables of 25 samples."""
    n = 25
    truth = chances[1] - chances[2]
    covered = 0.0
    for a in range(n + 1):
        for b in range(n + 1 - a):
            for c in range(n + 1 - a - b):
                if paired_difference(a, b, c, n - a - b - c).holds(truth):
                    ways = math.comb(n, a) * math.comb(n - a, b) * math.comb(n - a - b, c)
                    covered += ways * math.prod(p**k for p, k in zip(chances, (a, b, c, n - a - b - c), strict=True))
    assert 0.93 < covered < 0.995


def test_paired_difference_refuses_a_negative_count() -> None:
    with pytest.raises(ValueError, match=r"counts \[3, 0, -1, 2\] of a paired comparison: expected none below 0"):
        paired_difference(3, 0, -1, 2)


def exact_mcnemar(b: int, c: int) -> Fraction:
    tail = sum(math.comb(b + c, i) for i in range(min(b, c) + 1))
    return min(Fraction(1), Fraction(2 * tail, 2 ** (b + c)))


def test_mcnemar_of_1_against_7_is_18_in_256() -> None:
    assert mcnemar(1, 7) == pytest.approx(18 / 256, rel=1e-14)


@given(st.integers(0, 400), st.integers(0, 400))
def test_mcnemar_is_the_exact_binomial_sum(b: int, c: int) -> None:
    assert mcnemar(b, c) == pytest.approx(float(exact_mcnemar(b, c)), rel=1e-12)


@pytest.mark.parametrize(("b", "c"), [(3000, 3200), (2000, 2900), (5001, 5000)])
def test_mcnemar_stays_exact_where_terms_far_out_are_left_off(b: int, c: int) -> None:
    assert mcnemar(b, c) == pytest.approx(float(exact_mcnemar(b, c)), rel=1e-11)


@given(st.integers(0, 10**6), st.integers(0, 10**6))
def test_mcnemar_does_not_care_which_is_first(b: int, c: int) -> None:
    assert mcnemar(b, c) == mcnemar(c, b)
    assert 0.0 <= mcnemar(b, c) <= 1.0


@given(st.integers(0, 2000), st.integers(0, 2000))
def test_mcnemar_falls_as_the_split_gets_more_uneven(b: int, gap: int) -> None:
    """One sample less for the fewer and one more for the other: as many tosses, further from even."""
    assert mcnemar(b, b + gap + 2) <= mcnemar(b + 1, b + gap + 1)


@pytest.mark.parametrize("count", [0, 1, 2, 10, 1000, 10**6])
def test_an_even_split_is_no_evidence(count: int) -> None:
    assert mcnemar(count, count) == 1.0


def test_mcnemar_of_millions_is_quick_and_follows_the_normal_law() -> None:
    start = time.perf_counter()
    found = mcnemar(10**6, 10**6 + 3000)
    assert time.perf_counter() - start < 0.5
    z = (3000 - 1) / math.sqrt(2 * 10**6 + 3000)  # with the continuity correction, whose error vanishes with the counts
    assert found == pytest.approx(math.erfc(z / math.sqrt(2)), rel=1e-5)


def test_mcnemar_below_the_smallest_double_is_0() -> None:
    assert mcnemar(0, 1000) == pytest.approx(2.0**-999, rel=1e-12)
    assert mcnemar(0, 10**6) == 0.0


def test_mcnemar_refuses_a_negative_count() -> None:
    with pytest.raises(ValueError, match="-3 samples on which only one is right: expected a count of at least 0"):
        mcnemar(2, -3)


def test_compare_shares_counts_and_judges() -> None:
    first = np.array([True] * 65 + [False] * 96)
    second = np.array([True] * 59 + [False] * 6 + [True] * 16 + [False] * 80)
    found = compare_shares(first, second)
    assert (found.n, found.only_first, found.only_second) == (161, 6, 16)
    assert (found.first, found.second, found.difference) == (65 / 161, 75 / 161, -10 / 161)
    assert (found.first_interval, found.second_interval) == (wilson(65, 161), wilson(75, 161))
    assert found.difference_interval == paired_difference(59, 6, 16, 80)
    assert found.p_value == pytest.approx(float(exact_mcnemar(6, 16)))


@given(st.integers(1, 60).flatmap(lambda n: st.tuples(*[arrays(np.bool_, n)] * 2)), confidences)
def test_compare_shares_mirrors_when_the_two_change_places(pair: tuple[np.ndarray, np.ndarray], level: float) -> None:
    kept = [array.copy() for array in pair]
    one, other = compare_shares(*pair, level), compare_shares(pair[1], pair[0], level)
    assert (one.first, one.first_interval, one.only_first) == (other.second, other.second_interval, other.only_second)
    assert (one.difference, one.p_value) == (-other.difference, other.p_value)
    assert one.difference_interval == Interval(-other.difference_interval.high, -other.difference_interval.low)
    assert one.difference_interval.holds(one.difference)
    assert all(np.array_equal(before, after) for before, after in zip(kept, pair, strict=True))


@pytest.mark.parametrize(
    ("first", "second", "found"),
    [
        (np.ones(3, bool), np.ones(4, bool), r"bool \[3\] and bool \[4\]"),
        (np.ones(3), np.ones(3, bool), r"float64 \[3\] and bool \[3\]"),
        (np.ones((2, 2), bool), np.ones((2, 2), bool), r"bool \[2, 2\] and bool \[2, 2\]"),
        (np.ones(0, bool), np.ones(0, bool), r"bool \[0\] and bool \[0\]"),
    ],
)
def test_compare_shares_refuses_anything_else(first: np.ndarray, second: np.ndarray, found: str) -> None:
    with pytest.raises(ValueError, match=f"found {found}: expected two arrays bool"):
        compare_shares(first, second)
