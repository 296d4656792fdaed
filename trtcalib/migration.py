"""The whole way from a calibration cache to TensorRT 11: lint, convert, check, compare, ask NVIDIA's builder, and say what to do next."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import onnx
from pydantic import BaseModel, ConfigDict, Field

from trtcalib.batches import Batching, plan_batches
from trtcalib.errors import EngineError, MissingPackageError, ModelError, OutputError, SpecError
from trtcalib.files import check_writable, make_folder, write_files
from trtcalib.linting import LintResult, lint_cache
from trtcalib.model_comparison import Comparison, compare_models
from trtcalib.next_steps import next_steps
from trtcalib.onnx_graph import ModelGraph, read_model
from trtcalib.passes import Progress
from trtcalib.qdq.prepared import QdqOptions
from trtcalib.qdq_files import QdqReport, quantize, read_inputs, write_quantized
from trtcalib.samples.sources import open_source
from trtcalib.trt.conformance_values import Conformance

__all__ = ["Migration", "MigrationOptions", "Step", "migrate"]

REPORT = "migration.json"
NEXT_STEPS = "NEXT-STEPS.md"

Verdict = Literal["passed", "failed", "skipped"]


class Step(BaseModel):
    """One check."""

    model_config = ConfigDict(frozen=True)

    name: Annotated[Literal["lint", "convert", "checker", "compare", "builder"], Field(description="which check")]
    verdict: Verdict
    detail: Annotated[str, Field(description="one sentence")]


class Migration(BaseModel):
    """What ``trtcalib migrate`` did and found."""

    model_config = ConfigDict(frozen=True)

    schema_version: Literal[1] = 1
    tool: Literal["trtcalib"] = "trtcalib"
    success: Annotated[bool, Field(description="whether no check failed; only then there is a model")]
    model: Annotated[str | None, Field(description="the Q/DQ model's file in the folder")]
    files: Annotated[list[str], Field(description="what was written to the folder, this report included")]
    steps: Annotated[list[Step], Field(description="in their order; what comes after a failure is not there")]
    lint: Annotated[dict[str, Any], Field(description="as trtcalib cache lint --json has it")]
    conversion: Annotated[QdqReport | None, Field(description="as trtcalib qdq --json has it")] = None
    comparison: Annotated[Comparison | None, Field(description="null where no data were given")] = None
    builder: Annotated[
        dict[str, Any] | None, Field(description="as trtcalib check-builder --json has it; null where it was not asked")
    ] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MigrationOptions:
    """How to migrate.

    Attributes:
        conversion: What to quantize.
        names: A YAML file that maps names of the cache to tensors of the model.
        min_coverage: Share of the weighted nodes that must be quantized; ``None``: at least one.
        data: Samples to compare both models on; ``None``: they are not compared.
        max_samples: Compare on the first so many.
        skip_bad_images: Leave out images that cannot be decoded.
        compute_capabilities: What TensorRT-RTX is to build for; none: it is not asked.
        timeout: Seconds for each.
        shapes: For TensorRT-RTX, min, opt and max of inputs with free axes beside the batch.
        workers: Threads.
    """

    conversion: QdqOptions
    names: Path | None = None
    min_coverage: float | None = None
    data: Any = None
    max_samples: int | None = None
    skip_bad_images: bool = False
    compute_capabilities: Sequence[int] = (80, 86, 89, 120)
    timeout: float = 300.0
    shapes: Mapping[str, Mapping[str, Sequence[int]]] = field(default_factory=dict)
    workers: int | None = None


def migrate(
    model: Path, cache: Path, output: Path, options: MigrationOptions, progress: Progress | None = None
) -> Migration:
    """Convert a model and its calibration cache, check the result in every way that needs no GPU, and write it.

    Nothing but the report is written where a check fails.

    Args:
        model: The float ONNX model.
        cache: Its calibration cache.
        output: The folder for the results.
        options: How.
        progress: Called with (samples done, samples in all or ``None``) while the models are compared.

    Raises:
        TrtcalibError: If model, cache or data cannot be read, tensors have no scale, or nothing can be written.
    """
    make_folder(output)
    target = output / f"{model.stem}-qdq.onnx"
    for path in (target, output / REPORT, output / NEXT_STEPS):
        check_writable(path)
        if path.resolve() in {model.resolve(), cache.resolve()}:
            raise OutputError(path, "is an input: choose another folder for the results")
    with tempfile.TemporaryDirectory(dir=output, prefix=".migrating-") as scratch:
        job = _Job(model, cache, Path(scratch) / target.name, options, progress)
        for _ in job.steps():
            pass
        success = all(step.verdict != "failed" for step in job.done)
        moved = _moved(Path(scratch), output) if success else []
    names = [REPORT, NEXT_STEPS, *moved] if success else [REPORT]
    result = Migration(
        success=success,
        model=target.name if success else None,
        files=sorted(names),
        steps=job.done,
        lint=job.lint.as_json("error"),
        conversion=job.report,
        comparison=job.comparison,
        builder=job.builder,
    )
    files = {output / REPORT: f"{result.model_dump_json(indent=2)}\n".encode()}
    if success:
        files[output / NEXT_STEPS] = next_steps(target.name, half=options.conversion.half).encode()
    write_files(files)
    return result


def _moved(scratch: Path, output: Path) -> list[str]:
    """Move finished files to where they belong; on the same file system each takes its place at once."""
    names = sorted(path.name for path in scratch.iterdir())
    for name in names:
        try:
            shutil.move(scratch / name, output / name)
        except OSError as error:
            raise OutputError(output / name, f"cannot be written: {error.strerror or error}") from error
    return names


class _Job:
    """The checks, one after the other; after one that failed no other follows."""

    def __init__(
        self, model: Path, cache: Path, target: Path, options: MigrationOptions, progress: Progress | None
    ) -> None:
        self._model = model
        self._cache = cache
        self._target = target
        self._options = options
        self._progress = progress
        self.done: list[Step] = []
        self.lint: LintResult
        self.report: QdqReport | None = None
        self.comparison: Comparison | None = None
        self.builder: dict[str, Any] | None = None

    def steps(self) -> Iterator[Step]:
        """Do one check after the other."""
        for check in (self._lint, self._convert, self._check, self._compare, self._ask_builder):
            step = check()
            self.done.append(step)
            yield step
            if step.verdict == "failed":
                return

    def _lint(self) -> Step:
        # Names of TensorRT's parser are told apart by the conversion, with --names; here faults of the cache itself count.
        self.lint = lint_cache(self._cache, self._model if self._options.names is None else None)
        errors, warnings = self.lint.count("error"), self.lint.count("warning")
        if errors:
            first = next(finding for finding in self.lint.findings if finding.rule.severity == "error")
            return Step(
                name="lint", verdict="failed", detail=f"{errors} errors, first {first.rule.id}: {first.message}"
            )
        return Step(
            name="lint", verdict="passed", detail=f"no errors, {warnings} warnings in {self.lint.tensors} tensors"
        )

    def _convert(self) -> Step:
        inputs = read_inputs(self._model, self._cache, self._options.names)
        quantized, self.report = quantize(inputs, self._options.conversion, self._options.min_coverage)
        found = self.report.coverage
        detail = f"{found.quantized} of {found.weighted} weighted nodes quantized, and {found.residuals} residuals"
        if found.macs_share is not None:
            detail += f"; {found.macs_share:.1%} of the multiply-accumulates"
        if not self.report.success:
            return Step(name="convert", verdict="failed", detail=f"too little is quantized: {detail}")
        write_quantized(quantized, inputs.model, self._target)
        return Step(name="convert", verdict="passed", detail=detail)

    def _check(self) -> Step:
        try:
            onnx.checker.check_model(str(self._target), full_check=True)
        except Exception as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0][:300]
            return Step(
                name="checker", verdict="failed", detail=f"onnx.checker {onnx.__version__} refuses the result: {reason}"
            )
        return Step(name="checker", verdict="passed", detail=f"onnx.checker {onnx.__version__}, full check")

    def _compare(self) -> Step:
        options = self._options
        if options.data is None:
            return Step(
                name="compare",
                verdict="skipped",
                detail="no --data were given: how close the result is was not measured",
            )
        reference, result = read_model(self._model), read_model(self._target)
        source = open_source(options.data, reference.inputs, skip_bad_images=options.skip_bad_images)
        batching = Batching(batch_size=reference.fixed_batch or 1, max_samples=options.max_samples)
        batches = plan_batches(source, reference.fixed_batch, batching)
        assert self.report is not None
        made = [fact.output for fact in self.report.coverage.nodes if fact.quantized]
        names = [name for name in made if name in _produced(reference) and name in _produced(result)]
        self.comparison = compare_models(
            reference, result, batches, names, workers=options.workers, progress=self._progress
        )
        return Step(name="compare", verdict="passed", detail="; ".join(_compared(self.comparison)))

    def _ask_builder(self) -> Step:
        from trtcalib.trt.conformance import check_model

        options = self._options
        if not options.compute_capabilities:
            return Step(name="builder", verdict="skipped", detail="not asked for")
        try:
            found = check_model(
                self._target,
                compute_capabilities=options.compute_capabilities,
                timeout=options.timeout,
                shapes=options.shapes,
            )
        except MissingPackageError as error:
            return Step(name="builder", verdict="skipped", detail=f"{error}")
        except ModelError as error:
            return Step(name="builder", verdict="failed", detail=f"{error.reason}")
        except (EngineError, SpecError) as error:
            return Step(name="builder", verdict="skipped", detail=f"TensorRT-RTX could not be asked: {error}")
        self.builder = {**found.as_json(), "model": self._target.name}
        who = f"TensorRT-RTX {found.tensorrt_rtx_version}"
        in_float = {node.node or node.layer for node in found.in_float}.union(*(b.told_float for b in found.builds))
        if found.accepted and not in_float - self._may_be_float(found):
            rest = f"; {len(in_float)} in float, {_BY_DESIGN}" if in_float else ""
            detail = (
                f"accepted by {who}, ahead of time; {len(found.nodes) - len(in_float)} weighted nodes in INT8{rest}"
            )
            return Step(name="builder", verdict="passed", detail=detail)
        return Step(name="builder", verdict="failed", detail=f"{who}: {_complaint(found)}")

    def _may_be_float(self, found: Conformance) -> set[str | None]:
        """Return the nodes that the conversion left float, and those that TensorRT-RTX alone runs so."""
        assert self.report is not None
        left = {fact.name for fact in self.report.coverage.nodes if not fact.quantized}
        alone = {node.node for node in found.nodes if node.operator == "ConvTranspose"}
        return left | (alone if self.report.target != "tensorrt-rtx" else set())


def _produced(model: ModelGraph) -> set[str]:
    return {name for node in model.proto.graph.node for name in node.output}


def _compared(comparison: Comparison) -> Iterator[str]:
    """Yield a clause per output."""
    for output in comparison.outputs[:_SHOWN]:
        text = f"{output.name}: " + (
            "identical or not comparable" if output.sqnr_db is None else f"SQNR {output.sqnr_db:.1f} dB"
        )
        if output.top1_agreement is not None:
            text += f", the same largest element in {output.top1_agreement:.1%} of {output.rows} rows"
        yield text
    if len(comparison.outputs) > _SHOWN:
        yield f"{len(comparison.outputs) - _SHOWN} more outputs"


_BY_DESIGN = "as the conversion left them, or because TensorRT-RTX runs no ConvTranspose in INT8"

_SHOWN = 3
"""Outputs that a sentence tells of; the report has all."""


def _complaint(found: Conformance) -> str:
    if found.parser != "accepted":
        return f"its parser: {found.parser}: {'; '.join(found.parser_faults)[:500]}"
    if found.parser_warnings:
        return f"its parser warns: {found.parser_warnings[0][:500]}"
    for build in found.builds:
        if build.outcome != "accepted":
            return f"its builder for SM{build.compute_capability}: {build.outcome}: {build.reason[:500]}"
    node = found.in_float[0] if found.in_float else None
    if node is not None:
        return f"{len(found.in_float)} weighted nodes would run in float, first {node.node or node.layer!r}: {'; '.join(node.reasons)}"
    return "its builder lists weighted nodes in float"
