"""``trtcalib build --qdq`` over the simulated builder: what a strongly typed network is asked for with, and what is refused.

The simulation refuses precision flags, and precisions of layers, for a strongly typed network; it types no tensor.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from tests.cli.helpers import listing
from tests.rig.flow import DENSE, QUANTIZED, Flow

ROOT = Path(__file__).parents[2]
DIGITS = ROOT / "data" / "digits" / "model.onnx"
CALIBRATION = ROOT / "data" / "digits-calibration.yaml"
VALIDATION = ROOT / "data" / "digits-validation.yaml"

BUILD = ["build", "model.onnx", "-o", "out.engine"]
TYPED = [*BUILD, "--qdq"]

IN_A_FUNCTION = """
<ir_version: 8, opset_import: ["" : 17, "own" : 1]>
wrapped (float[N, 3] x) => (float[N, 3] y)
<float scale = {0.5}, int8 zero = {0}>
{
    [wrapper] y = own.Rounded(x, scale, zero)
}
<domain: "own", opset_import: ["" : 17]>
Rounded (x, scale, zero) => (y)
{
    q = QuantizeLinear(x, scale, zero)
    y = DequantizeLinear(q, scale, zero)
}
"""
"""The simulated parser inlines no functions, so that the file holds Q/DQ nodes and the network does not."""

NO_QDQ = (
    "{}: the model holds no QuantizeLinear/DequantizeLinear (Q/DQ) nodes, which --qdq (builder.strongly_typed) builds: convert it "
    "first: trtcalib qdq {} CACHE -o OUT.onnx"
)
IGNORED = "calibrator-ignored: the model holds Q/DQ nodes: TensorRT takes their scales and ignores every calibrator; no data were read"
FP16 = (
    "builder.fp16: not with strongly_typed (--qdq), where every type is the model's: leave fp16 out; trtcalib qdq --fp16 makes float16 "
    "of what is not quantized"
)
FALLBACK = (
    "builder.fallback: not with strongly_typed (--qdq), where every type is the model's: leave fallback out; trtcalib qdq --exclude "
    "keeps nodes out of INT8"
)
DLA = (
    "builder.dla: not with strongly_typed (--qdq), which is for models with Q/DQ nodes: DLA takes INT8 scales from a calibration only, "
    "so leave one of the two out"
)


@pytest.fixture
def flow(tmp_path, version):
    return Flow(tmp_path, version)


@pytest.fixture
def typed(flow):
    """A TensorRT with strongly typed networks, and a model with Q/DQ nodes."""
    if flow.is_8:
        pytest.skip("this TensorRT has no strongly typed networks")
    flow.model(QUANTIZED)
    return flow


@pytest.fixture
def converted(typed):
    """The digits model, calibrated on the CPU and converted by ``trtcalib qdq`` with the options given."""

    def convert(*options):
        typed.done("calibrate", DIGITS, "--data", CALIBRATION, "--max-samples", 128, "-o", "digits.cache")
        typed.done("qdq", DIGITS, "digits.cache", "-o", "model.onnx", *options)
        return typed

    return convert


def creation_flags(flow):
    """What a strongly typed network is made with: 11 types strongly always, and its flag does nothing."""
    return [] if flow.version.startswith("11.") else ["EXPLICIT_BATCH", "STRONGLY_TYPED"]


def check_typed(flow, build):
    """Check that nothing but the model was to decide a type."""
    assert build["strongly_typed"]
    assert build["network_flags"] == creation_flags(flow)
    assert build["flags"] == ["TF32"]  # TensorRT's default: how FP32 is computed, no type
    assert (build["layer_precisions"], build["output_types"], build["dynamic_ranges"]) == ({}, {}, {})
    assert build["calibration"] is None
    assert build["succeeded"]


# What TensorRT is told


def test_simulated_build_qdq_makes_a_strongly_typed_network_without_precision_flags(typed):
    result = typed.done(*TYPED)
    check_typed(typed, result.build)
    assert result.findings == []
    assert sorted(path.name for path in typed.folder.iterdir()) == ["model.onnx", "out.engine", "out.engine.json"]


def test_simulated_build_qdq_is_stated_in_the_manifest(typed):
    typed.done(*TYPED)
    manifest = typed.engine_manifest()
    assert manifest.settings["strongly_typed"] is True
    assert manifest.explicit_quantization
    assert (manifest.cache, manifest.data, manifest.recipe, manifest.crosscheck) == (None, None, None, None)
    assert manifest.batches_fed == 0


def test_simulated_build_without_qdq_is_typed_as_before(flow):
    """A model with Q/DQ nodes stays weakly typed on 8.6 and 10; 11 has nothing else than strong typing."""
    flow.model(QUANTIZED)
    build = flow.done(*BUILD).build
    eleven = flow.version.startswith("11.")
    assert build["strongly_typed"] is eleven
    assert build["network_flags"] == ([] if eleven else ["EXPLICIT_BATCH"])
    assert build["flags"] == (["TF32"] if eleven else ["INT8", "TF32"])
    assert flow.engine_manifest().settings["strongly_typed"] is False


def test_simulated_build_qdq_takes_the_settings_that_decide_no_type(typed):
    options = ["--no-tf32", "--workspace", "1MiB", "--timing-cache", "timing", "--shapes", "x:1x3,2x3,8x3"]
    build = typed.done(*TYPED, *options).build
    assert build["strongly_typed"]
    assert build["flags"] == []
    assert build["memory_pools"] == {"WORKSPACE": 1 << 20}
    assert build["profiles"] == [{"x": [[1, 3], [2, 3], [8, 3]]}]
    assert (typed.folder / "timing").exists()


def test_simulated_build_of_an_engine_spec_that_says_strongly_typed(typed):
    typed.write("mine.yaml", "{model: model.onnx, output: out.engine, builder: {strongly_typed: true}}")
    check_typed(typed, typed.done("build", "mine.yaml").build)
    typed.done("build", "mine.yaml", "--no-qdq")
    assert typed.engine_manifest().settings["strongly_typed"] is False


def test_simulated_build_qdq_of_an_engine_spec_that_does_not_say_it(typed):
    typed.write("mine.yaml", "{model: model.onnx, output: out.engine, builder: {workspace: 1MiB}}")
    build = typed.done("build", "mine.yaml", "--qdq").build
    check_typed(typed, build)
    assert build["memory_pools"] == {"WORKSPACE": 1 << 20}


# A model that trtcalib converted


def test_simulated_build_qdq_of_a_converted_model_and_what_it_answers(converted):
    flow = converted()
    build = flow.done(*TYPED).build
    check_typed(flow, build)
    assert build["profiles"][0]["image"][0] == [1, 1, 8, 8]

    flow.done("infer", "out.engine", "--data", VALIDATION, "-o", "out.npz")
    with np.load(flow.folder / "out.npz") as outputs:
        (scores,) = outputs.values()
    images = np.load(ROOT / "data/digits/validation-images.npy").reshape(-1, 1, 8, 8).astype(np.float32) / 16
    (exact,) = onnxruntime.InferenceSession(DIGITS).run(None, {"image": images})
    assert len(scores) == len(images)
    assert (scores.argmax(1) == exact.argmax(1)).mean() > 0.95
    assert not np.array_equal(scores, exact)  # else it ran without Q/DQ nodes


def test_simulated_build_qdq_of_a_converted_model_in_float16_sets_no_flag_for_it(converted):
    flow = converted("--fp16")
    check_typed(flow, flow.done(*TYPED).build)


# What is ignored is said


@pytest.mark.parametrize(
    "options",
    [
        ["--data", "nowhere.npz"],
        ["--calibrator", "entropy"],
        ["--calibrator", "percentile-99.9"],
        ["--reuse-cache"],
        ["--data", "nowhere.npz", "--calibrator", "minmax", "--reuse-cache"],
    ],
)
def test_simulated_build_qdq_says_that_calibrator_and_data_are_ignored(typed, options):
    result = typed.done(*TYPED, *options)
    check_typed(typed, result.build)
    assert result.findings == [IGNORED]
    assert [finding.code for finding in typed.engine_manifest().findings] == ["calibrator-ignored"]


def test_simulated_build_qdq_says_that_the_calibrator_of_an_engine_spec_is_ignored(typed):
    typed.write("plain.yaml", "{model: model.onnx, output: out.engine}")
    assert typed.done("build", "plain.yaml", "--qdq").findings == []
    typed.write("chosen.yaml", "{model: model.onnx, output: out.engine, calibrator: entropy}")
    assert typed.done("build", "chosen.yaml", "--qdq").findings == [IGNORED]


def test_simulated_build_without_qdq_says_of_a_calibrator_what_it_said_before(flow):
    flow.model(QUANTIZED)
    assert flow.done(*BUILD, "--calibrator", "minmax", "--reuse-cache").findings == []


# What is refused


def test_simulated_build_qdq_is_refused_where_nothing_is_strongly_typed(flow):
    if not flow.is_8:
        pytest.skip("this TensorRT has strongly typed networks")
    flow.model(QUANTIZED)
    assert flow.refused(*TYPED, code=3) == (
        f"TensorRT {flow.version} has no strongly typed networks, which --qdq (builder.strongly_typed) asks for: leave it out to build "
        "the same Q/DQ nodes weakly typed, or install TensorRT 10 or 11"
    )


@pytest.mark.parametrize(
    ("options", "faults"),
    [
        (["--fp16"], [FP16]),
        (["--fallback", "fp16:relu"], [FALLBACK]),
        (["--fallback", "fp32:relu"], [FALLBACK]),
        (["--dla", "0"], [DLA]),
        (["--dla", "1", "--fallback", "fp32:relu", "--fp16"], [FP16, FALLBACK, DLA]),
    ],
)
def test_simulated_build_qdq_refuses_what_decides_types_elsewhere(flow, options, faults):
    flow.model(QUANTIZED)
    said = flow.refused(*TYPED, *options, knobs={"num_dla_cores": 2})
    assert said.splitlines() == [f"engine spec: {fault}" for fault in faults]


def test_simulated_build_qdq_refuses_fp16_of_an_engine_spec_until_it_is_taken_back(typed):
    typed.write("mine.yaml", "{model: model.onnx, output: out.engine, builder: {fp16: true}}")
    assert typed.refused("build", "mine.yaml", "--qdq") == f"engine spec: {FP16}"
    check_typed(typed, typed.done("build", "mine.yaml", "--qdq", "--no-fp16").build)


@pytest.mark.parametrize("options", [[], ["--data", "data.npy"], ["--data", "data.npy", "--reuse-cache"]])
def test_simulated_build_qdq_of_a_model_without_such_nodes_says_how_to_convert_it(flow, options):
    flow.model(DENSE)
    flow.data()
    assert flow.refused(*TYPED, *options) == NO_QDQ.format("model.onnx", "model.onnx")


def test_simulated_build_qdq_goes_by_what_tensorrts_network_holds(typed):
    typed.model(IN_A_FUNCTION)
    before = listing(typed.folder)
    assert typed.refused(*TYPED) == NO_QDQ.format("model.onnx", "model.onnx")
    assert listing(typed.folder) == before
