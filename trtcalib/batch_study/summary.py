"""A model's study in a few numbers and one sentence."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from trtcalib.batch_study.configurations import Layout
from trtcalib.batch_study.outcomes import json_number
from trtcalib.batch_study.result import Outcome, OutlierSample, StudySummary
from trtcalib.core.growth import SampleMaxima
from trtcalib.provenance import portable_name

__all__ = ["find_outliers", "instability", "moved_share", "summarise"]

MOVED = 0.01
"""Relative change of a scale above which a tensor has moved. Ours: INT8 steps are 1/127 of amax, so that a scale that is 1 % larger
moves the largest level by about one step."""

STABLE = 0.95
"""Share of tensors that must not have moved for a batch size to be called stable. Ours."""

STRETCH = 1.25
"""A sample stretches a tensor if its maximum is at least this times the next sample's. Ours."""

MOST_OUTLIERS = 100
MOST_EXAMPLES = 5

_NAME = reprlib.Repr()
"""Names of 10 kB exist in hostile models; a sentence shows both ends of them."""
_NAME.maxstring = 120

Outcomes = Mapping[str, Mapping[str, Outcome]]
"""By configuration, then by tensor."""


def moved_share(outcomes: Mapping[str, Outcome]) -> float:
    """Return the share of tensors whose scale moved from the reference's; 0 for no tensors."""
    return sum(map(_moved, outcomes.values())) / len(outcomes) if outcomes else 0.0


def _moved(outcome: Outcome) -> bool:
    return outcome.change is None or abs(outcome.change) > MOVED


def instability(scales: Sequence[float | None], reference: float | None) -> float | None:
    """Return how far apart the scales of all configurations are, over the reference's; ``None`` where that says nothing."""
    known = [scale for scale in scales if scale is not None]
    if not reference or len(known) < len(scales):
        return None if len(set(scales)) > 1 else 0.0
    return (max(known) - min(known)) / reference


def summarise(layouts: Sequence[Layout], outcomes: Outcomes, outliers: list[OutlierSample]) -> StudySummary:
    """Return the summary.

    Args:
        layouts: The reference first.
        outcomes: Of every layout.
        outliers: From :func:`find_outliers`.
    """
    pairs = [outcome for layout in layouts[1:] for outcome in outcomes[layout.name].values()]
    score = 1 - sum(map(_moved, pairs)) / len(pairs) if pairs else 1.0
    stable = _stable_batch_size(layouts, outcomes)
    return StudySummary(
        score=score,
        stable_batch_size=stable,
        recommendation=_recommendation(layouts, outcomes, stable, outliers),
        outliers=outliers[:MOST_OUTLIERS],
    )


def _stable_batch_size(layouts: Sequence[Layout], outcomes: Outcomes) -> int:
    """Return the smallest batch size from which on enough tensors stay, in every order."""
    sizes = sorted({layout.batch_size for layout in layouts}, reverse=True)
    stable = sizes[0]
    for size in sizes:
        shares = [moved_share(outcomes[layout.name]) for layout in layouts if layout.batch_size == size]
        if max(shares) > 1 - STABLE:
            break
        stable = size
    return stable


def _recommendation(
    layouts: Sequence[Layout], outcomes: Outcomes, stable: int, outliers: Sequence[OutlierSample]
) -> str:
    samples = layouts[0].batch_size
    others = layouts[1:]
    if not others:
        return f"Only one batch of all {samples} samples was studied: name smaller batch sizes to compare it with."
    worst = max(others, key=lambda layout: (moved_share(outcomes[layout.name]), -layout.batch_size))
    share = moved_share(outcomes[worst.name])
    if share == 0:
        return f"Any batch size will do: no scale moved by more than {MOVED:.0%} in any of the {len(layouts)} configurations."
    tensor, largest = _largest_change(outcomes[worst.name])
    reason = (
        f"in {worst.name} {share:.0%} of the tensors move by more than {MOVED:.0%}"
        + (f", up to {largest:+.0%} at {_NAME.repr(tensor)}" if tensor else "")
        + ", because the first batch's maximum decides where a range can end"
    )
    nearest = max(layout.batch_size for layout in others)
    if stable < samples:
        advice = (
            f"Take a batch size of {stable} or more: from there on at least {STABLE:.0%} of the tensors stay within {MOVED:.0%} of one "
            f"batch of all {samples} samples, while {reason}"
        )
    else:
        advice = (
            f"Take all {samples} samples as one batch: already at a batch size of {nearest} more than {1 - STABLE:.0%} of the tensors move; "
            f"{reason}"
        )
    if outliers and outliers[0].tensors > 1:
        advice += f"; and look at sample {outliers[0].sample}, which alone stretches {outliers[0].tensors} tensors"
        if outliers[0].stretch is not None:
            advice += f", up to {outliers[0].stretch:.3g} x"
    return advice + "."


def _largest_change(outcomes: Mapping[str, Outcome]) -> tuple[str, float]:
    known = {name: outcome.change for name, outcome in outcomes.items() if outcome.change is not None}
    if not known:
        return "", 0.0
    name = max(known, key=lambda name: abs(known[name]))
    return name, known[name]


def find_outliers(
    names: Sequence[str], labels: Sequence[str], samples: SampleMaxima, next_maximum: NDArray[np.float32]
) -> list[OutlierSample]:
    """Return the samples that stretch tensors, those that stretch most first.

    Args:
        names: The tensors.
        labels: The samples.
        samples: Their maxima.
        next_maximum: float32 ``[tensors]``, the largest maximum without the sample that alone holds it.
    """
    if len(samples.maxima) == 1:
        return []  # there is no other sample that it could stretch a range of
    with np.errstate(divide="ignore", invalid="ignore"):
        factor = samples.maxima.max(axis=0).astype(np.float64) / next_maximum
    by_sample: dict[int, list[int]] = {}
    for t in np.flatnonzero(factor >= STRETCH).tolist():
        by_sample.setdefault(int(samples.largest[t]), []).append(t)
    found = []
    for sample, tensors in by_sample.items():
        ranked = sorted(tensors, key=lambda t: -factor[t])
        found.append(
            OutlierSample(
                sample=labels[sample],
                tensors=len(tensors),
                stretch=json_number(factor[ranked[0]]),
                examples=[portable_name(names[t]) for t in ranked[:MOST_EXAMPLES]],
            )
        )
    return sorted(found, key=lambda o: (-o.tensors, -(o.stretch if o.stretch is not None else np.inf)))
