"""TensorRT INT8 calibration: the scales that TensorRT itself would write, with or without a GPU.

>>> import trtcalib
>>> result = trtcalib.calibrate("model.onnx", "images.npz")  # doctest: +SKIP
>>> result.write_cache("model.cache")  # doctest: +SKIP

Names are resolved when they are used, so that importing this package imports neither ONNX Runtime nor TensorRT.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trtcalib.calibration import Calibration, calibrate, solve
    from trtcalib.core.cache import CalibrationCache, format_cache, make_cache, parse_cache
    from trtcalib.core.entropy import entropy_amax
    from trtcalib.core.histogram import Histogram, collect_histogram
    from trtcalib.core.minmax import minmax_amax
    from trtcalib.core.mse import mse_amax
    from trtcalib.core.percentile import percentile_amax
    from trtcalib.core.scale import amax_from_scale, scale_from_amax
    from trtcalib.errors import TrtcalibError

__all__ = [
    "Calibration",
    "CalibrationCache",
    "Histogram",
    "Task",
    "TrtcalibError",
    "__version__",
    "ablate",
    "advise",
    "amax_from_scale",
    "calibrate",
    "collect_histogram",
    "entropy_amax",
    "evaluate",
    "format_cache",
    "make_cache",
    "measure_sensitivity",
    "minmax_amax",
    "mse_amax",
    "parse_cache",
    "percentile_amax",
    "scale_from_amax",
    "solve",
    "study",
    "sweep",
]

_HOME = {
    "Calibration": "calibration",
    "CalibrationCache": "core.cache",
    "Histogram": "core.histogram",
    "Task": "accuracy.task",
    "TrtcalibError": "errors",
    "ablate": "accuracy.ablation",
    "advise": "advising.advice",
    "amax_from_scale": "core.scale",
    "calibrate": "calibration",
    "collect_histogram": "core.histogram",
    "entropy_amax": "core.entropy",
    "evaluate": "accuracy.evaluation",
    "format_cache": "core.cache",
    "make_cache": "core.cache",
    "measure_sensitivity": "accuracy.sensitivity",
    "minmax_amax": "core.minmax",
    "mse_amax": "core.mse",
    "parse_cache": "core.cache",
    "percentile_amax": "core.percentile",
    "scale_from_amax": "core.scale",
    "solve": "calibration",
    "study": "batch_study.study",
    "sweep": "accuracy.sweep",
}

try:
    __version__ = version("trtcalib")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+unknown"


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
