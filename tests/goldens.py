"""Where the real calibration caches lie: beside the repository, since they may be tested against but not shipped."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

GOLDEN = Path(__file__).resolve().parents[2] / "shared" / "golden"


def golden_folder() -> Path:
    """The folder of caches that TensorRT itself wrote; without it tests are skipped, and fail in CI."""
    if GOLDEN.is_dir():
        return GOLDEN
    reason = "no golden caches in ../shared/golden"
    if os.environ.get("CI") and not os.environ.get("TRTCALIB_ALLOW_SKIP_GOLDEN"):
        pytest.fail(reason)
    pytest.skip(reason)
