"""Which tensor of the model a name that it does not have most likely is now."""

from __future__ import annotations

import bisect
import difflib
import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from trtcalib.core.cache_scan import CacheScan
from trtcalib.linting.implied import full_range_bits, minmax_bits
from trtcalib.linting.model_view import ModelView

__all__ = ["Rename", "likely_renames"]

SIMILAR = 0.8
"""difflib's ratio from which names count as similar: one changed part of a path of five. Ours."""

MOST_SIMILAR = 50
"""Names whose similar ones are looked for: each is compared with every candidate. Ours."""

MOST_CANDIDATES = 1000
"""Candidates of such a comparison. Ours."""

LONGEST = 200
"""Characters of a name that are compared. Ours."""

_NUMBER = re.compile(r"[0-9]+")


@dataclass(frozen=True, slots=True)
class Rename:
    """A guess.

    Attributes:
        name: The model's tensor.
        why: What speaks for it.
    """

    name: str
    why: str


def likely_renames(scan: CacheScan, view: ModelView, made: frozenset[str]) -> dict[str, Rename]:
    """Return for names that the model does not have what they are likely called now.

    What is tried, the surest first; every tensor of the model that has no scale is given away once:

    - a constant whose values imply the very scale, where both are the only ones;
    - a name that differs in its numbers only, between the same neighbours;
    - as many names that differ in their numbers only as tensors, in the same order: exporters count (``onnx::Conv_329``);
    - as many names between two neighbours as tensors between them in the model;
    - the most similar name.

    Args:
        scan: The cache.
        view: The model.
        made: Names that TensorRT's parser made, which are left alone.
    """
    known = {entry.name: entry.bits for entry in scan.entries}
    stale = [name for name in known if name not in view.names and name not in made]
    free = [tensor for tensor in view.tensors if tensor not in known and tensor not in view.from_shapes]
    if not stale or not free:
        return {}
    places = dict(_by_place(list(known), list(view.tensors), stale, free))
    guesses = [
        _by_value(stale, free, known, view),
        ((old, new, "the same place and the same name but for its number") for old, new in places.items() if _shape(old) == _shape(new)),
        _by_number(stale, free),
        ((old, new, "the same place between the same neighbours") for old, new in places.items()),
    ]  # fmt: skip
    found: dict[str, Rename] = {}
    given: set[str] = set()
    for guess in guesses:
        for old, new, why in guess:
            if old not in found and new not in given:
                found[old] = Rename(new, why)
                given.add(new)
    for old, new in _similar([name for name in stale if name not in found], [n for n in free if n not in given]):
        found[old] = Rename(new, "the most similar name")
    return found


def _by_value(
    stale: list[str], free: list[str], bits: dict[str, int], view: ModelView
) -> Iterator[tuple[str, str, str]]:
    """Match by the scale that a constant's values imply when its whole range is kept."""
    by_bits: dict[int, list[str]] = {}
    for name in stale:
        by_bits.setdefault(bits[name], []).append(name)
    implied: dict[int, set[str]] = {}
    for name in free:
        maximum = view.maxima.get(name, 0.0)
        if maximum > 0:
            for each in (minmax_bits(maximum), full_range_bits(maximum)):
                implied.setdefault(each, set()).add(name)
    for each, names in by_bits.items():
        candidates = implied.get(each, set())
        if len(names) == len(candidates) == 1:
            yield names[0], next(iter(candidates)), "its values imply this very scale"


def _shape(name: str) -> str:
    return _NUMBER.sub("#", name)


def _by_number(stale: list[str], free: list[str]) -> Iterator[tuple[str, str, str]]:
    """Pair names that differ in their numbers only, in order, where there are as many of both."""
    olds: dict[str, list[str]] = {}
    news: dict[str, list[str]] = {}
    for names, groups in ((stale, olds), (free, news)):
        for name in names:
            groups.setdefault(_shape(name), []).append(name)
    for shape, group in olds.items():
        if len(group) == len(news.get(shape, ())):
            why = "the same name but for its number" + (", in the same order" if group[1:] else "")
            yield from ((old, new, why) for old, new in zip(group, news[shape], strict=True))


def _by_place(
    cached: Sequence[str], modelled: Sequence[str], stale: Sequence[str], free: Sequence[str]
) -> Iterator[tuple[str, str]]:
    """Pair what lies between the same neighbours in the cache and in the model, where there is as much of both."""
    index = {name: place for place, name in enumerate(modelled)}
    old, new = set(stale), set(free)
    shared = [(place, index[name]) for place, name in enumerate(cached) if name in index]
    anchors = [(-1, -1), *_increasing(shared), (len(cached), len(modelled))]
    for (start, first), (stop, last) in itertools.pairwise(anchors):
        olds = [name for name in cached[start + 1 : stop] if name not in index]
        news = [name for name in modelled[first + 1 : last] if name in new]
        if len(olds) == len(news) and old.issuperset(olds):
            yield from zip(olds, news, strict=True)


def _increasing(pairs: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the longest part of pairs, in order of their first numbers, whose second numbers grow."""
    ends: list[int] = []
    tails: list[int] = []
    before: list[int] = []
    for place, (_, value) in enumerate(pairs):
        length = bisect.bisect_left(ends, value)
        before.append(tails[length - 1] if length else -1)
        ends[length : length + 1] = [value]
        tails[length : length + 1] = [place]
    chain: list[tuple[int, int]] = []
    place = tails[-1] if tails else -1
    while place >= 0:
        chain.append(pairs[place])
        place = before[place]
    return chain[::-1]


def _similar(stale: list[str], free: list[str]) -> Iterator[tuple[str, str]]:
    left = {name[:LONGEST]: name for name in free[:MOST_CANDIDATES]}
    for old in stale[:MOST_SIMILAR]:
        for match in difflib.get_close_matches(old[:LONGEST], list(left), 1, SIMILAR):
            yield old, left.pop(match)
