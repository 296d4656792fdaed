"""The objects that TensorRT calls back: thin shells over :class:`~trtcalib.trt.feeder.BatchFeeder`.

All four methods are always defined and never call ``super()``: a missing override ends the process. They are for
anyone's builder code, and for Polygraphy's ``CreateConfig(int8=True, calibrator=...)``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from trtcalib.core.cache import encode_version, format_cache, is_writable, make_cache
from trtcalib.errors import CalibrationError
from trtcalib.trt.buffers import Device
from trtcalib.trt.feeder import Batch, BatchFeeder
from trtcalib.trt.input_profile import InputProfile
from trtcalib.trt.require import import_tensorrt, require_calibrators, version_of

__all__ = ["EntropyCalibrator", "MinMaxCalibrator", "PercentileCalibrator"]

trt = import_tensorrt()
require_calibrators(trt)

HERE = version_of(trt)


class _Calibrator:
    """What the calibrators share; stands before TensorRT's class, whose methods it overrides.

    Attributes:
        feeder: Answers TensorRT and remembers why something stopped.
    """

    algorithm: str
    base: Any

    feeder: BatchFeeder

    def __init__(
        self,
        batches: Iterable[Batch],
        profile: InputProfile,
        device: Device | None,
        *,
        cache: Path | str | None = None,
        answer: bytes | None = None,
    ) -> None:
        # By name: TensorRT's bindings refuse an object whose own __init__ was not called.
        self.base.__init__(self)
        self.feeder = BatchFeeder(batches, profile, device, cache=cache, answer=answer)

    def get_batch_size(self) -> int:
        """Return the batch size; TensorRT takes anything else than an int for -1."""
        return int(self.feeder.profile.batch_size)

    def get_batch(self, names: list[str]) -> list[int] | None:
        """Return one device address per input, or ``None`` at the end."""
        return self.feeder.next_pointers(names)

    def read_calibration_cache(self) -> bytes | None:
        """Return a cache that TensorRT will take, or ``None``."""
        return self.feeder.read_cache(f"TRT-{encode_version(HERE)}-{self.algorithm}")

    def write_calibration_cache(self, cache: Any) -> None:
        """Keep the cache that TensorRT made."""
        self.feeder.write_cache(cache)

    def raise_if_failed(self) -> None:
        """Raise what went wrong in the callbacks; see :meth:`BatchFeeder.raise_if_failed`."""
        self.feeder.raise_if_failed()

    def free(self) -> None:
        """Free the device memory."""
        self.feeder.free()

    def __enter__(self) -> Any:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self.feeder.__exit__(kind, error, trace)


class EntropyCalibrator(_Calibrator, trt.IInt8EntropyCalibrator2):  # type: ignore[misc,name-defined]  # tensorrt is untyped
    """Let TensorRT choose the scales by its own entropy search; DLA takes no other calibrator.

    Args:
        batches: As :class:`~trtcalib.trt.feeder.BatchFeeder`, and so are the others.
        profile: Shapes and dtypes of the inputs at calibration.
        device: Gives device memory.
        cache: Where the cache is read from or written to.
        answer: The cache to answer.
    """

    algorithm = "EntropyCalibration2"
    base = trt.IInt8EntropyCalibrator2


class MinMaxCalibrator(_Calibrator, trt.IInt8MinMaxCalibrator):  # type: ignore[misc,name-defined]  # tensorrt is untyped
    """Let TensorRT take the largest magnitude of each tensor; arguments as :class:`EntropyCalibrator`."""

    algorithm = "MinMaxCalibration"
    base = trt.IInt8MinMaxCalibrator


class PercentileCalibrator(_Calibrator, trt.IInt8EntropyCalibrator2):  # type: ignore[misc,name-defined]  # tensorrt is untyped
    """Give TensorRT scales that were chosen outside it: percentiles, or any other recipe's.

    TensorRT's own quantile calibrator (``IInt8LegacyCalibrator``) fails or hangs on 10.x. The scales go in as a calibration
    cache instead, under the header that the installed TensorRT takes from an entropy calibrator; no batch is fed.

    Args:
        scales: amax / 127 per tensor name, such as ``trtcalib.calibrate(model, data, "percentile-99.99").scales``.
        profile: Shapes of the inputs; only the batch size is told to TensorRT.

    Raises:
        CalibrationError: If there is no scale.
    """

    algorithm = "EntropyCalibration2"
    base = trt.IInt8EntropyCalibrator2

    def __init__(self, scales: Mapping[str, float | np.float32], profile: InputProfile | None = None) -> None:
        writable = {name: np.float32(scale) for name, scale in scales.items() if is_writable(name)}
        if not writable:
            raise CalibrationError("there is no scale to give to TensorRT")
        content = format_cache(make_cache(writable, HERE, self.algorithm))
        super().__init__((), profile or InputProfile({}), None, answer=content)
