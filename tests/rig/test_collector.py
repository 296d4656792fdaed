"""The device collector end to end: real bindings and PyCUDA over a simulated TensorRT that runs the model in ONNX Runtime.

What TensorRT computes is not shown here, only that what an engine leaves in device memory is counted as on the CPU. So the models are such
that ONNX Runtime gives the same bits for a batch as for each of its samples.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

import trtcalib
from tests.models import make_model
from tests.rig import nvcc, simulated
from tests.rig.flow import Flow
from trtcalib.batches import Batching
from trtcalib.core.cache import parse_cache
from trtcalib.core.histogram import collect_histogram
from trtcalib.errors import ActivationError, DataError, DeviceError, EngineError, ModelError, SpecError

ELEMENTWISE = """
elementwise (float[N, 3, 8, 8] x) => (float[N, 3, 8, 8] y)
<float[3, 1, 1] w = {0.5, -2, 8}, float big = {-1000}>
{
    [scale] a = Mul(x, w)
    [relu] b = Relu(a)
    [shift] c = Add(b, big)
    [clip] d = Abs(c)
    [again] y = Sub(d, b)
}
"""

WHOLE_NUMBERS = """
whole (float[N, 4] x) => (float[N, 1, 3, 1] y)
<float[4, 6] w = {1, 2, 3, 4, 5, 6, -1, -2, -3, -4, -5, -6, 0, 1, 0, 1, 0, 1, 7, 7, 7, 7, 7, 7}, int64[4] shape = {-1, 1, 3, 2}>
{
    [product] h = MatMul(x, w)
    [reshape] i = Reshape(h, shape)
    [pool] p = MaxPool <kernel_shape = [1, 2], strides = [1, 2]> (i)
    [relu] y = Relu(p)
}
"""


@pytest.fixture
def nvcc_on_path(tmp_path_factory: Any, monkeypatch: pytest.MonkeyPatch) -> str:
    folder = tmp_path_factory.mktemp("bin")
    nvcc.install(folder)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return os.environ["PATH"]


@pytest.fixture
def simulation(trt: Any, version: str, cuda: Any, nvcc_on_path: str) -> Iterator[Any]:
    """A simulated TensorRT that looks into the simulated device's memory."""
    made = simulated.install(trt, version)
    made.knobs.is_device = cuda.is_device
    made.knobs.wait_for_stream = cuda.finish
    yield made
    assert (made.errors, made.unimplemented) == ([], [])


def save(folder: Path, text: str) -> Path:
    onnx.save_model(make_model(text), folder / "model.onnx")
    return folder / "model.onnx"


def on_device(model: Path, data: Any, calibrator: Any = "entropy", batch_size: int | None = 4, **options: Any) -> Any:
    from trtcalib.device_calibration import DeviceOptions, calibrate_on_device

    device_options = DeviceOptions(**{k: options.pop(k) for k in ("shapes", "tf32", "memory") if k in options})
    return calibrate_on_device(model, data, calibrator, Batching(batch_size=batch_size), device_options, **options)


def samples(count: int = 12, *shape: int, seed: int = 0) -> NDArray[np.float32]:
    values = np.random.default_rng(seed).normal(size=(count, *(shape or (3, 8, 8)))).astype(np.float32)
    values[count // 2 :] *= 20  # ranges double
    return values


def whole(count: int = 12) -> NDArray[np.float32]:
    return np.random.default_rng(0).integers(-9, 10, (count, 4)).astype(np.float32)


@pytest.mark.parametrize("calibrator", ["entropy", "minmax", "percentile-99.9"])
def test_simulated_scales_are_those_of_the_cpu(simulation: Any, tmp_path: Path, calibrator: str) -> None:
    model, data = save(tmp_path, ELEMENTWISE), samples()
    ours = on_device(model, {"x": data}, calibrator)
    cpu = trtcalib.calibrate(model, {"x": data}, calibrator, batch_size=4)
    assert ours.histograms == cpu.histograms
    assert ours.scales == cpu.scales
    assert set(ours.scales) == {"x", "w", "big", "a", "b", "c", "d", "y"}
    assert max(histogram.doublings for histogram in ours.histograms.values()) >= 4
    ours.write_cache(tmp_path / "ours.cache")
    assert (tmp_path / "ours.cache").read_bytes().startswith(b"TRT-101601-")


@pytest.mark.parametrize("batch_size", [1, 3, 4])
def test_simulated_batches_group_samples_as_on_the_cpu(simulation: Any, tmp_path: Path, batch_size: int) -> None:
    model, data = save(tmp_path, ELEMENTWISE), samples()
    ours = on_device(model, {"x": data}, batch_size=batch_size)
    assert ours.histograms == trtcalib.calibrate(model, {"x": data}, batch_size=batch_size).histograms
    assert simulation.executions == 12 // batch_size


def test_simulated_a_pool_carries_its_inputs_scale(simulation: Any, tmp_path: Path) -> None:
    model = save(tmp_path, WHOLE_NUMBERS)
    ours = on_device(model, {"x": whole()})
    cpu = trtcalib.calibrate(model, {"x": whole()}, batch_size=4)
    assert ours.scales == cpu.scales
    assert "p" not in ours.histograms
    assert ours.origins["p"] == "i"
    # A view has a histogram of its own here: the same.
    assert ours.histograms["i"] == ours.histograms["h"]


def test_simulated_the_engine_is_fp32_and_without_tf32(simulation: Any, tmp_path: Path) -> None:
    on_device(save(tmp_path, ELEMENTWISE), {"x": samples()})
    (build,) = simulation.builds
    assert not build.flags & {"INT8", "FP16", "TF32"}
    assert build.profiles == [{"x": ((4, 3, 8, 8),) * 3}]
    on_device(save(tmp_path, ELEMENTWISE), {"x": samples()}, tf32=True)
    assert "TF32" in simulation.builds[-1].flags


def test_simulated_the_manifest_says_what_computed_the_activations(
    simulation: Any, tmp_path: Path, version: str
) -> None:
    result = on_device(save(tmp_path, ELEMENTWISE), {"x": samples()})
    facts = result.manifest(tmp_path / "x.cache").provenance
    assert facts.session_options == {"session": "tensorrt"}
    assert facts.versions["tensorrt"] == version
    assert "onnxruntime" not in facts.versions
    assert facts.device.name == "simulated CUDA device (host memory)"
    assert (facts.shapes, facts.tf32) == ({"x": (4, 3, 8, 8)}, False)
    assert (facts.batching.batch_size, facts.batching.batches, facts.data.samples) == (4, 3, 12)
    assert (facts.range, facts.bins) == ("doubling", 2048)


def test_simulated_groups_that_fit_the_budget_give_the_same(simulation: Any, tmp_path: Path) -> None:
    model, data = save(tmp_path, ELEMENTWISE), samples()
    one = 4 * 3 * 8 * 8 * 4
    whole_ = on_device(model, {"x": data})
    parts = on_device(model, {"x": data}, memory=2 * one)
    assert parts.histograms == whole_.histograms
    assert len(simulation.builds) == 1 + 3
    assert simulation.executions == 3 + 3 * 3
    assert parts.findings == whole_.findings


def test_simulated_too_little_memory_halves_the_group_and_says_so(
    simulation: Any, tmp_path: Path, cuda: Any, caplog: pytest.LogCaptureFixture
) -> None:
    model, data = save(tmp_path, ELEMENTWISE), samples(64, 3, 8, 8)
    expected = on_device(model, {"x": data}, batch_size=32)
    one = 32 * 3 * 8 * 8 * 4
    cuda.set_capacity(6 * 2048 * 8 + 5 * one)  # all histograms, but one tensor less than input and outputs
    found = on_device(model, {"x": data}, batch_size=32, memory=1 << 30)
    assert found.histograms == expected.histograms
    told = [finding.message for finding in found.findings if finding.code == "device-collection"]
    assert len(told) == 1
    assert told[0].startswith(
        "5 tensors did not fit into device memory at once: they are collected in two halves (out of device memory"
    )
    assert "5 tensors did not fit into device memory" in caplog.text


def test_simulated_a_tensor_that_does_not_fit_alone_is_named(simulation: Any, tmp_path: Path, cuda: Any) -> None:
    model = save(tmp_path, ELEMENTWISE)
    cuda.set_capacity(32 * 3 * 8 * 8 * 4 + 1000)
    with pytest.raises(DeviceError, match="the tensor 'a' alone does not fit into the device's memory") as caught:
        on_device(model, {"x": samples(32)}, batch_size=32, memory=1 << 30)
    assert caught.value.exit_code == 3


@pytest.mark.parametrize("allowed", range(9))
def test_simulated_memory_that_ends_anywhere_leaves_nothing_behind(
    simulation: Any, tmp_path: Path, cuda: Any, allowed: int
) -> None:
    cuda.fail_allocation_after(allowed)
    model = save(tmp_path, ELEMENTWISE)
    needed = 8  # the input, five outputs, bins, and what the kernels saw
    with (
        contextlib.nullcontext()
        if allowed >= needed
        else pytest.raises(DeviceError, match="does not fit into the device")
    ):
        on_device(model, {"x": samples()})
    cuda.reset()


def test_simulated_nan_names_tensor_and_samples(simulation: Any, tmp_path: Path) -> None:
    model = save(tmp_path, "g (float[N, 2] x) => (float[N, 2] y) { l = Log(x) y = Relu(l) }")
    data = np.ones((8, 2), np.float32)
    data[6] = -1
    with pytest.raises(ActivationError, match="tensor 'l' at sample 4 to 7: holds NaN"):
        on_device(model, {"x": data})


def test_simulated_infinities_are_counted(simulation: Any, tmp_path: Path) -> None:
    model = save(tmp_path, "g (float[N, 2] x) => (float[N, 2] y) { l = Log(x) y = Neg(l) }")
    data = np.abs(samples(8, 2))
    data[5] = 0
    ours = on_device(model, {"x": data})
    assert ours.infinite == {"l": 2, "y": 2}
    assert ours.histograms == trtcalib.calibrate(model, {"x": data}, batch_size=4).histograms


def test_simulated_constants_are_counted_once_on_the_cpu(simulation: Any, tmp_path: Path) -> None:
    model = save(
        tmp_path,
        "g (float[N, 3] x) => (float[N, 3] y) <float[3] w = {1, -4, 0}> { c = Constant <value = float[3] {0.5, 0.25, 9}> () a = Mul(x, w) y = Add(a, c) }",
    )
    ours = on_device(model, {"x": samples(8, 3)})
    assert ours.histograms["w"] == collect_histogram([[1, -4, 0]])
    assert ours.histograms["c"] == collect_histogram([[0.5, 0.25, 9]])
    assert {t.name for t in ours.tensors if t.kind == "constant"} == {"w", "c"}


def test_simulated_float16_tensors_are_cast(simulation: Any, tmp_path: Path) -> None:
    text = "g (float[N, 4] x) => (float16[N, 4] y) { h = Cast <to = 10> (x) y = Relu(h) }"
    model, data = save(tmp_path, text), samples(8, 4)
    ours = on_device(model, {"x": data})
    half = data.astype(np.float16).astype(np.float32)
    assert ours.histograms["h"] == collect_histogram([half[:4], half[4:]])
    assert ours.histograms == trtcalib.calibrate(model, {"x": data}, batch_size=4).histograms


def test_simulated_integer_tensors_are_no_outputs(simulation: Any, tmp_path: Path) -> None:
    text = "g (float[N, 4] x) => (int64[N] y) { h = Relu(x) y = ArgMax <axis = 1, keepdims = 0> (h) }"
    ours = on_device(save(tmp_path, text), {"x": samples(8, 4)})
    assert list(ours.scales) == ["x", "h"]


def test_simulated_a_size_that_depends_on_the_data_is_told(simulation: Any, tmp_path: Path) -> None:
    text = """g (float[N, 4] x) => (float[2, M] y, float[N, 4] z)
    { i = NonZero(x) y = Cast <to = 1> (i) z = Relu(x) }"""
    ours = on_device(save(tmp_path, text), {"x": samples(8, 4)})
    assert list(ours.scales) == ["x", "z"]
    (finding,) = ours.findings
    assert finding.code == "device-collection"
    assert finding.message == "'y' has a size that depends on the data: it cannot be collected and gets no scale"


def test_simulated_a_model_without_a_float_tensor_is_refused(simulation: Any, tmp_path: Path) -> None:
    model = save(tmp_path, "g (int64[N, 4] x) => (int64[N, 4] y) { y = Neg(x) }")
    with pytest.raises(ModelError, match="computes no floating-point tensor"):
        on_device(model, {"x": np.ones((8, 4), np.int64)})


def test_simulated_two_inputs_of_different_types(simulation: Any, tmp_path: Path) -> None:
    text = "g (float[N, 4] x, int64[N, 4] i) => (float[N, 4] y) { f = Cast <to = 1> (i) y = Mul(x, f) }"
    model = save(tmp_path, text)
    data = {"x": samples(8, 4), "i": np.arange(32, dtype=np.int64).reshape(8, 4)}
    assert on_device(model, data).histograms == trtcalib.calibrate(model, data, batch_size=4).histograms


def test_simulated_samples_that_fill_no_batch_are_left_out_and_told(simulation: Any, tmp_path: Path) -> None:
    model, data = save(tmp_path, ELEMENTWISE), samples(11)
    ours = on_device(model, {"x": data})
    assert ours.histograms == trtcalib.calibrate(model, {"x": data[:8]}, batch_size=4).histograms
    (finding,) = ours.findings
    assert finding.code == "partial-last-batch"
    assert finding.message.startswith("3 samples at the end were left out")


def test_simulated_zeros_first(simulation: Any, tmp_path: Path) -> None:
    model, data = save(tmp_path, "g (float[N, 4] x) => (float[N, 4] y) { y = Relu(x) }"), samples(8, 4)
    data[:4] = -np.abs(data[:4])
    ours = on_device(model, {"x": data})
    cpu = trtcalib.calibrate(model, {"x": data}, batch_size=4)
    assert ours.histograms == cpu.histograms
    assert [finding.code for finding in ours.findings] == ["first-batch-all-zero"]


def test_simulated_data_that_change_between_groups_are_refused(simulation: Any, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)

    def batches() -> Iterator[dict[str, NDArray[np.float32]]]:
        yield {"x": rng.normal(size=(4, 3, 8, 8)).astype(np.float32)}

    with pytest.raises(DataError, match="gave other values when it was read again"):
        on_device(save(tmp_path, ELEMENTWISE), batches, memory=1)


def test_simulated_data_that_do_not_fit_are_refused(simulation: Any, tmp_path: Path) -> None:
    model = save(tmp_path, "g (float[N, M] x) => (float[N, M] y) { y = Relu(x) }")
    shape = {"min": (1, 5), "opt": (4, 5), "max": (4, 5)}
    from trtcalib.engine_spec import ShapeRange

    with pytest.raises(DataError, match=r"input 'x' has shape \(1, 4\), and TensorRT calibrates at \(4, 5\)"):
        on_device(model, {"x": samples(8, 4)}, shapes={"x": ShapeRange(**shape)})
    with pytest.raises(SpecError, match="axes are free besides the batch"):
        on_device(model, {"x": samples(8, 4)})


def test_simulated_infinite_data_are_refused(simulation: Any, tmp_path: Path) -> None:
    data = samples()
    data[5, 0, 0, 0] = np.inf
    with pytest.raises(DataError, match="sample 5: input 'x' holds NaN or an infinite value"):
        on_device(save(tmp_path, ELEMENTWISE), {"x": data})


def test_simulated_a_build_that_fails_says_why(simulation: Any, tmp_path: Path) -> None:
    simulation.knobs.fail_build = True
    with pytest.raises(EngineError, match="TensorRT built no FP32 engine: Could not find any implementation"):
        on_device(save(tmp_path, ELEMENTWISE), {"x": samples()})


def test_simulated_a_model_with_qdq_is_refused(simulation: Any, tmp_path: Path) -> None:
    text = """g (float[N, 3] x) => (float[N, 3] y) <float s = {0.5}, int8 z = {0}>
    { q = QuantizeLinear(x, s, z) y = DequantizeLinear(q, s, z) }"""
    with pytest.raises(ModelError, match="the model holds Q/DQ nodes: its scales are in it"):
        on_device(save(tmp_path, text), {"x": samples(4, 3)})


def test_other_range_policies_are_for_the_cpu(tmp_path: Path) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text("{method: entropy, range: global}", encoding="utf-8")
    with pytest.raises(
        SpecError, match="the GPU collects as TensorRT does, range 'doubling' and 2048 bins: use --on cpu"
    ):
        on_device(save(tmp_path, ELEMENTWISE), {"x": samples()}, recipe)


def test_simulated_percentile_scales_go_to_the_calibrator(simulation: Any, tmp_path: Path, version: str) -> None:
    result = on_device(save(tmp_path, ELEMENTWISE), {"x": samples()}, "percentile-99.9")
    if int(version.split(".", maxsplit=1)[0]) >= 11:
        return  # has no calibrators
    from trtcalib.trt.calibrators import PercentileCalibrator

    given = PercentileCalibrator(result.scales).read_calibration_cache()
    assert dict(parse_cache(given).scales) == result.scales


# The command


def test_simulated_command(nvcc_on_path: str, tmp_path: Path, version: str) -> None:
    flow = Flow(tmp_path, version)
    model = flow.model(ELEMENTWISE)
    flow.data(12, 3, 8, 8)
    result = flow.done(
        "calibrate",
        model,
        "--data",
        "data.npy",
        "--on",
        "tensorrt",
        "--batch-size",
        4,
        "-o",
        "gpu.cache",
        PATH=nvcc_on_path,
    )
    assert "gpu.cache: 8 scales by EntropyCalibration2" in result.out
    flow.done("calibrate", model, "--data", "data.npy", "--batch-size", 4, "-o", "cpu.cache")
    ours, cpu = (parse_cache((flow.folder / name).read_bytes()) for name in ("gpu.cache", "cpu.cache"))
    assert ours.header == cpu.header
    assert dict(ours.scales) == dict(cpu.scales)  # in the order of the network here, of the graph there
    assert flow.cache_manifest("gpu.cache").provenance.session_options == {"session": "tensorrt"}
    assert result.build["calibration"] is None


def test_simulated_command_without_a_compiler(tmp_path: Path, version: str) -> None:
    flow = Flow(tmp_path, version)
    flow.model(ELEMENTWISE)
    flow.data(12, 3, 8, 8)
    words = flow.refused(
        *("calibrate", "model.onnx", "--data", "data.npy", "--on", "tensorrt", "-o", "gpu.cache", "--batch-size", 4),
        code=3,
        PATH="/nowhere",
        CUDA_HOME="",
        CUDA_PATH="",
    )
    assert "nvcc" in words


def test_options_of_the_gpu_are_refused_on_the_cpu(tmp_path: Path, version: str) -> None:
    flow = Flow(tmp_path, version)
    flow.model(ELEMENTWISE)
    flow.data(12, 3, 8, 8)
    result = flow.run("calibrate", "model.onnx", "--data", "data.npy", "--tf32", "-o", "gpu.cache")
    assert result.code == 2
    assert "is for --on tensorrt only" in result.words
