"""What is installed here, what each command can therefore do, and how to get the rest. Imports nothing of NVIDIA's."""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from trtcalib.collect import default_workers
from trtcalib.core.cache import FIRST_VERSION_WITHOUT_CALIBRATORS
from trtcalib.sessions import available_providers

__all__ = ["Diagnosis", "Job", "Part", "diagnose"]

_SYSTEM_PACKAGES = (
    "/usr/lib/python3/dist-packages",
    "/usr/local/lib/python3*/dist-packages",
    "/usr/lib/python3*/dist-packages",
)
"""Where JetPack and NVIDIA's Debian packages put TensorRT's Python module."""

_SMI_SECONDS = 10

_TEGRA = Path("/etc/nv_tegra_release")
"""What marks a Jetson; its first line names the release of its system."""


@dataclass(frozen=True, slots=True)
class Part:
    """One thing that may be installed; ``found`` is empty where it is not."""

    name: str
    found: str
    advice: str = ""


@dataclass(frozen=True, slots=True)
class Job:
    """What a command can do here."""

    command: str
    works: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Everything that ``trtcalib doctor`` tells."""

    parts: tuple[Part, ...]
    jobs: tuple[Job, ...]

    def as_json(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {"parts": [asdict(part) for part in self.parts], "jobs": [asdict(job) for job in self.jobs]}


def diagnose() -> Diagnosis:
    """Look at this machine."""
    runtime = _runtime()
    tensorrt = _tensorrt()
    pycuda = _pycuda()
    gpu = _gpu()
    rtx = _rtx()
    parts = (
        Part("trtcalib", _installed("trtcalib")),
        Part("Python", f"{platform.python_version()} ({sys.platform}, {platform.machine()}, {default_workers()} CPUs)"),
        runtime,
        tensorrt,
        pycuda,
        gpu,
        rtx,
    )
    return Diagnosis(parts, (*_jobs(runtime, tensorrt, rtx), *_engine_jobs(tensorrt, pycuda, gpu)))


def _installed(*packages: str) -> str:
    for package in packages:
        try:
            return f"{package} {version(package)}" if len(packages) > 1 else version(package)
        except PackageNotFoundError:
            continue
    return ""


def _runtime() -> Part:
    found = _installed("onnxruntime", "onnxruntime-gpu")
    providers = available_providers()
    if not providers:
        advice = "pip install 'trtcalib[cpu]', or 'trtcalib[cuda]' for onnxruntime-gpu; never both, they clash"
        if platform.machine() == "aarch64":
            advice += "; on a Jetson the CPU package is the right one for calibrate"
        return Part("ONNX Runtime", "", advice)
    if _installed("onnxruntime") and _installed("onnxruntime-gpu"):
        return Part(
            "ONNX Runtime", found, "onnxruntime and onnxruntime-gpu are both installed and clash: uninstall one"
        )
    return Part("ONNX Runtime", f"{found} ({', '.join(providers)})", "calibrate always runs on the CPU provider")


def _tensorrt() -> Part:
    found = _installed("tensorrt", "tensorrt-cu12", "tensorrt-cu13")
    hidden = [folder for pattern in _SYSTEM_PACKAGES for folder in Path("/").glob(f"{pattern[1:]}/tensorrt")]
    if found:
        advice = "" if _reads_caches(found) else "calibrators are gone in 11: pip install 'tensorrt>=8.6,<11'"
        return Part("TensorRT", found, advice)
    if hidden and sys.prefix != sys.base_prefix:
        advice = "make the environment with: python3 -m venv --system-site-packages .venv"
        return Part("TensorRT", "", f"{hidden[0]} is hidden by this virtual environment: {advice}")
    if platform.machine() == "aarch64":
        return Part("TensorRT", "", "on a Jetson it comes with JetPack: sudo apt install python3-libnvinfer")
    return Part(
        "TensorRT", "", "pip install 'trtcalib[tensorrt]' on a machine with an NVIDIA GPU (pins TensorRT below 11)"
    )


def _reads_caches(tensorrt: str) -> bool:
    major = tensorrt.rsplit(maxsplit=1)[-1].partition(".")[0] if tensorrt else ""
    return major.isdigit() and int(major) < FIRST_VERSION_WITHOUT_CALIBRATORS


def _pycuda() -> Part:
    found = _installed("pycuda") or _installed("cuda-bindings", "cuda-python")
    advice = "pip install 'trtcalib[tensorrt]', which is built against the CUDA toolkit; or 'trtcalib[cuda-python]', which needs none"
    return Part("PyCUDA", found, "" if found else advice)


def _rtx() -> Part:
    found = _installed("tensorrt-rtx-cu12-bindings")
    advice = "pip install 'trtcalib[rtx]' (Linux or Windows on x86_64): NVIDIA's parser and builder, which need no GPU"
    return Part("TensorRT-RTX", found, "" if found else advice)


def _gpu() -> Part:
    command = shutil.which("nvidia-smi")
    if command is None:
        if _TEGRA.is_file():  # a Jetson before JetPack 6 has no nvidia-smi
            return Part(
                "NVIDIA GPU", f"Jetson ({_TEGRA.read_text(encoding='utf-8', errors='replace')[:60].strip('# ')}...)"
            )
        return Part("NVIDIA GPU", "", "no nvidia-smi here: no driver, or a Jetson")
    query = [command, "--query-gpu=name,compute_cap,driver_version", "--format=csv,noheader"]
    try:
        result = subprocess.run(query, capture_output=True, text=True, timeout=_SMI_SECONDS, check=False)  # noqa: S603 - found on PATH, fixed arguments
    except (OSError, subprocess.TimeoutExpired) as error:
        return Part("NVIDIA GPU", "", f"nvidia-smi does not answer: {error}")
    lines = result.stdout.strip().splitlines()
    if result.returncode or not lines:
        return Part("NVIDIA GPU", "", f"nvidia-smi fails: {(result.stderr or result.stdout).strip()[:200]}")
    return Part("NVIDIA GPU", "; ".join(lines))


def _jobs(runtime: Part, tensorrt: Part, rtx: Part) -> tuple[Job, ...]:
    runs_models = bool(runtime.found)
    why = "ONNX Runtime runs the model on the CPU" if runs_models else "needs ONNX Runtime"
    always = "needs no model run"
    here = _reads_caches(tensorrt.found)
    used = f"by TensorRT {tensorrt.found.split()[-1]} here" if here else "on a machine that has TensorRT 8.6 to 10.16"
    return (
        Job("calibrate", runs_models, why),
        Job("demo", runs_models, why),
        Job("plot MODEL.onnx", runs_models, why),
        Job("study", runs_models, why),
        Job("evaluate", runs_models, why),
        Job("advise", runs_models, why),
        Job("ablate", runs_models, why),
        Job("sweep", runs_models, why),
        Job("sensitivity", runs_models, why),
        Job("crosscheck", runs_models, why),
        Job("plot --histograms", True, always),
        Job("solve", True, always),
        Job("cache show", True, always),
        Job("report", True, always),
        Job("cache verify", True, "compares digests"),
        Job("cache lint, diff, merge, convert, rename, set, export, from-qdq", True, always),
        Job("qdq", True, always),
        Job(
            "migrate",
            True,
            "compares both models on data" if runs_models else "without ONNX Runtime it compares no numbers",
        ),
        Job(
            "check-builder", bool(rtx.found), "asks TensorRT-RTX, without a GPU" if rtx.found else "needs TensorRT-RTX"
        ),
        Job("trtexec --int8 --calib=OUT.cache", here, f"the caches are read {used}"),
    )


def _engine_jobs(tensorrt: Part, pycuda: Part, gpu: Part) -> tuple[Job, ...]:
    def job(command: str, *needed: Part, limit: str = "") -> Job:
        missing = [part.name for part in needed if not part.found]
        if missing:
            return Job(command, False, f"needs {' and '.join(missing)}")
        return Job(command, True, f"by TensorRT {tensorrt.found.split()[-1]}{limit}")

    gone = "" if _reads_caches(tensorrt.found) else ", whose calibrators are gone: models with Q/DQ nodes only"
    return (
        job("build", tensorrt, pycuda, gpu, limit=gone),
        job("infer", tensorrt, pycuda, gpu),
        job("evaluate --engine", tensorrt, pycuda, gpu),
        job("engine inspect", tensorrt, gpu),
    )
