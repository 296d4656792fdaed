"""Makes ``oracles`` importable from the tests beside it, and sets hypothesis up for a shared machine."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from hypothesis import HealthCheck, settings

# importlib mode leaves sys.path alone, so the helper module beside the tests would not be found.
sys.path.insert(0, str(Path(__file__).parent))

settings.register_profile(
    "core",
    deadline=None,  # the first example compiles the kernels
    max_examples=60,
    database=None,
    derandomize="CI" in os.environ,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("core")
