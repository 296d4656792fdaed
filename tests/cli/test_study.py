"""``trtcalib study``: its table, its notes, its JSON, and what it refuses."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import onnx
import pytest

from tests.cli.helpers import NET, cache, listing, normal, save_model
from tests.cli.test_interrupt import START
from trtcalib.batch_study import counting
from trtcalib.batch_study.result import read_study

PARTIAL = (
    "note: batch size 12 ends in a partial batch, since there are 40 samples; calibrate does the same, TensorRT itself takes "
    "full batches only"
)

STUDY = ["study", "model.onnx", "--data", "data.npy", "-o", "out"]


def lines(text):
    """The lines of a text without padding, empty ones left out."""
    return [stripped for line in text.splitlines() if (stripped := line.strip())]


class TestOutput:
    def test_the_table_has_a_row_per_configuration_the_reference_first(self, done, net) -> None:
        result = done(*STUDY, "--batch-sizes", "16,8", "--orders", "1", "--seed", "7")
        rows = [line.split() for line in lines(result.out)[2:7]]
        assert [row[0] for row in rows] == ["all", "b16", "b16-s7", "b8", "b8-s7"]
        assert rows[0][1:] == ["1", "0%", "the", "reference"]
        assert rows[1][1:4] == ["3", "(last:", "8)"]
        study = read_study("out/study.json")
        for row, configuration in zip(rows, study.configurations, strict=True):
            assert f"{configuration.moved:.0%}" in row

    def test_then_the_most_unstable_tensors_and_the_recommendation(self, done, net) -> None:
        result = done(*STUDY, "--batch-sizes", "1,8")
        study = read_study("out/study.json")
        told = [line for line in lines(result.out) if ": scales " in line]
        ranked = sorted((t for t in study.tensors if t.instability), key=lambda t: -t.instability)
        assert [line.split(":")[0] for line in told] == [t.name for t in ranked]
        for line, tensor in zip(told, ranked, strict=True):
            assert f"{100 * tensor.instability:.3g} % apart" in line
            index = max(range(len(tensor.outcomes)), key=lambda i: abs(tensor.outcomes[i].change))
            assert f"; {study.configurations[index].name} " in line
        assert f"the {len(ranked)} most unstable of {len(ranked)} tensors that moved at all:" in result.out
        assert study.summary.recommendation in result.out

    def test_ten_tensors_at_most(self, done, folder) -> None:
        text = "".join(f" t{n} = Mul(t{n - 1}, x)" for n in range(1, 15)).replace("t0", "x")
        save_model(folder / "model.onnx", f"m (float[N, 4] x) => (float[N, 4] t14) {{ {text} }}")
        np.save(folder / "data.npy", normal(40, 4))
        result = done(*STUDY, "--batch-sizes", "1")
        assert "the 10 most unstable of 15 tensors that moved at all:" in result.out
        assert result.out.count(": scales ") == 10

    def test_the_cost_is_told(self, done, net) -> None:
        result = done(*STUDY, "--batch-sizes", "8,20")
        study = read_study("out/study.json")
        assert (
            f"out/study.json: 3 configurations of 4 tensors from 80 inferences (188 with a calibration run each), "
            f"{study.cost.distinct_ranges} distinct ranges, {study.cost.searches} searches"
        ) in result.text

    def test_notes_and_findings_go_to_stderr(self, done, net) -> None:
        data = np.load("data.npy")
        save_model(net / "model.onnx", "m (float[N, 4] x) => (float[N, 4] y) <float o = {0}> { y = Mul(x, o) }")
        np.save("data.npy", data)
        result = done(*STUDY, "--batch-sizes", "8,8,64,12")
        assert lines(result.err) == [
            "note: batch size 8 was asked for twice and is studied once",
            "note: batch size 64 is more than the 40 samples, so that it is the same as all of them in one batch",
            PARTIAL,
            *[line for line in lines(result.err) if line.startswith("finding: ")],
        ]
        assert "is zero in every sample" in result.err
        assert "note:" not in result.out

    def test_json_is_the_file_and_alone_on_stdout(self, done, net) -> None:
        result = done(*STUDY, "--batch-sizes", "8,64", "--json")
        assert result.out == (net / "out" / "study.json").read_text(encoding="utf-8")
        assert "note: batch size 64" in result.err
        assert "out/study.json: 2 configurations" in result.err

    def test_nothing_moved_is_said(self, done, net) -> None:
        np.save("data.npy", np.tile(normal(1, 4), (12, 1)))
        result = done(*STUDY, "--batch-sizes", "4")
        assert "no scale depends on the batch size or the order" in result.out
        assert "Any batch size will do" in result.out

    def test_scales_past_float32_are_not_called_unmoved(self, done, net) -> None:
        save_model(net / "model.onnx", "m (float[N, 4] x) => (float[N, 4] y) { y = Relu(x) }")
        np.save("data.npy", np.array([[1.4e38, 1, 1, 1], [3.3e38, 1, 1, 1]], np.float32))
        result = done(*STUDY, "--batch-sizes", "1", "--calibrator", "entropy")
        x = read_study("out/study.json").tensors[0]
        assert (x.name, x.instability, [o.scale is None for o in x.outcomes]) == ("x", None, [False, True])
        assert "x: scales past float32 in some; b1 not to be told in per cent: " in result.out
        assert "no scale depends" not in result.out

    def test_by_default_powers_of_two_up_to_the_data(self, done, net) -> None:
        done(*STUDY)
        names = [c.name for c in read_study("out/study.json").configurations]
        assert names == ["all", "b1", "b2", "b4", "b8", "b16", "b32"]

    def test_its_caches_are_calibrates(self, done, net) -> None:
        done(*STUDY, "--batch-sizes", "8", "--orders", "1", "--seed", "5", "--tensorrt-version", "8.6.1",
             "--calibrator", "percentile-99", "--max-samples", "30", "--workers", "2")  # fmt: skip
        (net / "other").mkdir()
        for name, options in {"b8": [], "b8-s5": ["--shuffle", "5"]}.items():
            done("calibrate", "model.onnx", "--data", "data.npy", "--batch-size", "8", "--tensorrt-version", "8.6.1",
                 "--calibrator", "percentile-99", "--max-samples", "30", "-o", f"other/{name}.cache", *options)  # fmt: skip
            for suffix in (".cache", ".cache.json"):
                assert (net / f"out/{name}{suffix}").read_bytes() == (net / f"other/{name}{suffix}").read_bytes()
        assert cache(net / "out" / "b8.cache").header == "TRT-8601-EntropyCalibration2"


class TestHostileNames:
    LONG = "conv" * 2500
    RED = "\x1b[31mred\x07\r\nTRT-\u202e"

    @pytest.mark.parametrize("name", [LONG, RED, "[bold]x[/bold]", "a: b"])
    def test_are_shown_escaped_and_short(self, done, folder, name) -> None:
        model = save_model(folder / "model.onnx", NET)
        for node in model.graph.node:
            for names in (node.input, node.output):
                for position, old in enumerate(names):
                    if old == "sum":
                        names[position] = name
        onnx.save(model, folder / "model.onnx")
        np.save("data.npy", normal(40, 4))
        result = done(*STUDY, "--batch-sizes", "1,8")
        shown = result.out + result.err
        assert all(character.isprintable() or character == "\n" for character in shown)
        assert name[:3].replace("\x1b", "\\x1b")[:4] in shown
        assert max(map(len, result.out.splitlines())) < 1200
        told = json.loads((folder / "out/study.json").read_text(encoding="utf-8"))
        assert name in {tensor["name"] for tensor in told["tensors"]}


class TestRefusals:
    @pytest.mark.parametrize(
        ("text", "found"),
        [
            ("0", "'0'"),
            ("000", "'000'"),
            ("-4", "'-4'"),
            ("8.0", "'8.0'"),
            ("1e3", "'1e3'"),
            ("eight", "'eight'"),
            ("", "''"),
            ("8,,4", "''"),
            ("8,", "''"),
            ("1 2", "'1 2'"),
            ("٨", "'٨'"),
            ("ALL", "'ALL'"),
            ("0,x,4,-1", "'0', 'x', '-1'"),
            ("9" * 19, f"'{'9' * 19}'"),
        ],
    )
    def test_batch_sizes_that_are_none(self, misused, net, text, found) -> None:
        told = misused(*STUDY, f"--batch-sizes={text}")
        assert f"found {found}, expected positive whole numbers or all, as in 1,8,32,all" in told
        assert "--batch-sizes" in told

    def test_many_digits_are_not_shown_in_full(self, misused, net) -> None:
        told = misused(*STUDY, "--batch-sizes", "9" * 10_000)
        assert "9…9" in told
        assert len(told) < 500

    def test_zeros_in_front_and_blanks_do_no_harm(self, done, net) -> None:
        done(*STUDY, "--batch-sizes", " 00000000000000000008 , all")
        assert [c.name for c in read_study("out/study.json").configurations] == ["all", "b8"]

    def test_a_large_number_is_told_as_it_was_given(self, done, net) -> None:
        assert (
            "batch size 123456789012345678 is more than the 40 samples"
            in done(*STUDY, "--batch-sizes", "123456789012345678,8").err
        )

    @pytest.mark.parametrize(
        "options", [["--orders", "-1"], ["--orders", "x"], ["--seed", "-1"], ["--max-samples", "0"], ["--workers", "0"]]
    )
    def test_options_out_of_range(self, misused, net, options) -> None:
        assert options[0] in misused(*STUDY, *options)

    def test_an_output_is_needed(self, misused, net) -> None:
        assert "--output" in misused("study", "model.onnx", "--data", "data.npy")

    def test_a_model_that_is_not_there(self, refused, net) -> None:
        assert refused("study", "none.onnx", "--data", "data.npy", "-o", "out") == "none.onnx: no such file\n"

    def test_tensorrt_11(self, refused, net) -> None:
        assert "'11.0.0'" in refused(*STUDY, "--tensorrt-version", "11.0.0")

    def test_an_output_that_is_a_file(self, refused, net) -> None:
        assert "data.npy: cannot be made a folder" in refused(*STUDY[:-1], "data.npy")

    def test_data_that_would_be_written_over(self, refused, net) -> None:
        np.savez("all.npz", x=normal(4, 4))
        told = refused("study", "model.onnx", "--data", "all.npz", "-o", ".")
        assert told == "all.npz: is an input of this study: choose another folder for the results\n"

    def test_a_global_recipe(self, refused, net) -> None:
        (net / "r.yaml").write_text("method: entropy\nrange: global\n")
        assert "a study needs 'doubling', TensorRT's" in refused(*STUDY, "--calibrator", "r.yaml")

    def test_nan_in_the_data(self, refused, net) -> None:
        x = normal(9, 4)
        x[7, 2] = np.nan
        np.save("data.npy", x)
        assert refused(*STUDY) == "data.npy: sample 7: input 'x' holds NaN\n"

    def test_a_function_that_changes_its_data(self, refused, net, module) -> None:
        name = module(
            "import itertools, numpy as np\n"
            "calls = itertools.count(1)\n"
            "def feeds():\n    call = next(calls)\n    return [{'x': np.full((1, 4), call, np.float32)}] * 3\n"
        )
        assert "gave other values when it was read again" in refused(
            "study", "model.onnx", "--data", f"{name}:feeds", "-o", "out"
        )


SLOW = """
import os, time
from trtcalib.samples.array_source import ArraySource
from trtcalib.batch_study import counting

counting.SAVE_EVERY = 0
load = ArraySource._load
runs = 0

def slow(self, index):
    global runs
    runs += 1
    if runs == {signal_at}:
        open(os.environ["STARTED"], "w").close()
    time.sleep(0.005)
    return load(self, index)

ArraySource._load = slow
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT for one process alone")
@pytest.mark.parametrize(
    ("signal_at", "left"), [(60, ["maxima.npz"]), (150 + 100, ["counts.npz", "maxima.npz"])], ids=["pass 1", "pass 2"]
)
def test_after_ctrl_c_the_same_command_goes_on(done, folder, tmp_path_factory, monkeypatch, signal_at, left) -> None:
    save_model(folder / "model.onnx", NET)
    np.save("data.npy", normal(150, 4))
    command = [*STUDY, "--batch-sizes", "1,16"]
    done(*command)
    expected = listing(folder)
    for file in (folder / "out").iterdir():
        file.unlink()
    started = tmp_path_factory.mktemp("flag") / "started"
    process = subprocess.Popen(
        [sys.executable, "-B", "-c", SLOW.format(signal_at=signal_at) + START, *command],
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
    assert lines(err) == [
        "out: the same command goes on from what is saved here",
        "trtcalib: interrupted; no result was written",
    ]
    assert sorted(file.name for file in (folder / "out").iterdir()) == left
    runs = []
    count = counting.RangeTally.add
    monkeypatch.setattr(counting.RangeTally, "add", lambda *args: runs.append(1) or count(*args))
    first = counting.MaximaTally.add
    monkeypatch.setattr(counting.MaximaTally, "add", lambda *args: runs.append(1) or first(*args))
    done(*command)
    assert listing(folder) == expected
    assert len(runs) <= 2 * 150 - (40 if signal_at == 60 else 150 + 64)
