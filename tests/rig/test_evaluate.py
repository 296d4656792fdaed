"""``trtcalib evaluate --engine`` over the simulated runtime, which runs ONNX Runtime: what is fed, what comes of it, what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.rig.flow import Flow, calibrating_flow

WARNING = "engines are executable: TensorRT runs what is in them, so load only those that you built or trust"

DENSE = """
dense (float[N, 3] x) => (float[N, 2] y)
<float[3, 2] w = {1, 0, 0, 1, 1, 1}>
{
    y = MatMul(x, w)
}
"""

FIXED = DENSE.replace("N", "4")

LARGE = """
large (float[N, 3] x, int32[N, 2] ids) => (float[N, 2] y, int32[N, 2] twice)
<float[3, 2] w = {1, 0, 0, 1, 1, 1}>
{
    y = MatMul(x, w)
    twice = Add(ids, ids)
}
"""

QUANTIZED = """
quantized (float[N, 3] x) => (float[N, 2] y)
<float[3, 2] w = {1, 0, 0, 1, 1, 1}, float scale = {0.25}, int8 zero = {0}>
{
    q = QuantizeLinear(x, scale, zero)
    d = DequantizeLinear(q, scale, zero)
    y = MatMul(d, w)
}
"""

TOTAL = """
total (float[N, 3] x) => (float[N, 2] y, float most)
<float[3, 2] w = {1, 0, 0, 1, 1, 1}>
{
    y = MatMul(x, w)
    most = ReduceMax<keepdims = 0>(y)
}
"""


@pytest.fixture
def flow(tmp_path, version):
    return calibrating_flow(tmp_path, version)


def built(flow, text=DENSE, *options, data="data.npy"):
    """Write a model and build ``out.engine``."""
    flow.model(text)
    flow.done("build", "model.onnx", "--data", data, *options, "-o", "out.engine")
    return flow


def evaluate(*options, data="data.npy"):
    return ["evaluate", "model.onnx", "--data", data, "--engine", "out.engine", *options]


def fp32(data):
    """What the model gives, by NumPy."""
    return data @ np.array([[1, 0], [0, 1], [1, 1]], np.float32)


def test_simulated_engine_is_judged_sample_by_sample(flow):
    data = flow.data(10)
    built(flow, DENSE, "--batch-size", 4)
    labels = fp32(data).argmax(axis=1)
    labels[0] = 1 - labels[0]
    flow.write("labels.txt", "".join(f"{label}\n" for label in labels))
    result = flow.done(*evaluate("--labels", "labels.txt", "-o", "out.json"))
    assert result.saw["executions"] == 10
    assert result.out.startswith("top1 of 10 samples at output y\n")
    assert "the engine was run by TensorRT on this machine's GPU: nothing is simulated" in result.out
    assert "INT8 is simulated" not in result.out
    assert result.err.count(f"WARNING: out.engine: {WARNING}") == 1
    found = json.loads((flow.folder / "out.json").read_text())
    assert (found["simulated"], found["engine"], found["cache"]) == (False, "out.engine", None)
    assert (found["quantized"], found["weighted"], found["calibration"]) == (None, None, None)
    assert found["reference"]["value"] == found["judgement"]["value"] == 0.9
    assert found["judgement"]["outputs"][0]["agreement"] == 1
    assert found["variant"]["method"] == "an engine"


def test_simulated_engine_of_another_model_of_the_same_shape_is_seen(flow):
    """That the engine is run, and not the model: the engine's model has its columns swapped."""
    data = flow.data(10)
    built(flow, DENSE.replace("{1, 0, 0, 1, 1, 1}", "{0, 1, 1, 0, 1, 1}"), "--batch-size", 4)
    flow.model(DENSE)
    found = flow.done(*evaluate("--metric", "sqnr", "--json")).json
    wanted = fp32(data)
    noise = ((wanted - wanted[:, ::-1]) ** 2).sum() / (wanted**2).sum()
    assert found["judgement"]["loss"] == pytest.approx(noise, rel=1e-5)


def test_simulated_engine_of_the_model_with_qdq_nodes_is_judged_beside_the_float_model(tmp_path, version):
    flow = Flow(tmp_path, version)
    data = flow.data(12)
    flow.model(DENSE)
    flow.model(QUANTIZED, "qdq.onnx")
    flow.done("build", "qdq.onnx", "-o", "out.engine")
    found = flow.done(*evaluate("--metric", "sqnr", "--json")).json
    rounded = fp32(np.rint(data / 0.25) * 0.25)
    noise = ((fp32(data) - rounded) ** 2).sum() / (fp32(data) ** 2).sum()
    assert found["judgement"]["loss"] == pytest.approx(noise, rel=1e-4)
    assert noise > 0


def test_simulated_engine_of_the_model_s_fixed_batch(flow):
    data = flow.data(10)
    built(flow, FIXED)
    flow.write("labels.txt", "".join(f"{label}\n" for label in fp32(data).argmax(axis=1)))
    result = flow.done(*evaluate("--labels", "labels.txt", "--json"))
    assert result.saw["executions"] == 2
    assert result.json["judgement"]["value"] == 1
    assert result.json["evaluation"]["samples"] == 8
    assert "note: 2 samples at the end fill no batch of the model and are not judged" in result.err


def test_simulated_engine_whose_smallest_batch_is_larger_than_a_sample_is_filled_up(flow):
    x, ids = flow.data(6), np.arange(12, dtype=np.int32).reshape(6, 2)
    np.savez(flow.folder / "data.npz", x=x, ids=ids)
    shapes = ["--shapes", "x:4x3,4x3,8x3", "--shapes", "ids:4x2,4x2,8x2"]
    built(flow, LARGE, *shapes, data="data.npz")
    result = flow.done(*evaluate("--metric", "sqnr", "--json", data="data.npz"))
    assert result.saw["executions"] == 6
    found = result.json["judgement"]
    assert [output["name"] for output in found["outputs"]] == ["y", "twice"]
    assert [output["agreement"] for output in found["outputs"]] == [1, 1]
    assert found["outputs"][1]["sqnr_db"] is None
    assert found["loss"] < 1e-12


def test_simulated_engine_with_an_output_that_does_not_count_what_it_was_filled_with(flow):
    flow.data(6)
    built(flow, TOTAL, "--shapes", "x:4x3,4x3,8x3")
    said = flow.refused(*evaluate("--metric", "sqnr"))
    assert said == (
        "out.engine: its smallest batch is 4, and output 'most' has shape [], so that samples cannot be judged one by one: build it with a "
        "smallest batch of 1"
    )


def test_simulated_engine_of_another_model_is_refused(flow):
    flow.data(8)
    built(flow, DENSE, "--batch-size", 4)
    for before, after, said in (
        (
            "x",
            "pixels",
            "out.engine: its inputs are 'x', and model.onnx has 'pixels': give the model that it was built from",
        ),
        (
            "y",
            "scores",
            "out.engine: its outputs are 'y', and model.onnx has 'scores': give the model that it was built from",
        ),
    ):
        flow.model(
            DENSE.replace(f" {before})", f" {after})")
            .replace(f"({before},", f"({after},")
            .replace(f"{before} =", f"{after} =")
        )
        assert flow.refused(*evaluate()) == said
    flow.model(DENSE.replace("float[N, 3] x", "float[N, 3] x, float[N, 3] more").replace("(x, w)", "(x, w)"))
    np.savez(flow.folder / "data.npz", x=flow.data(8), more=flow.data(8))
    assert "its inputs are 'x', and model.onnx has 'more', 'x'" in flow.refused(*evaluate(data="data.npz"))


def test_simulated_engine_that_is_none(flow):
    flow.data(8)
    flow.model(DENSE)
    assert "out.engine: cannot be read: No such file or directory" in flow.refused(*evaluate())
    (flow.folder / "out.engine").write_bytes(b"no engine at all")
    assert "does not take it (" in flow.refused(*evaluate())


def test_simulated_engine_is_fed_only_what_the_model_takes(flow):
    flow.data(8)
    built(flow, DENSE, "--batch-size", 4)
    flow.data(8, 4)
    assert "input 'x' has shape (1, 4), the model takes [?, 3]" in flow.refused(*evaluate())


def test_simulated_engine_loses_more_than_is_allowed(flow):
    flow.data(8)
    built(flow, DENSE.replace("{1, 0, 0, 1, 1, 1}", "{0, 1, 1, 0, 1, 1}"), "--batch-size", 4)
    flow.model(DENSE)
    result = flow.run(*evaluate("--max-loss", "0.1"))
    assert result.code == 1
    assert "is above --max-loss 0.1" in result.err
