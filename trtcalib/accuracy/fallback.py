"""The nodes to leave in float: a small set that brings the loss under a bound."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from trtcalib.accuracy.result import Judgement
from trtcalib.qdq.coverage import NodeFacts

__all__ = ["AT_ONCE", "Found", "JudgeSets", "find_fallback", "macs_left", "most_evaluations"]

AT_ONCE = 4
"""Sets that are judged in one pass over the samples, FP32 once for all of them. Ours."""

_MOST_PRUNED = 32
"""Nodes of a set that are tried back in INT8; a larger set is no small one anyway. Ours: bounds the evaluations."""

JudgeSets = Callable[[Sequence[frozenset[str]]], Sequence[Judgement]]
"""Judges full INT8 but for these nodes, given by their first outputs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A set of nodes to leave in float.

    Attributes:
        outputs: First outputs, in the first order.
        judgement: What is lost with it; judged as it is.
        reached: Whether that is within the bound.
        evaluations: Sets that were judged; what was known before is none.
    """

    outputs: tuple[str, ...]
    judgement: Judgement
    reached: bool
    evaluations: int


def find_fallback(
    orders: Sequence[Sequence[str]], singles: Mapping[str, float], max_loss: float, judge: JudgeSets
) -> Found:
    """Find a small set of nodes that, left in float, brings the loss within a bound. Full INT8 alone is not within it.

    One node, where one is enough. Else of each order the shortest beginning that is enough, and of the shortest of these, nodes are put back into
    INT8, the least relieving first, as long as the loss stays within the bound. Two shortcuts take it that the loss falls with each node more
    in float: a beginning is searched for by sections, and a node that could not be put back is not tried again. Where that does not
    hold, the set may be larger than it need be; it is never judged by what was taken to be so. That no smaller set does is not proven: it would
    take all sets.

    Args:
        orders: First outputs, most promising first; each order holds the same nodes.
        singles: What is lost with one node alone in float, as it was measured; of each node. Where that is too much, the node alone is not judged.
        max_loss: The bound, in the metric's own terms.
        judge: Judges full INT8 but for these nodes.
    """
    search = _Search(singles, max_loss, judge)
    rank = {node: place for place, node in enumerate(orders[0])}
    best = search.single(rank)
    if not best:
        best = list(orders[0])
        for order in orders:
            best = search.shortest(order, len(best) - 1) or best
        best = search.pruned(sorted(best, key=rank.__getitem__))
    found = search.judgement(best)
    return Found(outputs=tuple(best), judgement=found, reached=found.loss <= max_loss, evaluations=search.evaluations)


def most_evaluations(nodes: int, orders: int) -> int:
    """Return how many sets are judged at most, about: what a progress bar is told."""
    passes, left = 0, nodes
    while left:
        passes, left = passes + 1, left // (AT_ONCE + 1)
    return AT_ONCE * (1 + orders * passes) + 2 * min(nodes, _MOST_PRUNED) + 1


class _Search:
    """Judges sets, each once.

    Attributes:
        evaluations: How many were judged.
    """

    def __init__(self, singles: Mapping[str, float], max_loss: float, judge: JudgeSets) -> None:
        self._singles = singles
        self._max_loss = max_loss
        self._judge = judge
        self._known: dict[frozenset[str], Judgement] = {}

    @property
    def evaluations(self) -> int:
        return len(self._known)

    def judgement(self, nodes: Collection[str]) -> Judgement:
        self._judge_new([frozenset(nodes)])
        return self._known[frozenset(nodes)]

    def single(self, rank: Mapping[str, int]) -> list[str]:
        """Return the one node that relieves most, where one is enough; the measurement is checked, first of one, then of some more."""
        enough = [node for node, loss in self._singles.items() if loss <= self._max_loss]
        enough.sort(key=lambda node: (self._singles[node], rank[node]))
        for some in (enough[:1], enough[1 : AT_ONCE + 1]):
            good = [node for node, is_good in zip(some, self._are_enough([[node] for node in some])) if is_good]
            if good:
                return good[:1]
        return []

    def shortest(self, order: Sequence[str], most: int) -> list[str]:
        """Return the shortest beginning that is enough, of at most so many nodes; empty where none is that was judged."""
        low, high = 0, most + 1  # order[:low] is not enough; order[:high] is, or is too long
        while high - low > 1:
            steps = {low + (high - low) * i // (AT_ONCE + 1) for i in range(1, AT_ONCE + 1)} | {low + 1}
            tried = sorted(steps - {low, high})[-AT_ONCE:]
            enough = self._are_enough([order[:n] for n in tried])
            high = next((n for n, good in zip(tried, enough, strict=True) if good), high)
            low = max([n for n, good in zip(tried, enough, strict=True) if not good and n < high], default=low)
        return list(order[:high]) if high <= most else []

    def pruned(self, nodes: Sequence[str]) -> list[str]:
        """Return what stays of a set that is enough when the nodes that need not be in it are put back."""
        kept = list(nodes)
        # Of equally relieving ones the last in the order is taken to be the least.
        place = {node: i for i, node in enumerate(kept)}
        back = sorted(kept, key=lambda node: (-self._singles[node], -place[node]))[:_MOST_PRUNED]
        while back:
            tried, back = back[:AT_ONCE], back[AT_ONCE:]
            while tried:
                fewer = [_without(kept, [node]) for node in tried]
                good = [node for node, is_good in zip(tried, self._are_enough(fewer), strict=True) if is_good]
                if len(good) > 1 and self._are_enough([_without(kept, good)])[0]:
                    kept, tried = _without(kept, good), []
                else:
                    kept, tried = _without(kept, good[:1]), good[1:]
        return kept

    def _are_enough(self, sets: Sequence[Sequence[str]]) -> list[bool]:
        """Whether each set brings the loss within the bound."""
        open_ = [frozenset(nodes) for nodes in sets if not self._is_known_to_fail(nodes)]
        self._judge_new(open_)
        return [
            not self._is_known_to_fail(nodes) and self._known[frozenset(nodes)].loss <= self._max_loss for nodes in sets
        ]

    def _is_known_to_fail(self, nodes: Sequence[str]) -> bool:
        return not nodes or (len(nodes) == 1 and not self._singles[nodes[0]] <= self._max_loss)

    def _judge_new(self, sets: Sequence[frozenset[str]]) -> None:
        new = [nodes for nodes in dict.fromkeys(sets) if nodes not in self._known]
        if new:
            self._known.update(zip(new, self._judge(new), strict=True))


def _without(nodes: Sequence[str], left_out: Collection[str]) -> list[str]:
    return [node for node in nodes if node not in left_out]


def macs_left(nodes: Sequence[NodeFacts], outputs: Collection[str]) -> float | None:
    """Return the share of the known multiply-accumulates that stays in INT8; ``None`` where none are known.

    Args:
        nodes: Every weighted node, with whether the full model quantizes it.
        outputs: First outputs of those that are left in float.
    """
    total = sum(node.macs or 0 for node in nodes)
    left = sum(node.macs or 0 for node in nodes if node.quantized and node.output not in outputs)
    return left / total if total else None
