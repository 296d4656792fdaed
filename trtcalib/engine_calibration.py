"""Where an engine's scales come from: TensorRT calibrates, trtcalib does, or a cache that stands there is used again."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trtcalib.batches import Batches, Batching, fits_batches, full_batches, plan_batches
from trtcalib.calibration import calibrate
from trtcalib.core.cache import encode_version, parse_cache
from trtcalib.core.sharing import raised_scales
from trtcalib.crosscheck import crosscheck, reference
from trtcalib.engine_facts import Calibrated, CalibrationFacts, answered_manifest, cache_manifest, shared_findings
from trtcalib.engine_spec import EngineSpec
from trtcalib.errors import CacheMismatchError, ModelError, SpecError, TrtcalibError
from trtcalib.files import sha256_of_bytes
from trtcalib.findings import dropped_findings, skipped_findings
from trtcalib.manifest import CrosscheckFacts, Finding, manifest_path, read_manifest
from trtcalib.methods import algorithm_of
from trtcalib.onnx_graph import QDQ_OPERATORS, read_model
from trtcalib.provenance import batching_facts, data_facts, model_facts
from trtcalib.reuse import Reuse, Wanted, find_reusable
from trtcalib.samples.feeds import DataSource, Feed
from trtcalib.samples.sources import open_source
from trtcalib.specs import EntropyRecipe, MinMaxRecipe, Recipe, load_recipe

if TYPE_CHECKING:
    from trtcalib.trt.buffers import Device
    from trtcalib.trt.engine import EngineBuilder
    from trtcalib.trt.stopping import BuildProgress

__all__ = ["BuildOptions", "ScaleSource", "calibrated_by_tensorrt"]

logger = logging.getLogger(__name__)

SCALES_ALGORITHM = "EntropyCalibration2"
"""In the header of a cache with scales that trtcalib chose; also the only algorithm that DLA takes."""

_ENTROPY_ONLY = (
    "calibrator: found {!r}, but DLA takes scales from TensorRT's second entropy calibrator only (IInt8EntropyCalibrator2): take "
    "entropy, or percentile-100 for the largest values, or leave dla out"
)

Choice = tuple[Any, Callable[[], Calibrated]]
"""A calibrator for TensorRT, or ``None``; and what tells after the build where its scales came from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildOptions:
    """What does not decide the engine.

    Attributes:
        reuse_cache: Use the cache that stands there whatever its manifest says.
        skip_bad_images: Leave out images that cannot be decoded.
        wants_crosscheck: Compare what TensorRT calibrates with our reference.
        workers: Threads that read samples.
        progress: Called with (phase, steps done, steps in all or ``None``).
    """

    reuse_cache: bool
    skip_bad_images: bool
    wants_crosscheck: bool
    workers: int
    progress: BuildProgress | None


def calibrated_by_tensorrt(recipe: Recipe) -> bool:
    """Whether TensorRT's own calibrators compute this recipe; trtcalib's collector computes all others."""
    return recipe in (EntropyRecipe(method="entropy"), MinMaxRecipe(method="minmax"))


class ScaleSource:
    """Chooses a calibrator for one build.

    Attributes:
        recipe: How each amax is chosen.
        graph: The model.
        findings: What was odd so far.

    Raises:
        TrtcalibError: For recipes, models and data that cannot be used, before anything of TensorRT's is touched.
    """

    def __init__(self, spec: EngineSpec, cache: Path, options: BuildOptions) -> None:
        self._spec = spec
        self._cache = cache
        self._options = options
        self.recipe = load_recipe(spec.calibrator)
        # TensorRT takes what trtcalib chooses from an entropy calibrator, whatever the recipe.
        self._algorithm = algorithm_of(self.recipe) if calibrated_by_tensorrt(self.recipe) else SCALES_ALGORITHM
        if spec.builder.dla is not None and self._algorithm != SCALES_ALGORITHM:
            raise SpecError("engine spec", (_ENTROPY_ONLY.format(spec.calibrator),))
        self.graph = read_model(spec.model)
        self.findings: list[Finding] = []
        self._source = self._open_source()

    def choose(self, builder: EngineBuilder, device: Device) -> Choice:
        """Return the calibrator, and what tells after the build where its scales came from."""
        if builder.quantized:
            chosen = self._options.reuse_cache or "calibrator" in self._spec.model_fields_set
            if self._spec.data is not None or (chosen and self._spec.builder.strongly_typed):
                self._find(
                    "calibrator-ignored",
                    "the model holds Q/DQ nodes: TensorRT takes their scales and ignores every calibrator; no data were read",
                )
            return None, Calibrated
        header = f"TRT-{encode_version(builder.version)}-{self._algorithm}"
        if self._options.reuse_cache:
            return self._answer(builder, self._insisted(header))
        by_tensorrt = calibrated_by_tensorrt(self.recipe)
        batches = self._plan(builder, drop_last=by_tensorrt)
        wanted = Wanted(
            batches=batches,
            recipe=self.recipe,
            header=header,
            shapes=builder.profile.shapes if by_tensorrt else None,
            tf32=self._tf32,
            skip_bad_images=self._options.skip_bad_images,
            one_scale=None if by_tensorrt else builder.one_scale,
        )
        found = find_reusable(self._cache, self.graph, wanted)
        if found.content is not None:
            return self._answer(builder, found)
        if found.differences:
            self._find("cache-not-reused", f"{self._cache} is written anew: {'; '.join(found.differences)}")
        return self._feed(builder, device, batches) if by_tensorrt else self._collect(builder, batches)

    @property
    def _tf32(self) -> bool:
        """Whether TF32 may be used; TensorRT's own default is on."""
        return self._spec.builder.tf32 is not False

    def _insisted(self, header: str) -> Reuse:
        """Return the cache that stands there, if TensorRT will take it."""
        from trtcalib.trt.feeder import check_cache_header

        try:
            content = self._cache.read_bytes()
        except OSError as error:
            raise CacheMismatchError(self._cache, f"cannot be used again: {error.strerror}") from error
        check_cache_header(content, header, self._cache)
        beside = manifest_path(self._cache)
        try:
            manifest = read_manifest(beside)
        except SpecError:
            return Reuse(content)
        if sha256_of_bytes(content) != manifest.cache_sha256:
            self._find(
                "cache-manifest-not-believed",
                f"{beside} is of another cache, or the cache was changed after it: the engine's manifest does not repeat it",
            )
            return Reuse(content)
        return Reuse(content, (), manifest)

    def _open_source(self) -> DataSource | None:
        """Open the data before any work is done; a model with Q/DQ nodes needs none."""
        held = any(node.op_type in QDQ_OPERATORS for node in self.graph.proto.graph.node)
        if held or self._spec.builder.strongly_typed:
            return None
        if self._spec.data is None:
            raise SpecError(
                "engine spec", ("data: this key is missing, and the model holds no Q/DQ nodes: give --data",)
            )
        return open_source(self._spec.data, self.graph.inputs, skip_bad_images=self._options.skip_bad_images)

    def _plan(self, builder: EngineBuilder, *, drop_last: bool) -> Batches:
        source = self._source
        if source is None:
            raise ModelError(
                self.graph.path, "the model holds Q/DQ nodes that TensorRT's network does not: it cannot be calibrated"
            )
        batching = Batching(
            batch_size=None if source.whole else builder.profile.batch_size,
            max_samples=self._spec.max_samples,
            shuffle=self._spec.shuffle,
            drop_last=drop_last,
        )
        return plan_batches(source, self.graph.fixed_batch, batching)

    def _answer(self, builder: EngineBuilder, found: Reuse) -> Choice:
        """Use a cache again."""
        from trtcalib.trt.calibrators import EntropyCalibrator, MinMaxCalibrator

        logger.info("the calibration cache %s is used again", self._cache)
        # What was odd about the data is still so.
        self.findings += found.manifest.findings if found.manifest is not None else []
        kind = MinMaxCalibrator if self._algorithm == MinMaxCalibrator.algorithm else EntropyCalibrator
        calibrator = kind((), builder.profile, None, answer=found.content)
        return calibrator, lambda: Calibrated(cache=found.content, manifest=found.manifest)

    def _feed(self, builder: EngineBuilder, device: Device, batches: Batches) -> Choice:
        """Let TensorRT calibrate."""
        from trtcalib.trt.calibrators import EntropyCalibrator, MinMaxCalibrator

        kind = MinMaxCalibrator if isinstance(self.recipe, MinMaxRecipe) else EntropyCalibrator
        calibrator = kind(self._feeds(builder, batches), builder.profile, device)

        def finish() -> Calibrated:
            feeder = calibrator.feeder
            content = feeder.written
            assert content is not None  # raise_if_failed has seen to it
            self.findings += dropped_findings(batches)
            self.findings += skipped_findings(batches)
            manifest = cache_manifest(
                CalibrationFacts(
                    model=model_facts(self.graph),
                    data=data_facts(self._spec.data, batches),
                    batching=batching_facts(batches, skip_bad_images=self._options.skip_bad_images),
                    recipe=self.recipe,
                    shapes=builder.profile.shapes,
                    tf32=self._tf32,
                    device=device.facts,
                ),
                self._cache,
                content,
                # What stood there before says nothing of this cache, whose manifest is the same from run to run.
                [finding for finding in self.findings if finding.code != "cache-not-reused"],
            )
            return Calibrated(
                cache=content,
                origin="tensorrt",
                manifest=manifest,
                batches_fed=feeder.batches_fed,
                seconds=feeder.seconds,
                crosscheck=self._crosscheck(content, batches) if self._options.wants_crosscheck else None,
            )

        return calibrator, finish

    def _crosscheck(self, content: bytes, batches: Batches) -> CrosscheckFacts | None:
        """Compare what TensorRT wrote with our reference; an engine that was built is not lost to a fault here."""
        cache = parse_cache(content)

        def tell(done: int, total: int | None) -> None:
            if self._options.progress is not None:
                self._options.progress("cross-checking on the CPU", done, total)

        try:
            ours = reference(
                cache,
                self.graph.path,
                self._spec.data,
                batches.batching,
                skip_bad_images=self._options.skip_bad_images,
                workers=self._options.workers,
                progress=tell,
            )
            result = crosscheck(cache, ours)
        except TrtcalibError as error:
            self._find("crosscheck-skipped", f"TensorRT's cache was not compared with our reference: {error}")
            return None
        if not result.passed:
            self._find(
                "crosscheck-disagrees",
                f"only {result.agreement:.1%} of {len(result.shared)} tensors agree with our reference: run trtcalib crosscheck "
                f"{self._cache} for each; {' '.join(result.notes)}".rstrip("; "),
            )
        return result.facts

    def _feeds(self, builder: EngineBuilder, batches: Batches) -> Iterator[Feed]:
        """Yield the calibration batches, checked sample by sample, and move the progress bar."""
        samples = batches.samples
        total = None if samples is None else samples // batches.batch_size
        check = fits_batches(batches.source.name, builder.profile.shapes)
        for number, feed in enumerate(full_batches(batches, self._options.workers, check), start=1):
            yield feed
            if self._options.progress is not None:
                self._options.progress("calibrating", number, total)

    def _collect(self, builder: EngineBuilder, batches: Batches) -> Choice:
        """Calibrate on the CPU, and let TensorRT take the scales."""
        from trtcalib.trt.calibrators import PercentileCalibrator

        started = time.perf_counter()

        def tell(done: int, total: int | None) -> None:
            if self._options.progress is not None:
                self._options.progress("calibrating on the CPU", done, total)

        result = calibrate(
            self.graph.path,
            self._spec.data,
            self.recipe,
            batch_size=batches.batching.batch_size,
            max_samples=self._spec.max_samples,
            shuffle=self._spec.shuffle,
            skip_bad_images=self._options.skip_bad_images,
            workers=self._options.workers,
            progress=tell,
        )
        seconds = time.perf_counter() - started
        # A partial batch matters where TensorRT takes batches; here it takes scales.
        self.findings += [finding for finding in result.findings if finding.code != "partial-last-batch"]
        scales = result.scales
        raised = raised_scales(scales, builder.one_scale or ())
        shared = list(shared_findings(raised))
        self.findings += shared
        calibrator = PercentileCalibrator({name: scales[raised.get(name, name)] for name in scales}, builder.profile)

        def finish() -> Calibrated:
            content = calibrator.feeder.answered
            assert content is not None  # it was given one
            manifest = answered_manifest(result.manifest(self._cache, builder.version), content, raised, shared)
            return Calibrated(cache=content, origin="trtcalib", manifest=manifest, seconds=seconds)

        return calibrator, finish

    def _find(self, code: str, message: str) -> None:
        self.findings.append(Finding(code=code, message=message))
