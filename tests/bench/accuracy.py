"""Section 9: what is left of a model's accuracy in simulated INT8, by trtcalib's methods, ONNX Runtime's and, where it is given, ModelOpt's."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from accuracy_subjects import Subject, subjects
from numpy.typing import NDArray
from qdq import NARROW_OPTIONS, WEIGHTED, _quantized_activations
from report import Section
from timing import measure

from trtcalib import calibrate
from trtcalib.accuracy.simulation import Choice, Simulation
from trtcalib.accuracy.task import OpenTask, open_task
from trtcalib.judging.judge import Judged, ModelRunner, judge
from trtcalib.judging.judgements import reference_score
from trtcalib.judging.paired import Scored, gain, gain_interval
from trtcalib.judging.scores import Metric
from trtcalib.onnx_graph import ModelGraph, read_model
from trtcalib.spec_files import brief

__all__ = ["accuracy_section"]

BATCH_SIZE = 32
"""Of ours, which is also its default; said here since a model with a fixed batch of 1 would take 1."""

OURS = ("entropy", "minmax", "percentile-99.9", "percentile-99.99", "percentile-99.999", "mse")

RUNTIME = (("MinMax", None), ("Entropy", None), ("Percentile", 99.9), ("Percentile", 99.99), ("Percentile", 99.999))
"""ONNX Runtime's methods, with the percentile; its own default is 99.999."""

MODELOPT = ("max", "entropy")

SECONDS = 500
"""For one process of ModelOpt."""

LONGEST_REASON = 90
"""Characters of why a row was not made."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A quantized model, or why there is none.

    Attributes:
        who: Whose calibration.
        method: How the ranges are chosen.
        wall: Seconds for calibration and quantization.
        cpu: The same of processor time.
        model: It.
        failed: Why there is none.
    """

    who: str
    method: str
    wall: float = 0.0
    cpu: float = 0.0
    model: ModelGraph | None = None
    failed: str = ""


def accuracy_section(*, quick: bool, workers: int, modelopt: Path | None) -> Section:
    """Quantize every model in every way and judge all on samples that no scale was made from.

    Args:
        quick: Few samples.
        workers: Threads of ours; ONNX Runtime and ModelOpt take as many as they like.
        modelopt: The interpreter of an environment with ModelOpt; ``None``: without.
    """
    rows: list[tuple[str, ...]] = []
    facts: dict[str, Any] = {}
    for make in subjects(quick=quick):
        with tempfile.TemporaryDirectory() as folder:
            subject = make(Path(folder))
            print(f"  {subject.title} ...", file=sys.stderr)
            made = list(_made(subject, Path(folder), workers, modelopt))
            new, facts[subject.title] = _judged(subject, made, workers)
            rows += new
    return Section(
        title="Accuracy in simulated INT8, beside ONNX Runtime's and ModelOpt's calibration",
        setting="Judged on samples that no scale was made from, Q/DQ nodes simulated in float by ONNX Runtime, whoever put them there. ONNX Runtime: opset 13 by onnx and quant_pre_process (not timed; for ModelOpt too), then "
        "quantize_static: QDQ, per_channel, symmetric INT8, inputs of Conv, ConvTranspose, MatMul and Gemm alone, no biases. ModelOpt: the same operators, less those that it leaves out itself; "
        f"{_version(modelopt)}. Seconds: calibration and quantization. In brackets: 95 % intervals.",
        columns=("calibrated by", "ranges by", "score", "SQNR dB", "in INT8", "Q nodes", "wall s", "CPU s"),
        rows=rows,
        facts=facts,
    )


def _version(modelopt: Path | None) -> str:
    """Return ModelOpt's version, or that it was not given."""
    if modelopt is None:
        return "not given (--modelopt)"
    asked = "from importlib.metadata import version; print(version('nvidia-modelopt'), version('onnxruntime-gpu'))"
    line = [str(modelopt), "-c", asked]
    found = subprocess.run(line, capture_output=True, check=False, text=True, timeout=SECONDS).stdout.split()
    return f"version {found[0]} with onnxruntime-gpu {found[1]}" if found else "missing"


def _made(subject: Subject, folder: Path, workers: int, modelopt: Path | None) -> Iterator[Made]:
    """Yield what each contender makes, in turn."""
    simulation = Simulation(read_model(subject.model))
    _ours(subject, simulation, "entropy", workers)  # what is compiled at the first call is not timed
    for method in OURS:
        yield _timed("trtcalib", method, partial(_ours, subject, simulation, method, workers))
    for number, (method, percentile) in enumerate(RUNTIME):
        path = folder / f"runtime{number}.onnx"
        name = method if percentile is None else f"{method} {percentile}"
        yield _timed("ONNX Runtime", name, partial(_runtime, subject, method, percentile, path))
    if modelopt is not None:
        data = folder / "calibration.npz"
        np.savez(data, **{subject.input: subject.calibration})
        for method in MODELOPT:
            yield _modelopt(subject, modelopt, method, data, folder)


def _timed(who: str, method: str, make: Callable[[], ModelGraph]) -> Made:
    print(f"    {who}, {method} ...", file=sys.stderr)
    found: list[ModelGraph] = []
    try:
        with redirect_stdout(sys.stderr):  # ONNX Runtime's calibrators print
            wall, cpu = measure(lambda: found.append(make()))
    except Exception as error:
        return Made(who=who, method=method, failed=f"{type(error).__name__}: {error}")
    return Made(who=who, method=method, wall=wall, cpu=cpu, model=found[0])


def _ours(subject: Subject, simulation: Simulation, method: str, workers: int) -> ModelGraph:
    data = {subject.input: subject.calibration}
    calibration = calibrate(subject.model, data, method, batch_size=BATCH_SIZE, workers=workers)
    return simulation.model(simulation.plan(Choice(scales=calibration.scales)))


def _runtime(subject: Subject, method: str, percentile: float | None, path: Path) -> ModelGraph:
    from onnxruntime.quantization import (
        CalibrationDataReader,
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime is untyped
        def __init__(self) -> None:
            self._feeds = iter([{subject.input: sample[np.newaxis]} for sample in subject.calibration])

        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
            return next(self._feeds, None)

    quantize_static(
        str(subject.prepared),
        str(path),
        Reader(),
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=WEIGHTED,
        per_channel=True,
        activation_type=QuantType.QInt8,
        weight_type=QuantType.QInt8,
        calibrate_method=getattr(CalibrationMethod, method),
        extra_options=NARROW_OPTIONS | {"CalibPercentile": percentile},
    )
    return read_model(path)


def _modelopt(subject: Subject, python: Path, method: str, data: Path, folder: Path) -> Made:
    print(f"    ModelOpt, {method} ...", file=sys.stderr)
    answer, output = folder / f"{method}.json", folder / f"{method}.onnx"
    child = Path(__file__).with_name("modelopt_int8.py")
    # Prepared too: where weights are Constant nodes, as Paddle's are, ModelOpt makes one scale per weight tensor.
    line = [str(python), str(child), str(answer), str(subject.prepared), str(data), method, str(output)]
    made = partial(Made, who="ModelOpt", method=method)
    try:
        done = subprocess.run(line, capture_output=True, timeout=SECONDS, check=False, cwd=folder)
    except (OSError, subprocess.TimeoutExpired) as error:
        return made(failed=str(error))
    if not answer.exists():
        last = (done.stderr.decode(errors="replace").strip().splitlines() or [""])[-1]
        return made(failed=f"the process ended with {done.returncode}: {last}")
    found = json.loads(answer.read_text(encoding="utf-8"))
    if "error" in found:
        return made(failed=found["error"])
    return made(wall=found["wall"], cpu=found["cpu"], model=read_model(output))


def _judged(subject: Subject, made: list[Made], workers: int) -> tuple[list[tuple[str, ...]], dict[str, Any]]:
    """Judge what was made, all on the same samples; return rows and facts."""
    opened = open_task(subject.task)
    ready = [each for each in made if each.model is not None]
    runners = [ModelRunner(each.model) for each in ready if each.model is not None]
    judged = judge(ModelRunner(opened.graph), runners, opened.samples, workers=workers)
    scored = {id(each): Scored.of(found, opened.metric) for each, found in zip(ready, judged, strict=True)}
    rows = [_head(subject, opened, judged[0])]
    facts: dict[str, Any] = {}
    for each in made:
        rows.append(_row(each, scored.get(id(each))))
        facts[f"{each.who}, {each.method}"] = {
            "failed": each.failed,
            "wall": each.wall,
            "cpu": each.cpu,
            "judgement": scored[id(each)].judgement.model_dump() if id(each) in scored else None,
        }
    ours = [each for each in ready if each.who == "trtcalib"]
    theirs = [each for each in ready if each.who != "trtcalib"]
    if ours and theirs:
        rows.append(_difference(*(_best(group, scored) for group in (ours, theirs)), scored, opened.metric))
    return rows, facts


def _head(subject: Subject, opened: OpenTask, judged: Judged) -> tuple[str, ...]:
    score = "" if subject.labels is None else f"FP32 {reference_score(judged, opened.metric).value:.2%}"
    counts = f"calibrated on {len(subject.calibration)}, judged on {len(subject.judged)}"
    return (f"**{subject.title}**", counts, f"{opened.metric.name} {score}".strip(), "", "", "", "", "")


def _row(made: Made, scored: Scored | None) -> tuple[str, ...]:
    if made.model is None or scored is None:
        return (made.who, made.method, f"not made: {brief(made.failed[:LONGEST_REASON])}", "", "", "", "", "")
    judged = scored.judgement
    between, sqnr = judged.interval, judged.outputs[0].sqnr_db
    spread = "" if between is None else f" ({_percent(between.low)} .. {_percent(between.high)})"
    return (
        made.who,
        made.method,
        f"{_percent(judged.value)}{spread}",
        "-" if sqnr is None else f"{sqnr:.1f}",
        _weighted(made.model),
        str(_quantized_activations(made.model)),
        f"{made.wall:.1f}",
        f"{made.cpu:.1f}",
    )


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.2f}"


def _weighted(model: ModelGraph) -> str:
    """Return how many weighted nodes take an activation that passed a DequantizeLinear, of how many."""
    graph = model.proto.graph
    dequantized = {node.output[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    weighted = [node for node in graph.node if node.op_type in WEIGHTED]
    return f"{sum(node.input[0] in dequantized for node in weighted)} of {len(weighted)}"


def _best(made: list[Made], scored: dict[int, Scored]) -> Made:
    """Return what loses least; of equals what is nearest to FP32's outputs."""
    return min(made, key=lambda each: (round(scored[id(each)].judgement.loss, 12), -(_sqnr(scored[id(each)]) or 0)))


def _sqnr(scored: Scored) -> float | None:
    return scored.judgement.outputs[0].sqnr_db


def _difference(ours: Made, theirs: Made, scored: dict[int, Scored], metric: Metric) -> tuple[str, ...]:
    """Return the row that holds the best of both against each other, on the same samples."""
    first, second = scored[id(theirs)], scored[id(ours)]
    between = gain_interval(first, second, metric)
    points = f"{100 * gain(first, second):+.2f} points ({100 * between.low:+.2f} .. {100 * between.high:+.2f})"
    decibels = (_sqnr(second) or np.nan) - (_sqnr(first) or np.nan)
    return (
        "*best of ours - best of theirs*",
        f"*{ours.method} - {theirs.who} {theirs.method}*",
        points,
        f"{decibels:+.1f}",
        "",
        "",
        "",
        "",
    )
