"""``trtcalib calibrate``: model + data -> calibration cache and manifest."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trtcalib.cli import options

if TYPE_CHECKING:
    from trtcalib.calibration import Calibration

EXAMPLE = "Example: trtcalib calibrate model.onnx --data images.npz --calibrator percentile-99.99 -o model.cache"


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
    histograms: Annotated[
        Path | None, typer.Option("--histograms", metavar="H.npz", help="Save the histograms too.", show_default=False)
    ] = None,
    json: options.Json = False,
    fail_on: options.FailOn = None,
) -> None:
    """Calibrate a model on the CPU: the scales that TensorRT itself would have written."""
    from trtcalib import calibration
    from trtcalib.core.cache import encode_version
    from trtcalib.files import write_files
    from trtcalib.histogram_file import format_histograms
    from trtcalib.manifest import manifest_path

    options.check_fail_on(fail_on)
    encode_version(tensorrt_version)
    options.check_results([output, manifest_path(output), histograms], [model, data, calibrator])
    with options.progress_bar() as progress:
        result = calibration.calibrate(
            model,
            data,
            calibrator,
            batch_size=batch_size,
            max_samples=max_samples,
            shuffle=shuffle,
            drop_last=drop_last,
            skip_bad_images=skip_bad_images,
            workers=workers,
            progress=progress,
        )
    files = result.files(output, tensorrt_version)
    if histograms is not None:
        files[histograms] = format_histograms(result, histograms)
    write_files(files)
    report(result, output, tensorrt_version, json=json, fail_on=fail_on)


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
