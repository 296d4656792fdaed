"""Section 1: the entropy search on real histograms, against the published loop."""

from __future__ import annotations

from dataclasses import asdict
from statistics import median

import numpy as np
from models import MODELS, images, model_path
from numpy.typing import NDArray
from report import Section
from timing import Ratio, measure

from trtcalib.batches import Batching, plan_batches
from trtcalib.collect import collect
from trtcalib.core.entropy import VARIANTS, entropy_bin
from trtcalib.core.histogram import Histogram
from trtcalib.core.mse import mse_amax
from trtcalib.onnx_graph import read_model
from trtcalib.samples.sources import open_source

__all__ = ["search_section"]

LEVELS = 128
CALLS = 20  # of a search that takes a fraction of a millisecond, per loop of a second

TARGETS = {"tensorrt": "<= 0.5 ms, >= 2000x"}
MSE_TARGET = "<= 1 ms"


def search_section(*, quick: bool) -> Section:
    """Time every variant beside the published loop, histogram by histogram."""
    histograms = _real_histograms(tensors=2 if quick else 8, pictures=4 if quick else 16)
    loop: list[float] = []
    variants: dict[str, list[float]] = {name: [] for name in VARIANTS}
    agree = 0
    for name in VARIANTS:
        entropy_bin(histograms[0], name)  # compiles
    for histogram in histograms:
        loop.append(measure(lambda h=histogram: published_loop(h.counts))[0])
        agree += published_loop(histogram.counts) == entropy_bin(histogram, "pseudocode")
        for name, times in variants.items():
            calls = CALLS if name in ("tensorrt", "pytorch-quantization") else 1
            times.append(median(measure(lambda h=histogram, n=name: entropy_bin(h, n))[0] for _ in range(calls)))
    rows = [("published loop (Python, scipy)", f"{median(loop) * 1e3:.0f}", "1x", "")]
    facts: dict[str, object] = {
        "published loop": {"ms": median(loop) * 1e3},
        "histograms": len(histograms),
        "agree": agree,
    }
    for name, times in variants.items():
        each = [a / b for a, b in zip(loop, times, strict=True)]
        gain = Ratio(median(each), min(each), max(each))
        rows.append((f"variant `{name}`", f"{median(times) * 1e3:.3g}", str(gain), TARGETS.get(name, "")))
        facts[name] = {"ms": median(times) * 1e3, "faster": asdict(gain)}
    mse_amax(histograms[0])  # compiles
    mse = median(measure(lambda h=h: mse_amax(h))[0] for h in histograms for _ in range(CALLS))
    rows.append(("`mse`, for comparison: another search", f"{mse * 1e3:.3g}", "", MSE_TARGET))
    facts["mse"] = {"ms": mse * 1e3}
    return Section(
        title="Entropy search",
        setting=f"{len(histograms)} histograms of 2048 bins from YOLOv8n's and PP-OCRv4 det's activations on real pictures; "
        f"medians, one thread. The loop picks the same bin as variant `pseudocode` on {agree} of {len(histograms)}.",
        columns=("search", "ms per tensor", "faster than the loop (min .. max)", "target"),
        rows=rows,
        facts=facts,
    )


def _real_histograms(tensors: int, pictures: int) -> list[Histogram]:
    """Return ``tensors`` histograms each of two models, spread evenly over the graph."""
    chosen = []
    for key in ("yolo", "det"):
        graph = read_model(model_path(MODELS[key]))
        source = open_source(images(MODELS[key], pictures), graph.inputs)
        found = collect(graph, plan_batches(source, graph.fixed_batch, Batching(batch_size=8))).histograms
        activations = [found[t.name] for t in graph.tensors if t.kind == "activation" and t.name in found]
        spread = [h for h in activations if h.range > 0 and np.count_nonzero(h.counts) > LEVELS]
        chosen += [spread[i] for i in np.linspace(0, len(spread) - 1, tensors).astype(int)]
    return chosen


def published_loop(counts: NDArray[np.int64]) -> int:
    """The loop of "8-bit Inference with TensorRT" as it is usually written out in Python; slow on purpose."""
    from scipy.stats import entropy

    best, best_divergence = counts.size, np.inf
    for i in range(LEVELS, counts.size):
        window = counts[:i]
        p = window.astype(np.float64)
        p[i - 1] += counts[i:].sum()
        q = np.zeros(i)
        merged = i // LEVELS
        for level in range(LEVELS):
            start = level * merged
            stop = i if level == LEVELS - 1 else start + merged
            occupied = window[start:stop] != 0
            if occupied.any():
                q[start:stop][occupied] = window[start:stop].sum() / occupied.sum()
        divergence = entropy(p, q) if q.any() else np.inf
        if divergence < best_divergence:
            best, best_divergence = i, divergence
    return best
