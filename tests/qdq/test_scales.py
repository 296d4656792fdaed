"""Which scale a tensor has where the cache does not name it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.qdq.graphs import graph
from trtcalib.qdq.scales import KnownScale, Scales, flaw
from trtcalib.qdq.wiring import Wiring

ONE = np.float32(np.float32(1) / np.float32(127))
SIX = np.float32(np.float32(6) / np.float32(127))


def find(folder: Path, body: str, scales: dict[str, float], *, fill: bool = True, name: str = "t") -> KnownScale | None:
    """Look up a tensor of a graph with the inputs x and z, both [2,4,4,4]."""
    text = f"""g (float[2,4,4,4] x, float[2,4,4,4] z) => (float y)
        <int64[2] shape = {{2, 64}}, float lo = {{-3}}, float hi = {{6}}, float huge = {{inf}}, float zero = {{0}}, float one = {{1}},
         int64[2] index = {{0, 1}}, int64[8] pads = {{0,0,1,1,0,0,1,1}}, float[4] factors = {{1,1,2,2}}, int64[4] sizes = {{1,1,8,8}},
         float[2,4,4,4] c>
        {{ {body} }}"""
    model = graph(folder, text)
    return Scales(
        Wiring(model, model.proto), {name: np.float32(scale) for name, scale in scales.items()}, fill=fill
    ).find(name)


def known(folder: Path, body: str, scales: dict[str, float]) -> tuple[np.float32 | None, str | None]:
    found = find(folder, body, scales)
    return (None, None) if found is None else (found.scale, found.rule)


class TestTheCache:
    def test_a_line_of_its_own_wins(self, tmp_path: Path) -> None:
        found = find(tmp_path, "t = Reshape(x, shape) y = Relu(t)", {"x": 1, "t": 2})
        assert found == KnownScale("t", np.float32(2))

    def test_a_view_has_its_source_s_scale(self, tmp_path: Path) -> None:
        body = "r = Relu(x) a = Reshape(r, shape) t = Identity(a) y = Relu(t)"
        assert find(tmp_path, body, {"r": 1, "x": 5}, fill=False) == KnownScale("r", np.float32(1))

    def test_a_source_has_its_view_s_scale(self, tmp_path: Path) -> None:
        body = "t = Relu(x) a = Reshape(t, shape) b = Identity(a) y = Relu(b)"
        assert find(tmp_path, body, {"b": 1, "x": 5}, fill=False) == KnownScale("b", np.float32(1))

    def test_a_view_has_its_sibling_s_scale(self, tmp_path: Path) -> None:
        body = "r = Relu(x) t = Reshape(r, shape) b = Identity(r) y = Relu(b)"
        assert find(tmp_path, body, {"b": 1}, fill=False) == KnownScale("b", np.float32(1))

    @pytest.mark.parametrize("pool", ["MaxPool", "AveragePool"])
    def test_a_pool_has_its_input_s_scale(self, tmp_path: Path, pool: str) -> None:
        body = f"r = Relu(x) t = {pool}<kernel_shape=[2,2]>(r) y = Relu(t)"
        assert find(tmp_path, body, {"r": 1}, fill=False) == KnownScale("r", np.float32(1))

    def test_a_view_of_a_pool_s_input_says_it_too_and_a_view_of_the_pool_comes_first(self, tmp_path: Path) -> None:
        body = "r = Relu(x) t = MaxPool<kernel_shape=[2,2]>(r) a = Identity(t) b = Identity(r) y = Relu(b)"
        assert find(tmp_path, body, {"a": 1, "b": 2}, fill=False) == KnownScale("a", np.float32(1))

    def test_a_shape_is_no_view(self, tmp_path: Path) -> None:
        assert find(tmp_path, "t = Relu(x) s = Shape(t) r = Reshape(z, s) y = Relu(r)", {"r": 1}, fill=False) is None

    def test_an_unusable_line_gives_way_to_the_same_values_and_is_told_of_otherwise(self, tmp_path: Path) -> None:
        body = "t = Relu(x) a = Identity(t) y = Relu(a)"
        assert find(tmp_path, body, {"t": np.nan, "a": 1}, fill=False) == KnownScale("a", np.float32(1))
        found = find(tmp_path, body, {"t": -1}, fill=False)
        assert found is not None
        assert flaw(found.scale) == "negative"

    def test_without_fill_nothing_is_derived(self, tmp_path: Path) -> None:
        assert find(tmp_path, "t = Relu(x) y = Relu(t)", {"x": 1}, fill=False) is None

    def test_a_cycle_ends(self, tmp_path: Path) -> None:
        model = graph(tmp_path, "g (float[2] x) => (float[2] y) { a = Identity(x) b = Relu(a) y = Relu(b) }")
        model.proto.graph.node[0].input[0] = "b"
        assert Scales(Wiring(model, model.proto), {}, fill=True).find("b") is None


class TestFill:
    @pytest.mark.parametrize("operator", ["Sigmoid", "Softmax", "HardSigmoid", "Tanh", "Sin", "Cos", "Erf", "Softsign"])
    def test_what_is_at_most_one(self, tmp_path: Path, operator: str) -> None:
        assert known(tmp_path, f"t = {operator}(x) y = Relu(t)", {}) == (ONE, f"{operator}: at most 1 in magnitude")

    @pytest.mark.parametrize(
        "node",
        [
            "Relu(x)",
            "Neg(x)",
            "Abs(x)",
            "Gather(x, index)",
            "GlobalAveragePool(x)",
            "GlobalMaxPool(x)",
            "DepthToSpace<blocksize=2>(x)",
            "Pad(x, pads)",
            "Pad(x, pads, zero)",
            'Pad<mode="reflect">(x, pads)',
            'Resize<mode="nearest">(x, , factors)',
            'Resize<mode="linear">(x, , factors)',
            "Tile(x, sizes)",
        ],
    )
    def test_what_is_no_larger_than_its_input(self, tmp_path: Path, node: str) -> None:
        rule = f"{node.split('(', maxsplit=1)[0].split('<', maxsplit=1)[0]}: no larger than its input 'x'"
        assert known(tmp_path, f"t = {node} y = Relu(t)", {"x": 2}) == (np.float32(2), rule)

    @pytest.mark.parametrize(
        "node",
        [
            "Add(x, z)",
            "Mul(x, z)",
            "Exp(x)",
            "LeakyRelu<alpha=2.0>(x)",
            "Pad(x, pads, one)",
            'Resize<mode="cubic">(x, , factors)',
            "Concat<axis=0>(x, z)",
            "Clip(x, lo)",
            "MatMul(x, z)",
        ],
    )
    def test_what_is_not_certain_stays_missing(self, tmp_path: Path, node: str) -> None:
        scales = (
            {"x": 2} if node.startswith(("Add", "Mul", "Concat", "MatMul", "Exp", "Leaky", "Pad", "Resize")) else {}
        )
        assert find(tmp_path, f"t = {node} y = Relu(t)", scales) is None

    def test_the_largest_of_the_inputs(self, tmp_path: Path) -> None:
        assert known(tmp_path, "t = Concat<axis=0>(x, z) y = Relu(t)", {"x": 2, "z": 3}) == (
            np.float32(3),
            "Concat: no larger than the largest of its inputs",
        )

    def test_constants_count_with_their_values(self, tmp_path: Path) -> None:
        scale, _ = known(tmp_path, "t = Concat<axis=0>(x, c) y = Relu(t)", {"x": 1e-3})
        assert scale == np.float32(np.float32(127 / 32) / np.float32(127))

    def test_clip(self, tmp_path: Path) -> None:
        assert known(tmp_path, "t = Clip(x, lo, hi) y = Relu(t)", {"x": 100}) == (
            SIX,
            "Clip: no larger than its bounds",
        )
        assert known(tmp_path, "t = Clip(x, zero) y = Relu(t)", {"x": 2})[0] == np.float32(2)
        assert known(tmp_path, "t = Clip(x, hi) y = Relu(t)", {"x": 1e-3})[0] == SIX
        assert known(tmp_path, "t = Clip(x, lo, huge) y = Relu(t)", {"x": 2})[0] == np.float32(2)
        assert find(tmp_path, "t = Clip(x, lo, huge) y = Relu(t)", {}) is None
        computed = "m = ReduceMax<keepdims=0>(z) t = Clip(x, m) y = Relu(t)"
        assert find(tmp_path, computed, {"x": 2}) is None

    def test_a_pool_s_output_says_what_its_input_has(self, tmp_path: Path) -> None:
        scale, rule = known(tmp_path, "t = Exp(x) p = MaxPool<kernel_shape=[2,2]>(t) y = Relu(p)", {"p": 2})
        assert (scale, rule) == (np.float32(2), "MaxPool: its output 'p' carries its input's scale")

    def test_a_chain(self, tmp_path: Path) -> None:
        body = "a = Sigmoid(x) b = Relu(z) c2 = Concat<axis=0>(a, b) t = Transpose(c2) y = Relu(t)"
        assert known(tmp_path, body, {"z": 1})[0] == np.float32(1)

    def test_an_unusable_line_is_replaced(self, tmp_path: Path) -> None:
        scale, rule = known(tmp_path, "t = Sigmoid(x) y = Relu(t)", {"t": np.inf})
        assert (scale, rule) == (ONE, "Sigmoid: at most 1 in magnitude")

    def test_the_operators_of_others_say_nothing(self, tmp_path: Path) -> None:
        text = '<ir_version: 8, opset_import: ["" : 17, "acme" : 1]> g (float[2] x) => (float[2] y) { t = acme.Sigmoid(x) y = Relu(t) }'
        model = graph(tmp_path, text)
        assert Scales(Wiring(model, model.proto), {}, fill=True).find("t") is None

    def test_a_chain_of_thousands(self, tmp_path: Path) -> None:
        body = " ".join(f"a{i + 1} = Relu(a{i})" for i in range(3000))
        model = graph(tmp_path, f"g (float[2] a0) => (float[2] a3000) {{ {body} }}")
        found = Scales(Wiring(model, model.proto), {"a0": np.float32(1)}, fill=True).find("a3000")
        assert found is not None
        assert found.scale == 1


@pytest.mark.parametrize(
    ("scale", "expected"),
    [(np.nan, "NaN"), (np.inf, "infinite"), (-np.inf, "infinite"), (-1, "negative"), (0, None), (1, None)],
)
def test_flaws(scale: float, expected: str | None) -> None:
    assert flaw(np.float32(scale)) == expected
