"""Timing on a machine whose speed changes: contenders take turns, and only what ran side by side is compared."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

__all__ = ["Ratio", "Times", "interleave", "measure", "ratio"]


@dataclass(frozen=True, slots=True)
class Times:
    """What one contender took, per round.

    Attributes:
        wall: Seconds on the clock.
        cpu: Seconds of processor time, all threads together: what other processes on the machine disturb least.
    """

    wall: list[float]
    cpu: list[float]


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


def measure(work: Callable[[], Any]) -> tuple[float, float]:
    """Return wall and processor seconds of one call."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def interleave(contenders: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, Times]:
    """Time the contenders in turn: A B C A B C. Warm them up before."""
    times = {name: Times([], []) for name in contenders}
    for _ in range(rounds):
        for name, work in contenders.items():
            wall, cpu = measure(work)
            times[name].wall.append(wall)
            times[name].cpu.append(cpu)
    return times


def ratio(over: list[float], under: list[float]) -> Ratio:
    """Return ``over / under`` round by round."""
    each = [a / b for a, b in zip(over, under, strict=True)]
    return Ratio(median(each), min(each), max(each))
