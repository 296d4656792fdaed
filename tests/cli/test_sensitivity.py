"""``trtcalib sensitivity``: its table, its files, its JSON, going on after Ctrl-C, and what it refuses."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.cli.helpers import RELU, listing, normal, save_model
from tests.cli.test_ablate import SLOW
from tests.cli.test_interrupt import START
from tests.cli.test_json import SCHEMAS
from trtcalib.accuracy.result import Sensitivity
from trtcalib.engine_spec import parse_fallback

SENSITIVITY = ["sensitivity", "model.onnx", "--data", "data.npy", "-o", "out"]

FILES = ["sensitivity.json", "sensitivity.md", "sensitivity.png"]


@pytest.fixture
def named(net: Path) -> Path:
    """Three layers with names, one of them hostile."""
    layers = "".join(f" t{n} = MatMul(t{n - 1}, w)" for n in range(1, 4)).replace("t0", "x")
    weights = ", ".join(map(str, np.linspace(-1, 1, 16).round(3).tolist()))
    model = save_model(
        net / "model.onnx", f"m (float[N, 4] x) => (float[N, 4] t3) <float[4, 4] w = {{{weights}}}> {{ {layers} }}"
    )
    for node, name in zip(model.graph.node, ["first", "it's [2]", "third"], strict=True):
        node.name = name
    (net / "model.onnx").write_bytes(model.SerializeToString())
    return net


def read(folder: Path) -> Sensitivity:
    return Sensitivity.model_validate_json((folder / "sensitivity.json").read_bytes())


def test_a_row_per_node_and_three_files(done, named) -> None:
    result = done(*SENSITIVITY)
    assert sorted(file.name for file in (named / "out").iterdir()) == FILES
    for name in ("first", "it's [2]", "third"):
        assert name in result.out
    assert "out/sensitivity.json: 3 nodes, simulated INT8" in result.text
    assert "everything in INT8 is within" not in result.text
    assert (named / "out" / "sensitivity.png").read_bytes().startswith(b"\x89PNG")


def test_the_markdown_has_the_command(done, named) -> None:
    done(*SENSITIVITY, "--metric", "sqnr")
    assert "trtcalib sensitivity model.onnx" in (named / "out" / "sensitivity.md").read_text(encoding="utf-8")


def test_what_to_leave_in_float_is_a_line_per_tool_that_works_as_it_stands(done, named) -> None:
    result = done(*SENSITIVITY, "--metric", "sqnr", "--max-loss", "0")
    fallback = read(named / "out").fallback
    assert fallback is not None
    assert sorted(fallback.nodes) == ["first", "it's [2]", "third"]
    assert f"{fallback.evaluations} sets judged for the nodes in float" in result.text
    for line in fallback.dialects.values():
        assert line in result.out.splitlines()
    assert set(parse_fallback([shlex.split(fallback.dialects["build"])[1]])["fp16"]) == {"first", "it's [[]2]", "third"}
    done("calibrate", "model.onnx", "--data", "data.npy", "-o", "model.cache")
    converted = done(
        "qdq", "model.onnx", "model.cache", *shlex.split(fallback.dialects["qdq"])[2:], "-o", "int8.onnx", "--json"
    )
    assert {n["output"] for n in json.loads(converted.out)["coverage"]["nodes"] if n["quantized"]} == {
        fallback.outputs[0]
    }


def test_a_bound_that_is_met_is_said(done, named) -> None:
    result = done(*SENSITIVITY, "--metric", "sqnr", "--max-loss", "1")
    assert "everything in INT8 is within --max-loss 1: nothing need be left in float" in result.out


def test_top_bounds_the_rows_and_not_the_file(done, named) -> None:
    result = done(*SENSITIVITY, "--metric", "sqnr", "--top", "1")
    layers = read(named / "out").layers
    assert len(layers) == 3
    assert layers[0].name in result.out
    assert layers[1].name not in result.out
    assert "and 2 more nodes, in the JSON file" in result.out


def test_json_is_the_file_and_alone_on_stdout(done, named) -> None:
    result = done(*SENSITIVITY, "--json")
    assert json.loads(result.out) == json.loads((named / "out" / "sensitivity.json").read_text(encoding="utf-8"))
    assert "out/sensitivity.json: 3 nodes" in result.err
    assert "note: the samples that are judged are those that the scales were made from" in result.err


def test_the_schema_is_the_models_own() -> None:
    expected = json.dumps(Sensitivity.model_json_schema(mode="serialization"), indent=2, ensure_ascii=False) + "\n"
    assert (SCHEMAS / "sensitivity.schema.json").read_text(encoding="utf-8") == expected


def test_a_cache_and_held_out_samples(done, named) -> None:
    done("calibrate", "model.onnx", "--data", "data.npy", "--calibrator", "minmax", "-o", "model.cache")
    done(*SENSITIVITY, "--cache", "model.cache", "--hold-out")
    result = read(named / "out")
    assert result.variant.method == "cache model.cache"
    assert result.evaluation.samples == 10


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--cache", "c", "--calibrator", "minmax"], "give one of --cache and --calibrator"),
        (["--names", "n.yaml"], "it maps names of a cache: give --cache"),
        (["--max-loss", "nan"], "Invalid value for '--max-loss'"),
        (["--max-loss", "-1"], "Invalid value for '--max-loss'"),
        (["--top", "0"], "Invalid value for '--top'"),
    ],
)
def test_misuse(misused, net, options, reason) -> None:
    assert reason in misused(*SENSITIVITY, *options)


def test_bad_input_leaves_nothing(refused, net) -> None:
    assert "no such file" in refused("sensitivity", "model.onnx", "--data", "gone.npy", "-o", "out")
    save_model(net / "relu.onnx", RELU)
    assert "nothing to quantize" in refused("sensitivity", "relu.onnx", "--data", "data.npy", "-o", "out")
    (net / "file").touch()
    assert "file: cannot be made a folder" in refused("sensitivity", "model.onnx", "--data", "data.npy", "-o", "file")
    (net / "taken" / "sensitivity.md").mkdir(parents=True)
    assert "sensitivity.md: is a folder" in refused("sensitivity", "model.onnx", "--data", "data.npy", "-o", "taken")


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT for one process alone")
def test_after_ctrl_c_the_same_command_goes_on(done, named, tmp_path_factory) -> None:
    np.save("other.npy", normal(200, 4, seed=3))
    command = [*SENSITIVITY, "--eval-data", "other.npy", "--metric", "sqnr", "--max-loss", "0"]
    done(*command)
    expected = listing(named / "out")
    for file in (named / "out").iterdir():
        file.unlink()
    started = tmp_path_factory.mktemp("flag") / "started"
    # Behind FP32 and full INT8 on all samples, and the nodes: within the search.
    process = subprocess.Popen(
        [sys.executable, "-B", "-c", SLOW.format(signal_at=2 * 200 + 60) + START, *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "STARTED": str(started)},
    )
    try:
        deadline = time.monotonic() + 60
        while not started.exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130, err
    assert out == ""
    assert "out: the same command goes on from what is saved here" in err
    assert [file.name for file in (named / "out").iterdir()] == ["sensitivity.journal"]
    done(*command)
    again = listing(named / "out")
    # The Markdown holds the command, whose program stands elsewhere in the other process.
    assert {n: d for n, d in again.items() if not n.endswith(".md")} == {
        n: d for n, d in expected.items() if not n.endswith(".md")
    }
