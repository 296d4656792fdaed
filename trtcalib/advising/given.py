"""Results of other studies that advice may rest on, held against the task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from trtcalib.accuracy.result import Ablation, Sensitivity
from trtcalib.accuracy.task import OpenTask, open_task
from trtcalib.advising.remedies import search_task
from trtcalib.batch_study.result import Study
from trtcalib.errors import SpecError
from trtcalib.manifest import portable_path
from trtcalib.reports.inputs import read_results

__all__ = ["Given"]


@dataclass(slots=True)
class Given:
    """Results that were given.

    Attributes:
        study: ``None`` where none was given.
        ablation: Likewise.
        sensitivity: Likewise.
        paths: Where they stand, by kind.
    """

    study: Study | None = None
    ablation: Ablation | None = None
    sensitivity: Sensitivity | None = None
    paths: dict[str, Path] = field(default_factory=dict)

    @classmethod
    def read(cls, given: Sequence[Path], opened: OpenTask) -> Given:
        """Read results, as files or folders.

        Raises:
            SpecError: If one is of another model, or judged by another metric.
        """
        self = cls()
        if not given:
            return self
        found = read_results(given)
        model = opened.facts(None, Path()).get("model")
        digest = None if model is None else model.sha256
        for file in found.studies:
            _check_model(file.path, file.study.model.sha256, digest)
            self.study, self.paths["study"] = file.study, file.path
        for result in found.accuracy:
            if isinstance(result.result, Ablation | Sensitivity):
                _check_model(result.path, result.result.model.sha256, digest)
                metrics = {opened.metric.name}
                if isinstance(result.result, Sensitivity):
                    metrics.add(open_task(search_task(opened)).metric.name)
                if result.result.metric.name not in metrics:
                    raise _other_metric(result.path, result.result.metric.name, opened.metric.name)
                self.paths[result.result.kind] = result.path
            if isinstance(result.result, Ablation):
                self.ablation = result.result
            elif isinstance(result.result, Sensitivity):
                self.sensitivity = result.result
        return self

    def sources(self, folder: Path, *, studied: bool) -> dict[str, str]:
        """Return where the results stand that the advice rests on: those that were given, and those that were made.

        Args:
            folder: Where the advice stands; paths are told relative to it.
            studied: Whether there is a study of batch sizes.
        """
        made = {"study": "study/study.json", "ablation": "ablation.json", "sensitivity": "sensitivity.json"}
        if not studied:
            del made["study"]
        return made | {kind: portable_path(str(path.resolve()), folder.resolve()) for kind, path in self.paths.items()}


def _check_model(path: Path, found: str, wanted: str | None) -> None:
    if found != wanted:
        raise SpecError(path, ("is of another model: its sha256 differs; make it again, or leave it out",))


def _other_metric(path: Path, found: str, wanted: str) -> SpecError:
    fault = f"judges by {found}, and the advice is to be by {wanted}: give --metric {found}, or leave it out"
    return SpecError(path, (fault,))
