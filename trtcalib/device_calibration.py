"""The story on the GPU: model + data + recipe -> TensorRT's FP32 engine -> histograms made in place -> scales by TensorRT's names."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trtcalib.batches import Batches, Batching, fits_batches, full_batches, plan_batches
from trtcalib.calibration import Calibration, solve
from trtcalib.collect import default_workers
from trtcalib.core.tally import BINS
from trtcalib.engine_spec import ShapeRange
from trtcalib.errors import DataError, SpecError
from trtcalib.findings import data_findings, dropped_findings
from trtcalib.manifest import PACKAGES_WITH_TENSORRT, Finding, environment
from trtcalib.onnx_graph import read_model
from trtcalib.passes import Progress
from trtcalib.provenance import provenance_of
from trtcalib.samples.sources import open_source
from trtcalib.specs import Recipe, load_recipe

if TYPE_CHECKING:
    from trtcalib.trt.collector import Collector, LabelledBatch

__all__ = ["DeviceOptions", "calibrate_on_device"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceOptions:
    """What only the GPU asks for.

    Attributes:
        shapes: Per input with free axes, what it may have; kOPT counts.
        tf32: Let TensorRT use TF32: faster, and other scales on other GPUs.
        memory: Bytes of device memory for the tensors of one engine; by default 60 % of what is free.
    """

    shapes: Mapping[str, ShapeRange] | None = None
    tf32: bool = False
    memory: int | None = None


def calibrate_on_device(  # noqa: PLR0913 - as calibrate(): every choice that changes the result
    model: Path | str,
    data: Any,
    calibrator: str | Path | Recipe = "entropy",
    batching: Batching | None = None,
    options: DeviceOptions | None = None,
    *,
    skip_bad_images: bool = False,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Calibration:
    """Calibrate a model on what TensorRT computes in FP32; names are those of its network.

    TensorRT runs whole batches at kOPT, so samples that fill none are left out.

    Args:
        model: The ONNX file.
        data: As for :func:`trtcalib.calibrate`.
        calibrator: As there, with TensorRT's range policy and number of bins.
        batching: Batch size and which samples.
        options: Shapes and what else only the GPU asks for.
        skip_bad_images: Leave out images that cannot be decoded.
        workers: Threads that read samples.
        progress: Called with (samples done, samples in all or ``None``), from 0 for each group of tensors.

    Raises:
        TrtcalibError: One of its kinds; see :mod:`trtcalib.errors`.
        KeyboardInterrupt: After Ctrl-C, when TensorRT has returned.
    """
    from trtcalib.trt.buffers import open_device
    from trtcalib.trt.collector import Collector
    from trtcalib.trt.require import import_tensorrt

    recipe = load_recipe(calibrator)
    if (recipe.range, recipe.bins) != ("doubling", BINS):
        fault = (
            f"asks for range {recipe.range!r} and {recipe.bins} bins; the GPU collects as TensorRT does, range 'doubling' and {BINS} "
            "bins: use --on cpu for others"
        )
        raise SpecError("recipe", (fault,))
    given, options = batching or Batching(), options or DeviceOptions()
    graph = read_model(model)
    source = open_source(data, graph.inputs, skip_bad_images=skip_bad_images)
    import_tensorrt()  # the first thing that people miss is the first that is told
    with contextlib.closing(open_device()) as device:
        collector = Collector(graph, device, options.shapes, given.batch_size, tf32=options.tf32, budget=options.memory)
        size = None if source.whole else collector.profile.batch_size
        batches = plan_batches(source, graph.fixed_batch, replace(given, batch_size=size, drop_last=True))
        reader = _Reader(batches, collector, workers or default_workers(), progress)
        collection = collector.collect(reader.batches)
    network = replace(graph, tensors=collector.tensors)
    versions, _ = environment(PACKAGES_WITH_TENSORRT)
    facts = {
        "session_options": {"session": "tensorrt"},
        "versions": {**versions, "tensorrt": collector.full_version},
        "device": device.facts,
        "shapes": dict(collector.profile.shapes),
        "tf32": options.tf32,
    }
    provenance = provenance_of(graph, data, batches, recipe, skip_bad_images=skip_bad_images)
    return solve(
        Calibration(
            recipe=recipe,
            tensors=collector.tensors,
            histograms=collection.histograms,
            infinite=collection.infinite,
            provenance=provenance.model_copy(update=facts),
            findings=(
                *data_findings(network, batches, collection),
                *dropped_findings(batches),
                *(Finding(code="device-collection", message=note) for note in collector.notes),
            ),
        ),
        recipe,
    )


class _Reader:
    """Reads the batches as often as they are needed, and makes sure that they are the same each time."""

    def __init__(self, batches: Batches, collector: Collector, workers: int, progress: Progress | None) -> None:
        self._batches = batches
        self._shapes = collector.profile.shapes
        self._workers = workers
        self._progress = progress
        self._digest: bytes | None = None

    def batches(self) -> Iterator[LabelledBatch]:
        """Yield label and content of each batch.

        Raises:
            DataError: If a sample does not fit, or the data are other ones than before.
        """
        size, total = self._batches.batch_size, self._batches.samples
        digest = hashlib.sha256()
        check = fits_batches(self._batches.source.name, self._shapes)
        for number, feed in enumerate(full_batches(self._batches, self._workers, check)):
            for name in sorted(feed):
                digest.update(np.ascontiguousarray(feed[name]).tobytes())
            yield f"{number * size} to {number * size + size - 1}", feed
            if self._progress is not None:
                self._progress((number + 1) * size, total)
        if self._digest not in (None, digest.digest()):
            raise DataError(
                self._batches.source.name,
                "gave other values when it was read again: the data must be the same on every pass, without random augmentation",
            )
        self._digest = digest.digest()
