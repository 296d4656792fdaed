"""Studies for the tests of the report: a small one of real calibrations, and a large one of made-up numbers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np

import trtcalib
from trtcalib.batch_study.result import (
    Configuration,
    Cost,
    Doubling,
    Outcome,
    OutlierSample,
    StudiedTensor,
    Study,
    StudySummary,
    Without,
)
from trtcalib.calibration import Calibration
from trtcalib.core.histogram import Histogram, clipped_share, double, doublings_needed
from trtcalib.core.scale import bits_from_scale, scale_from_amax
from trtcalib.histogram_file import format_histograms
from trtcalib.manifest import Finding
from trtcalib.onnx_graph import GraphTensor

ROOT = Path(__file__).parents[1]

SAMPLES = 40
"""Of the embedded sample, in the small study."""

HOSTILE = (
    "<script>window.broken = 1</script>",
    "</script><img src=x onerror='window.broken = 2'>",
    "\"quotes' &amp; `ticks` <b>bold</b> $x^2$ %{z}",
    "x" * 10_000,
    "\u202eright to left\u202c \u05d0\u05d1\u05d2",
    "NUL \x00 newline \n tab \t",
    "=HYPERLINK(0)",
    "bytes \\udc80 written out",
    "per cent %41 %zz # ? &",
    "constructor",
    "__proto__",
)
"""Tensor names that a model may hold; none may do anything but be shown."""


def digest(text: str) -> str:
    """A SHA-256 that stands for something."""
    return hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()


@cache
def calibrated(batch_size: int) -> Calibration:
    """The embedded sample's model on its first samples."""
    data = str(ROOT / "data/digits-calibration.yaml")
    return trtcalib.calibrate(ROOT / "data/digits/model.onnx", data, batch_size=batch_size, max_samples=SAMPLES)


def small_study(folder: Path, sizes: Sequence[int] = (1, 4, SAMPLES)) -> Path:
    """Write a study of real calibrations into a folder, the last size being everything; return its study.json."""
    names = {size: "all" if size == SAMPLES else f"b{size}" for size in sizes}
    runs = {name: calibrated(size) for size, name in names.items()}
    for name, run in runs.items():
        run.write_cache(folder / f"{name}.cache")
    configurations = [
        configuration(name, size, SAMPLES, digest_of(folder / f"{name}.cache"), moved=0.25 if name != "all" else 0.0)
        for size, name in names.items()
    ]
    reference = runs["all"]
    tensors = [real_tensor(tensor, runs, configurations) for tensor in reference.tensors]
    files = {name: f"{name}.npz" for name in ("all", "b1")}
    for name, file in files.items():
        (folder / file).write_bytes(format_histograms(runs[name], folder / file))
    study = make_study(configurations, tensors, files, reference)
    return write_study(folder, study)


def digest_of(path: Path) -> str:
    """SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def configuration(name: str, size: int, samples: int, sha256: str, moved: float = 0.1) -> Configuration:
    """A configuration in the source's order."""
    batches = -(-samples // size)
    return Configuration(
        name=name,
        batch_size=size,
        shuffle=None,
        batches=batches,
        last_batch_samples=samples - (batches - 1) * size,
        cache=f"{name}.cache",
        cache_sha256=sha256,
        moved=moved,
    )


def real_tensor(
    tensor: GraphTensor, runs: dict[str, Calibration], configurations: list[Configuration]
) -> StudiedTensor:
    """What calibrations at several batch sizes say of a tensor; where a range doubled is made up, how often is not."""
    reference = runs["all"]
    origin = reference.origins[tensor.name]
    histogram = reference.histograms[origin]
    is_constant = tensor.kind in ("constant", "folded")
    outcomes = [] if is_constant else [real_outcome(runs[c.name], reference, origin) for c in configurations]
    scales = [outcome.scale for outcome in outcomes if outcome.scale is not None]
    scale = scale_from_amax(reference.clips[origin].amax)
    return StudiedTensor(
        name=tensor.name,
        kind=tensor.kind,
        inherited_from=None if origin == tensor.name else origin,
        maximum=float(histogram.maximum),
        maximum_sample=None if is_constant else "7",
        next_maximum=None if is_constant else float(histogram.maximum) * 0.9,
        values=histogram.total,
        instability=(max(scales) - min(scales)) / float(scale) if scales and scale > 0 else None,
        outcomes=outcomes,
        scale_hex=f"{bits_from_scale(scale):x}",
        scale=float(scale),
    )


def real_outcome(run: Calibration, reference: Calibration, origin: str) -> Outcome:
    """One calibration's histogram of one tensor as an outcome."""
    histogram, clip = run.histograms[origin], run.clips[origin]
    first = scale_from_amax(reference.clips[origin].amax)
    return outcome_of(histogram, float(clip.amax), clip.bin_m, float(first))


def outcome_of(histogram: Histogram, amax: float, bin_m: int | None, reference: float) -> Outcome:
    """An outcome that fits a histogram; its doublings happen one batch after the other, from the second on."""
    scale = scale_from_amax(amax)
    covered = float(histogram.maximum) / float(histogram.range) * histogram.bins if histogram.range > 0 else 0
    return Outcome(
        first_maximum=float(histogram.first_max),
        first_batch=1 if histogram.range > 0 else 0,
        first_sample="0" if histogram.range > 0 else None,
        doublings=[
            Doubling(
                batch=2 + k,
                times=1,
                sample=str(10 + k),
                maximum=float(histogram.maximum),
                alone=k == histogram.doublings - 1,
            )
            for k in range(histogram.doublings)
        ],
        range=float(histogram.range),
        wasted_bins=histogram.bins - int(np.ceil(covered)) if histogram.range > 0 else 0,
        bin_m=bin_m,
        amax=amax,
        scale=float(scale),
        scale_hex=f"{bits_from_scale(scale):x}",
        change=float(scale) / reference - 1 if reference else None,
        clipped=clipped_share(histogram, amax),
        without=Without(
            sample="7", range=float(histogram.range), doublings=0, bin_m=bin_m, scale=float(scale), change=-0.38
        ),
    )


def make_study(
    configurations: list[Configuration],
    tensors: list[StudiedTensor],
    files: dict[str, str],
    reference: Calibration,
    findings: Sequence[Finding] = (),
) -> Study:
    """Put a study together."""
    facts = reference.provenance
    return Study(
        model=facts.model.model_copy(update={"path": "model.onnx"}),
        data=facts.data.model_copy(update={"path": "images.npz"}),
        recipe=reference.recipe.model_dump(),
        method="entropy",
        algorithm="EntropyCalibration2",
        tensorrt_version="10.16.1",
        bins=2048,
        max_samples=None,
        skip_bad_images=False,
        seed=0,
        orders=0,
        session_options={"intra_op_num_threads": 1},
        versions={"trtcalib": "0.1.0", "numpy": "2.0"},
        cpu="a CPU",
        reference="all",
        configurations=configurations,
        histograms=files,
        cost=Cost(inferences=80, naive_inferences=120, tensors=len(tensors), distinct_ranges=99, searches=88),
        summary=StudySummary(
            score=0.8125,
            stable_batch_size=16,
            recommendation="Take batches of 16: from there on 95 % of the tensors move by less than 1 %.",
            outliers=[OutlierSample(sample="7", tensors=3, stretch=1.75, examples=[t.name for t in tensors[:3]])],
        ),
        notes=["batch size 128 was left out: there are 40 samples"],
        findings=list(findings),
        tensors=tensors,
    )


def write_study(folder: Path, study: Study) -> Path:
    """Write study.json as the command does."""
    path = folder / "study.json"
    path.write_bytes((study.model_dump_json() + "\n").encode("utf-8", "backslashreplace"))
    return path


def large_study(folder: Path, tensors: int = 1000, names: Sequence[str] = (), values: int = 1_000_000) -> Path:
    """Write a study of made-up tensors in eight configurations, with noisy histograms; return its study.json.

    Args:
        folder: Where to.
        tensors: How many.
        names: What the first ones are called; the others get names as exporters make them.
        values: Values per histogram; fewer are noisier.
    """
    random = np.random.default_rng(5)
    sizes = [1, 2, 4, 8, 16, 32, 64, 256]
    configurations = [
        configuration(
            "all" if size == 256 else f"b{size}",
            size,
            256,
            digest(str(size)),
            moved=float(random.random()) if size != 256 else 0.0,
        )
        for size in sizes
    ]
    called = [*names, *(f"/model.{i // 9}/cv{i % 3}.{i % 5}/conv{i}/Conv_output_0" for i in range(len(names), tensors))]
    runs = {"all": {name: noisy(random, values) for name in called}}
    runs["b1"] = {name: grown(random, histogram) for name, histogram in runs["all"].items()}
    template = calibrated(SAMPLES)
    studied = [made_up(random, name, runs["all"][name], configurations) for name in called]
    for name, histograms in runs.items():
        held = replace(
            template,
            tensors=tuple(GraphTensor(name=tensor, kind="activation") for tensor in called),
            histograms=histograms,
            infinite={},
            clips={},
        )
        (folder / f"{name}.npz").write_bytes(format_histograms(held, folder / f"{name}.npz"))
    findings = [
        Finding(code="all-zero-tensor", tensor=name, message=f"{name!r} is zero in every sample") for name in names
    ]
    study = make_study(configurations, studied, {"all": "all.npz", "b1": "b1.npz"}, template, findings)
    return write_study(folder, study)


def noisy(random: np.random.Generator, values: int) -> Histogram:
    """Counts of a random shape, with the noise of counting."""
    bins = np.arange(2048)
    width = random.uniform(100, 600)
    shape = np.exp(-bins / width) if random.random() < 0.5 else np.exp(-((bins / width) ** 2) / 2)
    counts = random.poisson(shape / shape.sum() * values)
    counts[0] += int(0.3 * values)
    counts[2047] += 1
    maximum = np.float32(random.lognormal())
    return Histogram(counts=counts, range=maximum, first_max=maximum, maximum=maximum)


def grown(random: np.random.Generator, histogram: Histogram) -> Histogram:
    """The same values from a smaller first batch: a range beyond the maximum."""
    first = np.float32(histogram.maximum * random.uniform(0.05, 1))
    times = doublings_needed(first, histogram.maximum)
    moved = double(histogram, 1)
    return replace(moved, range=np.float32(float(first) * 2.0**times), first_max=first, doublings=times)


def made_up(
    random: np.random.Generator, name: str, histogram: Histogram, configurations: Sequence[Configuration]
) -> StudiedTensor:
    """A tensor whose outcomes have the size and the noise of real ones."""
    maximum = float(histogram.maximum)
    reference = scale_from_amax(maximum * 0.9)
    outcomes = []
    for at in configurations:
        other = histogram if at.name == "all" else grown(random, histogram)
        m = int(random.integers(128, 2049))
        change = 0.0 if at.name == "all" else float(random.normal(0, 0.2))
        outcomes.append(outcome_of(other, float(reference) * 127 * (1 + change), m, float(reference)))
    scales = [outcome.scale or 0.0 for outcome in outcomes]
    return StudiedTensor(
        name=name,
        kind="activation",
        inherited_from=None,
        maximum=maximum,
        maximum_sample="sample-0812.png",
        next_maximum=maximum * 0.9,
        values=histogram.total,
        instability=(max(scales) - min(scales)) / float(reference),
        outcomes=outcomes,
        scale_hex=f"{bits_from_scale(reference):x}",
        scale=float(reference),
    )


def report_json(page: Path) -> dict:
    """The numbers beside a page."""
    return json.loads(page.with_suffix(".json").read_text(encoding="utf-8"))


def all_zero() -> Histogram:
    """A tensor that was zero in every sample."""
    counts = np.zeros(2048, np.int64)
    counts[0] = 100
    return Histogram(counts=counts, range=np.float32(0))
