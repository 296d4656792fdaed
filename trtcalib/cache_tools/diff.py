"""Files of scales side by side, the first one the reference: what differs, and which explanation fits."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from trtcalib.cache_tools.provenance_diff import explain_manifests
from trtcalib.cache_tools.scale_files import ScaleFile, read_scales
from trtcalib.core.cache import version_text
from trtcalib.core.cache_diff import Change, PairDiff, Row, ScaleSet, compare, ranked_rows
from trtcalib.core.cache_story import Explanation, explain
from trtcalib.core.scale import scale_from_bits
from trtcalib.errors import CacheMismatchError, SpecError

__all__ = ["FilePair", "ScaleDiff", "diff_files"]

SHOWN_NAMES = 3
"""Names of each file in the error about files without a common name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FilePair:
    """One file against the reference.

    Attributes:
        file: The other file.
        diff: What differs.
        explanations: What may have caused it; what the manifests state first.
    """

    file: ScaleFile
    diff: PairDiff
    explanations: tuple[Explanation, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaleDiff:
    """The result.

    Attributes:
        reference: The first file.
        pairs: One per other file.
        rtol: The relative change that was ignored.
    """

    reference: ScaleFile
    pairs: tuple[FilePair, ...]
    rtol: float

    @property
    def same(self) -> bool:
        """Whether no file differs from the first."""
        return all(pair.diff.same for pair in self.pairs)

    @property
    def rows(self) -> list[Row]:
        """What moved in any file, one row per distinct change, the furthest first."""
        others = tuple(pair.file.scales for pair in self.pairs)
        return ranked_rows(self.reference.scales, tuple(pair.diff for pair in self.pairs), others)

    def as_json(self) -> dict[str, Any]:
        """Return it as plain values; numbers that JSON cannot hold are null, and the hexadecimal bits always tell."""
        return {
            "schema_version": 1,
            "same": self.same,
            "rtol": self.rtol,
            "files": [_file(file) for file in (self.reference, *(pair.file for pair in self.pairs))],
            "pairs": [_pair(pair, self.reference.scales) for pair in self.pairs],
        }


def diff_files(paths: Sequence[Path], rtol: float = 0.0, names: Mapping[str, str] | None = None) -> ScaleDiff:
    """Compare files of scales with the first one.

    Args:
        paths: Two or more.
        rtol: The relative change to ignore, see :func:`trtcalib.core.cache_diff.compare`.
        names: Another name for tensors, in every file: that of the model for one that TensorRT's parser made.

    Raises:
        ValueError: If there are fewer than two.
        CacheFormatError: If one cannot be read.
        CacheMismatchError: If one has no name in common with the first.
        SpecError: If no name of the map stands in any file.
    """
    if len(paths) < 2:  # noqa: PLR2004 - a comparison
        raise ValueError(f"got {len(paths)} files, expected two or more to compare")
    files = [read_scales(path) for path in paths]
    if names:
        if not any(name in file.scales.bits for name in names for file in files):
            raise SpecError("--names", (f"none of its {len(names)} names stands in any of the files",))
        files = [replace(file, scales=_renamed(file.scales, names)) for file in files]
    reference, others = files[0], files[1:]
    for other in others:
        _check_common(reference, other)
    return ScaleDiff(reference=reference, pairs=tuple(_compared(reference, other, rtol) for other in others), rtol=rtol)


def _renamed(scales: ScaleSet, names: Mapping[str, str]) -> ScaleSet:
    """Rename tensors; a tensor that has the new name already goes before one that would get it."""
    kept = {name: names.get(name, name) for name in scales.bits}
    kept = {name: new for name, new in kept.items() if new == name or new not in scales.bits}
    return replace(
        scales,
        bits={new: scales.bits[name] for name, new in kept.items()},
        facts={new: scales.facts[name] for name, new in kept.items() if name in scales.facts},
    )


def _check_common(reference: ScaleFile, other: ScaleFile) -> None:
    """Refuse two files without a common name.

    Raises:
        CacheMismatchError: If there is none.
    """
    if reference.scales.bits.keys() & other.scales.bits.keys():
        return
    ours, theirs = (_first_names(file) for file in (reference, other))
    raise CacheMismatchError(
        other.path,
        f"none of its {len(other.scales.bits)} names is one of the {len(reference.scales.bits)} in {reference.path}: they are of different "
        f"models, or of TensorRT versions whose parsers make other names, which --names can map; it starts with {theirs}, the other with {ours}",
    )


def _first_names(file: ScaleFile) -> str:
    names = [name if len(name) <= 40 else name[:40] + "…" for name in list(file.scales.bits)[:SHOWN_NAMES]]  # noqa: PLR2004 - what fits a line
    return ", ".join(map(repr, names)) or "nothing"


def _compared(reference: ScaleFile, other: ScaleFile, rtol: float) -> FilePair:
    diff = compare(reference.scales, other.scales, rtol)
    explanations: tuple[Explanation, ...] = ()
    if not diff.same:
        stated = () if not diff.changes else explain_manifests(reference.manifest, other.manifest, len(diff.distinct))
        explanations = (*stated, *explain(diff, reference.scales, other.scales))
    return FilePair(file=other, diff=diff, explanations=explanations)


def _file(file: ScaleFile) -> dict[str, Any]:
    version, algorithm = file.scales.header or (None, None)
    return {
        "path": _text(str(file.path)),
        "format": file.format,
        "header": None if file.header is None else _text(file.header),
        "tensorrt_version": None if version is None else version_text(version),
        "algorithm": None if algorithm is None else _text(algorithm),
        "tensors": len(file.scales.bits),
        "manifest": file.manifest is not None,
        "notes": [_text(note) for note in file.notes],
    }


def _pair(pair: FilePair, reference: ScaleSet) -> dict[str, Any]:
    diff = pair.diff
    return {
        "path": _text(str(pair.file.path)),
        "same": diff.same,
        "matching": diff.matching,
        "unchanged": diff.unchanged,
        "within_rtol": diff.within_rtol,
        "header_differs": diff.header_differs,
        "order_differs": diff.order_differs,
        "added": [_text(name) for name in diff.added],
        "missing": [_text(name) for name in diff.missing],
        "changes": [_change(change, reference, pair.file.scales) for change in diff.changes],
        "explanations": [{**asdict(found), "sentence": _text(found.sentence)} for found in pair.explanations],
    }


def _change(change: Change, reference: ScaleSet, other: ScaleSet) -> dict[str, Any]:
    return {
        "name": _text(change.name),
        "before": _number(float(scale_from_bits(change.before))),
        "before_hex": f"{change.before:x}",
        "after": _number(float(scale_from_bits(change.after))),
        "after_hex": f"{change.after:x}",
        "ratio": change.ratio,
        "log_ratio": _number(change.log_ratio),
        "ulp": change.ulp,
        "kind": change.kind,
        "stated": change.reason.stated,
        "reason": change.reason.text,
        "same_as": None if change.same_as is None else _text(change.same_as),
        "facts_before": _facts(reference, change.name),
        "facts_after": _facts(other, change.name),
    }


def _facts(scales: ScaleSet, name: str) -> dict[str, Any] | None:
    facts = scales.facts.get(name)
    return None if facts is None else asdict(facts)


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _text(name: str) -> str:
    """Return text that JSON readers take: what is no UTF-8 escaped."""
    return name.encode("utf-8", "backslashreplace").decode()
