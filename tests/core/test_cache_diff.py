"""Two sets of scales: what came, went and moved, by what factor, and what one factor tells."""

from __future__ import annotations

import math
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trtcalib.core.cache_causes import (
    NEAR_DOUBLING_BY_CHANCE,
    RangeFacts,
    common_factor,
    doublings_of,
    reason_of,
)
from trtcalib.core.cache_diff import ScaleSet, compare, ranked_rows
from trtcalib.core.scale import bits_from_scale, scale_from_amax, ulp_distance

ONE = 0x3F800000

odd_bits = st.sampled_from([0, 0x80000000, 1, ONE, 0x7F800000, 0xFF800000, 0x7FC00000, 0x7FC00001, 0xBF800000])
bits = odd_bits | st.integers(0, 2**32 - 1)
files = st.dictionaries(st.sampled_from("abcdefgh"), bits).map(lambda scales: ScaleSet(bits=scales))


def value(pattern: int) -> float:
    return struct.unpack("<f", struct.pack("<I", pattern))[0]


def scale_set(**scales: float) -> ScaleSet:
    return ScaleSet(bits={name: bits_from_scale(scale) for name, scale in scales.items()})


def entropy(m: int, maximum: float) -> float:
    return float(scale_from_amax(np.float32(m + 0.5) * np.float32(np.float32(maximum) / np.float32(2048))))


# laws


@given(files, st.sampled_from([0.0, 1e-6, 0.5]))
def test_a_file_does_not_differ_from_itself(scales, rtol):
    found = compare(scales, scales, rtol)
    assert found.same
    assert found.unchanged == found.matching == len(scales.bits)
    assert (found.changes, found.added, found.missing, found.within_rtol) == ((), (), (), 0)


@given(files, files, st.sampled_from([0.0, 1e-6, 0.1, 0.9]))
def test_the_other_way_round_shows_the_mirror_image(one, two, rtol):
    there, back = compare(one, two, rtol), compare(two, one, rtol)
    assert (there.added, there.missing) == (back.missing, back.added)
    assert (there.matching, there.unchanged, there.within_rtol) == (back.matching, back.unchanged, back.within_rtol)
    assert (there.same, there.order_differs) == (back.same, back.order_differs)
    mirrored = {change.name: change for change in back.changes}
    assert {change.name for change in there.changes} == mirrored.keys()
    for change in there.changes:
        other = mirrored[change.name]
        assert (change.before, change.after, change.ulp) == (other.after, other.before, other.ulp)
        if math.isfinite(change.log_ratio):
            assert change.log_ratio == pytest.approx(-other.log_ratio, rel=1e-9, abs=1e-15)


@given(files, files, st.randoms(use_true_random=False))
def test_the_order_of_the_lines_makes_no_difference_to_the_scales(one, two, random):
    names = list(two.bits)
    random.shuffle(names)
    shuffled = ScaleSet(bits={name: two.bits[name] for name in names})
    plain, mixed = compare(one, two), compare(one, shuffled)
    assert plain.changes == mixed.changes
    assert (plain.missing, plain.same) == (mixed.missing, mixed.same)
    assert set(plain.added) == set(mixed.added)


@given(files, files, st.sampled_from([0.0, 1e-6, 0.1, 0.9]))
def test_it_finds_what_a_plain_loop_finds(one, two, rtol):
    changed, close, equal = {}, 0, 0
    for name in one.bits.keys() & two.bits.keys():
        before, after = one.bits[name], two.bits[name]
        a, b = value(before), value(after)
        if before == after:
            equal += 1
        elif rtol and math.isfinite(a) and math.isfinite(b) and abs(b - a) <= rtol * max(abs(a), abs(b)):
            close += 1
        else:
            changed[name] = None if math.isnan(a) or math.isnan(b) else ulp_distance(np.float32(a), np.float32(b))
    found = compare(one, two, rtol)
    assert {change.name: change.ulp for change in found.changes} == changed
    assert (found.unchanged, found.within_rtol) == (equal, close)
    distances = [abs(change.log_ratio) for change in found.changes]
    assert distances == sorted(distances, reverse=True)


@given(files, files)
def test_inputs_stay_as_they_are(one, two):
    copies = dict(one.bits), dict(two.bits)
    compare(one, two, 0.1)
    assert (one.bits, two.bits) == copies


@given(bits, bits)
def test_every_change_has_a_reason_in_one_of_the_known_words(before, after):
    if before != after:
        (change,) = compare(ScaleSet(bits={"a": before}), ScaleSet(bits={"a": after})).changes
        a, b = value(before), value(after)
        odd = any(math.isnan(x) or math.isinf(x) or x < 0 for x in (a, b))
        assert (change.kind == "odd") == odd
        assert (change.kind == "zero") == (not odd and (a == 0) != (b == 0))
        assert change.ratio is None or math.isfinite(change.ratio)


@given(
    st.integers(128, 2048),
    st.floats(2.0**-20, 2.0**20, width=32),
    st.integers(-8, 8).filter(bool),
)
def test_the_same_bin_of_a_doubled_range_is_a_power_of_two_to_the_bit(m, maximum, doublings):
    before, after = entropy(m, maximum), entropy(m, maximum * 2.0**doublings)
    (change,) = compare(scale_set(a=before), scale_set(a=after)).changes
    assert change.kind == "doubled"
    assert change.ratio == 2.0**doublings
    assert f"{abs(doublings)} x {'more' if doublings > 0 else 'less'} often" in change.reason.text


@given(st.floats(2.0**-20, 2.0**20, width=32))
def test_the_last_bin_against_the_largest_magnitude_is_another_algorithm(maximum):
    minmax = float(scale_from_amax(maximum))
    for one, two in ((minmax, entropy(2048, maximum)), (entropy(2048, maximum), minmax)):
        (change,) = compare(scale_set(a=one), scale_set(a=two)).changes
        assert change.kind == "algorithm"


# literals


def test_a_small_case_by_hand():
    one = ScaleSet(bits={"kept": ONE, "gone": 1, "twice": ONE, "zero": 0, "view": ONE, "next": ONE})
    two = ScaleSet(
        bits={"new": 2, "next": ONE + 1, "kept": ONE, "twice": 0x40000000, "view": 0x40000000, "zero": 0x40400000}
    )
    found = compare(one, two)
    assert (found.added, found.missing, found.matching, found.unchanged) == (("new",), ("gone",), 5, 1)
    assert [(c.name, c.kind, c.ratio, c.ulp, c.same_as) for c in found.changes] == [
        ("zero", "zero", None, 0x40400000, None),
        ("twice", "doubled", 2.0, 0x800000, None),
        ("view", "doubled", 2.0, 0x800000, "twice"),
        ("next", "rounding", 1 + 2.0**-23, 1, None),
    ]
    assert [change.log_ratio for change in found.changes[:2]] == [math.inf, pytest.approx(math.log(2), rel=1e-12)]
    assert len(found.distinct) == 3
    assert found.order_differs
    assert not found.same


def test_the_tolerance_is_relative_to_the_larger_scale_and_holds_for_zeros_of_both_signs():
    one, two = scale_set(a=1.0, b=2.0, c=0.0), scale_set(a=1.25, b=1.5, c=-0.0)
    assert compare(one, two, 0.25).same
    assert compare(one, two, 0.25).within_rtol == 3
    assert [change.name for change in compare(one, two, 0.24).changes] == ["b"]
    assert [change.name for change in compare(one, two).changes] == ["b", "a", "c"]


def test_nothing_is_close_to_what_is_not_finite():
    one = ScaleSet(bits={"nan": 0x7FC00000, "other nan": 0x7FC00000, "inf": 0x7F800000})
    two = ScaleSet(bits={"nan": 0x7FC00000, "other nan": 0x7FC00001, "inf": 0x7F7FFFFF})
    found = compare(one, two, 0.9)
    assert {change.name: change.kind for change in found.changes} == {"other nan": "odd", "inf": "odd"}


@pytest.mark.parametrize(
    ("one", "two", "differs"),
    [
        ((8601, "EntropyCalibration2"), (8601, "EntropyCalibration2"), False),
        ((8601, "EntropyCalibration2"), (101601, "EntropyCalibration2"), True),
        ((8601, "EntropyCalibration2"), (8601, "MinMaxCalibration"), True),
        ((8601, "EntropyCalibration2"), None, False),
    ],
)
def test_headers_count_where_both_have_one(one, two, differs):
    found = compare(ScaleSet(bits={"a": 1}, header=one), ScaleSet(bits={"a": 1}, header=two))
    assert (found.header_differs, found.same) == (differs, not differs)


@pytest.mark.parametrize(
    ("ratio", "doublings"), [(2.0, 1), (1.985, 1), (2.019, 1), (1.97, 0), (0.25, -2), (1.0, 0), (1.3, 0), (0.5049, -1)]
)
def test_a_factor_is_near_a_power_of_two_within_one_percent(ratio, doublings):
    assert doublings_of(ratio) == doublings


def test_by_chance_one_factor_in_35_is_near_a_power_of_two():
    spread = 2.0 ** np.linspace(0.5, 3.5, 30001)  # three whole octaves, none of which holds 1
    share = np.mean([doublings_of(float(ratio)) != 0 for ratio in spread])
    assert share == pytest.approx(NEAR_DOUBLING_BY_CHANCE, rel=0.02)
    assert 1 / share == pytest.approx(35, abs=0.5)


def test_a_common_factor_needs_three_changes_and_nine_in_ten_of_them():
    assert common_factor([255.0, 255.0]) is None
    assert common_factor([255.0, 255.001, 254.999]) == 255.0
    assert common_factor([255.0] * 9 + [1.5]) == 255.0
    assert common_factor([255.0] * 8 + [1.5, 2.5]) is None
    assert common_factor([255.0] * 8 + [None, None]) is None


def test_changes_by_one_factor_say_so_even_where_it_is_a_power_of_two():
    names = dict(zip("abcd", (0.5, 0.7, 1.1, 3.0), strict=True))
    found = compare(scale_set(**names), scale_set(**{name: 2 * scale for name, scale in names.items()}))
    assert found.factor == 2.0
    assert {change.kind for change in found.changes} == {"common-factor"}


def facts(first_maximum=1.5, doublings=1, maximum=2.5, bin_m=1412):
    return RangeFacts(first_maximum=first_maximum, doublings=doublings, maximum=maximum, bin_m=bin_m)


@pytest.mark.parametrize(
    ("old", "new", "kind", "text"),
    [
        (
            facts(doublings=2),
            facts(first_maximum=2.4, doublings=0, bin_m=2048),
            "range",
            "first maximum 1.5 -> 2.4, doubled 2 x -> 0 x, m 1412 -> 2048",
        ),
        (facts(), facts(bin_m=1413), "bin", "m 1412 -> 1413 of the same range"),
        (facts(), facts(maximum=2.25), "values", "largest magnitude 2.5 -> 2.25"),
        (facts(), facts(bin_m=None), "algorithm", "m 1412 -> none"),
        (
            facts(bin_m=None),
            facts(bin_m=None),
            "algorithm",
            "same range and maximum: another method chose the amax",
        ),
        (facts(), facts(first_maximum=1.5000001), "range", "first maximum 1.5 -> 1.5000001"),
    ],
)
def test_known_ranges_and_bins_are_told_as_they_are(old, new, kind, text):
    reason = reason_of(1.0, 1.5, 4_194_304, (old, new))
    assert (reason.kind, reason.text, reason.stated) == (kind, text, True)


def test_known_ranges_that_differ_by_rounding_are_rounding():
    reason = reason_of(1.0, 1 + 2.0**-23, 1, (facts(), facts(first_maximum=1.5000001)))
    assert (reason.kind, reason.text) == ("rounding", "1 ULP: first maximum 1.5 -> 1.5000001")


def test_what_one_side_alone_knows_is_not_used():
    assert not reason_of(1.0, 1.5, 4_194_304, (facts(), None)).stated


def test_rows_hold_together_what_has_the_same_scales_in_every_file():
    one = scale_set(a=1.0, b=1.0, c=1.0, d=3.0)
    others = (scale_set(a=1.5, b=1.5, c=1.5, d=3.0), scale_set(a=1.0, b=1.0, c=9.0))
    rows = ranked_rows(one, tuple(compare(one, other) for other in others), others)
    assert [row.names for row in rows] == [("c",), ("a", "b")]
    assert rows[0].distance == pytest.approx(math.log(9), rel=1e-12)
    assert [change.ratio if change else None for change in rows[1].changes] == [1.5, None]
    assert rows[1].present == (True, True)
