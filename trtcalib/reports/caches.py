"""Calibration caches side by side, and beside the study that they may have come from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from trtcalib.batch_study.result import Study
from trtcalib.core.cache import oddities, version_text
from trtcalib.core.scale import scale_from_bits
from trtcalib.reports.inputs import CacheFile, Results
from trtcalib.reports.result import CacheComparison, CacheRow, CacheScale, ReportedCache

__all__ = ["MOVED", "compare_caches"]

MOVED = 0.01
"""Relative change of a scale from which a tensor counts as moved, as in a study."""

Bits = Mapping[str, int]
"""float32 bits of the scale per tensor name."""

Place = Callable[[Path], str]
"""How a file is called in the report."""


def compare_caches(results: Results, place: Place) -> CacheComparison | None:
    """Compare caches with the first of them, or with the reference of the study where one was given; ``None`` without caches."""
    if not results.caches:
        return None
    bits = [_bits(file) for file in results.caches]
    study = results.studies[0].study if results.studies else None
    caches: list[ReportedCache] = []
    first = _reference(study) if study is not None else bits[0]
    labels = _labels([file.path for file in results.caches], place)
    for file, label, own in zip(results.caches, labels, bits):
        caches.append(_cache(file, label, own, first, study, place))
    if study is not None:
        bits.insert(0, first)
        caches.insert(0, _study_as_cache(study, first))
    names = dict.fromkeys(name for own in bits for name in own)
    return CacheComparison(caches=caches, rows=[_row(name, bits) for name in names])


def _bits(file: CacheFile) -> Bits:
    return {entry.name.encode("utf-8", "backslashreplace").decode(): entry.bits for entry in file.cache.entries}


def _reference(study: Study) -> Bits:
    return {tensor.name: int(tensor.scale_hex, 16) for tensor in study.tensors}


def _labels(paths: Sequence[Path], place: Place) -> list[str]:
    """Return the files' names, with their folders where two have the same."""
    times = Counter(path.name for path in paths)
    names = [path.name if times[path.name] == 1 else place(path) for path in paths]
    return [name.encode("utf-8", "backslashreplace").decode() for name in names]


def _cache(file: CacheFile, label: str, own: Bits, first: Bits, study: Study | None, place: Place) -> ReportedCache:
    facts = file.manifest
    common = [name for name in own if name in first]
    closest = _closest(study, own) if study is not None else None
    return ReportedCache(
        label=label,
        file=place(file.path),
        header=file.cache.header,
        tensorrt_version=version_text(file.cache.version),
        algorithm=file.cache.algorithm,
        tensors=len(own),
        method=None if facts is None else str(facts.recipe.get("method", "")) or None,
        batch_size=None if facts is None else facts.provenance.batching.batch_size,
        shuffle=None if facts is None else facts.provenance.batching.shuffle,
        samples=None if facts is None else facts.provenance.data.samples,
        model_sha256=None if facts is None else facts.provenance.model.sha256,
        common=len(common),
        equal=sum(own[name] == first[name] for name in common),
        moved=sum(_has_moved(own[name], first[name]) for name in common),
        closest=None if closest is None else closest[0],
        closest_equal=None if closest is None else closest[1],
        oddities=[text.encode("utf-8", "backslashreplace").decode() for text in oddities(file.cache)],
    )


def _has_moved(bits: int, first: int) -> bool:
    if bits == first:
        return False
    ratio = _ratio(bits, first)
    return ratio is None or abs(ratio - 1) > MOVED


def _closest(study: Study, own: Bits) -> tuple[str, int] | None:
    """Return the configuration that shares most scales with a cache, to the bit, and how many; the first of equals."""
    best: tuple[str, int] | None = None
    for position, configuration in enumerate(study.configurations):
        shared = sum(
            own.get(tensor.name) == int(tensor.outcomes[position].scale_hex, 16)
            for tensor in study.tensors
            if tensor.outcomes
        )
        if shared and (best is None or shared > best[1]):
            best = (configuration.name, shared)
    return best


def _study_as_cache(study: Study, own: Bits) -> ReportedCache:
    reference = next(c for c in study.configurations if c.name == study.reference)
    return ReportedCache(
        label=f"study: {study.reference}",
        file=None,
        header=f"{study.tensorrt_version} {study.algorithm}",
        tensorrt_version=study.tensorrt_version,
        algorithm=study.algorithm,
        tensors=len(own),
        method=study.method,
        batch_size=reference.batch_size,
        shuffle=reference.shuffle,
        samples=study.data.samples,
        model_sha256=study.model.sha256,
        common=len(own),
        equal=len(own),
        moved=0,
        closest=None,
        closest_equal=None,
        oddities=[],
    )


def _row(name: str, bits: Sequence[Bits]) -> CacheRow:
    first = bits[0].get(name)
    scales = [None if name not in own else _scale(own[name], first) for own in bits]
    ratios = [abs(scale.ratio - 1) for scale in scales if scale is not None and scale.ratio is not None]
    return CacheRow(name=name, scales=scales, apart=max(ratios) if len(ratios) > 1 else None)


def _scale(bits: int, first: int | None) -> CacheScale:
    scale = scale_from_bits(bits)
    return CacheScale(
        scale=float(scale) if np.isfinite(scale) else None,
        scale_hex=f"{bits:x}",
        ratio=None if first is None else _ratio(bits, first),
    )


def _ratio(bits: int, first: int) -> float | None:
    """Return scale / first scale; ``None`` where that is no finite number."""
    scale, base = float(scale_from_bits(bits)), float(scale_from_bits(first))
    ratio = scale / base if base else float("nan")
    return ratio if np.isfinite(ratio) else None
