"""The simulated TensorRT behind the real bindings does what its docstrings say, on every version.

The calibrators here are written by hand over host memory, so that a fault found here is the simulation's, not the
project's.
"""

from __future__ import annotations

import gc
import json
import sys
import warnings

import numpy as np
import onnx
import pytest

from tests.models import make_model
from tests.rig import bindings, simulated
from tests.rig.simulated.abi import object_at
from tests.rig.vtable import UNTOUCHED, CalibratorDriver, LoggerDriver, ProgressMonitorDriver, address_of

CONV = """
convolution (float[N, 3, 8, 8] image) => (float[N, 4, 8, 8] y)
<float[4, 3, 1, 1] w = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}>
{
    [conv] a = Conv(image, w)
    [relu] y = Relu(a)
}
"""

TWO_INPUTS = """
two (float[N, 3] x, int64[N, 2] ids) => (float[N, 3] y, float[N, 2] z)
{
    [relu] y = Relu(x)
    [cast] z = Cast<to = 1>(ids)
}
"""

FIXED = """
fixed (float[4, 3] x) => (float[4, 3] y)
{
    [relu] y = Relu(x)
}
"""

QUANTIZED = """
quantized (float[2, 3, 4, 4] x) => (float[2, 3, 4, 4] y)
<float scale = {0.5}, int8 zero = {0}>
{
    [quantize] q = QuantizeLinear(x, scale, zero)
    [dequantize] y = DequantizeLinear(q, scale, zero)
}
"""


@pytest.fixture
def simulation(trt, version):
    simulation = simulated.install(trt, version)
    yield simulation
    gc.collect()
    assert simulation.unimplemented == []
    assert simulation.errors == []


@pytest.fixture
def has_calibrators(version):
    if int(version.split(".")[0]) >= 11:
        pytest.skip("TensorRT 11 has no calibrators")


class Parsed:
    """A parsed network and an empty configuration; keeps alive what the bindings do not."""

    def __init__(self, trt, model):
        self.trt = trt
        self.logger = trt.Logger(trt.Logger.INTERNAL_ERROR)
        self.builder = trt.Builder(self.logger)
        flags = trt.NetworkDefinitionCreationFlag
        self.creation_flags = 1 << int(flags.EXPLICIT_BATCH) if hasattr(flags, "EXPLICIT_BATCH") else 0
        self.network = self.builder.create_network(self.creation_flags)
        self.parser = trt.OnnxParser(self.network, self.logger)
        self.parsed = self.parser.parse(model.SerializeToString())
        self.config = self.builder.create_builder_config()

    def profile(self, **shapes):
        profile = self.builder.create_optimization_profile()
        for name, (smallest, usual, largest) in shapes.items():
            profile.set_shape(name, smallest, usual, largest)
        return profile

    def int8(self, calibrator, calibration_profile=None):
        self.config.set_flag(self.trt.BuilderFlag.INT8)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # from 10.1 on
            self.config.int8_calibrator = calibrator
            if calibration_profile is not None:
                self.config.set_calibration_profile(calibration_profile)

    def build(self):
        plan = self.builder.build_serialized_network(self.network, self.config)
        return None if plan is None else bytes(plan)


@pytest.fixture
def parsed(trt, simulation):
    return lambda text: Parsed(trt, make_model(text))


@pytest.fixture
def make_calibrator(trt, has_calibrators):
    def make(batches=(), *, cache=None, base="IInt8EntropyCalibrator2"):
        parent = getattr(trt, base)

        class Calibrator(parent):
            def __init__(self):
                parent.__init__(self)
                self.left = list(batches)
                self.names = []
                self.kept = []
                self.written = None

            def get_batch_size(self):
                return 4

            def get_batch(self, names):
                self.names.append(list(names))
                if not self.left:
                    return None
                batch = self.left.pop(0)
                if not isinstance(batch, dict):
                    return batch
                self.kept.append(batch)
                return [batch[name].ctypes.data for name in names]

            def read_calibration_cache(self):
                return cache

            def write_calibration_cache(self, written):
                self.written = bytes(written)

        return Calibrator()

    return make


def header(version, algorithm="EntropyCalibration2"):
    major, minor, patch = (int(part) for part in version.split(".")[:3])
    return f"TRT-{major * (10000 if major >= 10 else 1000) + minor * 100 + patch}-{algorithm}".encode()


def images(*values):
    return [{"image": np.full((2, 3, 8, 8), value, np.float32)} for value in values]


IMAGE_SHAPES = {"image": ((1, 3, 8, 8), (2, 3, 8, 8), (8, 3, 8, 8))}


def with_profile(build, **shapes):
    build.config.add_optimization_profile(build.profile(**(shapes or IMAGE_SHAPES)))
    return build


def test_bindings_are_loaded_once_and_one_version_per_process(trt, version):
    assert bindings.load(version) is trt
    assert sys.modules["tensorrt"] is trt
    assert trt.__version__ == version
    assert version in bindings.available_versions()
    with pytest.raises(RuntimeError, match="this process holds TensorRT"):
        bindings.load("1.2.3")
    with pytest.raises(FileNotFoundError, match=r"no bindings of TensorRT 1\.2\.3"):
        bindings.bindings_folder("1.2.3")


# Building without calibration


def test_simulated_parser_gives_the_network_of_the_model(trt, parsed):
    network = parsed(CONV).network
    layers = [network.get_layer(i) for i in range(network.num_layers)]
    assert [(layer.name, layer.type) for layer in layers] == [
        ("conv", trt.LayerType.CONVOLUTION),
        ("relu", trt.LayerType.ACTIVATION),
    ]
    assert [layer.get_output(0).name for layer in layers] == ["a", "y"]
    assert layers[0].num_inputs == 1  # the weights are no tensor
    assert (network.get_input(0).name, tuple(network.get_input(0).shape)) == ("image", (-1, 3, 8, 8))
    assert network.get_input(0).dtype == trt.float32
    assert network.get_output(0).is_network_output


def test_simulated_parser_names_nodes_without_a_name_as_tensorrt_does(parsed):
    assert parsed(FIXED.replace("[relu]", "")).network.get_layer(0).name == "(Unnamed Layer* 0) [Relu]"


def test_simulated_parser_tells_an_unknown_operator(trt, simulation):
    simulation.knobs.unknown_operators = ("Relu",)
    parsed = Parsed(trt, make_model(CONV))
    assert not parsed.parsed
    error = parsed.parser.get_error(0)
    assert (parsed.parser.num_errors, error.node(), error.code()) == (1, 1, trt.ErrorCode.UNSUPPORTED_NODE)
    assert "Relu" in error.desc()
    if hasattr(error, "node_name"):
        assert (error.node_name(), error.node_operator()) == ("relu", "Relu")
    assert "Relu" in simulation.texts("ERROR")[0]


def test_simulated_parser_refuses_an_operator_of_another_domain(trt, simulation):
    model = make_model(FIXED)
    model.graph.node[0].domain = "com.example"
    model.opset_import.append(onnx.helper.make_opsetid("com.example", 1))
    assert not Parsed(trt, model).parsed


def test_simulated_parser_refuses_bytes_that_are_no_model(trt, simulation):
    build = Parsed(trt, make_model(FIXED))
    parser = trt.OnnxParser(build.network, build.logger)
    assert not parser.parse(b"no model")
    assert parser.get_error(0).code() == trt.ErrorCode.MODEL_DESERIALIZE_FAILED


def test_simulated_parser_finds_external_data_beside_the_file(trt, simulation, tmp_path):
    path = tmp_path / "model.onnx"
    model = make_model(CONV)
    weights = onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(model.graph.initializer[0]), "w")
    model.graph.initializer[0].CopyFrom(weights)  # only raw data can be external
    onnx.save_model(model, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    build = Parsed(trt, make_model(FIXED))
    network = build.builder.create_network(build.creation_flags)
    assert trt.OnnxParser(network, build.logger).parse_from_file(str(path))
    assert network.num_layers == 2
    (tmp_path / "weights.bin").unlink()
    assert not trt.OnnxParser(network, build.logger).parse_from_file(str(path))
    assert not trt.OnnxParser(network, build.logger).parse_from_file(str(tmp_path / "absent.onnx"))


def test_simulated_builder_records_what_it_was_asked_for(trt, simulation, parsed):
    build = with_profile(parsed(CONV))
    build.config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, 1 << 20)
    build.config.clear_flag(trt.BuilderFlag.TF32)
    build.config.builder_optimization_level = 2
    assert build.build().startswith(b"SIMULATED-ENGINE\n")
    (record,) = simulation.builds
    assert record.succeeded
    assert record.flags == frozenset()
    assert record.memory_pools == {"WORKSPACE": 1 << 20}
    assert record.profiles == [IMAGE_SHAPES]
    assert record.settings == {"BuilderOptimizationLevel": 2}
    assert record.calibration is None
    assert build.builder.is_network_supported(build.network, build.config)


def test_simulated_objects_answer_the_virtual_methods_of_public_classes(parsed):
    build = parsed(FIXED)
    assert build.network.builder is build.builder
    build.config.avg_timing_iterations = 4
    assert build.config.avg_timing_iterations == 4
    assert build.config.profiling_verbosity == build.trt.ProfilingVerbosity.LAYER_NAMES_ONLY


def test_simulated_builder_records_precisions(trt, simulation, parsed, has_calibrators):
    build = with_profile(parsed(CONV))
    layer = build.network.get_layer(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # from 10.12 on
        layer.precision = trt.float16
        layer.set_output_type(0, trt.float32)
        assert layer.precision_is_set
        build.network.get_input(0).dynamic_range = (-2.0, 2.0)
    build.build()
    record = simulation.builds[0]
    assert record.layer_precisions == {"relu": "HALF"}
    assert record.output_types == {"relu": {0: "FLOAT"}}
    assert record.dynamic_ranges == {"image": (-2.0, 2.0)}


def test_simulated_builder_wants_a_profile_for_dynamic_inputs(simulation, parsed):
    assert parsed(CONV).build() is None
    assert "no optimization profile" in simulation.texts("ERROR")[0]


def test_simulated_builder_refuses_an_empty_network(trt, simulation, parsed):
    build = parsed(FIXED)
    build.network = build.builder.create_network(build.creation_flags)
    assert build.build() is None
    assert simulation.texts("ERROR") == ["Network must have at least one output"]


def test_simulated_builder_fails_on_demand(simulation, parsed):
    simulation.knobs.fail_build = True
    assert parsed(FIXED).build() is None
    assert not simulation.builds[0].succeeded


def test_simulated_profile_checks_its_shapes(parsed):
    build = parsed(CONV)
    profile = build.profile(**IMAGE_SHAPES)
    assert [tuple(shape) for shape in profile.get_shape("image")] == list(IMAGE_SHAPES["image"])
    assert profile.get_shape("absent") == []
    with pytest.raises(RuntimeError, match="opt is inconsistent"):
        profile.set_shape("other", (1,), (1, 2), (1, 2))
    profile = build.profile(image=((2, 3, 8, 8), (1, 3, 8, 8), (8, 3, 8, 8)))
    assert build.config.add_optimization_profile(profile) == -1


def test_simulated_builder_says_what_the_platform_has(trt, simulation, parsed, has_calibrators):
    simulation.knobs.platform_has_fast_int8 = False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        assert not parsed(FIXED).builder.platform_has_fast_int8


def test_simulated_timing_cache_grows_and_knows_its_device(simulation, parsed):
    build = parsed(FIXED)
    cache = build.config.create_timing_cache(b"")
    assert build.config.set_timing_cache(cache, ignore_mismatch=False)
    before = len(bytes(cache.serialize()))
    build.build()
    content = bytes(build.config.get_timing_cache().serialize())
    assert len(content) > before
    simulation.knobs.device_name = "another"
    elsewhere = parsed(FIXED).config
    assert not elsewhere.set_timing_cache(elsewhere.create_timing_cache(content), ignore_mismatch=False)


# Calibration


@pytest.mark.parametrize(
    ("base", "algorithm"),
    [("IInt8EntropyCalibrator2", "EntropyCalibration2"), ("IInt8MinMaxCalibrator", "MinMaxCalibration")],
)
def test_simulated_builder_takes_batches_until_there_are_none(
    version, simulation, parsed, make_calibrator, base, algorithm
):
    build, calibrator = with_profile(parsed(CONV)), make_calibrator(images(1, 5, 2), base=base)
    build.int8(calibrator)
    assert build.build() is not None
    record = simulation.calibration
    assert (record.algorithm, record.answered, record.honoured) == (algorithm, None, False)
    assert [batch["image"].shape for batch in record.batches] == [(2, 3, 8, 8)] * 3
    assert [batch["image"].max() for batch in record.batches] == [1, 5, 2]
    assert calibrator.names == [["image"]] * 4
    assert calibrator.written == record.written
    assert record.written.startswith(header(version, algorithm) + b"\nimage: ")
    if algorithm == "MinMaxCalibration":
        assert record.written.endswith(b"\nimage: %x\n" % np.float32(5 / 127).view(np.uint32))


def test_simulated_calibration_takes_the_calibration_profile_first(simulation, parsed, make_calibrator):
    build, calibrator = with_profile(parsed(CONV)), make_calibrator([{"image": np.ones((4, 3, 8, 8), np.float32)}])
    shape = (4, 3, 8, 8)
    build.int8(calibrator, build.profile(image=(shape, shape, shape)))
    assert build.build() is not None
    assert simulation.builds[0].calibration_profile == {"image": (shape, shape, shape)}
    assert simulation.calibration.batches[0]["image"].shape == shape


def test_simulated_calibration_maps_inputs_in_network_order_with_their_types(
    version, simulation, parsed, make_calibrator
):
    integer = np.int32 if version.startswith("8.") else np.int64  # TensorRT 8 has no 64-bit inputs
    batch = {"x": np.arange(12, dtype=np.float32).reshape(4, 3), "ids": np.arange(8, dtype=integer).reshape(4, 2)}
    build, calibrator = parsed(TWO_INPUTS), make_calibrator([batch])
    build.int8(calibrator, build.profile(x=((4, 3),) * 3, ids=((4, 2),) * 3))
    with_profile(build, x=((4, 3),) * 3, ids=((4, 2),) * 3)
    assert build.build() is not None
    assert calibrator.names[0] == ["x", "ids"]
    (seen,) = simulation.calibration.batches
    for name, values in batch.items():
        assert seen[name].dtype == values.dtype
        np.testing.assert_array_equal(seen[name], values)
    assert b"ids" not in simulation.calibration.written


def test_simulated_calibration_gives_inner_tensors_scales_on_demand(simulation, parsed, make_calibrator):
    simulation.knobs.scales_of_all_tensors = True
    build = with_profile(parsed(CONV))
    build.int8(make_calibrator(images(1, 2), base="IInt8MinMaxCalibrator"))
    assert build.build() is not None
    largest = {"image": 2, "a": 2 * (10 + 11 + 12), "y": 2 * (10 + 11 + 12)}
    lines = [b"%s: %x" % (name.encode(), np.float32(v / 127).view(np.uint32)) for name, v in largest.items()]
    assert simulation.calibration.written.splitlines()[1:] == lines


def test_simulated_builder_honours_a_cache_of_its_own(version, simulation, parsed, make_calibrator):
    cache = header(version) + b"\nimage: 3c010204\na: 3c010204\n"
    build, calibrator = with_profile(parsed(CONV)), make_calibrator(images(1), cache=cache)
    build.int8(calibrator)
    assert build.build() is not None
    assert simulation.calibration.honoured
    assert simulation.calibration.answered == cache
    assert calibrator.names == []
    assert calibrator.written is None
    assert ["tensor y," in text for text in simulation.texts("WARNING")] == [True]  # the one without a scale


@pytest.mark.parametrize("foreign", [b"TRT-7000-EntropyCalibration2", None])
def test_simulated_builder_recalibrates_over_a_cache_that_is_not_its_own(
    version, simulation, parsed, make_calibrator, foreign
):
    cache = (foreign or header(version, "MinMaxCalibration")) + b"\nimage: 3c010204\n"
    build, calibrator = with_profile(parsed(CONV)), make_calibrator(images(1), cache=cache)
    build.int8(calibrator)
    assert build.build() is not None
    assert not simulation.calibration.honoured
    assert len(simulation.calibration.batches) == 1
    assert simulation.texts("WARNING") == ["Calibration table does not match calibrator algorithm type."]


def test_simulated_builder_gives_nothing_without_batches(simulation, parsed, make_calibrator):
    build = with_profile(parsed(CONV))
    build.int8(make_calibrator([]))
    assert build.build() is None
    assert "no batches" in simulation.texts("ERROR")[0]


@pytest.mark.parametrize("pointers", [[0], [UNTOUCHED], [7]])
def test_simulated_builder_gives_nothing_for_addresses_that_are_none(simulation, parsed, make_calibrator, pointers):
    build = with_profile(parsed(CONV))
    build.int8(make_calibrator([pointers]))
    assert build.build() is None
    assert "illegal memory access" in simulation.texts("ERROR")[0]


def test_simulated_builder_asks_what_device_memory_is(simulation, parsed, make_calibrator):
    asked = []
    simulation.knobs.is_device = lambda address, size: asked.append((address, size))
    batches = images(1)
    build = with_profile(parsed(CONV))
    build.int8(make_calibrator(batches))
    assert build.build() is None
    assert asked == [(batches[0]["image"].ctypes.data, 2 * 3 * 8 * 8 * 4)]


def test_simulated_builder_refuses_batches_that_are_not_finite(simulation, parsed, make_calibrator):
    build = with_profile(parsed(CONV))
    build.int8(make_calibrator(images(np.nan)))
    assert build.build() is None
    assert "nan" in simulation.texts("ERROR")[0]


def test_simulated_builder_ignores_the_calibrator_of_a_quantized_network(trt, simulation, parsed, make_calibrator):
    build, calibrator = parsed(QUANTIZED), make_calibrator(images(1))
    kinds = [build.network.get_layer(i).type for i in range(build.network.num_layers)]
    assert trt.LayerType.QUANTIZE in kinds
    assert trt.LayerType.DEQUANTIZE in kinds
    build.int8(calibrator)
    assert build.build() is not None
    assert simulation.calibration.ignored
    assert calibrator.names == []
    assert "explicit quantization" in simulation.texts("WARNING")[0]


def test_simulated_builder_refuses_precision_flags_of_a_strongly_typed_network(
    trt, simulation, parsed, make_calibrator
):
    if not hasattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED"):
        pytest.skip("this TensorRT has no strongly typed networks")
    build = parsed(FIXED)
    build.network = build.builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    assert trt.OnnxParser(build.network, build.logger).parse(make_model(FIXED).SerializeToString())
    build.int8(make_calibrator(images(1)))
    assert build.build() is None
    assert simulation.builds[0].strongly_typed
    assert "strongly typed" in simulation.texts("ERROR")[0]


@pytest.mark.parametrize("what", ["FP16", "BF16", "OBEY_PRECISION_CONSTRAINTS", "precision", "output type", "nothing"])
def test_simulated_builder_lets_nothing_but_the_model_type_a_strongly_typed_network(trt, simulation, parsed, what):
    if not hasattr(trt.BuilderFlag, "FP16") or not hasattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED"):
        pytest.skip("this TensorRT has strongly typed networks or these settings, and not both")
    build = parsed(FIXED)
    build.network = build.builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    assert trt.OnnxParser(build.network, build.logger).parse(make_model(FIXED).SerializeToString())
    if hasattr(trt.BuilderFlag, what):
        build.config.set_flag(getattr(trt.BuilderFlag, what))
    layer = build.network.get_layer(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # weak typing is deprecated in later ones
        if what == "precision":
            layer.precision = trt.float16
        if what == "output type":
            layer.set_output_type(0, trt.float16)
    assert (build.build() is not None) is (what == "nothing")
    assert simulation.builds[0].network_flags == {"STRONGLY_TYPED"}


# Callbacks


@pytest.fixture
def make_monitor(trt):
    if not hasattr(trt, "IProgressMonitor"):
        pytest.skip("this TensorRT has no progress monitor")

    class Monitor(trt.IProgressMonitor):
        def __init__(self, steps):
            trt.IProgressMonitor.__init__(self)
            self.steps = steps
            self.started, self.finished = [], []

        def phase_start(self, phase, parent, steps):
            self.started.append((phase, parent, steps))

        def step_complete(self, phase, step):
            self.steps -= 1
            return self.steps > 0

        def phase_finish(self, phase):
            self.finished.append(phase)

    return Monitor


def test_simulated_builder_reports_its_progress(simulation, parsed, make_monitor):
    build, monitor = parsed(FIXED), make_monitor(100)
    build.config.progress_monitor = monitor
    assert build.build() is not None
    assert monitor.started == [("Building Engine", None, 3), ("Timing layers", "Building Engine", 1)]
    assert monitor.finished == ["Timing layers", "Building Engine"]


def test_simulated_builder_stops_when_the_monitor_says_so(simulation, parsed, make_monitor):
    build, monitor = parsed(FIXED), make_monitor(1)
    build.config.progress_monitor = monitor
    assert build.build() is None
    assert simulation.builds[0].cancelled
    assert monitor.finished == ["Building Engine"]
    assert "cancelled" in simulation.texts("ERROR")[0]


def test_simulated_messages_reach_a_logger_that_is_written_in_python(trt, simulation):
    seen = []

    class Logger(trt.ILogger):
        def __init__(self):
            trt.ILogger.__init__(self)

        def log(self, severity, message):
            seen.append((severity, message))

    logger = Logger()
    assert trt.Runtime(logger).deserialize_cuda_engine(b"no plan") is None
    assert [severity for severity, _ in seen] == [trt.ILogger.ERROR]
    assert "no simulated engine" in seen[0][1]


def test_drivers_call_callbacks_as_tensorrt_does(trt, simulation, version, make_calibrator):
    calibrator = make_calibrator([[3, 4]], cache=b"content")
    driver = CalibratorDriver(calibrator, simulation.major)
    assert driver.algorithm() == int(trt.CalibrationAlgoType.ENTROPY_CALIBRATION_2)
    assert driver.batch_size() == 4
    assert driver.batch(["a", "b"]) == (True, [3, 4])
    assert driver.batch(["a", "b"]) == (False, [UNTOUCHED, UNTOUCHED + 1])
    assert driver.read() == b"content"
    driver.write(b"one")
    assert calibrator.written == b"one"
    driver.write_then_overwrite(b"two")
    assert calibrator.written == b"two"


def test_drivers_catch_a_view_that_was_kept(trt, simulation, has_calibrators):
    class Careless(trt.IInt8EntropyCalibrator2):
        def __init__(self):
            trt.IInt8EntropyCalibrator2.__init__(self)

        def write_calibration_cache(self, cache):
            self.kept = cache

    calibrator = Careless()
    CalibratorDriver(calibrator, simulation.major).write_then_overwrite(b"cache")
    assert bytes(calibrator.kept) == b"#####"


def test_drivers_call_loggers_and_monitors(trt, simulation, capfd, make_monitor):
    LoggerDriver(trt.Logger(trt.Logger.INFO), simulation.major).log(trt.Logger.ERROR, "told")
    captured = capfd.readouterr()
    assert "told" in captured.out + captured.err
    monitor = make_monitor(2)
    driver = ProgressMonitorDriver(monitor)
    driver.phase_start("phase", "parent", 2)
    assert [driver.step_complete("phase", step) for step in range(2)] == [True, False]
    driver.phase_finish("phase")
    assert (monitor.started, monitor.finished) == ([("phase", "parent", 2)], ["phase"])


# Running


@pytest.fixture
def engine(trt, simulation, parsed):
    build = with_profile(parsed(CONV))
    build.config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    if hasattr(trt.BuilderFlag, "INT8"):
        build.config.set_flag(trt.BuilderFlag.INT8)
    runtime = trt.Runtime(build.logger)
    engine = runtime.deserialize_cuda_engine(build.build())
    assert engine is not None
    return engine


def test_simulated_engine_tells_its_tensors(trt, engine):
    names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
    assert names == ["image", "y"]
    assert [engine.get_tensor_mode(name) for name in names] == [trt.TensorIOMode.INPUT, trt.TensorIOMode.OUTPUT]
    assert [tuple(engine.get_tensor_shape(name)) for name in names] == [(-1, 3, 8, 8), (-1, 4, 8, 8)]
    assert [engine.get_tensor_dtype(name) for name in names] == [trt.float32, trt.float32]
    assert [tuple(shape) for shape in engine.get_tensor_profile_shape("image", 0)] == list(IMAGE_SHAPES["image"])
    assert engine.num_optimization_profiles == 1
    assert engine.get_tensor_location("image") == trt.TensorLocation.DEVICE
    assert engine.name == "convolution"
    if hasattr(engine, "device_memory_size_v2"):
        assert engine.device_memory_size_v2 > 0
    else:
        assert engine.device_memory_size > 0


def test_simulated_context_runs_the_model(simulation, engine):
    context = engine.create_execution_context()
    assert context.infer_shapes() == ["image"]
    assert not context.all_binding_shapes_specified
    assert context.set_input_shape("image", (3, 3, 8, 8))
    assert context.infer_shapes() == []
    assert context.all_binding_shapes_specified
    assert tuple(context.get_tensor_shape("y")) == (3, 4, 8, 8)
    image = np.random.default_rng(0).random((3, 3, 8, 8), np.float32)
    result = np.zeros((3, 4, 8, 8), np.float32)
    assert context.set_tensor_address("image", image.ctypes.data)
    assert not context.execute_async_v3(0)  # the output has no address yet
    assert context.set_tensor_address("y", result.ctypes.data)
    assert context.get_tensor_address("y") == result.ctypes.data
    assert context.execute_async_v3(0)
    weights = np.arange(1, 13, dtype=np.float32).reshape(4, 3)
    np.testing.assert_allclose(result, np.einsum("oc,nchw->nohw", weights, image), rtol=1e-5)
    assert simulation.executions == 1


def test_simulated_context_refuses_what_the_engine_was_not_built_for(simulation, engine):
    context = engine.create_execution_context()
    assert not context.set_input_shape("image", (9, 3, 8, 8))
    assert not context.set_input_shape("absent", (1,))
    assert not context.set_tensor_address("absent", 1)
    assert not context.execute_async_v3(0)
    assert context.set_optimization_profile_async(0, 0)
    assert len(simulation.texts("ERROR")) == 4


def test_simulated_context_refuses_memory_that_is_not_on_the_device(simulation, engine):
    simulation.knobs.is_device = lambda address, size: False
    context = engine.create_execution_context()
    context.set_input_shape("image", (1, 3, 8, 8))
    values = np.zeros((1, 4, 8, 8), np.float32)
    context.set_tensor_address("image", values.ctypes.data)
    context.set_tensor_address("y", values.ctypes.data)
    assert not context.execute_async_v3(0)
    assert "illegal memory access" in simulation.texts("ERROR")[-1]


@pytest.mark.parametrize("change", ["version", "device", "magic"])
def test_simulated_runtime_refuses_plans_of_others(trt, simulation, parsed, version, change):
    build = parsed(FIXED)
    plan = build.build()
    if change == "version":
        plan = plan.replace(version.encode(), b"1.2.3")
    elif change == "device":
        simulation.knobs.device_name = "another"
    else:
        plan = plan[1:]
    assert trt.Runtime(build.logger).deserialize_cuda_engine(plan) is None
    expected = {"version": "not compatible", "device": "incompatible device", "magic": "magicTag"}[change]
    assert expected in simulation.texts("ERROR")[0]


def test_simulated_inspector_tells_layers_and_formats(trt, engine, version):
    inspector = engine.create_engine_inspector()
    form = trt.LayerInformationFormat.JSON
    told = json.loads(inspector.get_engine_information(form))
    fused = next(layer for layer in told["Layers"] if layer["Name"] == "conv + relu")
    assert fused["LayerType"] == "CaskConvolution"
    if version.startswith("11."):
        assert fused["Inputs"][0]["DataType"] == "Float"
        assert [tensor["Name"] for tensor in told["I/O Tensors"]] == ["image", "y"]
        return
    assert told["Bindings"] == ["image", "y"]
    assert fused["Inputs"][0]["Format/Datatype"] == "N/A due to dynamic shapes"
    context = engine.create_execution_context()
    context.set_input_shape("image", (2, 3, 8, 8))
    inspector.execution_context = context
    told = json.loads(inspector.get_engine_information(form))
    assert told["Layers"][0]["LayerType"] == "Reformat"
    formats = [tensor["Format/Datatype"] for tensor in told["Layers"][0]["Inputs"] + told["Layers"][0]["Outputs"]]
    assert formats == ["Row major linear FP32", "Thirty-two wide channel vectorized row major Int8 format"]
    assert engine.num_layers == len(told["Layers"])
    assert json.loads(inspector.get_layer_information(0, form)) == told["Layers"][0]
    assert ("Metadata" in told["Layers"][0]) == (not version.startswith("8."))


def test_simulated_inspector_tells_names_only_unless_detailed(trt, simulation, parsed):
    build = parsed(FIXED)
    engine = trt.Runtime(build.logger).deserialize_cuda_engine(build.build())
    told = json.loads(engine.create_engine_inspector().get_engine_information(trt.LayerInformationFormat.JSON))
    assert told["Layers"] == ["relu"]


# The record


def test_simulated_record_is_written_with_batches(simulation, parsed, make_calibrator, tmp_path):
    build = with_profile(parsed(CONV))
    build.int8(make_calibrator(images(1, 2)))
    build.build()
    simulation.dump(tmp_path / "record.npz")
    simulation.dump(tmp_path / "record.json")
    with np.load(tmp_path / "record.npz") as arrays:
        assert arrays["0/1/image"].max() == 2
        record = json.loads(str(arrays["record"]))
    assert record == json.loads((tmp_path / "record.json").read_text())
    assert record["builds"][0]["calibration"]["batches"][0]["image"] == {"dtype": "float32", "shape": [2, 3, 8, 8]}


def test_simulated_objects_know_when_the_bindings_delete_them(parsed):
    build = parsed(FIXED)
    config = object_at(address_of(build.config))
    assert not config.deleted
    del build.config
    gc.collect()
    assert config.deleted


def test_simulated_methods_that_are_missing_are_recorded(simulation, parsed, capfd):
    network = parsed(FIXED).network
    assert network.add_identity(network.get_input(0)) is None
    assert simulation.unimplemented == ["VNetworkDefinition.addIdentity"]
    assert "addIdentity is not implemented" in capfd.readouterr().err
    simulation.unimplemented.clear()


def test_simulated_methods_keep_their_exceptions(simulation, engine):
    simulation.knobs.is_device = lambda address, size: 1 // 0
    context = engine.create_execution_context()
    context.set_input_shape("image", (1, 3, 8, 8))
    context.set_tensor_address("image", 1)
    assert not context.execute_async_v3(0)
    assert simulation.errors == ["VExecutionContext.enqueueV3: ZeroDivisionError('integer division or modulo by zero')"]
    simulation.errors.clear()


def test_simulated_knobs_are_known_by_name(simulation):
    simulation.knobs.update({"device_name": "G"})
    assert simulation.knobs.device_name == "G"
    with pytest.raises(ValueError, match="unknown knobs"):
        simulation.knobs.update({"device": "G"})
