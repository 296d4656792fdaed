"""Everything that the pictures and tables of docs/batch-size-and-order.md are made from."""

# ruff: noqa: INP001 - scripts of one page, not a package

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from activations import SAMPLE_DATA, SAMPLE_MODEL
from cases import Subject, study_of
from sweep import Sweep, sweep
from top_one import Answers, answers

from trtcalib import calibrate, solve

__all__ = ["DIGIT_TENSORS", "MADE_UP_TENSORS", "Calibrated", "Questions", "load_questions"]

SIZES = (1, 16, 32, 64, 128, "all")
FEW = (1, 16, "all")

ORDERS = 6
"""Shuffled ones, beside the data's own."""

DIGIT_TENSORS = ("image", "stem_relu", "logits")
MADE_UP_TENSORS = ("x", "relu")

SUBSET = 500
"""Samples of the question what the batch size does to 500."""

OTHER_METHODS = ("percentile-99.9", "percentile-99.99", "minmax")

Scales = Mapping[str, np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibrated:
    """The digits' classifier after one calibration.

    Attributes:
        data: What it was calibrated on.
        method: How, and in batches of which size.
        scales: By tensor; ``None`` for float.
        answers: What it then says of the validation images.
    """

    data: str
    method: str
    scales: Scales | None
    answers: Answers


@dataclass(frozen=True, slots=True, kw_only=True)
class Questions:
    """Everything that was measured.

    Attributes:
        subjects: Studies, by a short name.
        calibrated: The classifier in float, and after each calibration.
        sweep: What outliers of many sizes do.
    """

    subjects: Mapping[str, Subject]
    calibrated: Sequence[Calibrated]
    sweep: Sweep


def load_questions(folder: Path) -> Questions:
    """Run every study; ``folder`` holds the samples, and gets the studies."""
    subjects = {**_made_up(folder), **_digits(folder)}
    chosen = _scales(subjects, folder)
    return Questions(
        subjects=subjects,
        calibrated=[
            Calibrated(data=data, method=method, scales=scales, answers=answers(scales))
            for data, method, scales in [("-", "float", None), *chosen]
        ],
        sweep=sweep(np.load(folder / "normal.npy")),
    )


def _made_up(folder: Path) -> dict[str, Subject]:
    def subject(data: str, model: str, tensors: Sequence[str], orders: int = 0) -> Subject:
        path, output = str(folder / f"{data}.npy"), folder / f"{model}-{data}"
        return study_of(folder / f"{model}.onnx", path, output, tensors, sizes=SIZES, orders=orders)

    return {
        "normal": subject("normal", "model", MADE_UP_TENSORS, ORDERS),
        "outlier": subject("outlier", "model", MADE_UP_TENSORS, ORDERS),
        "even": subject("even", "model", MADE_UP_TENSORS),
        "sorted": subject("sorted", "model", MADE_UP_TENSORS),
        "robust": subject("normal", "robust", ()),
        "robust, outlier": subject("outlier", "robust", ()),
    }


def _digits(folder: Path) -> dict[str, Subject]:
    def subject(data: str, tensors: Sequence[str]) -> Subject:
        path, output = str(folder / f"digits-{data}.npy"), folder / f"study-{data}"
        return study_of(SAMPLE_MODEL, path, output, tensors, sizes=FEW)

    whole = study_of(SAMPLE_MODEL, SAMPLE_DATA, folder / "study-digits", DIGIT_TENSORS, sizes=SIZES, orders=ORDERS)
    return {
        "digits": whole,
        "digits, outlier": subject("outlier", DIGIT_TENSORS),
        "digits, even": subject("even", DIGIT_TENSORS[1:]),
    }


def _scales(subjects: Mapping[str, Subject], folder: Path) -> list[tuple[str, str, Scales]]:
    """Return what each calibration was made on, how, and its scales."""
    chosen: list[tuple[str, str, Scales]] = []
    for size, name in ((1, "batch size 1"), (SUBSET, "one batch")):
        few = calibrate(SAMPLE_MODEL, SAMPLE_DATA, batch_size=size, max_samples=SUBSET)
        chosen.append((f"first {SUBSET} images", f"entropy, {name}", few.scales))
    for title, subject in (("all 1297", "digits"), ("all, planted pixel", "digits, outlier")):
        for configuration, name in (("b1", "batch size 1"), ("b16", "batch size 16"), ("all", "one batch")):
            chosen.append((title, f"entropy, {name}", subjects[subject].scales(configuration)))
    planted = np.load(folder / "digits-outlier.npy")
    collected = calibrate(SAMPLE_MODEL, planted, batch_size=1)
    chosen += [
        ("all, planted pixel", f"{method}, batch size 1", solve(collected, method).scales) for method in OTHER_METHODS
    ]
    dropped = calibrate(SAMPLE_MODEL, planted[:-1], batch_size=1)
    return [*chosen, ("all but the planted one", "entropy, batch size 1", dropped.scales)]
