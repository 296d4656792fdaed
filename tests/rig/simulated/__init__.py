"""A thin simulation of TensorRT behind NVIDIA's real Python bindings: what a tool tells TensorRT, and hears from it.

It shows that calls, callbacks, files and errors go as they should. It shows nothing about speed, accuracy, or the
scales that TensorRT finds.
"""

from __future__ import annotations

import atexit
import ctypes
import json
import os
from pathlib import Path
from types import ModuleType
from typing import Any

from tests.rig.bindings import stub_library
from tests.rig.simulated.abi import keep, object_at
from tests.rig.simulated.record import Build, Calibration, Knobs, Simulation

__all__ = ["Build", "Calibration", "Knobs", "Simulation", "follow_environment", "install"]


def install(trt: ModuleType, version: str) -> Simulation:
    """Put a new simulated TensorRT behind the bindings, for everything that is made from now on.

    Args:
        trt: What ``tests.rig.bindings.load`` returned.
        version: Its version.
    """
    from tests.rig.simulated.builder import Builder
    from tests.rig.simulated.parser import Parser
    from tests.rig.simulated.runtime import Runtime

    simulation = Simulation(trt, version)

    def create_builder(logger: int) -> int:
        return _address_of(simulation, "Builder", lambda: Builder(simulation, logger))

    def create_parser(network: int, logger: int) -> int:
        return _address_of(simulation, "OnnxParser", lambda: Parser(simulation, object_at(network), logger))

    def create_runtime(logger: int) -> int:
        return _address_of(simulation, "Runtime", lambda: Runtime(simulation, logger))

    _hook("rig_create_builder", create_builder, 1)
    _hook("rig_create_runtime", create_runtime, 1)
    _hook("rig_create_parser", create_parser, 2)
    return simulation


def follow_environment(simulation: Simulation) -> None:
    """Set knobs from ``TRTCALIB_RIG_KNOBS`` (JSON), and write the record to ``TRTCALIB_RIG_RECORD`` at exit."""
    simulation.knobs.update(json.loads(os.environ.get("TRTCALIB_RIG_KNOBS", "{}")))
    if "TRTCALIB_RIG_RECORD" in os.environ:
        atexit.register(simulation.dump, Path(os.environ["TRTCALIB_RIG_RECORD"]))


def _address_of(simulation: Simulation, name: str, create: Any) -> int:
    try:
        return create().address
    except BaseException as error:
        simulation.keep_error(name, error)
        return 0


def _hook(name: str, function: Any, arguments: int) -> None:
    """Let the stub library call a Python function that returns an address."""
    pointer = ctypes.c_void_p
    callback = keep(ctypes.CFUNCTYPE(pointer, *[pointer] * arguments)(function))
    pointer.in_dll(stub_library(), name).value = ctypes.cast(callback, pointer).value
