"""The tables of docs/batch-size-and-order.md."""

# ruff: noqa: INP001 - scripts of one page, not a package

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from cases import HEAD, Subject, describe, sqnr
from material import DIGIT_TENSORS, MADE_UP_TENSORS, Questions
from top_one import wilson

from trtcalib.batch_study.result import StudiedTensor, Study

__all__ = ["ROBUST_SIZES", "TABLES", "change", "data_tensors", "over_orders"]

ROBUST_SIZES = ("b1", "b16", "b32", "b64", "b128")
ORDER_SIZES = (1, 16, 64, 128)

CALIBRATED_TENSOR = "stem_relu"
"""Whose SQNR stands beside top-1."""

TITLES = {"b1": "1", "b16": "16", "b32": "32", "b64": "64", "b128": "128", "all": "all"}

Rows = Iterator[tuple[str, ...]]


def last_batch_rows(tensors: Sequence[str], planted: str, without: str) -> Callable[[Questions], Rows]:
    """Yield each tensor with a huge value in the last sample at three batch sizes, and without it at two."""

    def rows(questions: Questions) -> Rows:
        for tensor in tensors:
            for configuration in ("b1", "b16", "all"):
                case = describe(questions.subjects[planted], tensor, configuration)
                yield f"`{tensor}`, {TITLES[configuration]}", *case.cells()
            for configuration in ("b1", "all"):
                case = describe(questions.subjects[without], tensor, configuration)
                yield f"`{tensor}` without it, {TITLES[configuration]}", *case.cells()

    return rows


def even_rows(questions: Questions) -> Rows:
    """Yield tensors where samples were dealt out evenly, and where they were not."""
    for tensors, even, other, title in (
        (MADE_UP_TENSORS, "even", "sorted", "sorted"),
        (DIGIT_TENSORS[1:], "digits, even", "digits", "as they come"),
    ):
        for tensor in tensors:
            for subject, configuration, order in ((even, "b1", "even"), (even, "b16", "even"), (other, "b16", title)):
                case = describe(questions.subjects[subject], tensor, configuration)
                yield f"`{tensor}`, {order}, {TITLES[configuration]}", *case.cells()[:-1]
            yield f"`{tensor}`, all", *describe(questions.subjects[even], tensor, "all").cells()[:-1]


def order_rows(questions: Questions) -> Rows:
    """Yield what the order alone moves: smallest and largest over all orders of one batch size."""
    for title, tensor in (
        ("normal", "x"),
        ("outlier", "x"),
        ("outlier", "relu"),
        ("digits", "stem_relu"),
        ("digits", "logits"),
    ):
        for size in ORDER_SIZES:
            ranges, scales, sizes = over_orders(questions.subjects[title], tensor, size)
            yield (
                f"{title}: `{tensor}`, {size}",
                str(len(ranges)),
                f"{np.mean([times > 0 for times in sizes]):.0%}",
                f"{min(ranges):.2f} .. {max(ranges):.2f}",
                f"{min(scales):.3f} .. {max(scales):.3f}",
            )


def over_orders(subject: Subject, tensor: str, size: int) -> tuple[list[float], list[float], list[int]]:
    """Return, per order of a batch size: R over the true maximum, the scale over that of one batch, doublings."""
    studied = subject.tensor(tensor)
    found = [
        outcome
        for how, outcome in zip(subject.study.configurations, studied.outcomes, strict=True)
        if how.batch_size == size
    ]
    return (
        [float(outcome.range or 0) / float(studied.maximum or 1) for outcome in found],
        [1 + float(outcome.change or 0) for outcome in found],
        [sum(doubling.times for doubling in outcome.doublings) for outcome in found],
    )


def robust_rows(questions: Questions) -> Rows:
    """Yield how far each tensor of the bounded model moves from one batch, by batch size."""
    for title in ("robust", "robust, outlier"):
        study = questions.subjects[title].study
        for tensor in data_tensors(study):
            cells = [change(study, tensor, configuration) for configuration in ROBUST_SIZES]
            yield f"`{tensor.name}`{', outlier' if 'outlier' in title else ''}", f"{tensor.maximum:.4g}", *cells


def change(study: Study, tensor: StudiedTensor, configuration: str) -> str:
    """Return the change against one batch, ``=`` where the scale has the same bits."""
    outcome = tensor.outcomes[[found.name for found in study.configurations].index(configuration)]
    return "=" if outcome.scale_hex == tensor.scale_hex else f"{float(outcome.change or 0):+.2%}"


def data_tensors(study: Study) -> list[StudiedTensor]:
    """Return the tensors that have a histogram of their own and depend on the data."""
    return [tensor for tensor in study.tensors if tensor.outcomes and tensor.inherited_from is None]


def moved_rows(questions: Questions) -> Rows:
    """Yield per study how many tensors keep their bits, and how many move by more than 1 %."""
    for title in ("robust", "robust, outlier", "normal", "digits"):
        study = questions.subjects[title].study
        tensors = data_tensors(study)
        cells = []
        for configuration in ROBUST_SIZES:
            position = [found.name for found in study.configurations].index(configuration)
            outcomes = [tensor.outcomes[position] for tensor in tensors]
            same = sum(o.scale_hex == t.scale_hex for o, t in zip(outcomes, tensors, strict=True))
            moved = sum(abs(outcome.change or 0) > MOVED for outcome in outcomes)
            cells.append(f"{same} / {moved}")
        yield title, str(len(tensors)), *cells


MOVED = 0.01
"""Beyond this share a scale counts as moved."""


def top_one_rows(questions: Questions) -> Rows:
    """Yield the classifier's top-1 after each calibration."""
    in_float = questions.calibrated[0].answers
    values = questions.subjects["digits"].values[CALIBRATED_TENSOR]
    for found in questions.calibrated:
        said = found.answers
        low, high = wilson(said.right, said.images)
        yield (
            found.data,
            found.method,
            f"{said.right} of {said.images}",
            f"{low:.1%} .. {high:.1%}",
            str(np.count_nonzero(said.classes != in_float.classes)),
            "-" if found.scales is None else f"{sqnr(values, found.scales[CALIBRATED_TENSOR]):.1f}",
        )


CASE = ("tensor, batch size", *HEAD)

TABLES: dict[str, tuple[tuple[str, ...], Callable[[Questions], Rows]]] = {
    "digits-last": (CASE, last_batch_rows(DIGIT_TENSORS, "digits, outlier", "digits")),
    "generated-last": (CASE, last_batch_rows(MADE_UP_TENSORS, "outlier", "normal")),
    "even": (CASE[:-1], even_rows),
    "robust": (("tensor", "maximum", "1", "16", "32", "64", "128"), robust_rows),
    "moved": (("study", "tensors", "1", "16", "32", "64", "128"), moved_rows),
    "orders": (("tensor, batch size", "orders", "doubled in", "R / maximum", "scale / that of one batch"), order_rows),
    "top-1": (
        (
            "calibrated on",
            "method",
            "right",
            "95 % interval",
            "unlike float",
            f"SQNR of `{CALIBRATED_TENSOR}`, ordinary images",
        ),
        top_one_rows,
    ),
}
"""Head and rows by name."""
