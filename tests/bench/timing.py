"""Timing on a machine whose speed changes: contenders take turns, and only what ran side by side is compared."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

__all__ = ["Ratio", "interleave", "ratio", "seconds"]


@dataclass(frozen=True, slots=True)
class Ratio:
    """One contender over another, per round.

    Attributes:
        middle: The median over the rounds.
        low: The smallest.
        high: The largest.
    """

    middle: float
    low: float
    high: float

    def __str__(self) -> str:
        digits = 0 if self.middle >= 100 else 2
        return f"{self.middle:.{digits}f}x ({self.low:.{digits}f} .. {self.high:.{digits}f})"


def seconds(work: Callable[[], Any]) -> float:
    """Return the wall time of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def interleave(contenders: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Return wall seconds per contender and round: A B C A B C, after one round that is not counted."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(rounds + 1):
        for name, work in contenders.items():
            took = seconds(work)
            if turn > 0:
                times[name].append(took)
    return times


def ratio(over: list[float], under: list[float]) -> Ratio:
    """Return ``over / under`` round by round."""
    each = [a / b for a, b in zip(over, under, strict=True)]
    return Ratio(median(each), min(each), max(each))
