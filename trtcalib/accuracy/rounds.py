"""Judging many variants: in groups that share one pass of FP32, noted in a journal, under one progress bar."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from trtcalib.accuracy.journal import Journal
from trtcalib.accuracy.result import Score
from trtcalib.judging.judge import JudgedSamples, ModelRunner, judge
from trtcalib.judging.judgements import reference_score
from trtcalib.judging.paired import Scored
from trtcalib.onnx_graph import ModelGraph, external_files
from trtcalib.passes import Progress

__all__ = ["GROUP", "GROUP_BYTES", "Rounds", "Steps"]

GROUP = 8
"""Variants that are judged together, at most: FP32 runs once for all of them, an eighth of the work. Ours."""

GROUP_BYTES = 1 << 30
"""Bytes of models that are judged together, at most, unless a single one has more; ONNX Runtime keeps its own copy. Ours."""


class _Pass(BaseModel):
    """What a journal keeps of a pass: samples, those that filled no batch, and FP32's score."""

    model_config = ConfigDict(strict=True)

    seen: int
    left_out: int
    reference: Score

    @classmethod
    def of(cls, noted: Any) -> _Pass | None:
        """Return what was noted; ``None`` where nothing usable was."""
        try:
            return cls.model_validate(noted)
        except ValidationError:
            return None


class Steps:
    """One progress bar over a calibration and the judging that follows; each sample of each variant counts.

    Args:
        progress: Called with (done, in all or ``None``).
        judgings: Samples times variants that are to be judged, at most; ``None`` where only reading the data tells.
    """

    def __init__(self, progress: Progress | None, judgings: int | None) -> None:
        self._progress = progress
        self._judgings = judgings
        self._total: int | None = None
        self._done = 0

    def calibration(self, done: int, total: int | None) -> None:
        """Tell of the calibration; a :data:`~trtcalib.passes.Progress`."""
        known = total is not None and self._judgings is not None
        self._total = (total or 0) + (self._judgings or 0) if known else None
        self._done = done
        self._tell(done)

    def judging(self, variants: int) -> Progress:
        """Return the callback of the next pass, of so many variants."""
        before = self._done

        def move(done: int, total: int | None) -> None:
            del total
            self._done = before + variants * done
            self._tell(self._done)

        return move

    def skip(self, judgings: int) -> None:
        """Tell that so many need not be done."""
        self._done += judgings
        self._tell(self._done)

    def _tell(self, done: int) -> None:
        if self._progress is not None:
            self._progress(done, self._total)


class Rounds:
    """Judges variants of one model on the same samples, and notes what it found.

    Attributes:
        reference: FP32's score; known when a variant was judged.
        evaluations: Variants that are judged, those noted before included.

    Args:
        graph: The model in float.
        samples: What to judge on.
        journal: Where results are noted; ``None``: nowhere.
        workers: As for :func:`~trtcalib.judging.judge.judge`.
        steps: What tells how far it is.
    """

    def __init__(
        self, graph: ModelGraph, samples: JudgedSamples, journal: Journal | None, workers: int | None, steps: Steps
    ) -> None:
        self._graph = graph
        self._samples = samples
        self._journal = journal
        self._workers = workers
        self._steps = steps
        self._runner: ModelRunner | None = None
        self._group = _group_size(graph)
        self.reference: Score | None = None
        self.evaluations = 0

    def judge(self, variants: Mapping[str, Callable[[], ModelGraph]], part: str = "") -> dict[str, Scored]:
        """Judge variants, which are made when their group's turn comes.

        Args:
            variants: How each is made, by the name that the journal has it under.
            part: What the journal calls these samples, where one has several.

        Raises:
            TrtcalibError: As :func:`~trtcalib.judging.judge.judge`.
        """
        found = self._noted(variants, part)
        missing = iter([name for name in variants if name not in found])
        while group := list(islice(missing, self._group)):
            found.update(self._judge(group, [variants[name] for name in group], part))
        self.evaluations += len(variants)
        return {name: found[name] for name in variants}

    def _noted(self, variants: Mapping[str, Any], part: str) -> dict[str, Scored]:
        """Return what an interrupted job has judged already."""
        passed = None if self._journal is None else _Pass.of(self._journal.get(f"{part}samples"))
        if self._journal is None or passed is None:
            return {}
        noted = {name: Scored.from_json(self._journal.get(f"{part}{name}"), passed.seen) for name in variants}
        found = {name: scored for name, scored in noted.items() if scored is not None}
        if found:
            self.reference = passed.reference
            # As after a pass, so that the result can tell of it.
            self._samples.batches.seen, self._samples.batches.left_out = passed.seen, passed.left_out
            self._steps.skip(len(found) * passed.seen)
        return found

    def _judge(self, names: Sequence[str], makers: Sequence[Callable[[], ModelGraph]], part: str) -> dict[str, Scored]:
        self._runner = self._runner or ModelRunner(self._graph)
        judged = judge(
            self._runner,
            [ModelRunner(make()) for make in makers],
            self._samples,
            workers=self._workers,
            progress=self._steps.judging(len(names)),
        )
        self.reference = reference_score(judged[0], self._samples.metric)
        batches = self._samples.batches
        scored = {name: Scored.of(each, self._samples.metric) for name, each in zip(names, judged, strict=True)}
        if self._journal is not None:
            passed = _Pass(seen=batches.seen, left_out=batches.left_out, reference=self.reference)
            self._journal.note(f"{part}samples", passed.model_dump(mode="json"))
            for name, each in scored.items():
                self._journal.note(f"{part}{name}", each.as_json())
        return scored


def _group_size(graph: ModelGraph) -> int:
    size = graph.path.stat().st_size + sum(file.stat().st_size for file in external_files(graph))
    return int(np.clip(GROUP_BYTES // max(size, 1), 1, GROUP))
