"""What ``trtcalib doctor`` finds on machines that are not this one."""

from __future__ import annotations

import json
import platform
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import MappingProxyType, SimpleNamespace

import pytest

import trtcalib.diagnosis
from trtcalib.diagnosis import Diagnosis, Job, Part, diagnose


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Say what is installed, which processor it is, and what nvidia-smi answers."""

    def run(
        *, smi: object = None, arch: str = "x86_64", providers=(), hidden: bool = False, **installed: str
    ) -> Diagnosis:
        versions = {name.replace("_", "-"): number for name, number in installed.items()}

        def version(package: str) -> str:
            if package not in versions:
                raise PackageNotFoundError(package)
            return versions[package]

        def ask(*args: object, **options: object) -> object:
            if isinstance(smi, Exception):
                raise smi
            return smi

        if hidden:
            (tmp_path / "tensorrt").mkdir()
        monkeypatch.setattr(trtcalib.diagnosis, "version", version)
        monkeypatch.setattr(trtcalib.diagnosis, "available_providers", lambda: list(providers))
        monkeypatch.setattr(trtcalib.diagnosis, "_SYSTEM_PACKAGES", (str(tmp_path),))
        monkeypatch.setattr(platform, "machine", lambda: arch)
        monkeypatch.setattr(shutil, "which", lambda name: None if smi is None else f"/usr/bin/{name}")
        monkeypatch.setattr(subprocess, "run", ask)
        return diagnose()

    return run


def part(diagnosis: Diagnosis, name: str) -> Part:
    return next(part for part in diagnosis.parts if part.name == name)


def jobs(diagnosis: Diagnosis) -> dict[str, Job]:
    return {job.command: job for job in diagnosis.jobs}


def answer(out: str = "", err: str = "", code: int = 0) -> SimpleNamespace:
    return SimpleNamespace(stdout=out, stderr=err, returncode=code)


CPU = {"onnxruntime": "1.20", "providers": ["CPUExecutionProvider"]}
ALWAYS = ("plot --histograms", "solve", "cache show", "cache verify")


class TestRuntime:
    def test_none(self, machine) -> None:
        found = machine()
        advice = "pip install 'trtcalib[cpu]', or 'trtcalib[cuda]' for onnxruntime-gpu; never both, they clash"
        assert part(found, "ONNX Runtime") == Part("ONNX Runtime", "", advice)
        assert all(jobs(found)[name].works for name in ALWAYS)
        for name in ("calibrate", "demo", "plot MODEL.onnx"):
            assert jobs(found)[name] == Job(name, False, "needs ONNX Runtime")

    def test_none_on_a_jetson(self, machine) -> None:
        advice = part(machine(arch="aarch64"), "ONNX Runtime").advice
        assert advice.endswith("on a Jetson the CPU package is the right one for calibrate")

    def test_cpu(self, machine) -> None:
        found = machine(**CPU)
        assert part(found, "ONNX Runtime").found == "onnxruntime 1.20 (CPUExecutionProvider)"
        assert jobs(found)["calibrate"] == Job("calibrate", True, "ONNX Runtime runs the model on the CPU")

    def test_gpu_package(self, machine) -> None:
        found = machine(onnxruntime_gpu="1.19", providers=["CUDAExecutionProvider", "CPUExecutionProvider"])
        assert part(found, "ONNX Runtime").found == "onnxruntime-gpu 1.19 (CUDAExecutionProvider, CPUExecutionProvider)"

    def test_both_clash(self, machine) -> None:
        found = machine(**CPU, onnxruntime_gpu="1.19")
        assert (
            part(found, "ONNX Runtime").advice
            == "onnxruntime and onnxruntime-gpu are both installed and clash: uninstall one"
        )


class TestTensorRT:
    COMMAND = "trtexec --int8 --calib=OUT.cache"

    @pytest.mark.parametrize(
        ("package", "number"), [("tensorrt", "10.9.0"), ("tensorrt_cu12", "8.6.1"), ("tensorrt_cu13", "10.16.1")]
    )
    def test_with_calibrators(self, machine, package: str, number: str) -> None:
        found = machine(**{package: number})
        assert part(found, "TensorRT") == Part("TensorRT", f"{package.replace('_', '-')} {number}")
        assert jobs(found)[self.COMMAND] == Job(self.COMMAND, True, f"the caches are read by TensorRT {number} here")

    @pytest.mark.parametrize("number", ["11.0.0", "12.1"])
    def test_without_calibrators(self, machine, number: str) -> None:
        found = machine(tensorrt=number)
        assert part(found, "TensorRT").advice == "calibrators are gone in 11: pip install 'tensorrt>=8.6,<11'"
        assert not jobs(found)[self.COMMAND].works

    def test_none(self, machine) -> None:
        found = machine()
        advice = "pip install 'trtcalib[tensorrt]' on a machine with an NVIDIA GPU (pins TensorRT below 11)"
        assert part(found, "TensorRT") == Part("TensorRT", "", advice)
        assert jobs(found)[self.COMMAND].reason == "the caches are read on a machine that has TensorRT 8.6 to 10.16"

    def test_none_on_a_jetson(self, machine) -> None:
        expected = "on a Jetson it comes with JetPack: sudo apt install python3-libnvinfer"
        assert part(machine(arch="aarch64"), "TensorRT").advice == expected

    @pytest.mark.parametrize("arch", ["x86_64", "aarch64"])
    def test_hidden_by_the_virtual_environment(self, machine, monkeypatch, tmp_path: Path, arch: str) -> None:
        monkeypatch.setattr(sys, "base_prefix", "/elsewhere")
        advice = part(machine(arch=arch, hidden=True), "TensorRT").advice
        expected = "make the environment with: python3 -m venv --system-site-packages .venv"
        assert advice == f"{tmp_path / 'tensorrt'} is hidden by this virtual environment: {expected}"


class TestGpu:
    def test_none(self, machine) -> None:
        assert part(machine(), "NVIDIA GPU") == Part("NVIDIA GPU", "", "no nvidia-smi here: no driver, or a Jetson")

    def test_two(self, machine) -> None:
        lines = "NVIDIA H100, 9.0, 550.54\nNVIDIA T4, 7.5, 550.54\n"
        assert (
            part(machine(smi=answer(lines)), "NVIDIA GPU").found == "NVIDIA H100, 9.0, 550.54; NVIDIA T4, 7.5, 550.54"
        )

    @pytest.mark.parametrize(
        ("smi", "advice"),
        [
            (answer("no devices", code=6), "nvidia-smi fails: no devices"),
            (answer("", "driver mismatch", 18), "nvidia-smi fails: driver mismatch"),
            (answer(""), "nvidia-smi fails: "),
            (answer("", "x" * 1000, 1), f"nvidia-smi fails: {'x' * 200}"),
            (OSError("exec format error"), "nvidia-smi does not answer: exec format error"),
            (
                subprocess.TimeoutExpired("nvidia-smi", 10),
                "nvidia-smi does not answer: Command 'nvidia-smi' timed out after 10 seconds",
            ),
        ],
    )
    def test_that_does_not_answer(self, machine, smi: object, advice: str) -> None:
        assert part(machine(smi=smi), "NVIDIA GPU") == Part("NVIDIA GPU", "", advice)

    def test_a_jetson_without_nvidia_smi(self, machine, monkeypatch, tmp_path: Path) -> None:
        release = tmp_path / "nv_tegra_release"
        release.write_text("# R35 (release), REVISION: 4.1, GCID: 1, BOARD: t186ref\n", encoding="utf-8")
        monkeypatch.setattr("trtcalib.diagnosis._TEGRA", release)
        assert part(machine(), "NVIDIA GPU").found.startswith("Jetson (R35 (release), REVISION: 4.1")


class TestEngines:
    EVERYTHING = MappingProxyType({"pycuda": "2024.1", "smi": answer("NVIDIA T4, 7.5, 550.54\n")})

    def test_all_that_they_need(self, machine) -> None:
        found = jobs(machine(tensorrt="10.9.0", **self.EVERYTHING))
        for name in ("build", "infer", "engine inspect"):
            assert found[name] == Job(name, True, "by TensorRT 10.9.0")

    def test_nothing(self, machine) -> None:
        found = jobs(machine())
        assert found["build"] == Job("build", False, "needs TensorRT and PyCUDA and NVIDIA GPU")
        assert found["engine inspect"] == Job("engine inspect", False, "needs TensorRT and NVIDIA GPU")

    def test_tensorrt_11_builds_models_with_qdq(self, machine) -> None:
        found = jobs(machine(tensorrt="11.4.0", **self.EVERYTHING))
        limit = ", whose calibrators are gone: models with Q/DQ nodes only"
        assert found["build"] == Job("build", True, f"by TensorRT 11.4.0{limit}")
        assert found["infer"] == Job("infer", True, "by TensorRT 11.4.0")


def test_pycuda(machine) -> None:
    assert part(machine(pycuda="2024.1"), "PyCUDA") == Part("PyCUDA", "2024.1")
    assert part(machine(cuda_bindings="13.0"), "PyCUDA") == Part("PyCUDA", "cuda-bindings 13.0")
    advice = "pip install 'trtcalib[tensorrt]', which is built against the CUDA toolkit; or 'trtcalib[cuda-python]', which needs none"
    assert part(machine(), "PyCUDA") == Part("PyCUDA", "", advice)


def test_this_machine_as_json() -> None:
    found = diagnose()
    content = json.loads(json.dumps(found.as_json()))
    assert [part["name"] for part in content["parts"]] == [part.name for part in found.parts]
    assert part(found, "Python").found.startswith(platform.python_version())
    assert jobs(found)["calibrate"].works
    assert {key for job in content["jobs"] for key in job} == {"command", "works", "reason"}


def test_nothing_of_nvidias_is_imported() -> None:
    diagnose()
    assert not {"tensorrt", "pycuda", "cuda"} & set(sys.modules)
