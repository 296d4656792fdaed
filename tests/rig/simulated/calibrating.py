"""How the simulated builder calibrates: the calls to the calibrator in TensorRT's order, and a cache made by our core.

The arithmetic is trtcalib's own, over the network's inputs unless a knob asks for all tensors: the simulation shows how a calibrator is driven, and
says nothing about the scales that TensorRT finds.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from numpy.typing import NDArray

from tests.rig.simulated.execution import numpy_type
from tests.rig.vtable import CalibratorDriver
from trtcalib.core.cache import encode_version, format_cache, make_cache, parse_cache
from trtcalib.core.entropy import entropy_amax
from trtcalib.core.histogram import collect_histogram
from trtcalib.core.minmax import minmax_amax
from trtcalib.core.scale import scale_from_amax
from trtcalib.errors import CacheFormatError, HistogramError

if TYPE_CHECKING:
    from tests.rig.simulated.builder import Builder
    from tests.rig.simulated.config import BuilderConfig
    from tests.rig.simulated.network import NetworkDefinition, Tensor
    from tests.rig.simulated.record import Calibration, Shape

__all__ = ["CalibrationFailed", "calibrate", "warn_of_missing_scales"]

_ALGORITHMS = {
    "LEGACY_CALIBRATION": "LegacyCalibration",
    "ENTROPY_CALIBRATION": "EntropyCalibration",
    "ENTROPY_CALIBRATION_2": "EntropyCalibration2",
    "MINMAX_CALIBRATION": "MinMaxCalibration",
}
"""The algorithm's name in the header of a cache, per ``CalibrationAlgoType``."""

_NUMPY_TYPES = {"INT8": np.int8, "UINT8": np.uint8, "INT32": np.int32, "INT64": np.int64, "BOOL": np.bool_}
"""What calibration batches hold; floating point inputs, FP16 ones too, are float32."""


class CalibrationFailed(Exception):
    """Calibration ended with an error; the text is what is logged."""


def calibrate(builder: Builder, network: NetworkDefinition, config: BuilderConfig, calibration: Calibration) -> None:
    """Drive the calibrator: a cache that fits is honoured; else batches are taken until there is none.

    Raises:
        CalibrationFailed: If there was no batch, an address was no device memory, or a batch was not finite.
    """
    simulation = builder.simulation
    driver = CalibratorDriver(config.calibrator, simulation.major)
    calibration.algorithm = _ALGORITHMS[simulation.trt.CalibrationAlgoType(driver.algorithm()).name]
    calibration.answered = driver.read()
    if calibration.answered is not None:
        if _header_fits(calibration.answered, simulation.version, calibration.algorithm):
            calibration.honoured = True
            warn_of_missing_scales(builder, network, _names_in(calibration.answered))
            return
        builder.log("WARNING", "Calibration table does not match calibrator algorithm type.")
    builder.log("INFO", "Starting Calibration.")
    inputs = [(tensor, _shape_of(tensor, config)) for tensor in network.inputs]
    while True:
        answered, pointers = driver.batch([tensor.name for tensor in network.inputs])
        if not answered:
            break
        batch = {
            tensor.name: _copy_from_device(builder, tensor, shape, pointer)
            for (tensor, shape), pointer in zip(inputs, pointers, strict=True)
        }
        calibration.batches.append(batch)
        builder.log("INFO", f"  Calibrated batch {len(calibration.batches) - 1}.")
    if not calibration.batches:
        raise CalibrationFailed("Calibration failed: the calibrator gave no batches.")
    calibration.written = _cache_of(network, calibration, simulation.version)
    driver.write_then_overwrite(calibration.written)


def warn_of_missing_scales(builder: Builder, network: NetworkDefinition, known: set[str]) -> None:
    """Log a warning per tensor that has neither a scale nor a dynamic range, as TensorRT does."""
    outputs = [tensor for layer in network.layers if layer.kind != "CONSTANT" for tensor in layer.outputs]
    for tensor in [*network.inputs, *outputs]:
        if _is_float(tensor) and tensor.name not in known and tensor.dynamic_range is None:
            builder.log(
                "WARNING",
                f"Missing scale and zero-point for tensor {tensor.name}, expect fall back to non-int8 implementation "
                "for any layer consuming or producing given tensor",
            )


def _header_fits(content: bytes, version: str, algorithm: str) -> bool:
    header = content.split(b"\n", 1)[0].strip()
    return header == f"TRT-{encode_version(version)}-{algorithm}".encode()


def _names_in(content: bytes) -> set[str]:
    try:
        return set(parse_cache(content).scales)
    except CacheFormatError as error:
        raise CalibrationFailed(f"Calibration table cannot be read: {error}") from error


def _shape_of(tensor: Tensor, config: BuilderConfig) -> Shape:
    """Return the shape that a calibration batch has: kOPT of the calibration profile, else of the first profile."""
    usual = 1
    if config.calibration_profile is not None:
        given = config.calibration_profile.shapes.get(tensor.name)
    else:
        given = config.profiles[0].shapes.get(tensor.name) if config.profiles else None
    if given is not None:
        return given[usual]
    if tensor.shape is None or -1 in tensor.shape:
        raise CalibrationFailed(f"The calibration profile is missing values for input {tensor.name}.")
    return tensor.shape


def _copy_from_device(builder: Builder, tensor: Tensor, shape: Shape, pointer: int) -> NDArray[Any]:
    name = builder.simulation.trt.DataType(tensor.dtype).name
    dtype = np.dtype(np.float32 if _is_float(tensor) else _NUMPY_TYPES[name])
    size = int(np.prod(shape)) * dtype.itemsize
    is_device = builder.simulation.knobs.is_device or (lambda address, _: address >= _LOWEST_ADDRESS)
    if not is_device(pointer, size):
        raise CalibrationFailed(
            f"Cuda Runtime (an illegal memory access was encountered): {size} bytes of input {tensor.name} at {pointer:#x}"
        )
    return np.frombuffer(ctypes.string_at(pointer, size), dtype).reshape(shape).copy()


_LOWEST_ADDRESS = 1 << 32
"""Below lie null, and what stands in place of an address that a calibrator did not write (``vtable.UNTOUCHED``)."""


def _is_float(tensor: Tensor) -> bool:
    return tensor.simulation.trt.DataType(tensor.dtype).name in ("FLOAT", "HALF", "BF16")


def _cache_of(network: NetworkDefinition, calibration: Calibration, version: str) -> bytes:
    """Return the cache of the network's floating point inputs, or of all its floating point tensors."""
    find = minmax_amax if calibration.algorithm == "MinMaxCalibration" else entropy_amax
    names = [tensor.name for tensor in network.inputs if _is_float(tensor)]
    batches = calibration.batches
    if network.simulation.knobs.scales_of_all_tensors:
        inner = [t.name for layer in network.layers if layer.kind != "CONSTANT" for t in layer.outputs if _is_float(t)]
        names += inner
        batches = [batch | values for batch, values in zip(batches, _run(network, batches, inner), strict=True)]
    try:
        scales = {name: scale_from_amax(find(collect_histogram(batch[name] for batch in batches))) for name in names}
    except HistogramError as error:
        raise CalibrationFailed(f"Calibration failed: {error}") from error
    return format_cache(make_cache(scales, version, calibration.algorithm))


def _run(
    network: NetworkDefinition, batches: list[dict[str, NDArray[Any]]], names: list[str]
) -> Iterator[dict[str, NDArray[Any]]]:
    """Yield the values of inner tensors for each batch."""
    import onnxruntime

    model = onnx.ModelProto()
    model.CopyFrom(network.model)
    known = {info.name for info in model.graph.output}
    model.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in names if name not in known)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    wanted = {each.name: numpy_type(each.type) for each in session.get_inputs()}
    for batch in batches:
        feeds = {name: values.astype(wanted[name]) for name, values in batch.items()}
        yield dict(zip(names, session.run(names, feeds), strict=True))
