"""A study in words, for the terminal and the report alike."""

from __future__ import annotations

from collections.abc import Sequence

from trtcalib.batch_study.result import Configuration, Doubling, Outcome

__all__ = ["percent", "why"]

_LISTED = 5
"""Batches that are listed one by one; the rest is counted."""

_LEAST_CHANGE = 0.001
"""Change of the scale below which a sample's absence is not worth words. Ours."""


def why(outcome: Outcome, configuration: Configuration, bins: int) -> str:
    """Say in one sentence how a tensor's scale came about in one configuration.

    Sample names are given as they are: escape them where the text is shown.

    Args:
        outcome: The tensor in that configuration.
        configuration: The configuration.
        bins: Bins of a histogram.
    """
    if outcome.first_batch == 0:
        return "zero in every sample: there is no range and the scale is 0"
    parts = [_start(outcome, configuration), _growth(outcome), _blame(outcome), _waste(outcome, bins)]
    return "; ".join(part for part in parts if part)


def percent(share: float) -> str:
    """Return a relative change as people write it: ``-38 %``, ``+0.12 %``; ``0 %`` for none."""
    return f"{100 * share:+.3g} %" if share else "0 %"


def _start(outcome: Outcome, configuration: Configuration) -> str:
    where = "the only batch" if configuration.batches == 1 else "first batch"
    before = ""
    if outcome.first_batch > 1:
        where = f"batch {outcome.first_batch}"
        zeros = "batch 1 is" if outcome.first_batch == 2 else f"batches 1 to {outcome.first_batch - 1} are"  # noqa: PLR2004 - grammar
        before = f"{zeros} all zero; "
    sample = "" if outcome.first_sample is None else f" from sample {outcome.first_sample}"
    return f"{before}{where}'s maximum {outcome.first_maximum:.5g}{sample}"


def _growth(outcome: Outcome) -> str:
    times = sum(doubling.times for doubling in outcome.doublings)
    if not times:
        return "the range never doubled"
    to = "past float32" if outcome.range is None else f"to {outcome.range:.5g}"
    return f"doubled {times} x {to} at {_batches(outcome.doublings)}"


def _batches(doublings: Sequence[Doubling]) -> str:
    listed = [f"{d.batch} ({d.times} x)" if d.times > 1 else str(d.batch) for d in doublings]
    if len(listed) == 1:
        return f"batch {listed[0]}"
    if len(listed) > _LISTED:
        rest = len(listed) - _LISTED + 1
        return f"batches {', '.join(listed[: _LISTED - 1])} and {rest} more, the last {doublings[-1].batch}"
    return f"batches {', '.join(listed[:-1])} and {listed[-1]}"


def _blame(outcome: Outcome) -> str:
    without = outcome.without
    effect = ""
    if without is not None and without.change is not None and abs(without.change) >= _LEAST_CHANGE:
        effect = f"scale {percent(without.change)}"
    if outcome.doublings and outcome.doublings[-1].alone:
        last = outcome.doublings[-1]
        which = "it" if len(outcome.doublings) == 1 and last.times == 1 else "the last one"
        told = f"sample {last.sample} alone causes {which}"
        if without is not None and without.sample == last.sample:
            return f"{told}; without it {effect or 'the scale stays'}"
        return told
    return (
        f"without sample {without.sample}, which holds the maximum, {effect}" if without is not None and effect else ""
    )


def _waste(outcome: Outcome, bins: int) -> str:
    return f"{outcome.wasted_bins} of {bins} bins lie above the true maximum" if outcome.wasted_bins else ""
