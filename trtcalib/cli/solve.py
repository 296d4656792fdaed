"""``trtcalib solve``: saved histograms + another recipe -> another cache, without running the model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from trtcalib.cli import options
from trtcalib.cli.calibrate import report

EXAMPLE = "Example: trtcalib solve model.npz --calibrator minmax -o model-minmax.cache"


def solve(
    histograms: Annotated[
        Path, typer.Argument(metavar="H.npz", help="What calibrate --histograms saved.", show_default=False)
    ],
    output: options.OutputCache,
    calibrator: options.Calibrator = "entropy",
    tensorrt_version: options.TensorRTVersion = "10.16.1",
    json: options.Json = False,
    fail_on: options.FailOn = None,
) -> None:
    """Make another cache from saved histograms; the model is not run."""
    from trtcalib import calibration
    from trtcalib.core.cache import encode_version
    from trtcalib.histogram_file import load_histograms
    from trtcalib.manifest import manifest_path

    options.check_fail_on(fail_on)
    encode_version(tensorrt_version)
    options.check_results([output, manifest_path(output)], [histograms, calibrator])
    result = calibration.solve(load_histograms(histograms), calibrator)
    result.write_cache(output, tensorrt_version)
    report(result, output, tensorrt_version, json=json, fail_on=fail_on)
