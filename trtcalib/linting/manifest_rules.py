"""Rules over the manifest beside a cache; what it states of the scales is believed only where it is of these very bytes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from trtcalib.core.cache import encode_version, version_text
from trtcalib.core.cache_scan import CacheScan
from trtcalib.errors import SpecError, TensorRTVersionError
from trtcalib.files import sha256_of, sha256_of_bytes
from trtcalib.linting.rules import LintFinding, finding
from trtcalib.manifest import Manifest, manifest_path, read_manifest

__all__ = ["Beside", "manifest_findings", "read_beside"]

MOST_BYTES = 64 << 20
"""The largest manifest that is read; five thousand tensors have one of 3 MB. Ours."""

FULL_BIN = 2048
"""The bin that keeps the whole range."""

FULL_SHARE = 0.5
"""From which share of tensors at the full range on it is told. Up to a fifth was seen in entropy caches of four real models. Ours."""

FEWEST_SEARCHED = 8
"""Tensors that a share is taken of. Ours."""


@dataclass(frozen=True, slots=True)
class Beside:
    """What stands beside a cache.

    Attributes:
        manifest: ``None`` where there is none that can be read.
        believed: Whether it is of the cache's very bytes.
        fault: Why it cannot be read.
    """

    manifest: Manifest | None = None
    believed: bool = False
    fault: str | None = None


def read_beside(path: Path, content: bytes) -> Beside:
    """Read the manifest beside a cache, where there is one.

    Args:
        path: The cache.
        content: Its bytes.
    """
    beside = manifest_path(path)
    try:
        if not beside.is_file():
            return Beside()
        if beside.stat().st_size > MOST_BYTES:
            return Beside(fault=f"is larger than {MOST_BYTES >> 20} MiB")
        manifest = read_manifest(beside)
    except SpecError as error:
        return Beside(fault=f"cannot be read: {'; '.join(error.faults[:3])}")
    except OSError as error:
        return Beside(fault=f"cannot be read: {error.strerror}")
    return Beside(manifest, believed=sha256_of_bytes(content) == manifest.cache_sha256)


def manifest_findings(path: Path, scan: CacheScan, beside: Beside, model: Path | None) -> Iterator[LintFinding]:
    """Yield what is wrong with the manifest, and what it tells of the search.

    Args:
        path: The cache.
        scan: What it holds.
        beside: See :func:`read_beside`.
        model: The model that the cache is checked against.
    """
    name = manifest_path(path).name
    if beside.fault is not None:
        yield finding("TC063", f"{name} {beside.fault}; move it away if it is not trtcalib's")
    if beside.manifest is None:
        return
    if not beside.believed:
        message = (
            f"{name} is of another cache, or the cache was changed after it was written: nothing in it was believed"
        )
        yield finding("TC061", f"{message}; calibrate again, or move it away")
    yield from _header(name, scan, beside.manifest)
    if beside.believed:
        yield from _model(name, beside.manifest, model)
        yield from _full_ranges(beside.manifest)


def _header(name: str, scan: CacheScan, manifest: Manifest) -> Iterator[LintFinding]:
    try:
        version = encode_version(manifest.tensorrt_version)
    except TensorRTVersionError as error:
        yield finding("TC062", f"{name} states a version that no cache has: {error}")
        return
    if scan.version is not None and version != scan.version:
        message = f"{name} states TensorRT {manifest.tensorrt_version}, the header {version_text(scan.version)}"
        yield finding("TC062", f"{message}: was the header edited?", line=1)
    if scan.algorithm is not None and manifest.algorithm != scan.algorithm:
        message = f"{name} states algorithm {manifest.algorithm!r}, the header {scan.algorithm[:80]!r}"
        yield finding("TC062", f"{message}: was the header edited?", line=1)


def _model(name: str, manifest: Manifest, model: Path | None) -> Iterator[LintFinding]:
    if model is not None and sha256_of(model) != manifest.provenance.model.sha256:
        message = f"{name} was written for a model file of other bytes, then at {manifest.provenance.model.path!r}, than {model.name}"
        yield finding("TC064", f"{message}: was the model exported again since?")


def _full_ranges(manifest: Manifest) -> Iterator[LintFinding]:
    searched = [
        tensor
        for tensor in manifest.tensors
        if tensor.kind in ("input", "activation") and tensor.inherited_from is None and tensor.bin_m is not None
    ]
    full = [tensor for tensor in searched if tensor.bin_m == FULL_BIN]
    if len(searched) >= FEWEST_SEARCHED and len(full) >= FULL_SHARE * len(searched):
        message = (
            f"the search kept the whole range (bin {FULL_BIN}) of {len(full)} of {len(searched)} tensors: so few values, or such saturated "
            "ones, tell it nothing; more samples or a larger first batch may"
        )
        yield finding("TC065", message)
