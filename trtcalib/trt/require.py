"""TensorRT and PyCUDA, or one clear error: what is missing, what is of the wrong version, and what would help."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from trtcalib.core.cache import FIRST_VERSION_WITHOUT_CALIBRATORS
from trtcalib.errors import DeviceError, EngineError, InstalledTensorRTError, MissingPackageError
from trtcalib.manifest import DeviceFacts

__all__ = [
    "device_facts",
    "find_nvcc",
    "import_compiler",
    "import_cuda_python",
    "import_pycuda",
    "import_tensorrt",
    "kernel_driver",
    "numpy_dtype",
    "out_of_memory",
    "require_calibrators",
    "version_of",
]

OLDEST = (8, 6)
"""The oldest TensorRT that this package is written for: ``set_memory_pool_limit`` and ``execute_async_v3`` everywhere."""

NEWEST_WITH_CALIBRATORS = "10.16.1"

TOOLKIT = "/usr/local/cuda"
"""Where NVIDIA's packages and containers put the CUDA toolkit, often without putting it on the PATH."""


def import_tensorrt() -> Any:
    """Return the module ``tensorrt``.

    Raises:
        MissingPackageError: If it is not installed, or cannot load its own libraries.
        InstalledTensorRTError: If it is older than 8.6.
    """
    try:
        import tensorrt
    except ImportError as error:
        if error.name == "tensorrt" and not isinstance(error, MissingPackageError) and error.path is None:
            reason = (
                "it builds and runs engines; install it with: pip install 'trtcalib[tensorrt]' (TensorRT 8.6 to 10.16)"
            )
        else:
            reason = f"it is installed and cannot be loaded: {error}"
        raise MissingPackageError("tensorrt", reason) from error
    except OSError as error:  # its own loader dlopens the libraries
        raise MissingPackageError("tensorrt", f"it is installed and cannot be loaded: {error}") from error
    if not hasattr(tensorrt, "__version__"):
        where = ", ".join(map(repr, getattr(tensorrt, "__path__", ())))
        reason = f"what Python finds under that name is something else ({where or 'a module without a version'})"
        raise MissingPackageError("tensorrt", reason)
    if _numbers(tensorrt.__version__) < OLDEST:
        raise InstalledTensorRTError(tensorrt.__version__, "is installed and too old: trtcalib needs 8.6 or later")
    return tensorrt


def version_of(trt: Any) -> str:
    """Return TensorRT's version as the cache's header counts it: ``10.16.1`` for ``10.16.1.11``."""
    return ".".join(str(number) for number in _numbers(trt.__version__)[:3])


def require_calibrators(trt: Any) -> None:
    """Check that this TensorRT still has calibrators.

    Raises:
        InstalledTensorRTError: From TensorRT 11 on, which removed them.
    """
    if _numbers(trt.__version__)[0] >= FIRST_VERSION_WITHOUT_CALIBRATORS or not hasattr(trt, "IInt8EntropyCalibrator2"):
        raise InstalledTensorRTError(
            trt.__version__,
            "is installed, and TensorRT 11 removed calibrators: it takes INT8 only from a model with explicit "
            "QuantizeLinear/DequantizeLinear (Q/DQ) nodes. Either give it such a model (trtcalib builds it without a "
            "calibrator; `trtcalib calibrate` makes the scales on the CPU), or install the last TensorRT with calibrators: "
            f"pip install 'tensorrt>=8.6,<11' ({NEWEST_WITH_CALIBRATORS})",
        )


_DTYPES = {
    "FLOAT": np.float32,
    "HALF": np.float16,
    "INT8": np.int8,
    "INT32": np.int32,
    "INT64": np.int64,
    "BOOL": np.bool_,
    "UINT8": np.uint8,
}
"""By the name of a ``tensorrt.DataType``. ``tensorrt.nptype`` of 8.6 asks NumPy for names that it no longer has."""


def numpy_dtype(tensor: str, datatype: Any) -> np.dtype[Any]:
    """Return NumPy's dtype of one of TensorRT's.

    Raises:
        EngineError: If NumPy has none; it names the tensor.
    """
    if datatype.name not in _DTYPES:
        raise EngineError(tensor, f"this tensor is {datatype.name}, which NumPy does not know")
    return np.dtype(_DTYPES[datatype.name])


def import_pycuda() -> ModuleType:
    """Return the module ``pycuda.driver``, initialised.

    Raises:
        MissingPackageError: If PyCUDA is not installed.
        DeviceError: If there is no driver, or it is too old for PyCUDA, or there is no GPU.
    """
    try:
        import pycuda.driver as cuda
    except ImportError as error:
        if error.name == "pycuda":
            reason = "it moves batches to the GPU; install it with: pip install 'trtcalib[tensorrt]'"
            raise MissingPackageError("pycuda", reason) from error
        if "libcuda" in str(error):
            raise DeviceError(
                f"there is no NVIDIA driver here ({error}): install one, or start the container with --gpus all"
            ) from error
        raise MissingPackageError("pycuda", f"it is installed and cannot be loaded: {error}") from error
    try:
        cuda.init()
        count = cuda.Device.count()
    except cuda.Error as error:
        raise DeviceError(_driver_fault(str(error))) from error
    if not count:
        raise DeviceError("the NVIDIA driver sees no GPU: check nvidia-smi, CUDA_VISIBLE_DEVICES and --gpus")
    return cuda  # type: ignore[no-any-return]  # pycuda is untyped


def import_cuda_python() -> Any:
    """Return the module ``cuda.bindings.driver``, initialised.

    Raises:
        MissingPackageError: If cuda-python is not installed, or is older than the name.
        DeviceError: If there is no driver, or it is too old, or there is no GPU.
    """
    try:
        from cuda.bindings import driver
    except ImportError as error:
        reason = "it moves batches to the GPU in PyCUDA's place; install it with: pip install cuda-bindings"
        if (error.name or "").partition(".")[0] != "cuda" or error.path is not None:
            reason = f"it is installed and cannot be loaded: {error}"
        raise MissingPackageError("cuda.bindings", reason) from error
    try:
        (code,) = driver.cuInit(0)  # only now is the driver looked for
        count = int(driver.cuDeviceGetCount()[1] or 0) if code == driver.CUresult.CUDA_SUCCESS else None
    except RuntimeError as error:
        raise DeviceError(
            f"there is no NVIDIA driver here ({error}): install one, or start the container with --gpus all"
        ) from error
    if count is None:
        raise DeviceError(_driver_fault(f"cuInit failed: {driver.cuGetErrorString(code)[1].decode()}"))
    if not count:
        raise DeviceError("the NVIDIA driver sees no GPU: check nvidia-smi, CUDA_VISIBLE_DEVICES and --gpus")
    return driver


def import_compiler() -> ModuleType:
    """Return the module ``pycuda.compiler``; PyCUDA itself must have been imported before."""
    import pycuda.compiler

    return pycuda.compiler  # type: ignore[no-any-return]  # pycuda is untyped


def find_nvcc() -> str:
    """Return the CUDA compiler: on the PATH, below ``CUDA_HOME`` or ``CUDA_PATH``, or where the toolkit installs itself.

    Raises:
        DeviceError: If there is none.
    """
    homes = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), TOOLKIT]
    for folder in (None, *(Path(home, "bin") for home in homes if home)):
        found = shutil.which("nvcc", path=folder)
        if found:
            return found
    raise DeviceError(
        "there is no CUDA compiler here, and PyCUDA compiles kernels with nvcc: install the CUDA toolkit (NVIDIA's TensorRT "
        "containers have it) and put its bin folder on the PATH, or set CUDA_HOME"
    )


def _driver_fault(text: str) -> str:
    if "no CUDA-capable device" in text or "no device" in text:
        return f"the NVIDIA driver sees no GPU ({text}): check nvidia-smi, CUDA_VISIBLE_DEVICES and --gpus"
    if "insufficient" in text or "unsupported display driver" in text or "mismatch" in text:
        return f"the NVIDIA driver is too old for this CUDA ({text}): update the driver, or take an older CUDA and TensorRT"
    return f"the NVIDIA driver cannot be used: {text}"


def device_facts(cuda: Any, index: int = 0) -> DeviceFacts:
    """State which GPU and driver these are.

    Raises:
        DeviceError: If there is no such GPU.
    """
    if not 0 <= index < cuda.Device.count():
        raise DeviceError(f"there is no GPU {index}: the driver sees {cuda.Device.count()}")
    device = cuda.Device(index)
    major, minor = device.compute_capability()
    known = cuda.get_driver_version()
    return DeviceFacts(
        name=device.name(),
        compute_capability=f"{major}.{minor}",
        memory=device.total_memory(),
        cuda=f"{known // 1000}.{known % 1000 // 10}",
        driver=kernel_driver(),
    )


def out_of_memory(asked: int, free: int, total: int) -> DeviceError:
    """Return the error for device memory that is not there; all in bytes."""
    return DeviceError(
        f"out of device memory: asked for {asked} bytes, {free} of {total} are free: take a smaller batch, or stop what else runs on "
        "the GPU",
        asked,
    )


def kernel_driver() -> str | None:
    """Return the driver's version, which CUDA itself does not tell; ``None`` outside Linux and on a Jetson."""
    try:
        text = Path("/proc/driver/nvidia/version").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    match = re.search(r"\b([0-9]{3,}\.[0-9.]+)\b", text)
    return match[1] if match else None


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version))
