"""``--help``, exit codes, and what a process must be: quick to start, quiet, and polite to pipes."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys

import numpy as np
import pytest

from tests.cli.helpers import NET, normal, plain, python, save_model
from tests.trt.fakes import hide

COMMANDS = [
    "",
    "calibrate",
    "crosscheck",
    "solve",
    "plot",
    "cache show",
    "cache verify",
    "cache lint",
    "cache diff",
    "cache merge",
    "cache convert",
    "cache rename",
    "cache set",
    "cache export",
    "study",
    "evaluate",
    "advise",
    "ablate",
    "sweep",
    "sensitivity",
    "report",
    "qdq",
    "cache from-qdq",
    "migrate",
    "doctor",
    "demo",
]

WITH_TENSORRT = ["build", "infer", "engine inspect"]
"""What needs TensorRT; tests/rig and tests/gpu run it."""

HEAVY = ("onnxruntime", "tensorrt", "tensorrt_rtx", "pycuda", "numba", "matplotlib", "torch", "onnx")

WITHOUT_RUNTIME = "raise ImportError('this stands in for a machine without ONNX Runtime')\n"


def example(text):
    return re.search(r"Example: trtcalib (.*)", plain(text))[1]


@pytest.mark.parametrize("command", COMMANDS + WITH_TENSORRT)
def test_every_command_shows_an_example(done, command):
    result = done(*command.split(), "--help")
    assert example(result.out).startswith(command)
    assert result.err == ""


def test_the_examples_run_as_they_stand(cli, done, folder):
    save_model(folder / "model.onnx", NET.replace("y", "relu1"))
    np.savez(folder / "images.npz", images=normal(32, 4))
    (folder / "names.yaml").write_text("relu1: relu_1\n")
    done("calibrate", "model.onnx", "--data", "images.npz", "--histograms", "model.npz", "-o", "first.cache")
    for command in COMMANDS:
        text = example(done(*command.split(), "--help").out)
        if command != "demo":  # test_demo.py runs it
            result = cli(*shlex.split(text))
            assert result.code == (command == "cache diff"), result.err  # which finds differences
            # Where samples are held out, the rest fills no batch; advise tells its steps.
            said = ("note: ", "... ", "finding: partial-last-batch: the last batch has 24 of 32 samples")
            assert all(line.startswith(said) for line in result.err.splitlines()), result.err
    assert {"model.cache", "model-minmax.cache", "relu1.png"} <= {file.name for file in folder.iterdir()}


@pytest.mark.parametrize("command", WITH_TENSORRT)
def test_the_examples_that_need_tensorrt_lack_nothing_else(done, refused, folder, monkeypatch, command):
    hide(monkeypatch)
    save_model(folder / "model.onnx", NET)
    np.savez(folder / "images.npz", images=normal(32, 4))
    (folder / "model.engine").touch()
    text = example(done(*command.split(), "--help").out)
    assert "the package 'tensorrt' is missing" in refused(*shlex.split(text), code=3)


def test_no_arguments_show_the_help(cli):
    result = cli()
    assert result.code == 2
    assert "Example: trtcalib" in result.text


def test_the_group_without_a_command_shows_its_help(cli):
    result = cli("cache")
    assert result.code == 2
    assert "show" in result.text
    assert "verify" in result.text


def test_version(done):
    assert re.fullmatch(r"trtcalib \S+\n", done("--version").out)


@pytest.mark.parametrize(
    "action", ["import trtcalib", "sys.argv = ['trtcalib', '--help']; from trtcalib.cli.main import _run; _run()"]
)
def test_importing_and_help_leave_the_heavy_packages_alone(folder, action):
    code = f"import sys; {action}; print(*sorted({HEAVY!r} & sys.modules.keys()), sep=',', file=sys.stderr)"
    code = code.replace(f"{HEAVY!r}", f"set({HEAVY!r})")
    result = python("-c", code, cwd=folder)
    assert (result.returncode, result.stderr) == (0, "\n")


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ("cache show out.cache", 0),
        ("calibrate model.onnx --data data.npy -o again.cache --fail-on finding", 1),
        ("cache show missing.cache", 2),
        ("cache show --colour out.cache", 2),
        ("calibrate model.onnx --data data.npy -o again.cache", 3),
    ],
)
def test_exit_codes_of_the_process(done, net, arguments, code):
    done("calibrate", "model.onnx", "--data", "data.npy", "-o", "out.cache")
    if code == 3:
        (net / "onnxruntime.py").write_text(WITHOUT_RUNTIME)  # `python -m` finds the current folder first
    result = python("-m", "trtcalib", *arguments.split(), cwd=net)
    assert result.returncode == code, result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.skipif(os.name == "nt", reason="closed pipes are told differently on Windows")
@pytest.mark.parametrize(
    "command", ["--help", "doctor", "cache show out.cache", "cache verify out.cache", "cache show out.cache --json"]
)
def test_a_reader_that_goes_away_is_no_finding_and_no_traceback(done, net, command):
    done("calibrate", "model.onnx", "--data", "data.npy", "-o", "out.cache")
    end, start = os.pipe()
    os.close(end)
    process = [sys.executable, "-m", "trtcalib", *command.split()]
    result = subprocess.run(process, stdout=start, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    os.close(start)
    assert result.returncode == 141
    assert result.stderr.strip() == ""


def test_no_progress_bar_where_stderr_is_no_terminal(done, net):
    result = done("calibrate", "model.onnx", "--data", "data.npy", "--drop-last", "-o", "out.cache")
    assert result.err == ""
    assert result.out.count("\n") == 1


@pytest.mark.skipif(os.name == "nt", reason="Windows has no pseudo-terminals here")
def test_the_progress_bar_shows_images_per_second_on_a_terminal(net):
    import pty

    controller, terminal = pty.openpty()
    command = [
        sys.executable,
        "-m",
        "trtcalib",
        "calibrate",
        "model.onnx",
        "--data",
        "data.npy",
        "--drop-last",
        "-o",
        "out.cache",
    ]
    result = subprocess.run(
        command,
        stderr=terminal,
        stdout=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "TERM": "xterm"},
    )
    os.close(terminal)
    shown = b""
    try:
        while chunk := os.read(controller, 1 << 16):
            shown += chunk
    except OSError:
        pass  # how Linux says that the other end is closed
    os.close(controller)
    assert result.returncode == 0
    assert b"images/s" in shown
    assert b"32/32" in shown
    assert "images/s" not in result.stdout
