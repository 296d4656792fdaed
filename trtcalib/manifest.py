"""The manifests beside a calibration cache and an engine: what each was made from, how, and what was found. JSON, versioned.

Nothing in a cache's manifest changes from run to run on the same machine: no time, no absolute path, no number of workers. An
engine's states the seconds that it took.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from trtcalib.edit_record import ChosenBy, Edit, EditRecord
from trtcalib.errors import SpecError

__all__ = [
    "SCHEMA_VERSION",
    "BatchingFacts",
    "CacheFacts",
    "CrosscheckFacts",
    "DataFacts",
    "DeviceFacts",
    "EngineManifest",
    "Finding",
    "Manifest",
    "ModelFacts",
    "Provenance",
    "TensorFacts",
    "edits_path",
    "environment",
    "manifest_path",
    "portable_path",
    "read_edits",
    "read_engine_manifest",
    "read_manifest",
]

SCHEMA_VERSION = 1
"""Raised when a field changes its meaning or goes; new fields alone do not raise it."""

PACKAGES = ("trtcalib", "onnxruntime", "onnxruntime-gpu", "onnx", "numpy", "numba", "pillow")
"""What decides the numbers where trtcalib calibrates."""

PACKAGES_WITH_TENSORRT = ("trtcalib", "pycuda", "cuda-bindings", "onnx", "numpy", "pillow")
"""What decides them, beside TensorRT itself, where TensorRT calibrates."""

Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class _Facts(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Finding(_Facts):
    """Something worth knowing that did not stop the calibration."""

    code: Annotated[str, Field(description="stable name of the kind, such as all-zero-tensor")]
    tensor: Annotated[str | None, Field(description="the tensor it is about, if it is about one")] = None
    message: Annotated[str, Field(description="one sentence for people")]


class ModelFacts(_Facts):
    """The model file."""

    path: Annotated[str, Field(description="relative to the manifest where that is possible")]
    sha256: Annotated[Sha256, Field(description="of the .onnx file")]
    external_sha256: Annotated[dict[str, Sha256], Field(description="of each file of external data, by name")] = {}


class DataFacts(_Facts):
    """The calibration data."""

    path: Annotated[str, Field(description="relative to the manifest where that is possible; else what was given")]
    is_path: Annotated[bool, Field(description="false for a function or for arrays in memory")]
    sha256: Annotated[Sha256, Field(description="of the content with its preparation")]
    samples: Annotated[int, Field(description="how many samples were used", ge=0)]


class BatchingFacts(_Facts):
    """How the samples were grouped."""

    batch_size: int
    batches: int
    last_batch_samples: int
    max_samples: int | None
    shuffle: Annotated[int | None, Field(description="seed of NumPy's PCG64 permutation; null: the source's order")]
    drop_last: bool
    skip_bad_images: bool = False


class DeviceFacts(_Facts):
    """The GPU and its driver."""

    name: str
    compute_capability: str
    memory: Annotated[int, Field(description="bytes")]
    cuda: Annotated[str, Field(description="the newest CUDA that the driver knows")]
    driver: Annotated[str | None, Field(description="version of the kernel driver, where it can be read")]


class Provenance(_Facts):
    """Everything that decides the histograms."""

    model: ModelFacts
    data: DataFacts
    batching: BatchingFacts
    range: Annotated[str | None, Field(description="range policy; null where TensorRT itself calibrated")]
    bins: Annotated[int | None, Field(description="bins per histogram; null where TensorRT itself calibrated")]
    session_options: Annotated[
        dict[str, str | int],
        Field(
            description="of ONNX Runtime; empty where TensorRT calibrated, and 'session: tensorrt' where it computed the activations"
        ),
    ]
    versions: dict[str, str]
    cpu: str
    device: Annotated[DeviceFacts | None, Field(description="the GPU that TensorRT calibrated on")] = None
    shapes: Annotated[
        dict[str, tuple[int, ...]] | None, Field(description="per input, the shape of the batches that TensorRT took")
    ] = None
    tf32: Annotated[bool | None, Field(description="whether TensorRT's FP32 run might use TF32")] = None


class TensorFacts(_Facts):
    """One tensor of the cache. Numbers that JSON cannot hold (infinity) are null; ``scale_hex`` always tells."""

    name: str
    kind: Literal["input", "constant", "folded", "activation"]
    range: Annotated[float | None, Field(description="upper end of the histogram, in the tensor's units")]
    maximum: Annotated[float | None, Field(description="true maximum of |x| over all finite values")]
    first_maximum: Annotated[float | None, Field(description="the range before any doubling")]
    doublings: int | None
    clamped: Annotated[int | None, Field(description="values equal to the range when they were counted")]
    bins: int | None
    values: Annotated[int | None, Field(description="how many values were counted")]
    bin_m: Annotated[int | None, Field(description="the candidate that the entropy search chose")]
    amax: float | None
    scale: float | None
    scale_hex: Annotated[str, Field(description="float32 bits of the scale, as in the cache")]
    inherited_from: Annotated[str | None, Field(description="the tensor whose histogram or scale this one carries")]


class Manifest(_Facts):
    """What stands in OUT.cache.json."""

    schema_version: Literal[1] = 1
    tool: Literal["trtcalib"] = "trtcalib"
    calibrated_by: Annotated[
        Literal["trtcalib", "tensorrt"],
        Field(description="who chose the scales: trtcalib on the CPU, or TensorRT itself"),
    ] = "trtcalib"
    cache: str
    cache_sha256: Sha256
    tensorrt_version: str
    algorithm: str
    recipe: dict[str, Any]
    chosen_by: Annotated[ChosenBy | None, Field(description="the study that chose the recipe, where one did")] = None
    provenance: Provenance
    findings: list[Finding]
    tensors: list[TensorFacts]
    edits: Annotated[
        list[Edit], Field(description="done since, oldest first; provenance and recipe are those of the first file")
    ] = []


class CacheFacts(_Facts):
    """The calibration cache that an engine was built with."""

    path: Annotated[str, Field(description="relative to the manifest where that is possible")]
    sha256: Sha256
    header: Annotated[str, Field(description="first line, such as TRT-101601-EntropyCalibration2")]
    origin: Annotated[
        Literal["tensorrt", "trtcalib", "reused"],
        Field(
            description="TensorRT calibrated in this build; trtcalib chose the scales in it; or an older file was used"
        ),
    ]


class CrosscheckFacts(_Facts):
    """TensorRT's cache against our reference; see ``trtcalib crosscheck``."""

    method: str
    tensors: Annotated[int, Field(description="tensors that both have")]
    agreement: Annotated[float, Field(description="the share of them that agree", ge=0, le=1)]
    passed: Annotated[bool, Field(description="whether that is at least 0.95")]
    counts: Annotated[dict[str, int], Field(description="tensors per verdict")]
    notes: list[str]


class EngineManifest(_Facts):
    """What stands in OUT.engine.json."""

    schema_version: Literal[1] = 1
    tool: Literal["trtcalib"] = "trtcalib"
    engine: str
    engine_sha256: Sha256
    engine_bytes: int
    tensorrt_version: str
    device: DeviceFacts
    model: ModelFacts
    explicit_quantization: Annotated[bool, Field(description="the model holds Q/DQ nodes, which make calibrators void")]
    cache: CacheFacts | None
    data: DataFacts | None
    batching: BatchingFacts | None
    recipe: dict[str, Any] | None
    shapes: Annotated[dict[str, dict[str, tuple[int, ...]]], Field(description="min, opt and max per input")]
    settings: Annotated[dict[str, Any], Field(description="builder settings as in the engine spec")]
    crosscheck: Annotated[
        CrosscheckFacts | None,
        Field(description="null where TensorRT did not calibrate in this build, or it was not asked for"),
    ] = None
    batches_fed: Annotated[int, Field(description="batches that TensorRT took in this build")]
    seconds: Annotated[dict[str, float], Field(description="wall time of the calibration and of the whole build")]
    versions: dict[str, str]
    findings: list[Finding]
    messages: Annotated[list[str], Field(description="TensorRT's warnings and errors, each once, at most 200")]


def manifest_path(artefact: Path | str) -> Path:
    """Return where the manifest of a cache or an engine stands: ``x.cache`` -> ``x.cache.json``."""
    return Path(f"{artefact}.json")


def edits_path(cache: Path | str) -> Path:
    """Return where the record of a cache's edits stands when there is no manifest: ``x.cache`` -> ``x.cache.edits.json``."""
    return Path(f"{cache}.edits.json")


def read_edits(path: Path | str) -> EditRecord:
    """Read the record of a cache's edits; raises as :func:`read_manifest`."""
    return _read(Path(path), EditRecord, "an edited cache")


def read_manifest(path: Path | str) -> Manifest:
    """Read a cache's manifest.

    Raises:
        SpecError: If it is missing, is no manifest, or is of a newer version.
    """
    return _read(Path(path), Manifest, "a cache")


def read_engine_manifest(path: Path | str) -> EngineManifest:
    """Read an engine's manifest.

    Raises:
        SpecError: If it is missing, is no manifest, or is of a newer version.
    """
    return _read(Path(path), EngineManifest, "an engine")


M = TypeVar("M", Manifest, EngineManifest, EditRecord)


def _read(path: Path, kind: type[M], artefact: str) -> M:
    try:
        content = path.read_bytes()
        return kind.model_validate_json(content)
    except FileNotFoundError as error:
        raise SpecError(path, (f"no such file: {artefact} that trtcalib wrote has its manifest beside it",)) from error
    except OSError as error:
        raise SpecError(path, (f"cannot be read: {error.strerror}",)) from error
    except ValidationError as error:
        faults = tuple(f"{'.'.join(map(str, e['loc'])) or 'file'}: {e['msg']}" for e in error.errors()[:10])
        raise SpecError(path, faults) from error


def portable_path(path: Path | str, folder: Path | str) -> str:
    """Return a path relative to a folder, with forward slashes; as it is where that is impossible (another drive)."""
    try:
        return Path(os.path.relpath(path, folder)).as_posix()
    except ValueError:
        return str(path)


def environment(packages: Sequence[str] = PACKAGES) -> tuple[dict[str, str], str]:
    """Return the versions of what computes the numbers, and the CPU's name."""
    versions = {"python": platform.python_version()}
    for package in packages:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions, _cpu_name()


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.lower().startswith("model name"):
                return f"{line.partition(':')[2].strip()} ({platform.machine()})"
    except OSError:
        pass  # no such file outside Linux
    return f"{platform.processor() or 'unknown'} ({platform.machine()})"
