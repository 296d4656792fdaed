"""Rules over the model's constants: their values are known, and so is what each algorithm makes of them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from trtcalib.core.cache_scan import CacheScan
from trtcalib.core.scale import INT8_MAX, scale_from_bits
from trtcalib.linting.implied import MOST_OF_RANGE, SMALLEST, bin_of, is_minmax, minmax_bits
from trtcalib.linting.model_view import ModelView
from trtcalib.linting.rules import LintFinding, finding
from trtcalib.linting.statement import Statement

__all__ = ["constant_findings"]

FEWEST = 3
"""Constants of different magnitudes that must speak for another algorithm: by chance one scale in 25 is that of a bin. Ours."""

MOST = 0.9
"""The share of them that must: a few may have been edited, or changed since. Ours."""

FEW = 0.5
"""The share of constants with a bin's scale up to which it is told that the others have none: by chance one in 25 has one, and in a
cache by entropy all have. Ours."""

SLACK = 1 + 2.0**-20
"""For float32's rounding of a width, an amax and a scale, each at most 2**-24."""

_INFINITY = 0x7F800000


@dataclass(frozen=True, slots=True)
class _Constant:
    """A constant with a scale.

    Attributes:
        name: The tensor.
        line: Of the cache.
        bits: Of a scale that is finite and not negative.
        maximum: The largest magnitude of its values, finite.
    """

    name: str
    line: int
    bits: int
    maximum: float

    @property
    def amax(self) -> float:
        return float(scale_from_bits(self.bits)) * INT8_MAX


def constant_findings(scan: CacheScan, view: ModelView, stated: Statement) -> Iterator[LintFinding]:
    """Yield constants whose scale is not what their values imply, and what all of them together tell of the algorithm."""
    constants = [
        _Constant(entry.name, entry.line, entry.bits, view.maxima[entry.name])
        for entry in scan.entries
        if entry.bits < _INFINITY and math.isfinite(view.maxima.get(entry.name, math.nan))
    ]
    together = _together(constants, stated)
    if together is not None:
        yield together
    # Where all are of another algorithm, none of them is odd alone.
    exact = together is None and stated.method in ("entropy", "minmax")
    reach = MOST_OF_RANGE if stated.method in ("entropy", "maybe-entropy", "minmax") else math.inf
    for constant in constants:
        reason = _reason(constant, stated, reach, exact=exact)
        if reason:
            message = f"the values of constant {constant.name!r} reach {constant.maximum:.7g} in the model, and {reason}: were the weights changed since?"
            yield finding("TC049", message, line=constant.line, tensor=constant.name)


def _reason(constant: _Constant, stated: Statement, reach: float, *, exact: bool) -> str:
    """Return why a scale is not that of the values; empty where it may be."""
    if constant.amax > reach * constant.maximum * SLACK:
        return f"its amax {constant.amax:.7g} lies beyond"
    if constant.maximum == 0 or not exact:
        return ""
    if stated.method == "minmax" and not is_minmax(constant.bits, constant.maximum):
        return f"its scale is {constant.bits:x}, where MinMax gives {minmax_bits(constant.maximum):x}"
    if stated.method == "entropy" and bin_of(constant.bits, constant.maximum) is None and constant.maximum > SMALLEST:
        return f"its scale {constant.bits:x} is that of no bin from 128 to 2048 over that range, as entropy's is"
    return ""


def _together(constants: list[_Constant], stated: Statement) -> LintFinding | None:
    by_maximum = {c.maximum: c for c in constants if c.maximum > SMALLEST}
    telling = list(by_maximum.values())
    if len(telling) < FEWEST:
        return None
    minmax = sum(is_minmax(c.bits, c.maximum) for c in telling)
    whole = sum(bin_of(c.bits, c.maximum) is not None for c in telling)
    count = len(telling)
    if stated.method == "minmax" and whole >= MOST * count:
        message = f"{stated.by} says MinMax, and {whole} of {count} constants have the half-bin scales of entropy"
        return finding("TC051", f"{message}: was the header edited? TensorRT takes the scales as they are")
    if stated.method == "entropy" and minmax >= MOST * count:
        message = f"{stated.by} says entropy, and {minmax} of {count} constants have exactly max|w| / 127"
        return finding("TC051", f"{message}, as MinMax gives: was the header edited?")
    if stated.method != "maybe-entropy" or (whole > FEW * count and minmax < MOST * count):
        return None
    if minmax >= MOST * count:
        text = f"{minmax} of {count} constants have exactly max|w| / 127: values of MinMax, or of a percentile, whose caches carry this header"
    else:
        text = f"{whole} of {count} constants have the scale of one of entropy's bins: they are percentiles, whose caches carry this header, or the weights were changed since"
    return finding("TC052", f"the header says entropy, and {text}")
