"""``trtcalib calibrate``: model + data -> calibration cache and manifest."""

from __future__ import annotations

from dataclasses import asdict
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypedDict

import typer

from trtcalib.cli import options

if TYPE_CHECKING:
    from trtcalib.batches import Batching
    from trtcalib.calibration import Calibration
    from trtcalib.passes import Progress

EXAMPLE = "Example: trtcalib calibrate model.onnx --data images.npz --calibrator percentile-99.99 -o model.cache"


class Place(str, Enum):
    """Where the model runs."""

    CPU = "cpu"
    TENSORRT = "tensorrt"


def calibrate(
    model: options.Model,
    data: options.Data,
    output: options.OutputCache,
    calibrator: options.Calibrator = "entropy",
    batch_size: options.BatchSize = None,
    max_samples: options.MaxSamples = None,
    shuffle: options.Shuffle = None,
    drop_last: options.DropLast = False,
    skip_bad_images: options.SkipBadImages = False,
    tensorrt_version: options.TensorRTVersion = "10.16.1",
    workers: options.Workers = None,
    on: Annotated[
        Place,
        typer.Option(
            "--on",
            help="Where the model runs: cpu (ONNX Runtime), or tensorrt: an FP32 engine on the GPU, whose tensors keep TensorRT's "
            "own names.",
        ),
    ] = Place.CPU,
    shapes: options.Shapes = None,
    tf32: Annotated[
        bool, typer.Option("--tf32", help="With --on tensorrt: let it use TF32; other GPUs then give other scales.")
    ] = False,
    histograms: Annotated[
        Path | None, typer.Option("--histograms", metavar="H.npz", help="Save the histograms too.", show_default=False)
    ] = None,
    json: options.Json = False,
    fail_on: options.FailOn = None,
) -> None:
    """Calibrate a model on the CPU, or on what TensorRT computes: the scales that TensorRT itself would have written."""
    from trtcalib.batches import Batching
    from trtcalib.core.cache import encode_version
    from trtcalib.files import write_files
    from trtcalib.histogram_file import format_histograms
    from trtcalib.manifest import manifest_path

    options.check_fail_on(fail_on)
    encode_version(tensorrt_version)
    if on is Place.CPU and (shapes or tf32):
        raise typer.BadParameter("is for --on tensorrt only", param_hint="--shapes" if shapes else "--tf32")
    options.check_results([output, manifest_path(output), histograms], [model, data, calibrator])
    with options.progress_bar() as progress:
        common: _Common = {"skip_bad_images": skip_bad_images, "workers": workers, "progress": progress}
        batching = Batching(batch_size=batch_size, max_samples=max_samples, shuffle=shuffle, drop_last=drop_last)
        if on is Place.TENSORRT:
            result = _on_tensorrt(model, data, calibrator, batching, shapes, tf32, common)
        else:
            result = _on_cpu(model, data, calibrator, batching, common)
    files = result.files(output, tensorrt_version)
    if histograms is not None:
        files[histograms] = format_histograms(result, histograms)
    write_files(files)
    report(result, output, tensorrt_version, json=json, fail_on=fail_on)


class _Common(TypedDict):
    skip_bad_images: bool
    workers: int | None
    progress: Progress | None


def _on_cpu(model: Path, data: str, calibrator: str, batching: Batching, common: _Common) -> Calibration:
    from trtcalib import calibration

    return calibration.calibrate(model, data, calibrator, **asdict(batching), **common)


def _on_tensorrt(
    model: Path,
    data: str,
    calibrator: str,
    batching: Batching,
    shapes: list[str] | None,
    tf32: bool,
    common: _Common,
) -> Calibration:
    from trtcalib.device_calibration import DeviceOptions, calibrate_on_device
    from trtcalib.engine_spec import EngineSpec, change_spec, parse_shapes

    given = {"shapes": parse_shapes(shapes) if shapes else None}
    spec = change_spec(EngineSpec(model=str(model)), given, {})
    options_ = DeviceOptions(shapes=spec.shapes, tf32=tf32)
    return calibrate_on_device(model, data, calibrator, batching, options_, **common)


def report(result: Calibration, output: Path, tensorrt_version: str, *, json: bool, fail_on: list[str] | None) -> None:
    """Say what was written, and exit 1 where a finding asks for it."""
    manifest = result.manifest(output, tensorrt_version)
    if json:
        typer.echo(manifest.model_dump_json(indent=2))
    batching = manifest.provenance.batching
    samples = manifest.provenance.data.samples
    typer.echo(
        f"{output}: {len(manifest.tensors)} scales by {manifest.algorithm} for TensorRT {tensorrt_version}, from {samples} "
        f"sample{'s' * (samples != 1)} in {batching.batches} batch{'es' * (batching.batches != 1)} of {batching.batch_size}",
        err=json,
    )
    options.print_findings(manifest.findings)
    if options.is_fatal(manifest.findings, fail_on):
        raise typer.Exit(1)
