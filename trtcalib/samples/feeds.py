"""Samples and feeds: what a data source gives, and whether it fits the model."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from trtcalib.errors import DataError
from trtcalib.onnx_graph import ModelInput

__all__ = ["DataSource", "Feed", "Sample", "as_array", "check_feed", "check_finite", "shape_text", "update_digest"]

Feed = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Sample:
    """One sample that has not been read yet.

    Attributes:
        label: What an error calls it: its position, or its file.
        load: Reads it; may be called from another thread.
    """

    label: str
    load: Callable[[], Feed]


@runtime_checkable
class DataSource(Protocol):
    """What calibration runs on; the seam for other kinds of data.

    Attributes:
        name: What an error calls the source.
        whole: Whether a sample is a whole feed of the model rather than one row of its batch axis.
    """

    name: str
    whole: bool

    def size(self) -> int | None:
        """Return the number of samples; ``None`` where only reading tells, and then there is no random order."""

    def samples(self, order: Sequence[int] | None) -> Iterator[Sample]:
        """Yield the samples from the start, in the source's order or in the given one."""

    def sha256(self) -> str:
        """Return a digest of the data; of a function, of what it gave in its longest pass."""


def as_array(name: str, value: Any, source: str, sample: int | None = None) -> NDArray[Any]:
    """Return a value as an array; a memory-mapped one stays so."""
    try:
        array: NDArray[Any] = np.asanyarray(value)
    except Exception as error:  # lists of unequal length, and whatever an object's own conversion raises
        raise DataError(source, f"input {name!r} cannot be made an array: {str(error)[:200]}", sample) from error
    if array.dtype.hasobject:
        raise DataError(source, f"array {name!r} holds Python objects, expected numbers", sample)
    if array.dtype.kind not in "biuf":
        raise DataError(source, f"array {name!r} holds {array.dtype}, expected numbers or booleans", sample)
    return array


def check_feed(feed: Feed, inputs: Sequence[ModelInput], source: str, sample: str, *, rows: bool = False) -> None:
    """Check that a feed fits the model.

    Args:
        feed: Arrays by input name.
        inputs: What the model takes.
        source: What an error calls the data.
        sample: What an error calls the feed.
        rows: Whether the feed is one row of a fixed batch, to be put together with its neighbours.

    Raises:
        DataError: If an input is missing or unknown, or has another dtype, rank or size than the model states.
    """
    for wanted in inputs:
        if wanted.name not in feed:
            raise DataError(
                source, f"input {wanted.name!r} is missing; found {', '.join(map(repr, feed)) or 'none'}", sample
            )
        array = feed[wanted.name]
        if array.dtype != wanted.dtype:
            hint = f"convert it with .astype(numpy.{wanted.dtype}), or state dtype: {wanted.dtype} in a dataset YAML"
            raise DataError(
                source, f"input {wanted.name!r} is {array.dtype}, the model takes {wanted.dtype}: {hint}", sample
            )
        if not _fits(array.shape, wanted.shape, rows=rows):
            assert wanted.shape is not None
            reason = f"input {wanted.name!r} has shape {array.shape}, the model takes {shape_text(wanted.shape)}"
            raise DataError(source, reason, sample)
    unknown = [name for name in feed if name not in {i.name for i in inputs}]
    if unknown:
        known = ", ".join(repr(i.name) for i in inputs)
        raise DataError(source, f"the model has no input {unknown[0]!r}; it has {known}", sample)


def check_finite(feed: Feed, source: str, sample: str) -> None:
    """Refuse a feed with NaN or an infinite value.

    Raises:
        DataError: Naming the input.
    """
    for name, array in feed.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise DataError(source, f"input {name!r} holds NaN or an infinite value", sample)


def _fits(shape: tuple[int, ...], wanted: tuple[int | None, ...] | None, *, rows: bool) -> bool:
    if wanted is None:
        return True
    if rows and shape[:1] == (1,):
        wanted = (None, *wanted[1:])
    return len(shape) == len(wanted) and all(w is None or w == n for w, n in zip(wanted, shape, strict=True))


def shape_text(shape: tuple[int | None, ...]) -> str:
    """Return a model's shape for people: ``[?, 3, 224, 224]``."""
    return "[" + ", ".join("?" if size is None else str(size) for size in shape) + "]"


def update_digest(digest: hashlib._Hash, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Take arrays into a digest: names, types, shapes and bytes."""
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype} {array.shape}".encode("utf-8", "surrogatepass"))
        digest.update(np.ascontiguousarray(array).tobytes())
