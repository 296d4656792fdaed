"""Which nodes are quantized and what is said of the others: residuals, exclusions, coverage."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.qdq.graphs import ACCEPTED, cache, converted, graph
from trtcalib.errors import CacheMismatchError
from trtcalib.onnx_graph import ModelGraph
from trtcalib.qdq.convert import Quantized, convert
from trtcalib.qdq.coverage import NodeFacts
from trtcalib.qdq.prepared import QdqOptions

SKIP = """
g (float[1,2,4,4] x) => (float[1,2,4,4] y) <float[2,2,1,1] v, float[2,2,1,1] w, float[1,2,4,4] k> {
    r = Relu(x)
    [conv] a = Conv(r, v)
    %s
}
"""


def convert_skip(folder: Path, body: str, scales: dict[str, float] | None = None, **options: object) -> Quantized:
    found = {"r": 1 / 16, "x": 1 / 8, "a": 1 / 4, "b": 1 / 4} if scales is None else scales
    return convert(graph(folder, SKIP % body), cache(found), QdqOptions(**options))


class TestResiduals:
    @pytest.mark.parametrize(
        ("body", "residual"),
        [
            ("y = Add(a, r)", "r"),
            ("y = Add(r, a)", "r"),
            ("b = Conv(r, w) y = Add(a, b)", "a"),
            ("b = Conv(r, w) y = Add(b, a)", "a"),
        ],
    )
    def test_what_was_ready_first_is_quantized(self, tmp_path: Path, body: str, residual: str) -> None:
        proto = convert_skip(tmp_path, body).proto
        add = next(node for node in proto.graph.node if node.op_type == "Add")
        assert sorted(add.input) == sorted([f"{residual}_dequantized", *({"a", "b", "r"} & set(add.input))])
        assert len(add.input) == 2

    @pytest.mark.parametrize(
        "body",
        [
            "s = Relu(a) y = Add(s, r)",
            "y = Add(a, k)",
            "c = Identity(k) d = Neg(c) y = Add(a, d)",
            "p = GlobalAveragePool(r) y = Add(a, p)",
            "t = Add(a, r) y = Mul(t, a)",
            "y = Mul(a, r)",
        ],
        ids=["a Relu between", "a constant", "computed from constants alone", "another shape", "more takers", "no Add"],
    )
    def test_what_is_no_skip_connection_stays_as_it_is(self, tmp_path: Path, body: str) -> None:
        assert convert_skip(tmp_path, body).coverage.residuals == 0

    def test_an_excluded_add(self, tmp_path: Path) -> None:
        coverage = convert_skip(tmp_path, "[skip] y = Add(a, r)", exclude=[re.compile("^skip$")]).coverage
        assert (coverage.quantized, coverage.residuals) == (1, 0)
        assert coverage.nodes[-1].reason == "excluded by --exclude"

    def test_a_residual_of_a_float_node(self, tmp_path: Path) -> None:
        coverage = convert_skip(tmp_path, "y = Add(a, r)", exclude=[re.compile("^conv$")]).coverage
        assert (coverage.quantized, coverage.residuals) == (0, 0)

    def test_a_residual_without_a_scale(self, tmp_path: Path) -> None:
        body = "n = Neg(x) y = Add(a, n)"
        with pytest.raises(CacheMismatchError, match="'n': the cache has no scale for it"):
            convert_skip(tmp_path, body, {"r": 1})
        coverage = convert_skip(tmp_path, body, {"r": 1}, partial="skip").coverage
        assert (coverage.quantized, coverage.residuals) == (1, 0)
        assert coverage.nodes[-1] == NodeFacts(
            name="", operator="Add", output="y", quantized=False, reason="'n': the cache has no scale for it", macs=None
        )


class TestSharing:
    def test_one_pair_for_all_who_take_a_tensor(self, tmp_path: Path) -> None:
        scales = {"r": 1.0, "c": 1.0}
        proto = convert_skip(tmp_path, "b = Conv(r, w) c = Add(b, r) y = Add(a, c)", scales).proto
        pairs = [node for node in proto.graph.node if node.op_type == "QuantizeLinear" and node.input[0] == "r"]
        assert len(pairs) == 1

    def test_weights_along_two_axes_get_a_pair_each(self, tmp_path: Path) -> None:
        proto = converted(tmp_path, ACCEPTED["weights along two axes"]).proto
        pairs = [node for node in proto.graph.node if node.op_type == "QuantizeLinear" and node.input[0] == "w"]
        assert sorted(node.attribute[0].i for node in pairs) == [0, 1]

    def test_a_pair_stands_behind_the_node_that_makes_its_tensor(self, tmp_path: Path) -> None:
        proto = convert_skip(tmp_path, "y = Add(a, r)").proto
        seen = {info.name for info in proto.graph.input} | {tensor.name for tensor in proto.graph.initializer}
        for node in proto.graph.node:
            assert set(node.input) <= seen | {""}
            seen.update(node.output)


class TestCoverage:
    def test_multiply_accumulates_worked_out_by_hand(self, tmp_path: Path) -> None:
        text = """g (float[2,4,6,6] x) => (float[2,5] y)
            <float[8,2,3,3] c, float[8,3,2,2] t, float[75,7] g1, float[5,7] g2, int64[2] s = {2, 75}> {
            a = Conv<group=2>(x, c)
            b = ConvTranspose(a, t)
            f = Reshape(b, s)
            h = MatMul(f, g1)
            y = Gemm<transB=1>(h, g2)
        }"""
        scales = dict.fromkeys(["x", "a", "b", "h"], 1.0)
        nodes = convert(graph(tmp_path, text), cache(scales), QdqOptions()).coverage.nodes
        expected = [2 * 8 * 4 * 4 * 2 * 9, 2 * 8 * 4 * 4 * 3 * 4, 2 * 7 * 75, 2 * 5 * 7]
        assert [node.macs for node in nodes] == expected

    def test_the_share_counts_what_is_quantized(self, tmp_path: Path) -> None:
        text = "g (float[1,4] x) => (float[1,2] y) <float[4,8] v, float[8,2] w> { h = MatMul(x, v) y = MatMul(h, w) }"
        coverage = convert(graph(tmp_path, text), cache({"x": 1}), QdqOptions(partial="skip")).coverage
        assert coverage.macs_share == 32 / 48
        assert coverage.share == 0.5

    def test_names_of_the_cache(self, tmp_path: Path) -> None:
        scales = {"x": 1.0, "r": 1.0, "stale": 1.0, "w": 1.0, "a": 1.0}
        coverage = convert(graph(tmp_path, SKIP % "y = Relu(a)"), cache(scales), QdqOptions()).coverage
        assert (coverage.matched, coverage.unused, coverage.stale) == (["r"], ["x", "w", "a"], ["stale"])

    def test_what_a_fold_took_away_is_still_the_model_s(self, tmp_path: Path) -> None:
        coverage = converted(tmp_path, ACCEPTED["conv and batch norm"]).coverage
        assert coverage.folded == ["n"]
        assert coverage.stale == []

    @pytest.mark.parametrize(
        ("case", "reason"),
        [
            ("nodes inside an If", "inside a body of If, Loop or Scan, of whose tensors a cache holds no scales"),
            ("nodes inside a function", "inside the function 'F', of whose tensors a cache holds no scales"),
            ("a conv whose weights are computed", "its weights 'w' are no constant"),
            ("weights that hold NaN", "its weights 'w' hold NaN or infinities"),
            ("a product of constants", "both inputs are constants: it is computed once, when the engine is built"),
        ],
    )
    def test_every_float_node_has_its_reason(self, tmp_path: Path, case: str, reason: str) -> None:
        nodes = converted(tmp_path, ACCEPTED[case]).coverage.nodes
        assert [node.reason for node in nodes if not node.quantized] == [reason]

    @pytest.mark.parametrize(
        ("body", "reason"),
        [
            ("y = MatMul(x, w)", None),
            (
                "y = Gemm(x, e)",
                "its constant input 'e' is a single number or empty, which TensorRT does not take quantized",
            ),
            ("y = MatMul(x)", "it lacks an input"),
            ("y = MatMul(x, )", "it lacks an input"),
            ("f = Cast<to=11>(x) y = MatMul(d, f)", "'d' is not float32: convert the float32 model"),
            ("y = Conv(w, x)", "its weights 'x' are no constant"),
        ],
    )
    def test_nodes_that_are_odd(self, tmp_path: Path, body: str, reason: str | None) -> None:
        text = f"g (float[2,2] x) => (float[2,2] y) <float[2,2] w, float[2,0] e = {{}}, double[2,2] d = {{1,2,3,4}}> {{ {body} }}"
        result = convert(graph(tmp_path, text), cache({"x": 1, "f": 1}), QdqOptions())
        assert [node.reason for node in result.coverage.nodes] == [reason]


def test_an_error_lists_twenty_and_counts_the_rest(tmp_path: Path) -> None:
    lines = " ".join(f"a{i + 1} = Relu(b{i}) b{i + 1} = MatMul(a{i + 1}, w)" for i in range(25))
    model: ModelGraph = graph(tmp_path, f"g (float[2,2] b0) => (float[2,2] b25) <float[2,2] w> {{ {lines} }}")
    with pytest.raises(CacheMismatchError) as caught:
        convert(model, cache({"b25": 1}), QdqOptions())
    said = str(caught.value)
    assert "25 tensors of " in said
    assert "(1 of the cache's 1 names are tensors of this model): 'a1': the cache has no scale for it; 'a2'" in said
    assert "'a20': the cache has no scale for it; and 5 more." in said
    assert "'a21'" not in said
