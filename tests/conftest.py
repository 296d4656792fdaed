"""What all tests share: hypothesis' profile, and the real calibration caches that lie beside the repository."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.goldens import golden_folder

settings.register_profile(
    "trtcalib",
    database=None,
    deadline=None,  # the first example compiles the kernels
    derandomize="CI" in os.environ,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("trtcalib")


@pytest.fixture(scope="session")
def golden() -> Path:
    """The folder of caches that TensorRT itself wrote."""
    return golden_folder()
