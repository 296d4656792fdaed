"""``trtcalib infer`` over the simulated runtime, which runs ONNX Runtime: what goes in, what comes out, what is said."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest

from tests.rig.flow import DENSE, FIXED, QUANTIZED, calibrating_flow

WARNING = "engines are executable: TensorRT runs what is in them, so load only those that you built or trust"

MIXED = """
mixed (float[N, 3] x, int32[N, 2] ids) => (float[N, 2] y, int32[N, 2] twice, bool[N, 3] positive)
<float[3, 2] w = {1, 0, 0, 1, 1, 1}, float zero = {0}>
{
    y = MatMul(x, w)
    twice = Add(ids, ids)
    positive = Greater(x, zero)
}
"""

SCALAR = "scalar (float[2, 3] x, float factor) => (float[2, 3] y, float total) { y = Mul(x, factor) total = ReduceMax<keepdims = 0>(y) }"

AREA = "area (float[N, 2, H, W] x) => (float[N, 2, H, W] y) { y = Relu(x) }"


@pytest.fixture
def flow(tmp_path, version):
    return calibrating_flow(tmp_path, version)


def built(flow, text=DENSE, *options, data="data.npy", batch=4):
    """Write a model and build ``out.engine``."""
    flow.model(text)
    sizes = ["--batch-size", batch] if batch else []
    flow.done("build", "model.onnx", "--data", data, *sizes, *options, "-o", "out.engine")
    return flow


def expected(flow, feeds):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(flow.folder / "model.onnx", options, providers=["CPUExecutionProvider"])
    return dict(zip([output.name for output in session.get_outputs()], session.run(None, feeds), strict=True))


def outputs(flow, name="results.npz"):
    with np.load(flow.folder / name) as content:
        return dict(content)


def infer(*options, data="data.npy"):
    return ["infer", "out.engine", "--data", data, "-o", "results.npz", *options]


def test_simulated_infer_gives_what_onnx_runtime_gives(flow):
    data = flow.data(10)
    built(flow)
    result = flow.done(*infer())
    found = outputs(flow)
    assert found.keys() == {"y"}
    wanted = expected(flow, {"x": data})["y"]
    assert (found["y"].shape, found["y"].dtype) == (wanted.shape, wanted.dtype)
    np.testing.assert_allclose(found["y"], wanted, rtol=1e-6)
    # 3 runs to warm up, then batches of 4, 4 and 2: the last one is partial.
    assert result.saw["executions"] == 3 + 3
    said = result.out.splitlines()
    assert said[0] == "results.npz: outputs of 10 samples"
    assert said[1].startswith("latency of a batch of 4, copies included: p50 ")
    assert said[1].endswith(" ms, over 3 batches after 3 to warm up")
    assert said[2].startswith("throughput: ")
    assert result.err == f"WARNING: out.engine: {WARNING}\n"


def test_simulated_infer_of_several_inputs_and_outputs(flow):
    x, ids = flow.data(7), np.arange(14, dtype=np.int32).reshape(7, 2)
    np.savez(flow.folder / "data.npz", ids=ids, x=x)  # not in the engine's order
    built(flow, MIXED, data="data.npz", batch=3)
    flow.done(*infer(data="data.npz"))
    found = outputs(flow)
    assert list(found) == ["y", "twice", "positive"]
    wanted = expected(flow, {"x": x, "ids": ids})
    for name, array in wanted.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
        np.testing.assert_allclose(found[name], array, rtol=1e-6)


def test_simulated_infer_of_float16(flow):
    data = flow.data(8).astype(np.float16)
    np.save(flow.folder / "data.npy", data)
    built(flow, DENSE.replace("float[", "float16["))
    flow.done(*infer())
    assert outputs(flow)["y"].dtype == np.float16
    np.testing.assert_array_equal(outputs(flow)["y"], expected(flow, {"x": data})["y"])


def test_simulated_infer_of_whole_feeds_without_a_batch_axis(flow):
    x, factor = flow.data(5, 2, 3), np.arange(5, dtype=np.float32)
    np.savez(flow.folder / "data.npz", x=x, factor=factor)
    built(flow, SCALAR, data="data.npz", batch=None)
    flow.done(*infer(data="data.npz"))
    found = outputs(flow)
    single = [expected(flow, {"x": x[i], "factor": factor[i, ...]}) for i in range(5)]
    np.testing.assert_array_equal(found["y"], np.concatenate([each["y"] for each in single]))
    np.testing.assert_array_equal(found["total"], np.stack([each["total"] for each in single]))


def test_simulated_infer_of_a_fixed_batch_says_what_is_left_over(flow):
    data = flow.data(10)
    built(flow, FIXED, batch=None)
    result = flow.done(*infer())
    np.testing.assert_array_equal(outputs(flow)["y"], expected_rows(flow, data[:8]))
    assert "2 samples at the end were left out: they fill no batch of the engine" in result.err.splitlines()
    assert "results.npz: outputs of 8 samples" in result.out
    assert flow.done(*infer("--json")).json["left_out"] == 2
    said = flow.refused("infer", "out.engine", "--data", "data.npy", "--batch-size", 2)
    assert said == "out.engine: the engine has a fixed batch of 4, asked for 2"


def expected_rows(flow, data):
    return np.concatenate([expected(flow, {"x": rows})["y"] for rows in np.split(data, len(data) // 4)])


def test_simulated_infer_tells_latency_and_throughput_as_json(flow):
    flow.data(10)
    built(flow)
    result = flow.done(*infer("--json"))
    found = result.json
    assert found.keys() == {
        "schema_version",
        "samples",
        "batches",
        "batch_size",
        "p50_ms",
        "p90_ms",
        "p99_ms",
        "samples_per_second",
        "left_out",
    }
    assert (found["schema_version"], found["samples"], found["batches"], found["batch_size"]) == (1, 10, 3, 4)
    assert 0 < found["p50_ms"] <= found["p90_ms"] <= found["p99_ms"]
    assert found["samples_per_second"] > 0
    assert result.err.count(WARNING) == 1


def test_simulated_infer_takes_batch_size_and_limit(flow):
    data = flow.data(10)
    built(flow)
    result = flow.done(*infer("--batch-size", 2, "--max-samples", 5))
    np.testing.assert_allclose(outputs(flow)["y"], expected(flow, {"x": data[:5]})["y"], rtol=1e-6)
    assert result.saw["executions"] == 3 + 3
    flow.done("infer", "out.engine", "--data", "data.npy")  # outputs are not asked for


def test_simulated_infer_of_a_model_with_qdq_nodes(flow):
    data = flow.data(8)
    flow.model(QUANTIZED)
    flow.done("build", "model.onnx", "-o", "out.engine")
    flow.done(*infer("--batch-size", 4))
    np.testing.assert_allclose(outputs(flow)["y"], expected(flow, {"x": data})["y"], rtol=1e-6)


def test_simulated_infer_takes_sizes_within_the_profile(flow):
    flow.data(4, 2, 6, 8)
    built(flow, AREA, "--shapes", "x:1x2x4x4,2x2x6x8,4x2x16x16", batch=None)
    data = flow.data(4, 2, 10, 5)
    flow.done(*infer())
    np.testing.assert_array_equal(outputs(flow)["y"], np.maximum(data, 0))
    flow.data(4, 2, 17, 5)
    said = flow.refused(*infer())
    assert said == "out.engine: input 'x' has shape (2, 2, 17, 5), the engine takes (1, 2, 4, 4) to (4, 2, 16, 16)"


def test_simulated_infer_refuses_a_batch_outside_the_profile(flow):
    flow.data(10)
    built(flow)
    said = flow.refused(*infer("--batch-size", 5))
    assert said == "out.engine: input 'x' has shape (5, 3), the engine takes (1, 3) to (4, 3)"


# Engines that cannot be loaded


def test_simulated_engine_of_another_version_names_both(flow):
    flow.data(8)
    built(flow)
    other = "10.16.1.11" if flow.is_8 else "8.6.1"
    said = flow.refused(*infer(), version=other)
    assert said.startswith(f"out.engine: TensorRT {other} does not take it (")
    assert (
        f"it was built by TensorRT {flow.version} on simulated CUDA device (host memory) (compute capability 8.6)"
        in said
    )
    assert said.endswith("build it here from model.onnx")


def test_simulated_engine_of_another_gpu_names_both(flow):
    flow.data(8)
    built(flow)
    said = flow.refused(*infer(), knobs={"device_name": "Another GPU"})
    assert "expecting Another GPU got Simulated GPU" in said
    assert "it was built by TensorRT" in said
    for name in ("infer", "engine"):
        arguments = infer() if name == "infer" else ["engine", "inspect", "out.engine"]
        (flow.folder / "out.engine.json").unlink(missing_ok=True)
        said = flow.refused(*arguments, knobs={"device_name": "Another GPU"})
        assert "an engine runs only on the TensorRT version and the kind of GPU that it was built with" in said


def test_simulated_engine_with_a_damaged_manifest_is_still_refused_in_clear_words(flow):
    flow.data(8)
    built(flow)
    flow.write("out.engine.json", "{")
    said = flow.refused(*infer(), knobs={"device_name": "Another GPU"})
    assert "out.engine" in said


@pytest.mark.parametrize("command", ["infer", "inspect"])
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "out.engine: cannot be read: No such file or directory"),
        (b"", "out.engine: is empty"),
        (b"no engine at all", "does not take it ("),
    ],
    ids=["missing", "empty", "garbage"],
)
def test_simulated_engine_that_is_none(flow, command, content, said):
    flow.data(8)
    if content is not None:
        (flow.folder / "out.engine").write_bytes(content)
    arguments = infer() if command == "infer" else ["engine", "inspect", "out.engine"]
    assert said in flow.refused(*arguments)


# Data and outputs


def test_simulated_infer_on_data_that_do_not_fit(flow):
    flow.data(8)
    built(flow)
    flow.data(8, 4)
    assert "input 'x' has shape (1, 4), the model takes [?, 3]" in flow.refused(*infer())
    np.save(flow.folder / "data.npy", np.ones((8, 3)))
    assert "input 'x' is float64, the model takes float32" in flow.refused(*infer())
    assert "no such file or folder" in flow.refused(*infer(data="nowhere.npz"))


def test_simulated_infer_writes_npz_only(flow):
    flow.data(8)
    built(flow)
    said = flow.refused("infer", "out.engine", "--data", "data.npy", "-o", "results.npy")
    assert said == "results.npy: outputs are written as .npz"
    said = flow.refused("infer", "out.engine", "--data", "data.npy", "-o", "nowhere/results.npz")
    assert said == "nowhere/results.npz: the folder 'nowhere' does not exist: create it first"
    np.savez(flow.folder / "data.npz", x=flow.data(8))
    said = flow.refused("infer", "out.engine", "--data", "data.npz", "-o", "data.npz")
    assert said.endswith("is an input or another result of this command: choose another name")


SIZES = """
import numpy as np

def one():
    yield {"x": np.ones((1, 2, 6, 8), np.float32)}

def several():
    for n in (4, 5):
        yield {"x": np.ones((1, 2, n, n), np.float32)}
"""


def test_simulated_infer_of_outputs_that_do_not_fit_together(flow):
    flow.write("sizes.py", SIZES)
    built(flow, AREA, "--shapes", "x:1x2x4x4,1x2x6x8,4x2x16x16", data="sizes:one", batch=None)
    assert flow.refused(*infer(data="sizes:several")) == (
        "outputs: output 'y' has shape (1, 2, 5, 5), before it had ('?', 2, 4, 4): batches of different shapes cannot be put into "
        "one array"
    )
    assert flow.done("infer", "out.engine", "--data", "sizes:several", "--json").json["batches"] == 2
