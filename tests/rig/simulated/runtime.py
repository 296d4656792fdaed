"""The simulated runtime: plans are checked and become engines that tell what they take and give."""

from __future__ import annotations

import ctypes
from functools import cached_property
from typing import TYPE_CHECKING, Any

from tests.rig.simulated.abi import BOOL, DIMS, INT, INT64, OBJECT, POINTER, SIZE, TEXT, Simulated, method
from tests.rig.simulated.execution import ExecutionContext
from tests.rig.simulated.handouts import HostMemory
from tests.rig.simulated.inspector import EngineInspector, fused_layers
from tests.rig.simulated.plan import read_plan, write_plan
from tests.rig.vtable import LoggerDriver

if TYPE_CHECKING:
    from tests.rig.simulated.record import Shape, Simulation

__all__ = ["CudaEngine", "Runtime"]

_DEVICE_MEMORY = 1 << 20
"""Bytes that an execution context says it needs."""


class Runtime(Simulated):
    """Makes engines of plans."""

    TABLE = "VRuntime"

    def __init__(self, simulation: Simulation, logger: int) -> None:
        super().__init__(simulation)
        self.max_threads = 1
        self._logger = LoggerDriver(logger, simulation.major)

    def log(self, severity: str, text: str) -> None:
        """Record a message and hand it to the logger."""
        self.simulation.messages.append((severity, text))
        self._logger.log(int(getattr(self.simulation.trt.Logger, severity)), text)

    @method(OBJECT, POINTER, SIZE, POINTER)
    def deserializeCudaEngine(self, content, size, _):
        """Take a plan; the last argument is a plugin factory in TensorRT 8 and nothing later."""
        plan = ctypes.string_at(content, size)
        try:
            facts, model = read_plan(plan)
        except ValueError as error:
            self.log("ERROR", f"Serialization assertion magicTagRead == kMAGIC_TAG failed: {error}")
            return None
        version, device = self.simulation.version, self.simulation.knobs.device_name
        if facts["tensorrt"] != version:
            self.log(
                "ERROR",
                "The engine plan file is not compatible with this version of TensorRT, "
                f"expecting library version {version} got {facts['tensorrt']}, please rebuild.",
            )
            return None
        if facts["device"] != device:
            self.log(
                "ERROR",
                "The engine plan file is generated on an incompatible device, "
                f"expecting {device} got {facts['device']}, please rebuild.",
            )
            return None
        return CudaEngine(self, facts, model)

    @method(POINTER)
    def getLogger(self):
        return self._logger.address

    @method(None, INT)
    def setDLACore(self, core):
        self.log("INFO", f"The runtime uses DLA core {core}.")

    @method(INT)
    def getNbDLACores(self):
        return self.simulation.knobs.num_dla_cores

    @method(BOOL, INT)
    def setMaxThreads(self, threads):
        self.max_threads = threads
        return threads > 0

    @method(INT)
    def getMaxThreads(self):
        return self.max_threads


class CudaEngine(Simulated):
    """An engine: what its plan says, and the ONNX model that is run in its place.

    Attributes:
        facts: The JSON line of the plan.
        model: The bytes of the ONNX model.
        tensors: Inputs and outputs by name, inputs first.
    """

    TABLE = "VCudaEngine"

    def __init__(self, runtime: Runtime, facts: dict[str, Any], model: bytes) -> None:
        super().__init__(runtime.simulation)
        self.runtime = runtime
        self.facts = facts
        self.model = model
        self.inputs: dict[str, Any] = {tensor["name"]: tensor for tensor in facts["inputs"]}
        self.tensors: dict[str, Any] = {**self.inputs, **{tensor["name"]: tensor for tensor in facts["outputs"]}}

    @cached_property
    def session(self) -> Any:
        """The ONNX model in ONNX Runtime."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        return onnxruntime.InferenceSession(self.model, options, providers=["CPUExecutionProvider"])

    @property
    def number_of_profiles(self) -> int:
        """How many optimization profiles there are; one is implied."""
        return max(1, len(self.facts["profiles"]))

    def profile_shape(self, name: str, index: int, selector: int) -> Shape | None:
        """Return a shape of an input in a profile; ``None`` for what is no input or no profile."""
        if name not in self.inputs or not 0 <= index < self.number_of_profiles:
            return None
        profile = self.facts["profiles"][index] if self.facts["profiles"] else {}
        return tuple(profile[name][selector] if name in profile else self.inputs[name]["shape"])

    @method(TEXT)
    def getName(self):
        return self.facts["name"]

    @method(OBJECT)
    def serialize(self):
        return HostMemory(self.simulation, write_plan(self.facts, self.model))

    @method(OBJECT, INT)
    def createExecutionContext(self, strategy):
        """Make a context; the strategy exists from TensorRT 10 on and is a stray number before."""
        return ExecutionContext(self)

    @method(OBJECT)
    def createExecutionContextWithoutDeviceMemory(self):
        return ExecutionContext(self)

    @method(OBJECT)
    def createEngineInspector(self):
        return EngineInspector(self)

    @method(SIZE)
    def getDeviceMemorySize(self):
        return _DEVICE_MEMORY

    @method(INT64)
    def getDeviceMemorySizeV2(self):
        return _DEVICE_MEMORY

    @method(SIZE, INT)
    def getDeviceMemorySizeForProfile(self, index):
        return _DEVICE_MEMORY

    @method(INT64, INT)
    def getDeviceMemorySizeForProfileV2(self, index):
        return _DEVICE_MEMORY

    @method(BOOL)
    def isRefittable(self):
        return False

    @method(BOOL)
    def hasImplicitBatchDimension(self):
        return False

    @method(INT)
    def getEngineCapability(self):
        return int(self.simulation.trt.EngineCapability.STANDARD)

    @method(INT)
    def getHardwareCompatibilityLevel(self):
        return 0

    @method(INT)
    def getNbAuxStreams(self):
        return 0

    @method(INT)
    def getTacticSources(self):
        return 0

    @method(INT64)
    def getStreamableWeightsSize(self):
        return 0

    @method(INT)
    def getProfilingVerbosity(self):
        return int(getattr(self.simulation.trt.ProfilingVerbosity, self.facts["profiling_verbosity"]))

    @method(INT)
    def getNbLayers(self):
        """Count layers; TensorRT 8 counts them once per profile."""
        return len(fused_layers(self.facts["layers"])) * (self.number_of_profiles if self.simulation.major < 10 else 1)

    @method(INT)
    def getNbOptimizationProfiles(self):
        return self.number_of_profiles

    @method(INT)
    def getNbIOTensors(self):
        return len(self.tensors)

    @method(TEXT, INT)
    def getIOTensorName(self, index):
        return list(self.tensors)[index] if 0 <= index < len(self.tensors) else None

    @method(INT, TEXT)
    def getTensorIOMode(self, name):
        modes = self.simulation.trt.TensorIOMode
        if name not in self.tensors:
            return int(modes.NONE)
        return int(modes.INPUT if name in self.inputs else modes.OUTPUT)

    @method(DIMS, TEXT)
    def getTensorShape(self, name):
        shape = self.tensors.get(name, {}).get("shape")
        return None if shape is None else tuple(shape)

    @method(INT, TEXT)
    def getTensorDataType(self, name):
        return int(getattr(self.simulation.trt.DataType, self.tensors[name]["dtype"])) if name in self.tensors else 0

    @method(INT, TEXT)
    def getTensorLocation(self, name):
        return int(self.simulation.trt.TensorLocation.DEVICE)

    @method(BOOL, TEXT)
    def isShapeInferenceIO(self, name):
        return False

    @method(BOOL, TEXT)
    def isDebugTensor(self, name):
        return False

    @method(INT, TEXT)
    def getTensorFormat(self, name):
        return int(self.simulation.trt.TensorFormat.LINEAR)

    @method(INT, TEXT, INT)
    def getTensorFormatV2(self, name, profile):
        return int(self.simulation.trt.TensorFormat.LINEAR)

    @method(TEXT, TEXT)
    def getTensorFormatDesc(self, name):
        return "Row major linear FP32 format (kLINEAR)"

    @method(TEXT, TEXT, INT)
    def getTensorFormatDescV2(self, name, profile):
        return "Row major linear FP32 format (kLINEAR)"

    @method(INT, TEXT)
    def getTensorVectorizedDim(self, name):
        return -1

    @method(INT, TEXT)
    def getTensorBytesPerComponent(self, name):
        return -1

    @method(INT, TEXT)
    def getTensorComponentsPerElement(self, name):
        return -1

    @method(DIMS, TEXT, INT, INT)
    def getProfileShape(self, name, index, selector):
        return self.profile_shape(name, index, selector)
