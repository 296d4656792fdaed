"""A report as a table for spreadsheets: one row per tensor and configuration, histogram file or cache.

Of accuracy studies there is one row per thing that was judged.

A cell of text that begins with ``=``, ``+``, ``-``, ``@``, a tab or a carriage return would be taken for a formula by
spreadsheets, so it gets an apostrophe in front; so does one that begins with an apostrophe. Taking one leading apostrophe
away therefore gives the text back. Control characters in names are escaped as in the terminal. Numbers stand as they are.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator

from trtcalib.reports.accuracy_rows import ACCURACY_COLUMNS, accuracy_rows
from trtcalib.reports.result import CacheComparison, HistogramSet, Report, ReportedStudy
from trtcalib.views.text import printable

__all__ = ["COLUMNS", "format_csv", "guarded"]

COLUMNS = (
    "source",
    "tensor",
    "kind",
    "inherited_from",
    "configuration",
    "method",
    "batch_size",
    "shuffle",
    "maximum",
    "first_batch",
    "first_sample",
    "first_maximum",
    "doublings",
    "range",
    "wasted_bins",
    "bin_m",
    "amax",
    "scale",
    "scale_hex",
    "change",
    "instability",
    "clipped",
    "why",
    *ACCURACY_COLUMNS,
)
"""``change`` is against the study's reference, for a cache against the first cache. ``kind`` is a tensor's, or the study's."""

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "'")

Cell = str | int | float | None


def format_csv(report: Report) -> bytes:
    """Return the bytes of report.csv: UTF-8, a header line, lines that end as RFC 4180 has them."""
    content = io.StringIO()
    writer = csv.DictWriter(content, COLUMNS, restval="")
    writer.writeheader()
    for row in _rows(report):
        writer.writerow({key: guarded(value) if isinstance(value, str) else value for key, value in row.items()})
    return content.getvalue().encode("utf-8")


def guarded(text: str) -> str:
    """Return text that no spreadsheet takes for a formula."""
    text = f"'{text}" if text.startswith(_FORMULA) else text
    return printable(text)


def _rows(report: Report) -> Iterator[dict[str, Cell]]:
    if report.accuracy is not None:
        yield from accuracy_rows(report.accuracy)
    for study in report.studies:
        yield from _study_rows(study)
    for histograms in report.histograms:
        if histograms.study is None:
            yield from _histogram_rows(histograms)
    if report.caches is not None:
        yield from _cache_rows(report.caches)


def _study_rows(reported: ReportedStudy) -> Iterator[dict[str, Cell]]:
    study = reported.study
    for tensor, stories in zip(study.tensors, reported.stories):
        told: dict[str, Cell] = {
            "source": reported.file,
            "tensor": tensor.name,
            "kind": tensor.kind,
            "inherited_from": tensor.inherited_from,
            "method": study.method,
            "maximum": tensor.maximum,
            "instability": tensor.instability,
        }
        if not tensor.outcomes:
            yield {**told, "scale": tensor.scale, "scale_hex": tensor.scale_hex}
        for outcome, story, configuration in zip(tensor.outcomes, stories, study.configurations):
            numbers = ("first_batch", "first_sample", "first_maximum", "range", "wasted_bins", "bin_m", "amax", "scale")
            yield {
                **told,
                "configuration": configuration.name,
                "batch_size": configuration.batch_size,
                "shuffle": configuration.shuffle,
                **{key: getattr(outcome, key) for key in (*numbers, "scale_hex", "change", "clipped")},
                "doublings": sum(doubling.times for doubling in outcome.doublings),
                "why": story.why,
            }


def _histogram_rows(histograms: HistogramSet) -> Iterator[dict[str, Cell]]:
    for tensor in histograms.tensors:
        told: dict[str, Cell] = {
            "source": histograms.file,
            "tensor": tensor.name,
            "kind": tensor.kind,
            "inherited_from": tensor.inherited_from,
            "batch_size": histograms.batching.batch_size,
            "shuffle": histograms.batching.shuffle,
        }
        if tensor.histogram is None:
            continue
        facts = histograms.histograms[tensor.histogram]
        told |= {"maximum": facts.maximum, "first_maximum": facts.first_maximum, "doublings": facts.doublings}
        told |= {"range": facts.range, "wasted_bins": facts.empty_bins}
        for method in facts.methods:
            yield {
                **told,
                "method": method.method,
                "bin_m": method.bin_m,
                "amax": method.amax,
                "scale": method.scale,
                "clipped": method.clipped,
            }


def _cache_rows(comparison: CacheComparison) -> Iterator[dict[str, Cell]]:
    for position, cache in enumerate(comparison.caches):
        if cache.file is None:
            continue
        for row in comparison.rows:
            scale = row.scales[position]
            if scale is not None:
                yield {
                    "source": cache.file,
                    "tensor": row.name,
                    "configuration": cache.label,
                    "method": cache.method,
                    "batch_size": cache.batch_size,
                    "shuffle": cache.shuffle,
                    "scale": scale.scale,
                    "scale_hex": scale.scale_hex,
                    "change": None if scale.ratio is None else scale.ratio - 1,
                }
