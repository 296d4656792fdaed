"""The only importer of NVIDIA's packages: calibrators that TensorRT calls back, device buffers, engines.

>>> from trtcalib.trt import EntropyCalibrator, InputProfile, open_device  # doctest: +SKIP
>>> profile = InputProfile({"x": (8, 3, 224, 224)})  # doctest: +SKIP
>>> with EntropyCalibrator(batches, profile, open_device(), cache="x.cache") as calibrator:  # doctest: +SKIP
...     config.int8_calibrator = calibrator
...     plan = builder.build_serialized_network(network, config)

Names are resolved when they are used: importing this package imports neither TensorRT nor PyCUDA.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trtcalib.trt.buffers import Device, DeviceBuffer, open_device
    from trtcalib.trt.calibrators import EntropyCalibrator, MinMaxCalibrator, PercentileCalibrator
    from trtcalib.trt.feeder import BatchFeeder
    from trtcalib.trt.input_profile import InputProfile

__all__ = [
    "BatchFeeder",
    "Device",
    "DeviceBuffer",
    "EntropyCalibrator",
    "InputProfile",
    "MinMaxCalibrator",
    "PercentileCalibrator",
    "open_device",
]

_HOME = {
    "BatchFeeder": "feeder",
    "Device": "buffers",
    "DeviceBuffer": "buffers",
    "EntropyCalibrator": "calibrators",
    "InputProfile": "input_profile",
    "MinMaxCalibrator": "calibrators",
    "PercentileCalibrator": "calibrators",
    "open_device": "buffers",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
