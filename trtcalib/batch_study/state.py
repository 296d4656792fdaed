"""What an interrupted study goes on from: the maxima of the samples, and the counts so far, beside its result."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trtcalib.core.growth import SampleMaxima
from trtcalib.core.many_ranges import Intervals
from trtcalib.errors import HistogramError
from trtcalib.files import new_file, sha256_of_bytes
from trtcalib.histogram_file import read_arrays

__all__ = ["COUNTS", "MAXIMA", "Counted", "Maxima", "State", "TensorPlan"]

MAXIMA = "maxima.npz"
COUNTS = "counts.npz"


@dataclass(frozen=True, slots=True, kw_only=True)
class Maxima:
    """What the first pass found.

    Attributes:
        samples: Maxima, and how often each sample holds its own.
        labels: What an error calls each sample.
        sizes: int64 values per tensor, infinities left out.
        infinite: int64 infinities per tensor.
        complete: Whether the pass saw all samples.
        seen: Samples of a complete pass; more than there are labels where the model's batch is fixed.
        left_out: Samples at the end that could not fill the model's fixed batch.
    """

    samples: SampleMaxima
    labels: tuple[str, ...]
    sizes: NDArray[np.int64]
    infinite: NDArray[np.int64]
    complete: bool
    seen: int
    left_out: int


@dataclass(frozen=True, slots=True)
class TensorPlan:
    """Over which ranges a tensor is counted.

    Attributes:
        intervals: Those of all ranges; ``None`` for a tensor that is zero in every sample.
        outlier: The one sample that alone holds the tensor's maximum, which is also counted by itself; -1 for none.
        outlier_ranges: The ranges at which that is wanted: those without it.
    """

    intervals: Intervals | None
    outlier: int = -1
    outlier_ranges: tuple[float, ...] = ()


@dataclass(slots=True)
class Counted:
    """What the second pass counted so far.

    Attributes:
        rows: Samples that were counted.
        counts: Per tensor, by interval; ``None`` for one that is all zero.
        alone: Per tensor, the histogram of its outlier alone, by range.
    """

    rows: int
    counts: list[NDArray[np.int64] | None]
    alone: list[dict[float, NDArray[np.int64]]]


class State:
    """The files of a study that is under way.

    Args:
        folder: The study's.
        about: Everything that decides the numbers; what was saved under another is not used. ``None`` where only reading the data
            tells what they are (a function): then nothing is saved and nothing is used.
    """

    def __init__(self, folder: Path, about: Mapping[str, Any] | None) -> None:
        self._folder = folder
        self._about = None if about is None else sha256_of_bytes(json.dumps(about, sort_keys=True).encode())

    def load_maxima(self, names: Sequence[str]) -> Maxima | None:
        """Return the maxima that were saved for the same study; ``None`` where there are none that can be used."""
        arrays = self._load(MAXIMA, sha256_of_bytes(json.dumps(list(names)).encode()))
        if arrays is None:
            return None
        try:
            labels = json.loads(arrays["labels"].tobytes())
            complete, seen, left_out = arrays["facts"].tolist()
            found = Maxima(
                samples=SampleMaxima(arrays["maxima"], arrays["times"]),
                labels=tuple(labels),
                sizes=arrays["sizes"],
                infinite=arrays["infinite"],
                complete=bool(complete),
                seen=int(seen),
                left_out=int(left_out),
            )
        except (KeyError, ValueError, TypeError, RecursionError):
            return None
        if not _fits(found, len(names)):
            return None
        return found

    def save_maxima(self, maxima: Maxima, names: Sequence[str]) -> None:
        """Save the maxima.

        Raises:
            OutputError: If they cannot be written.
        """
        self._save(
            MAXIMA,
            sha256_of_bytes(json.dumps(list(names)).encode()),
            {
                "labels": np.frombuffer(json.dumps(maxima.labels).encode(), np.uint8),
                "facts": np.array([maxima.complete, maxima.seen, maxima.left_out], np.int64),
                "maxima": maxima.samples.maxima,
                "times": maxima.samples.times,
                "sizes": maxima.sizes,
                "infinite": maxima.infinite,
            },
        )

    def load_counts(self, plans: Sequence[TensorPlan], rows: int) -> Counted | None:
        """Return the counts that were saved for the same study and ranges; ``None`` where there are none."""
        arrays = self._load(COUNTS, _digest(plans))
        if arrays is None:
            return None
        try:
            counted = int(arrays["rows"][0])
            counts = np.split(arrays["counts"], np.cumsum(_sizes(plans))[:-1])
            bins = [plan.intervals.bins for plan in plans if plan.intervals is not None][:1]
            alone = iter(arrays["alone"].reshape(-1, *bins))
            found = Counted(
                rows=counted,
                counts=[None if plan.intervals is None else part for plan, part in zip(plans, counts, strict=True)],
                alone=[
                    {r: next(alone) for r in plan.outlier_ranges} if plan.outlier < counted else {} for plan in plans
                ],
            )
        except (KeyError, ValueError, TypeError, IndexError, StopIteration, RuntimeError, OverflowError):
            return None
        if not (
            0 < found.rows <= rows
            and _is_int64(arrays["counts"], (sum(_sizes(plans)),))
            and _is_int64(arrays["alone"], (arrays["alone"].size,))
            and next(alone, None) is None
        ):
            return None
        return found

    def save_counts(self, counted: Counted, plans: Sequence[TensorPlan]) -> None:
        """Save the counts.

        Raises:
            OutputError: If they cannot be written.
        """
        alone = [found for by_range in counted.alone for found in by_range.values()]
        self._save(
            COUNTS,
            _digest(plans),
            {
                "rows": np.array([counted.rows], np.int64),
                "counts": np.concatenate([c for c in counted.counts if c is not None] or [np.zeros(0, np.int64)]),
                "alone": np.concatenate(alone or [np.zeros(0, np.int64)]),
            },
        )

    def finish(self) -> None:
        """Remove the counts, which the result has taken the place of; the maxima stay, for further batch sizes."""
        (self._folder / COUNTS).unlink(missing_ok=True)

    def _load(self, name: str, digest: str) -> dict[str, NDArray[Any]] | None:
        if self._about is None:
            return None
        try:
            arrays = read_arrays(self._folder / name)
        except HistogramError:
            return None
        stated = arrays.pop("about", np.zeros(0, np.uint8))
        return arrays if stated.tobytes() == f"{self._about}{digest}".encode() else None

    def _save(self, name: str, digest: str, arrays: Mapping[str, NDArray[Any]]) -> None:
        if self._about is None:
            return
        about = np.frombuffer(f"{self._about}{digest}".encode(), np.uint8)
        with new_file(self._folder / name) as file:
            np.savez(file, allow_pickle=False, about=about, **arrays)


def _fits(found: Maxima, tensors: int) -> bool:
    maxima = found.samples.maxima
    shape = (len(found.labels), tensors)
    return (
        shape[0] > 0
        and all(isinstance(label, str) for label in found.labels)
        and maxima.dtype == np.float32
        and maxima.shape == shape
        and bool((np.isfinite(maxima) & (maxima >= 0)).all())
        and _is_int64(found.samples.times, shape)
        and _is_int64(found.sizes, shape[1:])
        and _is_int64(found.infinite, shape[1:])
    )


def _is_int64(array: NDArray[Any], shape: tuple[int, ...]) -> bool:
    """Whether these are counts in the expected shape."""
    return array.dtype == np.int64 and array.shape == shape and bool((array >= 0).all())


def _sizes(plans: Sequence[TensorPlan]) -> list[int]:
    return [0 if plan.intervals is None else plan.intervals.size for plan in plans]


def _digest(plans: Sequence[TensorPlan]) -> str:
    ranges = [
        ([] if plan.intervals is None else plan.intervals.ranges, plan.outlier, plan.outlier_ranges) for plan in plans
    ]
    return sha256_of_bytes(json.dumps(ranges).encode())
