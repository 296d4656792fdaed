"""Why did a scale move? What the factor between two scales tells, and what is certain where both ranges and bins are known.

An entropy scale is ``(m + 0.5) * R / 2048 / 127`` with 128 <= m <= 2048 and ``R = R0 * 2**k``: R0 the first batch's maximum, k how often
the range doubled. A factor of ``2**k * (m1 + 0.5) / (m2 + 0.5)`` fits nearly any two scales, so only what chance would hardly give
counts as evidence here: a factor that is a power of two to the bit or nearly, 2048.5 / 2048, or one factor for everything.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from trtcalib.core.agreement import MOST_ULP

__all__ = [
    "COMMON",
    "FEWEST",
    "NEAR_DOUBLING",
    "NEAR_DOUBLING_BY_CHANCE",
    "Kind",
    "RangeFacts",
    "Reason",
    "common_factor",
    "doublings_of",
    "reason_of",
]

Kind = Literal[
    "odd",
    "zero",
    "rounding",
    "algorithm",
    "values",
    "range",
    "doubled",
    "near-doubled",
    "bin",
    "common-factor",
    "no-pattern",
]

NEAR_DOUBLING = 0.01
"""How far a factor may lie from a power of two, relatively, to be told as near it. Over a doubled range a search that stops at a
neighbouring bin moves the scale by at most 1 / 128; a wider band would catch more by chance. Ours."""

NEAR_DOUBLING_BY_CHANCE = 2 * math.log2(1 + NEAR_DOUBLING)
"""The share of factors that lie in that band if their logarithms are spread evenly: one in 35, so a single one proves nothing."""

SATURATED = 2048.5 / 2048
"""Entropy's amax over MinMax's where the search chose m = 2048 and the range is the largest magnitude: the half bin."""

ONE_ULP = 2.0**-23
"""The largest relative step between neighbouring normal float32 values."""

COMMON = 2e-5
"""How far factors may lie apart, relatively, to be the same one: two ranges whose sums were rounded otherwise differ by 1e-5 each."""

MOST_COMMON = 0.9
"""The share of changes that must have the same factor: a search may choose another bin when its values were rounded otherwise."""

FEWEST = 3
"""Distinct changes that a statement about all of them needs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RangeFacts:
    """What is known of how a scale came about.

    Attributes:
        first_maximum: The first batch's maximum, in the tensor's units.
        doublings: How often the range doubled after it.
        maximum: The largest magnitude of all.
        bin_m: The bin that the entropy search chose; ``None`` for a method without bins.
    """

    first_maximum: float | None
    doublings: int | None
    maximum: float | None
    bin_m: int | None


@dataclass(frozen=True, slots=True)
class Reason:
    """Why one tensor's scale moved.

    Attributes:
        kind: ``odd``: NaN, infinite or negative. ``zero``: one of the two is zero. ``rounding``: within 8 ULP. ``algorithm``: by
            another method. ``values``: the largest magnitude is another one. ``range``: another first maximum or number of
            doublings. ``doubled``: a factor of exactly a power of two. ``near-doubled``: nearly. ``bin``: another bin of the same
            range. ``common-factor``: the factor of all changes. ``no-pattern``: the factor tells nothing.
        text: The same in words, with its numbers.
        stated: Whether it rests on known ranges and bins, and not on the factor alone.
    """

    kind: Kind
    text: str
    stated: bool = False


def reason_of(
    before: float, after: float, ulp: int | None, facts: tuple[RangeFacts | None, RangeFacts | None] = (None, None)
) -> Reason:
    """Say why one scale moved.

    Args:
        before: The reference's scale, a float32 value.
        after: The other one, of other bits.
        ulp: Float32 values between them; ``None`` where one is NaN.
        facts: How each came about, where that is known.
    """
    if not all(math.isfinite(scale) and math.copysign(1, scale) > 0 for scale in (before, after) if scale != 0):
        return Reason("odd", f"{before:.6g} -> {after:.6g}")
    if before == 0 != after or after == 0 != before:
        return Reason("zero", f"{before:.6g} -> {after:.6g}: only zeros were seen where the scale is zero")
    old, new = facts
    if old is not None and new is not None and (ulp or 0) > 0:
        return _stated(old, new, ulp)
    if ulp is not None and ulp <= MOST_ULP:
        return Reason("rounding", f"{ulp} ULP")
    return _guessed(after / before)


def _stated(old: RangeFacts, new: RangeFacts, ulp: int | None) -> Reason:
    """Compare known ranges and bins."""
    parts = [
        _step(name, one, two)
        for name, one, two in (
            ("first maximum", old.first_maximum, new.first_maximum),
            ("doubled", old.doublings, new.doublings),
            ("largest magnitude", old.maximum, new.maximum),
            ("m", old.bin_m, new.bin_m),
        )
        if one != two
    ]
    text = ", ".join(parts)
    if ulp is not None and ulp <= MOST_ULP and old.bin_m == new.bin_m and old.doublings == new.doublings:
        return Reason("rounding", f"{ulp} ULP" + (f": {text}" if text else ""), stated=True)
    if (old.bin_m is None) != (new.bin_m is None):
        return Reason("algorithm", text, stated=True)
    if old.maximum != new.maximum:
        return Reason("values", text, stated=True)
    if (old.first_maximum, old.doublings) != (new.first_maximum, new.doublings):
        return Reason("range", text, stated=True)
    if old.bin_m != new.bin_m:
        return Reason("bin", f"{text} of the same range", stated=True)
    return Reason("algorithm", "same range and maximum: another method chose the amax", stated=True)


def _step(name: str, one: float | None, two: float | None) -> str:
    """Word a number that moved, with as many digits as tell the two apart."""
    if name == "doubled":
        return f"doubled {'?' if one is None else one} x -> {'?' if two is None else two} x"
    texts = ["none" if number is None else f"{number:.5g}" for number in (one, two)]
    if texts[0] == texts[1] or isinstance(one, int):
        texts = ["none" if number is None else f"{number:.9g}" for number in (one, two)]
    return f"{name} {texts[0]} -> {texts[1]}"


def _guessed(ratio: float) -> Reason:
    """Say what a factor alone tells; both scales are finite and above zero."""
    if abs(max(ratio, 1 / ratio) / SATURATED - 1) <= MOST_ULP * ONE_ULP:
        return Reason("algorithm", "a factor of 2048.5 / 2048: entropy's last bin against the largest magnitude")
    doublings = doublings_of(ratio)
    if doublings:
        power = f"{2.0**doublings:.6g}"
        if math.frexp(ratio)[0] == 0.5:  # noqa: PLR2004 - the mantissa of a power of two
            return Reason("doubled", f"exactly x {power}: the same bin of a range that doubled {_times(doublings)}")
        return Reason("near-doubled", f"near x {power}: perhaps a range that doubled {_times(doublings)}")
    return Reason("no-pattern", "")


def doublings_of(ratio: float) -> int:
    """Return k where a factor above 0 lies within :data:`NEAR_DOUBLING` of ``2**k``; 0 where it does not, or near 1."""
    nearest = round(math.log2(ratio))
    return nearest if abs(ratio / 2.0**nearest - 1) <= NEAR_DOUBLING else 0


def _times(doublings: int) -> str:
    return f"{abs(doublings)} x {'more' if doublings > 0 else 'less'} often"


def common_factor(ratios: Sequence[float | None]) -> float | None:
    """Return the factor that nearly all of at least three changes have; ``None`` where there is none.

    Args:
        ratios: Of distinct changes; ``None`` for one that is no number.
    """
    known = sorted(ratio for ratio in ratios if ratio is not None and ratio > 0)
    if len(known) < FEWEST:
        return None
    middle = known[len(known) // 2]
    same = sum(abs(ratio / middle - 1) <= COMMON for ratio in known)
    return middle if same >= max(FEWEST, MOST_COMMON * len(ratios)) else None
