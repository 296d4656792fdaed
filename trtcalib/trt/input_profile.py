"""What TensorRT takes as one calibration batch: exact shapes, and dtypes that are reached without loss."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trtcalib.errors import CalibrationError

__all__ = ["InputProfile"]


@dataclass(frozen=True, slots=True)
class InputProfile:
    """What TensorRT takes during calibration: for each input the kOPT shape of the calibration profile, and a dtype.

    Attributes:
        shapes: Fixed sizes per input; the batch is the first.
        dtypes: What the batches are handed over as: float32 unless stated, also for FP16 inputs; int32, int64 and bool
            inputs keep their own.
    """

    shapes: Mapping[str, tuple[int, ...]]
    dtypes: Mapping[str, np.dtype[Any]] = field(default_factory=dict)

    @property
    def batch_size(self) -> int:
        """The first axis of the first input that has one; 1 where none has."""
        return next((shape[0] for shape in self.shapes.values() if shape), 1)

    def dtype(self, name: str) -> np.dtype[Any]:
        """Return the dtype that an input is handed over as."""
        return np.dtype(self.dtypes.get(name, np.float32))

    def nbytes(self, name: str) -> int:
        """Return the bytes that TensorRT reads behind an input's pointer."""
        return int(np.prod(self.shapes[name], dtype=np.int64)) * self.dtype(name).itemsize

    def prepare(self, name: str, value: Any) -> NDArray[Any]:
        """Return one input of a batch as TensorRT takes it.

        Raises:
            CalibrationError: If its shape is another one, its dtype cannot be converted without loss, or it holds NaN or
                infinities.
        """
        array = np.asarray(value)
        if array.shape != tuple(self.shapes[name]):
            raise CalibrationError(
                f"input {name!r} got shape {array.shape}; TensorRT calibrates at {tuple(self.shapes[name])}, the profile's "
                "kOPT shape, and reads that many values whatever the batch holds"
            )
        wanted = self.dtype(name)
        if array.dtype != wanted:
            array = _converted(name, array, wanted)
        if wanted.kind == "f" and not np.isfinite(array).all():
            raise CalibrationError(f"input {name!r} holds NaN or infinite values")
        return np.ascontiguousarray(array) if array.ndim else array


def _converted(name: str, array: NDArray[Any], wanted: np.dtype[Any]) -> NDArray[Any]:
    """Convert without loss: float16 to float32, and integers whose values fit."""
    if np.can_cast(array.dtype, wanted, "safe"):
        return array.astype(wanted)
    if array.dtype.kind in "iu" and wanted.kind in "iu":
        limits = np.iinfo(wanted)
        if not array.size or (array.min() >= limits.min and array.max() <= limits.max):
            return array.astype(wanted)
        raise CalibrationError(
            f"input {name!r} holds {array.min()} to {array.max()}, which does not fit TensorRT's {wanted}"
        )
    raise CalibrationError(
        f"input {name!r} is {array.dtype}, TensorRT takes {wanted}: convert it with .astype(numpy.{wanted})"
    )
