"""``trtcalib build`` over the simulated builder: shapes, profiles, and batches that match kOPT exactly."""

from __future__ import annotations

import numpy as np
import pytest

from tests.rig.flow import FIXED, calibrating_flow, joined

AREA = """
area (float[N, 2, H, W] x) => (float[N, 2, H, W] y)
{
    y = Relu(x)
}
"""

SCALAR = """
scalar (float[2, 3] x, float factor) => (float[2, 3] y)
{
    y = Mul(x, factor)
}
"""
"""No batch axis: one input has no axis at all."""

ROWS = """
rows (float[2, 3] x) => (float[2, 3] y)
{
    y = Relu(x)
}
"""

PAIR = """
pair (float[N, 3] x, float[N, L] tokens) => (float[N, 3] y, float[N, L] z)
{
    y = Relu(x)
    z = Relu(tokens)
}
"""


@pytest.fixture
def flow(tmp_path, version):
    return calibrating_flow(tmp_path, version)


def build(*options):
    return ["build", "model.onnx", "--data", "data.npy", *options, "-o", "out.engine"]


def test_simulated_free_batch_is_32_unless_said_otherwise(flow):
    flow.model()
    data = flow.data(70)
    result = flow.done(*build())
    assert result.build["profiles"] == [{"x": [[1, 3], [32, 3], [32, 3]]}]
    assert [batch["x"].shape for batch in result.batches] == [(32, 3), (32, 3)]
    assert joined(result.batches)["x"].tobytes() == data[:64].tobytes()
    assert flow.engine_manifest().shapes == {"x": {"min": (1, 3), "opt": (32, 3), "max": (32, 3)}}


def test_simulated_batch_size_of_a_free_batch_is_kopt(flow):
    flow.model()
    flow.data(12)
    result = flow.done(*build("--batch-size", 4))
    assert result.build["profiles"] == [{"x": [[1, 3], [4, 3], [4, 3]]}]
    assert result.build["calibration_profile"] == {"x": [[4, 3]] * 3}
    assert len(result.batches) == 3


def test_simulated_fixed_batch_needs_no_profile(flow):
    flow.model(FIXED)
    data = flow.data(10)
    result = flow.done(*build())
    assert result.build["profiles"] == []
    assert result.build["calibration_profile"] is None
    assert [batch["x"].shape for batch in result.batches] == [(4, 3), (4, 3)]
    assert joined(result.batches)["x"].tobytes() == data[:8].tobytes()
    assert result.findings[0].startswith("partial-last-batch: 2 samples at the end were left out")
    assert flow.engine_manifest().shapes == {"x": {"min": (4, 3), "opt": (4, 3), "max": (4, 3)}}


@pytest.mark.parametrize("size", [2, 8])
def test_simulated_fixed_batch_refuses_another_batch_size(flow, size):
    flow.model(FIXED)
    flow.data(16)
    said = flow.refused(*build("--batch-size", size))
    assert said == f"engine spec: batch_size: found {size}, but the model fixes the first axis of 'x' to 4"


def test_simulated_fixed_batch_takes_its_own_batch_size(flow):
    flow.model(FIXED)
    flow.data(8)
    assert len(flow.done(*build("--batch-size", 4)).batches) == 2


def test_simulated_dynamic_height_and_width(flow):
    flow.model(AREA)
    data = flow.data(9, 2, 6, 8)
    shapes = "x:1x2x4x4,4x2x6x8,8x2x16x16"
    result = flow.done(*build("--shapes", shapes))
    assert result.build["profiles"] == [{"x": [[1, 2, 4, 4], [4, 2, 6, 8], [8, 2, 16, 16]]}]
    assert result.build["calibration_profile"] == {"x": [[4, 2, 6, 8]] * 3}
    assert [batch["x"].shape for batch in result.batches] == [(4, 2, 6, 8)] * 2
    assert joined(result.batches)["x"].tobytes() == data[:8].tobytes()
    assert flow.cache_manifest().provenance.shapes == {"x": (4, 2, 6, 8)}


def test_simulated_batch_size_beside_shapes_goes_into_a_calibration_profile_of_its_own(flow):
    flow.model(AREA)
    data = flow.data(9, 2, 6, 8)
    shapes = "x:1x2x4x4,4x2x6x8,8x2x16x16"
    result = flow.done(*build("--shapes", shapes, "--batch-size", 3))
    assert result.build["profiles"] == [{"x": [[1, 2, 4, 4], [4, 2, 6, 8], [8, 2, 16, 16]]}]  # as asked for
    assert result.build["calibration_profile"] == {"x": [[3, 2, 6, 8]] * 3}
    assert [batch["x"].shape for batch in result.batches] == [(3, 2, 6, 8)] * 3
    assert joined(result.batches)["x"].tobytes() == data.tobytes()
    manifest = flow.engine_manifest()
    assert manifest.shapes["x"]["opt"] == (4, 2, 6, 8)
    assert manifest.batching.batch_size == 3


def test_simulated_shapes_of_one_size_stand_for_all_three(flow):
    flow.model(AREA)
    flow.data(4, 2, 4, 4)
    result = flow.done(*build("--shapes", "x:2x2x4x4"))
    assert result.build["profiles"] == [{"x": [[2, 2, 4, 4]] * 3}]
    assert len(result.batches) == 2


def test_simulated_shapes_of_several_inputs(flow):
    flow.model(PAIR)
    x, tokens = flow.data(8), flow.data(8, 5, seed=1)
    np.savez(flow.folder / "data.npz", x=x, tokens=tokens)
    shapes = ["--shapes", "tokens:1x1,2x5,8x9", "--shapes", "x:1x3,2x3,8x3"]
    result = flow.done("build", "model.onnx", "--data", "data.npz", *shapes, "-o", "out.engine")
    assert result.build["profiles"] == [{"x": [[1, 3], [2, 3], [8, 3]], "tokens": [[1, 1], [2, 5], [8, 9]]}]
    assert joined(result.batches)["tokens"].tobytes() == tokens.tobytes()
    # One input given, the other's batch has to go with it.
    result = flow.done("build", "model.onnx", "--data", "data.npz", *shapes[:2], "--batch-size", 2, "-o", "b.engine")
    assert result.build["calibration_profile"] == {"x": [[2, 3]] * 3, "tokens": [[2, 5]] * 3}


def test_simulated_shapes_of_an_engine_spec(flow):
    flow.model(AREA)
    flow.data(4, 2, 4, 4)
    shapes = "{x: {min: [1, 2, 2, 2], opt: [2, 2, 4, 4], max: [4, 2, 8, 8]}}"
    flow.write("mine.yaml", f"model: model.onnx\ndata: data.npy\noutput: out.engine\nshapes: {shapes}\n")
    result = flow.done("build", "mine.yaml")
    assert result.build["profiles"] == [{"x": [[1, 2, 2, 2], [2, 2, 4, 4], [4, 2, 8, 8]]}]


@pytest.mark.parametrize("calibrator", ["entropy", "percentile-99"])
def test_simulated_model_without_a_batch_axis_takes_whole_feeds(flow, calibrator):
    flow.model(SCALAR)
    x, factor = flow.data(5, 2, 3), flow.data(5, 1, seed=1)[:, 0]
    np.savez(flow.folder / "data.npz", x=x, factor=factor)
    result = flow.done("build", "model.onnx", "--data", "data.npz", "--calibrator", calibrator, "-o", "out.engine")
    if calibrator == "entropy":
        assert [batch["factor"].shape for batch in result.batches] == [()] * 5
        assert np.stack([batch["factor"] for batch in result.batches]).tobytes() == factor.tobytes()
        assert joined([{"x": batch["x"]} for batch in result.batches])["x"].tobytes() == x.tobytes()
        assert flow.engine_manifest().batches_fed == 5
    assert result.findings == []


def test_simulated_whole_feeds_of_a_fixed_shape(flow):
    flow.model(ROWS)
    data = flow.data(5, 2, 3)  # one axis more than the input
    result = flow.done(*build())
    assert [batch["x"].shape for batch in result.batches] == [(2, 3)] * 5
    assert joined(result.batches)["x"].tobytes() == data.tobytes()
    manifest = flow.engine_manifest()
    assert (manifest.batches_fed, manifest.batching.batches) == (5, 5)


def test_simulated_whole_feeds_of_a_free_batch_must_be_kopt(flow):
    flow.model()
    data = flow.data(3, 4, 3)
    result = flow.done(*build("--batch-size", 4))
    assert joined(result.batches)["x"].tobytes() == data.tobytes()
    (flow.folder / "out.cache").unlink()
    said = flow.refused(*build("--batch-size", 2))
    assert "input 'x' has shape (4, 3)" in said or "input 'x' got shape (4, 3)" in said
    assert "(2, 3), the profile's kOPT shape" in said


# What is refused


def test_simulated_free_axes_without_shapes_are_refused_with_an_example(flow):
    flow.model(AREA)
    flow.data(4, 2, 4, 4)
    assert flow.refused(*build()) == (
        "shapes: x: axes are free besides the batch, [?, 2, ?, ?]: give --shapes x:MIN,OPT,MAX, such as x:8x2x224x224"
    )


@pytest.mark.parametrize(
    ("shapes", "said"),
    [
        ("x:2x4x4", "shapes: x: has 4 axes, [?, 2, ?, ?], but the shapes given have 3"),
        ("x:2x3x4x4", "shapes: x: axis 1 is fixed to 2 by the model, [?, 2, ?, ?], found [3]"),
        ("y:2x2x4x4", "shapes: y: the model has no such input; it has x"),
        (
            "x:4x2x4x4,2x2x4x4,8x2x4x4",
            "engine spec: shapes.x: axis 0 has min 4, opt 2, max 8, expected min <= opt <= max",
        ),
        ("x:2x2x4x4,2x2x4x4", "--shapes: found 'x:2x2x4x4,2x2x4x4', expected INPUT:MIN,OPT,MAX such as "),
        ("x", "--shapes: found 'x', expected INPUT:MIN,OPT,MAX such as "),
        ("x:0x2x4x4", "engine spec: shapes.x."),
    ],
)
def test_simulated_shapes_that_do_not_fit_are_refused(flow, shapes, said):
    flow.model(AREA)
    flow.data(4, 2, 4, 4)
    assert said in flow.refused(*build("--shapes", shapes))


def test_simulated_faults_of_all_inputs_are_told_at_once(flow):
    flow.model(PAIR)
    np.savez(flow.folder / "data.npz", x=flow.data(4), tokens=flow.data(4, 5))
    shapes = ["--shapes", "tokens:2x5x1", "--shapes", "x:2x4", "--shapes", "toknes:1x1"]
    said = flow.refused("build", "model.onnx", "--data", "data.npz", *shapes, "-o", "out.engine").splitlines()
    assert [line.split(":")[1].strip() for line in said] == ["toknes", "x", "tokens"]
    assert "did you mean" in said[0]
    assert "'tokens'" in said[0]


def test_simulated_data_of_another_size_than_kopt_are_refused_with_the_sample(flow):
    flow.model(AREA)
    flow.data(4, 2, 5, 5)
    said = flow.refused(*build("--shapes", "x:1x2x4x4,2x2x4x4,4x2x8x8"))
    assert "data.npy: sample 0: input 'x' has shape (1, 2, 5, 5)" in said
    assert "(2, 2, 4, 4), the profile's kOPT shape" in said
