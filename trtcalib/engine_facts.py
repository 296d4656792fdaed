"""Fill in the manifests of a build: what TensorRT calibrated with, what the engine was made from, what was odd."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from trtcalib.core.cache import parse_cache, version_text
from trtcalib.engine_spec import EngineSpec
from trtcalib.files import sha256_of_bytes
from trtcalib.manifest import (
    PACKAGES_WITH_TENSORRT,
    BatchingFacts,
    CacheFacts,
    CrosscheckFacts,
    DataFacts,
    DeviceFacts,
    EngineManifest,
    Finding,
    Manifest,
    ModelFacts,
    Provenance,
    TensorFacts,
    environment,
    portable_path,
)
from trtcalib.onnx_graph import ModelGraph
from trtcalib.provenance import model_facts, relative_to, with_absolute_paths
from trtcalib.specs import Recipe

if TYPE_CHECKING:
    from trtcalib.trt.engine import BuiltEngine, EngineBuilder

__all__ = [
    "Calibrated",
    "CalibrationFacts",
    "answered_manifest",
    "cache_manifest",
    "engine_manifest",
    "shared_findings",
    "uncovered_findings",
]

_SHOWN = 5
"""Tensors that a finding names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibrated:
    """Where an engine's scales came from.

    Attributes:
        cache: The calibration cache; ``None`` for a model with Q/DQ nodes.
        origin: As in :class:`CacheFacts`.
        manifest: What the cache was made from, where that is known; its paths relative to the cache.
        batches_fed: Batches that TensorRT took.
        seconds: Of the calibration.
        crosscheck: TensorRT's cache against our reference.
    """

    cache: bytes | None = None
    origin: Literal["tensorrt", "trtcalib", "reused"] = "reused"
    manifest: Manifest | None = None
    batches_fed: int = 0
    seconds: float = 0.0
    crosscheck: CrosscheckFacts | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationFacts:
    """What TensorRT calibrated with; the paths are absolute."""

    model: ModelFacts
    data: DataFacts
    batching: BatchingFacts
    recipe: Recipe
    shapes: Mapping[str, tuple[int, ...]]
    tf32: bool
    device: DeviceFacts


def cache_manifest(facts: CalibrationFacts, path: Path, content: bytes, findings: Sequence[Finding]) -> Manifest:
    """Return the manifest of a cache that TensorRT wrote and that is to stand at ``path``."""
    versions, cpu = environment(PACKAGES_WITH_TENSORRT)
    cache = parse_cache(content)
    provenance = Provenance(
        model=facts.model,
        data=facts.data,
        batching=facts.batching,
        range=None,
        bins=None,
        session_options={},
        versions=versions,
        cpu=cpu,
        device=facts.device,
        shapes=dict(facts.shapes),
        tf32=facts.tf32,
    )
    return Manifest(
        calibrated_by="tensorrt",
        cache=path.name,
        cache_sha256=sha256_of_bytes(content),
        tensorrt_version=version_text(cache.version),
        algorithm=cache.algorithm,
        recipe=facts.recipe.model_dump(),
        provenance=relative_to(provenance, path.parent),
        findings=list(findings),
        tensors=[],
    )


def answered_manifest(
    manifest: Manifest, content: bytes, raised: Mapping[str, str], findings: Sequence[Finding]
) -> Manifest:
    """Return the manifest of scales that trtcalib chose, as TensorRT was given them.

    Args:
        manifest: Of the calibration.
        content: The cache that was answered.
        raised: Per tensor with a raised scale the tensor whose scale it took.
        findings: What the calibration did not notice.
    """
    facts = {tensor.name: tensor for tensor in manifest.tensors}

    def as_given(tensor: TensorFacts) -> TensorFacts:
        donor = facts.get(raised.get(tensor.name, tensor.name), tensor)
        if donor is tensor:
            return tensor
        carried = {"amax": donor.amax, "scale": donor.scale, "scale_hex": donor.scale_hex}
        return tensor.model_copy(update={**carried, "bin_m": None, "inherited_from": donor.name})

    return manifest.model_copy(
        update={
            "cache_sha256": sha256_of_bytes(content),
            "algorithm": parse_cache(content).algorithm,
            "findings": [*manifest.findings, *findings],
            "tensors": [as_given(tensor) for tensor in manifest.tensors],
        }
    )


def shared_findings(raised: Mapping[str, str]) -> Iterator[Finding]:
    """Tell which scales were raised for DLA."""
    if raised:
        names = ", ".join(map(repr, list(raised)[:_SHOWN])) + (", ..." if len(raised) > _SHOWN else "")
        yield Finding(
            code="dla-shared-scales",
            message=f"{len(raised)} tensor{'s' * (len(raised) > 1)} took the larger scale of another input of the same element-wise "
            f"layer, because DLA needs them to share one: {names}",
        )


def uncovered_findings(tensors: Sequence[str], cache: bytes) -> Iterator[Finding]:
    """Tell which of the network's tensors have no scale."""
    listed = parse_cache(cache).scales
    without = [name for name in dict.fromkeys(tensors) if name not in listed]
    if without:
        names = ", ".join(map(repr, without[:_SHOWN])) + (", ..." if len(without) > _SHOWN else "")
        yield Finding(
            code="tensors-without-scale",
            message=f"{len(without)} of {len(set(tensors))} floating-point tensors of TensorRT's network have no scale in the cache, "
            f"so that the layers around them run in FP16 or FP32: {names}",
        )


def engine_manifest(  # noqa: PLR0913 - one call, from the build
    spec: EngineSpec,
    graph: ModelGraph,
    recipe: Recipe,
    builder: EngineBuilder,
    built: BuiltEngine,
    calibrated: Calibrated,
    *,
    paths: tuple[Path, Path],
    device: DeviceFacts,
    findings: Sequence[Finding],
) -> EngineManifest:
    """State what an engine was made from.

    Args:
        spec: What was asked for.
        graph: The model.
        recipe: How each amax was chosen.
        builder: The parsed network.
        built: The engine.
        calibrated: Where its scales came from.
        paths: The engine and the cache.
        device: The GPU.
        findings: What was odd.
    """
    engine, cache = paths
    folder = engine.parent.resolve()
    provenance = None
    if calibrated.manifest is not None:
        provenance = relative_to(with_absolute_paths(calibrated.manifest.provenance, cache.parent.resolve()), folder)
    model = model_facts(graph)
    versions, cpu = environment(PACKAGES_WITH_TENSORRT)
    return EngineManifest(
        engine=engine.name,
        engine_sha256=sha256_of_bytes(built.plan),
        engine_bytes=len(built.plan),
        tensorrt_version=builder.full_version,
        device=device,
        model=model.model_copy(update={"path": portable_path(model.path, folder)}),
        explicit_quantization=builder.quantized,
        cache=_cache_facts(calibrated, cache, folder),
        data=None if provenance is None else provenance.data,
        batching=None if provenance is None else provenance.batching,
        recipe=None if calibrated.cache is None else recipe.model_dump(),
        shapes={name: {"min": s.min, "opt": s.opt, "max": s.max} for name, s in builder.shapes.items()},
        settings=spec.builder.model_dump(exclude={"timing_cache"}),
        crosscheck=calibrated.crosscheck,
        batches_fed=calibrated.batches_fed,
        seconds={"calibration": round(calibrated.seconds, 3), "build": round(built.seconds, 3)},
        versions={**versions, "cpu": cpu},
        findings=list(findings),
        messages=[message.encode("utf-8", "backslashreplace").decode() for message in built.messages],
    )


def _cache_facts(calibrated: Calibrated, cache: Path, folder: Path) -> CacheFacts | None:
    if calibrated.cache is None:
        return None
    return CacheFacts(
        path=portable_path(cache.resolve(), folder),
        sha256=sha256_of_bytes(calibrated.cache),
        header=parse_cache(calibrated.cache).header,
        origin=calibrated.origin,
    )
