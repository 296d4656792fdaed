"""Numbers and sentences about accuracy for the report's page, which its template prints; the template escapes them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from trtcalib.accuracy.result import (
    Ablation,
    Evaluation,
    Judgement,
    MetricFacts,
    Range,
    Score,
    Sensitivity,
    Setting,
    Sweep,
    VariantFacts,
)
from trtcalib.reports.result import ReportedAccuracy
from trtcalib.views.text import shortened

__all__ = ["FILTERS", "NONE", "Circumstances", "circumstances"]

NONE = "\u2013"
"""Stands for a number that there is not."""

_METRICS = {
    "top1": "top-1 accuracy",
    "top5": "top-5 accuracy",
    "agreement": "agreement with FP32",
    "cosine": "cosine similarity to FP32",
    "sqnr": "SQNR",
}

_EXACT = 5
"""Significant digits of a mean."""

_DECIMALS, _MORE_DECIMALS = 1, 2
"""Of a share in per cent, where a tenth is one sample of a thousand, and of decibels."""

_NEAR_ALL = 0.99
"""Above this share one more decimal is told, so that 99.97 % is not told as all."""


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What several results were made with.

    Attributes:
        of: The kinds of the results.
        setting: The first result, for what they share.
        notes: All their notes, each once.
        findings: All their findings, each once: code and message.
    """

    of: tuple[str, ...]
    setting: Setting
    notes: tuple[str, ...]
    findings: tuple[tuple[str, str], ...]


def circumstances(accuracy: ReportedAccuracy) -> list[Circumstances]:
    """Group results by what they were made with, in the page's order."""
    groups: dict[str, list[Setting]] = {}
    for result in _results(accuracy):
        groups.setdefault(_circumstances_of(result), []).append(result)
    return [
        Circumstances(
            of=tuple(str(getattr(result, "kind", "")) for result in several),
            setting=several[0],
            notes=tuple(dict.fromkeys(note for result in several for note in result.notes)),
            findings=tuple(dict.fromkeys((f.code, f.message) for result in several for f in result.findings)),
        )
        for several in groups.values()
    ]


def _results(accuracy: ReportedAccuracy) -> Iterator[Setting]:
    kinds = (accuracy.advice, accuracy.evaluations, accuracy.ablations, accuracy.sweeps, accuracy.sensitivities)
    for reported in kinds:
        for one in reported:
            yield one.result


def _circumstances_of(result: Setting) -> str:
    """Return what tells one set of circumstances from another: contents, since paths depend on where a file stands."""
    data = {"sha256", "samples"}
    plain = dict.fromkeys(("batching", "held_out", "labels", "versions", "cpu", "simulated", "tool_version"), True)
    return result.model_dump_json(include={"model": {"sha256"}, "calibration": data, "evaluation": data, **plain})


def _judged_on(setting: Setting) -> str:
    """Tell what the results rest on, in one sentence."""
    samples = f"{setting.evaluation.samples:,} samples of {shortened(_last_part(setting.evaluation.path), 60)}"
    held = "that no scale was made from" if setting.held_out else "that the scales were made from too"
    how = (
        "INT8 is simulated by ONNX Runtime in float, not run by TensorRT." if setting.simulated else "Run on an engine."
    )
    return f"Judged on {samples} {held}. Intervals have 95 % confidence. {how}"


def _last_part(path: str) -> str:
    return path.replace("\\", "/").rstrip("/").rpartition("/")[2] or path


def _metric_name(metric: MetricFacts) -> str:
    return _METRICS.get(metric.name) or shortened(metric.name, 40)


def _amount(value: float | None, metric: MetricFacts) -> str:
    """Tell a metric's value; ``None`` is infinite."""
    if value is None:
        return "no difference" if metric.name == "sqnr" else NONE
    if metric.is_share:
        return f"{100 * value:.{_DECIMALS if value <= _NEAR_ALL else _MORE_DECIMALS}f} %"
    return f"{value:.{_DECIMALS}f} dB" if metric.name == "sqnr" else f"{value:.{_EXACT}g}"


def _score(score: Score, metric: MetricFacts) -> str:
    return _amount(score.value, metric)


def _between(interval: Range | None, metric: MetricFacts) -> str:
    """Tell an interval of the metric without its unit; empty without one."""
    return _ends(interval, lambda end: _amount(end, metric).removesuffix(" %").removesuffix(" dB"))


def _ends(interval: Range | None, told: Callable[[float], str]) -> str:
    if interval is None or (interval.low is None and interval.high is None):
        return ""
    if interval.low is None:
        return f"up to {told(interval.high or 0.0)}"
    return f"{told(interval.low)} and up" if interval.high is None else f"{told(interval.low)} to {told(interval.high)}"


def _loss(value: float, metric: MetricFacts) -> str:
    """Tell a loss: points of a share, noise in per cent of the signal, else the metric's own units."""
    if metric.is_share:
        return f"{_points(value)} points"
    return f"{_signed(100 * value)} %" if metric.name == "sqnr" else _signed(value, _EXACT)


def _loss_name(metric: MetricFacts) -> str:
    return "noise" if metric.name == "sqnr" else "loss"


def _points(value: float) -> str:
    rounded = round(100 * value, _MORE_DECIMALS) + 0.0  # turns -0 into 0
    return f"{rounded:.{_MORE_DECIMALS}f}".rstrip("0").rstrip(".").replace("-", "\u2212")


def _signed(value: float, digits: int = 3) -> str:
    return f"{value:.{digits}g}".replace("-", "\u2212") if value else "0"


def _loss_between(interval: Range | None, metric: MetricFacts) -> str:
    if metric.is_share:
        return _ends(interval, _points)
    factor = 100 if metric.name == "sqnr" else 1
    return _ends(interval, lambda end: _signed(factor * end))


def _told(judgement: Judgement, metric: MetricFacts) -> str:
    """Tell a value, its interval and its loss."""
    between = _between(judgement.interval, metric)
    value = f"{_score(judgement, metric)} ({between})" if between else _score(judgement, metric)
    return f"{value}, {_loss_name(metric)} {_loss(judgement.loss, metric)}"


def _advice_lead(count: int) -> str:
    return (
        f"{count} thing{'s' * (count != 1)} to do or to know, the most important first." if count else "Nothing to do."
    )


def _evaluation_lead(result: Evaluation) -> str:
    metric = result.metric
    lost = _loss(result.judgement.loss, metric)
    lead = f"FP32 has {_score(result.reference, metric)}, INT8 {_score(result.judgement, metric)}: {_loss_name(metric)} {lost}"
    ends = _loss_between(result.judgement.loss_interval, metric)
    lead += f" ({ends})." if ends else "."
    if result.only_reference is not None and result.only_variant is not None:
        lead += f" FP32 alone gets {result.only_reference:,} samples right, INT8 alone {result.only_variant:,}"
        p = result.judgement.p_value
        lead += "." if p is None else f" (exact McNemar test: p = {p:.2g})."
    return lead


def _ablation_lead(result: Ablation) -> str:
    best = next(row for row in result.rows if row.method == result.best)
    lead = f"{shortened(result.best, 60)} loses least: {_told(best.cells[-1].judgement, result.metric)}."
    if not result.indistinguishable:
        return lead
    others = ", ".join(shortened(name, 40) for name in result.indistinguishable)
    return f"{lead} Not to be told from it on these samples: {others}."


def _sweep_lead(result: Sweep) -> str:
    winner, baseline = shortened(result.winner.method, 60), shortened(result.baseline.method, 60)
    ends = _loss_between(result.gain_interval, result.metric)
    gain = _loss(result.gain, result.metric) + (f" ({ends})" if ends else "")
    if result.winner.recipe == result.baseline.recipe:
        judged = _told(result.baseline.judgement, result.metric)
        return f"No method that was tried does better than {baseline}, which stays: {judged}, on held-out samples."
    told = f"{winner} gains {gain} over {baseline} on held-out samples"
    if result.metric.name == "sqnr":
        told = f"{winner} takes {gain} of the signal off the noise of {baseline} on held-out samples"
    if result.is_significant:
        return f"{told}; the interval lies above 0."
    if not ends:
        return f"{told}; without an interval, this may be chance."
    return (
        f"No method is shown to beat {baseline}: {told}, but the interval does not lie above 0, so this may be chance."
    )


def _sensitivity_lead(result: Sensitivity) -> str:
    full = f"Everything in INT8: {_told(result.full, result.metric)}."
    fallback = result.fallback
    if not result.layers:
        return f"{full} There is no weighted node."
    first = f" {shortened(result.layers[0].name, 80)} costs most of {len(result.layers):,} weighted nodes."
    if fallback is None:
        return full + first
    count = f"{len(fallback.nodes):,} of them in float"
    left = f" With {count} the {_loss_name(result.metric)} is {_loss(fallback.loss, result.metric)}"
    asked = _loss(fallback.max_loss, result.metric)
    reached = f", within the {asked} asked for" if fallback.reached else f", still more than the {asked} asked for"
    macs = "" if fallback.macs_int8 is None else f"; {100 * fallback.macs_int8:.3g} % of the known MACs stay in INT8"
    return f"{full}{first}{left}{reached}{macs}."


def _variant_name(variant: VariantFacts) -> str:
    parts = {"float": "float weights", "tensor": "weights per tensor", "channel": "weights per channel"}
    told = [shortened(variant.method, 60), *(["activations"] if variant.activations else []), parts[variant.weights]]
    left = f", {len(variant.float_nodes):,} nodes in float" if variant.float_nodes else ""
    return ", ".join(told) + left


def _decibels(value: float | None) -> str:
    return "no noise" if value is None else f"{value:.4g}"


FILTERS: dict[str, Callable[..., Any]] = {
    "circumstances": circumstances,
    "judged_on": _judged_on,
    "metric_name": _metric_name,
    "score": _score,
    "between": _between,
    "loss": _loss,
    "loss_between": _loss_between,
    "loss_name": _loss_name,
    "told": _told,
    "advice_lead": _advice_lead,
    "evaluation_lead": _evaluation_lead,
    "ablation_lead": _ablation_lead,
    "sweep_lead": _sweep_lead,
    "sensitivity_lead": _sensitivity_lead,
    "variant_name": _variant_name,
    "decibels": _decibels,
}
"""For the template, by the name that it calls them."""
