"""The nodes to leave in float: a small set that brings the loss under a bound, and how each tool is told of it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from trtcalib.accuracy.judgements import judgement
from trtcalib.accuracy.judging import Judged
from trtcalib.accuracy.result import Judgement
from trtcalib.accuracy.scores import Metric
from trtcalib.qdq.coverage import NodeFacts

__all__ = ["AT_ONCE", "Found", "dialects", "find_fallback", "macs_left"]

AT_ONCE = 4
"""Sets that are judged in one pass over the samples, FP32 once for all of them."""

_MOST_PRUNED = 32
"""Nodes of a set that are tried back in INT8 one by one; a larger set is no small one anyway. Ours: bounds the evaluations."""

JudgeSets = Callable[[Sequence[frozenset[str]]], list[Judged]]
"""Judges full INT8 but for these nodes, given by their first outputs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A set of nodes to leave in float.

    Attributes:
        outputs: First outputs, most sensitive first.
        judgement: What is lost with it.
        reached: Whether that is within the bound.
        evaluations: Sets that were judged.
    """

    outputs: tuple[str, ...]
    judgement: Judgement
    reached: bool
    evaluations: int


def find_fallback(orders: Sequence[Sequence[str]], max_loss: float, metric: Metric, judge: JudgeSets) -> Found:
    """Find a small set of nodes that, left in float, brings the loss within a bound.

    Of each order the shortest beginning that is enough is searched for; of the shortest of these, nodes are put back into INT8 one by
    one, the least sensitive first, as long as the loss stays within the bound. Every set that is returned was judged as it is. That no
    smaller set does is not proven: it would take all sets.

    Args:
        orders: First outputs, most promising first; each order holds the same nodes.
        max_loss: The bound, in the metric's own terms.
        metric: Judges.
        judge: Judges full INT8 but for these nodes.
    """
    search = _Search(max_loss, metric, judge)
    best = min((search.shortest(order) for order in orders), key=len)
    # What is left in float longest is what matters most.
    for node in reversed(best[:_MOST_PRUNED]):
        fewer = [other for other in best if other != node]
        if fewer and search.is_enough([fewer])[0]:
            best = fewer
    found = search.judgement(best)
    return Found(outputs=tuple(best), judgement=found, reached=found.loss <= max_loss, evaluations=search.evaluations)


class _Search:
    """Judges sets, each once.

    Attributes:
        evaluations: How many were judged.
    """

    def __init__(self, max_loss: float, metric: Metric, judge: JudgeSets) -> None:
        self._max_loss = max_loss
        self._metric = metric
        self._judge = judge
        self._known: dict[frozenset[str], Judgement] = {}

    @property
    def evaluations(self) -> int:
        return len(self._known)

    def judgement(self, nodes: Sequence[str]) -> Judgement:
        self.is_enough([nodes])
        return self._known[frozenset(nodes)]

    def is_enough(self, sets: Sequence[Sequence[str]]) -> list[bool]:
        """Whether each set brings the loss within the bound."""
        wanted = [frozenset(nodes) for nodes in sets]
        new = [nodes for nodes in dict.fromkeys(wanted) if nodes not in self._known]
        for nodes, judged in zip(new, self._judge(new) if new else [], strict=True):
            self._known[nodes] = judgement(judged, self._metric)
        return [self._known[nodes].loss <= self._max_loss for nodes in wanted]

    def shortest(self, order: Sequence[str]) -> list[str]:
        """Return the shortest beginning that is enough, taking it that longer ones lose less; all, where none is."""
        low, high = 0, len(order)  # order[:low] is not enough, order[:high] is taken to be
        while high - low > 1:
            steps = sorted({low + (high - low) * i // (AT_ONCE + 1) for i in range(1, AT_ONCE + 1)} - {low, high})
            steps = steps or [low + 1]
            enough = self.is_enough([order[:n] for n in steps])
            high = next((n for n, good in zip(steps, enough, strict=True) if good), high)
            low = max([n for n, good in zip(steps, enough, strict=True) if not good and n < high], default=low)
        return list(order[:high])


def macs_left(nodes: Sequence[NodeFacts], outputs: Sequence[str]) -> float | None:
    """Return the share of the known multiply-accumulates that stays in INT8; ``None`` where none are known.

    Args:
        nodes: Every weighted node, with whether the full model quantizes it.
        outputs: First outputs of those that are left in float.
    """
    total = sum(node.macs or 0 for node in nodes)
    left = sum(node.macs or 0 for node in nodes if node.quantized and node.output not in outputs)
    return left / total if total else None


def dialects(names: Mapping[str, str], outputs: Sequence[str]) -> dict[str, str]:
    """Return how each tool is told to leave nodes out of INT8, ready to be pasted into a shell.

    Tools that know nodes by name are told of those alone that have one; a name that a tool's own list cannot hold is left out of it.

    Args:
        names: Name by first output; empty where a node has none.
        outputs: First outputs of the nodes to leave in float.
    """
    named = [names[output] for output in outputs if names.get(output) and names[output].isprintable()]
    patterns = [f"^{re.escape(names.get(output) or output)}$" for output in outputs]
    layers = [name for name in named if not set(name) & set(",:*")]
    found = {
        "qdq": " ".join(f"--exclude {shlex.quote(pattern)}" for pattern in patterns if pattern.isprintable()),
        "build": f"--fallback {shlex.quote('fp16:' + ','.join(_globbed(name) for name in layers))}" if layers else "",
        "trtexec": (
            f"--precisionConstraints=obey --layerPrecisions={shlex.quote(','.join(f'{name}:fp16' for name in layers))}"
            if layers
            else ""
        ),
        "modelopt": f"--nodes_to_exclude {' '.join(shlex.quote(f'^{re.escape(name)}$') for name in named)}"
        if named
        else "",
    }
    return {tool: text for tool, text in found.items() if text}


def _globbed(name: str) -> str:
    """Return a name as the pattern that finds it alone: ``--fallback`` takes ``*``, ``?`` and ``[``."""
    return name.replace("[", "[[]").replace("?", "[?]")
