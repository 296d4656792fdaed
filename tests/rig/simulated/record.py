"""What a simulated TensorRT is told to be, and what it saw."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Build", "Calibration", "Knobs", "Simulation"]

Shape = tuple[int, ...]
Profile = dict[str, tuple[Shape, Shape, Shape]]


@dataclass(slots=True, kw_only=True)
class Knobs:
    """How the simulated machine and TensorRT behave.

    Attributes:
        device_name: The GPU; a plan of another one is refused.
        platform_has_fast_int8: What the builder says of INT8.
        platform_has_fast_fp16: What the builder says of FP16.
        num_dla_cores: How many DLA cores there are.
        fail_build: Whether every build ends with an error after calibration.
        unknown_operators: Operators that the parser does not know.
        scales_of_all_tensors: Whether a calibration cache holds the inner tensors too, which takes a run of ONNX Runtime
            per batch; else only the network's inputs.
        is_device: Whether an address and a number of bytes lie in device memory; ``None`` takes any address that is
            not null.
        wait_for_stream: Does what is queued on a stream, given its handle: kernels that follow find it done; ``None``
            where nothing is asynchronous.
    """

    device_name: str = "Simulated GPU"
    platform_has_fast_int8: bool = True
    platform_has_fast_fp16: bool = True
    num_dla_cores: int = 0
    fail_build: bool = False
    unknown_operators: tuple[str, ...] = ()
    scales_of_all_tensors: bool = False
    is_device: Callable[[int, int], bool] | None = None
    wait_for_stream: Callable[[int], None] | None = None

    def update(self, values: dict[str, Any]) -> None:
        """Set knobs by name.

        Raises:
            ValueError: If there is no such knob.
        """
        unknown = values.keys() - {knob.name for knob in fields(self)}
        if unknown:
            raise ValueError(f"unknown knobs {sorted(unknown)}")
        for name, value in values.items():
            setattr(self, name, value)


@dataclass(slots=True, kw_only=True)
class Calibration:
    """One calibration.

    Attributes:
        algorithm: As in the header of a cache, ``EntropyCalibration2`` for instance; empty if the calibrator was
            ignored because the network is quantized explicitly.
        ignored: Whether it was.
        answered: The cache that the calibrator answered with, if any.
        honoured: Whether that was used in place of batches.
        batches: Per batch an array per input, copied from the device.
        written: The cache that the calibrator was handed, if any.
    """

    algorithm: str = ""
    ignored: bool = False
    answered: bytes | None = None
    honoured: bool = False
    batches: list[dict[str, NDArray[Any]]] = field(default_factory=list)
    written: bytes | None = None


@dataclass(slots=True, kw_only=True)
class Build:
    """One call of ``build_serialized_network``.

    Attributes:
        flags: Names of the builder flags that were set.
        quantization_flags: Names of the quantization flags that were set.
        memory_pools: Limit in bytes per name of a memory pool, where one was set.
        profiles: Per optimization profile the smallest, usual and largest shape of each input.
        calibration_profile: The same of the calibration profile, if one was set.
        layer_precisions: Name of the data type per layer whose precision was set.
        output_types: Names of the data types per layer whose output types were set.
        dynamic_ranges: Smallest and largest value per tensor whose dynamic range was set.
        settings: Other settings of the configuration by name, as the bindings gave them.
        network_flags: Names of the creation flags of the network that were set.
        strongly_typed: Whether the network is.
        calibration: What calibration did; ``None`` without calibrator or INT8.
        phases: Progress as it was reported: (phase, steps).
        cancelled: Whether the progress monitor asked for that.
        succeeded: Whether a plan was returned.
    """

    flags: frozenset[str] = frozenset()
    quantization_flags: frozenset[str] = frozenset()
    memory_pools: dict[str, int] = field(default_factory=dict)
    profiles: list[Profile] = field(default_factory=list)
    calibration_profile: Profile | None = None
    layer_precisions: dict[str, str] = field(default_factory=dict)
    output_types: dict[str, dict[int, str]] = field(default_factory=dict)
    dynamic_ranges: dict[str, tuple[float, float]] = field(default_factory=dict)
    settings: dict[str, int] = field(default_factory=dict)
    network_flags: frozenset[str] = frozenset()
    strongly_typed: bool = False
    calibration: Calibration | None = None
    phases: list[tuple[str, int]] = field(default_factory=list)
    cancelled: bool = False
    succeeded: bool = False


class Simulation:
    """A simulated TensorRT: its knobs and its record.

    Attributes:
        trt: The real bindings.
        version: Of TensorRT, as the bindings tell it.
        knobs: How it behaves; may be changed at any time.
        builds: Every build, also those that failed.
        executions: How many times an execution context ran.
        messages: What was logged: (name of the severity, text).
        errors: Mistakes of the simulation, or calls to deleted objects; must stay empty.
        unimplemented: Virtual methods that were called and are not simulated; must stay empty.
    """

    def __init__(self, trt: ModuleType, version: str) -> None:
        self.trt: Any = trt
        self.version = version
        self.major = int(version.split(".", maxsplit=1)[0])
        self.knobs = Knobs()
        self.builds: list[Build] = []
        self.executions = 0
        self.messages: list[tuple[str, str]] = []
        self.errors: list[str] = []
        self.unimplemented: list[str] = []

    @property
    def calibration(self) -> Calibration:
        """The calibration of the last build.

        Raises:
            LookupError: If there was none.
        """
        if not self.builds or self.builds[-1].calibration is None:
            raise LookupError("the last build did not calibrate")
        return self.builds[-1].calibration

    def texts(self, severity: str) -> list[str]:
        """Return the messages of one severity, ``ERROR`` for instance."""
        return [text for name, text in self.messages if name == severity]

    def keep_error(self, where: str, error: BaseException) -> None:
        """Keep an exception that must not travel through C++."""
        if isinstance(error, KeyboardInterrupt):
            # Real TensorRT runs no Python, so that Ctrl-C waits until the bindings have returned; here it struck early.
            threading.Timer(0.05, signal.raise_signal, [signal.SIGINT]).start()
        else:
            self.errors.append(f"{where}: {error!r}")

    def as_json(self) -> dict[str, Any]:
        """Return the record as JSON values; of arrays the type and the shape."""
        builds = [asdict(build) for build in self.builds]
        return json.loads(
            json.dumps(
                {
                    "version": self.version,
                    "builds": builds,
                    "executions": self.executions,
                    "messages": self.messages,
                    "errors": self.errors,
                    "unimplemented": self.unimplemented,
                },
                default=_json_value,
            )
        )

    def dump(self, path: Path) -> None:
        """Write the record to a ``.json`` file, or to a ``.npz`` file that holds the batches too.

        In the latter the JSON text is the array ``record``, and an array ``build/batch/input`` stands for each input of
        each batch, both counted from 0.
        """
        text = json.dumps(self.as_json(), indent=2)
        if path.suffix != ".npz":
            path.write_text(text, encoding="utf-8")
            return
        arrays = {
            f"{b}/{k}/{name}": array
            for b, build in enumerate(self.builds)
            for k, batch in enumerate(build.calibration.batches if build.calibration else [])
            for name, array in batch.items()
        }
        with path.open("wb") as file:
            np.savez(file, record=np.array(text), **arrays)


def _json_value(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return {"dtype": str(value.dtype), "shape": value.shape}
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    if isinstance(value, frozenset):
        return sorted(value)
    raise TypeError(f"{type(value).__name__} is no JSON value")
