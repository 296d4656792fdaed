"""Build an engine: network + calibrator, or a network with Q/DQ nodes -> the serialised engine.

TensorRT 8.6 to 10.16 take one path; what 11 no longer has is asked for with ``hasattr``, here and in network.py.
"""

from __future__ import annotations

import fnmatch
import logging
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trtcalib.engine_spec import BuilderSettings, ShapeRange
from trtcalib.errors import DeviceError, EngineError, InstalledTensorRTError, ModelError, SpecError
from trtcalib.onnx_graph import ModelGraph
from trtcalib.spec_files import nearest
from trtcalib.trt.input_profile import InputProfile
from trtcalib.trt.network import (
    calibration_profile,
    elementwise_inputs,
    float_tensors,
    has_qdq,
    input_shapes,
    no_qdq,
    parse_network,
)
from trtcalib.trt.require import import_tensorrt, require_calibrators, version_of
from trtcalib.trt.stopping import BuildProgress, Stop

__all__ = ["BuiltEngine", "EngineBuilder"]

logger = logging.getLogger(__name__)

_NO_QDQ_ON_DLA = (
    "builder.dla: the model holds Q/DQ nodes, and DLA takes INT8 scales from a calibration only: give the model without them, or "
    "leave dla out to build for the GPU"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltEngine:
    """What a build gave.

    Attributes:
        plan: The serialised engine; executable, for this TensorRT and this kind of GPU only.
        timing_cache: The kernels that were measured; ``None`` where none was asked for.
        messages: TensorRT's warnings and errors, each once.
        tensors: Names of the network's tensors that can have a scale.
        seconds: Wall time.
    """

    plan: bytes
    timing_cache: bytes | None
    messages: tuple[str, ...]
    tensors: tuple[str, ...]
    seconds: float


class EngineBuilder:
    """A parsed model with its shapes, ready to be built.

    Attributes:
        version: TensorRT's version, as a cache's header counts it: ``10.16.1``.
        full_version: As TensorRT tells it: ``10.16.1.11``.
        quantized: Whether the model holds Q/DQ nodes, so that no calibrator is needed.
        shapes: The shapes that each input may have.
        profile: What calibration batches must look like.
        one_scale: On DLA, the names of tensors that must have one scale, per element-wise layer; ``None`` elsewhere.

    Raises:
        DeviceError: If TensorRT finds no usable GPU, the GPU has no INT8, or there is no such DLA core.
        InstalledTensorRTError: If the installed TensorRT cannot do this.
        ModelError: If TensorRT's parser refuses the model, or it holds no Q/DQ nodes and is to be strongly typed.
        SpecError: If shapes or layer names do not fit the model; all faults at once.
    """

    def __init__(
        self,
        graph: ModelGraph,
        shapes: Mapping[str, ShapeRange] | None = None,
        settings: BuilderSettings | None = None,
        batch_size: int | None = None,
    ) -> None:
        self._trt = trt = import_tensorrt()
        from trtcalib.trt.callbacks import tensorrt_log

        self._graph = graph
        self._settings = settings or BuilderSettings()
        self._log = tensorrt_log()
        self.version = version_of(trt)
        self.full_version = str(trt.__version__)
        self._builder = self._make_builder()
        on_dla = self._settings.dla is not None
        if on_dla:
            self._check_dla()
        typed = self._settings.strongly_typed
        self._network = parse_network(trt, self._builder, graph, self._log, strongly_typed=typed)
        self.quantized = has_qdq(trt, self._network)
        if typed and not self.quantized:
            raise ModelError(graph.path, no_qdq(graph))
        if not self.quantized:
            require_calibrators(trt)
            self._check_int8()
        elif on_dla:
            raise SpecError("engine spec", (_NO_QDQ_ON_DLA,))
        self.shapes = input_shapes(self._network, shapes or {}, batch_size, is_fixed=on_dla)
        self.one_scale = tuple(elementwise_inputs(trt, self._network)) if on_dla else None
        self.profile: InputProfile = calibration_profile(trt, self._network, self.shapes, batch_size)
        self._check_settings()

    def build(
        self, calibrator: Any = None, progress: BuildProgress | None = None, stop: Stop | None = None
    ) -> BuiltEngine:
        """Build the engine; blocks, and may be called from any thread.

        Args:
            calibrator: One of :mod:`trtcalib.trt.calibrators`; ``None`` for a model with Q/DQ nodes.
            progress: Called with each phase and step, where TensorRT tells them (10 and later).
            stop: Holds what should end the build.

        Raises:
            CalibrationError: If the calibration did not run to its end.
            EngineError: If TensorRT gives no engine.
            KeyboardInterrupt: After Ctrl-C, when TensorRT has returned.
        """
        from trtcalib.trt.callbacks import progress_monitor

        stop = stop or Stop()
        started = time.perf_counter()
        with warnings.catch_warnings():
            # From 10.1 on everything around calibrators warns. Under -W error the bindings raise a SystemError for one setting and
            # lose another without a word.
            warnings.simplefilter("ignore")
            config = self._config(calibrator)
        failed: Callable[[], bool] = (lambda: False) if calibrator is None else (lambda: calibrator.feeder.failed)
        monitor = progress_monitor(progress, stop, failed)
        if monitor is not None:
            config.progress_monitor = monitor
        try:
            with self._log.recording(), stop.on_ctrl_c(None if calibrator is None else calibrator.feeder.hold):
                plan = self._builder.build_serialized_network(self._network, config)
        finally:
            if calibrator is not None:
                calibrator.free()  # the config would keep the memory until the garbage collector comes
        if stop.error is not None:
            raise stop.error
        if calibrator is not None:
            calibrator.raise_if_failed()
        if plan is None:
            reason = self._log.last_error or "it said nothing; run with --verbose for its log"
            raise EngineError(self._graph.path, f"TensorRT built no engine: {reason}")
        return BuiltEngine(
            plan=bytes(plan),
            timing_cache=bytes(config.get_timing_cache().serialize()) if self._settings.timing_cache else None,
            messages=tuple(self._log.kept),
            tensors=tuple(float_tensors(self._trt, self._network)),
            seconds=time.perf_counter() - started,
        )

    def _make_builder(self) -> Any:
        try:
            return self._trt.Builder(self._log)
        except Exception as error:  # the bindings raise TypeError where TensorRT returns null
            reason = self._log.last_error or str(error)
            raise DeviceError(f"TensorRT {self._trt.__version__} cannot use a GPU here: {reason}") from error

    def _check_int8(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # deprecated with the calibrators, and still the only question to ask
            fast = self._builder.platform_has_fast_int8
        if not fast:
            raise DeviceError("TensorRT says that this GPU has no INT8: an INT8 engine cannot be built here")

    def _check_dla(self) -> None:
        cores, wanted = int(self._builder.num_DLA_cores), int(self._settings.dla or 0)
        if wanted < cores:
            return
        found = f"this device has {cores} DLA core{'s' * (cores > 1)}, counted from 0: take {'one of them' if cores > 1 else '0'}"
        none = "this device has no DLA core (NVIDIA's Jetson Xavier and Orin and DRIVE have them)"
        raise DeviceError(
            f"there is no DLA core {wanted}: {found if cores else none}, or leave dla out to build for the GPU"
        )

    def _check_settings(self) -> None:
        flags = self._trt.BuilderFlag
        faults: list[str] = []
        wants_fp16 = self._settings.fp16 or "fp16" in self._settings.fallback
        if not hasattr(flags, "FP16") and (wants_fp16 or self._settings.fallback):
            raise InstalledTensorRTError(
                self._trt.__version__,
                "builds strongly typed networks only: fp16 and fallback are decided by the types in the model, so leave them out",
            )
        names = [self._network.get_layer(i).name for i in range(self._network.num_layers)]
        for precision, patterns in self._settings.fallback.items():
            faults += [
                f"builder.fallback.{precision}: no layer is called {pattern!r}{nearest(pattern, names)}; "
                f"the network has {len(names)} layers"
                for pattern in patterns
                if not any(_matches(name, pattern) for name in names)
            ]
        if faults:
            raise SpecError("engine spec", tuple(faults))

    def _config(self, calibrator: Any) -> Any:
        trt, settings = self._trt, self._settings
        config = self._builder.create_builder_config()
        flags = trt.BuilderFlag
        # A strongly typed network takes no flag that chooses types; the spec refuses fp16 and fallback for it.
        if hasattr(flags, "INT8") and not settings.strongly_typed:
            config.set_flag(flags.INT8)
        if settings.fp16 or "fp16" in settings.fallback:
            config.set_flag(flags.FP16)
        if settings.tf32 is not None:
            (config.set_flag if settings.tf32 else config.clear_flag)(flags.TF32)
        if settings.workspace is not None:
            config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, int(settings.workspace))
        if settings.dla is not None:
            # INT8, set above, is one of the two precisions that DLA has; FP16 stays the user's choice.
            config.default_device_type = trt.DeviceType.DLA
            config.DLA_core = settings.dla
            config.set_flag(flags.GPU_FALLBACK)
        # Without it the inspector shows names only, and no precision.
        config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
        if settings.timing_cache is not None:
            self._set_timing_cache(config, Path(settings.timing_cache))
        self._set_fallback(config)
        is_free = any(-1 in tuple(self._network.get_input(i).shape) for i in range(self._network.num_inputs))
        if is_free and config.add_optimization_profile(self._optimization_profile(self.shapes)) < 0:
            raise EngineError(self._graph.path, f"TensorRT does not take the shapes: {self._log.last_error}")
        if calibrator is not None:
            self._set_calibrator(config, calibrator)
        return config

    def _set_timing_cache(self, config: Any, stored: Path) -> None:
        try:
            content = stored.read_bytes() if stored.exists() else b""
        except OSError as error:
            raise SpecError(
                "engine spec", (f"builder.timing_cache: {stored} cannot be read: {error.strerror}",)
            ) from error
        timings = config.create_timing_cache(content)
        if timings is None or not config.set_timing_cache(timings, ignore_mismatch=False):
            logger.warning("TensorRT does not take the timing cache %s: it is of another version or GPU", stored)
            config.set_timing_cache(config.create_timing_cache(b""), ignore_mismatch=False)  # it is written anew

    def _set_fallback(self, config: Any) -> None:
        trt = self._trt
        if not self._settings.fallback:
            return
        config.set_flag(trt.BuilderFlag.OBEY_PRECISION_CONSTRAINTS)
        for precision, patterns in self._settings.fallback.items():
            for i in range(self._network.num_layers):
                layer = self._network.get_layer(i)
                if any(_matches(layer.name, pattern) for pattern in patterns):
                    layer.precision = trt.float16 if precision == "fp16" else trt.float32

    def _set_calibrator(self, config: Any, calibrator: Any) -> None:
        config.int8_calibrator = calibrator
        if config.num_optimization_profiles:
            fixed = {name: ShapeRange(min=s, opt=s, max=s) for name, s in self.profile.shapes.items()}
            config.set_calibration_profile(self._optimization_profile(fixed))

    def _optimization_profile(self, shapes: Mapping[str, ShapeRange]) -> Any:
        profile = self._builder.create_optimization_profile()
        for name, shape in shapes.items():
            profile.set_shape(name, shape.min, shape.opt, shape.max)
        return profile


def _matches(name: str, pattern: str) -> bool:
    return name == pattern or fnmatch.fnmatchcase(name, pattern)
