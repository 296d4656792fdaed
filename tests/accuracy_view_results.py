"""Accuracy results of made-up numbers, for the tests of their views."""

from __future__ import annotations

from typing import Any

from trtcalib.accuracy.result import (
    Ablation,
    AblationCell,
    AblationRow,
    Advice,
    AdviceItem,
    Candidate,
    ClassScore,
    Evaluation,
    Fallback,
    JudgedOutput,
    Judgement,
    LayerSensitivity,
    MetricFacts,
    Range,
    Score,
    Sensitivity,
    Sweep,
    VariantFacts,
)
from trtcalib.manifest import DataFacts, ModelFacts

TOP1 = MetricFacts(name="top1", output="scores", is_share=True)
AGREEMENT = MetricFacts(name="agreement", output="scores", is_share=False)
SQNR = MetricFacts(name="sqnr", output=None, is_share=False)
COSINE = MetricFacts(name="cosine", output=None, is_share=False)
FUNCTION = MetricFacts(name="mine:f1", output=None, is_share=False)

METHODS = ("minmax", "entropy", "percentile 99.9", "percentile 99.9999", "mse")


def setting(metric: MetricFacts = TOP1, model: str = "model.onnx", samples: int = 500, **facts: Any) -> dict[str, Any]:
    """Return what every result starts with."""
    data = DataFacts(path="images", is_path=True, sha256="0" * 64, samples=samples)
    start = {
        "tool_version": "1.0",
        "model": ModelFacts(path=model, sha256="0" * 64),
        "calibration": data.model_copy(update={"path": "calibration", "samples": 100}),
        "batching": None,
        "evaluation": data,
        "held_out": True,
        "labels": "labels.csv",
        "metric": metric,
        "reference": Score(value=0.982, interval=Range(low=0.966, high=0.9905)),
        "versions": {},
        "cpu": "x",
        "findings": [],
        "notes": [],
    }
    return start | facts


def judged(loss: float = 0.012, *, value: float | None = None, **facts: Any) -> Judgement:
    """Return a variant's judgement; its value FP32's 98.2 % less the loss where none is given."""
    start = {
        "value": 0.982 - loss if value is None else value,
        "interval": Range(low=0.9636 - loss, high=0.9936 - loss),
        "loss": loss,
        "loss_interval": Range(low=loss - 0.009, high=loss + 0.009),
        "p_value": 0.03,
        "outputs": [],
    }
    return Judgement(**(start | facts))


def noisy(loss: float = 0.00027, value: float | None = 35.7, **facts: Any) -> Judgement:
    """Return a variant's judgement by sqnr."""
    start = {
        "value": value,
        "interval": Range(low=34.5, high=36.8),
        "loss": loss,
        "loss_interval": Range(low=0.00021, high=0.00035),
        "p_value": None,
        "outputs": [],
    }
    return Judgement(**(start | facts))


def evaluation(**facts: Any) -> Evaluation:
    """Return an evaluation of top1 with two outputs and three classes."""
    outputs = [
        JudgedOutput(name="scores", sqnr_db=35.71, cosine=0.999871, agreement=0.988, largest_difference=0.123456),
        JudgedOutput(name="same", sqnr_db=None, cosine=None, agreement=None, largest_difference=None),
    ]
    some = Range(low=0.865, high=0.989)
    classes = [
        ClassScore(label=label, samples=50, reference=48, reference_interval=some, right=right, interval=some)
        for label, right in ((0, 48), (1, 49), (2, 40))
    ]
    start = setting() | {
        "variant": VariantFacts(method="entropy", activations=True, weights="channel"),
        "cache": None,
        "engine": None,
        "judgement": judged(outputs=outputs),
        "only_reference": 9,
        "only_variant": 3,
        "classes": classes,
        "quantized": 25,
        "weighted": 26,
    }
    return Evaluation(**(start | facts))


def row(method: str, losses: tuple[float, float, float, float], weight_method: str = "minmax") -> AblationRow:
    """Return a method's row of the ablation; the losses in the order of the columns."""
    parts = ((False, "tensor"), (False, "channel"), (True, "float"), (True, "channel"))
    cells = [
        AblationCell(
            activations=activations,
            weights=weights,
            weight_method=None if weights == "float" else weight_method,
            judgement=judged(loss),
        )
        for (activations, weights), loss in zip(parts, losses, strict=True)
    ]
    return AblationRow(method=method, recipe={"method": method}, cells=cells)


def ablation(methods: tuple[str, ...] = METHODS, **facts: Any) -> Ablation:
    """Return an ablation; the second method is the best, the last cannot be told from it."""
    rows = [
        row(method, (0.1 + 0.01 * i, 0.01, 0.03 * abs(i - 1) + 0.002, 0.04 * abs(i - 1) + 0.012))
        for i, method in enumerate(methods)
    ]
    start = setting() | {"rows": rows, "best": methods[1], "indistinguishable": [methods[-1]]}
    return Ablation(**(start | facts))


def candidate(method: str, loss: float) -> Candidate:
    """Return one method of the sweep."""
    return Candidate(method=method, recipe={"method": method}, judgement=judged(loss))


def sweep(count: int = 4, **facts: Any) -> Sweep:
    """Return a sweep whose second candidate wins."""
    candidates = [candidate(f"percentile 99.{i}", 0.02 + 0.001 * (i - 1) ** 2) for i in range(count)]
    start = setting() | {
        "searched": DataFacts(path="calibration", is_path=True, sha256="0" * 64, samples=300),
        "candidates": candidates,
        "evaluations": count + 2,
        "baseline": candidate("entropy", 0.03),
        "winner": candidate("percentile 99.1", 0.012),
        "gain": 0.018,
        "gain_interval": Range(low=-0.002, high=0.04),
        "is_significant": False,
        "cache": "best.cache",
    }
    return Sweep(**(start | facts))


def layer(rank: int, name: str, **facts: Any) -> LayerSensitivity:
    """Return one node."""
    start = {
        "rank": rank,
        "name": name,
        "operator": "Conv",
        "output": f"{name}_out",
        "tensor": f"{name}_in",
        "macs": 1000,
        "only_sqnr_db": 20.0 + rank,
        "only_loss": 0.05 / rank,
        "all_but_sqnr_db": 15.0,
        "all_but_loss": 0.06,
        "gain": 0.04 / rank,
        "local_sqnr_db": 30.0,
        "clipped_share": 0.25,
    }
    return LayerSensitivity(**(start | facts))


def fallback(**facts: Any) -> Fallback:
    """Return a set of one node."""
    start = {
        "max_loss": 0.01,
        "reached": True,
        "nodes": ["conv1"],
        "outputs": ["conv1_out"],
        "loss": 0.004,
        "loss_interval": Range(low=-0.002, high=0.01),
        "macs_int8": 0.75,
        "evaluations": 7,
        "dialects": {"trtexec": "--layerPrecisions=conv1:fp16", "trtcalib qdq": "--exclude conv1"},
    }
    return Fallback(**(start | facts))


def sensitivity(count: int = 4, **facts: Any) -> Sensitivity:
    """Return a sensitivity of ``count`` nodes."""
    start = setting() | {
        "variant": VariantFacts(method="entropy", activations=True, weights="channel"),
        "full": judged(0.062),
        "layers": [layer(rank, f"conv{rank}") for rank in range(1, count + 1)],
        "network": [],
        "fallback": fallback(),
    }
    return Sensitivity(**(start | facts))


def advice(**facts: Any) -> Advice:
    """Return an advice of two items, the second without anything to run."""
    items = [
        AdviceItem(
            code="method",
            title="take percentile 99.99",
            evidence=["entropy loses 6.20 points", "percentile 99.99 loses 1.20 points"],
            command="trtcalib calibrate model.onnx --calibrator percentile-99.99",
            reproduce="trtcalib ablate model.onnx",
            checked=judged(0.012),
        ),
        AdviceItem(code="samples", title="add samples", evidence=[], command=None, reproduce=None, checked=None),
    ]
    start = setting() | {"before": judged(0.062), "after": judged(0.012), "items": items, "sources": {}}
    return Advice(**(start | facts))
