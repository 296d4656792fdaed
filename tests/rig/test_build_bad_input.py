"""``trtcalib build`` over the simulated builder, with input or a machine that cannot do: clear words, and nothing left behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from tests.cli.helpers import listing
from tests.rig.flow import CONV, ROOT, calibrating_flow

BUILD = ["build", "model.onnx", "--data", "data.npy", "--batch-size", 4, "-o", "out.engine"]

AREA = "area (float[N, 2, H, W] x) => (float[N, 2, H, W] y) { y = Relu(x) }"


@pytest.fixture
def flow(tmp_path, version):
    return calibrating_flow(tmp_path, version)


@pytest.fixture
def ready(flow):
    """A flow with a model and data that are in order."""
    flow.model()
    flow.data(12)
    return flow


# The environment: exit code 3


@pytest.mark.parametrize(
    ("switch", "said"),
    [
        (
            "SIMULATED_CUDA_NO_DEVICE",
            "the NVIDIA driver sees no GPU (cuInit failed: no CUDA-capable device is detected): check",
        ),
        ("SIMULATED_CUDA_OLD_DRIVER", "the NVIDIA driver is too old for this CUDA (cuInit failed: "),
    ],
)
def test_simulated_driver_without_a_gpu_or_too_old(ready, switch, said):
    assert ready.refused(*BUILD, code=3, **{switch: "1"}).startswith(said)


@pytest.mark.parametrize("module", ["tensorrt", "pycuda"])
def test_missing_packages_are_named_with_the_command_that_installs_them(ready, tmp_path, module):
    # As simulated_cli, with one package hidden.
    hide = f"""
import importlib.abc, runpy, sys
class Hidden(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ({module!r}, "cuda"):  # which would take PyCUDA's place
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Hidden())
if {module!r} == "tensorrt":
    from trtcalib.cli.main import run
    sys.argv[:] = ["trtcalib", *sys.argv[2:]]
    run()
runpy.run_module("tests.rig.simulated_cli", run_name="__main__")
"""
    before = listing(ready.folder)
    found = subprocess.run(
        [sys.executable, "-B", "-c", hide, ready.version, *map(str, BUILD)],
        cwd=ready.folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert found.returncode == 3, found
    assert f"the package '{module}' is missing: " in found.stderr
    assert "pip install 'trtcalib[tensorrt]'" in found.stderr
    assert found.stderr.count("\n") == 1
    assert found.stdout == ""
    assert listing(ready.folder) == before


def test_simulated_device_without_memory_says_how_much_was_asked_for(flow):
    flow.model(AREA)
    flow.data(4, 2, 64, 64)
    build = ["build", "model.onnx", "--data", "data.npy", "--shapes", "x:4x2x64x64", "-o", "out.engine"]
    # In a process of its own: the simulated driver reads its size when it starts.
    before = listing(flow.folder)
    result = flow.start(*build, SIMULATED_CUDA_MEMORY="65536")
    assert result.code == 3, result
    assert (
        "trtcalib: calibration stopped after 0 batches, nothing was kept: out of device memory: asked for 131072 bytes, "
        in result.err
    )
    assert "of 65536 are free: take a smaller batch, or stop what else runs on the GPU" in result.err
    assert listing(flow.folder) == before


def test_simulated_device_without_int8(ready):
    assert ready.refused(*BUILD, code=3, knobs={"platform_has_fast_int8": False}) == (
        "TensorRT says that this GPU has no INT8: an INT8 engine cannot be built here"
    )


# The model


@pytest.mark.parametrize("name", ["conv", ""])
def test_simulated_parser_and_an_unknown_operator(flow, name):
    flow.model(CONV if name else CONV.replace("[conv] ", ""))
    flow.data(8, 2, 4, 4)
    said = flow.refused(*BUILD, knobs={"unknown_operators": ["Conv"]})
    assert said.startswith("model.onnx: TensorRT's parser refuses the model: ")
    assert f"node {'conv' if name else 'number 0'!r} (Conv): " in said


def test_simulated_build_of_what_is_no_model(ready):
    ready.write("model.onnx", "this is no model")
    assert ready.refused(*BUILD).startswith("model.onnx: ")
    (ready.folder / "model.onnx").unlink()
    assert ready.refused(*BUILD).startswith("model.onnx: ")


def test_simulated_fallback_to_layers_that_are_not_there(ready):
    said = ready.refused(*BUILD, "--fallback", "fp32:reluu,nothing*", "--fallback", "fp16:product").splitlines()
    assert len(said) == 2
    assert said[0].startswith("engine spec: builder.fallback.fp32: no layer is called 'reluu'")
    assert "'relu'" in said[0]
    assert "no layer is called 'nothing*'" in said[1]
    assert "--fallback: found 'int8:relu', expected fp16:LAYER" in ready.refused(*BUILD, "--fallback", "int8:relu")


# The data


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("calibrator", ["entropy", "minmax", "percentile-99"])
def test_simulated_calibration_on_values_that_are_not_finite(ready, value, calibrator):
    data = np.load(ready.folder / "data.npy")
    data[9, 1] = value
    np.save(ready.folder / "data.npy", data)
    said = ready.refused(*BUILD, "--calibrator", calibrator)
    if calibrator.startswith("percentile"):
        assert "sample 9" in said
    else:
        assert said == (
            "calibration stopped after 2 batches, nothing was kept: data.npy: sample 9: input 'x' holds NaN or an infinite value"
        )


FEEDS = """
import os, signal, sys, threading, time
import numpy as np

def feeds():
    for n in range(12):
        yield {"x": np.full((1, 3), n + 1, np.float32)}

def failing():
    for n, feed in enumerate(feeds()):
        if n == 6:
            raise RuntimeError("the disk is gone")
        yield feed

def exiting():
    for n, feed in enumerate(feeds()):
        if n == 6:
            sys.exit(0)
        yield feed

def interrupted():
    for n, feed in enumerate(feeds()):
        if n == 6:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.1)
        yield feed

def other_name():
    for n, feed in enumerate(feeds()):
        yield {"z": feed["x"]} if n == 6 else feed

def other_dtype():
    for n, feed in enumerate(feeds()):
        yield {"x": feed["x"].astype(np.float64)} if n == 6 else feed

def other_shape():
    for n, feed in enumerate(feeds()):
        yield {"x": feed["x"][:, :2]} if n == 6 else feed

def few():
    yield {"x": np.ones((3, 3), np.float32)}

def none():
    return []

def endless():
    n = 0
    while True:
        n += 1
        if n == 40:
            open(os.environ["STARTED"], "w").close()
        time.sleep(0.01)
        yield {"x": np.full((1, 3), n, np.float32)}
"""


@pytest.fixture
def feeds(ready):
    ready.write("feeds.py", FEEDS)
    return lambda name: ["build", "model.onnx", "--data", f"feeds:{name}", "--batch-size", 4, "-o", "out.engine"]


@pytest.mark.parametrize("calibrator", ["entropy", "percentile-99"])
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("failing", "feeds:failing: sample 6: the function raised RuntimeError: the disk is gone"),
        ("other_name", "feeds:other_name: sample 6: input 'x' is missing; found 'z'"),
        ("other_dtype", "feeds:other_dtype: sample 6: input 'x' is float64, the model takes float32: "),
        ("other_shape", "feeds:other_shape: sample 6: input 'x' has shape (1, 2), the model takes [?, 3]"),
        ("none", "feeds:none: the function gave no samples"),
    ],
)
def test_simulated_calibration_on_a_function_that_fails_halfway(ready, feeds, name, said, calibrator):
    found = ready.refused(*feeds(name), "--calibrator", calibrator)
    assert said in found
    if calibrator == "entropy":
        # Samples are read ahead, so that the fault may be met before the first batch is full.
        assert re.match(r"calibration stopped after (0 batches|1 batch), nothing was kept: ", found)


def test_simulated_calibration_on_samples_of_another_shape_names_the_sample(flow):
    flow.model(AREA)
    flow.write(
        "feeds.py",
        "import numpy as np\n\ndef feeds():\n    for n in range(8):\n"
        "        yield {'x': np.ones((1, 2, 4, 5 if n == 5 else 4), np.float32)}\n",
    )
    build = [
        "build",
        "model.onnx",
        "--data",
        "feeds:feeds",
        "--shapes",
        "x:1x2x4x4,2x2x4x4,4x2x8x8",
        "-o",
        "out.engine",
    ]
    assert flow.refused(*build) == (
        "calibration stopped after 2 batches, nothing was kept: feeds:feeds: sample 5: input 'x' has shape (1, 2, 4, 5), and "
        "TensorRT calibrates at (2, 2, 4, 4), the profile's kOPT shape"
    )


@pytest.mark.parametrize("source", ["data.npy", "feeds:few"])
def test_simulated_calibration_on_fewer_samples_than_a_batch(ready, feeds, source):
    ready.data(3)
    build = [source if argument == "data.npy" else argument for argument in BUILD]
    assert f"{source}: fewer samples than the 4 that one batch needs" in ready.refused(*build)


def test_simulated_calibration_is_not_ended_by_an_exit_in_the_data(ready, feeds):
    """``sys.exit`` in somebody's loader must not pass for the end of the data."""
    before = listing(ready.folder)
    result = ready.run(*feeds("exiting"))
    assert not (ready.folder / "out.engine").exists()
    assert listing(ready.folder) == before
    assert "written by TensorRT" not in result.out


def test_simulated_build_without_data(ready):
    said = ready.refused("build", "model.onnx", "-o", "out.engine")
    assert said == "engine spec: data: this key is missing, and the model holds no Q/DQ nodes: give --data"
    assert ready.refused("build", "model.onnx", "--data", "nowhere.npz", "-o", "out.engine").startswith(
        "nowhere.npz: no such file or folder; expected a .npz, "
    )


# Interrupted, or failed


@pytest.mark.parametrize("calibrator", ["entropy", "minmax", "percentile-99"])
def test_simulated_ctrl_c_while_batches_are_fed_leaves_nothing(ready, feeds, calibrator):
    before = listing(ready.folder)
    result = ready.run(*feeds("interrupted"), "--calibrator", calibrator)
    assert result.code == 130, result
    assert "trtcalib: interrupted; no result was written" in result.err
    assert "Traceback" not in result.err
    assert result.out == ""
    assert listing(ready.folder) == before
    if calibrator != "percentile-99":
        assert not ready.is_8 or result.build["calibration"]["written"]  # TensorRT wrote its cache all the same


def test_simulated_ctrl_c_at_a_process_of_its_own_leaves_nothing(ready, feeds, tmp_path):
    started = tmp_path / "started"
    before = listing(ready.folder)
    code = "import signal, runpy; signal.signal(signal.SIGINT, signal.default_int_handler); "
    code += "runpy.run_module('tests.rig.simulated_cli', run_name='__main__', alter_sys=True)"
    process = subprocess.Popen(
        [sys.executable, "-B", "-c", code, ready.version, *map(str, feeds("endless"))],
        cwd=ready.folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "STARTED": str(started)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        deadline = time.monotonic() + 60
        while not started.exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130, err
    assert (out, "Traceback" in err) == ("", False)
    assert "trtcalib: interrupted; no result was written" in err
    assert listing(ready.folder) == before


def test_simulated_build_that_fails_tells_tensorrts_last_error(ready):
    said = ready.refused(*BUILD, knobs={"fail_build": True})
    assert said == (
        "model.onnx: TensorRT built no engine: Could not find any implementation for node {ForeignNode[simulated]}."
    )


# Where results go


def test_simulated_results_must_have_a_place(ready):
    def build(*options):
        return ready.refused(*BUILD[:-1], *options)

    assert build("nowhere/out.engine") == "nowhere/out.engine: the folder 'nowhere' does not exist: create it first"
    assert build("out.engine", "--cache", "nowhere/x.cache").startswith("nowhere/x.cache: the folder 'nowhere' does")
    assert build("out.engine", "--timing-cache", "nowhere/t").startswith("nowhere/t: the folder 'nowhere' does")
    assert build(".") == ".: is a folder; expected the name of a file to write"
    assert "say where the engine goes: -o OUT.engine" in ready.run(*BUILD[:-2]).words.replace("│", "")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write into a read-only folder")
def test_simulated_results_in_a_read_only_folder(ready):
    folder = ready.folder / "locked"
    folder.mkdir(mode=0o500)
    assert ready.refused(*BUILD[:-1], "locked/out.engine").endswith("cannot be written to")


@pytest.mark.parametrize(
    "options",
    [
        ["-o", "model.onnx"],
        ["-o", "data.npy"],
        ["-o", "out.engine", "--cache", "out.engine"],
        ["-o", "out.engine", "--cache", "model.onnx"],
        ["-o", "out.engine", "--timing-cache", "data.npy"],
        ["-o", "out.engine", "--cache", "out.engine.json"],
        ["-o", "out.cache"],
    ],
    ids=" ".join,
)
def test_simulated_results_do_not_take_the_place_of_inputs(ready, options):
    said = ready.refused(*BUILD[:-2], *options)
    assert said.endswith("is an input or another result of this command: choose another name")


def test_simulated_results_on_a_full_disk_are_written_whole_or_not_at_all(ready):
    """The folder is writable and there is no room: the limit on the size of files stands for the full disk."""
    before = listing(ready.folder)
    limit = "import resource, signal, runpy; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
    limit += "resource.setrlimit(resource.RLIMIT_FSIZE, (400, 400)); "
    limit += "runpy.run_module('tests.rig.simulated_cli', run_name='__main__', alter_sys=True)"
    found = subprocess.run(
        [sys.executable, "-B", "-c", limit, ready.version, *map(str, BUILD)],
        cwd=ready.folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert found.returncode == 2, found
    assert "trtcalib: out.engine: cannot be written: File too large" in found.stderr
    assert found.stdout == ""
    assert listing(ready.folder) == before


@pytest.mark.parametrize("fault", ["data", "build", "spec"])
def test_simulated_build_that_fails_leaves_what_stood_there(ready, fault):
    """An engine and a cache from before stay as they are, byte for byte."""
    ready.run(*BUILD)
    assert (ready.folder / "out.engine").exists()
    ready.data(12, seed=1)
    options, knobs = {
        "data": (["--max-samples", 3], {}),
        "build": ([], {"fail_build": True}),
        "spec": (["--fallback", "fp32:nothing"], {}),
    }[fault]
    ready.refused(*BUILD, *options, knobs=knobs)


# Engine specs


def test_simulated_build_of_an_engine_spec_with_faults_tells_them_all(ready):
    ready.write(
        "mine.yaml", "modle: model.onnx\nbatch_size: 0\nbuilder: {workspce: 1, workspace: much}\nshapes: {x: 3}\n"
    )
    said = ready.refused("build", "mine.yaml").splitlines()
    assert all(line.startswith("mine.yaml: ") for line in said)
    for key in ("modle", "batch_size", "workspce", "workspace", "shapes.x"):
        assert any(key in line for line in said), (key, said)
    assert any("'model'" in line for line in said)
    assert not (ready.folder / "out").exists()


def test_simulated_build_of_an_engine_spec_runs_no_code_from_it(ready, feeds):
    ready.write("mine.yaml", "model: model.onnx\ndata: feeds:feeds\noutput: out.engine\n")
    said = ready.refused("build", "mine.yaml")
    assert "feeds:feeds" in said
    assert "no" in said


@pytest.mark.parametrize("calibrator", ["entropie", "percentile-101", "percentile-x", "nowhere.yaml", "two.yaml"])
def test_simulated_build_with_a_calibrator_that_is_none(ready, calibrator):
    ready.write("two.yaml", "method: percentile\npercentile: 101\nrnage: global\n")
    said = ready.refused(*BUILD, "--calibrator", calibrator)
    assert calibrator.removeprefix("percentile-") in said or calibrator in said
    if calibrator == "entropie":
        assert "'entropy'" in said or "entropy" in said
    if calibrator == "two.yaml":
        assert len(said.splitlines()) == 2
