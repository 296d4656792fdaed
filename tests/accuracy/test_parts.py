"""A part of a variant, fed with what a whole run gave, gives what the whole variant gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.accuracy.test_simulation import assert_same_bits, sample
from tests.models import make_model
from tests.qdq.graphs import ACCEPTED, cache, fill_in, graph, samples
from trtcalib.accuracy.simulation import Choice, Plan, Simulation
from trtcalib.onnx_graph import ModelGraph, read_model
from trtcalib.sessions import Session

MORE = {
    "an If that captures what lies before it": """
        g (float[2,2] x, bool c) => (float[2,2] y, float[2,2] z) <float[2,2] v, float[2,2] w> {
            a = MatMul(x, v)
            b = Relu(a)
            y = If(c) <
                then_branch = t () => (float[2,2] o) { i = Add(a, b) o = Neg(i) },
                else_branch = e () => (float[2,2] q) { i = Mul(b, b) q = Identity(i) }
            >
            z = MatMul(y, w)
        }""",
    "an If in an If": """
        g (float[2,2] x, bool c) => (float[2,2] y) <float[2,2] v> {
            a = MatMul(x, v)
            far = Relu(x)
            y = If(c) <
                then_branch = t () => (float[2,2] o) {
                    o = If(c) <
                        then_branch = tt () => (float[2,2] oo) { oo = Add(a, far) },
                        else_branch = te () => (float[2,2] oe) { oe = Identity(far) }
                    >
                },
                else_branch = e () => (float[2,2] q) { q = Identity(x) }
            >
        }""",
    "a Loop whose body takes an outer tensor": """
        g (float[2,2] x) => (float[2,2] y) <float[2,2] v, int64 n = {3}, bool go = {1}> {
            a = MatMul(x, v)
            y = Loop(n, go, x) <body = body (int64 i, bool more, float[2,2] kept) => (bool on, float[2,2] next) {
                on = Identity(more)
                next = Add(kept, a)
            }>
        }""",
    "constants computed before": """
        g (float[2,2] x) => (float[2,2] y) <float[2,2] v, float[1] two = {2}> {
            one = Constant<value = float[1] {1}>()
            three = Add(one, two)
            nine = Mul(three, three)
            a = Mul(x, nine)
            b = MatMul(a, v)
            y = Sub(b, nine)
        }""",
    "several outputs, one of them before the weights": """
        g (float[2,2] x) => (float[2,2] r, float[2,2] y, int64[2] k, float[2,2] z) <float[2,2] v, float[2,2] w> {
            r = Relu(x)
            y = MatMul(r, v)
            k = ArgMax<axis = 1, keepdims = 0>(y)
            z = MatMul(r, w)
        }""",
    "nodes with several outputs": """
        g (float[2,4] x) => (float[2,2] y, float[2,2] z) <float[2,2] v> {
            a, b = Split<axis = 1>(x)
            y = MatMul(a, v)
            z = MatMul(b, v)
        }""",
    "an input that is an output": "g (float[2,2] x) => (float[2,2] x, float[2,2] y) <float[2,2] v> { y = MatMul(x, v) }",
    "integers on the way": """
        g (float[2,2] x) => (float[2,2] y) <float[2,2] v> {
            a = Cast<to = 7>(x)
            b = Add(a, a)
            c = Cast<to = 1>(b)
            y = MatMul(c, v)
        }""",
}
SCALES = dict.fromkeys(("x", "a", "b", "c", "r", "y"), 1 / 16)

TEXTS = {
    **{name: (case.text, case.scales) for name, case in ACCEPTED.items()},
    **{n: (t, SCALES) for n, t in MORE.items()},
}


def values(model: ModelGraph, names: list[str], feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What a whole model gives of any tensors; inputs are what they are."""
    made = [name for name in names if name not in feeds]
    return {**feeds, **dict(zip(made, Session(model, made, simulate=True).run(made, feeds, "data", "x"), strict=True))}


def check(simulation: Simulation, plan: Plan, changed: set[str], upstream: Plan, feeds: dict[str, np.ndarray]) -> int:
    """Compare the part with the whole, bit for bit, and return how many outputs it gives."""
    part = simulation.downstream(plan, changed)
    known = values(simulation.model(upstream), list(part.feeds), feeds)
    made = list(part.outputs)
    found = Session(part.graph, made, simulate=True).run(made, {n: known[n] for n in part.feeds}, "data", "x")
    whole = values(simulation.model(plan), made, feeds)
    assert_same_bits(found, [whole[name] for name in made])
    return len(made)


@pytest.mark.parametrize("name", TEXTS)
def test_from_every_node_on_and_for_every_plan_a_part_gives_the_same_bits(tmp_path: Path, name: str) -> None:
    text, scales = TEXTS[name]
    model = graph(tmp_path, text)
    simulation = Simulation(model)
    feeds = samples(model.proto)
    plans = [
        simulation.plan(Choice(scales=scales_, activations=activations, weights=weights))
        for scales_, activations, weights in (
            ({}, True, "float"),
            (cache(scales), True, "channel"),
            (cache(scales), False, "tensor"),
        )
    ]
    reached = 0
    for plan in plans:
        for node in simulation.prepared.proto.graph.node:
            reached += check(simulation, plan, {node.output[0]}, plan, feeds)
    for plan in plans[1:]:
        if changed := plan.changed(plans[0]):
            reached += check(simulation, plan, changed, plans[0], feeds)
    assert reached


@settings(max_examples=15)
@given(data=st.data())
def test_what_two_plans_of_the_sample_differ_in_is_all_that_is_run_again(data: st.DataObject) -> None:
    _, scales, simulation, images = sample()
    weighted = simulation.plan(Choice(scales=scales)).weighted
    floats = [data.draw(st.frozensets(st.sampled_from(weighted))) for _ in range(2)]
    weights = data.draw(st.sampled_from(["channel", "tensor"]))
    first, second = (simulation.plan(Choice(scales=scales, float_outputs=f, weights=weights)) for f in floats)
    changed = second.changed(first)
    if not changed:
        assert first.weighted == second.weighted
        return
    part = simulation.downstream(second, changed)
    assert part.outputs == ("probabilities",)
    feeds = {"image": images}
    known = values(simulation.model(first), list(part.feeds), feeds)
    (found,) = Session(part.graph, part.outputs, simulate=True).run(
        part.outputs, {n: known[n] for n in part.feeds}, "data", "x"
    )
    # Tensors that are asked for may keep ONNX Runtime from fusing what makes them, and sums then round elsewhere.
    np.testing.assert_allclose(
        found, values(simulation.model(second), ["probabilities"], feeds)["probabilities"], atol=1e-5
    )


def test_a_part_holds_the_nodes_that_depend_on_it_alone() -> None:
    _, scales, simulation, _ = sample()
    plan = simulation.plan(Choice(scales=scales))
    last = simulation.prepared.proto.graph.node[-1]
    part = simulation.downstream(plan, {last.output[0]})
    assert [node.op_type for node in part.graph.proto.graph.node] == [last.op_type]
    assert part.feeds == tuple(last.input)
    whole = simulation.downstream(plan, {node.output[0] for node in simulation.prepared.proto.graph.node})
    assert whole.feeds == ("image",)


def test_weights_that_two_nodes_share_stay_as_they_were_in_the_one_in_float(tmp_path: Path) -> None:
    """One initializer, by rows for one node and by columns for the other."""
    model = graph(tmp_path, ACCEPTED["weights along two axes"].text)
    simulation = Simulation(model)
    scales = {"a": np.float32(1 / 16)}
    only = simulation.plan(Choice(scales=scales, activations=False, float_outputs=frozenset({"q"})))
    proto = simulation.model(only).proto
    takes = {node.output[0]: node.input[1] for node in proto.graph.node if node.op_type == "Gemm"}
    assert takes == {"p": "w_simulated", "q": "w"}
    both = simulation.model(simulation.plan(Choice(scales=scales, activations=False))).proto
    takes = {node.output[0]: node.input[1] for node in both.graph.node if node.op_type == "Gemm"}
    assert takes == {"p": "w_simulated", "q": "w_simulated_2"}


def test_constants_that_an_old_model_declares_as_inputs_are_not_asked_for(tmp_path: Path) -> None:
    text = '<ir_version: 3, opset_import: ["" : 13]> g (float[2,2] x) => (float[2,2] y) <float[2,2] w> { a = MatMul(x, w) y = Relu(a) }'
    proto = fill_in(make_model(text))
    proto.graph.input.append(onnx.helper.make_tensor_value_info("w", onnx.TensorProto.FLOAT, [2, 2]))
    onnx.save_model(proto, tmp_path / "model.onnx")
    simulation = Simulation(read_model(tmp_path / "model.onnx"))
    feeds = {"x": np.array([[0.5, -3], [2, 9]], np.float32)}
    plan = simulation.plan(Choice(scales={"x": np.float32(1 / 16)}))
    assert [i.name for i in simulation.model(plan).proto.graph.input] == ["x"]
    for changed in ({"a"}, {"y"}):
        assert check(simulation, plan, changed, plan, feeds) == 1


def test_weights_in_another_file_are_found(tmp_path: Path) -> None:
    proto = make_model("g (float[2,64] x) => (float[2,64] y) { y = Identity(x) }")
    del proto.graph.node[:]
    random = np.random.default_rng(4)
    for name in ("v", "w"):
        values_ = random.normal(size=(64, 64)).astype(np.float32)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(values_, name))
    proto.graph.node.append(onnx.helper.make_node("MatMul", ["x", "v"], ["a"]))
    proto.graph.node.append(onnx.helper.make_node("MatMul", ["a", "w"], ["y"]))
    onnx.save_model(
        proto, tmp_path / "model.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0
    )
    simulation = Simulation(read_model(tmp_path / "model.onnx"))
    plan = simulation.plan(Choice(scales={"x": np.float32(1 / 16)}))
    assert plan.weighted == ("a",)
    feeds = {"x": random.normal(size=(2, 64)).astype(np.float32)}
    assert check(simulation, plan, {"y"}, plan, feeds) == check(simulation, plan, {"a"}, plan, feeds) == 1


def test_a_sparse_constant_goes_with_the_node_that_takes_it(tmp_path: Path) -> None:
    proto = fill_in(
        make_model(
            "g (float[2,2] x, float[2,2] s) => (float[2,2] y) <float[2,2] w> { a = MatMul(x, w) y = MatMul(s, a) }"
        )
    )
    del proto.graph.input[1]
    sparse = proto.graph.sparse_initializer.add(dims=[2, 2])
    sparse.values.CopyFrom(onnx.numpy_helper.from_array(np.array([2.0], np.float32), "s"))
    sparse.indices.CopyFrom(onnx.numpy_helper.from_array(np.array([3], np.int64), "s_indices"))
    onnx.save_model(proto, tmp_path / "model.onnx")
    simulation = Simulation(read_model(tmp_path / "model.onnx"))
    plan = simulation.plan(Choice(scales={"x": np.float32(1 / 16)}))
    assert plan.weighted == ("a",)
    feeds = {"x": np.array([[1, 2], [3, 4]], np.float32)}
    assert check(simulation, plan, {"y"}, plan, feeds) == 1
    assert simulation.downstream(plan, {"y"}).feeds == ("a",)
