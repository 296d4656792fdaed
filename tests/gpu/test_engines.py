"""The whole way on a real GPU with a real TensorRT: calibrate, build, inspect, run. Nothing here is simulated."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.gpu.conftest import SAMPLE
from trtcalib.core.cache import parse_cache
from trtcalib.engine_build import EngineFiles, build_engine
from trtcalib.engine_run import run_engine
from trtcalib.engine_spec import BuilderSettings, EngineSpec
from trtcalib.errors import CalibrationError, InstalledTensorRTError
from trtcalib.trt.inspection import inspect_engine

MODEL = SAMPLE / "model.onnx"
DATA = SAMPLE.parent / "digits-calibration.yaml"
VALIDATION = SAMPLE.parent / "digits-validation.yaml"


def build(folder: Path, calibrator: str = "entropy", **changes: Any) -> EngineFiles:
    settings = BuilderSettings(tf32=False, **changes.pop("builder", {}))
    spec = EngineSpec(
        model=str(MODEL),
        data=str(DATA),
        calibrator=calibrator,
        batch_size=32,
        builder=settings,
        output=str(folder / "digits.engine"),
    )
    built = build_engine(spec.model_copy(update=changes))
    built.write()
    return built


@pytest.mark.parametrize("calibrator", ["entropy", "minmax", "percentile-99.99"])
def test_an_engine_runs_in_int8_and_keeps_the_accuracy(calibrators: Any, tmp_path: Path, calibrator: str) -> None:
    built = build(tmp_path, calibrator)
    cache = parse_cache((tmp_path / "digits.cache").read_bytes())
    assert len(cache.entries) > 10
    assert built.manifest.batches_fed == (0 if "percentile" in calibrator else 40)
    assert inspect_engine(tmp_path / "digits.engine").counts.get("INT8", 0) > 3
    timing = run_engine(tmp_path / "digits.engine", str(VALIDATION), tmp_path / "out.npz")
    with np.load(tmp_path / "out.npz") as outputs:
        (logits,) = (outputs[name] for name in outputs.files)
    labels = np.load(SAMPLE / "validation-labels.npy")
    assert timing.samples == len(labels) == len(logits)
    assert np.mean(logits.reshape(len(labels), -1).argmax(1) == labels) > 0.97


def test_a_cache_is_used_again_and_gives_the_same_scales(calibrators: Any, tmp_path: Path) -> None:
    build(tmp_path)
    first = (tmp_path / "digits.cache").read_bytes()
    again = build(tmp_path)
    assert again.manifest.cache is not None
    assert again.manifest.cache.origin == "reused"
    assert again.manifest.batches_fed == 0
    assert (tmp_path / "digits.cache").read_bytes() == first


def test_two_calibrations_without_tf32_give_the_same_bytes(calibrators: Any, tmp_path: Path) -> None:
    caches = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        build(tmp_path / name)
        caches.append((tmp_path / name / "digits.cache").read_bytes())
    assert caches[0] == caches[1]


def test_a_build_in_another_thread(calibrators: Any, tmp_path: Path) -> None:
    errors: list[BaseException] = []

    def work() -> None:
        try:
            build(tmp_path)
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert not errors
    assert (tmp_path / "digits.engine").stat().st_size > 0


def test_data_that_fail_halfway_leave_nothing(calibrators: Any, tmp_path: Path) -> None:
    images = np.load(SAMPLE / "calibration-images.npy")[:96].astype(np.float32)
    feeds = [{"image": image[None]} for image in images]
    name = _input_name()

    def source() -> Any:
        for position, feed in enumerate(feeds):
            if position == 70:
                raise OSError("the disk went away")
            yield {name: feed["image"].reshape(_input_shape())}

    from trtcalib.onnx_graph import read_model
    from trtcalib.trt.buffers import open_device
    from trtcalib.trt.calibrators import EntropyCalibrator
    from trtcalib.trt.engine import EngineBuilder

    builder = EngineBuilder(read_model(MODEL), batch_size=1)
    calibrator = EntropyCalibrator(source(), builder.profile, open_device(), cache=tmp_path / "x.cache")
    with pytest.raises(CalibrationError, match="after 70 batches.*the disk went away"):
        builder.build(calibrator)
    assert not list(tmp_path.iterdir())


def test_tensorrt_11_says_where_the_calibrators_went(no_calibrators: Any, tmp_path: Path) -> None:
    with pytest.raises(InstalledTensorRTError, match="Q/DQ"):
        build(tmp_path)


def test_the_manifest_names_this_gpu(calibrators: Any, tmp_path: Path) -> None:
    build(tmp_path)
    manifest = json.loads((tmp_path / "digits.engine.json").read_text(encoding="utf-8"))
    assert manifest["device"]["memory"] > 1 << 30
    assert manifest["tensorrt_version"] == calibrators.__version__


def _input_name() -> str:
    from trtcalib.onnx_graph import read_model

    return read_model(MODEL).inputs[0].name


def _input_shape() -> tuple[int, ...]:
    from trtcalib.onnx_graph import read_model

    shape = read_model(MODEL).inputs[0].shape
    assert shape is not None
    return tuple(size or 1 for size in shape)
