"""What to do about each thing that was found: a sentence, its evidence, and the commands. Everything here was measured before."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trtcalib.accuracy.remedies import Prepared, Tried
from trtcalib.accuracy.result import Ablation, AblationRow, AdviceItem, LayerSensitivity, MetricFacts, Sensitivity
from trtcalib.batch_study.result import OutlierSample, Study
from trtcalib.spec_files import brief

__all__ = [
    "Commands",
    "cli_name",
    "items_of_batches",
    "items_of_inputs",
    "items_of_layers",
    "items_of_method",
    "items_of_samples",
    "loss_text",
]

_NAMED = 5
"""Names that a sentence lists; the rest are counted."""


@dataclass(frozen=True, slots=True)
class Commands:
    """Command lines for the model and the data as the user named them.

    Attributes:
        model: The model.
        judged: Options that say what is calibrated and judged on.
        data: The option that says what is calibrated on.
        folder: Where results stand.
    """

    model: str
    judged: tuple[str, ...]
    data: tuple[str, ...]
    folder: str

    def study(self, command: str, *more: str) -> str:
        """Return the line of an accuracy study."""
        return shlex.join(["trtcalib", command, self.model, *self.judged, *more])

    def calibrate(self, *more: str) -> str:
        """Return the line of a calibration."""
        return shlex.join(["trtcalib", "calibrate", self.model, *self.data, *more])

    def fallback(self, dialects: Mapping[str, str]) -> Iterator[str]:
        """Yield a line per tool that is told of nodes to leave in float."""
        model = shlex.quote(self.model)
        lines = {
            "qdq": f"trtcalib qdq {model} model.cache {{}} -o model.qdq.onnx",
            "build": f"trtcalib build {model} {shlex.join(self.data)} --fp16 {{}} -o model.engine",
            "trtexec": f"trtexec --onnx={model} --int8 --fp16 --calib=model.cache {{}}",
            "modelopt": f"python -m modelopt.onnx.quantization --onnx_path={model} {{}}",
        }
        for tool, line in lines.items():
            if tool in dialects:
                yield line.replace("{}", dialects[tool])


def loss_text(metric: MetricFacts, loss: float) -> str:
    """Return a loss for people."""
    if metric.name == "sqnr":
        return f"noise of {loss:.3g} of the signal"
    if metric.is_share or metric.name == "agreement":
        return f"{100 * loss:.2f} points"
    return f"{loss:.5g}"


def cli_name(recipe: Mapping[str, Any]) -> str | None:
    """Return what ``--calibrator`` takes for a recipe; ``None`` where it needs a YAML file."""
    if recipe.get("range", "doubling") != "doubling" or recipe.get("bins", 2048) != 2048:  # noqa: PLR2004 - the defaults
        return None
    match recipe:
        case {"method": "percentile", "percentile": share}:
            return f"percentile-{share:.15g}"
        case {"method": "entropy", "variant": "tensorrt"} | {"method": "minmax" | "mse"}:
            return str(recipe["method"])
    return None


def items_of_inputs(found: Prepared, commands: Commands, metric: MetricFacts) -> Iterator[AdviceItem]:
    """Advise the preparation that was missing."""
    which = "calibration inputs" if found.reference is None else "inputs, in calibration and in use,"
    evidence = [] if found.finding is None else [found.finding.message]
    if found.reference is not None:
        before, after = found.reference
        evidence.append(
            f"FP32 itself is right on {100 * before:.2f} % of the judged samples as they are, and on {100 * after:.2f} % with it"
        )
    evidence.append(f"with it entropy loses {loss_text(metric, found.after.scored.judgement.loss)}")
    yield AdviceItem(
        code="inputs",
        title=f"Prepare the {which} as {found.preparation.name}: input {brief(found.name)} lacks it",
        evidence=evidence,
        command=f"# in the dataset YAML: inputs: {{{brief(found.name)}: {{{found.preparation.dataset_keys}}}}} (behind what stands there)",
        reproduce=commands.study("evaluate"),
        checked=found.after.scored.judgement,
    )


def items_of_samples(
    outliers: Sequence[OutlierSample],
    before: Tried,
    tried: Tried | None,
    commands: Commands,
    metric: MetricFacts,
    *,
    helps: bool,
) -> Iterator[AdviceItem]:
    """Advise to look at the samples that stretch ranges, or to leave them out where that was seen to help."""
    names = ", ".join(brief(outlier.sample) for outlier in outliers)
    many = len(outliers) > 1
    evidence = [
        f"sample {brief(outlier.sample)} alone holds the maximum of {outlier.tensors} tensors"
        + ("" if outlier.stretch is None else f", up to {outlier.stretch:.3g} times the next sample's")
        for outlier in outliers
    ]
    if tried is not None:
        ours, theirs = tried.scored.judgement.loss, before.scored.judgement.loss
        evidence.append(
            f"calibrated without {'them' if many else 'it'} entropy loses {loss_text(metric, ours)}, with {'them' if many else 'it'} {loss_text(metric, theirs)}"
        )
    what = (
        f"Leave sample{'s' * many} {names} out of the calibration" if helps else f"Look at sample{'s' * many} {names}"
    )
    yield AdviceItem(
        code="samples",
        title=f"{what}: {'they stretch' if many else 'it stretches'} ranges that no other sample needs",
        evidence=evidence,
        command=None,
        reproduce=shlex.join(["trtcalib", "study", commands.model, *commands.data, "-o", f"{commands.folder}/study"]),
        checked=None if tried is None else tried.scored.judgement,
    )


def items_of_method(
    ablation: Ablation, method: str, sensitivity: Sensitivity, commands: Commands, max_loss: float
) -> Iterator[AdviceItem]:
    """Advise a method where the usual one loses too much, or say that it does not."""
    metric = ablation.metric
    rows = {row.method: row for row in ablation.rows}
    chosen, usual = rows[method], rows.get("entropy", ablation.rows[0])
    if chosen is usual:
        return
    name = cli_name(chosen.recipe)
    evidence = [f"{row.method}: {_both(row, metric)}" for row in (usual, chosen)]
    alike = [other for other in ablation.indistinguishable if other != method]
    if alike:
        evidence.append(f"these samples cannot tell {', '.join(alike)} from {method}")
    if sensitivity.variant.method == usual.method and sensitivity.layers:
        evidence.append(f"under {usual.method} {_culprit(sensitivity.layers[0], metric)}")
    weights = chosen.cells[1].judgement.loss
    if weights > max_loss:
        evidence.append(f"the weights alone lose {loss_text(metric, weights)} with this method")
    yield AdviceItem(
        code="method",
        title=f"Calibrate with {method} instead of {usual.method}",
        evidence=evidence,
        command=None if name is None else commands.calibrate("--calibrator", name, "-o", "model.cache"),
        reproduce=commands.study("ablate", "-o", "ablation"),
        checked=chosen.cells[-1].judgement,
    )


def items_of_layers(sensitivity: Sensitivity, after: Tried | None, commands: Commands) -> Iterator[AdviceItem]:
    """Advise the nodes to leave in float."""
    found, metric = sensitivity.fallback, sensitivity.metric
    if found is None:
        return
    names = ", ".join(brief(name) for name in found.nodes[:_NAMED])
    more = len(found.nodes) - _NAMED
    kept = (
        "" if found.macs_int8 is None else f"; {100 * found.macs_int8:.1f} % of the multiply-accumulates stay in INT8"
    )
    evidence = [
        _culprit(sensitivity.layers[0], metric),
        f"with {'it' if len(found.nodes) == 1 else 'them'} in float the loss is {loss_text(metric, found.loss)}, from {loss_text(metric, sensitivity.full.loss)}{kept}",
    ]
    if not found.reached:
        evidence.append(
            f"no set brought the loss to {loss_text(metric, found.max_loss)}: something other than INT8 of these nodes is wrong"
        )
    yield AdviceItem(
        code="fallback",
        title=f"Leave {len(found.nodes)} of {len(sensitivity.layers)} nodes in FP16: {names}{f' and {more} more' if more > 0 else ''}",
        evidence=evidence,
        command="\n".join(commands.fallback(found.dialects)),
        reproduce=commands.study("sensitivity", "--max-loss", f"{found.max_loss:g}", "-o", "sensitivity"),
        checked=None if after is None else after.scored.judgement,
    )


def items_of_batches(study: Study, method: str, commands: Commands) -> Iterator[AdviceItem]:
    """Advise a batch size where it moves scales."""
    if method == "minmax" or study.summary.score == 1:
        return
    size = study.summary.stable_batch_size
    known = size is not None and any(c.batch_size == size for c in study.configurations)
    yield AdviceItem(
        code="batch-size",
        title=study.summary.recommendation,
        evidence=[
            (
                f"{100 * (1 - study.summary.score):.1f} % of the scales move by more than 1 % between one batch of everything and "
                f"{len(study.configurations) - 1} other configurations ({study.method})"
            ),
        ],
        command=commands.calibrate("--batch-size", str(size), "-o", "model.cache") if known else None,
        reproduce=shlex.join(["trtcalib", "study", commands.model, *commands.data, "-o", f"{commands.folder}/study"]),
        checked=None,
    )


def _both(row: AblationRow, metric: MetricFacts) -> str:
    judged = row.cells[-1].judgement
    between = judged.loss_interval
    if between is None or between.low is None or between.high is None:
        return f"loses {loss_text(metric, judged.loss)}"
    return f"loses {loss_text(metric, judged.loss)} (95 %: {loss_text(metric, between.low)} to {loss_text(metric, between.high)})"


def _culprit(layer: LayerSensitivity, metric: MetricFacts) -> str:
    name = brief(layer.name or layer.output)
    said = f"{name} alone costs {loss_text(metric, layer.only_loss)}"
    if layer.only_sqnr_db is not None:
        said += f" ({layer.only_sqnr_db:.1f} dB at the output)"
    if layer.clipped_share is not None and layer.tensor is not None:
        said += f"; {100 * layer.clipped_share:.0f} % of the noise of its input {brief(layer.tensor)} is clipping, the rest rounding"
    return said
