"""What judged samples say: values, losses and their confidence intervals."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from trtcalib.core.bootstrap import compare_means, mean_interval, pooled_ratio, ratio_interval
from trtcalib.core.intervals import Interval, compare_shares, wilson
from trtcalib.judging.function_metric import Function
from trtcalib.judging.judge import COSINE, LARGEST, NOISE, SIGNAL, Judged
from trtcalib.judging.result import JudgedOutput, Judgement, Range, Score
from trtcalib.judging.scores import Metric
from trtcalib.provenance import portable_name

__all__ = ["as_range", "decibels", "judgement", "plain_loss", "reference_score", "right_or_wrong", "worst_noise"]


def reference_score(judged: Judged, metric: Metric) -> Score:
    """Return FP32's value; of a pooled metric there is none, FP32 differs from itself by nothing."""
    if metric.pooled:
        return Score(value=None, interval=None)
    scores = judged.reference_scores
    interval = wilson(int(scores.sum()), scores.size) if right_or_wrong(metric, scores) else mean_interval(scores)
    return Score(value=float(scores.mean()), interval=as_range(interval))


def judgement(judged: Judged, metric: Metric) -> Judgement:
    """Return what the samples say of one variant, with 95 % confidence intervals.

    Shares, a function's too where it gives 0 and 1 alone: Wilson's interval, Newcombe's for the paired difference, and McNemar's exact test; everything else: the percentile
    bootstrap over samples, with a fixed seed.
    """
    outputs = [_output(name, judged.compared[:, i]) for i, name in enumerate(judged.outputs)]
    if metric.pooled:
        return _pooled(judged, metric, outputs)
    first, second = judged.reference_scores, judged.scores
    found = (
        compare_shares(first > 0, second > 0) if right_or_wrong(metric, first, second) else compare_means(first, second)
    )
    return Judgement(
        value=found.second,
        interval=as_range(found.second_interval),
        loss=found.difference,
        loss_interval=as_range(found.difference_interval),
        p_value=getattr(found, "p_value", None),
        outputs=outputs,
    )


def right_or_wrong(metric: Metric, *scores: NDArray[np.float64]) -> bool:
    """Whether every sample is right or wrong, so that the formulas of shares hold, which know how little few samples tell."""
    may_be = metric.is_share or isinstance(metric, Function)
    return may_be and all(bool(np.isin(each, (0, 1)).all()) for each in scores)


def plain_loss(judged: Judged, metric: Metric) -> float:
    """Return the metric's loss alone, without intervals."""
    if metric.pooled:
        return worst_noise(judged, metric)[1]
    return float(judged.reference_scores.mean() - judged.scores.mean())


def worst_noise(judged: Judged, metric: Metric) -> tuple[int, float]:
    """Return the position of the floating-point output with the most noise, and its noise over signal; of the judged output where one is."""
    wanted = getattr(metric, "output", None)
    named = [i for i, name in enumerate(judged.outputs) if wanted in (None, name)]
    # Only floating point has a cosine; numbers of classes are no signal.
    places = [i for i in named if not np.isnan(judged.compared[:, i, COSINE]).any()] or named
    ratios = {i: pooled_ratio(judged.compared[:, i, NOISE], judged.compared[:, i, SIGNAL]) for i in places}
    worst = max(places, key=lambda i: ratios[i])
    return worst, min(ratios[worst], float(np.finfo(np.float64).max))


def _pooled(judged: Judged, metric: Metric, outputs: list[JudgedOutput]) -> Judgement:
    """Judge by the SQNR of the worst output, or of the one that was named."""
    worst, loss = worst_noise(judged, metric)
    interval = ratio_interval(judged.compared[:, worst, NOISE], judged.compared[:, worst, SIGNAL])
    return Judgement(
        value=decibels(loss),
        interval=Range(low=decibels(interval.high), high=decibels(interval.low)),
        loss=loss,
        loss_interval=as_range(interval),
        p_value=None,
        outputs=outputs,
    )


def _output(name: str, compared: NDArray[np.float64]) -> JudgedOutput:
    signal, noise, cosine, same, rows, _ = compared.sum(axis=0)  # a cosine of NaN: no floating point
    largest = float(compared[:, LARGEST].max())
    return JudgedOutput(
        name=portable_name(name),
        sqnr_db=decibels(noise / signal if signal else noise),
        cosine=None if np.isnan(cosine) else float(cosine / len(compared)),
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
