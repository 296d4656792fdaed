"""What all tests share: hypothesis' profile, and the real calibration caches that lie beside the repository."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

GOLDEN = Path(__file__).resolve().parents[2] / "shared" / "golden"

settings.register_profile(
    "trtcalib",
    deadline=None,  # the first example compiles the kernels
    derandomize="CI" in os.environ,
)
settings.load_profile("trtcalib")


@pytest.fixture(scope="session")
def golden() -> Path:
    """The folder of caches that TensorRT itself wrote; they may be tested against, not shipped."""
    if GOLDEN.is_dir():
        return GOLDEN
    reason = "no golden caches in ../shared/golden"
    if os.environ.get("CI") and not os.environ.get("TRTCALIB_ALLOW_SKIP_GOLDEN"):
        pytest.fail(reason)
    pytest.skip(reason)
