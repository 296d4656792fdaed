"""What is kept of each measured node, and what a result says of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from trtcalib.accuracy.layers import MeasuredLayer
from trtcalib.accuracy.result import LayerSensitivity, NetworkTensor
from trtcalib.accuracy.simulation import Plan
from trtcalib.calibration import Calibration
from trtcalib.core.mse import quantization_noise
from trtcalib.core.scale import amax_from_scale
from trtcalib.judging.judgements import decibels, plain_loss, worst_noise
from trtcalib.judging.scores import Metric
from trtcalib.provenance import portable_name
from trtcalib.qdq.coverage import NodeFacts
from trtcalib.qdq.placement import Slot

__all__ = ["Measured", "layer_facts", "network_facts"]


class Measured(BaseModel):
    """What a journal keeps of one node.

    Attributes:
        noise: Noise over signal of the worst judged output with it alone in INT8: what ranks.
        loss: The metric's loss with it alone in INT8.
        others_noise: As ``noise``, with all but it in INT8.
        others_loss: As ``loss``, with all but it in INT8.
        local: Signal and noise at its own output, with it alone in INT8.
        network: The same under full INT8.
    """

    model_config = ConfigDict(frozen=True)

    noise: float
    loss: float
    others_noise: float
    others_loss: float
    local: tuple[float, float]
    network: tuple[float, float]

    @classmethod
    def of(cls, measured: MeasuredLayer, metric: Metric) -> Measured:
        """Return what is kept of a measured node."""
        return cls(
            noise=worst_noise(measured.only, metric)[1],
            loss=plain_loss(measured.only, metric),
            others_noise=worst_noise(measured.all_but, metric)[1],
            others_loss=plain_loss(measured.all_but, metric),
            local=measured.local,
            network=measured.network,
        )

    @classmethod
    def from_json(cls, noted: Any) -> Measured | None:
        """Return what was noted; ``None`` where nothing usable was."""
        try:
            return cls.model_validate(noted)
        except ValidationError:
            return None


def layer_facts(
    ranked: Mapping[str, Measured],
    nodes: Sequence[NodeFacts],
    plan: Plan,
    calibration: Calibration,
    full_loss: float,
) -> list[LayerSensitivity]:
    """Return what a result says of the measured nodes.

    Args:
        ranked: By first output, most sensitive first.
        nodes: All weighted nodes.
        plan: What full INT8 quantizes.
        calibration: Whose histograms tell how much is clipped.
        full_loss: What full INT8 loses.
    """
    facts = {node.output: node for node in nodes}
    told = []
    for rank, (name, measured) in enumerate(ranked.items(), 1):
        slot, share = _clipped(plan.decisions[name][0], calibration)
        told.append(
            LayerSensitivity(
                rank=rank,
                name=portable_name(facts[name].name),
                operator=facts[name].operator,
                output=portable_name(name),
                tensor=None if slot is None else portable_name(slot.name),
                macs=facts[name].macs,
                only_sqnr_db=decibels(measured.noise),
                only_loss=measured.loss,
                all_but_sqnr_db=decibels(measured.others_noise),
                all_but_loss=measured.others_loss,
                gain=full_loss - measured.others_loss,
                local_sqnr_db=_sqnr(measured.local),
                clipped_share=share,
            )
        )
    return told


def network_facts(layers: Mapping[str, Measured]) -> list[NetworkTensor]:
    """Return the SQNR of the nodes' outputs under full INT8, in graph order."""
    return [NetworkTensor(output=portable_name(name), sqnr_db=_sqnr(each.network)) for name, each in layers.items()]


def _sqnr(sums: tuple[float, float]) -> float | None:
    signal, noise = sums
    return decibels(noise / signal) if signal else None


def _clipped(slots: Sequence[Slot], calibration: Calibration) -> tuple[Slot | None, float | None]:
    """Return the activation that brings a node the most noise, and how much of that noise is clipping, by its histogram."""
    origins = calibration.origins
    found: list[tuple[float, Slot, float | None]] = []
    for slot in slots:
        histogram = calibration.histograms.get(origins.get(slot.source, slot.source))
        if histogram is None or histogram.total == 0:
            found.append((-1.0, slot, None))
            continue
        noise = quantization_noise(histogram, amax_from_scale(slot.scale))
        total = noise.clipped + noise.rounded
        found.append((total / noise.signal if noise.signal else 0.0, slot, noise.clipped / total if total else None))
    if not found:
        return None, None
    _, slot, share = max(found, key=lambda each: each[0])
    return slot, share
