"""``trtcalib build``: model + data + calibrator -> INT8 engine, calibration cache and manifests."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trtcalib.cli import options

if TYPE_CHECKING:
    from trtcalib.engine_spec import EngineSpec
    from trtcalib.manifest import EngineManifest
    from trtcalib.trt.stopping import BuildProgress

EXAMPLE = "Example: trtcalib build model.onnx --data images.npz --calibrator entropy -o model.engine"


def build(
    target: Annotated[
        Path, typer.Argument(metavar="SPEC.yaml|MODEL.onnx", help="An engine spec, or a model.", show_default=False)
    ],
    data: Annotated[
        str | None,
        typer.Option("--data", metavar="SRC", help="Calibration data, as for calibrate.", show_default=False),
    ] = None,
    calibrator: Annotated[
        str | None,
        typer.Option(
            "--calibrator",
            metavar="NAME|RECIPE.yaml",
            help="entropy (default), minmax, mse, percentile-<p>, or a recipe's YAML file.",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="OUT.engine",
            help="The engine to write; cache and manifests go beside it.",
            show_default=False,
        ),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(
            "--batch-size", min=1, help="Samples per calibration batch. Default: the batch of kOPT.", show_default=False
        ),
    ] = None,
    max_samples: options.MaxSamples = None,
    shuffle: options.Shuffle = None,
    shapes: options.Shapes = None,
    qdq: Annotated[
        bool | None,
        typer.Option(
            "--qdq/--no-qdq",
            help="Build a model with Q/DQ nodes strongly typed, on TensorRT 10 and 11: every type is the model's. trtcalib qdq makes "
            "such a model. Not with --fp16, --fallback and --dla; data and calibrator are ignored.",
            show_default=False,
        ),
    ] = None,
    fp16: Annotated[
        bool | None, typer.Option("--fp16/--no-fp16", help="Let layers run in FP16.", show_default=False)
    ] = None,
    tf32: Annotated[
        bool | None,
        typer.Option(
            "--tf32/--no-tf32",
            help="Let FP32 layers use TF32, in the calibration run too. TensorRT's default: yes; --no-tf32 makes caches that "
            "can be reproduced.",
            show_default=False,
        ),
    ] = None,
    workspace: Annotated[
        str | None,
        typer.Option(
            "--workspace", metavar="SIZE", help="Most device memory for scratch, such as 4GiB.", show_default=False
        ),
    ] = None,
    timing_cache: Annotated[
        Path | None,
        typer.Option("--timing-cache", metavar="FILE", help="Read and write kernel timings here.", show_default=False),
    ] = None,
    fallback: Annotated[
        list[str] | None,
        typer.Option(
            "--fallback",
            metavar="fp16|fp32:LAYER,...",
            help="Layers that must not run in INT8; * and ? match. May be repeated.",
            show_default=False,
        ),
    ] = None,
    dla: Annotated[
        int | None,
        typer.Option(
            "--dla",
            metavar="N",
            min=0,
            help="Put layers on DLA core N, as far as it can run them; the others on the GPU. DLA takes one fixed shape per input, and "
            "no minmax.",
            show_default=False,
        ),
    ] = None,
    cache: Annotated[
        Path | None,
        typer.Option(
            "--cache", metavar="FILE", help="The calibration cache. Default: beside the engine.", show_default=False
        ),
    ] = None,
    reuse_cache: Annotated[
        bool, typer.Option("--reuse-cache", help="Use the cache that stands there, whatever its manifest says.")
    ] = False,
    crosscheck: Annotated[
        bool,
        typer.Option(
            "--crosscheck/--no-crosscheck",
            help="Compare TensorRT's cache with our reference: a run of the data on the CPU.",
        ),
    ] = True,
    skip_bad_images: options.SkipBadImages = False,
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers", min=1, max=256, help="Threads that read samples. Default: one per CPU.", show_default=False
        ),
    ] = None,
    json: options.Json = False,
    fail_on: options.FailOn = None,
) -> None:
    """Build an INT8 engine with TensorRT: 8.6 to 10.16 through calibrators, 11 from a model with Q/DQ nodes."""
    from trtcalib.engine_build import build_engine
    from trtcalib.engine_spec import parse_fallback, parse_shapes
    from trtcalib.files import check_writable
    from trtcalib.manifest import manifest_path

    options.check_fail_on(fail_on)
    builder = {
        "strongly_typed": qdq,
        "fp16": fp16,
        "tf32": tf32,
        "workspace": workspace,
        "timing_cache": None if timing_cache is None else str(timing_cache),
        "fallback": parse_fallback(fallback) if fallback else None,
        "dla": dla,
    }
    given = {
        "data": data,
        "calibrator": calibrator,
        "batch_size": batch_size,
        "max_samples": max_samples,
        "shuffle": shuffle,
        "shapes": parse_shapes(shapes) if shapes else None,
        "output": None if output is None else str(output),
    }
    spec = _spec(target, given, builder)
    if spec.output is None:
        raise typer.BadParameter("say where the engine goes: -o OUT.engine", param_hint="--output")
    engine = Path(spec.output)
    with _folder_of(engine) if output is None else contextlib.nullcontext():
        check_writable(engine)  # a folder has no name to put another suffix on
        beside = cache or engine.with_suffix(".cache")
        stored = spec.builder.timing_cache
        options.check_results(
            [engine, manifest_path(engine), beside, manifest_path(beside), None if stored is None else Path(stored)],
            [spec.model, spec.data, spec.calibrator, target],
        )
        with _progress_bars() as progress:
            result = build_engine(
                spec,
                cache=beside,
                reuse_cache=reuse_cache,
                skip_bad_images=skip_bad_images,
                wants_crosscheck=crosscheck,
                workers=workers,
                progress=progress,
            )
        result.write()
    _report(result.manifest, engine, beside, json=json)
    if options.is_fatal(result.manifest.findings, fail_on):
        raise typer.Exit(1)


def _spec(target: Path, given: dict[str, Any], builder: dict[str, Any]) -> EngineSpec:
    """Return the spec in a file, or of a model, with what the options say."""
    from trtcalib.engine_spec import EngineSpec, change_spec, load_engine_spec

    is_spec = target.suffix in (".yaml", ".yml")
    spec = load_engine_spec(target) if is_spec else EngineSpec(model=str(target))
    return change_spec(spec, given, builder)


@contextlib.contextmanager
def _folder_of(engine: Path) -> Iterator[None]:
    """Make the folder that a spec's engine goes to, engines/out/ for instance; an empty one does not outlive a failure."""
    from trtcalib.files import make_folder

    new = not engine.parent.exists()
    if new:
        make_folder(engine.parent)
    try:
        yield
    except BaseException:
        if new:
            with contextlib.suppress(OSError):
                engine.parent.rmdir()
        raise


def _report(manifest: EngineManifest, engine: Path, cache: Path, *, json: bool) -> None:
    if json:
        typer.echo(manifest.model_dump_json(indent=2))
    where = f"TensorRT {manifest.tensorrt_version} on {manifest.device.name}"
    typer.echo(f"{engine}: {manifest.engine_bytes} bytes for {where}, in {manifest.seconds['build']:.1f} s", err=json)
    if manifest.cache is not None:
        origin = {
            "tensorrt": f"written by TensorRT from {manifest.batches_fed} batches",
            "trtcalib": "scales chosen by trtcalib on the CPU",
            "reused": "used again as it stood",
        }[manifest.cache.origin]
        typer.echo(f"{cache}: {manifest.cache.header}, {origin}", err=json)
    if manifest.crosscheck is not None:
        share, tensors = manifest.crosscheck.agreement, manifest.crosscheck.tensors
        typer.echo(f"crosscheck: {share:.1%} of {tensors} tensors agree with our reference", err=json)
    options.print_findings(manifest.findings)


@contextlib.contextmanager
def _progress_bars() -> Iterator[BuildProgress | None]:
    """Give a callback that moves one bar per phase on stderr; ``None`` where stderr is no terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
    from rich.text import Text

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        tasks: dict[str, TaskID] = {}

        def move(phase: str, done: int, total: int | None) -> None:
            if phase not in tasks:
                tasks[phase] = bars.add_task(Text(phase[:60]).plain, total=total)
            # TensorRT tells dozens of phases; the finished ones make room.
            bars.update(tasks[phase], completed=done, total=total, visible=total is None or done < total)

        yield move
