"""``trtcalib ablate`` and ``trtcalib sweep``: tables, files, JSON, going on after Ctrl-C, and what they refuse."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jsonschema
import numpy as np
import pytest

from tests.cli.helpers import NET, RELU, codes, listing, manifest, normal, save_model
from tests.cli.test_interrupt import START
from tests.cli.test_json import SCHEMAS, read
from trtcalib.accuracy.result import Ablation, Sweep

ABLATE = ["ablate", "model.onnx", "--data", "data.npy", "-o", "out"]

SWEEP = ["sweep", "model.onnx", "--data", "data.npy", "-o", "out", "--budget", "3"]

COMMANDS = pytest.mark.parametrize("command", [ABLATE, SWEEP], ids=["ablate", "sweep"])


class TestAblate:
    def test_a_table_row_per_method_and_three_files(self, done, net) -> None:
        result = done(*ABLATE)
        result_file = Ablation.model_validate_json((net / "out" / "ablation.json").read_bytes())
        for row in result_file.rows:
            assert row.method.split()[-1] in result.out
        assert sorted(file.name for file in (net / "out").iterdir()) == [
            "ablation.json",
            "ablation.md",
            "ablation.png",
        ]
        assert "out/ablation.json: 7 methods, 28 variants, simulated INT8" in result.text
        assert "note: both: activations by the row's method" in result.text

    def test_the_markdown_has_the_command(self, done, net) -> None:
        done(*ABLATE, "--methods", "entropy")
        assert "trtcalib " in (net / "out" / "ablation.md").read_text(encoding="utf-8")
        assert (net / "out" / "ablation.png").read_bytes().startswith(b"\x89PNG")

    def test_methods_are_the_rows_in_their_order(self, done, net) -> None:
        (net / "own.yaml").write_text("method: percentile\npercentile: 97.5\n")
        printed = json.loads(done(*ABLATE, "--methods", " mse, own.yaml,minmax", "--json").out)
        assert [row["method"] for row in printed["rows"]] == ["mse", "percentile 97.5", "minmax"]

    def test_json_is_the_file_and_alone_on_stdout(self, done, net) -> None:
        result = done(*ABLATE, "--methods", "minmax", "--json")
        assert json.loads(result.out) == json.loads((net / "out" / "ablation.json").read_text(encoding="utf-8"))
        assert "out/ablation.json: 1 methods" in result.err

    def test_labels_and_held_out_samples(self, done, net) -> None:
        np.save("labels.npy", np.arange(40) % 3)
        printed = json.loads(done(*ABLATE, "--methods", "minmax", "--labels", "labels.npy", "--hold-out", "--json").out)
        assert (printed["metric"]["name"], printed["labels"]) == ("top1", "labels.npy")
        assert (printed["evaluation"]["samples"], printed["held_out"]) == (10, True)

    @pytest.mark.parametrize(
        ("methods", "told"),
        [
            ("", "methods: there is none; expected some, such as minmax"),
            (",", "methods: there is none"),
            ("entropy,entropy", "methods: entropy: stands there 2 times"),
            ("percentil-99", "percentil-99: no such calibrator"),
            ("none.yaml", "none.yaml: no such file"),
        ],
    )
    def test_methods_that_are_none(self, refused, net, methods, told) -> None:
        assert told in refused(*ABLATE, "--methods", methods)
        assert not (net / "out").exists()


class TestSweep:
    def test_tables_claim_and_files(self, done, net) -> None:
        result = done(*SWEEP)
        assert sorted(file.name for file in (net / "out").iterdir()) == [
            "sweep.json",
            "sweep.md",
            "sweep.png",
            "winner.cache",
            "winner.cache.json",
        ]
        found = Sweep.model_validate_json((net / "out" / "sweep.json").read_bytes())
        assert f"out/winner.cache: the scales of {found.winner.method}" in result.text
        assert "baseline entropy" in result.text
        assert "note: every fourth sample was held out" in result.text

    def test_json_is_the_file_and_alone_on_stdout(self, done, net) -> None:
        result = done(*SWEEP, "--json")
        assert json.loads(result.out) == json.loads((net / "out" / "sweep.json").read_text(encoding="utf-8"))
        assert "out/winner.cache" in result.err

    def test_the_winners_cache_is_shown_verified_and_edited(self, done, net) -> None:
        done(*SWEEP)
        assert "TRT-101601-" in done("cache", "show", "out/winner.cache").out
        checks = json.loads(done("cache", "verify", "out/winner.cache", "--json").out)
        assert {c["what"]: c["status"] for c in checks["checks"]}["cache"] == "same"
        done("cache", "set", "out/winner.cache", "x=2", "-o", "set.cache")
        before, after = manifest(net / "out" / "winner.cache"), manifest(net / "set.cache")
        assert before.chosen_by is not None
        assert after.chosen_by == before.chosen_by

    def test_the_manifest_has_calibrates_findings(self, done, net) -> None:
        done(*SWEEP)
        assert "partial-last-batch" in codes(net / "out" / "winner.cache")

    def test_budgets_that_are_none(self, misused, net) -> None:
        for budget in ("0", "-1", "x"):
            assert "--budget" in misused(*SWEEP[:-1], budget)


class TestSchemas:
    @pytest.mark.parametrize(("schema", "model"), [("ablation", Ablation), ("sweep", Sweep)])
    def test_they_are_the_models_own(self, schema, model) -> None:
        expected = json.dumps(model.model_json_schema(mode="serialization"), indent=2, ensure_ascii=False) + "\n"
        assert (SCHEMAS / f"{schema}.schema.json").read_text(encoding="utf-8") == expected

    @pytest.mark.parametrize(("schema", "command"), [("ablation", ABLATE), ("sweep", SWEEP)])
    def test_json_output_fits(self, done, net, schema, command) -> None:
        printed = json.loads(done(*command, "--json").out)
        contract = read(schema)
        jsonschema.validate(printed, contract, jsonschema.Draft202012Validator)
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({**printed, "kind": "x"}, contract, jsonschema.Draft202012Validator)


class TestRefusals:
    @COMMANDS
    def test_a_model_without_weighted_nodes(self, refused, folder, command) -> None:
        save_model(folder / "model.onnx", RELU)
        np.save("data.npy", normal(8, 4))
        assert "there is nothing to quantize" in refused(*command)
        assert not (folder / "out").exists()

    @COMMANDS
    def test_labels_that_do_not_match(self, refused, net, command) -> None:
        np.save("labels.npy", np.zeros(7, np.int64))
        assert "labels.npy" in refused(*command, "--labels", "labels.npy")

    @COMMANDS
    def test_an_unlabelled_top1(self, refused, net, command) -> None:
        assert "needs labels: give --labels" in refused(*command, "--metric", "top1")

    @COMMANDS
    def test_a_metric_that_raises_shows_its_traceback(self, cli, net, module, command) -> None:
        name = module("def score(outputs, label):\n    return 1 / 0\n")
        result = cli(*command, "--metric", f"{name}:score")
        assert result.code == 2
        assert "at sample 0 raised ZeroDivisionError" in result.err
        assert "return 1 / 0" in result.err
        assert not (net / "out").exists()

    @COMMANDS
    def test_nan_in_the_data(self, refused, net, command) -> None:
        data = normal(9, 4)
        data[6, 2] = np.nan
        np.save("data.npy", data)
        told = refused(*command)
        # What is held out has names of its own.
        assert told in [f"data.npy{part}: sample 6: input 'x' holds NaN\n" for part in ("", " (the others)")]

    @COMMANDS
    def test_a_folder_that_is_a_file(self, refused, net, command) -> None:
        arguments = ["data.npy" if part == "out" else part for part in command]
        assert "data.npy: cannot be made a folder" in refused(*arguments)

    @COMMANDS
    def test_an_output_is_needed(self, misused, net, command) -> None:
        assert "--output" in misused(*command[:4])


@COMMANDS
def test_hostile_names_are_shown_escaped(done, folder, command) -> None:
    import onnx

    model = save_model(folder / "model.onnx", NET)
    for node in model.graph.node:
        for names in (node.input, node.output):
            for position, old in enumerate(names):
                if old == "y":
                    names[position] = "\x1b[31mred\r\nTRT-\u202e"
    model.graph.output[0].name = "\x1b[31mred\r\nTRT-\u202e"
    onnx.save(model, folder / "model.onnx")
    np.save("data.npy", normal(40, 4))
    result = done(*command, *(["--methods", "minmax"] if command is ABLATE else []))
    assert all(character.isprintable() or character == "\n" for character in result.out + result.err)


SLOW = """
import os, time
from trtcalib.judging.judge import ModelRunner

original = ModelRunner.run
runs = 0

def slow(self, *arguments):
    global runs
    runs += 1
    if runs == {signal_at}:
        open(os.environ["STARTED"], "w").close()
    time.sleep(0.002)
    return original(self, *arguments)

ModelRunner.run = slow
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT for one process alone")
@pytest.mark.parametrize(
    ("command", "journal", "signal_at"),
    [
        ([*ABLATE, "--methods", "entropy,minmax,mse"], "ablation.journal", 40 * 9 + 60),
        ([*SWEEP, "--eval-data", "other.npy"], "sweep.journal", 40 * 4 + 20),
    ],
    ids=["ablate", "sweep"],
)
def test_after_ctrl_c_the_same_command_goes_on(done, net, tmp_path_factory, command, journal, signal_at) -> None:
    np.save("other.npy", normal(200, 4, seed=3))
    done(*command)
    expected = listing(net / "out")
    for file in (net / "out").iterdir():
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
    assert "out: the same command goes on from what is saved here" in err
    assert [file.name for file in (net / "out").iterdir()] == [journal]
    done(*command)
    again = listing(net / "out")
    # The Markdown holds the command, whose program stands elsewhere in the other process.
    assert {name: digest for name, digest in again.items() if not name.endswith(".md")} == {
        name: digest for name, digest in expected.items() if not name.endswith(".md")
    }


def test_nothing_of_it_writes_outside_the_folder(done, net: Path) -> None:
    before = listing(net).keys()
    done(*ABLATE, "--methods", "minmax")
    assert {name.partition("/")[0] for name in listing(net).keys() - before} == {"out"}
