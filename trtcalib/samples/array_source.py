"""Samples from arrays, in memory or mapped from a ``.npy`` or ``.npz`` file."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trtcalib.errors import DataError
from trtcalib.files import sha256_of
from trtcalib.onnx_graph import ModelInput
from trtcalib.samples.feeds import Feed, Sample, as_array, check_feed, shape_text, update_digest
from trtcalib.samples.preparation import preparation_bytes, prepare
from trtcalib.specs import InputSpec

__all__ = ["ArraySource", "arrays_by_input"]


class ArraySource:
    """Arrays whose first axis counts samples; memory-mapped where they come from a file.

    An array with as many axes as its input gives one row per sample; with one axis more it gives whole feeds.
    """

    def __init__(
        self,
        name: str,
        arrays: Mapping[str, NDArray[Any]],
        inputs: Sequence[ModelInput],
        preparation: Mapping[str, InputSpec],
        path: Path | None = None,
    ) -> None:
        self.name = name
        self._arrays = arrays
        self._inputs = inputs
        self._preparation = preparation
        self._path = path
        self._length = _common_length(name, arrays)
        self._rows = {i.name: _has_batch_axis(name, arrays[i.name], i) for i in inputs}
        self.whole = not any(self._rows.values())
        _check_rows_can_be_grouped(name, self._rows, inputs)
        for key, spec in preparation.items():
            if spec.resize is not None or spec.crop is not None:
                raise DataError(name, f"inputs.{key}: resize and crop are for folders of images, not for arrays")

    def size(self) -> int:
        """Return the number of samples."""
        return self._length

    def samples(self, order: Sequence[int] | None) -> Iterator[Sample]:
        """Yield the samples."""
        for index in range(self._length) if order is None else order:
            yield Sample(str(index), lambda index=int(index): self._load(index))  # type: ignore[misc]  # bound early

    def sha256(self) -> str:
        """Return the file's digest, or that of the arrays, with the preparation."""
        digest = hashlib.sha256(preparation_bytes(self._preparation))
        if self._path is not None:
            digest.update(sha256_of(self._path).encode())
        else:
            update_digest(digest, self._arrays)
        return digest.hexdigest()

    def _load(self, index: int) -> Feed:
        feed = {}
        for name, array in self._arrays.items():
            # Not ascontiguousarray, which gives a single number an axis.
            value = np.asarray(array[index : index + 1] if self._rows[name] else array[index], order="C")
            spec = self._preparation.get(name)
            feed[name] = value if spec is None else prepare(value, spec, self.name, str(index))
        check_feed(feed, self._inputs, self.name, str(index), rows=not self.whole)
        return feed


def _common_length(name: str, arrays: Mapping[str, NDArray[Any]]) -> int:
    for key, array in arrays.items():
        if array.ndim == 0:
            raise DataError(name, f"array {key!r} is a single number; its first axis must count samples")
    lengths = {key: len(array) for key, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{key!r}: {length}" for key, length in lengths.items())
        raise DataError(name, f"the arrays have different numbers of samples ({listed})")
    length = next(iter(lengths.values()))
    if length == 0:
        raise DataError(name, "the data are empty: there is no sample to calibrate on")
    return length


def _has_batch_axis(name: str, array: NDArray[Any], model_input: ModelInput) -> bool:
    if model_input.shape is None or array.ndim == len(model_input.shape) > 0:
        return True
    if array.ndim == len(model_input.shape) + 1:
        return False
    raise DataError(
        name,
        f"input {model_input.name!r} got an array of shape {array.shape}; expected {shape_text(model_input.shape)} with "
        "samples along the first axis, or one axis more with whole feeds along it",
    )


def _check_rows_can_be_grouped(name: str, rows: Mapping[str, bool], inputs: Sequence[ModelInput]) -> None:
    """Refuse an input without a batch axis beside rows that must be grouped to a fixed batch."""
    whole = [i.name for i in inputs if not rows[i.name]]
    fixed = [i.name for i in inputs if rows[i.name] and i.shape and (i.shape[0] or 1) > 1]
    if whole and fixed:
        raise DataError(
            name,
            f"input {fixed[0]!r} got single rows of its fixed batch, but input {whole[0]!r} whole feeds: "
            "give whole feeds for all inputs (one axis more, samples along the first)",
        )


def arrays_by_input(data: Any, inputs: Sequence[ModelInput], source: str) -> dict[str, NDArray[Any]]:
    """Map arrays to inputs by name; a lone array may have any name when the model has one input."""
    arrays = {"": data} if isinstance(data, np.ndarray) else dict(data)
    if len(arrays) == 1 and len(inputs) == 1:
        return {inputs[0].name: as_array(inputs[0].name, next(iter(arrays.values())), source)}
    missing = [i.name for i in inputs if i.name not in arrays]
    if missing:
        raise DataError(
            source,
            f"no array for input {missing[0]!r}; found {', '.join(map(repr, arrays)) or 'none'}, "
            f"the model needs {', '.join(repr(i.name) for i in inputs)}",
        )
    return {i.name: as_array(i.name, arrays[i.name], source) for i in inputs}
