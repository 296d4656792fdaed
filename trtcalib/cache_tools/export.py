"""A calibration cache in the dialects of the tools that take its scales: files, and the few lines that name them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from trtcalib.cache_tools.edited import EditSource
from trtcalib.cache_tools.flat_table import amax_that_gives, flat_table
from trtcalib.cache_tools.tool_lines import Lines
from trtcalib.core.cache import (
    FIRST_VERSION_WITHOUT_CALIBRATORS,
    CalibrationCache,
    oddities,
    version_text,
)
from trtcalib.core.cache_edit import line_numbers
from trtcalib.core.scale import scale_from_amax
from trtcalib.errors import CacheMismatchError, SpecError
from trtcalib.manifest import portable_path
from trtcalib.spec_files import brief

__all__ = ["DIALECTS", "Dialect", "Export", "export_cache"]

Dialect = Literal["dynamic-range-json", "onnxruntime", "onnxruntime-table", "deepstream", "trtexec", "polygraphy"]

DIALECTS: tuple[Dialect, ...] = (
    "dynamic-range-json",
    "onnxruntime",
    "onnxruntime-table",
    "deepstream",
    "trtexec",
    "polygraphy",
)

CACHE_NAME = "int8.cache"
"""The cache's copy in a folder of results: a name that needs no quoting in any dialect."""

TABLE_NAME = "calibration.flatbuffers"
"""As ``onnxruntime.quantization.write_calibration_table`` calls it."""

CALIBRATORS = {
    "EntropyCalibration2": "IInt8EntropyCalibrator2",
    "MinMaxCalibration": "IInt8MinMaxCalibrator",
    "EntropyCalibration": "IInt8EntropyCalibrator",
    "LegacyCalibration": "IInt8LegacyCalibrator",
}
"""TensorRT's calibrator that takes a cache of each algorithm."""

READ_VERSIONS = ((8, 6), (10, 16))
"""The TensorRT versions of which trtexec and Polygraphy were read."""

_SMALLEST_NORMAL = float(np.finfo(np.float32).tiny)
_MOST_ODDITIES = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    """What is to be written.

    Attributes:
        files: By path.
        notes: What is worth knowing, one sentence each.
    """

    files: Mapping[Path, bytes]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """One export.

    Attributes:
        source: The cache.
        output: The file or folder of results.
        model: The ONNX model as seen from that folder, or a stand-in for it.
    """

    source: EditSource
    output: Path
    model: str

    @property
    def cache(self) -> CalibrationCache:
        """The cache."""
        return self.source.cache

    @property
    def version(self) -> str:
        """The TensorRT of its header, such as ``10.16.1``."""
        return version_text(self.cache.version)

    @property
    def origin(self) -> str:
        """Where it comes from, for a comment: one line of printable characters."""
        text = f"made by trtcalib from {self.source.path.name}, {self.cache.header}"
        return "".join(c if c.isprintable() else "?" for c in text)

    def lines(self, table: str = CACHE_NAME) -> Lines:
        """Return what writes the lines that name a table."""
        return Lines(origin=self.origin, version=self.version, model=self.model, table=table)


def export_cache(source: EditSource, dialect: Dialect, output: Path, *, model: Path | None = None) -> Export:
    """Make the files of a dialect; nothing is written.

    Args:
        source: The cache.
        dialect: One of :data:`DIALECTS`.
        output: The file to write for ``dynamic-range-json``, a folder for the others.
        model: The ONNX model that the lines are to name.

    Raises:
        CacheMismatchError: If the tool cannot take this version or algorithm.
        SpecError: If a name or a scale cannot stand in the dialect; all of them at once.
    """
    named = "model.onnx" if model is None else portable_path(model.resolve(), output.resolve())
    if not named.isprintable():
        raise SpecError("--model", (f"{brief(named)} holds what cannot stand in a line: give the model another name",))
    # A word that starts with '-' would be an option.
    job = _Job(source=source, output=output, model=f"./{named}" if named.startswith("-") else named)
    found = oddities(source.cache)
    more = (f"... and {len(found) - _MOST_ODDITIES} more oddities",) if len(found) > _MOST_ODDITIES else ()
    made = _WRITERS[dialect](job)
    return Export(files=made.files, notes=(*found[:_MOST_ODDITIES], *more, *made.notes))


def _dynamic_range_json(job: _Job) -> Export:
    """``{tensor: [-amax, amax]}``, what TensorRT's ``tensor.dynamic_range`` takes, and ONNX Runtime's calibrator of 1.18 writes."""
    amax, notes = _ranges(job)
    text = json.dumps({name: [-value if value else value, value] for name, value in amax.items()}, indent=1)
    use = "in Python, without a calibrator: tensor.dynamic_range = tuple(ranges[tensor.name])"
    note = f"for TensorRT 8.6 to 10.16 {use} for the network's inputs and every layer's outputs"
    return Export(files={job.output: (text + "\n").encode()}, notes=(*notes, note))


def _onnxruntime(job: _Job) -> Export:
    """TensorRT's own cache, as ONNX Runtime's TensorRT provider reads it: split at the first ``:``, and without a case for zero."""
    _refuse(
        job,
        lambda name, scale: (
            "the provider splits a line at the first ':', so that it would read another name: take --to onnxruntime-table"
            if ":" in name
            else _unfit(scale)
        ),
    )
    tiny = [entry.name for entry in job.cache.entries if 0 <= entry.scale < _SMALLEST_NORMAL]
    notes = []
    if tiny:
        shown = ", ".join(map(brief, tiny[:5]))
        notes.append(
            f"{len(tiny)} scales are zero or subnormal ({shown}): the provider reads them as another tiny number, 0 as 5.9e-39; with --to "
            "onnxruntime-table they stay what they are"
        )
    notes.append(
        "the provider does not look at the version in the header: the same file serves every TensorRT that it is built with"
    )
    return Export(
        files={
            job.output / CACHE_NAME: job.source.content,
            job.output / "onnxruntime_int8.py": job.lines().onnxruntime(native=True).encode(),
        },
        notes=tuple(notes),
    )


def _onnxruntime_table(job: _Job) -> Export:
    """ONNX Runtime's own table: any name, and the amax as text."""
    amax, notes = _ranges(job)
    return Export(
        files={
            job.output / TABLE_NAME: flat_table({name: repr(value) for name, value in amax.items()}),
            job.output / "onnxruntime_int8.py": job.lines(TABLE_NAME).onnxruntime(native=False).encode(),
        },
        notes=notes,
    )


def _deepstream(job: _Job) -> Export:
    _check_algorithm(job, "DeepStream's calibrator is an IInt8EntropyCalibrator2")
    if job.model != job.model.strip() or any(mark in job.model for mark in "#;"):
        fault = f"{brief(job.model)} cannot stand in a configuration file: give the model another name"
        raise SpecError("--model", (fault,))
    return _with_cache(job, {"config_infer_int8.txt": job.lines().deepstream()})


def _trtexec(job: _Job) -> Export:
    _check_algorithm(job, "trtexec's calibrator is an IInt8EntropyCalibrator2")
    return _with_cache(job, {"trtexec_int8.sh": job.lines().trtexec()})


def _polygraphy(job: _Job) -> Export:
    calibrator, lines = _calibrator(job), job.lines()
    scripts = {
        "polygraphy_int8.sh": lines.polygraphy_shell(calibrator),
        "polygraphy_int8.py": lines.polygraphy_python(calibrator),
    }
    return _with_cache(job, scripts)


def _with_cache(job: _Job, texts: Mapping[str, str]) -> Export:
    """Return the cache's own bytes beside texts that name it."""
    notes: tuple[str, ...] = ()
    if not READ_VERSIONS[0] <= _major_minor(job) <= READ_VERSIONS[1]:
        notes = (f"these lines are for TensorRT 8.6 to 10.16; the header is of {job.version}",)
    files = {job.output / CACHE_NAME: job.source.content}
    return Export(files=files | {job.output / name: text.encode() for name, text in texts.items()}, notes=notes)


def _check_algorithm(job: _Job, calibrator: str) -> None:
    _calibrator(job)
    if job.cache.algorithm != "EntropyCalibration2":
        raise CacheMismatchError(
            job.source.path,
            f"{calibrator}, which takes no cache by {job.cache.algorithm}. The scales can be given to it all the same under its header: "
            "trtcalib cache convert --algorithm EntropyCalibration2",
        )


def _calibrator(job: _Job) -> str:
    """Return the calibrator that takes the cache.

    Raises:
        CacheMismatchError: If no TensorRT has one.
    """
    if _major_minor(job)[0] >= FIRST_VERSION_WITHOUT_CALIBRATORS:
        reason = f"its header is of TensorRT {job.version}, which reads no cache: trtcalib cache convert --tensorrt-version gives it another"
        raise CacheMismatchError(job.source.path, reason)
    if job.cache.algorithm not in CALIBRATORS:
        reason = f"no calibrator takes {brief(job.cache.algorithm)}: expected one of {', '.join(CALIBRATORS)}; see trtcalib cache convert"
        raise CacheMismatchError(job.source.path, reason)
    return CALIBRATORS[job.cache.algorithm]


def _major_minor(job: _Job) -> tuple[int, int]:
    major, minor, _ = map(int, job.version.split("."))
    return major, minor


def _refuse(job: _Job, fault: Callable[[str, np.float32], str | None]) -> None:
    faults = [
        f"line {number}: tensor {brief(entry.name)}: {found}"
        for number, entry in zip(line_numbers(job.cache), job.cache.entries, strict=True)
        if (found := fault(entry.name, entry.scale))
    ]
    if faults:
        raise SpecError(job.source.path, tuple(faults))


def _unfit(scale: np.float32) -> str | None:
    if np.isfinite(scale) and scale >= 0:
        return None
    return f"the scale {scale} is no finite dynamic range: give it one with trtcalib cache set"


def _ranges(job: _Job) -> tuple[dict[str, float], tuple[str, ...]]:
    """Return the amax per tensor, and what is worth knowing of them."""
    _refuse(job, _unreadable)
    amax = {name: amax_that_gives(scale) for name, scale in job.cache.scales.items()}
    rounded = [name for name, scale in job.cache.scales.items() if scale_from_amax(amax[name]) != scale]
    if not rounded:
        return {name: abs(float(value)) for name, value in amax.items()}, ()
    shown = ", ".join(map(brief, rounded[:5]))
    note = f"no float32 amax gives exactly the scale of {len(rounded)} tensors ({shown}): theirs is one float32 off"
    return {name: abs(float(value)) for name, value in amax.items()}, (note,)


def _unreadable(name: str, scale: np.float32) -> str | None:
    try:
        name.encode()
    except UnicodeEncodeError:
        return "the name is not UTF-8: see trtcalib cache rename"
    if np.isfinite(scale) and not np.isfinite(amax_that_gives(scale)):
        return f"the scale {scale} stands for an amax beyond float32: give it another with trtcalib cache set"
    return _unfit(scale)


_WRITERS: Mapping[Dialect, Callable[[_Job], Export]] = {
    "dynamic-range-json": _dynamic_range_json,
    "onnxruntime": _onnxruntime,
    "onnxruntime-table": _onnxruntime_table,
    "deepstream": _deepstream,
    "trtexec": _trtexec,
    "polygraphy": _polygraphy,
}
