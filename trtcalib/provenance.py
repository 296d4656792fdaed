"""Fill in a manifest: what a calibration was made from, and one entry per tensor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from trtcalib.batches import Batches
from trtcalib.core.histogram import Histogram
from trtcalib.core.scale import bits_from_scale, scale_from_amax
from trtcalib.files import sha256_of
from trtcalib.manifest import (
    BatchingFacts,
    DataFacts,
    ModelFacts,
    Provenance,
    TensorFacts,
    environment,
    portable_path,
)
from trtcalib.methods import ClipPoint
from trtcalib.onnx_graph import GraphTensor, ModelGraph, external_files
from trtcalib.sessions import SESSION_OPTIONS
from trtcalib.specs import Recipe

__all__ = [
    "batching_facts",
    "data_facts",
    "model_facts",
    "portable_name",
    "provenance_of",
    "relative_to",
    "tensor_facts",
    "with_absolute_paths",
]


def provenance_of(
    graph: ModelGraph, data: Any, batches: Batches, recipe: Recipe, *, skip_bad_images: bool
) -> Provenance:
    """State what the histograms were made from, with absolute paths (see :func:`relative_to`)."""
    versions, cpu = environment()
    return Provenance(
        model=model_facts(graph),
        data=data_facts(data, batches),
        batching=batching_facts(batches, skip_bad_images=skip_bad_images),
        range=recipe.range,
        bins=recipe.bins,
        session_options=SESSION_OPTIONS,
        versions=versions,
        cpu=cpu,
    )


def data_facts(data: Any, batches: Batches) -> DataFacts:
    """State which data were used, after a pass over them; the path is absolute."""
    is_path = isinstance(data, str | Path) and Path(data).exists()
    return DataFacts(
        path=str(Path(data).resolve()) if is_path else batches.source.name,
        is_path=is_path,
        sha256=batches.source.sha256(),
        samples=batches.seen,
    )


def batching_facts(batches: Batches, *, skip_bad_images: bool) -> BatchingFacts:
    """State how the samples of a pass were grouped."""
    size = batches.batch_size
    return BatchingFacts(
        batch_size=size,
        batches=-(-batches.seen // size),
        last_batch_samples=batches.seen % size or min(size, batches.seen),
        max_samples=batches.batching.max_samples,
        shuffle=batches.batching.shuffle,
        drop_last=batches.batching.drop_last,
        skip_bad_images=skip_bad_images,
    )


def model_facts(graph: ModelGraph) -> ModelFacts:
    """State which model it is: the digest of the file and of each file of external data."""
    external = {file.name: sha256_of(file) for file in external_files(graph)}
    return ModelFacts(path=str(graph.path.resolve()), sha256=sha256_of(graph.path), external_sha256=external)


def relative_to(provenance: Provenance, folder: Path) -> Provenance:
    """Return the provenance with the paths of model and data relative to a manifest's folder."""
    folder = folder.resolve()
    model = provenance.model.model_copy(update={"path": portable_path(provenance.model.path, folder)})
    data = provenance.data
    if data.is_path:
        data = data.model_copy(update={"path": portable_path(data.path, folder)})
    return provenance.model_copy(update={"model": model, "data": data})


def with_absolute_paths(provenance: Provenance, folder: Path) -> Provenance:
    """Undo :func:`relative_to` for a manifest that was read from a folder."""
    model = provenance.model.model_copy(update={"path": str((folder / provenance.model.path).resolve())})
    data = provenance.data
    if data.is_path:
        data = data.model_copy(update={"path": str((folder / data.path).resolve())})
    return provenance.model_copy(update={"model": model, "data": data})


def tensor_facts(
    tensors: Sequence[GraphTensor],
    histograms: Mapping[str, Histogram],
    origins: Mapping[str, str],
    clips: Mapping[str, ClipPoint],
) -> list[TensorFacts]:
    """State range, amax and scale of every tensor that has a scale."""
    return [
        _tensor_facts(tensor, histograms.get(origins[tensor.name]), origins[tensor.name], clips[origins[tensor.name]])
        for tensor in tensors
        if origins[tensor.name] in clips
    ]


def _tensor_facts(tensor: GraphTensor, histogram: Histogram | None, origin: str, clip: ClipPoint) -> TensorFacts:
    scale = scale_from_amax(clip.amax)
    return TensorFacts(
        name=portable_name(tensor.name),
        kind=tensor.kind,
        range=_json_number(histogram.range) if histogram else None,
        maximum=_json_number(histogram.maximum) if histogram else None,
        first_maximum=_json_number(histogram.first_max) if histogram else None,
        doublings=histogram.doublings if histogram else None,
        clamped=histogram.clamped if histogram else None,
        bins=histogram.bins if histogram else None,
        values=histogram.total if histogram else None,
        bin_m=clip.bin_m,
        amax=_json_number(clip.amax),
        scale=_json_number(scale),
        scale_hex=f"{bits_from_scale(scale):x}",
        inherited_from=None if origin == tensor.name else portable_name(origin),
    )


def _json_number(value: np.float32) -> float | None:
    return float(value) if np.isfinite(value) else None


def portable_name(name: str) -> str:
    """Return a name that any file can hold; what is not UTF-8 in it is written out with a backslash."""
    return name.encode("utf-8", "backslashreplace").decode()
