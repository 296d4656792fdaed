"""From the replays to the result: every cache written, every tensor told of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from trtcalib.batch_study.configurations import Layout
from trtcalib.batch_study.job import Job
from trtcalib.batch_study.outcomes import json_number, outcomes_of
from trtcalib.batch_study.replaying import Replayed, Replays, by_name, late_tensors
from trtcalib.batch_study.result import Configuration, Cost, Outcome, StudiedTensor, Study
from trtcalib.batch_study.state import Maxima, TensorPlan
from trtcalib.batch_study.summary import find_outliers, instability, moved_share, summarise
from trtcalib.batches import Batches
from trtcalib.calibration import Calibration, solve
from trtcalib.collect import Collector
from trtcalib.core.scale import bits_from_scale, scale_from_amax
from trtcalib.files import sha256_of_bytes, write_files
from trtcalib.findings import data_findings, scale_findings
from trtcalib.histogram_file import format_histograms
from trtcalib.input_checks import input_findings
from trtcalib.manifest import Provenance
from trtcalib.methods import ClipPoint, algorithm_of, describe
from trtcalib.onnx_graph import GraphTensor
from trtcalib.passes import Collection
from trtcalib.provenance import batching_facts, portable_name, relative_to
from trtcalib.sessions import SESSION_OPTIONS

__all__ = ["Telling"]


@dataclass(slots=True, kw_only=True)
class Telling:
    """Writes each layout's cache and gathers what the result says of it.

    Attributes:
        job: What is studied.
        collector: Knows what does not depend on the data.
        maxima: From the first pass.
        replays: Give each layout's histograms.
        provenance: Of the data as a whole, whatever the batches.
        seen: The batches after the passes.
    """

    job: Job
    collector: Collector
    maxima: Maxima
    replays: Replays
    provenance: Provenance
    seen: Batches
    _constants: dict[str, ClipPoint] = field(default_factory=dict)
    _reference: Calibration | None = None
    _outcomes: dict[str, dict[str, Outcome]] = field(default_factory=dict)

    def study(
        self, layouts: Sequence[Layout], notes: Sequence[str], plans: Sequence[TensorPlan], seeds: Sequence[int]
    ) -> Study:
        """Write the caches and histograms, and return the result."""
        configurations = [self._write_cache(layout) for layout in layouts]
        assert self._reference is not None
        job = self.job
        names = self._names
        outliers = find_outliers(names, self.maxima.labels, self.maxima.samples, self.replays.next_maximum)
        facts = relative_to(self.provenance, job.output)
        first_batches = sum(min(layout.batch_size, self.seen.seen) for layout in layouts)
        per_run = job.graph.fixed_batch or 1
        return Study(
            model=facts.model,
            data=facts.data,
            recipe=job.recipe.model_dump(),
            method=describe(job.recipe),
            algorithm=algorithm_of(job.recipe),
            tensorrt_version=job.tensorrt_version,
            bins=job.recipe.bins,
            max_samples=job.max_samples,
            skip_bad_images=job.skip_bad_images,
            seed=min(seeds, default=0),
            orders=len(seeds),
            session_options=SESSION_OPTIONS,
            versions=facts.versions,
            cpu=facts.cpu,
            reference=layouts[0].name,
            configurations=configurations,
            histograms=self._write_histograms(layouts, configurations),
            cost=Cost(
                inferences=2 * len(self.maxima.labels),
                naive_inferences=(len(layouts) * self.seen.seen + first_batches) // per_run,
                tensors=len(names),
                distinct_ranges=sum(len(plan.intervals.ranges) for plan in plans if plan.intervals is not None),
                searches=self.replays.searches,
            ),
            summary=summarise(layouts, self._outcomes, outliers),
            notes=[*notes],
            findings=[*self._reference.findings, *scale_findings(self._reference.scales)],
            tensors=[
                self._tensor(tensor, layouts) for tensor in job.graph.tensors if tensor.name in self._reference.amax
            ],
        )

    @property
    def _names(self) -> list[str]:
        return self.collector.passes.names

    def _calibration(self, layout: Layout, replayed: Replayed) -> Calibration:
        """Return what ``calibrate`` would at this batch size and order."""
        job, names = self.job, self._names
        batches = job.batches(layout)
        batches.seen, batches.left_out = self.seen.seen, self.seen.left_out
        collection = self.collector.collection(
            Collection(
                histograms=dict(by_name(names, replayed.histograms)),
                infinite={name: int(n) for name, n in zip(names, self.maxima.infinite, strict=True) if n},
                late=late_tensors(names, replayed.growth),
            )
        )
        facts = batching_facts(batches, skip_bad_images=job.skip_bad_images)
        inputs = job.source.statistics.inputs()
        collected = Calibration(
            recipe=job.recipe,
            tensors=job.graph.tensors,
            histograms=collection.histograms,
            infinite=collection.infinite,
            provenance=self.provenance.model_copy(update={"batching": facts}),
            findings=(*data_findings(job.graph, batches, collection), *input_findings(inputs, job.graph)),
            inputs=inputs,
        )
        found = {name: clip for name, clip in zip(names, replayed.clips, strict=True) if clip is not None}
        solved = solve(collected, job.recipe, known={**self._constants, **found})
        self._constants = {name: solved.clips[name] for name in self.collector.once}
        return solved

    def _write_cache(self, layout: Layout) -> Configuration:
        replayed = self.replays.replay(layout)
        calibration = self._calibration(layout, replayed)
        if self._reference is None:
            self._reference = calibration
        path = self.job.output / f"{layout.name}.cache"
        files = calibration.files(path, self.job.tensorrt_version)
        write_files(files)
        per_run = self.job.graph.fixed_batch or 1
        # Not its scales: a pool's output carries its input's there, and a view of it shows the pool's own again.
        reference = {name: scale_from_amax(clip.amax) for name, clip in self._reference.clips.items()}
        outcomes = outcomes_of(replayed, self.maxima, self._names, reference, layout.batch_size // per_run)
        self._outcomes[layout.name] = outcomes
        batching = calibration.provenance.batching
        return Configuration(
            name=layout.name,
            batch_size=layout.batch_size,
            shuffle=layout.shuffle,
            batches=batching.batches,
            last_batch_samples=batching.last_batch_samples,
            cache=path.name,
            cache_sha256=sha256_of_bytes(files[path]),
            moved=moved_share(outcomes),
        )

    def _write_histograms(self, layouts: Sequence[Layout], configurations: Sequence[Configuration]) -> dict[str, str]:
        """Save the histograms of the reference and of the configuration that moved most."""
        most = max(range(len(layouts)), key=lambda c: configurations[c].moved)
        files = {}
        for layout in {layouts[0].name: layouts[0], layouts[most].name: layouts[most]}.values():
            calibration = self._calibration(layout, self.replays.replay(layout))
            path = self.job.output / f"{layout.name}.npz"
            write_files({path: format_histograms(calibration, path)})
            files[layout.name] = path.name
        return files

    def _tensor(self, tensor: GraphTensor, layouts: Sequence[Layout]) -> StudiedTensor:
        reference = self._reference
        assert reference is not None
        scale = reference.scales[tensor.name]
        origin = reference.origins[tensor.name]
        outcomes = []
        histogram = reference.histograms[origin]
        names = self._names
        sample, next_maximum = None, None
        if origin in names:
            t = names.index(origin)
            sample = self.maxima.labels[int(self.maxima.samples.largest[t])]
            if len(self.maxima.labels) > 1:
                next_maximum = float(self.replays.next_maximum[t])
        # A view of a pool's output tells of the pool's own histogram, which the pool itself does not use.
        if origin in names and (origin == tensor.name or reference.origins[origin] != origin):
            outcomes = [self._outcomes[layout.name][origin] for layout in layouts]
        return StudiedTensor(
            name=portable_name(tensor.name),
            kind=tensor.kind,
            inherited_from=None if origin == tensor.name else portable_name(origin),
            maximum=json_number(histogram.maximum),
            maximum_sample=sample,
            next_maximum=next_maximum,
            values=histogram.total,
            instability=instability([outcome.scale for outcome in outcomes], json_number(scale)) if outcomes else None,
            outcomes=outcomes,
            scale_hex=f"{bits_from_scale(scale):x}",
            scale=json_number(scale),
        )
