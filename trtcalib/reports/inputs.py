"""Read the results that a report is made of: which kind a file is, told by its content."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from trtcalib.accuracy.result import SCHEMA_VERSION as ACCURACY_VERSION
from trtcalib.batch_study.result import SCHEMA_VERSION, Study, read_study
from trtcalib.calibration import Calibration
from trtcalib.core.cache import CalibrationCache, parse_cache
from trtcalib.errors import CacheFormatError, HistogramError, SpecError
from trtcalib.files import sha256_of
from trtcalib.histogram_file import load_histograms
from trtcalib.manifest import Manifest, manifest_path, read_manifest
from trtcalib.reports.accuracy_inputs import FILES, KINDS, AccuracyFile, read_accuracy

__all__ = ["CacheFile", "HistogramFile", "Results", "StudyFile", "files_of", "read_results"]

STUDY = "study.json"
"""The file in a study's folder."""

_IN_FOLDER = (*FILES, STUDY, f"study/{STUDY}")
"""What is looked for in a folder: trtcalib advise has its study in a folder of its own, inside."""

_LARGEST = 1 << 30
"""Bytes up to which a JSON file or a cache is read: a study of 100,000 tensors in 16 configurations is about 0.9 GB."""

_HEX = re.compile(r"[0-9a-f]{1,8}")

_EXPECTED = (
    "expected a study's folder or its study.json, what evaluate, ablate, sweep, sensitivity or advise wrote, "
    "a file that calibrate --histograms wrote, or a calibration cache"
)


@dataclass(frozen=True, slots=True)
class HistogramFile:
    """A histogram file.

    Attributes:
        path: Where it stands.
        sha256: Of its bytes.
        collected: What it holds.
    """

    path: Path
    sha256: str
    collected: Calibration


@dataclass(frozen=True, slots=True)
class StudyFile:
    """A study with the histogram files beside it.

    Attributes:
        path: Its study.json.
        sha256: Of its bytes.
        study: What it holds.
        histograms: By configuration; without those that are missing.
        missing: Histogram files that it names and that do not stand beside it.
    """

    path: Path
    sha256: str
    study: Study
    histograms: Mapping[str, HistogramFile] = field(default_factory=dict)
    missing: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CacheFile:
    """A calibration cache, with its manifest where that stands beside it and is of this cache.

    Attributes:
        path: Where it stands.
        sha256: Of its bytes.
        cache: What it holds.
        manifest: ``None`` without one.
        stale: A manifest stands there and is of other bytes.
    """

    path: Path
    sha256: str
    cache: CalibrationCache
    manifest: Manifest | None = None
    stale: bool = False


@dataclass(frozen=True, slots=True)
class Results:
    """Everything that was given, by kind, in the order given; what was given twice stands once."""

    studies: tuple[StudyFile, ...]
    histograms: tuple[HistogramFile, ...]
    caches: tuple[CacheFile, ...]
    accuracy: tuple[AccuracyFile, ...] = ()


def read_results(paths: Iterable[Path]) -> Results:
    """Read results of any kinds.

    Raises:
        SpecError: If a file is of no known kind, or a study, a manifest or a result of accuracy is damaged or newer.
        HistogramError: If a histogram file is damaged or newer.
        CacheFormatError: If a calibration cache is damaged.
    """
    found = [_read(path) for path in _distinct(paths)]
    return Results(
        studies=tuple(result for result in found if isinstance(result, StudyFile)),
        histograms=tuple(result for result in found if isinstance(result, HistogramFile)),
        caches=tuple(result for result in found if isinstance(result, CacheFile)),
        accuracy=tuple(result for result in found if isinstance(result, AccuracyFile)),
    )


def files_of(path: Path) -> tuple[Path, ...]:
    """Return the results that a folder holds, in the order of a report; a file stands for itself."""
    if not path.is_dir():
        return (path,)
    return tuple(file for file in (path / name for name in _IN_FOLDER) if file.is_file())


def _distinct(paths: Iterable[Path]) -> Iterator[Path]:
    seen: set[Path] = set()
    for path in paths:
        files = files_of(path)
        if not files:
            raise SpecError(path, (f"a folder without {STUDY} or {', '.join(FILES)}: expected one of them, or files",))
        for file in files:
            if file.resolve() not in seen:
                seen.add(file.resolve())
                yield file


def _read(path: Path) -> StudyFile | HistogramFile | CacheFile | AccuracyFile:
    start = _start_of(path)
    if start.startswith(b"PK"):
        return HistogramFile(path, sha256_of(path), load_histograms(path))
    if start.startswith(b"TRT-"):
        return _read_cache(path)
    if start.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{"):
        return _read_json(path)
    raise SpecError(path, (f"no result that a report can show: {_EXPECTED}",))


def _start_of(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            start = file.read(64)
        if not start.startswith(b"PK") and path.stat().st_size > _LARGEST:
            raise SpecError(path, (f"has more than {_LARGEST} bytes, too many for a result: {_EXPECTED}",))
    except FileNotFoundError as error:
        raise SpecError(path, (f"no such file: {_EXPECTED}",)) from error
    except (OSError, ValueError) as error:
        raise SpecError(path, (f"cannot be read: {getattr(error, 'strerror', None) or error}",)) from error
    return start


def _read_cache(path: Path) -> CacheFile:
    try:
        cache = parse_cache(path.read_bytes())
    except CacheFormatError as error:
        raise CacheFormatError(path, error.line, error.reason) from error
    except OSError as error:
        raise CacheFormatError(path, 0, f"cannot be read: {error.strerror}") from error
    digest = sha256_of(path)
    manifest = read_manifest(manifest_path(path)) if manifest_path(path).is_file() else None
    if manifest is not None and manifest.cache_sha256 != digest:
        return CacheFile(path, digest, cache, stale=True)
    return CacheFile(path, digest, cache, manifest)


class _Envelope(BaseModel):
    model_config = ConfigDict(extra="ignore")

    kind: Any = None
    schema_version: Any = None
    cache_sha256: Any = None


def _read_json(path: Path) -> StudyFile | AccuracyFile:
    try:
        envelope = _Envelope.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise SpecError(path, (f"damaged: {error.errors()[0]['msg']}",)) from error
    known = {"study": SCHEMA_VERSION, **dict.fromkeys(KINDS, ACCURACY_VERSION)}
    kind = envelope.kind if isinstance(envelope.kind, str) else ""
    if kind not in known:
        if envelope.cache_sha256 is not None:
            raise SpecError(path, ("a cache's manifest: give the calibration cache, its manifest is read with it",))
        raise SpecError(path, (f"JSON that is no result: {_EXPECTED}",))
    version = envelope.schema_version
    if isinstance(version, int) and version > known[kind]:
        newer = f"schema_version {version} is newer than this trtcalib reads ({known[kind]}): update it"
        raise SpecError(path, (newer,))
    if kind in KINDS:
        return AccuracyFile(path, sha256_of(path), read_accuracy(path, kind))
    return _read_study(path)


def _read_study(path: Path) -> StudyFile:
    try:
        study = read_study(path)
    except SpecError as error:
        more = f" (and {len(error.faults) - 1} more faults)" if len(error.faults) > 1 else ""
        raise SpecError(path, (f"damaged: {error.faults[0]}{more}",)) from error
    _check_shape(path, study)
    histograms, missing = _histograms_of(path, study)
    return StudyFile(path, sha256_of(path), study, histograms, missing)


def _check_shape(path: Path, study: Study) -> None:
    """Refuse a study whose parts do not fit together, before anything relies on them."""
    names = [configuration.name for configuration in study.configurations]
    if len(set(names)) != len(names) or study.reference not in names:
        raise SpecError(
            path, (f"damaged: the reference {study.reference!r} is not one of the distinct configurations",)
        )
    for tensor in study.tensors:
        if len(tensor.outcomes) not in (0, len(names)):
            fault = f"tensor {tensor.name[:80]!r} has {len(tensor.outcomes)} outcomes for {len(names)} configurations"
            raise SpecError(path, (f"damaged: {fault}",))
        for bits in (tensor.scale_hex, *(outcome.scale_hex for outcome in tensor.outcomes)):
            if _HEX.fullmatch(bits) is None:
                raise SpecError(path, (f"damaged: tensor {tensor.name[:80]!r} has scale_hex {bits[:80]!r}",))


def _histograms_of(path: Path, study: Study) -> tuple[dict[str, HistogramFile], tuple[str, ...]]:
    found, missing = {}, []
    for configuration, name in study.histograms.items():
        file = _beside(path, name)
        if not file.is_file():
            missing.append(name)
            continue
        collected = load_histograms(file)
        if collected.provenance.model.sha256 != study.model.sha256:
            raise HistogramError(f"{file}: holds histograms of another model than {path.name}: run the study again")
        found[configuration] = HistogramFile(file, sha256_of(file), collected)
    return found, tuple(missing)


def _beside(path: Path, name: str) -> Path:
    """Return a file beside a study; its name comes from the study, so nothing may lead elsewhere."""
    plain = name not in ("", ".", "..") and not set(name) & set("/\\:\0")
    file = path.parent / name if plain else path
    if not plain or file.resolve().parent != path.parent.resolve():
        raise SpecError(path, (f"histograms: {name[:80]!r} is no plain name of a file beside the study",))
    return file
