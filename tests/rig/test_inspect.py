"""``trtcalib engine inspect`` over the simulated runtime: layers, precisions, and why a layer does not run in INT8."""

from __future__ import annotations

import pytest

from tests.rig.flow import CONV, QUANTIZED, ROOT, calibrating_flow

NET = """
net (float[N, 2, 4, 4] x) => (float[N, 3, 4, 4] y)
<float[3, 2, 1, 1] w = {1, -2, 3, 0.5, -1, 2}>
{
    [conv] a = Conv(x, w)
    [relu] b = Relu(a)
    [soft] y = Softmax<axis = 1>(b)
}
"""

SCALES_OF_ALL = {"scales_of_all_tensors": True}


@pytest.fixture
def flow(tmp_path, version):
    flow = calibrating_flow(tmp_path, version)
    flow.data(8, 2, 4, 4)
    return flow


def built(flow, text, *options, knobs=None):
    flow.model(text)
    build = ["build", "model.onnx", "--data", "data.npy", "--batch-size", 4, *options, "-o", "out.engine"]
    return flow.done(*build, knobs=knobs)


def inspected(flow):
    result = flow.done("engine", "inspect", "out.engine", "--json")
    assert result.err.count("engines are executable") == 1
    return result.json


def layers(found):
    return {layer["name"]: layer for layer in found["layers"]}


def test_simulated_inspect_lists_layers_with_their_precision(flow):
    built(flow, NET, knobs=SCALES_OF_ALL)
    found = inspected(flow)
    assert found.keys() == {"schema_version", "engine", "tensorrt_version", "detailed", "counts", "layers"}
    assert (found["engine"], found["tensorrt_version"], found["detailed"]) == ("out.engine", flow.version, True)
    assert "conv + relu" in layers(found)  # TensorRT fuses
    fused = layers(found)["conv + relu"]
    assert fused["precision"] == "INT8"
    assert fused["type"] == "CaskConvolution"
    assert any("Int8" in form for form in fused["formats"])
    assert {"b"} <= set(fused["tensors"])
    assert sum(found["counts"].values()) == len(found["layers"])
    assert found["counts"]["INT8"] == sum(layer["precision"] == "INT8" for layer in found["layers"])
    assert list(found["counts"].values()) == sorted(found["counts"].values(), reverse=True)


def test_simulated_inspect_prints_a_table_and_the_counts(flow):
    built(flow, NET, "--fallback", "fp32:soft", knobs=SCALES_OF_ALL)
    result = flow.done("engine", "inspect", "out.engine")
    counts = inspected(flow)["counts"]
    last = result.out.splitlines()[-1]
    told = ", ".join(f"{count} {precision}" for precision, count in counts.items())
    assert last == f"out.engine: {sum(counts.values())} layers for TensorRT {flow.version}: {told}"
    table = " ".join(result.out.split())
    for text in ("conv + relu", "INT8", "soft", "FP32", "asked for by fallback"):
        assert text in table
    assert "detailed" not in result.err


def test_simulated_inspect_says_why_a_layer_fell_back(flow):
    built(flow, NET, "--fallback", "fp32:soft", knobs=SCALES_OF_ALL)
    found = layers(inspected(flow))
    assert found["soft"]["precision"] == "FP32"
    assert found["soft"]["reason"] == "asked for by fallback"
    assert all(not layer["reason"] for layer in found.values() if layer["precision"] == "INT8")


def test_simulated_inspect_says_that_a_layer_was_asked_for_with_a_pattern(flow):
    built(flow, NET, "--fallback", "fp32:so*", knobs=SCALES_OF_ALL)
    assert layers(inspected(flow))["soft"]["reason"] == "asked for by fallback"


def test_simulated_inspect_repeats_what_tensorrt_said_of_a_tensor(flow):
    built(flow, NET)  # the simulated cache has no scale of inner tensors
    built(flow, NET)  # so that TensorRT, answered with it, warns of each
    path = flow.folder / "out.engine"
    # The simulation lets layers without a scale run in INT8; TensorRT would not.
    path.write_bytes(path.read_bytes().replace(b'"SOFTMAX", "precision": "INT8"', b'"SOFTMAX", "precision": "FLOAT"'))
    found = layers(inspected(flow))["soft"]
    assert found["precision"] == "FP32"
    assert found["reason"].startswith("Missing scale and zero-point for tensor ")


def test_simulated_inspect_without_a_manifest_gives_no_reason(flow):
    built(flow, NET, "--fallback", "fp32:soft", knobs=SCALES_OF_ALL)
    (flow.folder / "out.engine.json").unlink()
    assert layers(inspected(flow))["soft"]["reason"] == ""


def test_simulated_inspect_of_a_model_with_qdq_nodes(flow):
    flow.model(QUANTIZED)
    flow.done("build", "model.onnx", "-o", "out.engine")
    found = inspected(flow)
    assert found["counts"].keys() == {"INT8"}


def test_simulated_inspect_of_an_engine_without_detailed_verbosity_is_honest(flow):
    built(flow, CONV)
    path = flow.folder / "out.engine"
    path.write_bytes(
        path.read_bytes().replace(b'"profiling_verbosity": "DETAILED"', b'"profiling_verbosity": "LAYER_NAMES_ONLY"')
    )
    result = flow.done("engine", "inspect", "out.engine")
    assert "TensorRT tells names only: the engine was built without detailed profiling verbosity" in result.err
    found = inspected(flow)
    assert not found["detailed"]
    assert found["counts"].keys() == {"unknown"}
    assert "conv + relu" in layers(found)
    path.write_bytes(
        path.read_bytes().replace(b'"profiling_verbosity": "LAYER_NAMES_ONLY"', b'"profiling_verbosity": "NONE"')
    )
    result = flow.done("engine", "inspect", "out.engine")
    assert result.out == (
        f"out.engine: TensorRT {flow.version} tells none of its layers: it was built with profiling verbosity NONE\n"
    )


def test_simulated_inspect_does_not_guess_formats_that_tensorrt_does_not_tell(flow):
    """With free sizes TensorRT tells formats only for given shapes; they are set to kOPT."""
    flow.model("area (float[N, 2, H, W] x) => (float[N, 2, H, W] y) { [relu] y = Relu(x) }")
    build = ["build", "model.onnx", "--data", "data.npy", "--shapes", "x:1x2x4x4,4x2x4x4,4x2x8x8", "-o", "out.engine"]
    flow.done(*build)
    found = inspected(flow)
    assert {layer["precision"] for layer in found["layers"]} <= {"INT8", "FP32", "unknown"}
    assert not any("N/A" in form for layer in found["layers"] for form in layer["formats"])


def test_simulated_inspect_shows_every_layer_of_the_sample(flow):
    data = ROOT / "data/digits-calibration.yaml"
    flow.done("build", ROOT / "data/digits/model.onnx", "--data", data, "--max-samples", 64, "-o", "out.engine")
    result = flow.start("engine", "inspect", "out.engine")
    assert result.code == 0, result
    assert result.out.splitlines()[-1].startswith("out.engine: ")
    assert result.err.count("engines are executable") == 1
