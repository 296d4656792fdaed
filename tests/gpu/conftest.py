"""Tests on a real NVIDIA GPU: skipped with a reason where there is none, and failing instead under TRTCALIB_REQUIRE_GPU=1."""

from __future__ import annotations

import contextlib
import importlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest

from trtcalib.errors import MissingPackageError, TrtcalibError
from trtcalib.trt.buffers import Device, open_device

SAMPLE = Path(__file__).parents[2] / "data" / "digits"


def skip_or_fail(reason: str) -> None:
    """Skip where a GPU is a luxury, and fail where it was promised."""
    if os.environ.get("TRTCALIB_REQUIRE_GPU") == "1":
        pytest.fail(f"TRTCALIB_REQUIRE_GPU=1, but {reason}")
    pytest.skip(reason)


@pytest.fixture
def backend() -> Literal["pycuda", "cuda-python"]:
    """What the GPU is opened through."""
    return "pycuda"


@pytest.fixture
def device(backend: Literal["pycuda", "cuda-python"]) -> Iterator[Device]:
    """The first GPU."""
    try:
        opened = open_device(backend=backend)
    except MissingPackageError as error:
        if backend == "cuda-python":
            pytest.skip(f"the images hold PyCUDA only: {error}")  # so it is promised nowhere
        skip_or_fail(f"no GPU can be used: {error}")
    except TrtcalibError as error:
        skip_or_fail(f"no GPU can be used: {error}")
    if "simulated" in opened.facts.name:
        skip_or_fail("the CUDA here is simulated")
    with contextlib.closing(opened):
        yield opened


@pytest.fixture
def trt(device: Device) -> Any:
    """The real TensorRT, beside a real GPU."""
    try:
        return importlib.import_module("tensorrt")
    except ImportError as error:
        skip_or_fail(f"TensorRT cannot be imported: {error}")


@pytest.fixture
def calibrators(trt: Any) -> Any:
    """A TensorRT that has calibrators; with a newer one these tests are not collected."""
    return trt


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what the TensorRT here cannot have: skipping it would be a failure where a GPU is required."""
    try:
        has_calibrators = hasattr(importlib.import_module("tensorrt"), "IInt8EntropyCalibrator2")
    except (ImportError, OSError):
        return  # the fixture says what is missing
    here = Path(__file__).parent
    absent = "calibrators" if not has_calibrators else "no_calibrators"
    gone = [item for item in items if here in item.path.parents and absent in getattr(item, "fixturenames", ())]
    config.hook.pytest_deselected(items=gone)
    items[:] = [item for item in items if item not in gone]


@pytest.fixture
def no_calibrators(trt: Any) -> Any:
    """TensorRT 11 or later; with an older one these tests are not collected."""
    return trt
