"""The story: model + data + recipe -> histograms -> amax -> scales, and where each of them came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from trtcalib.batches import Batching, plan_batches
from trtcalib.collect import collect
from trtcalib.core.cache import CalibrationCache, format_cache, is_writable, make_cache
from trtcalib.core.histogram import Histogram
from trtcalib.core.scale import scale_from_amax
from trtcalib.errors import SpecError
from trtcalib.files import sha256_of_bytes, write_files
from trtcalib.findings import data_findings, scale_findings
from trtcalib.input_checks import InputStatistics, WatchedSource, input_findings
from trtcalib.manifest import Finding, Manifest, Provenance, manifest_path
from trtcalib.methods import ClipPoint, algorithm_of, clip_point
from trtcalib.onnx_graph import GraphTensor, read_model
from trtcalib.passes import Progress
from trtcalib.provenance import provenance_of, relative_to, tensor_facts
from trtcalib.samples.sources import open_source
from trtcalib.specs import Recipe, load_recipe

__all__ = ["DEFAULT_TENSORRT", "Calibration", "calibrate", "solve"]

DEFAULT_TENSORRT = "10.16.1"
"""The last TensorRT with calibrators."""


def calibrate(  # noqa: PLR0913 - the public call names every choice that changes the result
    model: Path | str,
    data: Any,
    calibrator: str | Path | Recipe = "entropy",
    *,
    batch_size: int | None = None,
    max_samples: int | None = None,
    shuffle: int | None = None,
    drop_last: bool = False,
    skip_bad_images: bool = False,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Calibration:
    """Calibrate a model on the CPU: the scales that TensorRT itself would have written, by ONNX tensor name.

    Args:
        model: The ONNX file.
        data: A ``.npz``, ``.npy``, folder, dataset YAML or ``module:function`` as text; or arrays, a sequence of feeds,
            or a function that returns an iterable of feeds.
        calibrator: ``entropy``, ``minmax``, ``mse``, ``percentile-<p>``, a recipe's YAML file, or a recipe.
        batch_size: Samples per batch; by default the model's fixed batch, else 32.
        max_samples: Use only the first so many samples.
        shuffle: Seed of the samples' order.
        drop_last: Leave out a last batch that is not full.
        skip_bad_images: Leave out images that cannot be decoded.
        workers: Threads; by default one per CPU. The result does not depend on it.
        progress: Called with (samples done, samples in all or ``None``).

    Raises:
        TrtcalibError: One of its kinds, for input that cannot be used; see :mod:`trtcalib.errors`.
    """
    recipe = load_recipe(calibrator)
    graph = read_model(model)
    source = WatchedSource(open_source(data, graph.inputs, skip_bad_images=skip_bad_images))
    batching = Batching(batch_size=batch_size, max_samples=max_samples, shuffle=shuffle, drop_last=drop_last)
    batches = plan_batches(source, graph.fixed_batch, batching)
    collection = collect(graph, batches, policy=recipe.range, bins=recipe.bins, workers=workers, progress=progress)
    inputs = source.statistics.inputs()
    return solve(
        Calibration(
            recipe=recipe,
            tensors=graph.tensors,
            histograms=collection.histograms,
            infinite=collection.infinite,
            provenance=provenance_of(graph, data, batches, recipe, skip_bad_images=skip_bad_images),
            findings=(*data_findings(graph, batches, collection), *input_findings(inputs, graph)),
            inputs=inputs,
        ),
        recipe,
    )


def solve(
    collected: Calibration, calibrator: str | Path | Recipe, *, known: Mapping[str, ClipPoint] | None = None
) -> Calibration:
    """Choose every amax anew from histograms that were collected before; the model is not run.

    Args:
        collected: With histograms.
        calibrator: As for :func:`calibrate`.
        known: What the same recipe chose for some of these histograms already.

    Raises:
        SpecError: If the recipe asks for another range policy or number of bins than was collected.
    """
    recipe = load_recipe(calibrator)
    facts = collected.provenance
    if (recipe.range, recipe.bins) != (facts.range, facts.bins):
        fault = (
            f"asks for range {recipe.range!r} and {recipe.bins} bins, but the histograms were collected with range "
            f"{facts.range!r} and {facts.bins} bins: run calibrate again"
        )
        raise SpecError("recipe", (fault,))
    # TensorRT does not clamp: a constant that holds -inf gets an infinite scale.
    endless = {t.name for t in collected.tensors if t.kind in ("constant", "folded") and t.name in collected.infinite}
    clips = dict(known or {})
    for name, histogram in collected.histograms.items():
        if name not in clips:
            clips[name] = ClipPoint(np.float32(np.inf), None) if name in endless else clip_point(histogram, recipe)
    return replace(collected, recipe=recipe, clips=clips)


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """A calibrated model.

    Attributes:
        recipe: How each amax was chosen.
        tensors: What TensorRT would list, in graph order.
        histograms: Per tensor with a histogram of its own.
        infinite: Infinite values left out, per tensor that had any.
        provenance: What the histograms were made from.
        findings: What was noticed.
        clips: amax, and the entropy search's bin, per tensor with a histogram of its own.
        inputs: What the first samples look like, by input; no part of the result, and empty where the
            histograms were read from a file.
    """

    recipe: Recipe
    tensors: tuple[GraphTensor, ...]
    histograms: Mapping[str, Histogram]
    infinite: Mapping[str, int]
    provenance: Provenance
    findings: tuple[Finding, ...]
    clips: Mapping[str, ClipPoint] = field(default_factory=dict)
    inputs: tuple[InputStatistics, ...] = field(default=(), compare=False)

    @property
    def amax(self) -> dict[str, np.float32]:
        """float32 amax per tensor, views and pools included, in graph order."""
        origins = self.origins
        return {t.name: self.clips[origins[t.name]].amax for t in self.tensors if origins[t.name] in self.clips}

    @property
    def scales(self) -> dict[str, np.float32]:
        """float32 scale per tensor, ``f32(amax / 127)``: what the calibration cache holds."""
        return {name: scale_from_amax(amax) for name, amax in self.amax.items()}

    @property
    def origins(self) -> dict[str, str]:
        """The tensor whose amax each tensor carries: itself, a view's source, or a pool's input."""
        origins: dict[str, str] = {}
        for tensor in self.tensors:
            source = tensor.view_of or tensor.scale_of
            if tensor.view_of is not None and tensor.view_of in self.histograms:
                # A view of a pool's output shows the values' own range, not the scale that the pool inherits.
                origins[tensor.name] = tensor.view_of
            else:
                origins[tensor.name] = tensor.name if source is None else origins[source]
        return origins

    def cache(self, tensorrt_version: str = DEFAULT_TENSORRT) -> CalibrationCache:
        """Return the calibration cache for a TensorRT version.

        Raises:
            TensorRTVersionError: If that version is malformed or reads no calibration caches.
        """
        scales = {name: scale for name, scale in self.scales.items() if is_writable(name)}
        return make_cache(scales, tensorrt_version, algorithm_of(self.recipe))

    def manifest(self, path: Path | str, tensorrt_version: str = DEFAULT_TENSORRT) -> Manifest:
        """Return the manifest of a cache that is to stand at ``path``."""
        cache = self.cache(tensorrt_version)
        return Manifest(
            cache=Path(path).name,
            cache_sha256=sha256_of_bytes(format_cache(cache)),
            tensorrt_version=tensorrt_version,
            algorithm=cache.algorithm,
            recipe=self.recipe.model_dump(),
            provenance=relative_to(self.provenance, Path(path).parent),
            findings=[*self.findings, *scale_findings(self.scales)],
            tensors=tensor_facts(self.tensors, self.histograms, self.origins, self.clips),
        )

    def files(self, path: Path | str, tensorrt_version: str = DEFAULT_TENSORRT) -> dict[Path, bytes]:
        """Return what is to stand on disk: the calibration cache, and its manifest beside it.

        Raises:
            TensorRTVersionError: As :meth:`cache`.
        """
        manifest = self.manifest(path, tensorrt_version).model_dump_json(indent=2) + "\n"
        return {
            Path(path): format_cache(self.cache(tensorrt_version)),
            manifest_path(path): manifest.encode("utf-8", "backslashreplace"),
        }

    def write_cache(self, path: Path | str, tensorrt_version: str = DEFAULT_TENSORRT) -> None:
        """Write the calibration cache, and its manifest beside it.

        Raises:
            OutputError: If either cannot be written; nothing is left behind.
            TensorRTVersionError: As :meth:`cache`.
        """
        write_files(self.files(path, tensorrt_version))
