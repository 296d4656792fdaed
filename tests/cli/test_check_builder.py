"""``trtcalib check-builder`` with a stand-in for TensorRT-RTX; tests/rtx has the real one."""

from __future__ import annotations

import json
import os
from pathlib import Path

import jsonschema
import onnx
import pytest

from tests.models import make_model
from tests.trt.fake_rtx import PACKAGE

ROOT = Path(__file__).parents[2]

MODEL = "m (float[1, 4, 8, 8] x, float[4, 4, 1, 1] w) => (float[1, 4, 8, 8] y) { y = Conv(x, w) }"


@pytest.fixture(autouse=True)
def packages(folder, monkeypatch):
    """A stand-in that does what the name of the model's file says."""
    (folder / "packages").mkdir()
    (folder / "packages" / "tensorrt_rtx_bindings.py").write_text(PACKAGE)
    monkeypatch.syspath_prepend(str(folder / "packages"))
    monkeypatch.syspath_prepend(str(ROOT))


@pytest.fixture
def model(folder):
    """Write a model under a name."""

    def write(name):
        proto = make_model(MODEL)
        proto.graph.node[0].name = "conv"
        onnx.save_model(proto, folder / f"{name}.onnx")
        return f"{name}.onnx"

    return write


def test_an_accepted_model_exits_0_and_says_what_it_is_accepted_by(done, model):
    text = done("check-builder", model("told-int8"), "--compute-capability", "80,86").text
    assert "node operator layer INT8 inputs" in text
    assert "conv Conv CONVOLUTION yes" in text
    for target in ("SM80", "SM86"):
        assert f"{target}: accepted by TensorRT-RTX 1.7.1.116, ahead of time; an engine of 0.00 MB in " in text
    assert "by the builder's own list, 1 of 1 weighted node that it tells of take INT8" in text
    assert text.endswith(
        "told-int8.onnx: 1 of 1 weighted node has INT8 inputs told-int8.onnx: accepted by TensorRT-RTX 1.7.1.116, ahead of time"
    )
    assert "verified" not in text


def test_all_four_capabilities_are_the_default(done, model):
    builds = json.loads(done("check-builder", model("good"), "--json").out)["builds"]
    assert [build["compute_capability"] for build in builds] == [80, 86, 89, 120]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "float",
            "float.onnx: accepted by TensorRT-RTX 1.7.1.116, ahead of time, but 1 weighted node would not run in INT8",
        ),
        ("told-float", "takes float by that list: conv"),
        ("warn", "warn.onnx: not accepted: TensorRT-RTX 1.7.1.116 takes it with 1 parser warning"),
        (
            "refuse",
            "refuse.onnx: rejected by the parser of TensorRT-RTX 1.7.1.116 fault: node 'conv' (Conv): TensorRT-RTX does not",
        ),
        ("reject", "SM86: rejected: this cannot be built"),
    ],
)
def test_what_is_found_exits_1(cli, model, name, said):
    result = cli("check-builder", model(name), "--compute-capability", "86")
    assert result.code == 1
    assert said in result.text


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such signal")
def test_a_crash_is_a_finding(cli, model):
    result = cli("check-builder", model("crash"), "--compute-capability", "86")
    assert result.code == 1
    assert (
        "SM86: crashed: the builder crashed (SIGSEGV); a scale that is computed while the engine runs is known to do that"
        in result.text
    )


def test_a_builder_that_hangs_is_ended(cli, model):
    result = cli("check-builder", model("hang"), "--compute-capability", "86", "--timeout", "5")
    assert result.code == 1
    assert "SM86: timeout: the builder did not end in time (5 s): give more with --timeout" in result.text


def test_json_of_a_model_that_fails_fits_the_schema(cli, model):
    result = cli("check-builder", model("float"), "--json", "--compute-capability", "86")
    printed = json.loads(result.out)
    contract = json.loads((ROOT / "trtcalib/schemas/check-builder.schema.json").read_text(encoding="utf-8"))
    jsonschema.validate(printed, contract, jsonschema.Draft202012Validator)
    assert (result.code, printed["passed"], printed["model"]) == (1, False, "float.onnx")


def test_a_capability_that_cannot_be_had(refused, model):
    text = refused("check-builder", model("good"), "--compute-capability", "86,90")
    assert text == (
        "--compute-capability: TensorRT-RTX 1.7.1.116 does not build for 90; it builds for 75, 80, 86, 89, 120\n"
    )


@pytest.mark.parametrize("value", ["", "8.6", "86,", "-1", "٨٦", "100000"])
def test_a_capability_that_is_no_number(misused, model, value):
    assert "expected numbers such as 80,86,89,120" in misused(
        "check-builder", model("good"), f"--compute-capability={value}"
    )


@pytest.mark.parametrize("value", ["0", "-1", "inf", "nan"])
def test_a_timeout_that_is_none(misused, model, value):
    assert "expected seconds above 0" in misused("check-builder", model("good"), f"--timeout={value}")


def test_shapes_are_handed_on(refused, model):
    assert "x: axis 1 is fixed to 4 by the model" in refused("check-builder", model("good"), "--shapes", "x:1x3x8x8")


def test_a_model_that_is_none(refused, folder):
    (folder / "bad.onnx").write_bytes(b"nonsense")
    assert "bad.onnx: not an ONNX model" in refused("check-builder", "bad.onnx")


def test_without_the_package(refused, model, folder):
    (folder / "packages" / "tensorrt_rtx_bindings.py").write_text(
        "raise ModuleNotFoundError('no', name='tensorrt_rtx_bindings')"
    )
    text = refused("check-builder", model("good"), code=3)
    assert text.startswith(
        "the package 'tensorrt_rtx_bindings' is missing: it holds NVIDIA's parser and builder; install it with: "
    )


def test_names_cannot_drive_the_terminal(cli, model, folder, monkeypatch):
    from trtcalib.trt.conformance_values import BuildOutcome, Conformance, NodeVerdict
    from trtcalib.views.conformance_table import conformance_lines, node_table

    evil = "\x1b[31m[bold]" + "n" * 1000
    node = NodeVerdict(node=evil, operator=evil, layer=evil, kind=evil, int8_inputs=False, reasons=(evil,))
    build = BuildOutcome(
        compute_capability=86, outcome="rejected", reason=evil, warnings=(evil,) * 20, told_int8=0, told_float=(evil,)
    )
    result = Conformance(
        model=evil, tensorrt_rtx_version="1", parser="accepted", parser_warnings=(evil,), nodes=(node,), builds=(build,)
    )
    from rich.console import Console

    console = Console(width=200)
    with console.capture() as captured:
        console.print(node_table([node]))
    lines = list(conformance_lines(result))
    assert "\x1b" not in captured.get() + "".join(lines)
    assert "[bold]" in captured.get()
    assert max(map(len, lines)) < 1000
    assert "  ... 10 more; --json lists them" in lines
