"""Lint a calibration cache: run every rule that what is given allows, and gather what they find."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from trtcalib.core.cache import version_text
from trtcalib.core.cache_scan import CacheScan, FaultKind, scan_cache
from trtcalib.errors import CacheFormatError
from trtcalib.linting.constant_rules import constant_findings
from trtcalib.linting.manifest_rules import Beside, manifest_findings, read_beside
from trtcalib.linting.model_view import ModelView, view_of_model
from trtcalib.linting.name_rules import name_findings
from trtcalib.linting.rules import RULES, LintFinding, Severity, rank
from trtcalib.linting.scale_rules import scale_findings
from trtcalib.linting.statement import statement_of
from trtcalib.linting.text_rules import text_findings
from trtcalib.linting.value_rules import value_findings
from trtcalib.onnx_graph import read_model

__all__ = ["MOST_FINDINGS", "LintResult", "lint_cache"]

MOST_BYTES = 8 << 20
"""The largest file that is linted: 100 000 tensors with long names. Ours."""

MOST_FINDINGS = 200
"""Findings of one rule that are kept; the others are counted. Ours."""

_COUNTED_BY_SCAN: dict[str, FaultKind] = {"TC004": "line", "TC005": "digits"}


@dataclass(frozen=True, slots=True, kw_only=True)
class LintResult:
    """What was found.

    Attributes:
        path: The cache.
        model: The model, where one was given.
        version: The number in the header, where there is one.
        algorithm: The algorithm in the header, where there is one.
        tensors: How many lines could be read.
        manifest: Whether a manifest of these very bytes stands beside the cache.
        findings: At most :data:`MOST_FINDINGS` of a rule; by line, those without one last, worst first.
        counts: How many there are per rule ID, in the order of the IDs.
    """

    path: Path
    model: Path | None
    version: int | None
    algorithm: str | None
    tensors: int
    manifest: bool
    findings: tuple[LintFinding, ...]
    counts: Mapping[str, int]

    def count(self, severity: Severity) -> int:
        """Return how many findings have this severity."""
        return sum(count for rule, count in self.counts.items() if RULES[rule].severity == severity)

    def fails(self, fail_on: Severity) -> bool:
        """Whether there is a finding of this severity or a worse one."""
        return any(rank(RULES[rule].severity) >= rank(fail_on) for rule in self.counts)

    def as_json(self, fail_on: Severity) -> dict[str, Any]:
        """Return it as plain values."""
        return {
            "schema_version": 1,
            "path": _text(str(self.path)),
            "model": None if self.model is None else _text(str(self.model)),
            "tensorrt_version": None if self.version is None else version_text(self.version),
            "algorithm": None if self.algorithm is None else _text(self.algorithm),
            "tensors": self.tensors,
            "manifest": self.manifest,
            "fail_on": fail_on,
            "failed": self.fails(fail_on),
            "counts": dict(self.counts),
            "findings": [
                {
                    "rule": found.rule.id,
                    "name": found.rule.name,
                    "severity": found.rule.severity,
                    "line": found.line,
                    "tensor": None if found.tensor is None else _text(found.tensor),
                    "message": _text(found.message),
                }
                for found in self.findings
            ],
        }


def lint_cache(path: Path | str, model: Path | str | None = None) -> LintResult:
    """Lint a calibration cache, with the manifest beside it; against its model where that is given.

    Args:
        path: The cache. Whatever its bytes are, they end in findings.
        model: The ONNX model that it is for.

    Raises:
        CacheFormatError: If the cache cannot be read, or is larger than 8 MiB.
        ModelError: If the model cannot be read.
    """
    path, model = Path(path), None if model is None else Path(model)
    content = _read(path)
    scan = scan_cache(content)
    view = None if model is None else view_of_model(read_model(model))
    beside = read_beside(path, content)
    kept, counts = _bounded(_all(path, scan, beside, view), scan)
    return LintResult(
        path=path,
        model=model,
        version=scan.version,
        algorithm=scan.algorithm,
        tensors=len(scan.entries),
        manifest=beside.believed,
        findings=tuple(sorted(kept, key=_order)),
        counts=counts,
    )


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise CacheFormatError(path, 0, f"cannot be read: {reason}") from error
    if len(content) > MOST_BYTES:
        raise CacheFormatError(path, 0, f"is larger than {MOST_BYTES >> 20} MiB: is it a calibration cache?")
    return content


def _all(path: Path, scan: CacheScan, beside: Beside, view: ModelView | None) -> Iterator[LintFinding]:
    yield from text_findings(scan)
    yield from scale_findings(scan, frozenset() if view is None else view.zeros)
    yield from manifest_findings(path, scan, beside, None if view is None else view.graph.path)
    if view is not None and scan.entries:
        stated = statement_of(scan, beside.manifest if beside.believed else None)
        yield from name_findings(scan, view)
        of_constants = list(constant_findings(scan, view, stated))
        yield from of_constants
        if any(found.rule.id == "TC051" for found in of_constants):
            # Nothing can be held to a statement that is not true.
            stated = replace(stated, method="other")
        yield from value_findings(scan, view, stated)


def _bounded(findings: Iterable[LintFinding], scan: CacheScan) -> tuple[list[LintFinding], dict[str, int]]:
    counts: Counter[str] = Counter()
    kept = []
    for found in findings:
        counts[found.rule.id] += 1
        if counts[found.rule.id] <= MOST_FINDINGS:
            kept.append(found)
    # The scan has kept fewer of these than it has counted.
    counts.update({rule: scan.counts[kind] - counts[rule] for rule, kind in _COUNTED_BY_SCAN.items() if rule in counts})
    return kept, dict(sorted(counts.items()))


def _order(found: LintFinding) -> tuple[bool, int, int, str]:
    return found.line is None, found.line or 0, -rank(found.rule.severity), found.rule.id


def _text(name: str) -> str:
    """Return text that JSON readers take: what is no UTF-8 escaped."""
    return name.encode("utf-8", "backslashreplace").decode()
