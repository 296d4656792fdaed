"""amax <-> scale <-> bits: every rounding step against exact fractions, and literals from real caches."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trtcalib.core.scale import (
    INT8_MAX,
    amax_from_scale,
    bits_from_scale,
    scale_from_amax,
    scale_from_bits,
    ulp_distance,
)

INFINITY_BITS = 0x7F800000
all_bits = st.integers(0, 2**32 - 1)
finite_bits = st.integers(0, INFINITY_BITS - 1)
finite = st.floats(width=32, allow_nan=False, allow_infinity=False)


def exact(bits: int) -> Fraction:
    """The value of non-negative float32 bits, from the definition of the format; infinity as the next power of two."""
    exponent, fraction = bits >> 23, bits & 0x7FFFFF
    if exponent == 0:
        return Fraction(fraction, 2**149)
    return Fraction(2**23 + fraction) * Fraction(2) ** (exponent - 150)


def is_nearest_even(bits: int, value: Fraction) -> bool:
    """Whether the float32 of these bits is ``value`` rounded to nearest, ties to even."""
    off = abs(exact(bits) - value)
    neighbours = [abs(exact(n) - value) for n in (bits - 1, bits + 1) if 0 <= n <= INFINITY_BITS]
    return all(off < other or (off == other and bits % 2 == 0) for other in neighbours)


def test_int8_reaches_from_minus_127_to_127() -> None:
    assert INT8_MAX == 127


@given(finite_bits)
def test_the_scale_is_amax_over_127_rounded_once_to_nearest_even(bits: int) -> None:
    scale = scale_from_amax(scale_from_bits(bits))
    assert scale.dtype == np.float32
    assert is_nearest_even(bits_from_scale(scale), exact(bits) / 127)


@given(finite_bits)
def test_amax_is_127_scales_rounded_once_to_nearest_even(bits: int) -> None:
    amax = amax_from_scale(scale_from_bits(bits))
    assert amax.dtype == np.float32
    assert is_nearest_even(bits_from_scale(amax), min(exact(bits) * 127, exact(INFINITY_BITS)))


def test_a_float64_amax_is_rounded_to_float32_before_the_division() -> None:
    amax = 1.0 + 2.0**-24 + 2.0**-40  # float32 rounds it up to 1 + 2**-23
    assert scale_from_amax(amax) == np.float32(1 + 2.0**-23) / np.float32(127)
    assert amax_from_scale(amax) == np.float32(1 + 2.0**-23) * np.float32(127)


@pytest.mark.parametrize(
    ("amax", "bits"),
    [
        (127.0, 0x3F800000),
        (2048.5 / 2048, 0x3C010A14),  # what saturated sigmoids show in real caches
        (8 * 2048.5 / 2048, 0x3D810A14),
        (0.0, 0),
        (math.inf, INFINITY_BITS),
        (1e39, INFINITY_BITS),
    ],
)
def test_literal_scales(amax: float, bits: int) -> None:
    assert bits_from_scale(scale_from_amax(amax)) == bits


def test_the_dynamic_range_of_a_scale_of_one_is_127() -> None:
    assert amax_from_scale(np.float32(1)) == 127


def test_a_dynamic_range_past_float32_is_infinite() -> None:
    assert amax_from_scale(np.finfo(np.float32).max) == np.inf


@given(all_bits)
def test_bits_survive_the_way_through_float32(bits: int) -> None:
    scale = scale_from_bits(bits)
    assert scale.dtype == np.float32
    if not np.isnan(scale):
        assert bits_from_scale(scale) == bits
    assert np.array(scale).view(np.uint32)[()] == bits


@pytest.mark.parametrize(("bits", "shown"), [(-1, "-0x1"), (2**32, "0x100000000")])
def test_bits_that_do_not_fit_are_refused(bits: int, shown: str) -> None:
    with pytest.raises(ValueError, match=f"^{shown} does not fit the 32 bits of a float32$"):
        scale_from_bits(bits)


@given(finite)
def test_the_distance_to_the_next_float_is_one(value: float) -> None:
    x = np.float32(value)
    with np.errstate(over="ignore"):
        up = np.nextafter(x, np.float32(np.inf))
    assert ulp_distance(x, up) == 1
    assert ulp_distance(up, x) == 1
    assert ulp_distance(x, x) == 0


@given(finite, finite, finite)
def test_distances_add_up_along_the_number_line(a: float, b: float, c: float) -> None:
    low, middle, high = sorted((a, b, c))
    assert ulp_distance(low, high) == ulp_distance(low, middle) + ulp_distance(middle, high)


@pytest.mark.parametrize(
    ("a", "b", "distance"),
    [
        (0.0, -0.0, 0),
        (2.0**-149, -(2.0**-149), 2),
        (1.0, 2.0, 2**23),
        (1.0, 1.0 + 2.0**-23, 1),
        (-1.0, 1.0, 2 * 0x3F800000),
        (math.inf, float(np.finfo(np.float32).max), 1),
    ],
)
def test_literal_distances(a: float, b: float, distance: int) -> None:
    assert ulp_distance(a, b) == distance


@pytest.mark.parametrize(("a", "b"), [(math.nan, 1.0), (1.0, math.nan)])
def test_nan_has_no_distance(a: float, b: float) -> None:
    with pytest.raises(ValueError, match="^NaN has no distance to another number$"):
        ulp_distance(a, b)
