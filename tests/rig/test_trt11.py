"""TensorRT 11, which has no calibrators: said so, and engines from Q/DQ models; its real bindings over a simulated builder."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.models import DENSE, save_model

QUANTIZED = """
quantized (float[N, 3, 4, 4] x) => (float[N, 2, 4, 4] y)
<float scale = {0.5}, int8 zero = {0}, int8[2, 3, 1, 1] w = {1, 2, 3, 4, 5, 6}, float[2] scales = {0.25, 0.5}, int8[2] zeros = {0, 0}>
{
    [quantize] q = QuantizeLinear(x, scale, zero)
    [dequantize] d = DequantizeLinear(q, scale, zero)
    [weights] v = DequantizeLinear<axis = 0>(w, scales, zeros)
    [conv] y = Conv(d, v)
}
"""

WHY = "TensorRT 11 removed calibrators: it takes INT8 only from a model with explicit QuantizeLinear/DequantizeLinear"
CALIBRATORS = ["EntropyCalibrator", "MinMaxCalibrator", "PercentileCalibrator"]


@pytest.fixture(autouse=True)
def _eleven(trt, version):
    if not version.startswith("11."):
        pytest.skip("about TensorRT 11")


@pytest.fixture
def cli(version, tmp_path):
    """Run a command line of trtcalib in an empty folder that holds two models and data for each."""
    folder = tmp_path / "here"
    folder.mkdir()
    random = np.random.default_rng(0)
    for name, text, shape in (("plain", DENSE, (8, 3)), ("quantized", QUANTIZED, (8, 3, 4, 4))):
        save_model(folder / f"{name}.onnx", text)
        np.savez(folder / f"{name}.npz", x=random.random(shape, np.float32))
    given = set(folder.iterdir())

    def run(*arguments):
        command = [sys.executable, "-m", "tests.rig.simulated_cli", version, *arguments]
        paths = os.pathsep.join([str(Path.cwd()), *filter(None, [os.environ.get("PYTHONPATH")])])
        where = {"PYTHONPATH": paths, "TRTCALIB_RIG": str(Path(os.environ["TRTCALIB_RIG"]).resolve())}
        done = subprocess.run(
            command, cwd=folder, env=os.environ | where, capture_output=True, text=True, check=False, timeout=120
        )
        done.new = {path.name for path in set(folder.iterdir()) - given}
        return done

    run.folder = folder
    return run


# The calibrators


@pytest.mark.parametrize("name", CALIBRATORS)
def test_bindings_11_importing_a_calibrator_says_why_not(version, name):
    import trtcalib.trt
    from trtcalib.errors import InstalledTensorRTError, TrtcalibError

    with pytest.raises(InstalledTensorRTError) as caught:
        getattr(trtcalib.trt, name)
    assert isinstance(caught.value, TrtcalibError)
    assert caught.value.exit_code == 3
    assert caught.value.version == version
    text = str(caught.value)
    assert text.startswith(f"TensorRT {version} is installed, and {WHY}")
    assert "(Q/DQ)" in text
    assert "pip install 'tensorrt>=8.6,<11'" in text
    assert "\n" not in text


def test_bindings_11_a_failed_import_leaves_no_half_module():
    from trtcalib.errors import InstalledTensorRTError

    for _ in range(2):
        with pytest.raises(InstalledTensorRTError):
            import trtcalib.trt.calibrators  # noqa: F401
    assert "trtcalib.trt.calibrators" not in sys.modules


def test_bindings_11_what_needs_no_calibrator_imports():
    import trtcalib.trt
    import trtcalib.trt.engine
    import trtcalib.trt.inference

    assert trtcalib.trt.BatchFeeder
    assert trtcalib.trt.InputProfile


# trtcalib build


@pytest.mark.parametrize("calibrator", ["entropy", "minmax", "percentile-99.9"])
def test_simulated_build_11_of_a_plain_model_is_one_clear_line(cli, version, calibrator):
    done = cli("build", "plain.onnx", "--data", "plain.npz", "--calibrator", calibrator, "-o", "plain.engine")
    assert done.returncode == 3
    assert done.stdout == ""
    assert done.stderr.startswith(f"trtcalib: TensorRT {version} is installed, and {WHY}")
    assert done.stderr.count("\n") == 1
    assert done.new == set()


def test_simulated_build_11_of_a_model_with_qdq_needs_no_calibrator(cli, version):
    done = cli("build", "quantized.onnx", "-o", "q.engine")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"TensorRT {version}" in done.stdout
    assert done.new == {"q.engine", "q.engine.json"}
    manifest = json.loads((cli.folder / "q.engine.json").read_text())
    assert manifest["explicit_quantization"]
    assert manifest["tensorrt_version"] == version
    assert (manifest["cache"], manifest["recipe"], manifest["data"]) == (None, None, None)
    assert manifest["batches_fed"] == 0
    assert manifest["findings"] == []


def test_simulated_build_11_says_that_data_were_not_needed(cli):
    done = cli("build", "quantized.onnx", "--data", "quantized.npz", "-o", "q.engine")
    assert done.returncode == 0
    assert "finding: calibrator-ignored: the model holds Q/DQ nodes" in done.stderr
    manifest = json.loads((cli.folder / "q.engine.json").read_text())
    assert [finding["code"] for finding in manifest["findings"]] == ["calibrator-ignored"]
    assert done.new == {"q.engine", "q.engine.json"}


def test_simulated_build_11_fails_on_that_finding_if_asked(cli):
    done = cli(
        "build", "quantized.onnx", "--data", "quantized.npz", "-o", "q.engine", "--fail-on", "calibrator-ignored"
    )
    assert done.returncode == 1


@pytest.mark.parametrize("option", ["--fp16", "--fallback=fp16:conv", "--fallback=fp32:conv"])
def test_simulated_build_11_has_no_precisions_to_choose(cli, version, option):
    done = cli("build", "quantized.onnx", option, "-o", "q.engine")
    assert done.returncode == 3
    assert done.stderr.startswith(
        f"trtcalib: TensorRT {version} builds strongly typed networks only: fp16 and fallback"
    )
    assert done.stderr.count("\n") == 1
    assert done.new == set()


def test_simulated_build_11_sets_no_flag_that_it_has_not(cli, monkeypatch):
    monkeypatch.setenv("TRTCALIB_RIG_RECORD", str(cli.folder / "record.json"))
    options = ["--no-tf32", "--workspace", "1MiB", "--timing-cache", "timing", "--shapes", "x:1x3x4x4,2x3x4x4,8x3x4x4"]
    done = cli("build", "quantized.onnx", *options, "-o", "q.engine")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.new == {"q.engine", "q.engine.json", "timing", "record.json"}
    (build,) = json.loads((cli.folder / "record.json").read_text())["builds"]
    assert build["calibration"] is None
    assert build["memory_pools"] == {"WORKSPACE": 1 << 20}
    assert build["profiles"] == [{"x": [[1, 3, 4, 4], [2, 3, 4, 4], [8, 3, 4, 4]]}]
    assert "TF32" not in build["flags"]


# What follows on a build


def test_simulated_engine_11_runs_and_is_inspected(cli, version):
    assert cli("build", "quantized.onnx", "--shapes", "x:1x3x4x4,2x3x4x4,8x3x4x4", "-o", "q.engine").returncode == 0

    done = cli("infer", "q.engine", "--data", "quantized.npz", "-o", "outputs.npz", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["samples"] == 8
    with np.load(cli.folder / "outputs.npz") as outputs, np.load(cli.folder / "quantized.npz") as data:
        quantized = np.clip(np.rint(data["x"] / np.float32(0.5)), -128, 127) * 0.5
        weights = np.arange(1, 7, dtype=np.float32).reshape(2, 3) * np.array([[0.25], [0.5]], np.float32)
        np.testing.assert_allclose(outputs["y"], np.einsum("oc,nchw->nohw", weights, quantized), rtol=1e-5)

    done = cli("engine", "inspect", "q.engine", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    conv = next(layer for layer in told["layers"] if layer["name"] == "conv")
    assert conv["precision"] == "INT8"
    text = cli("engine", "inspect", "q.engine").stdout
    assert re.search(rf"layers for TensorRT {re.escape(version)}: \d+ INT8", text)


def test_simulated_engine_11_of_another_version_is_refused(cli):
    assert cli("build", "quantized.onnx", "-o", "q.engine").returncode == 0
    engine = cli.folder / "q.engine"
    engine.write_bytes(engine.read_bytes().replace(b"11.4.0.106", b"11.3.0.106"))
    done = cli("infer", "q.engine", "--data", "quantized.npz", "-o", "outputs.npz")
    assert done.returncode != 0
    assert "q.engine" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (cli.folder / "outputs.npz").exists()
