"""The rig's fixtures. Without the rig (``make test-rig``) every test in this folder is skipped."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from tests.rig.fake_cuda import Counts, FakeCuda, load

# A primary context may stay retained: CUDA's own runtime keeps it for the life of the process too.
MUST_COME_BACK = (
    "live_allocations",
    "pinned_allocations",
    "streams",
    "events",
    "created_contexts",
    "contexts_on_this_thread",
    "pending_copies",
)
MUST_NOT_HAPPEN = ("abandoned_allocations", "lost_copies")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what is in this folder, unless ``run.py`` says where the rig is."""
    if {"TRTCALIB_RIG", "TRTCALIB_RIG_TENSORRT"} <= os.environ.keys():
        return
    for item in items:  # of the whole session
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.skip(reason="needs the rig: run make test-rig"))


@pytest.fixture(scope="session")
def version() -> str:
    """The TensorRT version under test."""
    return os.environ["TRTCALIB_RIG_TENSORRT"]


@pytest.fixture(scope="session")
def trt(version: str) -> ModuleType:
    """NVIDIA's real Python bindings of that version, over stub libraries."""
    from tests.rig import bindings

    return bindings.load(version)


@pytest.fixture(scope="session")
def _simulated_driver() -> FakeCuda:
    return load()


@pytest.fixture
def cuda(_simulated_driver: FakeCuda) -> Iterator[FakeCuda]:
    """The simulated driver; a test fails that leaves something behind in it.

    A test that shows such a mistake on purpose calls ``reset()``, and cleans up, before it ends.
    """
    gc.collect()
    _simulated_driver.reset()
    before = _simulated_driver.counts()
    yield _simulated_driver
    gc.collect()  # PyCUDA's objects let go of the device when they are collected
    left = differences(before, _simulated_driver.counts())
    assert not left, f"the test left this behind in the simulated driver (before, after): {left}"


def differences(before: Counts, after: Counts) -> dict[str, tuple[int, int]]:
    pairs = {name: (getattr(before, name), getattr(after, name)) for name in (*MUST_COME_BACK, *MUST_NOT_HAPPEN)}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
