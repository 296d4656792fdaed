"""Two variants beside each other, sample by sample: how much less the one loses, with the interval of that difference."""

from __future__ import annotations

import base64
import binascii
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from trtcalib.core.bootstrap import bootstrap, mean_difference_interval
from trtcalib.core.intervals import Interval, compare_shares
from trtcalib.judging.judge import NOISE, SIGNAL, Judged
from trtcalib.judging.judgements import judgement, right_or_wrong, worst_noise
from trtcalib.judging.result import Judgement
from trtcalib.judging.scores import Metric

__all__ = ["Scored", "gain", "gain_interval"]

_LARGEST_RATIO = 1e300
"""Noise over signal where there is no signal; ours: finite, so that two such can be told to be equal."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Scored:
    """A judged variant with as much of each sample as a paired comparison needs.

    Attributes:
        judgement: Beside FP32.
        noise: Noise over signal, pooled over the samples, of the judged output, or of the worst of those that are judged.
        samples: float64 ``[1, n]``, the scores; for a pooled metric ``[2, n]``, noise and signal of the judged output.
    """

    judgement: Judgement
    noise: float
    samples: NDArray[np.float64]

    @classmethod
    def of(cls, judged: Judged, metric: Metric) -> Scored:
        """Return what is kept of a judged variant."""
        worst, noise = worst_noise(judged, metric)
        samples = judged.compared[:, worst, [NOISE, SIGNAL]].T if metric.pooled else judged.scores[np.newaxis]
        return cls(judgement=judgement(judged, metric), noise=noise, samples=np.array(samples, np.float64))

    def as_json(self) -> dict[str, Any]:
        """Return it as a journal keeps it; the same bits come back."""
        packed = zlib.compress(np.ascontiguousarray(self.samples, "<f8").tobytes())
        return {
            "judgement": self.judgement.model_dump(mode="json"),
            "noise": self.noise,
            "rows": len(self.samples),
            "samples": base64.b64encode(packed).decode(),
        }

    @classmethod
    def from_json(cls, noted: Any, samples: int) -> Scored | None:
        """Return what :meth:`as_json` was made of; ``None`` where it is not of so many samples, or damaged."""
        try:
            rows = int(noted["rows"])
            # Not more than what is right: a damaged journal must not fill the memory.
            unpacked = zlib.decompressobj().decompress(base64.b64decode(noted["samples"]), rows * samples * 8 + 1)
            return cls(
                judgement=Judgement.model_validate(noted["judgement"]),
                noise=float(noted["noise"]),
                samples=np.frombuffer(unpacked, "<f8").reshape(rows, samples),
            )
        except (KeyError, TypeError, ValueError, ValidationError, binascii.Error, zlib.error):
            return None


def gain(before: Scored, after: Scored) -> float:
    """Return how much less ``after`` loses, in the metric's units; below 0 where it loses more."""
    return before.judgement.loss - after.judgement.loss


def gain_interval(before: Scored, after: Scored, metric: Metric) -> Interval:
    """Return the 95 % interval of :func:`gain` over the samples, which both were judged on.

    Shares: Newcombe's for the paired difference. Means: the percentile bootstrap of the differences. Pooled: the bootstrap of the difference
    of the two ratios of noise to signal, each of the output that was its variant's worst.
    """
    first, second = after.samples, before.samples
    if metric.pooled:
        return _ratio_difference(second, first)
    if right_or_wrong(metric, first[0], second[0]):
        return compare_shares(first[0] > 0, second[0] > 0).difference_interval
    return mean_difference_interval(first[0], second[0])


def _ratio_difference(before: NDArray[np.float64], after: NDArray[np.float64]) -> Interval:
    def difference(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        return _ratio(weights, before) - _ratio(weights, after)

    return bootstrap(difference, before.shape[1])


def _ratio(weights: NDArray[np.float64], samples: NDArray[np.float64]) -> NDArray[np.float64]:
    noise, signal = weights @ samples[0], weights @ samples[1]
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        ratio = np.where(noise == 0, 0.0, noise / signal)
    return np.minimum(ratio, _LARGEST_RATIO)
