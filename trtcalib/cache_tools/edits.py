"""Merge, convert, rename and set: calibration caches in, one cache with its provenance out."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from trtcalib.cache_tools.edited import Edited, EditSource, Request, finish, read_source
from trtcalib.core.cache import ALGORITHMS, encode_version, is_writable, version_text
from trtcalib.core.cache_edit import How, convert_header, line_numbers, merge_caches, rename_tensors, set_scales
from trtcalib.core.scale import scale_from_amax
from trtcalib.errors import CacheMismatchError, SpecError
from trtcalib.spec_files import brief, nearest

__all__ = ["algorithm_named", "convert_cache", "merge_files", "parse_assignments", "rename_in_cache", "set_in_cache"]

ALGORITHM_OF_METHOD = {"entropy": "EntropyCalibration2", "minmax": "MinMaxCalibration"}
"""What the command line takes for an algorithm beside its name in headers."""

_NUMBER = re.compile(
    r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,4})?|[+-]?(?:inf|infinity|nan)", re.IGNORECASE
)

_SHOWN = 5
"""Tensors that a sentence names."""

_HINTED = 20
"""Unknown names for which a near one is searched: that takes a millisecond per thousand names of a cache."""


def merge_files(paths: Sequence[Path], how: How, output: Path, *, strict: bool = False) -> Edited:
    """Merge caches, see :func:`trtcalib.core.cache_edit.merge_caches`.

    Args:
        paths: Two or more; the result has the first one's header and order.
        how: Which scale a tensor gets that several have.
        output: Where the result is to stand.
        strict: Refuse names that not every cache has.

    Raises:
        ValueError: If there are fewer than two.
        CacheFormatError: If one is no calibration cache.
        CacheMismatchError: If their algorithms differ, or with ``strict`` their names.
        SpecError: If a scale is NaN or negative.
    """
    if len(paths) < 2:  # noqa: PLR2004 - a merge
        raise ValueError(f"got {len(paths)} caches, expected two or more to merge")
    sources = [read_source(path) for path in paths]
    first = sources[0].cache
    for source in sources[1:]:
        if source.cache.algorithm != first.algorithm:
            raise CacheMismatchError(
                source.path,
                f"its scales are by {source.cache.algorithm}, those of {paths[0]} by {first.algorithm}: two methods have no common scale. To "
                f"merge them all the same, give it the other header first: trtcalib cache convert --algorithm {first.algorithm}",
            )
    for source in sources:
        _check_mergeable(source)
    merged = merge_caches([source.cache for source in sources], how)
    if strict and merged.partial:
        raise CacheMismatchError(
            _lacking(sources, merged.partial[0]).path,
            f"{_tensors(merged.partial)} not in every cache, and --strict asks for the same names in all",
        )
    notes = tuple(_merge_notes(sources, merged.partial, merged.zeros_left_out))
    request = Request(command="merge", output=output, detail={"how": how, "strict": strict}, notes=notes)
    return finish(sources, merged.cache, request)


def _check_mergeable(source: EditSource) -> None:
    faults = [
        f"line {number}: tensor {brief(entry.name)} has the scale {entry.scale}, which cannot be merged: give it one with trtcalib cache set"
        for number, entry in zip(line_numbers(source.cache), source.cache.entries, strict=True)
        if not entry.scale >= 0
    ]
    if faults:
        raise SpecError(source.path, tuple(faults))


def _lacking(sources: Sequence[EditSource], name: str) -> EditSource:
    return next(source for source in sources if name not in source.cache.scales)


def _tensors(names: Sequence[str]) -> str:
    """Return ``tensors 'a', 'b' and 3 more are``."""
    shown = ", ".join(brief(name) for name in names[:_SHOWN])
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"tensor {shown} is" if len(names) == 1 else f"tensors {shown}{more} are"


def _merge_notes(sources: Sequence[EditSource], partial: Sequence[str], zeros: Sequence[str]) -> Iterator[str]:
    if partial:
        yield f"{_tensors(partial)} not in every cache: the scale comes from those that have it"
    if zeros:
        yield f"{_tensors(zeros)} all zero in some caches, which were left out there: they tell of no range"
    versions = list(dict.fromkeys(source.cache.version for source in sources))
    if len(versions) > 1:
        found = ", ".join(map(version_text, versions))
        yield f"the caches are of TensorRT {found}: the result has the first one's header"
    for source in sources[1:]:
        yield from _provenance_notes(sources[0], source)


def _provenance_notes(first: EditSource, other: EditSource) -> Iterator[str]:
    """Say where the manifest, which states what the first cache is from, does not speak for another one."""
    if first.manifest is None:
        return
    if other.manifest is None:
        yield f"nothing is known of the model and the data that {other.path} is from: the manifest states those of {first.path}"
        return
    was, now = first.manifest.provenance, other.manifest.provenance
    pairs = {
        "another model": (was.model.model_copy(update={"path": ""}), now.model.model_copy(update={"path": ""})),
        "other data": (was.data.sha256, now.data.sha256),
        "other batches": (was.batching, now.batching),
        "another recipe": (first.manifest.recipe, other.manifest.recipe),
    }
    differing = [what for what, (then, here) in pairs.items() if then != here]
    if differing:
        yield f"{other.path} is from {', '.join(differing)}: the manifest states those of {first.path}"


def convert_cache(path: Path, output: Path, *, tensorrt_version: str | None, algorithm: str | None) -> Edited:
    """Give a cache another header; the scales stay.

    Args:
        path: The cache.
        output: Where the result is to stand.
        tensorrt_version: Such as ``10.16.1``; ``None``: as it is.
        algorithm: One of :data:`trtcalib.core.cache.ALGORITHMS`; ``None``: as it is.

    Raises:
        CacheFormatError: If it is no calibration cache.
        TensorRTVersionError: If the version is malformed, or is 11 or later.
    """
    version = None if tensorrt_version is None else encode_version(tensorrt_version)
    source = read_source(path)
    was = source.cache
    cache = convert_header(
        was, was.version if version is None else version, was.algorithm if algorithm is None else algorithm
    )
    notes = []
    if cache.algorithm != was.algorithm:
        notes.append(
            f"the numbers stay those of {was.algorithm}: TensorRT will take them as they are; they are not what its {cache.algorithm} would "
            "compute"
        )
    if cache.version // 100 != was.version // 100:  # another major or minor
        notes.append(
            "scales mean the same in every version, but names that TensorRT's parser makes itself, such as '(Unnamed Layer* 4) "
            "[Shuffle]_output', may be others there: a tensor whose name it does not find has no scale"
        )
    if cache.header == was.header:
        notes.append(f"the header was {was.header} already")
    detail = {"from": was.header.encode("utf-8", "backslashreplace").decode(), "to": cache.header}
    request = Request(command="convert", output=output, detail=detail, notes=tuple(notes))
    return finish([source], cache, request)


def algorithm_named(name: str) -> str:
    """Return the algorithm as headers spell it.

    Raises:
        ValueError: If there is none of that name.
    """
    found = ALGORITHM_OF_METHOD.get(name, name)
    if found not in ALGORITHMS:
        valid = (*ALGORITHM_OF_METHOD, *ALGORITHMS)
        raise ValueError(f"{brief(name)} is no algorithm{nearest(name, valid)}: expected one of {', '.join(valid)}")
    return found


def rename_in_cache(path: Path, names: Mapping[str, str], output: Path, *, where: Path | str = "--map") -> Edited:
    """Rename tensors, all at once, so that two can change places.

    Args:
        path: The cache.
        names: The new name per old one.
        output: Where the result is to stand.
        where: What the names come from, for errors.

    Raises:
        CacheFormatError: If it is no calibration cache.
        SpecError: If a name is not in the cache, two tensors would have one name, or a name cannot stand in a cache; all of them at once.
    """
    source = read_source(path)
    faults = tuple(_rename_faults(list(source.cache.scales), names, path))
    if faults:
        raise SpecError(where, faults)
    request = Request(command="rename", output=output, detail={"names": _portable(names)}, renamed=names)
    return finish([source], rename_tensors(source.cache, names), request)


def _rename_faults(known: Sequence[str], names: Mapping[str, str], path: Path) -> Iterator[str]:
    if not names:
        yield "names no tensor: expected OLD-NAME: NEW-NAME"
    known_names, hints = set(known), _HINTED
    taken = Counter(new for old, new in names.items() if old in known_names)
    for old, new in names.items():
        if old not in known_names:
            yield f"{brief(old)}: no such tensor in {path}{nearest(old, known) if hints > 0 else ''}"
            hints -= 1
        elif not is_writable(new):
            yield f"{brief(old)}: the new name {brief(new)} cannot stand on a line of a calibration cache"
        elif taken[new] > 1:
            yield f"{brief(old)}: {taken[new]} tensors would be called {brief(new)}"
        elif new in known_names and new not in names:
            yield f"{brief(old)}: {path} has a tensor {brief(new)} already, which is not renamed itself"


def _portable(names: Mapping[str, str]) -> dict[str, str]:
    return {
        old.encode("utf-8", "backslashreplace").decode(): new.encode("utf-8", "backslashreplace").decode()
        for old, new in names.items()
    }


def parse_assignments(texts: Sequence[str], *, allow_zero: bool = False) -> dict[str, np.float32]:
    """Return the scale per tensor from ``TENSOR=AMAX``; the name may hold ``=`` itself.

    Returns:
        ``f32(f32(amax) / 127)`` per tensor, in the order given.

    Raises:
        SpecError: If a text is none, or an amax is no finite number above 0; all of them at once.
    """
    found: dict[str, np.float32] = {}
    faults = []
    for text in texts:
        name, separator, number = text.rpartition("=")
        fault = _assignment_fault(name, separator, number.strip(), allow_zero=allow_zero)
        if fault is None and name in found:
            fault = "the tensor stands twice"
        if fault is None:
            found[name] = _scale(number)
        else:
            faults.append(f"{brief(text)}: {fault}")
    if faults:
        raise SpecError("TENSOR=AMAX", tuple(faults))
    return found


def _scale(number: str) -> np.float32:
    with np.errstate(all="ignore"):
        return scale_from_amax(np.float32(float(number)))


def _assignment_fault(name: str, separator: str, number: str, *, allow_zero: bool) -> str | None:
    if not separator or not name:
        return "expected TENSOR=AMAX, such as conv1=3.5"
    if not is_writable(name):
        return f"the name {brief(name)} cannot stand on a line of a calibration cache"
    if _NUMBER.fullmatch(number) is None:
        return f"{brief(number)} is no number; expected an amax, such as conv1=3.5"
    amax, scale = float(number), _scale(number)
    if not np.isfinite(scale):
        return f"the amax {number} is not finite in float32"
    if amax < 0:
        return f"the amax {number} is negative: it is the largest |x| that INT8 is to hold"
    if amax > 0 and scale == 0:
        return f"the amax {number} is too small: its scale is 0 in float32"
    if amax == 0 and not allow_zero:
        return "the amax is 0, which TensorRT writes for a tensor that was all zero: --allow-zero if that is meant"
    return None


def set_in_cache(path: Path, scales: Mapping[str, np.float32], output: Path, *, add: bool = False) -> Edited:
    """Give tensors other scales.

    Args:
        path: The cache.
        scales: Per tensor, as :func:`parse_assignments` gives them.
        output: Where the result is to stand.
        add: Add tensors that the cache lacks, at its end.

    Raises:
        CacheFormatError: If it is no calibration cache.
        SpecError: If the cache lacks a tensor and ``add`` is not given; all of them at once.
    """
    source = read_source(path)
    known = source.cache.scales
    unknown = [name for name in scales if name not in known]
    if unknown and not add:
        hints = [nearest(name, known) for name in unknown[:_HINTED]] + [""] * len(unknown)
        faults = (
            f"no such tensor: {brief(name)}{hint}; --add adds it" for name, hint in zip(unknown, hints, strict=False)
        )
        raise SpecError(path, tuple(faults))
    detail = {"scale_hex": {name: f"{scale.view(np.uint32):x}" for name, scale in scales.items()}}
    detail["scale_hex"] = _portable(detail["scale_hex"])
    times = Counter(entry.name for entry in source.cache.entries)
    notes = tuple(
        f"tensor {brief(n)} stands {times[n]} times: all its lines were changed" for n in scales if times[n] > 1
    )
    request = Request(command="set", output=output, detail=detail, notes=notes)
    return finish([source], set_scales(source.cache, scales), request)
