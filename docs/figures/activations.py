"""What a model's tensors held, batch by batch, and the histograms of the page: the embedded sample and made-up values."""

# ruff: noqa: INP001 - scripts of one page, not a package

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trtcalib.batches import Batching, plan_batches
from trtcalib.onnx_graph import expose, own_histograms, read_model
from trtcalib.samples.sources import open_source
from trtcalib.sessions import SESSION_OPTIONS, session_options

__all__ = ["ROOT", "SAMPLE_DATA", "SAMPLE_MODEL", "SAMPLE_TENSORS", "activations", "half_normal", "normal"]

ROOT = Path(__file__).resolve().parents[2]
SAMPLE_MODEL = ROOT / "data/digits/model.onnx"
SAMPLE_DATA = str(ROOT / "data/digits-calibration.yaml")
SAMPLE_TENSORS = ("stem_relu", "branch_b_relu", "gate_sigmoid", "logits")
"""Two ReLU outputs, a sigmoid's and a signed one."""

BATCHES = 4
PER_BATCH = 50_000


def activations(model: Path, data: Any, names: Sequence[str], batch_size: int) -> dict[str, list[NDArray[np.float32]]]:
    """Return the values of the named tensors, one flat float32 array per batch, from the sessions that trtcalib uses."""
    import onnxruntime

    graph = read_model(model)
    batches = plan_batches(open_source(data, graph.inputs), graph.fixed_batch, Batching(batch_size=batch_size))
    fed = {model_input.name for model_input in graph.inputs}
    # A view's values are those of the tensor that it views, which is what is observed.
    views = {t.name: t.view_of for t in graph.tensors if t.view_of is not None}
    origins = {name: views.get(name, name) for name in names}
    computed = sorted(set(origins.values()) - fed)
    # As calibrate does: with fewer outputs ONNX Runtime fuses more nodes, and the last bits differ.
    observed = [t.name for t in own_histograms(graph) if t.kind in ("activation", "folded")]
    session = onnxruntime.InferenceSession(
        expose(graph, observed), session_options(), providers=[str(SESSION_OPTIONS["provider"])]
    )
    parts: dict[str, dict[int, list[NDArray[np.float32]]]] = {name: {} for name in names}
    for run in batches.runs():
        feed = run.load()
        produced = dict(zip(computed, session.run(computed, dict(feed)), strict=True)) if computed else {}
        for name in names:
            values = {**feed, **produced}[origins[name]]
            parts[name].setdefault(run.batch, []).append(np.asarray(values, np.float32).ravel())
    return {name: [np.concatenate(parts[name][batch]) for batch in sorted(parts[name])] for name in names}


def normal() -> list[NDArray[np.float32]]:
    """Return four batches of a standard normal distribution, seed 1."""
    return list(np.random.default_rng(1).standard_normal((BATCHES, PER_BATCH)).astype(np.float32))


def half_normal() -> list[NDArray[np.float32]]:
    """Return four batches of |normal|, seed 2, and one value of 20 at the very end."""
    batches = list(np.abs(np.random.default_rng(2).standard_normal((BATCHES, PER_BATCH))).astype(np.float32))
    batches[-1][-1] = 20
    return batches
