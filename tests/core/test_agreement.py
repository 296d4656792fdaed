"""Reading a bin back from a scale: what the core makes is found again, and another range is told apart."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from trtcalib.core.agreement import MOST_ULP, WHOLE, Agreement, Inversion, compare, invert, is_edge, is_whole
from trtcalib.core.entropy import LEVELS, amax_of_bin
from trtcalib.core.histogram import Histogram
from trtcalib.core.scale import scale_from_amax
from trtcalib.core.tally import BINS

FLT_MAX = float(np.finfo(np.float32).max)

bins_m = st.integers(LEVELS, BINS)
ranges = st.floats(2.0**-149, FLT_MAX, width=32)
ordinary = st.floats(2.0**-115, 2.0**126, width=32)
"""Ranges none of whose scales is subnormal or past float32."""


def over(range_, bins=BINS):
    """A histogram of which only the range matters."""
    return Histogram(counts=np.ones(bins, np.int64), range=np.float32(range_))


def scale_of(m, range_, bins=BINS, half_bin=True):
    return scale_from_amax(amax_of_bin(m, over(range_, bins), half_bin=half_bin))


def after(scale, ulps):
    """The float32 so many further on."""
    return (np.float32(scale).view(np.int32) + np.int32(ulps)).view(np.float32)


# Law


@given(ranges, bins_m, st.booleans())
def test_the_bin_of_a_scale_is_read_back_within_what_float32_rounds(range_, m, half_bin):
    scale = scale_of(m, range_, half_bin=half_bin)
    width = float(over(range_).width)
    found = invert(scale, over(range_), half_bin=half_bin)
    if not (width > 0 and np.isfinite(scale)):
        assert found is None
        return
    rounding = (m + 0.5) * 2.0**-23 + 2.0**-143 / width
    if found is None:
        assert rounding > WHOLE / 4  # neighbouring bins are hardly told apart by such a scale
        return
    assert found.bin_m == m
    assert abs(found.residual) <= rounding
    assert is_whole(found)


@given(ordinary, bins_m)
def test_where_no_scale_is_subnormal_the_bin_is_always_read_back(range_, m):
    found = invert(scale_of(m, range_), over(range_))
    assert found is not None
    assert found.bin_m == m
    assert abs(found.residual) < 0.00025


@given(ordinary, bins_m, st.sampled_from([256, 512, 1024, 4096, 65536]))
def test_other_numbers_of_bins_too(range_, m, bins):
    m = LEVELS + (m - LEVELS) * (bins - LEVELS) // (BINS - LEVELS)
    assert invert(scale_of(m, range_, bins), over(range_, bins)).bin_m == m


def test_a_scale_of_another_range_is_whole_by_chance_only():
    """4 % by chance. Of 20000 draws 4.7 % are five standard deviations (0.14 %) more; half of them would say nothing."""
    random = np.random.default_rng(20240607)
    whole = reached = 0
    for _ in range(20000):
        range_ = np.float32(2.0 ** random.uniform(-60, 60))
        other = np.float32(range_ * 2.0 ** random.uniform(-0.9, 0.9))  # no power of two
        found = invert(scale_of(int(random.integers(LEVELS, BINS + 1)), other), over(range_))
        reached += found is not None
        whole += is_whole(found)
    assert reached > 12000
    assert 0.033 < whole / reached < 0.047


@given(ordinary, st.integers(LEVELS * 2, BINS // 2 - 1))
def test_a_range_that_doubled_once_more_or_less_is_no_whole_bin(range_, m):
    """(m + 0.5) * 2 - 0.5 is 2 m + 0.5, on the edge; (m + 0.5) / 2 - 0.5 is a quarter off."""
    doubled = invert(scale_of(m, np.float32(range_) * np.float32(2)), over(range_))
    halved = invert(scale_of(m, np.float32(range_) / np.float32(2)), over(range_))
    assert is_edge(doubled.residual)
    assert not is_whole(doubled)
    assert abs(halved.residual) == pytest.approx(0.25, abs=0.001)


@given(ordinary, bins_m, st.integers(-MOST_ULP, MOST_ULP))
def test_what_gpu_sums_differ_by_is_still_the_same_bin(range_, m, ulps):
    ours = scale_of(m, range_)
    found = compare("x", after(ours, ulps), ours, invert(after(ours, ulps), over(range_)), m)
    assert found.agrees
    assert found.ulp == abs(ulps)
    assert found.verdict == ("exact" if ulps == 0 else "same bin")
    assert found.bins_off == 0


@given(ordinary, bins_m, bins_m)
def test_bins_off_counts_from_ours_to_theirs(range_, theirs, ours):
    assume(theirs != ours)
    scale = scale_of(theirs, range_)
    found = compare("x", scale, scale_of(ours, range_), invert(scale, over(range_)), ours)
    assert (found.verdict, found.bins_off, found.agrees) == ("bins off", theirs - ours, False)


@given(st.floats(width=32, allow_subnormal=True), st.floats(0, FLT_MAX, width=32), bins_m | st.none())
def test_any_scale_gets_a_verdict(theirs, range_, our_bin):
    theirs = np.float32(theirs)
    ours = scale_of(our_bin or BINS, range_)
    found = compare("x", theirs, ours, invert(theirs, over(range_)), our_bin)
    assert found.verdict in ("exact", "same bin", "same", "bins off", "other range", "other scale")
    assert (found.ulp is None) == math.isnan(theirs)
    assert found.agrees == (found.verdict in ("exact", "same bin", "same") or (found.ulp or 99) <= MOST_ULP)
    if our_bin is None:
        assert (found.their_bin, found.residual, found.bins_off) == (None, None, None)


# Literal


def test_the_scale_of_a_saturated_softmax_is_the_last_bin():
    """3c010a14 is in many real caches: 2048.5 / 2048 / 127."""
    assert invert(np.uint32(0x3C010A14).view(np.float32), over(1)) == Inversion(2048, pytest.approx(0, abs=2e-4))


@pytest.mark.parametrize(
    ("scale", "range_"),
    [
        (math.nan, 1),
        (math.inf, 1),
        (-math.inf, 1),
        (0, 1),
        (-0.007, 1),
        (1, 0),  # an all-zero tensor
        (1, math.inf),  # doubled past float32
        (127.4 / 2048 / 127, 1),  # bin 126.9
        (2049.1 / 2048 / 127, 1),  # bin 2048.6
        (2.0**-149, 2.0**-140),  # one subnormal for dozens of bins
    ],
)
def test_what_is_no_bin(scale, range_):
    assert invert(scale, over(range_)) is None
    assert not is_whole(None)


@pytest.mark.parametrize(("residual", "whole", "edge"), [(0, 1, 0), (0.02, 1, 0), (-0.02, 1, 0), (0.021, 0, 0), (0.48, 0, 1), (-0.5, 0, 1), (0.47, 0, 0)])  # fmt: skip
def test_whole_and_edge(residual, whole, edge):
    assert is_whole(Inversion(200, residual)) == whole
    assert is_edge(residual) == edge


def test_no_residual_is_no_edge():
    assert not is_edge(None)


def literal(theirs, our_bin=1000, range_=1.0):
    theirs = np.float32(theirs)
    ours = scale_of(our_bin, range_) if our_bin else scale_from_amax(np.float32(range_))
    found = compare("x", theirs, ours, invert(theirs, over(range_)), our_bin)
    return found.verdict, found.their_bin, found.agrees


@pytest.mark.parametrize(
    ("theirs", "our_bin", "expected"),
    [
        (1000.5 / 2048 / 127, 1000, ("exact", 1000, True)),
        (1000.51 / 2048 / 127, 1000, ("same bin", 1000, True)),  # a range that is 1e-5 larger
        (1001.5 / 2048 / 127, 1000, ("bins off", 1001, False)),
        (1000.7 / 2048 / 127, 1000, ("other range", None, False)),
        (3000 / 2048 / 127, 1000, ("other range", None, False)),  # beyond the candidates' reach
        (0, 1000, ("other range", None, False)),
        (math.nan, 1000, ("other range", None, False)),
        (math.inf, 1000, ("other range", None, False)),
        (-1000.5 / 2048 / 127, 1000, ("other range", None, False)),
        (1 / 127, None, ("exact", None, True)),  # MinMax
        (1.0000005 / 127, None, ("same", None, True)),  # 4 ULP
        (1.01 / 127, None, ("other scale", None, False)),
        (math.nan, None, ("other scale", None, False)),
    ],
)
def test_literal_verdicts(theirs, our_bin, expected):
    assert literal(theirs, our_bin) == expected


def test_eight_ulp_are_the_same_and_nine_are_not():
    ours = np.float32(1 / 127)
    assert compare("x", after(ours, 8), ours, None, None).verdict == "same"
    assert compare("x", after(ours, -9), ours, None, None).verdict == "other scale"


def test_scales_whose_bins_cannot_be_read_back_are_compared_by_their_distance():
    """Over a range of 2**-140 all bins have a scale of a few subnormals."""
    found = compare("x", np.float32(2.0**-148), np.float32(2.0**-149), invert(2.0**-148, over(2.0**-140)), 2048)
    assert (found.verdict, found.ulp, found.agrees) == ("same", 1, True)


def test_infinite_scales_are_the_same_and_zero_has_a_sign():
    assert compare("x", np.float32(np.inf), np.float32(np.inf), None, 2048).verdict == "exact"
    minus_zero = compare("x", np.float32(-0.0), np.float32(0), None, None)
    assert (minus_zero.verdict, minus_zero.ulp, minus_zero.agrees) == ("same", 0, True)


def test_an_unknown_name_has_no_distance():
    unknown = Agreement(name="x", verdict="unknown name", theirs=1.0)
    assert (unknown.ours, unknown.bins_off, unknown.agrees) == (None, None, False)
