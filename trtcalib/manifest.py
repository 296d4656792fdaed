"""The manifest beside a calibration cache: what it was made from, how, and what was found. JSON, versioned.

Nothing in it changes from run to run on the same machine: no time, no absolute path, no number of workers.
"""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from trtcalib.errors import SpecError

__all__ = [
    "SCHEMA_VERSION",
    "BatchingFacts",
    "DataFacts",
    "Finding",
    "Manifest",
    "ModelFacts",
    "Provenance",
    "TensorFacts",
    "environment",
    "manifest_path",
    "portable_path",
    "read_manifest",
]

SCHEMA_VERSION = 1
"""Raised when a field changes its meaning or goes; new fields alone do not raise it."""

_PACKAGES = ("trtcalib", "onnxruntime", "onnxruntime-gpu", "onnx", "numpy", "numba", "pillow")

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


class Provenance(_Facts):
    """Everything that decides the histograms."""

    model: ModelFacts
    data: DataFacts
    batching: BatchingFacts
    range: str
    bins: int
    session_options: dict[str, str | int]
    versions: dict[str, str]
    cpu: str


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
    cache: str
    cache_sha256: Sha256
    tensorrt_version: str
    algorithm: str
    recipe: dict[str, Any]
    provenance: Provenance
    findings: list[Finding]
    tensors: list[TensorFacts]


def manifest_path(cache: Path | str) -> Path:
    """Return where the manifest of a cache stands: ``x.cache`` -> ``x.cache.json``."""
    return Path(f"{cache}.json")


def read_manifest(path: Path | str) -> Manifest:
    """Read a manifest.

    Raises:
        SpecError: If it is missing, is no manifest, or is of a newer version.
    """
    path = Path(path)
    try:
        content = path.read_bytes()
        return Manifest.model_validate_json(content)
    except FileNotFoundError as error:
        raise SpecError(path, ("no such file: a cache that trtcalib wrote has its manifest beside it",)) from error
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


def environment() -> tuple[dict[str, str], str]:
    """Return the versions of what computes the numbers, and the CPU's name."""
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
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
