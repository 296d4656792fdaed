"""Histograms in a file: what was collected from a model once, to be solved with any recipe later.

A ``.npz`` without pickled objects: one row per histogram, the counts end to end, and the rest of the calibration as JSON.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from trtcalib.calibration import Calibration
from trtcalib.core.histogram import Histogram
from trtcalib.errors import HistogramError
from trtcalib.files import write_files
from trtcalib.manifest import Finding, Provenance
from trtcalib.onnx_graph import GraphTensor
from trtcalib.provenance import relative_to, with_absolute_paths
from trtcalib.specs import Recipe

__all__ = ["format_histograms", "load_histograms", "read_arrays", "save_histograms"]

_MOST_DOUBLINGS = 512
"""From float32's smallest number to its largest there are 277."""

FORMAT = 1
"""Raised when a field changes its meaning."""

_LARGEST = 4 << 30
"""Unpacked bytes up to which a file is read: 100,000 histograms of 2048 bins are 1.6 GB."""

_NUMBERS = {
    "range": np.float32,
    "first_max": np.float32,
    "maximum": np.float32,
    "doublings": np.int64,
    "clamped": np.int64,
}
"""What is kept of each histogram beside its counts."""

_ARRAYS = {"counts": np.int64, "bins": np.int64, **_NUMBERS}


def save_histograms(calibration: Calibration, path: Path | str) -> None:
    """Write the histograms and everything that solving them anew needs.

    Raises:
        OutputError: If the file cannot be written; nothing is left behind.
    """
    write_files({Path(path): format_histograms(calibration, path)})


def format_histograms(calibration: Calibration, path: Path | str) -> bytes:
    """Return the bytes of a histogram file that is to stand at ``path``."""
    histograms = calibration.histograms
    about = {
        "format": FORMAT,
        "names": list(histograms),
        "tensors": [asdict(tensor) for tensor in calibration.tensors],
        "infinite": dict(calibration.infinite),
        "recipe": calibration.recipe.model_dump(),
        "provenance": relative_to(calibration.provenance, Path(path).parent).model_dump(),
        "findings": [finding.model_dump() for finding in calibration.findings],
    }
    arrays: dict[str, Any] = {
        "about": np.frombuffer(json.dumps(about).encode(), np.uint8),
        "bins": np.array([h.bins for h in histograms.values()], np.int64),
        "counts": np.concatenate([h.counts for h in histograms.values()] or [np.zeros(0, np.int64)]),
    }
    for name, kind in _NUMBERS.items():
        arrays[name] = np.array([getattr(h, name) for h in histograms.values()], kind)
    content = io.BytesIO()
    np.savez_compressed(content, **arrays)
    return content.getvalue()


def load_histograms(path: Path | str) -> Calibration:
    """Read histograms that were saved before, as a calibration without amax; give it to ``solve``.

    Raises:
        HistogramError: If the file is missing, damaged, of a newer format, or no histogram file.
    """
    path = Path(path)
    arrays = read_arrays(path)
    try:
        about = json.loads(arrays["about"].tobytes())
        if about["format"] > FORMAT:
            raise HistogramError(f"format {about['format']} is newer than this trtcalib reads ({FORMAT}): update it")
        tensors = tuple(TypeAdapter(list[GraphTensor]).validate_python(about["tensors"]))
        _check_sources(tensors)
        return Calibration(
            recipe=TypeAdapter(Recipe).validate_python(about["recipe"]),
            tensors=tensors,
            histograms=_histograms(about["names"], arrays),
            infinite=TypeAdapter(dict[str, int]).validate_python(about["infinite"]),
            provenance=with_absolute_paths(Provenance.model_validate(about["provenance"]), path.parent),
            findings=tuple(TypeAdapter(list[Finding]).validate_python(about["findings"])),
        )
    except HistogramError as error:
        raise HistogramError(f"{path}: {error}") from error
    except KeyError as error:
        raise HistogramError(f"{path}: not a file that --histograms wrote: {error} is missing") from error
    except (TypeError, ValueError, IndexError, RecursionError) as error:
        raise HistogramError(f"{path}: not a file that --histograms wrote: {_first_line(error)}") from error


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Read all arrays of a ``.npz`` of bounded size, without pickled objects.

    Raises:
        HistogramError: If it is missing, damaged, too large, or no such file.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(info.file_size for info in archive.infolist())
        if size > _LARGEST:
            raise HistogramError(f"{path}: unpacks to {size} bytes, more than the {_LARGEST} that are read")
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except HistogramError:
        raise
    except FileNotFoundError as error:
        raise HistogramError(f"{path}: no such file") from error
    except OSError as error:
        raise HistogramError(f"{path}: cannot be read: {error.strerror or error}") from error
    except Exception as error:  # zipfile, its decoders and numpy raise almost anything on hostile bytes
        raise HistogramError(f"{path}: not a .npz file, or truncated: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def _check_sources(tensors: Sequence[GraphTensor]) -> None:
    seen: set[str] = set()
    for tensor in tensors:
        source = tensor.view_of or tensor.scale_of
        if source is not None and source not in seen:
            raise HistogramError(f"tensor {tensor.name!r} derives from {source!r}, which does not stand before it")
        seen.add(tensor.name)


def _histograms(names: list[str], arrays: dict[str, NDArray[Any]]) -> dict[str, Histogram]:
    for key, wanted in _ARRAYS.items():
        if arrays[key].dtype.kind != np.dtype(wanted).kind or arrays[key].ndim != 1:
            raise HistogramError(f"array {key!r} is {arrays[key].dtype} of shape {arrays[key].shape}: damaged")
    if not len(names) == len(arrays["bins"]) == len(arrays["range"]) or arrays["bins"].sum() != len(arrays["counts"]):
        raise HistogramError("the numbers of names, bins and counts do not fit together: damaged")
    ends = np.cumsum(arrays["bins"])
    columns = [arrays[name] for name in _NUMBERS]
    histograms = {}
    for row, name in enumerate(names):
        range_, first_max, maximum, doublings, clamped = (column[row] for column in columns)
        if not (
            range_ >= 0 and 0 <= first_max < np.inf and 0 <= maximum < np.inf and 0 <= doublings <= _MOST_DOUBLINGS
        ):
            raise HistogramError(
                f"histogram {name!r} has a range, maximum or number of doublings that cannot be: damaged"
            )
        histograms[str(name)] = Histogram(
            counts=arrays["counts"][ends[row] - arrays["bins"][row] : ends[row]],
            range=range_,
            first_max=first_max,
            maximum=maximum,
            doublings=int(doublings),
            clamped=int(clamped),
        )
    return histograms
