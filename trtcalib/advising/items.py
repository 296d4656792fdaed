"""What to do about each thing that was found: a sentence, its evidence, and the commands. Everything here was measured before."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trtcalib.accuracy.result import (
    Ablation,
    AdviceItem,
    Judgement,
    LayerSensitivity,
    MetricFacts,
    Sensitivity,
)
from trtcalib.advising.commands import Commands, cli_name
from trtcalib.advising.remedies import Prepared, Tried
from trtcalib.batch_study.result import OutlierSample, Study
from trtcalib.spec_files import brief

__all__ = [
    "BatchSize",
    "items_of_batches",
    "items_of_inputs",
    "items_of_layers",
    "items_of_method",
    "items_of_samples",
    "items_of_the_loss",
    "loss_text",
]

_NAMED = 5
"""Names that a sentence lists; the rest are counted."""


def loss_text(metric: MetricFacts, loss: float) -> str:
    """Return a loss for people."""
    if metric.name == "sqnr":
        return f"noise of {_amount(metric, loss)} of the signal"
    return f"{_amount(metric, loss)} points" if metric.is_share or metric.name == "agreement" else _amount(metric, loss)


def _amount(metric: MetricFacts, loss: float) -> str:
    if metric.name != "sqnr" and (metric.is_share or metric.name == "agreement"):
        return f"{round(100 * loss, 2) + 0.0:.2f}"  # not -0.00
    return f"{loss:.3g}" if metric.name == "sqnr" else f"{loss:.5g}"


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
        reproduce=commands.advise,
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
    evidence = [f"{row.method}: {_loses(row.cells[-1].judgement, metric)}" for row in (usual, chosen)]
    alike = [other for other in ablation.indistinguishable if other != method]
    if alike:
        evidence.append(f"these samples cannot tell {', '.join(alike)} from {method}")
    if sensitivity.variant.method == usual.method and sensitivity.layers:
        evidence.append(f"under {usual.method} {_culprit(sensitivity.layers[0], metric)}")
    weights = rows["minmax"].cells[1].judgement.loss if "minmax" in rows else 0.0
    if weights > max_loss:
        evidence.append(
            f"the weights alone, per channel by their largest magnitude as TensorRT has them, lose {loss_text(metric, weights)}: no method for "
            "activations mends that"
        )
    yield AdviceItem(
        code="method",
        title=f"Calibrate with {method} instead of {usual.method}",
        evidence=evidence,
        command=None if name is None else commands.calibrate("--calibrator", name, "-o", "model.cache"),
        reproduce=commands.study("ablate", "-o", "ablation"),
        checked=chosen.cells[-1].judgement,
    )


def items_of_layers(
    sensitivity: Sensitivity, recipe: Mapping[str, Any], after: Tried, commands: Commands
) -> Iterator[AdviceItem]:
    """Advise the nodes to leave in float.

    Args:
        sensitivity: Holds the set.
        recipe: The method that the set goes with.
        after: The set, judged on samples that the search has not seen.
        commands: How the user named things.
    """
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
        (
            f"on the samples of the search, with {'it' if len(found.nodes) == 1 else 'them'} in float the loss is {loss_text(metric, found.loss)}, "
            f"from {loss_text(metric, sensitivity.full.loss)}{kept}"
        ),
        f"on the judged samples it {_loses(after.scored.judgement, metric)}",
    ]
    samples = sensitivity.evaluation.samples
    if metric.is_share and 1 / samples > found.max_loss:
        evidence.append(
            f"one of {samples} samples is {loss_text(metric, 1 / samples)}, so that none may be wrong: with more samples fewer nodes may do"
        )
    if not found.reached:
        evidence.append(
            f"no set brought the loss to {loss_text(metric, found.max_loss)}: something other than INT8 of these nodes is wrong"
        )
    yield AdviceItem(
        code="fallback",
        title=f"Leave {len(found.nodes)} of {len(sensitivity.layers)} nodes in FP16: {names}{f' and {more} more' if more > 0 else ''}",
        evidence=evidence,
        command="\n".join(commands.fallback(found.dialects, cli_name(recipe))),
        reproduce=commands.advise,
        checked=after.scored.judgement,
    )


@dataclass(frozen=True, slots=True)
class BatchSize:
    """A batch size that was studied.

    Attributes:
        given: What to give ``--batch-size``; ``None`` where that is not known.
        method: The method.
        recipe: The same as a recipe.
        before: The method with the batches that were used.
        tried: In batches of the advised size; ``None`` where those that were used are such.
        helps: Whether it is seen to lose less.
    """

    given: int | None
    method: str
    recipe: Mapping[str, Any]
    before: Tried
    tried: Tried | None
    helps: bool


def items_of_batches(study: Study, found: BatchSize, commands: Commands, metric: MetricFacts) -> Iterator[AdviceItem]:
    """Advise a batch size where it is seen to help; elsewhere tell that it moves scales."""
    used = found.before.calibration.provenance.batching.batch_size
    share = f"{100 * (1 - study.summary.score):.1f} % of the scales move by more than 1 %"
    others = len(study.configurations) - 1
    evidence = [f"{share} between one batch of everything and {others} other configurations ({study.method})"]
    title = study.summary.recommendation
    if found.tried is None:
        evidence.append(
            f"the scales here were made in batches of {used}, which is such; a build in others makes other scales"
        )
    else:
        judged, before = found.tried.scored.judgement, found.before.scored.judgement
        evidence.append(
            f"in such batches {found.method} {_loses(judged, metric)}, in batches of {used} it {_loses(before, metric)}"
        )
        if not found.helps:
            evidence.insert(0, title)
            title = f"Keep batches of {used}: others move scales, and are not seen to lose less"
    command = None
    if found.helps and found.given is not None:
        name = cli_name(found.recipe)
        calibrator = () if name in (None, "entropy") else ("--calibrator", str(name))
        command = commands.calibrate(*calibrator, "--batch-size", str(found.given), "-o", "model.cache")
    yield AdviceItem(
        code="batch-size",
        title=title,
        evidence=evidence,
        command=command,
        reproduce=commands.advise,
        checked=None if found.tried is None else found.tried.scored.judgement,
    )


def items_of_the_loss(
    ends: Tried, tried: Tried | None, method: str, commands: Commands, metric: MetricFacts, max_loss: float
) -> AdviceItem:
    """Say that nothing needs to be done, or that what was tried does not suffice.

    Args:
        ends: What the advice comes to.
        tried: Nodes in float, whether that is advised or not.
        method: The method of both.
        commands: How the user named things.
        metric: Judges.
        max_loss: What may be lost.
    """
    judged = ends.scored.judgement
    if judged.loss <= max_loss:
        return AdviceItem(
            code="fine",
            title=f"Keep {method} and everything in INT8: the loss is within what was allowed",
            evidence=[f"{method} {_loses(judged, metric)}"],
            command=commands.calibrate("-o", "model.cache"),
            reproduce=commands.study("evaluate"),
            checked=judged,
        )
    evidence = [f"{method} {_loses(judged, metric)}"] if tried is not ends else []
    if tried is not None:
        seen = "" if tried is ends else ", which these samples do not show to help"
        evidence.append(
            f"{method} with {len(tried.float_outputs)} nodes in float {_loses(tried.scored.judgement, metric)}{seen}"
        )
    evidence.append("not tried here: more samples, training with quantization, FP16 for the whole model")
    return AdviceItem(
        code="open",
        title=f"Nothing that was tried brings the loss down to {loss_text(metric, max_loss)}",
        evidence=evidence,
        command=None,
        reproduce=commands.advise,
        checked=judged,
    )


def _loses(judged: Judgement, metric: MetricFacts) -> str:
    said, between = f"loses {loss_text(metric, judged.loss)}", judged.loss_interval
    if between is None or between.low is None or between.high is None:
        return said
    return f"{said} (95 %: {_amount(metric, between.low)} to {_amount(metric, between.high)})"


def _culprit(layer: LayerSensitivity, metric: MetricFacts) -> str:
    name = brief(layer.name or layer.output)
    said = f"{name} alone costs {loss_text(metric, layer.only_loss)}"
    if layer.only_sqnr_db is not None:
        said += f" ({layer.only_sqnr_db:.1f} dB at the output)"
    if layer.clipped_share is not None and layer.tensor is not None:
        said += f"; {100 * layer.clipped_share:.0f} % of the noise of its input {brief(layer.tensor)} is clipping, the rest rounding"
    return said
