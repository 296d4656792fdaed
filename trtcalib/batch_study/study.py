"""The story of a study: two passes over the data, then every batch size and order from their replay, bit for bit as calibrate."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from trtcalib.batch_study.configurations import ALL, BatchSizes, Layout, default_sizes, plan_layouts
from trtcalib.batch_study.counting import count_ranges, find_maxima
from trtcalib.batch_study.job import Job
from trtcalib.batch_study.replaying import Replays, plan_ranges
from trtcalib.batch_study.result import Study
from trtcalib.batch_study.state import COUNTS, MAXIMA, State
from trtcalib.batch_study.telling import Telling
from trtcalib.batches import Batching, plan_batches
from trtcalib.calibration import DEFAULT_TENSORRT
from trtcalib.collect import Collector, default_workers
from trtcalib.core.cache import encode_version
from trtcalib.errors import DataError, OutputError, SpecError
from trtcalib.files import check_writable, folder_for_results, write_files
from trtcalib.input_checks import WatchedSource
from trtcalib.onnx_graph import ModelGraph, read_model
from trtcalib.passes import Progress
from trtcalib.provenance import provenance_of
from trtcalib.samples.feeds import DataSource
from trtcalib.samples.sources import open_source
from trtcalib.specs import Recipe, load_recipe

__all__ = ["RESULT", "study"]

RESULT = "study.json"


def study(  # noqa: PLR0913 - the public call names every choice that changes the result
    model: Path | str,
    data: Any,
    output: Path | str,
    *,
    batch_sizes: BatchSizes | None = None,
    orders: int = 0,
    seed: int = 0,
    calibrator: str | Path | Recipe = "entropy",
    max_samples: int | None = None,
    skip_bad_images: bool = False,
    tensorrt_version: str = DEFAULT_TENSORRT,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Study:
    """Tell what batch size and order do to the scales: the cache of each, and why each scale moved.

    Every cache and its manifest are those that :func:`trtcalib.calibrate` gives at that batch size and order, bit for bit; but the
    model runs twice over the samples in all, and not once per configuration.

    Args:
        model: The ONNX file.
        data: As for :func:`trtcalib.calibrate`.
        output: Folder for study.json, the caches, the histograms of the reference and of the configuration that moved most, and the
            maxima of the samples, from which an interrupted or extended study goes on.
        batch_sizes: Positive numbers, and ``all``, which is added where it is missing: it is the reference. By default 1, 2, 4 ...
            64 times the model's fixed batch, if it has one, and ``all``.
        orders: Shuffled orders per batch size, beside the source's own.
        seed: Order i is that of ``calibrate(shuffle=seed + i)``.
        calibrator: As for :func:`trtcalib.calibrate`; its range policy must be ``doubling``.
        max_samples: Use only the first so many samples.
        skip_bad_images: Leave out images that cannot be decoded.
        tensorrt_version: The TensorRT that is to read the caches.
        workers: Threads; by default one per CPU. The result does not depend on it.
        progress: Called with (samples done, samples in all or ``None``), both passes together.

    Raises:
        DataError: If the model or the data have no batch axis, or a batch size cannot be made.
        SpecError: If the recipe's ranges do not follow the batches.
        TrtcalibError: As :func:`trtcalib.calibrate`.
    """
    recipe = load_recipe(calibrator)
    if recipe.range != "doubling":
        fault = f"range: found {recipe.range!r}, whose ranges do not depend on batch size and order; a study needs 'doubling', TensorRT's"
        raise SpecError("recipe", (fault,))
    encode_version(tensorrt_version)
    graph = read_model(model)
    source = WatchedSource(open_source(data, graph.inputs, skip_bad_images=skip_bad_images))
    sizes = default_sizes(graph.fixed_batch or 1) if batch_sizes is None else list(batch_sizes)
    _check(graph, source, sizes, orders, seed)
    output = Path(output)
    seeds = range(seed, seed + orders)
    job = Job(
        graph,
        data,
        source,
        output,
        recipe,
        max_samples,
        skip_bad_images,
        tensorrt_version,
        workers or default_workers(),
    )
    with folder_for_results(output):
        _check_results(
            output, sizes, seeds, [given for given in (model, data, calibrator) if isinstance(given, str | Path)]
        )
        return _run(job, sizes, seeds, progress)


def _check(graph: ModelGraph, source: DataSource, sizes: BatchSizes, orders: int, seed: int) -> None:
    """Refuse what cannot be studied before any work is done."""
    if source.whole and graph.fixed_batch is None:
        raise DataError(
            source.name,
            "each sample is a whole feed of the model, whose first axis is no batch: there are no batch sizes to study",
        )
    if not sizes:
        raise DataError(source.name, "no batch size was named: expected positive numbers or 'all'")
    for size in sizes:
        if size != ALL:
            if type(size) is not int:  # a text, 8.0 or True
                raise DataError(source.name, f"found batch size {size!r}, expected a positive whole number or 'all'")
            plan_batches(source, graph.fixed_batch, Batching(batch_size=size))  # says what is wrong with one
    if orders < 0 or seed < 0:
        raise DataError(source.name, f"orders and seed must not be negative, got {orders} and {seed}")
    if orders and (graph.fixed_batch or 1) > 1:
        raise DataError(
            source.name,
            f"the model runs {graph.fixed_batch} samples at a time, so that another order gives other runs and not other batches of the "
            "same ones: leave out the orders, or free the model's batch axis",
        )


def _check_results(output: Path, sizes: BatchSizes, seeds: Sequence[int], inputs: Sequence[Path | str]) -> None:
    """Refuse results that cannot be written, or would take the place of an input, before any work is done."""
    layouts, _ = plan_layouts(sizes, sys.maxsize, seeds)
    names = [f"{layout.name}{suffix}" for layout in layouts for suffix in (".cache", ".cache.json", ".npz")]
    taken = {Path(given).resolve() for given in inputs}
    for path in (output / name for name in (RESULT, MAXIMA, COUNTS, *names)):
        check_writable(path)
        if path.resolve() in taken:
            raise OutputError(path, "is an input of this study: choose another folder for the results")


def _run(job: Job, sizes: BatchSizes, seeds: Sequence[int], progress: Progress | None) -> Study:
    """Do everything."""
    per_run = job.graph.fixed_batch or 1
    batches = job.batches(Layout("", per_run))
    facts = provenance_of(job.graph, job.data, batches, job.recipe, skip_bad_images=job.skip_bad_images)
    # Everything that decides the maxima, so that those of something else are not gone on from; which samples are used included.
    state = State(job.output, None if job.source.size() is None else facts.model_dump())
    collector = Collector(job.graph, batches, bins=job.recipe.bins, workers=job.workers)
    maxima = find_maxima(collector.passes, batches, state, progress)
    layouts, notes = plan_layouts(sizes, batches.seen, seeds)
    plans = plan_ranges(maxima, layouts, job.recipe.bins, per_run)
    tally = count_ranges(collector.passes, batches, maxima, plans, state, progress)
    # A study that goes on from saved numbers did not read every sample.
    job.source.read_missing(batches.seen // per_run if job.source.whole else batches.seen)
    # A function's digest is known only now.
    data = facts.data.model_copy(update={"samples": batches.seen, "sha256": job.digest(facts.data.sha256)})
    with ThreadPoolExecutor(job.workers, thread_name_prefix="trtcalib") as pool:
        telling = Telling(
            job=job,
            collector=collector,
            maxima=maxima,
            replays=Replays(maxima, tally, job.recipe, per_run, pool),
            provenance=facts.model_copy(update={"data": data}),
            seen=batches,
        )
        result = telling.study(layouts, notes, plans, seeds)
    write_files({job.output / RESULT: f"{result.model_dump_json()}\n".encode()})
    state.finish()
    return result
