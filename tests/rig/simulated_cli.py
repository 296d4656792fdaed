"""Run trtcalib's command line over real bindings, a simulated TensorRT and a fake libcuda, in a process of its own.

``python -m tests.rig.simulated_cli VERSION ARGUMENT...``

``TRTCALIB_RIG_KNOBS`` holds knobs of the simulation as JSON; ``TRTCALIB_RIG_RECORD`` names a ``.json`` or ``.npz`` file that
gets the record when the process ends. Without the fake libcuda in the rig, any address passes for device memory.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from tests.rig import bindings, simulated


def main(version: str, arguments: list[str]) -> None:
    """Run one command; ends with its exit code."""
    driver = None
    if Path(os.environ["TRTCALIB_RIG"], "cuda", "libcuda.so.1").exists():
        from tests.rig import fake_cuda

        driver = fake_cuda.load()  # before anything imports PyCUDA, which links against libcuda
    simulation = simulated.install(bindings.load(version), version)
    if driver is not None:
        simulation.knobs.is_device = driver.is_device
        simulation.knobs.wait_for_stream = driver.finish
    simulated.follow_environment(simulation)

    from trtcalib.cli.main import run

    sys.argv = ["trtcalib", *arguments]
    sys.modules["__main__"].__package__ = None  # or else usage texts would call the program "python -m tests.rig..."
    run()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
