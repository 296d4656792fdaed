"""The simulated builder: what it checks, in which order it calls calibrator and progress monitor, and what it records."""

from __future__ import annotations

import onnx

from tests.rig.simulated.abi import BOOL, INT, OBJECT, POINTER, Simulated, method
from tests.rig.simulated.calibrating import CalibrationFailed, calibrate, warn_of_missing_scales
from tests.rig.simulated.config import BuilderConfig
from tests.rig.simulated.handouts import HostMemory, OptimizationProfile
from tests.rig.simulated.network import NetworkDefinition
from tests.rig.simulated.plan import write_plan
from tests.rig.simulated.record import Build, Calibration, Simulation
from tests.rig.vtable import LoggerDriver, ProgressMonitorDriver

__all__ = ["Builder"]

_PRECISION_FLAGS = [
    "INT8",
    "FP16",
    "BF16",
    "FP8",
    "INT4",
    "FP4",
    "OBEY_PRECISION_CONSTRAINTS",
    "PREFER_PRECISION_CONSTRAINTS",
]
"""What weak typing chooses by; TF32 is none of them: it says how FP32 is computed."""


class Builder(Simulated):
    """Makes networks, configurations and plans."""

    TABLE = "VBuilder"

    def __init__(self, simulation: Simulation, logger: int) -> None:
        super().__init__(simulation)
        self.max_threads = 1
        self._logger = LoggerDriver(logger, simulation.major)

    def log(self, severity: str, text: str) -> None:
        """Record a message and hand it to the logger."""
        self.simulation.messages.append((severity, text))
        self._logger.log(int(getattr(self.simulation.trt.Logger, severity)), text)

    @method(POINTER)
    def getLogger(self):
        return self._logger.address

    @method(OBJECT)
    def createBuilderConfig(self):
        return BuilderConfig(self.simulation)

    @method(OBJECT, INT)
    def createNetworkV2(self, flags):
        return NetworkDefinition(self.simulation, self, flags)

    @method(OBJECT)
    def createOptimizationProfile(self):
        return OptimizationProfile(self.simulation)

    @method(BOOL)
    def platformHasFastInt8(self):
        return self.simulation.knobs.platform_has_fast_int8

    @method(BOOL)
    def platformHasFastFp16(self):
        return self.simulation.knobs.platform_has_fast_fp16

    @method(BOOL)
    def platformHasTf32(self):
        return True

    @method(INT)
    def getMaxBatchSize(self):
        return 1

    @method(INT)
    def getMaxDLABatchSize(self):
        return 1

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

    @method(None)
    def reset(self):
        """Do nothing: a builder here has no state."""

    @method(BOOL, OBJECT, OBJECT)
    def isNetworkSupported(self, network, config):
        return _fault(network, config) is None

    @method(OBJECT, OBJECT, OBJECT)
    def buildSerializedNetwork(self, network, config):
        plan = self._build(network, config)
        return None if plan is None else HostMemory(self.simulation, plan)

    def _build(self, network: NetworkDefinition, config: BuilderConfig) -> bytes | None:
        """Return a plan; ``None`` after an error that was logged."""
        build = _record_of(network, config)
        self.simulation.builds.append(build)
        fault = _fault(network, config)
        if fault is not None:
            self.log("ERROR", fault)
            return None
        progress = _Progress(config, build)
        try:
            with progress.phase("Building Engine", 3) as step:
                step()
                self._calibrate(network, config, build, progress)
                step()
                self._time_layers(network, config, progress)
                step()
        except _Cancelled:
            build.cancelled = True
            self.log("ERROR", "The build was cancelled by the progress monitor.")
            return None
        except CalibrationFailed as error:
            self.log("ERROR", str(error))
            return None
        if self.simulation.knobs.fail_build:
            self.log("ERROR", "Could not find any implementation for node {ForeignNode[simulated]}.")
            return None
        build.succeeded = True
        return _plan(network, config, build)

    def _calibrate(self, network: NetworkDefinition, config: BuilderConfig, build: Build, progress: _Progress) -> None:
        if not config.has_flag("INT8"):
            return
        if network.is_quantized:
            if config.calibrator:
                build.calibration = Calibration(ignored=True)
                self.log(
                    "WARNING",
                    "Calibrator won't be used in explicit quantization mode. Please insert Quantize/Dequantize layers to "
                    "indicate which tensors to quantize/dequantize.",
                )
        elif config.calibrator:
            with progress.phase("Calibration", 1, "Building Engine") as step:
                build.calibration = calibration = Calibration()
                calibrate(self, network, config, calibration)
                step()
        else:
            self.log(
                "WARNING",
                "Calibrator is not being used. Users must provide dynamic range for all tensors that are not Int32 or Bool.",
            )
            warn_of_missing_scales(self, network, set())

    def _time_layers(self, network: NetworkDefinition, config: BuilderConfig, progress: _Progress) -> None:
        with progress.phase("Timing layers", len(network.layers), "Building Engine") as step:
            for _ in network.layers:
                step()
        if config.timing_cache is not None and not config.has_flag("DISABLE_TIMING_CACHE"):
            int8 = "INT8" if config.has_flag("INT8") else "FLOAT"
            config.timing_cache.add([f"{layer.kind} {layer.name} {int8}" for layer in network.layers])


class _Cancelled(Exception):
    """The progress monitor asked to stop."""


class _Progress:
    """Reports phases to the monitor of a configuration, if there is one."""

    def __init__(self, config: BuilderConfig, build: Build) -> None:
        self.monitor = ProgressMonitorDriver(config.monitor) if config.monitor else None
        self.build = build

    def phase(self, name: str, steps: int, parent: str | None = None) -> _Phase:
        return _Phase(self, name, steps, parent)


class _Phase:
    """A phase of the build; finished also when it is left by an exception."""

    def __init__(self, progress: _Progress, name: str, steps: int, parent: str | None) -> None:
        self._monitor, self._name, self._steps, self._parent = progress.monitor, name, steps, parent
        self._done = 0
        progress.build.phases.append((name, steps))

    def __enter__(self):
        if self._monitor is not None:
            self._monitor.phase_start(self._name, self._parent, self._steps)
        return self

    def __call__(self) -> None:
        """Report a step."""
        if self._monitor is not None and not self._monitor.step_complete(self._name, self._done):
            raise _Cancelled
        self._done += 1

    def __exit__(self, *_: object) -> None:
        if self._monitor is not None:
            self._monitor.phase_finish(self._name)


def _fault(network: NetworkDefinition, config: BuilderConfig) -> str | None:
    """Return why a network cannot be built, in words like TensorRT's."""
    if not network.layers:
        return "Network must have at least one output" if not network.outputs else "Network has no layers"
    if network.strongly_typed:
        if any(config.has_flag(flag) for flag in _PRECISION_FLAGS):
            return "Precision flags must not be set for a strongly typed network"
        if any(layer.precision is not None or layer.output_types for layer in network.layers):
            return "Precisions of layers must not be set in a strongly typed network"
    dynamic = [tensor for tensor in network.inputs if tensor.shape is None or -1 in tensor.shape]
    if dynamic and not config.profiles:
        return "Network has dynamic or shape inputs, but no optimization profile has been defined."
    for index, profile in enumerate(config.profiles):
        for tensor in dynamic:
            shapes = profile.shapes.get(tensor.name, {})
            if len(shapes) < 3:
                return f"Optimization profile {index} is missing values for input {tensor.name}"
            if any(not _fits(shape, tensor.shape) for shape in shapes.values()):
                return f"Optimization profile {index}: the dimensions of input {tensor.name} do not fit the network's"
    return None


def _fits(shape: tuple[int, ...], wanted: tuple[int, ...] | None) -> bool:
    if wanted is None:
        return True
    return len(shape) == len(wanted) and all(w in (-1, extent) for extent, w in zip(shape, wanted, strict=True))


def _record_of(network: NetworkDefinition, config: BuilderConfig) -> Build:
    """Return what a build was asked for."""
    trt = network.simulation.trt
    quantization_flags = getattr(trt, "QuantizationFlag", None)
    return Build(
        flags=_names_of(config.flags, trt.BuilderFlag),
        quantization_flags=_names_of(config.quantization_flags, quantization_flags)
        if quantization_flags
        else frozenset(),
        memory_pools={trt.MemoryPoolType(pool).name: size for pool, size in config.memory_pools.items()},
        profiles=[profile.as_dict() for profile in config.profiles],
        calibration_profile=config.calibration_profile.as_dict() if config.calibration_profile else None,
        layer_precisions={
            layer.name: trt.DataType(layer.precision).name for layer in network.layers if layer.precision is not None
        },
        output_types={
            layer.name: {index: trt.DataType(dtype).name for index, dtype in layer.output_types.items()}
            for layer in network.layers
            if layer.output_types
        },
        dynamic_ranges={
            tensor.name: tensor.dynamic_range
            for tensor in [*network.inputs, *(output for layer in network.layers for output in layer.outputs)]
            if tensor.dynamic_range is not None
        },
        settings=dict(config.settings),
        network_flags=_names_of(network.flags, trt.NetworkDefinitionCreationFlag),
        strongly_typed=network.strongly_typed,
    )


def _names_of(bits: int, enumeration: object) -> frozenset[str]:
    """Return the names of the flags in a bit set."""
    members = enumeration.__members__  # type: ignore[attr-defined]
    return frozenset(name for name, member in members.items() if bits >> int(member) & 1)


def _plan(network: NetworkDefinition, config: BuilderConfig, build: Build) -> bytes:
    trt = network.simulation.trt
    default = (
        "INT8" if config.has_flag("INT8") or network.is_quantized else "HALF" if config.has_flag("FP16") else "FLOAT"
    )
    facts = {
        "tensorrt": network.simulation.version,
        "device": network.simulation.knobs.device_name,
        "name": network.name,
        "flags": sorted(build.flags),
        "profiles": build.profiles,
        "profiling_verbosity": trt.ProfilingVerbosity(config.settings.get("ProfilingVerbosity", 0)).name,
        "inputs": [_tensor_facts(tensor) for tensor in network.inputs],
        "outputs": [_tensor_facts(tensor) for tensor in network.outputs],
        "layers": [
            {
                "name": layer.name,
                "type": layer.kind,
                "precision": build.layer_precisions.get(layer.name) or default,
                "inputs": [_tensor_facts(tensor) for tensor in layer.inputs],
                "outputs": [_tensor_facts(tensor) for tensor in layer.outputs],
            }
            for layer in network.layers
            if layer.kind != "CONSTANT"
        ],
    }
    return write_plan(facts, _model_of(network))


def _model_of(network: NetworkDefinition) -> bytes:
    """Return the model that is run in place of the engine: its outputs are those that are marked, inner tensors too."""
    model = onnx.ModelProto()
    if network.model is not None:
        model.CopyFrom(network.model)
    given = {info.name: info for info in model.graph.output}
    del model.graph.output[:]
    for tensor in network.outputs:
        info = given.get(tensor.name) or onnx.helper.make_empty_tensor_value_info(tensor.name)
        model.graph.output.append(info)
    return model.SerializeToString()


def _tensor_facts(tensor) -> dict[str, object]:
    return {"name": tensor.name, "dtype": tensor.simulation.trt.DataType(tensor.dtype).name, "shape": tensor.shape}
