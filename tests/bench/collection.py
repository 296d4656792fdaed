"""Section 2: what collecting every float tensor costs over plain inference."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
from models import MODELS, Model, images, model_path
from numpy.typing import NDArray
from report import Section
from timing import Times, interleave, ratio

from trtcalib.batches import Batching, plan_batches
from trtcalib.collect import collect, session_options
from trtcalib.onnx_graph import ModelGraph, expose, own_histograms, read_model
from trtcalib.sources import open_source

if TYPE_CHECKING:
    import onnxruntime

__all__ = ["collection_section"]

PLAIN = "plain inference"
BATCH_SIZES = (8, 32)


def collection_section(*, quick: bool, workers: int) -> Section:
    """Time collection beside plain inference, for each model."""
    pictures, rounds = (32, 2) if quick else (128, 5)
    rows: list[tuple[str, ...]] = []
    facts: dict[str, Any] = {}
    for model in MODELS.values():
        found, tensors = _times(model, pictures, rounds, workers)
        set_up = median(found.pop("one picture").wall)
        rows.append((f"**{model.title}**, {tensors} tensors", "", "", "", ""))
        rows += _rows(model, found, pictures)
        rows.append(("once per call: session, constants", f"{set_up * 1e3:.0f} ms in all", "", "", ""))
        facts[model.title] = {"pictures": pictures, **{name: asdict(times) for name, times in found.items()}}
    return Section(
        title="Collection of all float tensors",
        setting=f"{pictures} pictures, {rounds} interleaved rounds, medians; {workers} workers x 1 thread and the same session "
        "options everywhere but for ORT_ENABLE_ALL; `collect()` is the whole call: it opens the session, counts the "
        "constants and runs the first batch twice.",
        columns=("what", "ms per picture", "over plain inference (min .. max)", "the same in CPU time", "target"),
        rows=rows,
        facts=facts,
    )


def _rows(model: Model, found: dict[str, Times], pictures: int) -> list[tuple[str, ...]]:
    rows = []
    for name, times in found.items():
        target = f"<= {model.target}x" if name.startswith("collect") else ""
        wall, cpu = ratio(times.wall, found[PLAIN].wall), ratio(times.cpu, found[PLAIN].cpu)
        rows.append((name, f"{median(times.wall) / pictures * 1e3:.1f}", str(wall), str(cpu), target))
    return rows


def _times(model: Model, pictures: int, rounds: int, workers: int) -> tuple[dict[str, Times], int]:
    graph = read_model(model_path(model))
    arrays = images(model, pictures)
    with ThreadPoolExecutor(workers) as pool:
        contenders = {
            PLAIN: _inference(pool, arrays, _session(model_path(model))),
            "plain inference, ORT_ENABLE_ALL": _inference(pool, arrays, _session(model_path(model), "ORT_ENABLE_ALL")),
            "all tensors as outputs, no statistics": _inference(pool, arrays, _session(_exposed(graph))),
            **{f"collect(), batch size {size}": _collection(graph, arrays, size, workers) for size in BATCH_SIZES},
            "one picture": _collection(graph, arrays[:1], 1, workers),
        }
        found = interleave(contenders, rounds)
    return found, len(own_histograms(graph))


def _inference(
    pool: ThreadPoolExecutor, arrays: NDArray[np.float32], session: onnxruntime.InferenceSession
) -> Callable[[], None]:
    """Return work that runs the session on each picture and drops what it gives; the pool's threads share the session."""
    name = session.get_inputs()[0].name

    def run(index: int) -> None:
        session.run(None, {name: arrays[index : index + 1]})

    def work() -> None:
        for _ in pool.map(run, range(len(arrays))):
            pass

    return work


def _collection(graph: ModelGraph, arrays: NDArray[np.float32], batch_size: int, workers: int) -> Callable[[], None]:
    def work() -> None:
        source = open_source(arrays, graph.inputs)
        collect(graph, plan_batches(source, graph.fixed_batch, Batching(batch_size=batch_size)), workers=workers)

    return work


def _exposed(graph: ModelGraph) -> bytes:
    """Return the model that `collect()` runs."""
    return expose(graph, [t.name for t in own_histograms(graph) if t.kind in ("activation", "folded")])


def _session(model: Any, level: str | None = None) -> onnxruntime.InferenceSession:
    import onnxruntime

    options = session_options()
    if level is not None:
        options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    return onnxruntime.InferenceSession(
        model if isinstance(model, bytes) else str(model), options, providers=["CPUExecutionProvider"]
    )
