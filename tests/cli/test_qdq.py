"""``trtcalib qdq`` and ``cache from-qdq``: what must be refused and what must not, options, files, reports."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

import trtcalib
from tests.cli.helpers import cache, listing
from tests.qdq.graphs import needs_opset_23, save
from trtcalib.core.cache import format_cache, make_cache
from trtcalib.qdq_files import QdqReport

HEADER = "TRT-101601-EntropyCalibration2"

MODEL = """
net (float[N,4] x) => (float[N,2] y) <float[4,3] v, float[3] b, float[3,2] w> {
    [first] h = Gemm(x, v, b)
    [act] r = Relu(h)
    [second] y = MatMul(r, w)
}
"""

X, H, R = "x: 3d800000", "h: 3e000000", "r: 3e000000"
"""1/16 and 1/8."""

GOOD = f"{HEADER}\n{X}\n{H}\n{R}\ny: 3f000000\n"


@pytest.fixture
def model(folder: Path) -> Path:
    return save(folder, MODEL)


def write(folder: Path, *lines: str, end: str = "\n") -> Path:
    path = folder / "m.cache"
    path.write_bytes((end.join(lines) + end).encode())
    return path


class TestMustAccept:
    """Caches that ModelOpt's import takes wrongly or fails on, and that are right; what it does with each stands in facts of peers."""

    @pytest.mark.parametrize(
        "text",
        [
            GOOD,
            GOOD + "\n\n",
            GOOD.replace("\n", "\r\n"),
            GOOD.rstrip("\n"),
            GOOD.replace("3d800000", "3D800000"),
            GOOD + X + "\n",
            GOOD + "stale: 3f800000\n",
        ],
        ids=[
            "as written",
            "blank lines at the end",
            "CRLF",
            "no last line end",
            "upper case",
            "a line twice",
            "a stale name",
        ],
    )
    def test_forms_of_a_cache(self, done, folder: Path, model: Path, text: str) -> None:
        (folder / "m.cache").write_bytes(text.encode())
        assert "2 of 2 weighted nodes quantized" in done("qdq", model, "m.cache", "-o", "q.onnx").out
        onnx.checker.check_model(onnx.load("q.onnx"), full_check=True)

    @pytest.mark.parametrize("name", ["conv_scale", "onnx::Conv_329", "a: b", "a: 3f800000", "ä", "x y", "_zero_point"])
    def test_names_of_tensors(self, done, folder: Path, name: str) -> None:
        proto = onnx.load(save(folder, MODEL))
        for node in proto.graph.node:
            node.input[:] = [name if each == "r" else each for each in node.input]
            node.output[:] = [name if each == "r" else each for each in node.output]
        onnx.save(proto, "model.onnx")
        write(folder, HEADER, X, f"{name}: 3e000000")
        assert "2 of 2 weighted nodes quantized" in done("qdq", "model.onnx", "m.cache", "-o", "q.onnx").out
        done("cache", "from-qdq", "q.onnx", "-o", "back.cache")
        assert cache(Path("back.cache")).scales == {"x": np.float32(1 / 16), name: np.float32(1 / 8)}

    @pytest.mark.parametrize(
        "digits", ["0", "80000000", "1", "322bcc76"], ids=["zero", "minus zero", "denormal", "below the floor"]
    )
    def test_tiny_scales_are_floored_and_said_so(self, done, folder: Path, model: Path, digits: str) -> None:
        write(folder, HEADER, X, f"r: {digits}")
        assert (
            "raised to the smallest scale that TensorRT takes: 1 tensors (r)"
            in done("qdq", model, "m.cache", "-o", "q.onnx").out
        )
        result = done("cache", "from-qdq", "q.onnx", "-o", "back.cache")
        assert "floored: r: in the cache that it came from the scale may have been smaller, or 0" in result.out
        assert cache(Path("back.cache")).scales["r"] == np.float32(1e-8)

    def test_a_table_of_onnx_runtime(self, done, folder: Path, model: Path) -> None:
        (folder / "m.json").write_text('{"x": [-7.9375, 1.0], "r": [0.0, 15.875]}', encoding="utf-8")
        result = done("qdq", model, "m.json", "-o", "q.onnx")
        assert "2 of 2 weighted nodes quantized" in result.out
        assert "note: an ONNX Runtime table of lowest and highest" in result.err

    def test_a_name_that_is_not_utf8(self, done, folder: Path, model: Path) -> None:
        (folder / "m.cache").write_bytes(GOOD.encode() + b"\xff: 3f800000\n")
        report = json.loads(done("qdq", model, "m.cache", "-o", "q.onnx", "--json").out)
        assert report["coverage"]["stale"] == [r"\udcff"]


class TestMustReject:
    @pytest.mark.parametrize(
        ("digits", "flaw"),
        [
            ("7fc00000", "NaN"),
            ("ffc00000", "NaN"),
            ("7f800000", "infinite"),
            ("ff800000", "infinite"),
            ("bf800000", "negative"),
        ],
    )
    @pytest.mark.parametrize("partial", ["error", "fill"])
    def test_scales_that_are_none(
        self, refused, folder: Path, model: Path, digits: str, flaw: str, partial: str
    ) -> None:
        write(folder, HEADER, f"x: {digits}", R)
        said = refused("qdq", model, "m.cache", "-o", "q.onnx", "--partial", partial)
        assert f"m.cache: 1 tensors of {model} that would be quantized have no usable scale" in said
        assert f"'x': the cache's scale for 'x' is {flaw}" in said

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("", "m.cache: is empty"),
            ("garbage\n" + X, "m.cache:1: found 'garbage', expected a calibration cache with a header such as"),
            (
                X + "\n" + R,
                "m.cache:1: found 'x: 3d800000', expected a calibration cache with a header such as",
            ),
            (HEADER + "\nx\n", "m.cache:2: found 'x', expected 'tensor name: hexadecimal scale'"),
            (HEADER + "\nx: 3g000000\n", "m.cache:2: tensor 'x' has scale '3g000000'"),
            (HEADER + "\nx: 3f8000000\n", "m.cache:2: tensor 'x' has scale '3f8000000'"),
        ],
        ids=["empty", "garbage header", "no header", "no scale", "no hexadecimal", "nine digits"],
    )
    def test_files_that_are_no_cache(self, refused, folder: Path, model: Path, text: str, said: str) -> None:
        (folder / "m.cache").write_text(text, encoding="utf-8")
        assert said in refused("qdq", model, "m.cache", "-o", "q.onnx")

    def test_a_cache_of_another_model_is_no_success(self, refused, folder: Path, model: Path) -> None:
        write(folder, HEADER, "a: 3f800000", "c: 3f800000", "d: 3f800000")
        said = refused("qdq", model, "m.cache", "-o", "q.onnx")
        assert (
            f"m.cache: 2 tensors of {model} that would be quantized have no usable scale (0 of the cache's 3 names are tensors"
            in said
        )
        assert "'x': the cache has no scale for it; 'r': the cache has no scale for it" in said

    def test_nor_is_it_one_when_nodes_may_be_skipped(self, cli, folder: Path, model: Path) -> None:
        write(folder, HEADER, "a: 3f800000")
        (folder / "q.onnx").write_bytes(b"was here")
        result = cli("qdq", model, "m.cache", "-o", "q.onnx", "--partial", "skip", "--report", "r.json")
        assert result.code == 1
        assert "0 of 2 weighted nodes quantized, 0.0% of the multiply-accumulates" in result.out
        assert "float: Gemm first: 'x': the cache has no scale for it" in result.out
        assert "float: MatMul second: 'r': the cache has no scale for it" in result.out
        assert "too little is quantized: no model was written" in result.out
        assert (folder / "q.onnx").read_bytes() == b"was here"
        report = json.loads((folder / "r.json").read_text())
        assert report["success"] is False
        assert report["coverage"]["stale"] == ["a"]

    def test_a_model_without_weighted_nodes(self, cli, folder: Path) -> None:
        save(folder, "g (float[2] x) => (float[2] y) { y = Relu(x) }")
        write(folder, HEADER, X)
        result = cli("qdq", "model.onnx", "m.cache", "-o", "q.onnx", "--min-coverage", "0")
        assert result.code == 1
        assert "the model has no Conv, ConvTranspose, MatMul or Gemm: there is nothing to quantize" in result.out
        assert not Path("q.onnx").exists()

    @pytest.mark.parametrize("kind", ["float16", "double"])
    def test_models_of_other_types(self, cli, folder: Path, kind: str) -> None:
        save(folder, f"g ({kind}[2,2] x) => ({kind}[2,2] y) <{kind}[2,2] w> {{ [m] y = MatMul(x, w) }}")
        write(folder, HEADER, X)
        result = cli("qdq", "model.onnx", "m.cache", "-o", "q.onnx")
        assert result.code == 1
        assert "float: MatMul m: 'x' is not float32: convert the float32 model" in result.out

    @pytest.mark.parametrize(
        ("body", "said"),
        [
            (
                "q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) y = MatMul(d, w)",
                "holds Q/DQ nodes already (QuantizeLinear '')",
            ),
            (
                "q, t, o = DynamicQuantizeLinear(x) f = Cast<to=1>(q) y = MatMul(f, w)",
                "is quantized already (DynamicQuantizeLinear '')",
            ),
            (
                "q = QLinearMatMul(i, s, z, i, s, z, s, z) f = Cast<to=1>(q) y = MatMul(f, w)",
                "is quantized already (QLinearMatMul ''), in a form that TensorRT does not take",
            ),
            (
                "y = If(c) <then_branch = t () => (float[2,2] o) { o = DequantizeLinear(i, s, z) }, else_branch = e () => (float[2,2] p) { p = Relu(x) }>",
                "holds Q/DQ nodes already (DequantizeLinear '')",
            ),
        ],
    )
    def test_models_that_are_quantized_already(self, refused, folder: Path, body: str, said: str) -> None:
        save(
            folder,
            "g (float[2,2] x, bool c) => (float[2,2] y) <float s = {1}, int8 z = {0}, int8[2,2] i = {1,2,3,4}, "
            f"float[2,2] w = {{1,2,3,4}}> {{ {body} }}",
        )
        write(folder, HEADER, X)
        assert said in refused("qdq", "model.onnx", "m.cache", "-o", "q.onnx")

    def test_its_own_result(self, done, refused, folder: Path, model: Path) -> None:
        (folder / "m.cache").write_text(GOOD, encoding="utf-8")
        done("qdq", model, "m.cache", "-o", "q.onnx")
        assert "q.onnx: the model holds Q/DQ nodes already" in refused("qdq", "q.onnx", "m.cache", "-o", "qq.onnx")

    @pytest.mark.parametrize(
        ("opset", "node", "said"),
        [
            (7, "y = BatchNormalization<spatial=0>(x, a, a, a, a)", "Attribute spatial must have value 1"),
            (
                8,
                "y = Scan<num_scan_inputs=1, body = b (float[2] i) => (float[2] o) { o = Relu(i) }>(l, x)",
                "Scan had a batch axis before opset 9",
            ),
        ],
    )
    def test_an_opset_that_onnx_cannot_convert(self, refused, folder: Path, opset: int, node: str, said: str) -> None:
        text = f'<ir_version: 4, opset_import: ["" : {opset}]> g (float[1,3,2] x) => (float[1,3,2] y) <float[3,2] a, int64[1] l = {{3}}> {{ {node} }}'
        save(folder, text)
        write(folder, HEADER, X)
        message = refused("qdq", "model.onnx", "m.cache", "-o", "q.onnx")
        assert f"model.onnx: opset {opset} is too old: 13 is needed, and ONNX " in message
        assert said in message
        assert "export it again with opset 13 or later" in message

    def test_files_that_are_no_model(self, refused, folder: Path) -> None:
        write(folder, HEADER, X)
        assert "none.onnx: no such file" in refused("qdq", "none.onnx", "m.cache", "-o", "q.onnx")
        assert "m.cache: not an ONNX model" in refused("qdq", "m.cache", "m.cache", "-o", "q.onnx")

    def test_outputs(self, refused, folder: Path, model: Path) -> None:
        (folder / "m.cache").write_text(GOOD, encoding="utf-8")
        assert "is an input or another result" in refused("qdq", model, "m.cache", "-o", model)
        assert "is an input or another result" in refused("qdq", model, "m.cache", "-o", "m.cache")
        assert "is an input or another result" in refused("qdq", model, "m.cache", "-o", "q.onnx", "--report", "q.onnx")
        assert "the folder 'nosuch' does not exist" in refused("qdq", model, "m.cache", "-o", "nosuch/q.onnx")

    def test_options(self, misused, folder: Path, model: Path) -> None:
        (folder / "m.cache").write_text(GOOD, encoding="utf-8")
        for option, value, said in (
            ("--ops", "Conv,Relu", "'Relu' is none of Conv, ConvTranspose, MatMul, Gemm"),
            ("--ops", "", "'' is none of Conv, ConvTranspose, MatMul, Gemm"),
            ("--partial", "some", "'some' is none of error, skip, fill"),
            ("--target", "tflite", "'tflite' is none of tensorrt, tensorrt-rtx, onnxruntime"),
            ("--exclude", "(", "'(' is no regular expression"),
            ("--min-coverage", "2", "Invalid value for '--min-coverage'"),
        ):
            assert said in misused("qdq", model, "m.cache", "-o", "q.onnx", option, value)


class TestOptions:
    @pytest.fixture(autouse=True)
    def good(self, folder: Path, model: Path) -> None:
        (folder / "m.cache").write_text(GOOD, encoding="utf-8")

    def test_ops(self, done) -> None:
        result = done("qdq", "model.onnx", "m.cache", "-o", "q.onnx", "--ops", "MatMul")
        assert "1 of 2 weighted nodes quantized" in result.out
        assert "float: Gemm first: Gemm is not among --ops" in result.out

    def test_exclude(self, done) -> None:
        result = done("qdq", "model.onnx", "m.cache", "-o", "q.onnx", "--exclude", "^fir", "--exclude", "nosuch")
        assert "float: Gemm first: excluded by --exclude" in result.out
        assert "note: --exclude 'nosuch' is found in no weighted node's name or output" in result.err

    def test_min_coverage(self, cli) -> None:
        command = ["qdq", "model.onnx", "m.cache", "-o", "q.onnx", "--ops", "MatMul", "--min-coverage"]
        assert cli(*command, "0.51").code == 1
        assert not Path("q.onnx").exists()
        assert cli(*command, "0.5").code == 0
        assert Path("q.onnx").exists()

    def test_partial_fill_says_what_it_filled_in(self, done, folder: Path) -> None:
        write(folder, HEADER, X, H)
        result = done("qdq", "model.onnx", "m.cache", "-o", "q.onnx", "--partial", "fill")
        assert "filled in: r = 0.125 (Relu: no larger than its input 'h')" in result.out

    def test_partial_skip_leaves_the_node_float(self, done, folder: Path) -> None:
        write(folder, HEADER, X)
        result = done("qdq", "model.onnx", "m.cache", "-o", "q.onnx", "--partial", "skip")
        assert "1 of 2 weighted nodes quantized" in result.out
        assert "without a usable scale: 1 tensors (r)" in result.out

    def test_int8_weights(self, done) -> None:
        done("qdq", "model.onnx", "m.cache", "-o", "q.onnx", "--int8-weights")
        kinds = {tensor.name: tensor.data_type for tensor in onnx.load("q.onnx").graph.initializer}
        assert kinds["v_quantized"] == kinds["w_quantized"] == onnx.TensorProto.INT8
        assert not {"v", "w"} & kinds.keys()

    def test_target(self, done, folder: Path) -> None:
        save(
            folder,
            "g (float[1,2,3,3] x) => (float[1,2,4,4] y) <float[2,2,1,1] v, float[2,2,2,2] w> { r = Conv(x, v) y = ConvTranspose(r, w) }",
        )
        assert "2 of 2 weighted nodes" in done("qdq", "model.onnx", "m.cache", "-o", "q.onnx").out
        result = done("qdq", "model.onnx", "m.cache", "-o", "q.onnx", "--target", "tensorrt-rtx")
        assert "1 of 2 weighted nodes" in result.out
        assert "TensorRT-RTX runs every ConvTranspose in float (seen with 1.7.1)" in result.out

    @needs_opset_23
    def test_fp16(self, done) -> None:
        done("qdq", "model.onnx", "m.cache", "-o", "q.onnx", "--fp16")
        proto = onnx.load("q.onnx")
        onnx.checker.check_model(proto, full_check=True)
        assert {i.type.tensor_type.elem_type for i in (*proto.graph.input, *proto.graph.output)} == {
            onnx.TensorProto.FLOAT
        }

    def test_the_report_is_what_json_prints_and_both_name_no_folder(self, done, folder: Path) -> None:
        printed = done(
            "qdq", folder / "model.onnx", folder / "m.cache", "-o", "q.onnx", "--json", "--report", "r.json"
        ).out
        assert printed == Path("r.json").read_text(encoding="utf-8")
        assert str(folder) not in printed
        report = json.loads(printed)
        assert report["model"]["file"] == "model.onnx"
        assert report["coverage"]["matched"] == ["x", "r"]
        assert report["coverage"]["unused"] == ["h", "y"]
        assert [node["macs"] for node in report["coverage"]["nodes"]] == [12, 6]

    def test_the_same_bytes_each_time(self, done, folder: Path) -> None:
        done("qdq", "model.onnx", "m.cache", "-o", "q.onnx", "--report", "r.json")
        before = listing(folder)
        done("qdq", "model.onnx", "m.cache", "-o", "q.onnx", "--report", "r.json")
        assert listing(folder) == before

    def test_names_that_drive_a_terminal_are_escaped(self, cli, folder: Path) -> None:
        proto = onnx.load("model.onnx")
        proto.graph.node[0].name = "\x1b[2J"
        onnx.save(proto, "model.onnx")
        write(folder, HEADER, R)
        result = cli("qdq", "model.onnx", "m.cache", "-o", "q.onnx", "--partial", "skip")
        assert "\x1b[2J" not in result.out + result.err
        assert r"\x1b[2J" in result.out


def without_types_of_constants(value: object) -> object:
    """Drop what older versions of pydantic do not write."""
    if isinstance(value, list):
        return [without_types_of_constants(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {k: without_types_of_constants(v) for k, v in value.items() if k != "type" or "const" not in value}


def test_the_schema_is_the_report_s_own() -> None:
    path = Path(trtcalib.__file__).parent / "schemas" / "qdq-report.schema.json"
    found = json.loads(path.read_text(encoding="utf-8"))
    expected = QdqReport.model_json_schema(mode="serialization")
    assert without_types_of_constants(found) == without_types_of_constants(expected)


class TestNames:
    UNNAMED = "(Unnamed Layer* 1) [Activation]_output"

    def test_a_mapped_name(self, done, folder: Path, model: Path) -> None:
        write(folder, HEADER, X, f"{self.UNNAMED}: 3e000000")
        (folder / "map.yaml").write_text(f'"{self.UNNAMED}": r\n', encoding="utf-8")
        assert "2 of 2" in done("qdq", model, "m.cache", "-o", "q.onnx", "--names", "map.yaml").out

    def test_a_map_with_faults(self, refused, folder: Path, model: Path) -> None:
        write(folder, HEADER, X, f"{self.UNNAMED}: 3e000000")
        (folder / "map.yaml").write_text(f'"{self.UNNAMED}": rr\nnosuch: x\n', encoding="utf-8")
        said = refused("qdq", model, "m.cache", "-o", "q.onnx", "--names", "map.yaml")
        assert "map.yaml: nosuch: is no name of the cache" in said
        assert f"map.yaml: {self.UNNAMED}: 'rr' is no tensor of {model}" in said

    def test_a_proposal_is_printed_to_copy_and_not_applied(self, cli, folder: Path, model: Path) -> None:
        write(folder, HEADER, X, f"{self.UNNAMED}: 3e000000")
        result = cli("qdq", model, "m.cache", "-o", "q.onnx")
        assert result.code == 2
        assert not Path("q.onnx").exists()
        assert "Nothing was applied" in result.err
        proposed = [line for line in result.err.splitlines() if not line.startswith(("#", "trtcalib:"))]
        (folder / "map.yaml").write_text("\n".join(proposed), encoding="utf-8")
        assert cli("qdq", model, "m.cache", "-o", "q.onnx", "--names", "map.yaml").code == 0


class TestFromQdq:
    def test_header_and_order(self, done, folder: Path, model: Path) -> None:
        (folder / "m.cache").write_text(GOOD, encoding="utf-8")
        done("qdq", model, "m.cache", "-o", "q.onnx")
        result = done(
            "cache",
            "from-qdq",
            "q.onnx",
            "-o",
            "b.cache",
            "--tensorrt-version",
            "8.6.1",
            "--algorithm",
            "MinMaxCalibration",
        )
        assert (folder / "b.cache").read_text() == f"TRT-8601-MinMaxCalibration\n{X}\n{R}\n"
        assert "wrote b.cache: 2 scales" in result.out

    def test_refusals(self, refused, misused, folder: Path, model: Path) -> None:
        assert "no activation is quantized to int8 with one scale: is it a Q/DQ model?" in refused(
            "cache", "from-qdq", model, "-o", "b.cache"
        )
        assert "TensorRT 11 removed calibrators" in refused(
            "cache", "from-qdq", model, "-o", "b.cache", "--tensorrt-version", "11.0.0"
        )
        assert "is an input" in refused("cache", "from-qdq", model, "-o", model)
        assert "'Mine' is none of" in misused("cache", "from-qdq", model, "-o", "b.cache", "--algorithm", "Mine")

    def test_what_a_cache_cannot_tell_is_left_out_and_named(self, done, folder: Path) -> None:
        save(
            folder,
            """g (float[2,2] a, float[2,2] b, float[2,2] c, float[2,2] d, float[2,2] e, float t) => (float[2,2] y)
            <float s = {0.5}, float two = {2}, float nan = {nan}, float[2] ss = {1, 2}, int8[2] zz = {0, 0}, int8 z = {0}, int8 one = {1}, uint8 u = {0}> {
                qa = QuantizeLinear(a, s, z)
                qb = QuantizeLinear(b, ss, zz)
                qc = QuantizeLinear(c, s, one)
                qd = QuantizeLinear(d, s, u)
                qe = QuantizeLinear(e, t, z)
                qf = QuantizeLinear(a, two, z)
                r = Relu(a)
                qg = QuantizeLinear(r, nan, z)
                h = Relu(b)
                qh = QuantizeLinear(h, s)
                y = DequantizeLinear(qa, s, z)
            }""",
        )
        result = done("cache", "from-qdq", "model.onnx", "-o", "b.cache")
        assert cache(Path("b.cache")).scales == {"a": np.float32(0.5)}
        assert result.err.splitlines() == [
            "left out: 'b': it has a scale per channel",
            "left out: 'c': its zero point is not 0",
            "left out: 'd': it is not quantized to int8",
            "left out: 'e': its scale is no constant",
            "left out: 'a': it is quantized more than once, with other scales; the first is kept",
            "left out: 'r': its scale is NaN",
            "left out: 'h': it is quantized to uint8, since it has no zero point",
        ]

    @pytest.mark.parametrize(
        "flags",
        [
            [],
            ["--int8-weights"],
            pytest.param(["--fp16"], marks=needs_opset_23),
            pytest.param(["--fp16", "--target", "onnxruntime"], marks=needs_opset_23),
        ],
    )
    def test_a_cache_comes_back_as_it_was(self, done, folder: Path, model: Path, flags: list[str]) -> None:
        scales = {"x": np.float32(0.1), "r": np.float32(3.14159)}
        (folder / "m.cache").write_bytes(format_cache(make_cache(scales, "10.16.1", "EntropyCalibration2")))
        done("qdq", model, "m.cache", "-o", "q.onnx", *flags)
        done("cache", "from-qdq", "q.onnx", "-o", "b.cache")
        assert (folder / "b.cache").read_bytes() == (folder / "m.cache").read_bytes()
