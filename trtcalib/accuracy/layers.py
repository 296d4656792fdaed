"""What each weighted node costs: it alone in INT8, and all but it, where only what lies downstream of it is run again.

One run of FP32 and one of full INT8 give the tensors from which every part starts: with one node in INT8 everything upstream is FP32's,
and with all but one everything upstream is full INT8's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trtcalib.accuracy.simulation import Choice, Downstream, Plan, Simulation
from trtcalib.batches import Run, in_order
from trtcalib.collect import default_workers
from trtcalib.judging.judge import (
    Judged,
    JudgedSamples,
    SampleScore,
    gather,
    reference_scores,
    score_sample,
)
from trtcalib.onnx_graph import ModelGraph
from trtcalib.onnx_tensors import constant_tensors
from trtcalib.passes import Progress
from trtcalib.sessions import Session

__all__ = ["GROUP", "PARTS", "MeasuredLayer", "group_size", "measure_layers"]

GROUP = 16
"""Nodes at a time, at most: each has two models open, and whole models run once per group. What is interrupted loses one group. Ours."""

_OPEN_BYTES = 1 << 28
"""Bytes of weights that the models of a group may hold together, unless a single node's have more; ONNX Runtime takes a few times as much. Ours."""

_BYTES = 4
"""Of a float32 weight; of others this is near enough."""

_BLOCK = 1 << 15
"""Values that are compared at a time: their float64 copies stay in the cache, and need no new memory pages."""

PARTS = 2
"""A node alone, and all but it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredLayer:
    """One weighted node, over all judged samples.

    Attributes:
        output: Its first output's name.
        only: With it alone in INT8.
        all_but: With all but it in INT8.
        local: Sums of squares of its own output, and of what INT8 of this node alone changes there.
        network: The same for what full INT8 changes there.
    """

    output: str
    only: Judged
    all_but: Judged
    local: tuple[float, float]
    network: tuple[float, float]


def group_size(graph: ModelGraph) -> int:
    """Return how many nodes are measured at a time."""
    # Wherever they stand: in the file, beside it, or in Constant nodes.
    weights = sum(math.prod(tensor.dims) * _BYTES for tensor in constant_tensors(graph.proto.graph))
    return int(max(1, min(GROUP, _OPEN_BYTES // max(1, PARTS * weights))))


def measure_layers(
    simulation: Simulation,
    choice: Choice,
    nodes: Sequence[str],
    samples: JudgedSamples,
    *,
    workers: int | None = None,
    progress: Progress | None = None,
) -> list[MeasuredLayer]:
    """Measure some weighted nodes in one pass over the samples.

    Memory: the models of the parts; per worker one sample's tensors that the parts start from.

    Args:
        simulation: Makes the variants.
        choice: Everything in INT8.
        nodes: First outputs; each is quantized under the choice.
        samples: What is judged on.
        workers: Threads; ``None``: one per CPU. The result does not depend on it.
        progress: Called with (samples done, samples in all or ``None``).

    Raises:
        DataError: If samples or labels do not fit.
        MetricError: If the metric cannot judge an output.
    """
    group = _Group(simulation, choice, nodes, samples)
    threads = workers or default_workers()
    sums = _Sums(len(nodes))
    scored: list[list[SampleScore]] = [[] for _ in range(PARTS * len(nodes))]
    with ThreadPoolExecutor(threads, thread_name_prefix="trtcalib") as pool:
        for (first, run), (new, local) in in_order(pool, group.run, samples.batches.numbered_runs(), 2 * threads):
            for so_far, more in zip(scored, new, strict=True):
                so_far.extend(more)
            sums.add(local)
            if progress is not None:
                progress(first + run.samples, samples.batches.samples)
    judged = [gather(group.outputs, of_part) for of_part in scored]
    return [
        MeasuredLayer(
            output=name,
            only=judged[PARTS * i],
            all_but=judged[PARTS * i + 1],
            local=sums.pair(i, 0),
            network=sums.pair(i, 1),
        )
        for i, name in enumerate(nodes)
    ]


class _Sums:
    """Signal and noise per node, locally and along the network; added in the order of the samples."""

    def __init__(self, nodes: int) -> None:
        self._sums = np.zeros((nodes, 2, 2))

    def add(self, found: NDArray[np.float64]) -> None:
        self._sums += found

    def pair(self, node: int, kind: int) -> tuple[float, float]:
        signal, noise = self._sums[node, kind]
        return float(signal), float(noise)


@dataclass(frozen=True, slots=True)
class _Part:
    """A part of a variant, opened.

    Attributes:
        session: Runs it; ``None`` where nothing is asked, since no output depends on the node.
        feeds: What it takes.
        gives: What is asked of it.
    """

    session: Session | None
    feeds: tuple[str, ...]
    gives: tuple[str, ...]

    def run(self, given: Mapping[str, NDArray[Any]], source: str, label: str) -> dict[str, NDArray[Any]]:
        if self.session is None:
            return {}
        return dict(zip(self.gives, self.session.run(self.gives, given, source, label), strict=True))


class _Group:
    """The models of some nodes, opened.

    Attributes:
        outputs: Names of the model's outputs.
    """

    def __init__(self, simulation: Simulation, choice: Choice, nodes: Sequence[str], samples: JudgedSamples) -> None:
        self._nodes = nodes
        self._samples = samples
        full = simulation.plan(choice)
        nothing = Plan({}, (), full.of)
        self.outputs = tuple(output.name for output in simulation.reference.proto.graph.output)
        self._inputs = {given.name for given in simulation.reference.inputs}
        self._parts: list[_Part] = []
        upstream: tuple[list[str], list[str]] = ([], [])
        for node in nodes:
            alone = simulation.plan(replace(choice, float_outputs=frozenset(full.decisions) - {node}))
            others = simulation.plan(replace(choice, float_outputs=choice.float_outputs | {node}))
            for plan, start, feeds in ((alone, nothing, upstream[0]), (others, full, upstream[1])):
                part = simulation.downstream(plan, plan.changed(start))
                # Of the node alone its own output is looked at too.
                gives = dict.fromkeys((*part.outputs, node) if plan is alone else part.outputs)
                self._parts.append(_open(part, tuple(gives)))
                feeds.extend(part.feeds)
        shown = [*self.outputs, *nodes]
        self._float = _Whole(simulation.reference, [*shown, *upstream[0]], self._inputs)
        self._full = _Whole(simulation.model(full), [*shown, *upstream[1]], self._inputs)

    def run(self, numbered: tuple[int, Run]) -> tuple[list[list[SampleScore]], NDArray[np.float64]]:
        """Return the scores per part, and the sums per node [nodes, 2, 2], of one inference."""
        first, run = numbered
        feed = self._samples.load(run)
        source = self._samples.batches.source.name
        exact = self._float.run(feed, source, run.label)
        full = self._full.run(feed, source, run.label)
        expected = {name: exact[name] for name in self.outputs}
        own = reference_scores(self._samples, first, run, expected)
        scored, sums = [], np.zeros((len(self._nodes), 2, 2))
        for i, part in enumerate(self._parts):
            start = full if i % PARTS else exact
            given = {name: feed[name] if name in self._inputs else start[name] for name in part.feeds}
            found = part.run(given, source, run.label)
            outputs = {name: found.get(name, start[name]) for name in self.outputs}
            scored.append(score_sample(self._samples, first, run, outputs, expected, own))
            if i % PARTS == 0:
                node = self._nodes[i // PARTS]
                for kind, other in ((0, found[node]), (1, full[node])):
                    sums[i // PARTS, kind] = _signal_and_noise(exact[node], other)
        return scored, sums


def _signal_and_noise(exact: NDArray[Any], other: NDArray[Any]) -> tuple[float, float]:
    """Return the sums of squares of a tensor and of what is different in another; both are large, so block by block."""
    a, b = exact.ravel(), other.ravel()
    signal = noise = 0.0
    for start in range(0, a.size, _BLOCK):
        values = a[start : start + _BLOCK].astype(np.float64)
        signal += _sum_of_squares(values)
        values -= b[start : start + _BLOCK]
        noise += _sum_of_squares(values)
    return signal, noise


def _sum_of_squares(values: NDArray[np.float64]) -> float:
    # No BLAS: beside busy workers its own threads wait for each other, and how many they are changes the sum.
    return float(np.einsum("i,i->", values, values))


def _open(part: Downstream, gives: tuple[str, ...]) -> _Part:
    return _Part(Session(part.graph, gives, simulate=True) if gives else None, part.feeds, gives)


class _Whole:
    """A whole model that shows some of its tensors."""

    def __init__(self, graph: ModelGraph, names: Sequence[str], inputs: set[str]) -> None:
        self._names = tuple(name for name in dict.fromkeys(names) if name not in inputs)
        self._session = Session(graph, self._names, simulate=True)

    def run(self, feed: Mapping[str, NDArray[Any]], source: str, label: str) -> dict[str, NDArray[Any]]:
        return dict(zip(self._names, self._session.run(self._names, feed, source, label), strict=True))
