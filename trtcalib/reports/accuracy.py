"""Results of accuracy studies as a report shows them: each as it stands, with a name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from trtcalib.accuracy.result import Ablation, Advice, Evaluation, Sensitivity, Sweep
from trtcalib.reports.accuracy_inputs import AccuracyFile
from trtcalib.reports.result import (
    ReportedAblation,
    ReportedAccuracy,
    ReportedAdvice,
    ReportedEvaluation,
    ReportedSensitivity,
    ReportedSweep,
)

__all__ = ["report_accuracy"]


def report_accuracy(files: Sequence[AccuracyFile], place: Callable[[Path], str]) -> ReportedAccuracy | None:
    """Return the results by kind, each kind in the order given; ``None`` without any.

    Args:
        files: What was read.
        place: Says how a file is called in the report.
    """
    if not files:
        return None
    named = [({"label": _label(file), "file": place(file.path)}, file.result) for file in files]
    return ReportedAccuracy(
        advice=[ReportedAdvice(**name, result=r) for name, r in named if isinstance(r, Advice)],
        evaluations=[ReportedEvaluation(**name, result=r) for name, r in named if isinstance(r, Evaluation)],
        ablations=[ReportedAblation(**name, result=r) for name, r in named if isinstance(r, Ablation)],
        sweeps=[ReportedSweep(**name, result=r) for name, r in named if isinstance(r, Sweep)],
        sensitivities=[ReportedSensitivity(**name, result=r) for name, r in named if isinstance(r, Sensitivity)],
    )


def _label(file: AccuracyFile) -> str:
    path = file.path.resolve()
    label = path.parent.name if path.stem == file.result.kind else path.stem
    return (label or path.name).encode("utf-8", "backslashreplace").decode()
