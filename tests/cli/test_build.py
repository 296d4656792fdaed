"""``build``, ``infer`` and ``engine inspect`` where TensorRT is missing: what is said, in which order, and that nothing is written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.cli.helpers import listing, normal, save_model
from tests.trt.fakes import hide

BUILD = ("build", "model.onnx", "--data", "data.npy", "-o", "out.engine")

NO_TENSORRT = (
    "the package 'tensorrt' is missing: it builds and runs engines; install it with: pip install 'trtcalib[tensorrt]' (TensorRT "
    "8.6 to 10.16)\n"
)

UNKNOWN = (
    "percentil-99: no such calibrator: expected entropy, minmax, mse, percentile-<p> or the name of a .yaml file{hint}"
)

QDQ = """
qdq (float[N, 4] x) => (float[N, 4] y)
<float scale = {0.5}, int8 zero = {0}>
{
  q = QuantizeLinear(x, scale, zero)
  d = DequantizeLinear(q, scale, zero)
  y = Relu(d)
}
"""


@pytest.fixture(autouse=True)
def without_nvidia(monkeypatch: pytest.MonkeyPatch) -> None:
    hide(monkeypatch)


class TestMissingTensorRT:
    @pytest.mark.parametrize(
        "command",
        [
            BUILD,
            (*BUILD, "--calibrator", "percentile-99.9"),
            (*BUILD, "--json"),
            (*BUILD, "--reuse-cache"),
            ("infer", "x.engine", "--data", "data.npy", "-o", "out.npz"),
            ("infer", "x.engine", "--data", "data.npy", "--json"),
            ("engine", "inspect", "x.engine"),
            ("engine", "inspect", "x.engine", "--json"),
        ],
    )
    def test_is_an_environment_that_lacks_something(self, refused, net: Path, command: tuple[str, ...]) -> None:
        (net / "x.engine").write_bytes(b"plan")
        assert refused(*command, code=3) == NO_TENSORRT

    def test_a_model_with_qdq_nodes_needs_no_data_and_still_tensorrt(self, refused, folder: Path) -> None:
        save_model(folder / "model.onnx", QDQ)
        assert refused("build", "model.onnx", "-o", "out.engine", code=3) == NO_TENSORRT

    def test_a_spec_in_another_folder(self, refused, net: Path) -> None:
        (net / "specs").mkdir()
        (net / "specs" / "net.yaml").write_text(
            "{model: ../model.onnx, data: ../data.npy, output: ../out.engine}", encoding="utf-8"
        )
        assert refused("build", "specs/net.yaml", code=3) == NO_TENSORRT

    def test_a_cache_and_an_engine_that_stood_there_stay(self, refused, net: Path) -> None:
        for name in ("out.engine", "out.cache", "out.cache.json", "out.engine.json"):
            (net / name).write_bytes(b"older")
        refused(*BUILD, code=3)
        assert (net / "out.cache").read_bytes() == b"older"


class TestUsage:
    """All of this is told before TensorRT is missed."""

    def test_no_output(self, misused, net: Path) -> None:
        text = misused("build", "model.onnx", "--data", "data.npy")
        assert "Invalid value for --output: say where the engine goes: -o OUT.engine" in text

    @pytest.mark.parametrize(
        ("option", "text"),
        [
            (["--batch-size", "0"], "Invalid value for '--batch-size': "),
            (["--workers", "257"], "Invalid value for '--workers': "),
            (["--shuffle", "-1"], "Invalid value for '--shuffle': "),
            (
                ["--fail-on", "oddity"],
                "Invalid value for --fail-on: 'oddity' is no finding; expected finding or one of",
            ),
            (["--int8"], "No such option: --int8"),
        ],
    )
    def test_options(self, misused, net: Path, option: list[str], text: str) -> None:
        assert text in misused(*BUILD, *option)

    @pytest.mark.parametrize(
        ("option", "fault"),
        [
            (
                ["--shapes", "x=1x4"],
                "--shapes: found 'x=1x4', expected INPUT:MIN,OPT,MAX such as x:1x3x224x224,8x3x224x224,32x3x224x224",
            ),
            (["--shapes", "x:1x4", "--shapes", "x:2x4"], "--shapes: input 'x' stands twice"),
            (
                ["--shapes", "x:8x4,1x4,8x4"],
                "engine spec: shapes.x: axis 0 has min 8, opt 1, max 8, expected min <= opt <= max",
            ),
            (
                ["--workspace", "lots"],
                "engine spec: builder.workspace: found 'lots', expected a number of bytes, or a size such as 4GiB or 512MiB",
            ),
            (["--fallback", "int8:a"], "--fallback: found 'int8:a', expected fp16:LAYER,LAYER or fp32:LAYER,LAYER"),
            (["--calibrator", "percentil-99"], UNKNOWN),
            (["--calibrator", "percentile-101"], "percentile-101: percentile: 101.0 is not in (0, 100]"),
            (["--cache", "no/x.cache"], "no/x.cache: the folder 'no' does not exist: create it first"),
            (["--timing-cache", "no/t"], "no/t: the folder 'no' does not exist: create it first"),
            (["--cache", "data.npy"], "data.npy: {taken}"),
            (["--timing-cache", "out.engine"], "out.engine: {taken}"),
            (["--cache", "out.engine.json"], "out.engine.json: {taken}"),
        ],
    )
    def test_values(self, refused, net: Path, option: list[str], fault: str) -> None:
        taken = "is an input or another result of this command: choose another name"
        hint = " (did you mean 'percentile-99.99'?)"
        assert refused(*BUILD, *option) == fault.replace("{taken}", taken).replace("{hint}", hint) + "\n"

    @pytest.mark.parametrize("output", ["model.onnx", "data.npy", "./data.npy"])
    def test_the_output_is_an_input(self, refused, net: Path, output: str) -> None:
        said = refused("build", "model.onnx", "--data", "data.npy", "-o", output)
        assert said == f"{Path(output)}: is an input or another result of this command: choose another name\n"

    def test_the_output_is_a_folder(self, refused, net: Path) -> None:
        said = refused("build", "model.onnx", "--data", "data.npy", "-o", ".")
        assert said == ".: is a folder; expected the name of a file to write\n"

    def test_no_data_for_a_model_that_needs_them(self, refused, net: Path) -> None:
        assert refused("build", "model.onnx", "-o", "out.engine") == (
            "engine spec: data: this key is missing, and the model holds no Q/DQ nodes: give --data\n"
        )

    def test_no_such_data(self, refused, net: Path) -> None:
        said = refused("build", "model.onnx", "--data", "no.npz", "-o", "out.engine")
        assert said.startswith("no.npz: no such file or folder; expected a .npz")

    def test_data_that_do_not_fit_the_model(self, refused, net: Path) -> None:
        np.savez(net / "data.npz", y=normal(8, 4), z=normal(8, 4))
        said = refused("build", "model.onnx", "--data", "data.npz", "-o", "out.engine")
        assert said.startswith("data.npz: ")
        assert "'x'" in said

    def test_no_such_model(self, refused, net: Path) -> None:
        assert refused("build", "no.onnx", "--data", "data.npy", "-o", "out.engine").startswith("no.onnx: ")


class TestSpecs:
    def test_all_faults_at_once(self, refused, net: Path) -> None:
        (net / "net.yaml").write_text("{modle: model.onnx, batch_size: 0, builder: {workspace: 4XB}}", encoding="utf-8")
        assert [line.split(": ")[1] for line in refused("build", "net.yaml").splitlines()] == [
            "model",
            "batch_size",
            "builder.workspace",
            "modle",
        ]

    def test_no_such_spec(self, refused, folder: Path) -> None:
        assert refused("build", "no.yaml") == "no.yaml: no such file\n"

    @pytest.mark.parametrize("key", ["model", "data", "calibrator"])
    def test_the_output_is_an_input_of_the_spec(self, refused, net: Path, key: str) -> None:
        (net / "recipe.yaml").write_text("method: minmax", encoding="utf-8")
        files = {"model": "model.onnx", "data": "data.npy", "calibrator": "recipe.yaml"}
        (net / "net.yaml").write_text(json.dumps({**files, "output": files[key]}), encoding="utf-8")
        said = refused("build", "net.yaml")
        assert said == f"{files[key]}: is an input or another result of this command: choose another name\n"

    def test_the_spec_itself_is_no_output(self, refused, net: Path) -> None:
        (net / "net.yaml").write_text("{model: model.onnx, data: data.npy}", encoding="utf-8")
        said = refused("build", "net.yaml", "-o", "net.yaml")
        assert said == "net.yaml: is an input or another result of this command: choose another name\n"

    def test_options_win_over_the_spec(self, refused, net: Path) -> None:
        (net / "net.yaml").write_text("{model: model.onnx, data: no.npy, output: no/out.engine}", encoding="utf-8")
        said = refused("build", "net.yaml", "--data", "data.npy", "-o", "out.engine", code=3)
        assert said == NO_TENSORRT

    def test_code_is_not_run(self, refused, net: Path, module: Callable[[str], str]) -> None:
        name = module("raise SystemExit('it ran')")
        (net / "net.yaml").write_text(f"{{model: model.onnx, data: '{name}:feeds'}}", encoding="utf-8")
        fault = f"data: '{name}:feeds' does not exist beside this file; a YAML file cannot name code to run"
        assert refused("build", "net.yaml") == f"net.yaml: {fault}\n"

    def test_the_samples_specs_need_nothing_but_tensorrt(self, cli, folder: Path) -> None:
        """Their engines go to a folder that the repository does not hold."""
        root = Path(__file__).parents[2]
        for spec in sorted((root / "engines").glob("*.yaml")):
            result = cli("build", spec, "-o", "out.engine")
            assert (result.code, result.err) == (3, f"trtcalib: {NO_TENSORRT}")
        assert listing(folder) == {}


class TestInfer:
    def test_outputs_are_npz(self, refused, net: Path) -> None:
        said = refused("infer", "x.engine", "--data", "data.npy", "-o", "out.npy")
        assert said == "out.npy: outputs are written as .npz\n"

    @pytest.mark.parametrize("name", ["x.npz", "in.npz"])
    def test_the_output_is_an_input(self, refused, folder: Path, name: str) -> None:
        np.savez(folder / "in.npz", x=normal(4, 4))
        said = refused("infer", "x.npz", "--data", "in.npz", "-o", name)
        assert said == f"{name}: is an input or another result of this command: choose another name\n"

    def test_no_data(self, misused, folder: Path) -> None:
        assert "Missing option '--data'" in misused("infer", "x.engine")


def test_the_group_without_a_command_shows_its_help(cli) -> None:
    result = cli("engine")
    assert result.code == 2
    assert "inspect" in result.text
