"""What the simulated builder hands out beside networks: bytes, optimization profiles, timing caches."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING

from tests.rig.simulated.abi import BOOL, DIMS, FLOAT, INT, OBJECT, POINTER, SIZE, TEXT, Simulated, keep, method

if TYPE_CHECKING:
    from tests.rig.simulated.record import Profile, Shape, Simulation

__all__ = ["HostMemory", "OptimizationProfile", "TimingCache"]


class HostMemory(Simulated):
    """Bytes that TensorRT hands out, such as a plan."""

    TABLE = "VHostMemory"

    def __init__(self, simulation: Simulation, content: bytes) -> None:
        super().__init__(simulation)
        self._buffer = keep(ctypes.create_string_buffer(content, len(content) + 1))
        self._size = len(content)

    @method(POINTER)
    def data(self):
        return ctypes.addressof(self._buffer)

    @method(SIZE)
    def size(self):
        return self._size

    @method(INT)
    def type(self):
        return int(self.simulation.trt.DataType.INT8)


class OptimizationProfile(Simulated):
    """Shapes of the inputs that a network is built for."""

    TABLE = "VOptimizationProfile"

    def __init__(self, simulation: Simulation) -> None:
        super().__init__(simulation)
        self.shapes: dict[str, dict[int, Shape]] = {}
        self.extra_memory_target = 1.0

    def as_dict(self) -> Profile:
        """Return the smallest, usual and largest shape of each input."""
        return {name: (shapes[0], shapes[1], shapes[2]) for name, shapes in self.shapes.items()}

    @method(BOOL, TEXT, INT, DIMS)
    def setDimensions(self, name, selector, shape):
        shapes = {**self.shapes.get(name, {}), selector: shape}
        # As documented: what was set before must agree in rank; the order of sizes is looked at in isValid.
        if min(shape, default=0) < 0 or len({len(each) for each in shapes.values()}) > 1:
            return False
        self.shapes[name] = shapes
        return True

    @method(DIMS, TEXT, INT)
    def getDimensions(self, name, selector):
        return self.shapes.get(name, {}).get(selector)

    @method(INT, TEXT)
    def getNbShapeValues(self, name):
        return -1

    @method(BOOL, FLOAT)
    def setExtraMemoryTarget(self, target):
        self.extra_memory_target = target
        return 0 <= target <= 1

    @method(FLOAT)
    def getExtraMemoryTarget(self):
        return self.extra_memory_target

    @method(BOOL)
    def isValid(self):
        return all(
            len(shapes) == 3 and all(a <= b <= c for a, b, c in zip(shapes[0], shapes[1], shapes[2], strict=True))
            for shapes in self.shapes.values()
        )


class TimingCache(Simulated):
    """Timings of layers: a first line that names TensorRT and the device, and a line per layer that was timed."""

    TABLE = "VTimingCache"

    def __init__(self, simulation: Simulation, content: bytes) -> None:
        super().__init__(simulation)
        self.own_header = f"SIMULATED-TIMINGS {simulation.version} {simulation.knobs.device_name}"
        lines = content.decode("utf-8", "replace").splitlines() or [self.own_header]
        self.header, self.layers = lines[0], list(lines[1:])

    @property
    def fits(self) -> bool:
        """Whether it was made by this TensorRT on this device."""
        return self.header == self.own_header

    def add(self, layers: list[str]) -> None:
        """Add what is not there yet."""
        self.layers += [layer for layer in dict.fromkeys(layers) if layer not in self.layers]

    @method(OBJECT)
    def serialize(self):
        return HostMemory(self.simulation, "\n".join([self.header, *self.layers, ""]).encode())

    @method(BOOL, OBJECT, BOOL)
    def combine(self, other, ignore_mismatch):
        if not (ignore_mismatch or other.fits):
            return False
        self.add(other.layers)
        return True

    @method(BOOL)
    def reset(self):
        self.header, self.layers = self.own_header, []
        return True
