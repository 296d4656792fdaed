"""Two sets of scales side by side: which tensors came, went and moved, by what factor, and what the factor alone tells."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from trtcalib.core.cache_causes import COMMON, Kind, RangeFacts, Reason, common_factor, reason_of

__all__ = ["Change", "PairDiff", "Row", "ScaleSet", "compare", "ranked_rows"]

_SIGN_BIT = 0x80000000

Header = tuple[int, str]
"""Version and algorithm."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaleSet:
    """The scales of one file.

    Attributes:
        bits: The scale's float32 bits per tensor, in the file's order.
        header: Version and algorithm; ``None`` for a file that has none.
        facts: What is known of how a scale came about, for the tensors of which it is known.
    """

    bits: Mapping[str, int]
    header: Header | None = None
    facts: Mapping[str, RangeFacts] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One tensor whose scale moved.

    Attributes:
        name: The tensor.
        before: Bits in the reference.
        after: Bits in the other file.
        ratio: ``after / before`` in float64; ``None`` where it is no finite number: from zero, infinity or NaN.
        ulp: Float32 values between the two; ``None`` where one is NaN.
        log_ratio: ``ln(ratio)``; 0 between +0 and -0, infinite where no factor above 0 leads from one to the other.
        reason: Why it moved, as far as can be told.
        same_as: The first tensor that moved between the very same two scales, such as the source of a view; ``None`` for it itself.
    """

    name: str
    before: int
    after: int
    ratio: float | None
    ulp: int | None
    log_ratio: float
    reason: Reason
    same_as: str | None = None

    @property
    def kind(self) -> Kind:
        """The kind of its reason."""
        return self.reason.kind


@dataclass(frozen=True, slots=True, kw_only=True)
class PairDiff:
    """A file against the reference.

    Attributes:
        matching: Names that both have.
        added: Names of the other file only, in its order.
        missing: Names of the reference only, in its order.
        changes: Tensors that moved, the largest ``|log_ratio|`` first, in the reference's order where equal.
        unchanged: Tensors with equal bits.
        within_rtol: Tensors that moved by no more than the tolerance.
        header_differs: Whether both have a header and its version or algorithm is another one.
        order_differs: Whether the names that both have stand in another order.
        factor: What all changes but rounding are multiplied by, where that is one number.
    """

    matching: int
    added: tuple[str, ...]
    missing: tuple[str, ...]
    changes: tuple[Change, ...]
    unchanged: int
    within_rtol: int
    header_differs: bool
    order_differs: bool
    factor: float | None

    @property
    def same(self) -> bool:
        """Whether nothing that counts differs; the order of the lines does not."""
        return not (self.added or self.missing or self.changes or self.header_differs)

    @property
    def distinct(self) -> tuple[Change, ...]:
        """The changes without those that repeat another's two scales."""
        return tuple(change for change in self.changes if change.same_as is None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """Tensors that have the same scale in every file, and moved in at least one.

    Attributes:
        names: The tensors.
        before: Bits in the reference.
        changes: Per pair, how the first of them moved; ``None`` where it did not, or is missing.
        present: Per pair, whether the other file has the tensors.
    """

    names: tuple[str, ...]
    before: int
    changes: tuple[Change | None, ...]
    present: tuple[bool, ...]

    @property
    def distance(self) -> float:
        """The largest ``|log_ratio|``."""
        return max(abs(change.log_ratio) for change in self.changes if change is not None)


def compare(reference: ScaleSet, other: ScaleSet, rtol: float = 0.0) -> PairDiff:
    """Compare a file's scales with the reference's.

    Two scales are the same when their bits are, or when both are finite and ``|after - before| <= rtol * max(|before|, |after|)``,
    in float64, with ``rtol`` above 0. The rule is symmetric, so that both directions find the same changes.

    Args:
        reference: What to compare with.
        other: What to compare.
        rtol: The relative change to ignore, 0 or above; 0 asks for equal bits.
    """
    names = [name for name in reference.bits if name in other.bits]
    before = np.array([reference.bits[name] for name in names], np.uint32)
    after = np.array([other.bits[name] for name in names], np.uint32)
    equal = before == after
    near = ~equal & _close(before, after, rtol)
    moved = np.flatnonzero(~equal & ~near)
    changes, factor = _changes([names[i] for i in moved], before[moved], after[moved], (reference.facts, other.facts))
    headers = reference.header is not None and other.header is not None
    return PairDiff(
        matching=len(names),
        added=tuple(name for name in other.bits if name not in reference.bits),
        missing=tuple(name for name in reference.bits if name not in other.bits),
        changes=tuple(sorted(changes, key=lambda change: -abs(change.log_ratio))),
        unchanged=int(equal.sum()),
        within_rtol=int(near.sum()),
        header_differs=headers and reference.header != other.header,
        order_differs=names != [name for name in other.bits if name in reference.bits],
        factor=factor,
    )


def _close(before: NDArray[np.uint32], after: NDArray[np.uint32], rtol: float) -> NDArray[np.bool_]:
    if rtol <= 0:
        return np.zeros(before.shape, np.bool_)
    a, b = _values(before), _values(after)
    with np.errstate(invalid="ignore"):
        close = np.abs(b - a) <= rtol * np.maximum(np.abs(a), np.abs(b))
    return close & np.isfinite(a) & np.isfinite(b)


def _changes(
    names: list[str],
    before: NDArray[np.uint32],
    after: NDArray[np.uint32],
    facts: tuple[Mapping[str, RangeFacts], Mapping[str, RangeFacts]],
) -> tuple[list[Change], float | None]:
    """Measure every change and say why; also the factor that all have in common, where there is one."""
    a, b = _values(before), _values(after)
    with np.errstate(all="ignore"):
        ratios = b / a
        logs = np.abs(np.log(ratios)) * np.where(ratios < 1, -1.0, 1.0)
    logs[~np.isfinite(logs)] = np.inf
    logs[(a == 0) & (b == 0)] = 0.0
    ulps = np.abs(_ordinals(before) - _ordinals(after))
    without = np.isnan(a) | np.isnan(b)
    first: dict[tuple[int, int], str] = {}
    changes = []
    for i, name in enumerate(names):
        pair = int(before[i]), int(after[i])
        ulp = None if without[i] else int(ulps[i])
        leader = first.setdefault(pair, name)
        changes.append(
            Change(
                name=name,
                before=pair[0],
                after=pair[1],
                ratio=float(ratios[i]) if np.isfinite(ratios[i]) else None,
                ulp=ulp,
                log_ratio=float(logs[i]),
                reason=reason_of(float(a[i]), float(b[i]), ulp, (facts[0].get(name), facts[1].get(name))),
                same_as=None if leader == name else leader,
            )
        )
    return _with_common_factor(changes)


def _with_common_factor(changes: list[Change]) -> tuple[list[Change], float | None]:
    """Give the changes by one common factor that as their reason, where the factor is all that is known of them."""
    factor = common_factor([c.ratio for c in changes if c.same_as is None and c.kind not in ("rounding", "algorithm")])
    if factor is None:
        return changes, None
    reason = Reason("common-factor", f"x {factor:.7g}, as nearly all that moved")
    return [replace(c, reason=reason) if _is_by(c, factor) else c for c in changes], factor


def _is_by(change: Change, factor: float) -> bool:
    """Whether a change is by this factor and nothing better is known of it."""
    guessed = change.kind in ("doubled", "near-doubled", "no-pattern") and not change.reason.stated
    return guessed and change.ratio is not None and abs(change.ratio / factor - 1) <= COMMON


def _values(bits: NDArray[np.uint32]) -> NDArray[np.float64]:
    return bits.view(np.float32).astype(np.float64)


def _ordinals(bits: NDArray[np.uint32]) -> NDArray[np.int64]:
    """Map float32 bits to integers in the order of their values, as :func:`trtcalib.core.scale.ulp_distance` does one by one."""
    wide = bits.astype(np.int64)
    return np.where(wide & _SIGN_BIT, _SIGN_BIT - wide, wide)


def ranked_rows(reference: ScaleSet, pairs: tuple[PairDiff, ...], others: tuple[ScaleSet, ...]) -> list[Row]:
    """Return what moved in any file, one row per distinct change, the furthest first.

    Args:
        reference: What was compared with.
        pairs: One per other file.
        others: Those files.
    """
    by_name = [{change.name: change for change in pair.changes} for pair in pairs]
    groups: dict[tuple[int | None, ...], list[str]] = {}
    for name, bits in reference.bits.items():
        if any(name in changes for changes in by_name):
            groups.setdefault((bits, *(other.bits.get(name) for other in others)), []).append(name)
    rows = [
        Row(
            names=tuple(names),
            before=reference.bits[names[0]],
            changes=tuple(changes.get(names[0]) for changes in by_name),
            present=tuple(names[0] in other.bits for other in others),
        )
        for names in groups.values()
    ]
    return sorted(rows, key=lambda row: -row.distance)
