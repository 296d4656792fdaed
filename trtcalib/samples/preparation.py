"""Numbers to numbers: scale, mean, std and dtype of a dataset YAML, in float32."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trtcalib.errors import DataError
from trtcalib.specs import InputSpec

__all__ = ["preparation_bytes", "prepare"]


def prepare(value: NDArray[Any], spec: InputSpec, source: str, sample: str) -> NDArray[Any]:
    """Apply scale, mean, std and dtype in float32; ``value`` has a batch axis, channels where the layout puts them.

    Raises:
        DataError: If mean or std do not have one number per channel, or a value does not fit an integer dtype.
    """
    with np.errstate(all="ignore"):  # what becomes infinite or NaN is refused where it is counted
        if spec.scale is not None or spec.mean is not None or spec.std is not None:
            value = value.astype(np.float32)
        if isinstance(spec.scale, str):
            numerator, _, denominator = spec.scale.partition("/")
            value = value * np.float32(float(numerator)) / np.float32(float(denominator or 1))
        elif spec.scale is not None:
            value = value * np.float32(spec.scale)
        if spec.mean is not None:
            value = value - _per_channel(spec.mean, value, spec, source)
        if spec.std is not None:
            value = value / _per_channel(spec.std, value, spec, source)
        return value if spec.dtype is None else _cast(value, np.dtype(spec.dtype), source, sample)


def _cast(value: NDArray[Any], dtype: np.dtype[Any], source: str, sample: str) -> NDArray[Any]:
    if dtype.kind in "iu" and value.dtype.kind != "b":
        limits = np.iinfo(dtype)
        fits = (value >= limits.min) & (value <= limits.max)  # false for NaN
        if not fits.all():
            raise DataError(source, f"the value {value[~fits][0]!r} does not fit dtype {dtype}", sample)
    return value.astype(dtype)


def _per_channel(numbers: tuple[float, ...], value: NDArray[Any], spec: InputSpec, source: str) -> NDArray[np.float32]:
    axis = 1 if spec.layout == "chw" else value.ndim - 1
    channels = value.shape[axis] if value.ndim > axis else 1
    if len(numbers) not in (1, channels):
        raise DataError(
            source, f"mean and std need 1 or {channels} numbers for {channels} channels, got {len(numbers)}"
        )
    if len(numbers) == 1:
        return np.array(numbers, np.float32)
    shape = [1] * value.ndim
    shape[axis] = channels
    return np.array(numbers, np.float32).reshape(shape)


def preparation_bytes(preparation: Mapping[str, InputSpec]) -> bytes:
    """Return the preparation of all inputs as bytes, for a digest."""
    return "\n".join(f"{name} {spec.model_dump_json()}" for name, spec in sorted(preparation.items())).encode()
