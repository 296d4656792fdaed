"""``trtcalib doctor``: what is installed, what works here, and how to get the rest."""

from __future__ import annotations

import json
import os
import sys
from importlib.metadata import PackageNotFoundError

import pytest

from trtcalib import diagnosis


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """Make this machine look as the test says."""

    def pretend(installed=(), *, architecture="x86_64", runtime=True, venv=True, system=()):
        packages = dict(installed)

        def version(name):
            if name not in packages:
                raise PackageNotFoundError(name)
            return packages[name]

        monkeypatch.setattr(diagnosis, "version", version)
        monkeypatch.setattr(diagnosis.platform, "machine", lambda: architecture)
        monkeypatch.setattr(diagnosis, "_SYSTEM_PACKAGES", tuple(map(str, system)))
        monkeypatch.setattr(sys, "prefix", "/venv" if venv else sys.base_prefix)
        monkeypatch.setenv("PATH", str(tmp_path / "bin"))
        if not runtime:
            monkeypatch.setitem(sys.modules, "onnxruntime", None)

    return pretend


def parts(done):
    return {part["name"]: part for part in json.loads(done("doctor", "--json").out)["parts"]}


def jobs(done):
    return {job["command"]: job for job in json.loads(done("doctor", "--json").out)["jobs"]}


def test_text_names_every_part_and_every_command(done):
    result = done("doctor")
    for word in (
        "ONNX Runtime",
        "TensorRT",
        "PyCUDA",
        "NVIDIA GPU",
        "calibrate",
        "solve",
        "cache show",
        "plot --histograms",
        "trtexec",
    ):
        assert word in result.out
    assert result.err == ""


def test_json_has_a_version_and_nothing_but_json(done):
    content = json.loads(done("doctor", "--json").out)
    assert content["schema_version"] == 1
    assert content.keys() == {"schema_version", "parts", "jobs"}


def test_onnx_runtime_and_its_providers(done, machine):
    machine({"onnxruntime": "1.20.0"})
    assert "onnxruntime 1.20.0 (" in parts(done)["ONNX Runtime"]["found"]
    assert "CPUExecutionProvider" in parts(done)["ONNX Runtime"]["found"]
    assert jobs(done)["calibrate"]["works"] is True


def test_without_onnx_runtime_it_says_how_to_get_it_and_what_works_all_the_same(done, machine):
    machine(runtime=False)
    runtime = parts(done)["ONNX Runtime"]
    assert runtime["found"] == ""
    assert "pip install 'trtcalib[cpu]', or 'trtcalib[cuda]' for onnxruntime-gpu" in runtime["advice"]
    assert {name: job["works"] for name, job in jobs(done).items()} == {
        "calibrate": False, "demo": False, "plot MODEL.onnx": False, "study": False, "evaluate": False, "advise": False, "ablate": False, "sweep": False, "sensitivity": False, "crosscheck": False,
        "plot --histograms": True, "solve": True, "report": True,
        "cache show": True, "cache verify": True,
        "cache lint, diff, merge, convert, rename, set, export, from-qdq": True, "qdq": True, "migrate": True,
        "check-builder": False, "trtexec --int8 --calib=OUT.cache": False,
        "build": False, "infer": False, "evaluate --engine": False, "engine inspect": False,
    }  # fmt: skip


def test_both_onnx_runtimes_clash(done, machine):
    machine({"onnxruntime": "1.20.0", "onnxruntime-gpu": "1.20.0"})
    assert "clash: uninstall one" in parts(done)["ONNX Runtime"]["advice"]


def test_a_system_tensorrt_that_the_virtual_environment_hides(done, machine, folder):
    (folder / "dist-packages" / "tensorrt").mkdir(parents=True)
    machine(system=[folder / "dist-packages"])
    advice = parts(done)["TensorRT"]["advice"]
    assert f"{folder / 'dist-packages' / 'tensorrt'} is hidden by this virtual environment" in advice
    assert "--system-site-packages" in advice


def test_tensorrt_on_a_jetson(done, machine):
    machine(architecture="aarch64", runtime=False)
    assert "JetPack" in parts(done)["TensorRT"]["advice"]
    assert "Jetson" in parts(done)["ONNX Runtime"]["advice"]


def test_tensorrt_that_reads_caches(done, machine):
    machine({"tensorrt": "10.3.0"})
    assert parts(done)["TensorRT"] == {"name": "TensorRT", "found": parts(done)["TensorRT"]["found"], "advice": ""}
    assert "10.3.0" in parts(done)["TensorRT"]["found"]
    assert jobs(done)["trtexec --int8 --calib=OUT.cache"]["works"] is True


def test_tensorrt_that_has_no_calibrators_any_more(done, machine):
    machine({"tensorrt": "11.0.0"})
    assert "tensorrt>=8.6,<11" in parts(done)["TensorRT"]["advice"]
    assert jobs(done)["trtexec --int8 --calib=OUT.cache"]["works"] is False


@pytest.mark.skipif(os.name == "nt", reason="the stand-in for nvidia-smi is a shell script")
@pytest.mark.parametrize(
    ("script", "found", "advice"),
    [
        ("echo 'NVIDIA H100, 9.0, 550.54'", "NVIDIA H100, 9.0, 550.54", ""),
        ("echo 'no devices were found'; exit 6", "", "nvidia-smi fails: no devices were found"),
        ("exit 9", "", "nvidia-smi fails"),
    ],
)
def test_the_gpu_is_what_nvidia_smi_says(done, machine, folder, script, found, advice):
    machine()
    (folder / "bin").mkdir()
    (folder / "bin" / "nvidia-smi").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "bin" / "nvidia-smi").chmod(0o755)
    gpu = parts(done)["NVIDIA GPU"]
    assert gpu["found"] == found
    assert gpu["advice"].startswith(advice)


def test_no_gpu(done, machine):
    machine()
    assert "no nvidia-smi here" in parts(done)["NVIDIA GPU"]["advice"]


def test_it_tells_of_every_command(done):
    from trtcalib.cli.main import app

    names = [command.name or command.callback.__name__ for command in app.registered_commands]
    for group in app.registered_groups:
        names += [f"{group.name} {c.name or c.callback.__name__}" for c in group.typer_instance.registered_commands]
    told = {row.split(" MODEL")[0].split(" --")[0] for row in jobs(done)}
    # The tools of a group that need nothing stand in one row: "cache lint, diff, ...".
    told |= {
        f"{row.split()[0]} {tool}" for row in jobs(done) if "," in row for tool in row.split(maxsplit=1)[1].split(", ")
    }
    assert len(names) > 20
    assert [name for name in names if name not in told] == ["doctor"]


def test_tensorrt_rtx_is_what_check_builder_needs(done, machine):
    machine({"onnxruntime": "1.20.0"})
    assert parts(done)["TensorRT-RTX"]["advice"].startswith("pip install 'trtcalib[rtx]'")
    assert jobs(done)["check-builder"] == {"command": "check-builder", "works": False, "reason": "needs TensorRT-RTX"}
    machine({"onnxruntime": "1.20.0", "tensorrt-rtx-cu12-bindings": "1.7.1.116"})
    assert parts(done)["TensorRT-RTX"]["found"] == "1.7.1.116"
    assert jobs(done)["check-builder"]["works"] is True
