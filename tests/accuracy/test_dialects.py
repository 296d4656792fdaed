"""What each tool is told finds exactly the nodes that were meant, through the real parsers, whatever the nodes are called."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.models import make_model
from tests.qdq.graphs import cache, fill_in
from trtcalib.accuracy.dialects import Dialects, dialects
from trtcalib.cli.qdq import conversion_options
from trtcalib.engine_spec import parse_fallback
from trtcalib.onnx_graph import ModelGraph, read_model
from trtcalib.qdq.convert import convert
from trtcalib.trt.engine import _matches

HOSTILE = [
    "plain",
    "with space",
    "/model.0/conv/Conv",
    "conv[1]",
    "conv1",
    "con*",
    "co?v",
    "it's",
    'say "hi"',
    "$(touch gone)",
    "`touch gone`",
    "back\\slash",
    "a+b(c)|d^$",
    "--exclude",
    "-o",
    " edge ",
    "ünï",
    "!history",
    "#comment",
    "semi;colon & more",
    "{a..b}",
    "name.*",
]
"""Names that mean something to a shell, a regular expression, a glob or a command line."""


def chain(names: Sequence[str], outputs: Sequence[str] | None = None) -> list[onnx.NodeProto]:
    """Return MatMul nodes one behind the other."""
    outputs = outputs or [f"t{i}" for i in range(len(names))]
    make = onnx.helper.make_node
    takes = ["x", *outputs[:-1]]
    return [make("MatMul", [a, "w"], [b], name=name) for a, b, name in zip(takes, outputs, names, strict=True)]


def model(folder: Path, nodes: Sequence[onnx.NodeProto]) -> ModelGraph:
    """Write a model of these nodes."""
    proto = fill_in(make_model("g (float[2,2] x) => (float[2,2] y) <float[2,2] w> { y = MatMul(x, w) }"))
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    proto.graph.output[0].name = nodes[-1].output[0]
    path = folder / "model.onnx"
    path.write_bytes(proto.SerializeToString())
    return read_model(path)


def left_float(graph: ModelGraph, line: str) -> set[str]:
    """Return what ``trtcalib qdq`` with these options leaves in float."""
    words = shlex.split(line)
    assert words[::2] == ["--exclude"] * (len(words) // 2)
    options = conversion_options("MatMul", words[1::2], "skip", "tensorrt", int8_weights=False, half=False)
    names = ["x", *(node.output[0] for node in graph.proto.graph.node)]
    coverage = convert(graph, cache(dict.fromkeys(names, 1 / 16)), options).coverage
    return {node.output for node in coverage.nodes if not node.quantized}


def built(nodes: Sequence[onnx.NodeProto], line: str) -> set[str]:
    """Return the layers that ``trtcalib build`` with this option keeps out of INT8."""
    option, text = shlex.split(line)
    assert option == "--fallback"
    ((precision, patterns),) = parse_fallback([text]).items()
    assert precision == "fp16"
    return {node.name for node in nodes if any(_matches(node.name, pattern) for pattern in patterns)}


def trtexec(line: str) -> set[str]:
    """Return the names in ``--layerPrecisions``, read as its help says: NAME:TYPE with commas between."""
    obey, layers = shlex.split(line)
    assert obey == "--precisionConstraints=obey"
    pairs = [pair.split(":") for pair in layers.removeprefix("--layerPrecisions=").split(",")]
    assert all(len(pair) == 2 and pair[1] == "fp16" for pair in pairs)
    return {pair[0] for pair in pairs}


def modelopt(nodes: Sequence[onnx.NodeProto], line: str) -> set[str]:
    """Return the nodes that one of the patterns matches from the start of the name."""
    option, *patterns = shlex.split(line)
    assert option == "--nodes_to_exclude"
    return {node.name for node in nodes if any(re.match(pattern, node.name) for pattern in patterns)}


def told(nodes: Sequence[onnx.NodeProto], *outputs: str) -> Dialects:
    return dialects(nodes, outputs)


@pytest.mark.parametrize("place", range(len(HOSTILE)), ids=HOSTILE)
def test_every_tool_that_is_told_finds_that_node_alone(tmp_path: Path, place: int) -> None:
    nodes = chain(HOSTILE)
    name, output = HOSTILE[place], f"t{place}"
    found = told(nodes, output)
    assert left_float(model(tmp_path, nodes), found.lines["qdq"]) == {output}
    assert modelopt(nodes, found.lines["modelopt"]) == {name}
    if "," not in name:
        assert built(nodes, found.lines["build"]) == {name}
    if not set(name) & set(",:*"):
        assert trtexec(found.lines["trtexec"]) == {name}
    assert len(found.lines) + len(found.notes) == 4


def test_several_nodes_in_their_order(tmp_path: Path) -> None:
    nodes = chain(["a", "b", "it's"])
    found = told(nodes, "t2", "t0")
    assert found == Dialects(
        {
            "qdq": """--exclude '^it'"'"'s$' --exclude '^a$'""",
            "build": """--fallback 'fp16:it'"'"'s,a'""",
            "trtexec": """--precisionConstraints=obey --layerPrecisions='it'"'"'s:fp16,a:fp16'""",
            "modelopt": """--nodes_to_exclude '^it'"'"'s$' '^a$'""",
        },
        (),
    )
    assert left_float(model(tmp_path, nodes), found.lines["qdq"]) == {"t0", "t2"}


def test_no_node_is_told_to_nobody() -> None:
    assert told(chain(["a"])) == Dialects({}, ())


class TestWhatCannotBeTold:
    def test_a_comma_has_no_place_in_a_list_of_commas(self) -> None:
        found = told(chain(["a,b", "c"]), "t0", "t1")
        assert set(found.lines) == {"qdq", "modelopt"}
        assert found.notes == (
            "build cannot be told of the nodes to leave in float: its list has no way to write the ',' of 'a,b'",
            "trtexec cannot be told of the nodes to leave in float: its list has no way to write the ',' of 'a,b'",
        )

    @pytest.mark.parametrize("name", ["a:b", "a*"])
    def test_trtexec_reads_colons_and_stars_otherwise_and_build_does_not(self, name: str) -> None:
        nodes = chain([name, "abc"])
        found = told(nodes, "t0")
        assert built(nodes, found.lines["build"]) == {name}
        assert set(found.lines) == {"qdq", "build", "modelopt"}
        assert f"its list has no way to write the {name[1]!r} of" in found.notes[0]

    def test_a_node_without_a_name_is_known_to_qdq_alone(self, tmp_path: Path) -> None:
        nodes = chain(["", "a"])
        found = told(nodes, "t0")
        assert left_float(model(tmp_path, nodes), found.lines["qdq"]) == {"t0"}
        assert set(found.lines) == {"qdq"}
        assert "it knows nodes by name, and the one that makes 't0' has none" in found.notes[0]

    def test_two_nodes_of_one_name_are_known_to_qdq_alone(self, tmp_path: Path) -> None:
        nodes = chain(["a", "a"])
        found = told(nodes, "t1")
        assert left_float(model(tmp_path, nodes), found.lines["qdq"]) == {"t1"}
        assert set(found.lines) == {"qdq"}
        assert "2 nodes are called 'a'" in found.notes[0]

    def test_a_node_whose_name_and_output_are_others_names(self) -> None:
        nodes = chain(["n", "o", "n"], ["o", "p", "q"])
        found = told(nodes, "o")
        assert found.lines == {}
        assert (
            "qdq cannot be told of the nodes to leave in float: name and outputs of 'n' are those of other"
            in found.notes[0]
        )

    def test_control_characters_are_no_part_of_a_line_to_paste(self, tmp_path: Path) -> None:
        nodes = chain(["a\x1b[2Jb\n", "a", "\u202etxt", "a\x1b[2Jb"])
        for output in ("t0", "t2", "t3"):
            found = told(nodes, output)
            assert all(line.isprintable() for line in (*found.lines.values(), *found.notes))
            assert left_float(model(tmp_path, nodes), found.lines["qdq"]) == {output}
            assert set(found.lines) == {"qdq", "modelopt"}


class TestNamesWithinOthers:
    def test_a_name_that_is_part_of_anothers_name_and_output(self, tmp_path: Path) -> None:
        nodes = chain(["conv", "conv2", "2conv"], ["conv_out", "the_conv", "y_conv"])
        found = told(nodes, "conv_out")
        assert left_float(model(tmp_path, nodes), found.lines["qdq"]) == {"conv_out"}
        assert modelopt(nodes, found.lines["modelopt"]) == {"conv"}

    def test_a_name_that_is_another_nodes_output(self, tmp_path: Path) -> None:
        nodes = chain(["b", "c"], ["a", "b"])
        found = told(nodes, "a")
        assert found.lines["qdq"] == "--exclude '^a$'"
        assert left_float(model(tmp_path, nodes), found.lines["qdq"]) == {"a"}

    def test_a_name_with_a_line_end_behind_it(self, tmp_path: Path) -> None:
        nodes = chain(["a", "a\n"])
        found = told(nodes, "t0")
        assert found.lines["qdq"] == r"--exclude '^a\Z'"
        assert modelopt(nodes, found.lines["modelopt"]) == {"a"}
        assert left_float(model(tmp_path, nodes), found.lines["qdq"]) == {"t0"}


@given(st.lists(st.text("ab*?[]!,: .$'\n\\", max_size=4), min_size=1, max_size=6), st.data())
def test_a_line_finds_its_nodes_and_no_other(names: list[str], data: st.DataObject) -> None:
    nodes = chain(names)
    places = data.draw(st.lists(st.integers(0, len(names) - 1), min_size=1, unique=True))
    found = dialects(nodes, [f"t{place}" for place in places])
    wanted = {names[place] for place in places}
    assert len(found.lines) + len(found.notes) == 4
    if "qdq" in found.lines:
        patterns = shlex.split(found.lines["qdq"])[1::2]
        hit = {n.output[0] for n in nodes if any(re.search(p, t) for p in patterns for t in (n.name, n.output[0]) if t)}
        assert hit == {f"t{place}" for place in places}
    if "build" in found.lines:
        assert built(nodes, found.lines["build"]) == wanted
    if "trtexec" in found.lines:
        assert trtexec(found.lines["trtexec"]) == wanted
    if "modelopt" in found.lines:
        assert modelopt(nodes, found.lines["modelopt"]) == wanted
