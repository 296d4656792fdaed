"""``trtcalib build --dla N`` over the simulated builder: what TensorRT is told, which scales it gets, and what is refused.

No DLA is simulated beyond a number of cores: these tests show what is asked of TensorRT, not what a DLA does with it.
"""

from __future__ import annotations

import json

import numpy as np
import pytest

import trtcalib
from tests.cli.helpers import listing
from tests.rig import simulated
from tests.rig.flow import CONV, FIXED, QUANTIZED, Flow, calibrating_flow
from trtcalib.core.cache import parse_cache
from trtcalib.core.scale import bits_from_scale

CORES = {"num_dla_cores": 2}

BUILD = ["build", "model.onnx", "--data", "data.npy", "--batch-size", 4, "-o", "out.engine"]
PERCENTILE = [*BUILD, "--calibrator", "percentile-99"]

RESIDUAL = """
residual (float[N, 2, 4, 4] x) => (float[N, 2, 4, 4] y, float[N, 2, 4, 4] z)
<float[2, 2, 1, 1] w = {9, -1, 7, 6}>
{
    [conv] a = Conv(x, w)
    [relu] b = Relu(a)
    [sum] s = Add(a, x)
    [most] m = Max(x, b)
    [squash] y = Sigmoid(m)
    [out] z = Relu(s)
}
"""
"""Two element-wise layers that have an input in common: a, x and b must have one scale, s, m, y and z keep theirs."""

MINMAX = (
    "engine spec: calibrator: found {!r}, but DLA takes scales from TensorRT's second entropy calibrator only "
    "(IInt8EntropyCalibrator2): take entropy, or percentile-100 for the largest values, or leave dla out"
)
SHARED = (
    "dla-shared-scales: 2 tensors took the larger scale of another input of the same element-wise layer, because DLA needs them to "
    "share one: 'x', 'b'"
)

SEVERAL = (
    "cache-not-reused: out.cache is written anew: DLA needs one scale for the inputs of an element-wise layer, and there it has "
    "several"
)


@pytest.fixture
def flow(tmp_path, version):
    return calibrating_flow(tmp_path, version)


@pytest.fixture
def residual(flow):
    flow.model(RESIDUAL)
    data = flow.data(12, 2, 4, 4)
    np.save(flow.folder / "data.npy", -np.abs(data))  # so that b, the positive part of a, is the smallest
    return flow


def scales_of(flow, name="out.cache"):
    return parse_cache((flow.folder / name).read_bytes()).scales


def bits(scales):
    return {name: bits_from_scale(scale) for name, scale in scales.items()}


# What TensorRT is told


@pytest.mark.parametrize("core", [0, 1])
@pytest.mark.parametrize("calibrator", ["entropy", "percentile-99"])
def test_simulated_build_for_a_dla_core(flow, core, calibrator):
    flow.model(CONV)
    flow.data(12, 2, 4, 4)
    result = flow.done(*BUILD, "--dla", core, "--calibrator", calibrator, knobs=CORES)
    build = result.build
    assert set(build["flags"]) == {"INT8", "TF32", "GPU_FALLBACK"}
    assert (build["settings"]["DefaultDeviceType"], build["settings"]["DLACore"]) == (1, core)
    assert build["profiles"] == [{"x": [[4, 2, 4, 4]] * 3}]  # DLA has no dynamic shapes
    assert flow.engine_manifest().settings["dla"] == core
    assert flow.engine_manifest().shapes == {"x": {"min": (4, 2, 4, 4), "opt": (4, 2, 4, 4), "max": (4, 2, 4, 4)}}
    assert flow.engine_manifest().cache.header == flow.header()
    assert build["calibration"]["algorithm"] == "EntropyCalibration2"
    assert len(result.batches) == (3 if calibrator == "entropy" else 0)


def test_simulated_build_for_the_gpu_says_nothing_of_dla(flow):
    flow.model(CONV)
    flow.data(12, 2, 4, 4)
    build = flow.done(*BUILD, knobs=CORES).build
    assert "GPU_FALLBACK" not in build["flags"]
    assert not {"DefaultDeviceType", "DLACore"} & build["settings"].keys()
    assert build["profiles"] == [{"x": [[1, 2, 4, 4], [4, 2, 4, 4], [4, 2, 4, 4]]}]
    assert flow.engine_manifest().settings["dla"] is None


def test_simulated_build_of_an_engine_spec_for_dla(flow):
    flow.model(CONV)
    flow.data(12, 2, 4, 4)
    flow.write("mine.yaml", "{model: model.onnx, data: data.npy, batch_size: 4, output: out.engine, builder: {dla: 1}}")
    build = flow.done("build", "mine.yaml", "--fp16", knobs=CORES).build
    assert {"GPU_FALLBACK", "FP16", "INT8"} <= set(build["flags"])
    assert build["settings"]["DLACore"] == 1
    assert flow.done("build", "mine.yaml", "--dla", 0, knobs=CORES).build["settings"]["DLACore"] == 0


def test_simulated_engine_for_dla_is_run_on_the_core_that_it_was_built_for(flow):
    flow.model(CONV)
    flow.data(12, 2, 4, 4)
    flow.done(*BUILD, "--dla", 1, knobs=CORES)
    infer = ["infer", "out.engine", "--data", "data.npy", "-o", "out.npz"]
    told = [text for _, text in flow.run(*infer, knobs=CORES).saw["messages"]]
    assert "The runtime uses DLA core 1." in told
    flow.done(*BUILD)
    assert not any("DLA" in text for _, text in flow.run(*infer).saw["messages"])


# Scales


def test_simulated_percentiles_are_shared_between_the_inputs_of_element_wise_layers(residual):
    result = residual.done(*PERCENTILE, "--dla", 0, knobs=CORES)
    own = trtcalib.calibrate(
        residual.folder / "model.onnx", residual.folder / "data.npy", "percentile-99", batch_size=4
    ).scales
    assert own["a"] > own["x"] > own["b"]
    found = scales_of(residual)
    assert bits(found) == bits({**own, "x": own["a"], "b": own["a"]})
    assert result.findings == [SHARED]
    assert result.build["calibration"]["honoured"]
    assert result.build["calibration"]["answered"] == (residual.folder / "out.cache").read_text()
    manifest = residual.cache_manifest()
    assert [finding.code for finding in manifest.findings] == ["dla-shared-scales"]
    facts = {tensor.name: tensor for tensor in manifest.tensors}
    assert {name: int(tensor.scale_hex, 16) for name, tensor in facts.items()} == bits(found)
    assert {name: tensor.inherited_from for name, tensor in facts.items() if tensor.inherited_from} == {
        "x": "a",
        "b": "a",
    }
    assert facts["x"].amax == facts["a"].amax
    assert facts["x"].maximum != facts["a"].maximum  # what was seen stays what was seen


@pytest.mark.parametrize(("options", "knobs"), [([], {}), (["--dla", 0], CORES)])
def test_simulated_calibration_by_tensorrt_is_left_as_it_is(residual, options, knobs):
    result = residual.done(*BUILD, *options, knobs={**knobs, "scales_of_all_tensors": True})
    assert result.findings == []
    found = scales_of(residual)
    assert found["a"] > found["x"] > found["b"]
    assert result.build["calibration"]["written"] == (residual.folder / "out.cache").read_text()


def test_simulated_percentiles_for_the_gpu_are_not_shared(residual):
    assert residual.done(*PERCENTILE, knobs=CORES).findings == []
    own = scales_of(residual)
    assert own["a"] > own["x"] > own["b"]


def test_simulated_cache_of_one_device_is_not_taken_for_the_other(residual):
    residual.done(*PERCENTILE)
    own = scales_of(residual)
    first = residual.done(*PERCENTILE, "--dla", 0, knobs=CORES)
    assert first.findings == [
        SEVERAL,
        SHARED,
    ]
    raised = listing(residual.folder)["out.cache"]
    again = residual.done(*PERCENTILE, "--dla", 1, knobs=CORES)
    assert (again.findings, listing(residual.folder)["out.cache"]) == ([SHARED], raised)
    assert residual.engine_manifest().cache.origin == "reused"
    back = residual.done(*PERCENTILE)
    assert back.findings == ["cache-not-reused: out.cache is written anew: some of its scales were raised for DLA"]
    assert bits(scales_of(residual)) == bits(own)


def test_simulated_cache_without_element_wise_layers_serves_both_devices(flow):
    flow.model(CONV)
    flow.data(12, 2, 4, 4)
    flow.done(*PERCENTILE)
    flow.done(*PERCENTILE, "--dla", 0, knobs=CORES)
    assert flow.engine_manifest().cache.origin == "reused"


def test_simulated_dla_takes_the_largest_values_under_the_entropy_header(residual):
    """MinMax is TensorRT's word for a calibrator; a recipe that trtcalib computes goes in as any other."""
    residual.write("largest.yaml", "{method: minmax, range: global}")
    for _ in range(2):
        result = residual.done(*BUILD, "--calibrator", "largest.yaml", "--dla", 0, knobs=CORES)
        assert result.build["calibration"]["honoured"]
        assert SHARED in result.findings
    assert residual.engine_manifest().cache.origin == "reused"
    own = trtcalib.calibrate(residual.folder / "model.onnx", residual.folder / "data.npy", "minmax").scales
    assert bits_from_scale(scales_of(residual)["s"]) == bits_from_scale(own["s"])
    manifest = json.loads((residual.folder / "out.cache.json").read_text())
    assert manifest["algorithm"] == "EntropyCalibration2"
    assert manifest["cache_sha256"] == residual.engine_manifest().cache.sha256


def test_simulated_elementwise_inputs_of_a_network(flow, trt, version):
    from trtcalib.onnx_graph import read_model
    from trtcalib.trt.engine import EngineBuilder

    simulation = simulated.install(trt, version)
    simulation.knobs.num_dla_cores = 1
    model = """
    odd (float[N, 3] x, int64[N, 3] i, int64[N, 3] j) => (float[N, 3] y, int64[N, 3] k)
    <float[1] c = {2}>
    {
        d = Add(x, x)
        e = Mul(d, c)
        f = Sub(e, d)
        y = Relu(f)
        k = Add(i, j)
    }
    """
    builder = EngineBuilder(read_model(flow.model(model)), settings=trtcalib.engine_spec.BuilderSettings(dla=0))
    assert builder.one_scale == (("d", "c"), ("e", "d"))
    assert EngineBuilder(read_model(flow.folder / "model.onnx")).one_scale is None


# What is refused


@pytest.mark.parametrize(
    ("cores", "core", "found"),
    [
        (0, 0, "this device has no DLA core (NVIDIA's Jetson Xavier and Orin and DRIVE have them)"),
        (1, 1, "this device has 1 DLA core, counted from 0: take 0"),
        (2, 5, "this device has 2 DLA cores, counted from 0: take one of them"),
    ],
)
def test_simulated_device_without_that_dla_core(flow, cores, core, found):
    flow.model(CONV)
    flow.data(12, 2, 4, 4)
    said = flow.refused(*BUILD, "--dla", core, code=3, knobs={"num_dla_cores": cores})
    assert said == f"there is no DLA core {core}: {found}, or leave dla out to build for the GPU"


@pytest.mark.parametrize("options", [[], ["--reuse-cache"]])
def test_minmax_is_refused_before_anything_is_read(flow, options):
    # There is no model, no data and no DLA.
    assert flow.refused(*BUILD, "--dla", 0, "--calibrator", "minmax", *options) == MINMAX.format("minmax")
    flow.write("minmax.yaml", "method: minmax")
    said = flow.refused(*BUILD, "--dla", 0, "--calibrator", "minmax.yaml")
    assert said == MINMAX.format("minmax.yaml")


def test_simulated_cache_of_minmax_is_refused_for_dla(flow):
    flow.model(CONV)
    flow.data(12, 2, 4, 4)
    flow.done(*BUILD, "--calibrator", "minmax")
    said = flow.refused(*BUILD, "--dla", 0, "--reuse-cache", knobs=CORES)
    assert "the cache is by MinMaxCalibration, the calibrator here is EntropyCalibration2" in said


def test_simulated_dla_takes_one_shape(flow):
    flow.model(CONV)
    flow.data(12, 2, 4, 4)
    shapes = ["--shapes", "x:1x2x4x4,4x2x4x4,8x2x4x4"]
    said = flow.refused(*BUILD, "--dla", 0, *shapes, knobs=CORES)
    assert said == (
        "shapes: x: DLA takes one shape only, the same for min, opt and max, found [1, 2, 4, 4] to [8, 2, 4, 4]: "
        "give --shapes x:4x2x4x4"
    )
    result = flow.done(*BUILD, "--dla", 0, "--shapes", "x:4x2x4x4", knobs=CORES)
    assert result.build["profiles"] == [{"x": [[4, 2, 4, 4]] * 3}]


def test_simulated_fixed_model_needs_no_profile_on_dla(flow):
    flow.model(FIXED)
    flow.data(8)
    assert flow.done(*BUILD, "--dla", 0, knobs=CORES).build["profiles"] == []


def test_simulated_dla_takes_no_qdq_nodes(tmp_path, version):
    flow = Flow(tmp_path, version)  # TensorRT 11 takes no other models
    flow.model(QUANTIZED)
    said = flow.refused("build", "model.onnx", "-o", "out.engine", "--dla", 0, knobs=CORES)
    assert said == (
        "engine spec: builder.dla: the model holds Q/DQ nodes, and DLA takes INT8 scales from a calibration only: give the model "
        "without them, or leave dla out to build for the GPU"
    )
