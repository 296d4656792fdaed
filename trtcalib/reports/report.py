"""Accuracy studies, studies of batch sizes, histograms and calibration caches -> one report: every number that the page, the JSON and the CSV show."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from trtcalib.batch_study.result import Configuration, Outcome, Study
from trtcalib.calibration import Calibration, solve
from trtcalib.core.entropy import TIE_TOLERANCE, VARIANTS, divergences
from trtcalib.core.histogram import Histogram, clipped_share
from trtcalib.core.scale import scale_from_amax
from trtcalib.files import write_files
from trtcalib.manifest import portable_path
from trtcalib.methods import ClipPoint, describe
from trtcalib.reports.accuracy import report_accuracy
from trtcalib.reports.caches import compare_caches
from trtcalib.reports.csv_rows import format_csv
from trtcalib.reports.inputs import HistogramFile, Results, StudyFile, read_results
from trtcalib.reports.result import (
    Curves,
    Divergence,
    Drawn,
    HistogramFacts,
    HistogramSet,
    MethodAmax,
    Report,
    ReportedStudy,
    SetTensor,
    Source,
    Story,
)
from trtcalib.specs import EntropyRecipe, Recipe, load_recipe
from trtcalib.views.html_report import format_html
from trtcalib.views.text_study import why

__all__ = ["METHODS", "make_report", "report_files", "write_report"]

METHODS = ("entropy", "minmax", "percentile-99.9", "percentile-99.99", "percentile-99.999")
"""The methods whose amax is shown, beside the recipe's own; those of ``trtcalib plot``."""


def write_report(results: Iterable[Path], output: Path) -> Report:
    """Write a report of results: ``report.html``, and ``report.json`` and ``report.csv`` beside it, all or none.

    Raises:
        TrtcalibError: One of its kinds, for a result that cannot be read or a file that cannot be written.
    """
    drawn = make_report(read_results(results), output.parent)
    write_files(report_files(drawn, output))
    return drawn.report


def report_files(drawn: Drawn, output: Path) -> dict[Path, bytes]:
    """Return what is to stand on disk for a report at ``output``; the same bytes for the same report."""
    text = drawn.report.model_dump_json(indent=1) + "\n"
    beside = {suffix: output.with_suffix(suffix) for suffix in (".json", ".csv")}
    return {
        output: format_html(drawn, {suffix: path.name for suffix, path in beside.items()}),
        beside[".json"]: text.encode("utf-8", "backslashreplace"),
        beside[".csv"]: format_csv(drawn.report),
    }


def make_report(results: Results, folder: Path) -> Drawn:
    """Compute what a report shows.

    Args:
        results: What was read.
        folder: Where the report is to stand; paths are told relative to it.

    Raises:
        SpecError: If a third-party method of a recipe is not installed or fails.
    """
    place = _Place(folder.resolve())
    studies = [_study(file, place) for file in results.studies]
    sets = [
        *(
            (number, name, file)
            for number, study in enumerate(results.studies)
            for name, file in study.histograms.items()
        ),
        *((None, None, file) for file in results.histograms),
    ]
    shown, curves = [], {}
    for position, (number, configuration, file) in enumerate(sets):
        facts, curves[position] = _histogram_set(file, place)
        shown.append(facts.model_copy(update={"study": number, "configuration": configuration}))
    report = Report(
        title=_title(results),
        sources=_sources(results, place),
        notes=_notes(results, place),
        studies=studies,
        histograms=shown,
        caches=compare_caches(results, place),
        accuracy=report_accuracy(results.accuracy, place),
    )
    return Drawn(report, curves)


class _Place:
    """How files are called in a report that stands in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __call__(self, file: Path) -> str:
        return as_text(portable_path(file.resolve(), self._folder))


def as_text(name: str) -> str:
    """Return a name as JSON can hold it: bytes that are not UTF-8 written out, as in manifests."""
    return name.encode("utf-8", "backslashreplace").decode()


def _title(results: Results) -> str:
    for accuracy in results.accuracy:
        return f"{_last_part(accuracy.result.model.path)} · accuracy"
    for study in results.studies:
        return f"{_last_part(study.study.model.path)} · {study.study.method}"
    for file in results.histograms:
        return f"{_last_part(file.collected.provenance.model.path)} · histograms"
    return f"{len(results.caches)} calibration cache{'s' * (len(results.caches) != 1)}"


def _last_part(path: str) -> str:
    return as_text(PurePosixPath(path.replace("\\", "/")).name or path)


def _sources(results: Results, place: _Place) -> list[Source]:
    sources = [Source(file=place(f.path), kind=f.result.kind, sha256=f.sha256) for f in results.accuracy]
    for study in results.studies:
        sources.append(Source(file=place(study.path), kind="study", sha256=study.sha256))
        sources += [Source(file=place(f.path), kind="histograms", sha256=f.sha256) for f in study.histograms.values()]
    sources += [Source(file=place(f.path), kind="histograms", sha256=f.sha256) for f in results.histograms]
    return sources + [Source(file=place(f.path), kind="cache", sha256=f.sha256) for f in results.caches]


def _notes(results: Results, place: _Place) -> list[str]:
    notes = [
        f"{place(study.path)} names the histogram file {name}, which does not stand beside it: its histograms are not shown"
        for study in results.studies
        for name in study.missing
    ]
    notes += [
        f"{place(file.path)} changed since its manifest was written: the manifest is not used"
        for file in results.caches
        if file.stale
    ]
    models = {place(file.path): file.result.model.sha256 for file in results.accuracy}
    models |= {place(study.path): study.study.model.sha256 for study in results.studies}
    models |= {place(file.path): file.collected.provenance.model.sha256 for file in results.histograms}
    models |= {place(f.path): f.manifest.provenance.model.sha256 for f in results.caches if f.manifest is not None}
    first = next(iter(models), "")
    return notes + [
        f"{name} is of another model than {first}: tensors are matched by name alone"
        for name, digest in models.items()
        if digest != models[first]
    ]


def _study(file: StudyFile, place: _Place) -> ReportedStudy:
    study = file.study
    return ReportedStudy(
        label=as_text(file.path.resolve().parent.name) or place(file.path),
        file=place(file.path),
        study=study,
        stories=[
            [
                Story(growth=_growth(outcome, configuration, study), why=why(outcome, configuration, study.bins))
                for outcome, configuration in zip(tensor.outcomes, study.configurations)
            ]
            for tensor in study.tensors
        ],
    )


def _growth(outcome: Outcome, configuration: Configuration, study: Study) -> list[tuple[int, float]]:
    """Return (samples seen, range from then on) per batch that set or doubled the range."""
    if outcome.first_batch == 0 or study.recipe.get("range", "doubling") != "doubling":
        return []
    steps, times = [(outcome.first_batch, 0)], 0
    for doubling in outcome.doublings:
        times += doubling.times
        steps.append((doubling.batch, times))
    seen = ((min(batch * configuration.batch_size, study.data.samples), times) for batch, times in steps)
    return [(samples, math.ldexp(outcome.first_maximum, times)) for samples, times in seen]


def _histogram_set(file: HistogramFile, place: _Place) -> tuple[HistogramSet, tuple[Curves, ...]]:
    collected = file.collected
    facts = collected.provenance
    clips = {describe(recipe): solve(collected, recipe).clips for recipe in _recipes(collected)}
    variant = collected.recipe.variant if isinstance(collected.recipe, EntropyRecipe) else "tensorrt"
    curves = {name: _curves(histogram, variant) for name, histogram in collected.histograms.items()}
    places = {name: position for position, name in enumerate(curves)}
    origins = collected.origins
    return HistogramSet(
        label=as_text(file.path.name),
        file=place(file.path),
        study=None,
        configuration=None,
        model=facts.model.model_copy(update={"path": _last_part(facts.model.path)}),
        data=facts.data.model_copy(update={"path": _last_part(facts.data.path)}),
        batching=facts.batching,
        versions=facts.versions,
        histograms=[_facts(name, curve, variant, clips) for name, curve in curves.items()],
        tensors=[
            SetTensor(
                name=as_text(tensor.name),
                kind=tensor.kind,
                inherited_from=None if origins[tensor.name] == tensor.name else as_text(origins[tensor.name]),
                histogram=places.get(origins[tensor.name]),
            )
            for tensor in collected.tensors
        ],
    ), tuple(curves.values())


def _recipes(collected: Calibration) -> list[Recipe]:
    """Return the recipe of the histograms, then the usual methods, all over the same range policy and bins."""
    same = {"range": collected.recipe.range, "bins": collected.recipe.bins}
    usual = [load_recipe(name).model_copy(update=same) for name in METHODS]
    return [collected.recipe, *(recipe for recipe in usual if recipe != collected.recipe)]


def _curves(histogram: Histogram, variant: str) -> Curves:
    if histogram.range == 0 or histogram.total == 0:
        return Curves(histogram)
    curve = divergences(histogram, variant)
    rule = VARIANTS[variant]
    if not np.isfinite(curve.min()):
        return Curves(histogram, curve, curve.size - 1)
    ties = np.flatnonzero(curve <= curve.min() + TIE_TOLERANCE)
    return Curves(histogram, curve, int(ties[0] if rule.ties == "first" else ties[-1]))


def _facts(name: str, curve: Curves, variant: str, clips: Mapping[str, Mapping[str, ClipPoint]]) -> HistogramFacts:
    histogram = curve.histogram
    covered = 0.0 if histogram.range == 0 else float(histogram.maximum) / histogram.exact_range * histogram.bins
    return HistogramFacts(
        tensor=as_text(name),
        bins=histogram.bins,
        range=_json_number(histogram.range),
        first_maximum=float(histogram.first_max),
        maximum=float(histogram.maximum),
        doublings=histogram.doublings,
        values=histogram.total,
        empty_bins=max(histogram.bins - math.ceil(covered), 0) if histogram.range > 0 else 0,
        highest=int(histogram.counts.max()),
        methods=[_method(method, histogram, of[name]) for method, of in clips.items()],
        divergence=None
        if curve.divergences is None
        else _divergence(curve.divergences, curve.chosen, variant, histogram.bins),
    )


def _method(method: str, histogram: Histogram, clip: ClipPoint) -> MethodAmax:
    return MethodAmax(
        method=method,
        amax=_json_number(clip.amax),
        scale=_json_number(scale_from_amax(clip.amax)),
        bin_m=clip.bin_m,
        clipped=clipped_share(histogram, clip.amax),
    )


def _divergence(curve: NDArray[np.float64], chosen: int, variant: str, bins: int) -> Divergence:
    smallest = float(curve.min())
    return Divergence(
        variant=variant,
        first=VARIANTS[variant].first,
        candidates=curve.size,
        allowed=int(np.isfinite(curve).sum()),
        smallest=smallest if math.isfinite(smallest) else None,
        bin_m=VARIANTS[variant].first + chosen if math.isfinite(smallest) else bins,
    )


def _json_number(value: np.float32) -> float | None:
    return float(value) if np.isfinite(value) else None
