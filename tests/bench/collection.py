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
from trtcalib.collect import collect
from trtcalib.onnx_graph import ModelGraph, expose, own_histograms, read_model
from trtcalib.samples.sources import open_source
from trtcalib.sessions import session_options

if TYPE_CHECKING:
    import onnxruntime

__all__ = ["collection_section"]

PLAIN = "plain inference"
FIRST = "collect(), the first batch of 8 alone"
FIRST_PICTURES = 8
WHOLE = "collect(), batch size 8"
FURTHER = "collect(), each further picture"


def collection_section(*, quick: bool, workers: int) -> Section:
    """Time collection beside plain inference, for each model."""
    rounds = 2 if quick else 3
    rows: list[tuple[str, ...]] = []
    facts: dict[str, Any] = {}
    for model in MODELS.values():
        pictures = 32 if quick else model.pictures
        found, tensors = _times(model, pictures, rounds, workers)
        rows.append((f"**{model.title}**, {tensors} tensors, {pictures} pictures", "", "", "", ""))
        rows += _rows(model, found, pictures)
        facts[model.title] = {"pictures": pictures, **{name: asdict(times) for name, times in found.items()}}
    return Section(
        title="Collection of all float tensors",
        setting=f"{rounds} interleaved rounds, medians; {workers} workers x 1 thread and the same session options "
        "everywhere but for ORT_ENABLE_ALL. A batch size's row is the whole call: open the session, count the constants, run the "
        "first batch twice. A further picture is what the call takes beyond its first batch of 8.",
        columns=("what", "ms per picture", "over plain inference (min .. max)", "the same in CPU time", "target"),
        rows=rows,
        facts=facts,
    )


def _rows(model: Model, found: dict[str, Times], pictures: int) -> list[tuple[str, ...]]:
    further = pictures - FIRST_PICTURES
    per_picture = {name: _scaled(times, pictures) for name, times in found.items() if name != FIRST}
    per_picture[FURTHER] = Times(
        [(whole - first) / further for whole, first in zip(found[WHOLE].wall, found[FIRST].wall, strict=True)],
        [(whole - first) / further for whole, first in zip(found[WHOLE].cpu, found[FIRST].cpu, strict=True)],
    )
    rows = []
    for name, times in per_picture.items():
        wall, cpu = ratio(times.wall, per_picture[PLAIN].wall), ratio(times.cpu, per_picture[PLAIN].cpu)
        target = f"<= {model.target}x" if name.startswith("collect") else ""
        rows.append((name, f"{median(times.wall) * 1e3:.1f}", str(wall), str(cpu), target))
    return rows


def _scaled(times: Times, pictures: int) -> Times:
    return Times([wall / pictures for wall in times.wall], [cpu / pictures for cpu in times.cpu])


def _times(model: Model, pictures: int, rounds: int, workers: int) -> tuple[dict[str, Times], int]:
    graph = read_model(model_path(model))
    arrays = images(model, pictures)
    with ThreadPoolExecutor(workers) as pool:
        contenders = {
            PLAIN: _inference(pool, arrays, _session(model_path(model))),
            "plain inference, ORT_ENABLE_ALL": _inference(pool, arrays, _session(model_path(model), "ORT_ENABLE_ALL")),
            "all tensors as outputs, no statistics": _inference(pool, arrays, _session(_exposed(graph))),
            FIRST: _collection(graph, arrays[:FIRST_PICTURES], FIRST_PICTURES, workers),
            WHOLE: _collection(graph, arrays, FIRST_PICTURES, workers),
            "collect(), batch size 32": _collection(graph, arrays, 32, workers),
        }
        contenders[FIRST]()  # compiles or loads the kernels
        found = interleave(contenders, rounds)
    return found, len(own_histograms(graph))


def _inference(
    pool: ThreadPoolExecutor, arrays: NDArray[np.float32], session: onnxruntime.InferenceSession
) -> Callable[[], None]:
    """Return work that runs the session, warmed up, on each picture; the pool's threads share the session."""
    name = session.get_inputs()[0].name

    def run(index: int) -> None:
        session.run(None, {name: arrays[index : index + 1]})

    def work() -> None:
        for _ in pool.map(run, range(len(arrays))):
            pass

    run(0)
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
