"""Rules that need the scales alone."""

from __future__ import annotations

from collections.abc import Container, Iterator

from trtcalib.core.cache_scan import CacheScan
from trtcalib.linting.rules import LintFinding, finding

__all__ = ["scale_findings"]

_SIGN = 0x80000000
_INFINITY = 0x7F800000
_SMALLEST_NORMAL = 0x00800000


def scale_findings(scan: CacheScan, zeros: Container[str] = ()) -> Iterator[LintFinding]:
    """Yield the scales that INT8 cannot work with, or hardly.

    Args:
        scan: The cache.
        zeros: Constants that the model shows to be all zero, whose scale is rightly 0.
    """
    for entry in scan.entries:
        magnitude = entry.bits & ~_SIGN
        if _SMALLEST_NORMAL <= entry.bits < _INFINITY or (magnitude == 0 and entry.name in zeros):
            continue
        rule, text = _about(entry.bits, magnitude)
        yield finding(rule, f"tensor {entry.name!r} has {text}", line=entry.line, tensor=entry.name)


def _about(bits: int, magnitude: int) -> tuple[str, str]:
    if magnitude > _INFINITY:
        return "TC021", f"scale {bits:x}, which is NaN: no INT8 value follows from it, so calibrate again"
    if magnitude == 0:
        return "TC024", (
            "scale 0, as TensorRT writes it for a tensor that was zero in all samples: do the data reach it? "
            "A Q/DQ model needs a scale above 0"
        )
    if bits & _SIGN:
        return "TC022", f"the negative scale {bits:x}, but a scale is a magnitude over 127: calibrate again"
    if magnitude == _INFINITY:
        return "TC023", (
            "an infinite scale, as TensorRT writes it for attention masks that hold -inf or -FLT_MAX: all other values become "
            "0 in INT8, so keep its operator in FP16 or FP32"
        )
    return "TC025", f"the subnormal scale {bits:x}: the tensor is as good as zero, and x / scale may overflow"
