"""The simulated configuration of a build."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any

from tests.rig.simulated.abi import BOOL, INT, INT64, OBJECT, POINTER, SIZE, Simulated, method
from tests.rig.simulated.handouts import OptimizationProfile, TimingCache

if TYPE_CHECKING:
    from tests.rig.simulated.record import Simulation

__all__ = ["BuilderConfig"]


class BuilderConfig(Simulated):
    """How a network is to be built.

    Attributes:
        flags: A bit per builder flag.
        calibrator: The address of the calibrator, or 0.
        monitor: The address of the progress monitor, or 0.
        settings: Plain numbers by the name of their setter, without ``set``.
    """

    TABLE = "VBuilderConfig"

    def __init__(self, simulation: Simulation) -> None:
        super().__init__(simulation)
        self.flags = 1 << int(simulation.trt.BuilderFlag.TF32)
        self.quantization_flags = 0
        self.calibrator = 0
        self.monitor = 0
        self.memory_pools: dict[int, int] = {}
        self.profiles: list[OptimizationProfile] = []
        self.calibration_profile: OptimizationProfile | None = None
        self.timing_cache: TimingCache | None = None
        self.preview_features: dict[int, bool] = {}
        self.device_types: dict[int, int] = {}
        self.settings: dict[str, Any] = {}

    def has_flag(self, name: str) -> bool:
        """Whether a builder flag is set; one that this version does not have is not."""
        flag = getattr(self.simulation.trt.BuilderFlag, name, None)
        return flag is not None and bool(self.flags >> int(flag) & 1)

    @method(None, INT)
    def setFlag(self, flag):
        self.flags |= 1 << flag

    @method(None, INT)
    def clearFlag(self, flag):
        self.flags &= ~(1 << flag)

    @method(BOOL, INT)
    def getFlag(self, flag):
        return bool(self.flags >> flag & 1)

    @method(None, INT)
    def setFlags(self, flags):
        self.flags = flags

    @method(INT)
    def getFlags(self):
        return self.flags

    @method(None, INT)
    def setQuantizationFlag(self, flag):
        self.quantization_flags |= 1 << flag

    @method(None, INT)
    def clearQuantizationFlag(self, flag):
        self.quantization_flags &= ~(1 << flag)

    @method(BOOL, INT)
    def getQuantizationFlag(self, flag):
        return bool(self.quantization_flags >> flag & 1)

    @method(None, INT)
    def setQuantizationFlags(self, flags):
        self.quantization_flags = flags

    @method(INT)
    def getQuantizationFlags(self):
        return self.quantization_flags

    @method(None, POINTER)
    def setInt8Calibrator(self, calibrator):
        self.calibrator = calibrator

    @method(POINTER)
    def getInt8Calibrator(self):
        return self.calibrator

    @method(None, POINTER)
    def setProgressMonitor(self, monitor):
        self.monitor = monitor

    @method(POINTER)
    def getProgressMonitor(self):
        return self.monitor

    @method(None, INT, SIZE)
    def setMemoryPoolLimit(self, pool, size):
        self.memory_pools[pool] = size

    @method(SIZE, INT)
    def getMemoryPoolLimit(self, pool):
        return self.memory_pools.get(pool, 0)

    @method(None, SIZE)
    def setMaxWorkspaceSize(self, size):
        self.memory_pools[int(self.simulation.trt.MemoryPoolType.WORKSPACE)] = size

    @method(SIZE)
    def getMaxWorkspaceSize(self):
        return self.memory_pools.get(int(self.simulation.trt.MemoryPoolType.WORKSPACE), 0)

    @method(INT, OBJECT)
    def addOptimizationProfile(self, profile):
        if not profile.isValid():
            return -1
        self.profiles.append(profile)
        return len(self.profiles) - 1

    @method(INT)
    def getNbOptimizationProfiles(self):
        return len(self.profiles)

    @method(BOOL, OBJECT)
    def setCalibrationProfile(self, profile):
        self.calibration_profile = profile
        return True

    @method(OBJECT)
    def getCalibrationProfile(self):
        return self.calibration_profile

    @method(OBJECT, POINTER, SIZE)
    def createTimingCache(self, content, size):
        return TimingCache(self.simulation, ctypes.string_at(content, size) if content and size else b"")

    @method(BOOL, OBJECT, BOOL)
    def setTimingCache(self, cache, ignore_mismatch):
        if not (ignore_mismatch or cache.fits):
            return False
        self.timing_cache = cache
        return True

    @method(OBJECT)
    def getTimingCache(self):
        return self.timing_cache

    @method(None, INT, BOOL)
    def setPreviewFeature(self, feature, enable):
        self.preview_features[feature] = enable

    @method(BOOL, INT)
    def getPreviewFeature(self, feature):
        return self.preview_features.get(feature, False)

    @method(None, OBJECT, INT)
    def setDeviceType(self, layer, device):
        self.device_types[layer.address] = device

    @method(INT, OBJECT)
    def getDeviceType(self, layer):
        return self.device_types.get(layer.address, self.settings.get("DefaultDeviceType", 0))

    @method(INT)
    def getNbPluginsToSerialize(self):
        return 0

    @method(BOOL, OBJECT)
    def canRunOnDLA(self, layer):
        return layer.kind in ("CONVOLUTION", "ACTIVATION", "ELEMENTWISE", "POOLING")


def _add_setting(name: str, kind: Any, default: int) -> None:
    """Give the configuration a getter and a setter for a plain number."""

    def getter(self: BuilderConfig) -> Any:
        return self.settings.get(name, default)

    def setter(self: BuilderConfig, value: Any) -> bool:
        self.settings[name] = value
        return True

    setattr(BuilderConfig, f"get{name}", method(kind)(getter))
    setattr(BuilderConfig, f"set{name}", method(BOOL, kind)(setter))


for _name, _kind, _default in (
    ("AvgTimingIterations", INT, 1),
    ("BuilderOptimizationLevel", INT, 3),
    ("DLACore", INT, -1),
    ("DefaultDeviceType", INT, 0),
    ("EngineCapability", INT, 0),
    ("HardwareCompatibilityLevel", INT, 0),
    ("L2LimitForTiling", INT64, -1),
    ("MaxAuxStreams", INT, -1),
    ("MaxNbTactics", INT, -1),
    ("MinTimingIterations", INT, 1),
    ("ProfileStream", POINTER, 0),
    ("ProfilingVerbosity", INT, 0),
    ("RuntimePlatform", INT, 0),
    ("TacticSources", INT, 0),
    ("TilingOptimizationLevel", INT, 0),
):
    _add_setting(_name, _kind, _default)
