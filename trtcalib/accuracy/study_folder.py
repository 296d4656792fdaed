"""The folder of a study: made, checked and left clean; and the journal in it, of one job alone."""

from __future__ import annotations

import contextlib
import hashlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from trtcalib.accuracy.journal import Journal
from trtcalib.accuracy.task import OpenTask, Task
from trtcalib.core.histogram import Histogram
from trtcalib.errors import OutputError
from trtcalib.files import check_writable, folder_for_results, sha256_of, sha256_of_bytes
from trtcalib.judging.metrics import Function
from trtcalib.manifest import environment
from trtcalib.provenance import model_facts, portable_name

__all__ = ["open_journal", "result_folder"]


@contextlib.contextmanager
def result_folder(path: Path, names: Sequence[str], task: Task) -> Iterator[None]:
    """Make the folder and refuse results that cannot stand there; where nothing came of the study, a new folder goes again.

    Args:
        path: The folder.
        names: Files that are to be written there.
        task: Whose inputs must not be written over.

    Raises:
        OutputError: If the folder cannot be made, or a file cannot be written or would take the place of an input.
    """
    with folder_for_results(path):
        given = (task.model, task.data, task.eval_data, task.labels)
        taken = {Path(each).resolve() for each in given if isinstance(each, str | Path)}
        for file in (path / name for name in names):
            check_writable(file)
            if file.resolve() in taken:
                raise OutputError(file, "is an input of this study: choose another folder for the results")
        yield


@contextlib.contextmanager
def open_journal(path: Path, opened: OpenTask, histograms: Mapping[str, Histogram]) -> Iterator[Journal | None]:
    """Give the journal of a job, which goes when the block ends well; one with nothing in it goes in any case.

    The histograms stand for everything that they were made from. There is no journal where it cannot be told that the data that are judged on
    are the same ones again: what a function gives is known only when it was called to its end, and a metric that is no file's may be another.

    Args:
        path: The file.
        opened: What is judged.
        histograms: What the scales come from.

    Raises:
        OutputError: If it cannot be written.
    """
    job = _identity(opened, histograms)
    if job is None:
        yield None
        return
    journal = Journal(path, job)
    try:
        yield journal
    except BaseException:
        if not _has_results(path):
            journal.remove()
        raise
    journal.remove()


def _has_results(path: Path) -> bool:
    """Whether a journal holds more than the digest of its job."""
    with contextlib.suppress(OSError), path.open("rb") as file:
        file.readline()
        return bool(file.readline())
    return False


def _identity(opened: OpenTask, histograms: Mapping[str, Histogram]) -> dict[str, Any] | None:
    """Return what decides every result; ``None`` where that cannot be told before the work is done."""
    samples = opened.samples
    metric = _metric(opened)
    if samples.batches.source.size() is None or metric is None:
        return None
    versions, cpu = environment()
    known = [samples.labels, opened.calibration_labels]
    return {
        "model": model_facts(opened.graph).model_dump(),
        "histograms": {portable_name(name): _digest(histogram) for name, histogram in histograms.items()},
        "data": [samples.batches.source.sha256(), samples.batches.samples],
        "labels": [None if each is None else sha256_of_bytes(each.values.tobytes()) for each in known],
        "metric": metric,
        "versions": versions,
        "cpu": cpu,
    }


def _digest(histogram: Histogram) -> str:
    digest = hashlib.sha256(np.ascontiguousarray(histogram.counts).data)
    digest.update(repr((histogram.exact_range, float(histogram.first_max), float(histogram.maximum))).encode())
    return digest.hexdigest()


def _metric(opened: OpenTask) -> list[str | None] | None:
    """Return what tells one metric from another; a user's function is told by the file of its module."""
    metric = opened.metric
    told = [metric.name, getattr(metric, "output", None)]
    if not isinstance(metric, Function):
        return told
    wanted = opened.task.metric
    module = sys.modules.get(wanted.partition(":")[0]) if isinstance(wanted, str) else None
    file = getattr(module, "__file__", None)
    return [*told, sha256_of(file)] if file is not None and Path(file).is_file() else None
