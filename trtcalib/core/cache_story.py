"""What moved two caches apart as a whole: each explanation a value, with how many changes speak for it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from trtcalib.core.cache import version_text
from trtcalib.core.cache_causes import COMMON, FEWEST, NEAR_DOUBLING, NEAR_DOUBLING_BY_CHANCE, Kind
from trtcalib.core.cache_diff import Change, PairDiff, ScaleSet
from trtcalib.core.scale import INT8_MAX

__all__ = ["Explanation", "ExplanationKind", "explain"]

Basis = Literal["headers", "names", "scales", "manifests"]

ExplanationKind = Literal[
    "header",
    "names",
    "odd",
    "zero",
    "model",
    "data",
    "batching",
    "recipe",
    "environment",
    "nothing-stated",
    "values",
    "range",
    "bin",
    "algorithm",
    "units",
    "common-factor",
    "doubled",
    "rounding",
    "no-pattern",
]

UNITS = {
    float(INT8_MAX): "one file holds amax where the other holds amax / 127",
    128 / INT8_MAX: "one file holds amax / 127 and the other amax / 128",
    127.5 / INT8_MAX: "one file holds amax / 127 and the other amax / 127.5",
}
"""Factors that come from how a scale is defined, not from data. TensorRT's is amax / 127; the others are written by other tools."""

PIXELS = 255
"""The largest value of a byte: data that were divided by it, or were not, move by this factor."""

FEW_NAMES = 0.5
"""Share of the shorter file's names that two files of one model share at least; below it they may be of different models. Ours."""

BEYOND_CHANCE = 4
"""How many times more factors near powers of two there must be than chance would give. Ours."""

_STATED: dict[Kind, str] = {
    "values": "saw another largest magnitude: other data, or another number of samples",
    "range": "started from another first maximum, or doubled another number of times: other batches, or another order",
    "bin": "have the same range and another bin: other values, or another search",
    "algorithm": "were made by another method: no bin on one side, or another amax of the same range",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """One thing that may have moved the scales.

    Attributes:
        kind: Which.
        basis: What it rests on: the headers, the names, the scales alone, or what the manifests state.
        sentence: In words, with its numbers.
        count: Changes that speak for it; tensors that moved between the same two scales count once.
        of: Changes that could.
    """

    kind: ExplanationKind
    basis: Basis
    sentence: str
    count: int
    of: int


def explain(pair: PairDiff, reference: ScaleSet, other: ScaleSet) -> tuple[Explanation, ...]:
    """Say what two files tell by themselves, the strongest evidence first; nothing where they are the same.

    Args:
        pair: What differs.
        reference: The file that was compared with.
        other: The other one.
    """
    distinct = pair.distinct
    return (
        *_headers(pair, reference, other),
        *_names(pair, reference, other),
        *_stated(distinct),
        *_algorithms(distinct, reference, other),
        *_factors(distinct, pair),
        *_special(distinct),
        *_doublings(distinct),
        *_rounding(distinct),
        *_no_pattern(distinct, pair, reference, other),
    )


def _headers(pair: PairDiff, reference: ScaleSet, other: ScaleSet) -> Iterator[Explanation]:
    if not pair.header_differs or reference.header is None or other.header is None:
        return
    (version, algorithm), (new_version, new_algorithm) = reference.header, other.header
    parts = []
    if version != new_version:
        parts.append(f"TensorRT {version_text(version)} -> {version_text(new_version)}")
    if algorithm != new_algorithm:
        parts.append(f"algorithm {algorithm} -> {new_algorithm}")
    alone = "" if pair.changes or pair.added or pair.missing else "; nothing else differs"
    yield Explanation(
        kind="header", basis="headers", sentence=f"other headers: {', '.join(parts)}{alone}", count=len(parts), of=2
    )


def _names(pair: PairDiff, reference: ScaleSet, other: ScaleSet) -> Iterator[Explanation]:
    shorter = min(len(reference.bits), len(other.bits))
    if pair.matching < FEW_NAMES * shorter:
        yield Explanation(
            kind="names",
            basis="names",
            sentence=f"only {pair.matching} of {shorter} names match: they are of different models, or of TensorRT versions whose parsers "
            "make other names",
            count=pair.matching,
            of=shorter,
        )


def _stated(distinct: Sequence[Change]) -> Iterator[Explanation]:
    """Count what the known ranges and bins show."""
    known = [change for change in distinct if change.reason.stated]
    kinds: tuple[Literal["algorithm", "values", "range", "bin"], ...] = ("algorithm", "values", "range", "bin")
    for kind in kinds:
        if count := _count(known, kind):
            sentence = f"{_share(count, distinct)} {_STATED[kind]}"
            yield Explanation(kind=kind, basis="manifests", sentence=sentence, count=count, of=len(distinct))


def _algorithms(distinct: Sequence[Change], reference: ScaleSet, other: ScaleSet) -> Iterator[Explanation]:
    half_bins = sum(change.kind == "algorithm" and not change.reason.stated for change in distinct)
    told = _other_algorithms(reference, other)
    if half_bins and (told or half_bins >= FEWEST):
        headers = "as the headers say" if told else "whatever the headers say"
        yield Explanation(
            kind="algorithm",
            basis="scales",
            sentence=f"{_share(half_bins, distinct)} are by the factor 2048.5 / 2048 that lies between entropy's last bin and MinMax: "
            f"other algorithms, {headers}",
            count=half_bins,
            of=len(distinct),
        )


def _factors(distinct: Sequence[Change], pair: PairDiff) -> Iterator[Explanation]:
    if pair.factor is None:
        return
    factor = pair.factor
    moved = [change for change in distinct if change.kind != "rounding"]
    count = sum(change.ratio is not None and abs(change.ratio / factor - 1) <= COMMON for change in moved)
    larger = max(factor, 1 / factor)
    unit = next((text for known, text in UNITS.items() if abs(larger / known - 1) <= COMMON), None)
    start = f"{_share(count, moved)} are by the same factor {factor:.7g}"
    if unit is not None:
        yield Explanation(
            kind="units",
            basis="scales",
            sentence=f"{start}: {unit}; TensorRT's is amax / 127",
            count=count,
            of=len(moved),
        )
        return
    hint = ", such as a missing division by 255" if abs(larger / PIXELS - 1) <= COMMON else ""
    yield Explanation(
        kind="common-factor",
        basis="scales",
        sentence=f"{start}: the data were scaled by it, as another normalisation does{hint}, or every scale was multiplied afterwards",
        count=count,
        of=len(moved),
    )


def _special(distinct: Sequence[Change]) -> Iterator[Explanation]:
    if count := _count(distinct, "zero"):
        sentence = (
            f"{_share(count, distinct)} are from or to zero, which TensorRT writes for a tensor that was all zero"
        )
        yield Explanation(kind="zero", basis="scales", sentence=sentence, count=count, of=len(distinct))
    if count := _count(distinct, "odd"):
        sentence = f"{_share(count, distinct)} hold a scale that is NaN, infinite or negative"
        yield Explanation(kind="odd", basis="scales", sentence=sentence, count=count, of=len(distinct))


def _doublings(distinct: Sequence[Change]) -> Iterator[Explanation]:
    guessed = [change for change in distinct if not change.reason.stated]
    exact, near = _count(guessed, "doubled"), _count(guessed, "near-doubled")
    chance = NEAR_DOUBLING_BY_CHANCE * len(guessed)
    if exact or near >= max(FEWEST, BEYOND_CHANCE * chance):
        yield Explanation(
            kind="doubled",
            basis="scales",
            sentence=f"{exact} of {len(distinct)} distinct changes are by exactly a power of two, and {near} more within {NEAR_DOUBLING:.0%} of "
            f"one, where chance would give about {chance:.1f}: ranges that doubled another number of times, as other first batches make them",
            count=exact + near,
            of=len(distinct),
        )


def _rounding(distinct: Sequence[Change]) -> Iterator[Explanation]:
    if count := _count(distinct, "rounding"):
        yield Explanation(
            kind="rounding",
            basis="scales",
            sentence=f"{_share(count, distinct)} are within 8 ULP: sums in another order, as on another device or by another version of "
            "what computed the activations; --rtol 1e-6 ignores them",
            count=count,
            of=len(distinct),
        )


def _no_pattern(
    distinct: Sequence[Change], pair: PairDiff, reference: ScaleSet, other: ScaleSet
) -> Iterator[Explanation]:
    moved = sorted(abs(math.expm1(change.log_ratio)) for change in distinct if change.kind == "no-pattern")
    if not moved:
        return
    if _other_algorithms(reference, other):
        verdict = "as other algorithms make them; whether data or batches are other ones too, scales alone do not tell"
    else:
        equal = (
            f"{pair.unchanged} of {pair.matching} scales are the same to the bit, as those of weights are, which no data can move"
            if pair.unchanged
            else "no scale is the same to the bit, not even that of a weight or an input: another model or method fits best"
        )
        verdict = (
            "another batch size or order, other data, another model or method; scales alone do not tell which. "
            + equal[0].upper()
            + equal[1:]
        )
    yield Explanation(
        kind="no-pattern",
        basis="scales",
        sentence=f"{_share(len(moved), distinct)} are by factors without a pattern (median change {moved[len(moved) // 2]:.2%}, largest "
        f"{moved[-1]:.2%}): {verdict}",
        count=len(moved),
        of=len(distinct),
    )


def _other_algorithms(reference: ScaleSet, other: ScaleSet) -> bool:
    """Whether both headers name an algorithm, and not the same."""
    return reference.header is not None and other.header is not None and reference.header[1] != other.header[1]


def _count(changes: Sequence[Change], kind: Kind) -> int:
    return sum(change.kind == kind for change in changes)


def _share(count: int, changes: Sequence[Change]) -> str:
    return f"{count} of {len(changes)} distinct changes"
