"""Names that TensorRT's parser made: what is proposed for them, and how a map is applied."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml

from tests.qdq.graphs import cache, graph
from trtcalib.core.cache import parse_cache
from trtcalib.errors import SpecError
from trtcalib.onnx_graph import ModelGraph, read_model
from trtcalib.qdq.names import as_yaml, propose_names, renamed

TWO_HEADS = """
g (float[1,2,4,4] x) => (float[1,3] y) <float[2,2,1,1] w, float[32,5] f, float[5,3] h, int64[2] s = {1, 32}> {
    c = Conv(x, w)
    r = Relu(c)
    v = Reshape(r, s)
    a = Gemm(v, f)
    b = Relu(a)
    d = Gemm(b, h)
    y = Softmax(d)
}
"""


def unnamed(number: int, kind: str) -> str:
    return f"(Unnamed Layer* {number}) [{kind}]_output"


@pytest.fixture
def model(tmp_path: Path) -> ModelGraph:
    return graph(tmp_path, TWO_HEADS)


def test_as_many_names_of_a_kind_as_nodes_pair_in_order(model: ModelGraph) -> None:
    names = [unnamed(9, "Fully Connected"), "x", unnamed(4, "Fully Connected")]
    assert propose_names(model, names) == {names[0]: "d", names[2]: "a"}


def test_a_node_with_a_line_of_its_own_is_none_of_them(model: ModelGraph) -> None:
    assert propose_names(model, [unnamed(4, "Fully Connected"), "d"]) == {unnamed(4, "Fully Connected"): "a"}


def test_neighbours_tell_which_of_several_it_is(model: ModelGraph) -> None:
    """One name, two Gemms: it stands behind b in a cache that follows the graph."""
    names = ["x", "c", "b", unnamed(7, "Fully Connected"), "y"]
    assert propose_names(model, names) == {names[3]: "d"}


def test_neighbours_in_another_order_tell_nothing(model: ModelGraph) -> None:
    assert propose_names(model, ["y", "b", unnamed(7, "Fully Connected"), "x", "c"]) == {}


def test_no_tensor_is_proposed_twice(model: ModelGraph) -> None:
    names = [unnamed(4, "Fully Connected"), unnamed(5, "Matrix Multiply"), unnamed(7, "Fully Connected")]
    proposed = propose_names(model, names)
    assert len(set(proposed.values())) == len(proposed)


@pytest.mark.parametrize(
    "name", ["(Unnamed Layer* 4) [Fully Connected]", "(Unnamed Layer* x) [Shuffle]_output", "ONNXTRT_1", "a"]
)
def test_other_names_are_let_be(model: ModelGraph, name: str) -> None:
    assert propose_names(model, [name]) == {}


def test_an_unknown_kind_is_let_be(model: ModelGraph) -> None:
    assert propose_names(model, [unnamed(1, "Einsum")]) == {}


def test_the_proposal_for_a_cache_that_tensorrt_wrote(golden: Path) -> None:
    """LeNet's first fully connected layer, which the golden's own notes map to the same tensor."""
    import json

    folder = golden / "lenet_mnist_trt7202"
    mapping = json.loads((folder / "meta.json").read_text(encoding="utf-8"))["onnx_names"]
    scales = parse_cache((folder / "golden.cache").read_bytes()).scales
    model = read_model(folder / "model.onnx")
    named = {mapping.get(name, name) if "Unnamed" not in name else name: scale for name, scale in scales.items()}
    unnamed_name = next(name for name in scales if "Unnamed" in name)
    assert propose_names(model, list(named)) == {unnamed_name: mapping[unnamed_name]}


def test_the_yaml_reads_back() -> None:
    proposals = {unnamed(4, "Fully Connected"): "a: b", "ä\n": "x"}
    assert yaml.safe_load(as_yaml(proposals)) == proposals


class TestRenamed:
    def test_the_model_s_name_gets_the_scale(self, model: ModelGraph) -> None:
        scales = cache({"u": 1, "x": 2})
        assert renamed(scales, {"u": "a"}, model, Path("m.yaml")) == {"a": np.float32(1), "x": np.float32(2)}
        assert scales == cache({"u": 1, "x": 2})

    @pytest.mark.parametrize("order", [("u", "a"), ("a", "u")])
    def test_a_tensor_s_own_line_wins(self, model: ModelGraph, order: tuple[str, str]) -> None:
        scales = cache({name: {"u": 1, "a": 2}[name] for name in order})
        assert renamed(scales, {"u": "a"}, model, Path("m.yaml")) == {"a": np.float32(2)}

    def test_all_faults_at_once(self, model: ModelGraph) -> None:
        with pytest.raises(SpecError) as caught:
            renamed(cache({"u": 1}), {"v": "a", "u": "q"}, model, Path("m.yaml"))
        assert str(caught.value).splitlines() == [
            "m.yaml: v: is no name of the cache",
            f"m.yaml: u: 'q' is no tensor of {model.path}",
        ]
