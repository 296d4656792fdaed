"""Accuracy results in words and figures: the one place that knows how each metric's numbers are written."""

from __future__ import annotations

from collections.abc import Callable

from trtcalib.accuracy.result import Judgement, MetricFacts, Range, Score, Setting, Sweep

__all__ = [
    "FP32",
    "SIMULATED",
    "bare_change",
    "bare_gain",
    "change",
    "change_interval",
    "claim",
    "counted",
    "decibels",
    "full_change",
    "gain",
    "gain_claim",
    "gain_interval",
    "is_percent",
    "judged_text",
    "judged_value",
    "loss_amount",
    "p_value",
    "reference",
    "score",
    "share",
    "share_interval",
    "value",
]

FP32 = "FP32"
"""What the float model is called."""

SIMULATED = "INT8 is simulated by ONNX Runtime in float; it is not TensorRT's kernels"

_PERCENT = ("top1", "top5", "agreement")
"""Metrics of 0 to 1 whose mean is a share of samples or of rows."""

_AGAINST_ITSELF = ("agreement", "cosine", "sqnr")
"""Metrics that compare with FP32's outputs, so that FP32 has no score of its own."""

_SMALL_P = 0.001
"""Below it p is not spelled out: an exact test of few samples carries no more digits. Customary."""

_LARGE_NOISE = 10
"""Per cent from which noise is written without decimals."""

_ENDLESS = 1e6
"""Per cent from which noise is written with an exponent, lest it fills the line."""


def value(metric: MetricFacts, number: float | None) -> str:
    """Return a metric's value: ``99.60 %``, ``35.7 dB``, ``0.99987``, or five significant digits of a function's."""
    if metric.name == "sqnr":
        return decibels(number, "no difference")
    if number is None:
        return "infinite"
    if is_percent(metric):
        return share(number)
    return f"{number:.5f}" if metric.name == "cosine" else f"{number:.5g}"


def is_percent(metric: MetricFacts) -> bool:
    """Return whether the metric is written in per cent, and differences of it in points."""
    return metric.is_share or metric.name in _PERCENT


def share(number: float) -> str:
    """Return 0 to 1 as ``99.60 %``."""
    return f"{100 * number:.2f} %"


def share_interval(between: Range) -> str:
    """Return ``[98.6, 99.9]``, in per cent."""
    return _ends(between.low, between.high, lambda x: f"{100 * x:.1f}")


def decibels(number: float | None, infinite: str) -> str:
    """Return ``35.7 dB``, or the word for no noise at all."""
    return infinite if number is None else f"{number:.1f} dB"


def score(metric: MetricFacts, found: Score) -> str:
    """Return a value with its interval: ``99.60 % [98.6, 99.9]``."""
    between = "" if found.interval is None else f" {_value_interval(metric, found.interval)}"
    number = judged_value(metric, found) if isinstance(found, Judgement) else value(metric, found.value)
    return number + between


def judged_value(metric: MetricFacts, judged: Judgement) -> str:
    """Return a variant's value; of infinite ones the loss tells those without any noise from those with nothing else."""
    if metric.name == "sqnr" and judged.value is None and judged.loss > 0:
        return "only noise"
    return value(metric, judged.value)


def reference(setting: Setting) -> str:
    """Return what FP32 scores, or that it is what the others are compared with."""
    if setting.metric.name in _AGAINST_ITSELF:
        return f"compared with {FP32}'s outputs"
    return f"{FP32} {score(setting.metric, setting.reference)}"


def _value_interval(metric: MetricFacts, between: Range) -> str:
    if is_percent(metric):
        return share_interval(between)
    if metric.name == "sqnr":
        return _ends(between.low, between.high, lambda x: f"{x:.1f}")
    return _ends(between.low, between.high, lambda x: value(metric, x))


def change(metric: MetricFacts, loss: float) -> str:
    """Return what a variant has more than FP32: ``-1.20 points``; for sqnr the noise's share of the signal: ``noise 0.027 %``."""
    if metric.name == "sqnr":
        return f"noise {_noise(loss)}"
    return bare_change(metric, loss) + _unit(metric)


def bare_change(metric: MetricFacts, loss: float) -> str:
    """Return :func:`change` without its unit, for a column: ``-1.20``; for sqnr ``0.027 %``."""
    return _noise(loss) if metric.name == "sqnr" else _signed(metric, -loss)


def change_interval(metric: MetricFacts, loss: Range | None) -> str:
    """Return the interval of a change, in the units of :func:`change`: ``[-2.10, -0.30]``; empty where there is none."""
    return gain_interval(metric, loss if loss is None or metric.name == "sqnr" else _turned(loss))


def full_change(metric: MetricFacts, judged: Judgement) -> str:
    """Return change, interval and p-value: ``-1.20 points [-2.10, -0.30], p = 0.03``."""
    between = change_interval(metric, judged.loss_interval)
    p = "" if judged.p_value is None else f", {p_value(judged.p_value)}"
    return f"{change(metric, judged.loss)}{between and ' '}{between}{p}"


def judged_text(metric: MetricFacts, judged: Judgement) -> str:
    """Return value and change, each with its interval: ``97.00 % [95.1, 98.2], -1.20 points [-2.10, -0.30], p = 0.03``."""
    return f"{score(metric, judged)}, {full_change(metric, judged)}"


def gain(metric: MetricFacts, amount: float) -> str:
    """Return how much less is lost: ``+0.80 points``; for sqnr ``0.5 % less noise``, in shares of the signal."""
    if metric.name == "sqnr":
        return f"{_noise(abs(amount))} {'less' if amount >= 0 else 'more'} noise"
    return bare_gain(metric, amount) + _unit(metric)


def bare_gain(metric: MetricFacts, amount: float) -> str:
    """Return :func:`gain` without its unit, for a column: ``+0.80``; for sqnr ``0.5 %``, negative where there is more noise."""
    return _noise(amount) if metric.name == "sqnr" else _signed(metric, amount)


def loss_amount(metric: MetricFacts, loss: float) -> str:
    """Return a loss without a sign, such as the one that is allowed: ``1.00 points``, ``noise 1 %``."""
    if metric.name == "sqnr":
        return f"noise {_noise(loss)}"
    return _signed(metric, loss).lstrip("+") + _unit(metric)


def p_value(p: float) -> str:
    """Return ``p = 0.03``, or ``p < 0.001``."""
    return f"p < {_SMALL_P}" if p < _SMALL_P else f"p = {p:.2g}"


def claim(metric: MetricFacts, judged: Judgement, samples: int) -> str:
    """Say whether these samples carry the claim that the variant differs from FP32.

    Args:
        metric: What is scored.
        judged: The variant.
        samples: How many were judged.
    """
    if metric.name == "sqnr":
        if judged.value is None and not judged.loss:
            return f"no difference from {FP32} in {counted(samples, 'sample')}"
        between = change_interval(metric, judged.loss_interval)
        within = f", with 95 % confidence {between}" if between else ""
        return f"{change(metric, judged.loss)} of the signal at the worst output{within}"
    turned = None if judged.loss_interval is None else _turned(judged.loss_interval)
    return _claim(f"the difference of {change(metric, judged.loss)}", metric, turned, samples)


def gain_claim(sweep: Sweep) -> str:
    """Say whether the held-out samples carry the claim that the winner is better than entropy."""
    what = f"the gain of {gain(sweep.metric, sweep.gain)}"
    return _claim(what, sweep.metric, sweep.gain_interval, sweep.evaluation.samples)


def gain_interval(metric: MetricFacts, between: Range | None) -> str:
    """Return the interval of a gain, in the units of :func:`gain`; empty where there is none."""
    if between is None:
        return ""
    if metric.name == "sqnr":
        return _noise_interval(between)
    return _ends(between.low, between.high, lambda x: _signed(metric, x))


def _claim(what: str, metric: MetricFacts, between: Range | None, samples: int) -> str:
    """Say whether an interval, more of which is better, holds 0."""
    if between is None:
        return f"{what} is no claim: there is no interval of it from {counted(samples, 'sample')}"
    low, high = between.low, between.high
    of = f"the 95 % interval of {counted(samples, 'sample')}, {gain_interval(metric, between)}{_unit(metric)},"
    if (low is None or low <= 0) and (high is None or high >= 0):
        return f"{what} cannot be told from none: {of} holds 0; more samples are needed to tell"
    return f"{what} is more than chance: {of} does not hold 0"


def counted(number: int, thing: str) -> str:
    """Return ``1 sample``, ``500 samples``."""
    return f"{number} {thing}{'s' * (number != 1)}"


def _ends(low: float | None, high: float | None, write: Callable[[float], str]) -> str:
    return f"[{'-inf' if low is None else write(low)}, {'inf' if high is None else write(high)}]"


def _turned(loss: Range) -> Range:
    """Return the interval of the change: what is lost at most is its lower end."""
    return Range(low=None if loss.high is None else -loss.high, high=None if loss.low is None else -loss.low)


def _unit(metric: MetricFacts) -> str:
    return " points" if is_percent(metric) else ""


def _signed(metric: MetricFacts, amount: float) -> str:
    if is_percent(metric):
        text = f"{100 * amount:+.2f}"
    else:
        text = f"{amount:+.5f}" if metric.name == "cosine" else f"{amount:+.5g}"
    # What rounds to nothing has no sign.
    return text.lstrip("+-") if float(text) == 0 else text


def _noise_interval(between: Range) -> str:
    return f"{_ends(between.low, between.high, _percentage)} %"


def _noise(ratio: float) -> str:
    return f"{_percentage(ratio)} %"


def _percentage(ratio: float) -> str:
    percent = 100 * ratio
    return f"{percent:.0f}" if _LARGE_NOISE <= abs(percent) < _ENDLESS else f"{percent:.2g}"
