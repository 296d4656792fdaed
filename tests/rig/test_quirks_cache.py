"""The quirk table of TensorRT's calibrators, caches: what our calibrators answer, and what they keep of what they are handed."""

from __future__ import annotations

import ctypes
import errno
import gc
import os

import numpy as np
import pytest

from tests.rig.driving import (
    FED,
    HostDevice,
    batches_of,
    cache_for,
    calibrate,
    driver_of,
    header_of,
    our_calibrators,
)
from tests.rig.vtable import UNTOUCHED
from trtcalib.errors import CacheFormatError, CacheMismatchError, CalibrationError, OutputError
from trtcalib.trt.input_profile import InputProfile

OTHER_VERSION = "8.2.4"


@pytest.fixture
def calibrators(trt, version):
    return our_calibrators(version)


@pytest.fixture(params=FED)
def kind(request):
    return request.param


@pytest.fixture
def fed(calibrators, kind, version):
    """Make a calibrator over host memory, and what calls it."""

    def make(batches=(), **options):
        calibrator = getattr(calibrators, kind)(batches, InputProfile({"x": (2, 3)}), HostDevice(), **options)
        return calibrator, driver_of(calibrator, version)

    return make


def churn():
    """Let the memory of what is no longer held be used for something else."""
    gc.collect()
    return [bytes([i % 256]) * 64 for i in range(5000)]


# Row: read_calibration_cache returning anything but bytes or None, or raising


def test_row_read_answers_the_cache_that_stands_there_and_takes_no_batch(fed, kind, version, tmp_path, capfd):
    path = tmp_path / "x.cache"
    content = cache_for(version, kind)
    path.write_bytes(content)
    calibrator, driver = fed(batches_of(1), cache=path)
    assert type(calibrator.read_calibration_cache()) is bytes
    assert driver.read() == content
    calibrator.raise_if_failed()
    assert calibrator.feeder.answered == content
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("before", [None, b""], ids=["absent", "empty"])
def test_row_read_answers_none_without_a_cache_and_calibrates(fed, kind, version, tmp_path, before):
    path = tmp_path / "x.cache"
    if before is not None:
        path.write_bytes(before)
    calibrator, driver = fed(batches_of(1, 2), cache=path)
    assert calibrator.read_calibration_cache() is None
    assert driver.read_pointer() == (0, 0)
    assert len(calibrate(driver, cache_for(version, kind))) == 2
    calibrator.raise_if_failed()
    assert path.read_bytes() == cache_for(version, kind)


def test_row_read_of_a_file_that_cannot_be_read_is_held(fed, kind, version, tmp_path, capfd):
    path = tmp_path / "x.cache"
    calibrator, driver = fed(batches_of(1), cache=path)
    path.mkdir()
    assert calibrate(driver, cache_for(version, kind)) == []  # no batch: it would calibrate for nothing
    assert capfd.readouterr() == ("", "")
    with pytest.raises(CalibrationError, match="IsADirectoryError") as e:
        calibrator.raise_if_failed()
    assert isinstance(e.value.__cause__, OSError)


def test_row_read_of_what_is_no_cache_is_held(fed, kind, version, tmp_path, capfd):
    path = tmp_path / "x.cache"
    path.write_bytes(b"something else\n")
    calibrator, driver = fed(batches_of(1), cache=path)
    assert calibrate(driver, cache_for(version, kind)) == []
    assert capfd.readouterr() == ("", "")
    with pytest.raises(CalibrationError) as e:
        calibrator.raise_if_failed()
    assert isinstance(e.value.__cause__, CacheFormatError)
    assert str(path) in str(e.value)
    assert path.read_bytes() == b"something else\n"


# Row: a bytearray or a view that is returned


@pytest.mark.parametrize("source", ["file", "answer", "bytearray"])
def test_row_bytearray_what_is_answered_stays_where_it_is(fed, kind, version, tmp_path, source):
    content = cache_for(version, kind)
    path = tmp_path / "x.cache"
    memory = bytearray(content)
    if source == "file":
        path.write_bytes(content)
        calibrator, driver = fed(cache=path)
    else:
        calibrator, driver = fed(answer=memory if source == "bytearray" else bytes(memory))
    pointer, length = driver.read_pointer()
    assert length == len(content)
    memory[:] = b"#" * len(memory)
    held = churn()
    assert ctypes.string_at(pointer, length) == content
    assert type(calibrator.feeder.answered) is bytes
    assert held


def test_row_bytearray_a_second_read_answers_the_same(fed, kind, version):
    content = cache_for(version, kind)
    _, driver = fed(answer=content)
    pointer, length = driver.read_pointer()
    assert driver.read() == content
    held = churn()
    assert ctypes.string_at(pointer, length) == content
    assert held


# Row: write_calibration_cache receives a view on TensorRT's memory


def test_row_view_on_tensorrts_memory_is_copied_at_once(fed, kind, version, tmp_path):
    path = tmp_path / "x.cache"
    content = cache_for(version, kind, x=0.25, y=3)
    calibrator, driver = fed(batches_of(1), cache=path)
    while driver.batch(["x"])[0]:
        pass
    driver.write_then_overwrite(content)
    assert type(calibrator.feeder.written) is bytes
    assert calibrator.feeder.written == content
    assert path.read_bytes() == content


# Row: an exception in write_calibration_cache is swallowed


def remove_folder(path, monkeypatch):
    path.parent.rmdir()


def make_read_only(path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda where, mode: False)  # root may write everywhere


def fill_disk(path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)


def be_interrupted(path, monkeypatch):
    def interrupted(descriptor):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (remove_folder, "does not exist: create it first"),
        (make_read_only, "cannot be written to"),
        (fill_disk, "No space left on device"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_row_exception_in_write_is_held_and_raised(fed, kind, version, tmp_path, capfd, monkeypatch, *, spoil, text):
    folder = tmp_path / "results"
    folder.mkdir()
    calibrator, driver = fed(batches_of(1), cache=folder / "x.cache")
    spoil(folder / "x.cache", monkeypatch)
    assert len(calibrate(driver, cache_for(version, kind))) == 1
    monkeypatch.undo()
    assert capfd.readouterr() == ("", "")
    assert calibrator.feeder.written is None
    assert not folder.exists() or list(folder.iterdir()) == []
    with pytest.raises(CalibrationError, match=text) as e:
        calibrator.raise_if_failed()
    assert isinstance(e.value.__cause__, OutputError)


def test_row_exception_in_write_ctrl_c_is_raised_as_it_is(fed, kind, version, tmp_path, capfd, monkeypatch):
    calibrator, driver = fed(batches_of(1), cache=tmp_path / "x.cache")
    be_interrupted(tmp_path, monkeypatch)
    calibrate(driver, cache_for(version, kind))
    monkeypatch.undo()
    assert capfd.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(KeyboardInterrupt):
        calibrator.raise_if_failed()


def test_row_exception_in_write_an_empty_cache_is_one(fed):
    calibrator, driver = fed(batches_of(1))
    calibrate(driver, b"")
    assert calibrator.feeder.written is None
    with pytest.raises(CalibrationError, match="empty cache"):
        calibrator.raise_if_failed()


def test_row_exception_in_write_leaves_what_stood_there(fed, kind, version, tmp_path, monkeypatch):
    """An empty file stands there: no cache, and no reason to lose it."""
    path = tmp_path / "x.cache"
    path.write_bytes(b"")
    calibrator, driver = fed(batches_of(1), cache=path)
    fill_disk(path, monkeypatch)
    calibrate(driver, cache_for(version, kind))
    assert [each.name for each in tmp_path.iterdir()] == ["x.cache"]
    assert path.read_bytes() == b""
    assert calibrator.feeder.failed


def test_path_that_cannot_be_written_is_refused_before_the_build(fed, tmp_path):
    with pytest.raises(OutputError, match="does not exist"):
        fed(cache=tmp_path / "absent" / "x.cache")


# Row: the header is that of the installed version and the algorithm; TensorRT calibrates silently otherwise


def other_algorithm(kind):
    return {"EntropyCalibrator": "MinMaxCalibrator", "MinMaxCalibrator": "EntropyCalibrator"}[kind]


def test_row_header_of_another_version_is_told_with_the_line_to_change(fed, kind, version, tmp_path, capfd):
    path = tmp_path / "x.cache"
    stale = cache_for(OTHER_VERSION, kind)
    path.write_bytes(stale)
    calibrator, driver = fed(batches_of(1), cache=path)
    assert calibrate(driver, cache_for(version, kind)) == []
    assert capfd.readouterr() == ("", "")
    with pytest.raises(CalibrationError) as e:
        calibrator.raise_if_failed()
    assert isinstance(e.value.__cause__, CacheMismatchError)
    here = ".".join(version.split(".")[:3])
    assert f"{path}: the cache is for TensorRT {OTHER_VERSION}, here is {here}" in str(e.value)
    assert f"change the first line from {header_of(OTHER_VERSION, kind)!r} to {header_of(version, kind)!r}" in str(
        e.value
    )
    assert path.read_bytes() == stale


def test_row_header_of_another_algorithm_is_told(fed, kind, version):
    calibrator, driver = fed(batches_of(1), answer=cache_for(version, other_algorithm(kind)))
    assert driver.read() is None
    with pytest.raises(CalibrationError) as e:
        calibrator.raise_if_failed()
    ours, other = (header_of(version, each).split("-")[2] for each in (kind, other_algorithm(kind)))
    assert f"the cache is by {other}, the calibrator here is {ours}" in str(e.value)
    assert "for TensorRT" not in str(e.value)


def test_row_header_of_another_version_and_algorithm_tells_both(fed, kind):
    calibrator, driver = fed(answer=cache_for(OTHER_VERSION, other_algorithm(kind)))
    assert driver.read() is None
    with pytest.raises(
        CalibrationError, match=r"is for TensorRT 8\.2\.4, here is .* and by \w+, the calibrator here is"
    ):
        calibrator.raise_if_failed()


def test_row_header_a_cache_with_the_line_changed_as_told_is_answered(fed, kind, version):
    stale = cache_for(OTHER_VERSION, kind, x=0.125)
    changed = stale.replace(header_of(OTHER_VERSION, kind).encode(), header_of(version, kind).encode())
    calibrator, driver = fed(answer=changed)
    assert driver.read() == changed
    calibrator.raise_if_failed()


def test_row_header_a_cache_that_tensorrt_refused_anyway_is_an_error(fed, kind, version, tmp_path):
    path = tmp_path / "x.cache"
    content = cache_for(version, kind)
    path.write_bytes(content)
    calibrator, driver = fed(batches_of(1, 2), cache=path)
    assert driver.read() == content
    assert driver.batch(["x"]) == (False, [UNTOUCHED])
    driver.write(cache_for(version, kind, x=99))
    assert calibrator.feeder.written is None
    assert path.read_bytes() == content
    with pytest.raises(CalibrationError, match="did not take the calibration cache"):
        calibrator.raise_if_failed()


# A calibrator that serves two builds


def test_second_build_with_the_same_calibrator_answers_what_was_written(fed, kind, version):
    content = cache_for(version, kind)
    calibrator, driver = fed(batches_of(1, 2))
    assert len(calibrate(driver, content)) == 2
    calibrator.raise_if_failed()
    assert calibrate(driver, b"") == []
    calibrator.raise_if_failed()
    assert calibrator.feeder.answered == calibrator.feeder.written == content


def test_second_build_that_refuses_the_cache_is_still_an_error(fed, kind, version):
    calibrator, driver = fed(batches_of(1))
    calibrate(driver, cache_for(version, kind))
    assert driver.read() is not None
    driver.batch(["x"])
    with pytest.raises(CalibrationError, match="did not take the calibration cache"):
        calibrator.raise_if_failed()


def test_second_build_after_a_failure_answers_nothing(fed, kind, version):
    calibrator, driver = fed([{"x": np.ones((1, 3), np.float32)}])
    for _ in range(2):
        assert calibrate(driver, cache_for(version, kind)) == []
        with pytest.raises(CalibrationError, match=r"got shape \(1, 3\)"):
            calibrator.raise_if_failed()
