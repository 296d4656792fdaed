"""``trtcalib evaluate``: what it says, what it writes, its exit codes, and what it refuses."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest

from tests.cli.helpers import NET, cache, normal, plain, save_model
from tests.trt.fakes import hide
from trtcalib.accuracy.result import Evaluation
from trtcalib.core.cache import format_cache, make_cache

SIMULATED = "INT8 is simulated by ONNX Runtime in float; it is not TensorRT's kernels"


@pytest.fixture
def labelled(net):
    """The model with ``labels.txt``: the classes that float32 gives, but for the first two samples."""
    weights = np.array([0.5, -1, 2, 0.25, 1.5, -0.5, 1, 0.125, -2, 0.75, -1.25, 0.375]).reshape(4, 3)
    scores = np.maximum(normal(40, 4) @ weights + [0.1, -0.2, 0.3], 0)
    labels = scores.argmax(axis=1)
    labels[:2] = (labels[:2] + 1) % 3
    (net / "labels.txt").write_text("".join(f"{label}\n" for label in labels))
    return net


def lossy(path, scale=0.5):
    """A cache whose scale for x is much too large."""
    path.write_bytes(format_cache(make_cache({"x": np.float32(scale)}, "10.16.1", "EntropyCalibration2")))
    return path


def test_it_tells_shares_classes_and_outputs(done, labelled):
    result = done("evaluate", "model.onnx", "--data", "data.npy", "--labels", "labels.txt", "--batch-size", 8)
    lines = result.out.splitlines()
    assert lines[0] == "top1 of 40 samples at output y"
    assert "FP32 95.00 % [83.5, 98.6]" in lines[1]
    assert SIMULATED in lines
    assert "1 of 1 weighted nodes in INT8" in lines
    text = plain(result.out)
    assert "class samples FP32 right" in text
    assert "output SQNR cosine agreement largest difference" in text
    assert result.err.splitlines() == [
        "note: the samples that are judged are those that the scales were made from: give --eval-data, or --hold-out, for an honest figure",
        "note: 40 samples are few: look at the intervals before the values",
    ]


def test_without_labels_it_is_agreement(done, net):
    result = done("evaluate", "model.onnx", "--data", "data.npy", "--batch-size", 8)
    assert result.out.startswith("agreement of 40 samples at output y\n  compared with FP32's outputs\n")
    assert "class" not in result.out


def test_json_and_file_hold_the_same_result(done, labelled):
    (labelled / "results").mkdir()
    arguments = ["evaluate", "model.onnx", "--data", "data.npy", "--labels", "labels.txt", "--calibrator", "minmax"]
    printed = done(*arguments, "-o", "results/out.json", "--json")
    written = (labelled / "results" / "out.json").read_text()
    assert json.loads(printed.out) == json.loads(written)
    found = Evaluation.model_validate_json(written)
    assert (found.model.path, found.variant.method, found.labels) == ("../model.onnx", "minmax", "labels.txt")
    assert "results/out.json: the result as JSON" in printed.err
    told = done(*arguments, "-o", "again.json")
    assert "again.json: the result as JSON" in told.out
    assert Evaluation.model_validate_json((labelled / "again.json").read_bytes()).model.path == "model.onnx"


def test_a_run_with_other_workers_writes_the_same_bytes(done, labelled):
    for workers in (1, 3):
        done(
            "evaluate",
            "model.onnx",
            "--data",
            "data.npy",
            "--labels",
            "labels.txt",
            "--workers",
            workers,
            "-o",
            f"{workers}.json",
        )
    assert (labelled / "1.json").read_bytes() == (labelled / "3.json").read_bytes()


def test_a_cache_and_a_map_of_names(done, net):
    done("calibrate", "model.onnx", "--data", "data.npy", "--drop-last", "-o", "out.cache")
    (net / "names.yaml").write_text("old: x\n")
    scale = float(cache(net / "out.cache").scales["x"])
    (net / "old.cache").write_bytes(
        format_cache(make_cache({"old": np.float32(scale)}, "10.16.1", "EntropyCalibration2"))
    )
    first = json.loads(done("evaluate", "model.onnx", "--data", "data.npy", "--cache", "out.cache", "--json").out)
    second = json.loads(
        done(
            "evaluate", "model.onnx", "--data", "data.npy", "--cache", "old.cache", "--names", "names.yaml", "--json"
        ).out
    )
    assert (first["cache"], second["cache"]) == ("out.cache", "old.cache")
    assert first["judgement"] == second["judgement"]
    assert (first["calibration"], first["batching"]) == (None, None)


def test_other_data_to_judge_on(done, net):
    np.save(net / "other.npy", normal(25, 4, seed=1))
    result = done(
        "evaluate",
        "model.onnx",
        "--data",
        "data.npy",
        "--eval-data",
        "other.npy",
        "--max-eval-samples",
        20,
        "--max-samples",
        32,
        "--json",
    )
    found = json.loads(result.out)
    assert (found["held_out"], found["evaluation"]["samples"], found["calibration"]["samples"]) == (True, 20, 32)


class TestExitCodes:
    """1 where a limit is passed or a finding is there."""

    @pytest.mark.parametrize(("most", "code"), [("0.9", 0), ("0.001", 1), ("0", 1)])
    def test_a_loss_above_what_is_allowed(self, cli, labelled, most, code):
        lossy(labelled / "lossy.cache", 4)
        result = cli(
            "evaluate",
            "model.onnx",
            "--data",
            "data.npy",
            "--labels",
            "labels.txt",
            "--cache",
            "lossy.cache",
            "--max-loss",
            most,
        )
        assert result.code == code
        assert ("is above --max-loss" in result.err) == bool(code)

    def test_a_limit_that_is_no_number_allows_nothing(self, cli, net):
        result = cli("evaluate", "model.onnx", "--data", "data.npy", "--max-loss", "nan")
        assert result.code in (1, 2)  # newer versions of Typer refuse it as an option
        assert "--max-loss" in result.err

    def test_a_loss_of_nothing_is_not_above_nothing(self, done, net):
        done("evaluate", "model.onnx", "--data", "data.npy", "--max-samples", 8, "--batch-size", 8, "--calibrator", "minmax",
             "--metric", "agreement", "--max-loss", "0.2")  # fmt: skip

    def test_the_result_is_written_all_the_same(self, cli, net):
        lossy(net / "lossy.cache")
        arguments = ["evaluate", "model.onnx", "--data", "data.npy", "--cache", "lossy.cache", "--metric", "sqnr"]
        result = cli(*arguments, "--max-loss", "1e-9", "-o", "out.json", "--json")
        assert result.code == 1
        assert json.loads(result.out)["judgement"]["loss"] > 1e-9
        assert (net / "out.json").is_file()

    def test_findings_of_the_calibration(self, cli, net):
        arguments = ["evaluate", "model.onnx", "--data", "data.npy", "--batch-size", 32]
        result = cli(*arguments)
        assert result.code == 0
        assert "the last batch has 8 of 32 samples" in plain(result.err)
        assert cli(*arguments, "--fail-on", "finding").code == 1
        assert cli(*arguments, "--fail-on", "partial-last-batch").code == 1
        assert cli(*arguments, "--fail-on", "input-constant-channel").code == 0

    def test_without_tensorrt_no_engine_is_run(self, refused, net, monkeypatch):
        hide(monkeypatch)
        (net / "out.engine").touch()
        said = refused("evaluate", "model.onnx", "--data", "data.npy", "--engine", "out.engine", code=3)
        assert "the package 'tensorrt' is missing" in said


class TestRefused:
    """What changes nothing, fits nothing or is no input."""

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            (["--cache", "a.cache", "--calibrator", "entropy"], "give one of --cache and --calibrator"),
            (["--cache", "a.cache", "--engine", "a.engine"], "give one of --cache and --engine"),
            (["--names", "names.yaml"], "it maps names of a cache: give --cache"),
            (["--cache", "a.cache", "--batch-size", "8"], "nothing is calibrated with --cache: leave it out"),
            (["--engine", "a.engine", "--drop-last"], "nothing is calibrated with --engine: leave it out"),
            (["--fail-on", "nonsense"], "'nonsense' is no finding"),
            (["--max-loss", "-1"], "--max-loss"),
            (["--max-eval-samples", "0"], "--max-eval-samples"),
        ],
    )
    def test_options_that_make_no_sense_together(self, misused, net, options, said):
        assert said in misused("evaluate", "model.onnx", "--data", "data.npy", *options)

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            (
                ["--metric", "f1"],
                "metric 'f1' is unknown: expected top1, top5, agreement, sqnr, cosine or module:function",
            ),
            (["--metric", "top1"], "top1 needs labels: give --labels"),
            (["--labels", "nowhere.npy"], "nowhere.npy: no such file"),
            (["--output-name", "boxes"], "finds no output 'boxes' in the model"),
            (["--calibrator", "fastest"], "fastest"),
            (["--cache", "nowhere.cache"], "nowhere.cache"),
            (["-o", "data.npy"], "data.npy: is an input or another result of this command"),
            (["-o", "nowhere/out.json"], "the folder 'nowhere' does not exist"),
            (["--eval-data", "nowhere.npy"], "no such file or folder"),
        ],
    )
    def test_inputs_that_cannot_be_used(self, refused, net, options, said):
        assert said in refused("evaluate", "model.onnx", "--data", "data.npy", *options)

    def test_another_number_of_labels(self, refused, net):
        np.save(net / "labels.npy", np.zeros(39, int))
        said = refused("evaluate", "model.onnx", "--data", "data.npy", "--labels", "labels.npy")
        assert "labels.npy: found 39 labels for the 40 samples of data.npy" in said

    def test_nothing_to_quantize(self, refused, net):
        save_model(net / "model.onnx", "r (float[N,4] x) => (float[N,4] y) { y = Relu(x) }")
        assert "there is nothing to quantize" in refused("evaluate", "model.onnx", "--data", "data.npy")
        save_model(net / "model.onnx", NET)
        lossy(net / "lossy.cache").write_bytes((net / "lossy.cache").read_bytes().replace(b"x:", b"z:"))
        said = refused("evaluate", "model.onnx", "--data", "data.npy", "--cache", "lossy.cache")
        assert said.startswith("lossy.cache: no usable scale for an input of any of the 1 weighted nodes of model.onnx")

    def test_a_metric_that_raises_shows_its_own_lines_and_the_sample(self, cli, net, module):
        name = module("def boxes(outputs, label):\n    return outputs['boxes'].sum()\n")
        result = cli("evaluate", "model.onnx", "--data", "data.npy", "--metric", f"{name}:boxes", "-o", "out.json")
        assert result.code == 2
        assert f"trtcalib: metric {name}:boxes at sample 0 raised KeyError: 'boxes'" in result.err
        assert "return outputs['boxes'].sum()" in result.err
        assert all(line.startswith("trtcalib: ") for line in result.err.splitlines())
        assert not (net / "out.json").exists()

    def test_a_metric_of_one_s_own(self, done, net, module):
        name = module("def first(outputs, label):\n    return outputs['y'][0, 0]\n")
        found = json.loads(
            done("evaluate", "model.onnx", "--data", "data.npy", "--metric", f"{name}:first", "--json").out
        )
        assert found["metric"] == {"name": f"{name}:first", "output": None, "is_share": False}


def test_hostile_names_reach_no_terminal(cli, net):
    model = onnx.load(net / "model.onnx")
    model.graph.node[-1].output[0] = model.graph.output[0].name = "\x1b[31mred\x07\n\u202e"
    onnx.save(model, net / "model.onnx")
    lossy(net / "lossy.cache").write_bytes((net / "lossy.cache").read_bytes() + b"\x1b[2J: 3f800000\n")
    result = cli("evaluate", "model.onnx", "--data", "data.npy", "--cache", "lossy.cache", "--max-loss", 0)
    assert result.code in (0, 1)
    for character in ("\x1b", "\x07", "\u202e"):
        assert character not in result.out + result.err
