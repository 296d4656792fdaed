"""What a calibration noticed and did not stop for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from trtcalib.batches import Batches
from trtcalib.core.cache import is_writable
from trtcalib.manifest import Finding
from trtcalib.onnx_graph import ModelGraph
from trtcalib.passes import Collection

__all__ = ["CODES", "data_findings", "dropped_findings", "scale_findings", "skipped_findings"]

CODES = {
    "infinite-values": "infinite values were left out of a tensor's histogram",
    "all-zero-tensor": "a tensor was zero in every sample",
    "first-batch-all-zero": "a tensor was zero in the whole first batch",
    "partial-last-batch": "the last batch was not full, or samples did not fill the model's fixed batch",
    "skipped-images": "images could not be decoded and were left out",
    "tensors-in-subgraphs": "tensors inside control flow cannot be observed",
    "unseen-tensor": "a tensor was never produced as floating point",
    "infinite-scale": "a scale is beyond float32",
    "unwritable-name": "a tensor's name cannot stand in a calibration cache",
    "calibrator-ignored": "the model holds Q/DQ nodes, which make a calibrator void",
    "cache-not-reused": "a calibration cache stood there and was made from something else",
    "cache-manifest-not-believed": "a cache was used again whose manifest is of other bytes",
    "crosscheck-disagrees": "TensorRT's cache and our reference chose other bins for too many tensors",
    "crosscheck-skipped": "TensorRT's cache could not be compared with our reference",
    "dla-shared-scales": "scales were raised, because DLA needs the inputs of an element-wise layer to share one",
    "device-collection": "the device collector had to work in parts, or could not observe a tensor",
    "tensors-without-scale": "tensors of TensorRT's network have no scale in the cache",
    "input-like-raw-pixels": "an input holds pixels that nothing scaled, and the model does not scale them either",
    "input-not-normalised": "an input holds pixels in 0 to 1, and the model was trained on normalised ones",
    "input-constant-channel": "a channel of an input holds one value in all samples",
    "inputs-differ": "an input's calibration and evaluation samples were not prepared alike",
}
"""Every kind of finding, with what it means; ``--fail-on`` takes these names."""


def data_findings(graph: ModelGraph, batches: Batches, collection: Collection) -> Iterator[Finding]:
    """Yield what the pass over the data noticed."""
    constants = {tensor.name for tensor in graph.tensors if tensor.kind in ("constant", "folded")}
    for name, count in collection.infinite.items():
        values = "values were" if count > 1 else "value was"
        where = "of the constant" if name in constants else "of the activation"
        yield Finding(
            code="infinite-values", tensor=name, message=f"{count} infinite {values} left out {where} {name!r}"
        )
    for name, histogram in collection.histograms.items():
        if histogram.maximum == 0 and histogram.total:
            yield Finding(
                code="all-zero-tensor",
                tensor=name,
                message=f"{name!r} is zero in every sample; its scale is written as 0",
            )
    for name in collection.late:
        yield Finding(
            code="first-batch-all-zero",
            tensor=name,
            message=f"{name!r} is zero in the whole first batch; its range starts at a later one",
        )
    yield from _source_findings(graph, batches, collection)


def _source_findings(graph: ModelGraph, batches: Batches, collection: Collection) -> Iterator[Finding]:
    if batches.last_is_partial:
        rest = batches.seen % batches.batch_size
        yield Finding(
            code="partial-last-batch",
            message=f"the last batch has {rest} of {batches.batch_size} samples; TensorRT needs full batches: "
            "use drop_last, or a batch size that divides the samples",
        )
    if batches.left_out:
        yield Finding(
            code="partial-last-batch",
            message=f"{batches.left_out} samples at the end were left out: they do not fill the model's fixed batch",
        )
    yield from skipped_findings(batches)
    if graph.in_subgraphs:
        yield Finding(
            code="tensors-in-subgraphs",
            message=f"{graph.in_subgraphs} tensors inside If, Loop or Scan bodies cannot be observed and get no scale",
        )
    for name in sorted(collection.unseen & graph.typed):
        yield Finding(
            code="unseen-tensor", tensor=name, message=f"{name!r} held no values in any sample; it gets no scale"
        )


def dropped_findings(batches: Batches) -> Iterator[Finding]:
    """Tell which samples TensorRT did not get, because it takes full batches only."""
    if batches.dropped:
        yield Finding(
            code="partial-last-batch",
            message=f"{batches.dropped} samples at the end were left out: they fill no batch of {batches.batch_size}, and TensorRT "
            "takes full batches only",
        )


def skipped_findings(batches: Batches) -> Iterator[Finding]:
    """Yield what the source left out."""
    skipped: Sequence[str] = getattr(batches.source, "skipped", ())
    if skipped:
        names = ", ".join(skipped[:5]) + (", ..." if len(skipped) > 5 else "")  # noqa: PLR2004 - enough to find them
        yield Finding(code="skipped-images", message=f"{len(skipped)} images could not be decoded: {names}")


def scale_findings(scales: Mapping[str, np.float32]) -> Iterator[Finding]:
    """Yield what is unusual in the scales."""
    for name, scale in scales.items():
        if np.isinf(scale):
            yield Finding(
                code="infinite-scale",
                tensor=name,
                message=f"the scale of {name!r} is beyond float32, written as 7f800000",
            )
        if not is_writable(name):
            yield Finding(
                code="unwritable-name",
                tensor=name,
                message=f"the name {name!r} cannot stand on a line of a cache; left out",
            )
