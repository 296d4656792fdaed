"""The way to an engine: spec -> network -> calibration by TensorRT or by trtcalib -> engine, cache and their manifests."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from trtcalib.collect import default_workers
from trtcalib.engine_calibration import BuildOptions, ScaleSource
from trtcalib.engine_facts import Calibrated, engine_manifest, uncovered_findings
from trtcalib.engine_spec import EngineSpec
from trtcalib.errors import ModelError, SpecError
from trtcalib.files import check_writable, write_files
from trtcalib.manifest import DeviceFacts, EngineManifest, Manifest, manifest_path
from trtcalib.onnx_graph import QDQ_OPERATORS, ModelGraph
from trtcalib.onnx_tensors import subgraphs

if TYPE_CHECKING:
    from trtcalib.trt.engine import BuiltEngine, EngineBuilder
    from trtcalib.trt.stopping import BuildProgress

__all__ = ["EngineFiles", "build_engine"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineFiles:
    """An engine that was built, with everything that belongs beside it.

    Attributes:
        path: Where the engine is to stand.
        manifest: What it was made from.
        files: What is to stand on disk: engine, cache, their manifests, the timing cache.
    """

    path: Path
    manifest: EngineManifest
    files: Mapping[Path, bytes]

    def write(self) -> None:
        """Write all files, or none.

        Raises:
            OutputError: If one cannot be written; nothing is left behind.
        """
        write_files(self.files)


def build_engine(  # noqa: PLR0913 - the public call names every choice
    spec: EngineSpec,
    *,
    cache: Path | str | None = None,
    reuse_cache: bool = False,
    skip_bad_images: bool = False,
    wants_crosscheck: bool = True,
    workers: int | None = None,
    progress: BuildProgress | None = None,
) -> EngineFiles:
    """Build an INT8 engine; nothing is written until :meth:`EngineFiles.write`.

    Args:
        spec: Model, data, calibrator, shapes, builder settings.
        cache: The calibration cache; by default beside the engine. One that stands there is used when its manifest says
            that it was made from the same model, data, recipe, shapes and TensorRT.
        reuse_cache: Use that cache whatever its manifest says.
        skip_bad_images: Leave out images that cannot be decoded.
        wants_crosscheck: Compare what TensorRT calibrates with our reference, a run on the CPU.
        workers: Threads that read samples.
        progress: Called with (phase, steps done, steps in all or ``None``).

    Raises:
        TrtcalibError: One of its kinds; see :mod:`trtcalib.errors`.
        KeyboardInterrupt: After Ctrl-C, when TensorRT has returned.
    """
    if spec.output is None:
        raise SpecError("engine spec", ("output: this key is missing",))
    options = BuildOptions(
        reuse_cache=reuse_cache,
        skip_bad_images=skip_bad_images,
        wants_crosscheck=wants_crosscheck,
        workers=workers or default_workers(),
        progress=progress,
    )
    return _Build(spec, Path(cache) if cache is not None else Path(spec.output).with_suffix(".cache"), options).run()


class _Build:
    """One build."""

    def __init__(self, spec: EngineSpec, cache: Path, options: BuildOptions) -> None:
        self._spec = spec
        self._cache = cache
        self._options = options
        self._engine = Path(str(spec.output))
        self._scales = ScaleSource(spec, cache, options)
        if spec.builder.strongly_typed:
            _require_qdq(self._scales.graph)
        timing = spec.builder.timing_cache
        self._timing_cache = None if timing is None else Path(timing)
        for path in (self._engine, cache, manifest_path(self._engine), manifest_path(cache), self._timing_cache):
            if path is not None:
                check_writable(path)

    def run(self) -> EngineFiles:
        """Open the device, calibrate where that is needed, and build."""
        from trtcalib.trt.buffers import open_device
        from trtcalib.trt.engine import EngineBuilder
        from trtcalib.trt.require import import_tensorrt

        import_tensorrt()  # the first thing that people miss is the first that is told
        with contextlib.closing(open_device()) as device:
            builder = EngineBuilder(self._scales.graph, self._spec.shapes, self._spec.builder, self._spec.batch_size)
            calibrator, finish = self._scales.choose(builder, device)
            built = builder.build(calibrator, self._options.progress)
            return self._files(builder, built, finish(), device.facts)

    def _files(
        self, builder: EngineBuilder, built: BuiltEngine, calibrated: Calibrated, device: DeviceFacts
    ) -> EngineFiles:
        """Put together everything that is to stand on disk."""
        files = {self._engine: built.plan}
        if calibrated.cache is not None and calibrated.origin != "tensorrt":
            self._scales.findings += uncovered_findings(built.tensors, calibrated.cache)
        if calibrated.origin != "reused" and calibrated.manifest is not None and calibrated.cache is not None:
            files[self._cache] = calibrated.cache
            files[manifest_path(self._cache)] = _as_json(calibrated.manifest)
        if self._timing_cache is not None and built.timing_cache is not None:
            files[self._timing_cache] = built.timing_cache
        manifest = engine_manifest(
            self._spec,
            self._scales.graph,
            self._scales.recipe,
            builder,
            built,
            calibrated,
            paths=(self._engine, self._cache),
            device=device,
            findings=self._scales.findings,
        )
        files[manifest_path(self._engine)] = _as_json(manifest)
        return EngineFiles(path=self._engine, manifest=manifest, files=files)


def _require_qdq(graph: ModelGraph) -> None:
    """Refuse a model that nobody converted before TensorRT is asked for; the network's own nodes decide later.

    Raises:
        ModelError: If no graph, branch or function of the model holds a Q/DQ node.
    """
    from trtcalib.trt.network import no_qdq

    proto = graph.proto
    bodies = [proto.graph.node, *(inner.node for inner in subgraphs(proto.graph)), *(f.node for f in proto.functions)]
    if not any(node.op_type in QDQ_OPERATORS for body in bodies for node in body):
        raise ModelError(graph.path, no_qdq(graph))


def _as_json(manifest: Manifest | EngineManifest) -> bytes:
    return (manifest.model_dump_json(indent=2) + "\n").encode("utf-8", "backslashreplace")
