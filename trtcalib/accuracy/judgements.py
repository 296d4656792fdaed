"""What judged samples say: values, losses and their confidence intervals."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from trtcalib.accuracy.judging import LARGEST, NOISE, SIGNAL, Judged
from trtcalib.accuracy.result import JudgedOutput, Judgement, Range, Score
from trtcalib.accuracy.scores import Metric
from trtcalib.core.bootstrap import compare_means, mean_interval, pooled_ratio, ratio_interval
from trtcalib.core.intervals import Interval, compare_shares, wilson
from trtcalib.provenance import portable_name

__all__ = ["as_range", "decibels", "judgement", "reference_score"]


def reference_score(judged: Judged, metric: Metric) -> Score:
    """Return FP32's value; of a pooled metric there is none, FP32 differs from itself by nothing."""
    if metric.pooled:
        return Score(value=None, interval=None)
    scores = judged.reference_scores
    interval = wilson(int(scores.sum()), scores.size) if metric.is_share else mean_interval(scores)
    return Score(value=float(scores.mean()), interval=as_range(interval))


def judgement(judged: Judged, metric: Metric) -> Judgement:
    """Return what the samples say of one variant, with 95 % confidence intervals.

    Shares: Wilson's interval, Newcombe's for the paired difference, and McNemar's exact test; everything else: the percentile
    bootstrap over samples, with a fixed seed.
    """
    outputs = [_output(name, judged.compared[:, i]) for i, name in enumerate(judged.outputs)]
    if metric.pooled:
        return _pooled(judged, metric, outputs)
    first, second = judged.reference_scores, judged.scores
    found = compare_shares(first > 0, second > 0) if metric.is_share else compare_means(first, second)
    return Judgement(
        value=found.second,
        interval=as_range(found.second_interval),
        loss=found.difference,
        loss_interval=as_range(found.difference_interval),
        p_value=getattr(found, "p_value", None),
        outputs=outputs,
    )


def _pooled(judged: Judged, metric: Metric, outputs: list[JudgedOutput]) -> Judgement:
    """Judge by the SQNR of the worst output, or of the one that was named."""
    wanted = getattr(metric, "output", None)
    places = [i for i, name in enumerate(judged.outputs) if wanted in (None, name)]
    losses = {i: pooled_ratio(judged.compared[:, i, NOISE], judged.compared[:, i, SIGNAL]) for i in places}
    worst = max(places, key=lambda i: losses[i])
    interval = ratio_interval(judged.compared[:, worst, NOISE], judged.compared[:, worst, SIGNAL])
    return Judgement(
        value=decibels(losses[worst]),
        interval=Range(low=decibels(interval.high), high=decibels(interval.low)),
        loss=min(losses[worst], float(np.finfo(np.float64).max)),
        loss_interval=as_range(interval),
        p_value=None,
        outputs=outputs,
    )


def _output(name: str, compared: NDArray[np.float64]) -> JudgedOutput:
    signal, noise, cosine, same, rows, _ = compared.sum(axis=0)
    largest = float(compared[:, LARGEST].max())
    return JudgedOutput(
        name=portable_name(name),
        sqnr_db=decibels(noise / signal if signal else noise),
        cosine=float(cosine / len(compared)),
        agreement=float(same / rows) if rows else None,
        largest_difference=largest if np.isfinite(largest) else None,
    )


def decibels(noise_to_signal: float) -> float | None:
    """Return the ratio of signal to noise in dB; ``None`` where there is no noise, or nothing else."""
    return float(-10 * np.log10(noise_to_signal)) if 0 < noise_to_signal < np.inf else None


def as_range(interval: Interval) -> Range:
    """Return an interval as JSON holds it."""
    low, high = (end if np.isfinite(end) else None for end in (interval.low, interval.high))
    return Range(low=low, high=high)
