"""What TensorRT's questions to a calibrator are answered with; never an exception."""

from __future__ import annotations

import errno
import logging
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.trt.fakes import FakeDevice
from trtcalib.errors import (
    CacheFormatError,
    CacheMismatchError,
    CalibrationError,
    DataError,
    DeviceError,
    MissingPackageError,
    OutputError,
)
from trtcalib.trt.feeder import BatchFeeder, check_cache_header
from trtcalib.trt.input_profile import InputProfile

HEADER = "TRT-101601-EntropyCalibration2"
CACHE = f"{HEADER}\nx: 3c010a14\n".encode()

SHAPE_FAULT = (
    "input 'x' got shape (3, 3); TensorRT calibrates at (2, 3), the profile's kOPT shape, and reads that many values whatever "
    "the batch holds"
)

PROFILE = InputProfile({"x": (2, 3)})


def batch(value: float = 1, **others: object) -> dict[str, object]:
    return {"x": np.full((2, 3), value, np.float32), **others}


def feeder(*batches: object, device: FakeDevice | None = None, **options) -> BatchFeeder:
    return BatchFeeder(batches, PROFILE, device or FakeDevice(), **options)


def drain(fed: BatchFeeder, names: tuple[str, ...] = ("x",)) -> int:
    """Ask for batches until there is none, as TensorRT does."""
    count = 0
    while fed.next_pointers(names) is not None:
        count += 1
    return count


def build(fed: BatchFeeder, cache: object = CACHE) -> None:
    """Ask what TensorRT asks in a build that calibrates, or takes a cache."""
    if fed.read_cache(HEADER) is None:
        drain(fed)
        fed.write_cache(cache)


def failure(fed: BatchFeeder) -> CalibrationError:
    with pytest.raises(CalibrationError) as caught:
        fed.raise_if_failed()
    return caught.value


class TestPointers:
    @given(data=st.data(), count=st.integers(1, 4), batches=st.integers(1, 3))
    def test_each_name_gets_the_address_of_its_own_values(self, data, count: int, batches: int) -> None:
        names = [f"input{i}" for i in range(count)]
        shapes = {n: tuple(data.draw(st.lists(st.integers(0, 3), max_size=3))) for n in names}
        dtypes = {n: np.dtype(data.draw(st.sampled_from(["float32", "int32", "int64", "bool"]))) for n in names}
        values = np.random.default_rng(count)
        given_batches = [
            {n: np.asarray(values.integers(0, 2, shapes[n])).astype(dtypes[n]) for n in reversed(names)}
            for _ in range(batches)
        ]
        device = FakeDevice()
        fed = BatchFeeder(given_batches, InputProfile(shapes, dtypes), device)
        for one in given_batches:
            order = data.draw(st.permutations(names))
            pointers = fed.next_pointers(order)
            assert pointers is not None
            assert len(pointers) == len(set(pointers)) == count
            for name, pointer in zip(order, pointers, strict=True):
                np.testing.assert_array_equal(device.read(pointer, one[name]), one[name])
        assert fed.next_pointers(names) is None
        assert fed.batches_fed == batches
        assert len(device.buffers) == count

    def test_one_buffer_per_input_is_allocated_once_at_its_size(self) -> None:
        device = FakeDevice()
        profile = InputProfile({"x": (2, 3), "ids": (2, 5), "empty": (0, 3)}, {"ids": np.dtype(np.int64)})
        one = batch(ids=np.zeros((2, 5), np.int64), empty=np.zeros((0, 3), np.float32))
        fed = BatchFeeder([one, one], profile, device)
        names = ["ids", "empty", "x"]
        first = fed.next_pointers(names)
        assert fed.next_pointers(names) == first
        assert [buffer.nbytes for buffer in device.buffers] == [80, 1, 24]

    def test_the_answer_is_a_list_of_plain_ints(self) -> None:
        """The bindings take NumPy's integers, tuples and generators for the end of the data, or crash."""
        device = FakeDevice(first=np.int64(1 << 40))
        pointers = feeder(batch(), device=device).next_pointers(("x",))
        assert type(pointers) is list
        assert [type(pointer) for pointer in pointers] == [int]

    def test_the_values_are_there_before_tensorrt_reads(self) -> None:
        device = FakeDevice()
        feeder(batch(), device=device).next_pointers(["x"])
        assert device.pending == []
        assert device.depth == 0

    def test_a_loader_may_use_its_array_again(self) -> None:
        device, array = FakeDevice(), np.zeros((2, 3), np.float32)

        def batches() -> Iterator[dict[str, np.ndarray]]:
            for value in (1, 2):
                array[:] = value
                yield {"x": array}

        fed = BatchFeeder(batches(), PROFILE, device)
        for value in (1, 2):
            (pointer,) = fed.next_pointers(["x"])
            array[:] = -1
            assert (device.read(pointer, array) == value).all()

    def test_values_in_any_memory_order_arrive_in_rows(self) -> None:
        device = FakeDevice()
        turned = np.arange(6, dtype=np.float32).reshape(3, 2).T
        (pointer,) = feeder({"x": turned}, device=device).next_pointers(["x"])
        np.testing.assert_array_equal(device.read(pointer, np.empty((2, 3), np.float32)), turned)

    def test_what_the_network_does_not_ask_for_is_not_uploaded(self) -> None:
        device = FakeDevice()
        assert len(feeder(batch(mask=np.zeros(9)), device=device).next_pointers(["x"])) == 1
        assert len(device.buffers) == 1

    def test_from_a_thread_other_than_the_one_that_made_it(self) -> None:
        fed, found = feeder(batch()), []
        thread = threading.Thread(target=lambda: found.append(fed.next_pointers(["x"])))
        thread.start()
        thread.join()
        assert len(found[0]) == 1


class TestEnd:
    def test_after_the_last_batch_comes_none_for_ever(self) -> None:
        fed = feeder(batch(), batch())
        assert drain(fed) == 2
        assert fed.next_pointers(["x"]) is None
        assert fed.batches_fed == 2

    def test_a_calibration_that_ran_to_its_end_raises_nothing(self) -> None:
        fed = feeder(batch())
        build(fed)
        fed.raise_if_failed()
        assert (fed.written, fed.answered, fed.failed) == (CACHE, None, False)
        assert fed.seconds > 0

    def test_a_batch_that_is_none_is_no_end(self) -> None:
        """A loader that forgets a ``return`` must not give an engine that was calibrated on half of the data."""
        fed = feeder(batch(), None, batch())
        build(fed)
        assert "calibration stopped after 1 batch, nothing was kept: TypeError" in str(failure(fed))


class Refusing:
    """A mapping that a hostile loader might give."""

    def __contains__(self, name: object) -> bool:
        raise RuntimeError("no")


def stopping(error: BaseException) -> Iterator[dict[str, object]]:
    yield batch()
    raise error


class TestFailures:
    @pytest.mark.parametrize(
        ("error", "said"),
        [
            (ValueError("bad file"), "ValueError: bad file"),
            (ValueError(), "ValueError"),
            (DataError("data", "is broken", "a.png"), "data: sample a.png: is broken"),
            (MemoryError(), "MemoryError"),
            (GeneratorExit(), "GeneratorExit"),
        ],
    )
    def test_an_error_of_the_loader_is_kept_and_raised_after_the_build(self, error, said: str) -> None:
        fed = BatchFeeder(stopping(error), PROFILE, FakeDevice())
        assert drain(fed) == 1
        fed.write_cache(CACHE)
        found = failure(fed)
        assert str(found) == f"calibration stopped after 1 batch, nothing was kept: {said}"
        assert found.__cause__ is error
        assert found.batches_fed == 1
        assert fed.failed
        assert fed.written is None

    @pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3)])
    def test_ctrl_c_comes_back_as_itself(self, error: BaseException) -> None:
        fed = BatchFeeder(stopping(error), PROFILE, FakeDevice())
        build(fed)
        assert fed.written is None
        with pytest.raises(type(error)) as caught:
            fed.raise_if_failed()
        assert caught.value is error

    @pytest.mark.parametrize(
        ("bad", "said"),
        [
            ({"y": 1}, "the network has the input 'x'; the batch has 'y' and the profile 'x'"),
            ({}, "the network has the input 'x'; the batch has none and the profile 'x'"),
            (
                {"x": np.zeros((3, 3), np.float32)},
                SHAPE_FAULT,
            ),
            ({"x": np.full((2, 3), np.nan, np.float32)}, "input 'x' holds NaN or infinite values"),
            (Refusing(), "RuntimeError: no"),
        ],
    )
    def test_a_batch_that_does_not_fit(self, bad: object, said: str) -> None:
        fed = feeder(batch(), batch(), bad, batch())
        build(fed)
        assert str(failure(fed)) == f"calibration stopped after 2 batches, nothing was kept: {said}"

    def test_an_input_that_the_profile_lacks(self) -> None:
        fed = feeder(batch(mask=1))
        assert fed.next_pointers(["x", "mask"]) is None
        assert str(failure(fed)).endswith("has the input 'mask'; the batch has 'x', 'mask' and the profile 'x'")

    def test_no_device(self) -> None:
        fed = BatchFeeder([batch()], PROFILE, None)
        assert fed.next_pointers(["x"]) is None
        assert str(failure(fed)).endswith("after 0 batches, nothing was kept: no device was given to put batches on")

    def test_no_device_memory_keeps_its_exit_code(self) -> None:
        device = FakeDevice(memory=23)
        fed = feeder(batch(), device=device)
        assert fed.next_pointers(["x"]) is None
        found = failure(fed)
        assert str(found).endswith("nothing was kept: out of device memory: asked for 24 bytes")
        assert found.exit_code == DeviceError.exit_code == 3
        assert CalibrationError.exit_code == 2
        assert device.depth == 0

    def test_an_address_of_0(self) -> None:
        fed = feeder(batch(), device=FakeDevice(first=0))
        assert fed.next_pointers(["x"]) is None
        assert str(failure(fed)).endswith("nothing was kept: a device buffer has no address ({'x': 0})")
        assert fed.batches_fed == 0

    def test_names_that_cannot_be_read(self) -> None:
        fed = feeder(batch())
        assert fed.next_pointers(None) is None
        assert "TypeError" in str(failure(fed))

    def test_the_first_error_stays_and_nothing_is_read_after_it(self) -> None:
        rest = iter([{}, batch()])
        fed = BatchFeeder(rest, PROFILE, FakeDevice())
        assert drain(fed) == 0
        assert fed.next_pointers(["x"]) is None
        fed.hold(ValueError("later"))
        assert "the network has the input 'x'" in str(failure(fed))
        assert len(list(rest)) == 1

    def test_the_error_is_logged_once_when_it_happens(self, caplog: pytest.LogCaptureFixture) -> None:
        fed = feeder({})
        drain(fed)
        drain(fed)
        (record,) = caplog.records
        assert record.levelno == logging.ERROR
        assert record.getMessage().startswith("calibration stopped after 0 batches: the network has the input 'x'")

    def test_a_log_handler_that_raises_lets_nothing_out(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class Broken(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                raise KeyboardInterrupt

        logger = logging.getLogger("trtcalib.trt.feeder")
        monkeypatch.setattr(logger, "handlers", [Broken()])
        fed = feeder({})
        assert fed.next_pointers(["x"]) is None
        assert "the network has the input 'x'" in str(failure(fed))

    def test_an_error_that_cannot_be_printed_lets_nothing_out(self) -> None:
        class Unprintable(Exception):
            def __str__(self) -> str:
                raise RuntimeError

        fed = BatchFeeder(stopping(Unprintable()), PROFILE, FakeDevice())
        assert drain(fed) == 1
        assert str(failure(fed)).endswith("nothing was kept: Unprintable")


class TestWrittenCache:
    def test_is_a_copy_because_tensorrts_memory_goes(self) -> None:
        memory = bytearray(CACHE)
        fed = feeder(batch())
        build(fed, memoryview(memory))
        memory[:] = b"?" * len(memory)
        assert fed.written == CACHE
        assert type(fed.written) is bytes

    def test_is_written_to_the_path_and_nothing_else_is(self, tmp_path: Path) -> None:
        path = tmp_path / "x.cache"
        fed = feeder(batch(), cache=path)
        build(fed)
        fed.raise_if_failed()
        assert path.read_bytes() == CACHE
        assert list(tmp_path.iterdir()) == [path]

    def test_is_neither_kept_nor_written_after_a_failure(self, tmp_path: Path) -> None:
        fed = feeder(batch(), {}, cache=tmp_path / "x.cache")
        build(fed)
        assert fed.written is None
        assert list(tmp_path.iterdir()) == []

    def test_is_refused_before_the_batches_came_to_their_end(self, tmp_path: Path) -> None:
        """What a failure looks like that no guard could see, such as Ctrl-C before the first line of get_batch."""
        fed = feeder(batch(), batch(), cache=tmp_path / "x.cache")
        fed.next_pointers(["x"])
        fed.write_cache(CACHE)
        assert str(failure(fed)).endswith("TensorRT wrote its cache before the batches had come to their end")
        assert list(tmp_path.iterdir()) == []

    def test_is_refused_when_it_is_empty(self) -> None:
        fed = feeder(batch())
        build(fed, b"")
        assert str(failure(fed)) == (
            "calibration stopped after 1 batch, nothing was kept: TensorRT wrote an empty cache"
        )

    def test_a_full_disk_is_told_after_the_build(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(*_: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        path = tmp_path / "x.cache"
        fed = feeder(batch(), cache=path)
        monkeypatch.setattr("os.fsync", full)
        build(fed)
        found = failure(fed)
        assert str(found).endswith(f"nothing was kept: {path}: cannot be written: No space left on device")
        assert isinstance(found.__cause__, OutputError)
        assert fed.written is None
        assert list(tmp_path.iterdir()) == []

    def test_something_that_is_no_memory(self) -> None:
        fed = feeder(batch())
        build(fed, "text")
        assert "TypeError" in str(failure(fed))

    def test_a_path_that_cannot_be_written_is_refused_before_the_build(self, tmp_path: Path) -> None:
        with pytest.raises(OutputError, match=r"no/x\.cache: the folder .* does not exist: create it first$"):
            feeder(cache=tmp_path / "no" / "x.cache")


class TestAnsweredCache:
    def test_no_cache_no_answer(self, tmp_path: Path) -> None:
        assert feeder().read_cache(HEADER) is None
        assert feeder(cache=tmp_path / "x.cache").read_cache(HEADER) is None

    @pytest.mark.parametrize("stored", [True, False])
    def test_what_stands_in_the_file_or_was_given(self, tmp_path: Path, stored: bool) -> None:
        path = tmp_path / "x.cache"
        if stored:
            path.write_bytes(CACHE)
        fed = BatchFeeder((), PROFILE, None, cache=path, answer=None if stored else CACHE)
        build(fed, b"TensorRT writes what it read")
        fed.write_cache(b"TensorRT writes what it read")
        fed.raise_if_failed()
        assert (fed.answered, fed.written, fed.batches_fed) == (CACHE, None, 0)
        assert path.exists() == stored

    def test_the_given_one_wins_over_the_file(self, tmp_path: Path) -> None:
        path = tmp_path / "x.cache"
        path.write_bytes(b"older")
        assert feeder(cache=path, answer=CACHE).read_cache(HEADER) == CACHE
        assert path.read_bytes() == b"older"

    def test_is_immutable(self) -> None:
        """The bindings keep a pointer into a bytearray after it is gone."""
        given_cache = bytearray(CACHE)
        answered = feeder(answer=given_cache).read_cache(HEADER)
        given_cache[:3] = b"???"
        assert type(answered) is bytes
        assert answered == CACHE

    def test_an_empty_file_means_calibrating(self, tmp_path: Path) -> None:
        (tmp_path / "x.cache").touch()
        fed = feeder(batch(), cache=tmp_path / "x.cache")
        build(fed)
        fed.raise_if_failed()
        assert (tmp_path / "x.cache").read_bytes() == CACHE

    def test_a_file_that_cannot_be_read(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(path: Path) -> bytes:
            raise PermissionError(errno.EACCES, "Permission denied")

        path = tmp_path / "x.cache"
        path.write_bytes(CACHE)
        fed = feeder(batch(), cache=path)
        monkeypatch.setattr(Path, "read_bytes", refuse)
        build(fed)
        assert str(failure(fed)) == (
            "calibration stopped after 0 batches, nothing was kept: PermissionError: [Errno 13] Permission denied"
        )
        monkeypatch.undo()
        assert path.read_bytes() == CACHE

    @pytest.mark.parametrize(
        ("header", "differs"),
        [
            ("TRT-8601-EntropyCalibration2", "for TensorRT 8.6.1, here is 10.16.1"),
            ("TRT-101601-MinMaxCalibration", "by MinMaxCalibration, the calibrator here is EntropyCalibration2"),
            (
                "TRT-100001-MinMaxCalibration",
                "for TensorRT 10.0.1, here is 10.16.1 and by MinMaxCalibration, the calibrator here is EntropyCalibration2",
            ),
        ],
    )
    def test_one_that_tensorrt_would_refuse(self, tmp_path: Path, header: str, differs: str) -> None:
        path = tmp_path / "x.cache"
        path.write_bytes(f"{header}\nx: 3c010a14\n".encode())
        fed = feeder(batch(), cache=path)
        build(fed)
        found = failure(fed)
        assert isinstance(found.__cause__, CacheMismatchError)
        assert str(found.__cause__) == (
            f"{path}: the cache is {differs}: TensorRT would refuse it and calibrate again. The scales themselves hold for any "
            f"version: to use them, change the first line from {header!r} to {HEADER!r}; or remove the file to calibrate"
        )
        assert fed.answered is None
        assert fed.written is None
        assert header in path.read_text(encoding="utf-8")

    def test_the_advice_of_the_mismatch_works(self) -> None:
        old = CACHE.replace(b"101601", b"8601")
        with pytest.raises(CacheMismatchError, match=r"^<calibration cache>: the cache is for TensorRT 8\.6\.1"):
            check_cache_header(old, HEADER)
        check_cache_header(old.replace(b"TRT-8601-EntropyCalibration2", HEADER.encode()), HEADER)

    def test_something_that_is_no_cache(self, tmp_path: Path) -> None:
        path = tmp_path / "x.cache"
        path.write_bytes(b"hello\n")
        fed = feeder(cache=path)
        assert fed.read_cache(HEADER) is None
        cause = failure(fed).__cause__
        assert isinstance(cause, CacheFormatError)
        assert str(cause).startswith(f"{path}:1: ")

    def test_one_that_tensorrt_does_not_take_after_all(self) -> None:
        fed = feeder(batch(), answer=CACHE)
        assert fed.read_cache(HEADER) == CACHE
        assert fed.next_pointers(["x"]) is None
        assert str(failure(fed)) == "TensorRT did not take the calibration cache that it was given: its log says why"
        assert fed.batches_fed == 0

    def test_a_second_build_takes_the_cache_of_the_first(self) -> None:
        fed = feeder(batch())
        build(fed)
        assert fed.read_cache(HEADER) == CACHE
        fed.raise_if_failed()

    def test_a_second_build_after_a_failure_fails_too(self) -> None:
        fed = feeder({})
        build(fed)
        build(fed)
        assert "the network has the input 'x'" in str(failure(fed))


class TestUnfinished:
    def test_tensorrt_never_asked(self) -> None:
        assert str(failure(feeder(batch()))) == (
            "TensorRT asked for no batch: BuilderFlag.INT8 is not set, or the network holds Q/DQ nodes, which make "
            "calibrators void"
        )

    def test_there_was_no_batch(self) -> None:
        fed = feeder()
        assert drain(fed) == 0
        expected = "the data gave no batch: check the path, the number of samples and the batch size"
        assert str(failure(fed)) == expected

    def test_no_cache_was_written(self) -> None:
        fed = feeder(batch(), batch())
        drain(fed)
        found = failure(fed)
        assert str(found) == "TensorRT took 2 batches and wrote no cache: its log says why"
        assert found.batches_fed == 2

    def test_the_exit_code_of_a_missing_package_is_kept(self) -> None:
        fed = feeder()
        fed.hold(MissingPackageError("PIL", "it reads images"))
        assert failure(fed).exit_code == 3


class TestMemory:
    def test_is_freed_once(self) -> None:
        device = FakeDevice()
        fed = feeder(batch(), device=device)
        fed.next_pointers(["x"])
        assert len(device.live) == 1
        fed.free()
        fed.free()
        assert [buffer.freed for buffer in device.buffers] == [1]

    def test_a_context_manager_frees_it_and_raises_what_went_wrong(self) -> None:
        device = FakeDevice()
        with pytest.raises(CalibrationError, match="wrote no cache"), feeder(batch(), device=device) as fed:
            drain(fed)
        assert device.live == []

    def test_a_context_manager_lets_a_build_that_ended_well_pass(self) -> None:
        device = FakeDevice()
        with feeder(batch(), device=device) as fed:
            build(fed)
        assert len(device.buffers) == 1
        assert device.live == []

    def test_the_errors_of_the_block_come_first(self) -> None:
        device = FakeDevice()
        fed = feeder(batch(), {}, device=device)

        def block() -> None:
            with fed:
                drain(fed)
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            block()
        assert fed.failed
        assert [buffer.freed for buffer in device.buffers] == [1]
