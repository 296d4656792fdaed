"""Metrics: which one suits a model and its data, or is the one that was asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from trtcalib.errors import MetricError
from trtcalib.judging.function_metric import Function, is_function
from trtcalib.judging.scores import Agreement, Cosine, Metric, Outputs, Sqnr, Top, no_rows, not_one_row
from trtcalib.onnx_graph import ModelGraph
from trtcalib.onnx_tensors import FLOATS
from trtcalib.samples.feeds import shape_text
from trtcalib.spec_files import brief

__all__ = [
    "METRICS",
    "Agreement",
    "Cosine",
    "Function",
    "Metric",
    "OutputFacts",
    "Outputs",
    "Sqnr",
    "Top",
    "find_metric",
    "output_facts",
]

METRICS = ("top1", "top5", "agreement", "sqnr", "cosine")
"""Names that need no code."""

_TOP = {"top1": 1, "top5": 5}

_MOST_LISTED = 8
"""Outputs that an error lists; hostile models have thousands."""

_MAP_AXES = 4
"""Of ``[N, C, 1, 1]``, what global pooling leaves of a map of features."""


@dataclass(frozen=True, slots=True)
class OutputFacts:
    """What a model states of one of its outputs.

    Attributes:
        name: Its tensor name.
        shape: Fixed sizes, or ``None`` per dynamic axis; ``None`` as a whole when the rank is not stated.
        is_float: Whether it is floating point.
    """

    name: str
    shape: tuple[int | None, ...] | None
    is_float: bool

    @property
    def is_class_scores(self) -> bool:
        """Whether it looks like class scores: floating point, ``[N, C]`` or ``[N, C, 1, 1]``, C at least 2 or dynamic."""
        return self.is_float and self.is_one_row

    @property
    def is_one_row(self) -> bool:
        """Whether the shape is one row per sample: ``[N, C]`` or ``[N, C, 1, 1]``, C at least 2 or dynamic."""
        shape = self.shape
        if shape is None or not (len(shape) == 2 or (len(shape) == _MAP_AXES and shape[2:] == (1, 1))):  # noqa: PLR2004 - [N, C]
            return False
        return shape[1] is None or shape[1] > 1

    @property
    def may_be_one_row(self) -> bool:
        """Whether nothing that is stated speaks against one row of at least two scores per sample."""
        if self.shape is None:
            return True
        sizes = self.shape[1:] if len(self.shape) > 1 else self.shape
        return 0 not in sizes and any(n != 1 for n in sizes) and sum(n is not None and n > 1 for n in sizes) <= 1

    @property
    def may_have_rows(self) -> bool:
        """Whether nothing that is stated speaks against rows of at least two scores."""
        return self.is_one_row or self.shape is None or (self.shape != () and self.shape[-1] not in (0, 1))


def find_metric(
    wanted: str | Callable[..., Any] | None, *, output: str | None, has_labels: bool, outputs: Sequence[OutputFacts]
) -> Metric:
    """Return the metric that was asked for, or the one that suits the model and the data.

    Args:
        wanted: One of :data:`METRICS`; a function, or ``module:function``, which runs the module's code and is for the
            command line and the API only; ``None``: top1 with labels, else agreement where an output looks like class
            scores, else sqnr.
        output: The output to judge; ``None``: the one that suits, or all for sqnr and cosine. A function gets all.
        has_labels: Whether each sample has a label.
        outputs: The model's.

    Raises:
        MetricError: If there is no such metric or output, labels are missing, or it must be said which output.
        DataError: If ``module:function`` cannot be imported.
    """
    if wanted is not None and (callable(wanted) or is_function(wanted)):
        return Function(wanted)
    name = _default(output, outputs, has_labels=has_labels) if wanted is None else wanted
    if name not in METRICS:
        raise MetricError(brief(name), f"is unknown: expected {', '.join(METRICS)} or module:function")
    if name in _TOP and not has_labels:
        raise MetricError(name, "needs labels: give --labels, or use --metric agreement, sqnr or cosine")
    candidates = _candidates(name, output, outputs)
    if name in _TOP:
        return Top(_TOP[name], _one_row(name, candidates).name)
    if name == "agreement":
        chosen = _with_rows(candidates)
        return Agreement(chosen.name, is_share=chosen.is_one_row)
    if not any(facts.is_float for facts in candidates):
        raise MetricError(
            name, f"needs a floating-point output, found integers: {_shapes(candidates)}; use module:function"
        )
    return Sqnr(output) if name == "sqnr" else Cosine(output)


def output_facts(graph: ModelGraph) -> tuple[OutputFacts, ...]:
    """Return what a model states of its outputs."""
    found = []
    for info in graph.proto.graph.output:
        kind = info.type.tensor_type
        sizes = tuple(d.dim_value if d.HasField("dim_value") and d.dim_value >= 0 else None for d in kind.shape.dim)
        found.append(OutputFacts(info.name, sizes if kind.HasField("shape") else None, kind.elem_type in FLOATS))
    return tuple(found)


def _default(output: str | None, outputs: Sequence[OutputFacts], *, has_labels: bool) -> str:
    if has_labels:
        return "top1"
    return "agreement" if any(o.is_class_scores for o in outputs if output in (None, o.name)) else "sqnr"


def _candidates(metric: str, output: str | None, outputs: Sequence[OutputFacts]) -> list[OutputFacts]:
    found = [facts for facts in outputs if output in (None, facts.name)]
    if not found:
        raise MetricError(metric, f"finds no output {brief(output)} in the model: {_shapes(outputs)}")
    return found


def _one_row(metric: str, candidates: Sequence[OutputFacts]) -> OutputFacts:
    suited = _best(candidates, [o for o in candidates if o.may_be_one_row])
    if not suited:
        raise not_one_row(metric, _shapes(candidates))
    return _only(metric, suited)


def _with_rows(candidates: Sequence[OutputFacts]) -> OutputFacts:
    suited = _best(candidates, [o for o in candidates if o.may_have_rows])
    if not suited:
        raise no_rows(_shapes(candidates))
    return _only("agreement", suited)


def _best(candidates: Sequence[OutputFacts], possible: Sequence[OutputFacts]) -> Sequence[OutputFacts]:
    """Return what looks like class scores, else what may be some; integers only where they were asked for by name."""
    if len(candidates) == 1:
        return possible
    return [o for o in candidates if o.is_class_scores] or [o for o in possible if o.is_float]


def _only(metric: str, suited: Sequence[OutputFacts]) -> OutputFacts:
    if len(suited) > 1:
        raise MetricError(
            metric,
            f"suits several outputs: {_shapes(suited)}; say which with --output-name, or use --metric sqnr or cosine, "
            "which judge all",
        )
    return suited[0]


def _shapes(outputs: Sequence[OutputFacts]) -> str:
    listed = [
        f"output {brief(o.name)} has {'an unknown shape' if o.shape is None else f'shape {shape_text(o.shape)}'}"
        for o in outputs[:_MOST_LISTED]
    ]
    return ", ".join(listed) + (f" and {len(outputs) - _MOST_LISTED} more" if len(outputs) > _MOST_LISTED else "")
