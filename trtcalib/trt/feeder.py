"""What TensorRT asks of a calibrator, answered without an exception ever leaving: C++ would take it for the end of the data.

Each quirk that is guarded here was seen on the real bindings of 8.6.1, 10.0.1, 10.9 and 10.16; tests/rig calls every one.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from trtcalib.core.cache import parse_cache, version_text
from trtcalib.errors import CacheFormatError, CacheMismatchError, CalibrationError, TrtcalibError
from trtcalib.files import check_writable, write_files
from trtcalib.trt.buffers import Device, DeviceBuffer
from trtcalib.trt.input_profile import InputProfile

__all__ = ["Batch", "BatchFeeder", "check_cache_header"]

logger = logging.getLogger(__name__)

Batch = Mapping[str, NDArray[Any]]

_END: Any = object()
"""Not ``None``: a generator that yields ``None`` by mistake has not come to its end."""


class BatchFeeder:
    """Feeds batches to TensorRT, keeps its cache, and remembers why something stopped.

    After the build call :meth:`raise_if_failed`, then :meth:`free`; or use the feeder, or its calibrator, as a context manager.

    Args:
        batches: Batches ``{input: array}``, each of exactly the profile's shapes. They are read once.
        profile: Shapes and dtypes of the inputs at calibration.
        device: Gives the device buffers; one per input is allocated, at the first batch, and kept. ``None`` where a cache is
            answered.
        cache: A file. A cache that stands there is answered, if it is for this TensorRT and this calibrator, and then no batch is
            fed; otherwise TensorRT's cache is written there, when the calibration has run to its end.
        answer: The cache to answer, instead of what stands in a file.

    Attributes:
        batches_fed: How many batches TensorRT has taken.
        written: The cache that TensorRT wrote; ``None`` before, and after a failure.
        answered: The cache that was answered; ``None`` where TensorRT had to calibrate.
        seconds: From the first batch that TensorRT asked for to the cache that it wrote.
    """

    def __init__(
        self,
        batches: Iterable[Batch],
        profile: InputProfile,
        device: Device | None,
        *,
        cache: Path | str | None = None,
        answer: bytes | None = None,
    ) -> None:
        self.profile = profile
        self.batches_fed = 0
        self.written: bytes | None = None
        self.answered: bytes | None = None
        self.seconds = 0.0
        self._batches: Iterator[Batch] = iter(batches)
        self._device = device
        self._path = None if cache is None else Path(cache)
        self._answer = answer
        self._buffers: dict[str, DeviceBuffer] = {}
        self._error: BaseException | None = None
        self._asked = False
        self._ended = False
        self._started: float | None = None
        if self._path is not None:
            check_writable(self._path)

    @property
    def failed(self) -> bool:
        """Whether something went wrong that :meth:`raise_if_failed` will raise; a progress monitor can stop the build."""
        return self._error is not None

    def hold(self, error: BaseException) -> None:
        """Keep an error that must not cross C++; the first one stays."""
        if self._error is None:
            self._error = error
            with contextlib.suppress(BaseException):  # a log handler may raise too
                logger.error("calibration stopped after %d batches: %s", self.batches_fed, _said(error))

    def next_pointers(self, names: Sequence[str]) -> list[int] | None:
        """Upload the next batch and return one device address per name, in the order of the names.

        Returns ``None`` when there is no batch left, and after a failure. Never raises.
        """
        if self._error is not None:
            return None
        try:
            return self._feed(list(names))
        except BaseException as error:  # Ctrl-C too: TensorRT would end the calibration and write its cache
            self.hold(error)
            return None

    def read_cache(self, header: str) -> bytes | None:
        """Return the cache to answer, or ``None``: TensorRT calibrates. Never raises.

        Args:
            header: The only first line that TensorRT accepts here, ``TRT-<version>-<algorithm>``.
        """
        try:
            content = self._stored()
            if not content:
                return None
            check_cache_header(content, header, self._path if self._answer is None else None)
        except BaseException as error:
            self.hold(error)
            return None
        self.answered = bytes(content)
        self._asked = False  # in a second build with this calibrator: whether TensorRT asks although it was answered
        return self.answered

    def write_cache(self, cache: Any) -> None:
        """Keep a copy of what TensorRT wrote; on disk too where a path was given. Never raises."""
        try:
            # TensorRT's memory is gone after this call, so the copy comes first.
            content = bytes(cache)
            if self._error is not None or self.answered is not None:
                return  # the scales of a calibration that ended early are wrong
            if self._started is not None:
                self.seconds = time.perf_counter() - self._started
            if not self._ended:
                # Something in get_batch failed where no guard could see it: before its first line, or behind its last.
                raise CalibrationError("TensorRT wrote its cache before the batches had come to their end")
            if not content:
                raise CalibrationError("TensorRT wrote an empty cache", self.batches_fed)
            if self._path is not None:
                write_files({self._path: content})
            self.written = content
        except BaseException as error:
            self.hold(error)

    def raise_if_failed(self) -> None:
        """Raise what went wrong in the callbacks, or that the calibration never ran to its end.

        Raises:
            CalibrationError: With what stopped it as its cause.
            KeyboardInterrupt: If Ctrl-C did.
        """
        if isinstance(self._error, KeyboardInterrupt | SystemExit):
            raise self._error
        if self._error is not None:
            fed = f" after {self.batches_fed} batch{'es' * (self.batches_fed != 1)}"
            failure = CalibrationError(
                f"calibration stopped{fed}, nothing was kept: {_said(self._error)}", self.batches_fed
            )
            failure.exit_code = getattr(self._error, "exit_code", failure.exit_code)
            raise failure from self._error
        if self.answered is not None:
            if self._asked:
                raise CalibrationError(
                    "TensorRT did not take the calibration cache that it was given: its log says why"
                )
            return
        if not self._asked:
            raise CalibrationError(
                "TensorRT asked for no batch: BuilderFlag.INT8 is not set, or the network holds Q/DQ nodes, which make "
                "calibrators void"
            )
        if self.batches_fed == 0:
            raise CalibrationError("the data gave no batch: check the path, the number of samples and the batch size")
        if self.written is None:
            raise CalibrationError(
                f"TensorRT took {self.batches_fed} batches and wrote no cache: its log says why", self.batches_fed
            )

    def free(self) -> None:
        """Free the device memory; the config keeps a calibrator alive, so this does not wait for its end."""
        buffers, self._buffers = self._buffers, {}
        for buffer in buffers.values():
            buffer.free()

    def __enter__(self) -> BatchFeeder:  # noqa: PYI034 - Self is Python 3.11's
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self.free()
        if error is None:
            self.raise_if_failed()

    def _feed(self, names: list[str]) -> list[int] | None:
        self._asked = True
        if self._started is None:
            self._started = time.perf_counter()
        if self.answered is not None:
            return None
        batch = next(self._batches, _END)
        if batch is _END:
            self._ended = True
            return None
        missing = [name for name in names if name not in batch or name not in self.profile.shapes]
        if missing:
            raise CalibrationError(
                f"the network has the input {missing[0]!r}; the batch has {', '.join(map(repr, batch)) or 'none'} and the "
                f"profile {', '.join(map(repr, self.profile.shapes)) or 'none'}"
            )
        if self._device is None:
            raise CalibrationError("no device was given to put batches on")
        arrays = {name: self.profile.prepare(name, batch[name]) for name in names}
        with self._device.current():
            try:
                for name, array in arrays.items():
                    if name not in self._buffers:
                        self._buffers[name] = self._device.allocate(max(self.profile.nbytes(name), 1))
                    self._buffers[name].upload(array)
            finally:
                # TensorRT reads on a stream of its own as soon as this returns; after a failure, what is copied is freed.
                self._device.synchronize()
        pointers = [int(self._buffers[name].pointer) for name in names]
        if not all(pointers):
            raise CalibrationError(f"a device buffer has no address ({dict(zip(names, pointers, strict=True))})")
        self.batches_fed += 1
        return pointers

    def _stored(self) -> bytes | None:
        if self._answer is not None:
            return self._answer
        if self.written is not None:
            return self.written  # a second build with the same calibrator
        if self._path is not None and self._path.exists():
            return self._path.read_bytes()
        return None


def check_cache_header(content: bytes, header: str, path: Path | None = None) -> None:
    """Check that TensorRT will take a cache, and not calibrate again without a word.

    Raises:
        CacheFormatError: If it is no calibration cache.
        CacheMismatchError: If it is for another TensorRT or another algorithm.
    """
    try:
        cache = parse_cache(content)
    except CacheFormatError as error:
        raise CacheFormatError(path, error.line, error.reason) from error
    if cache.header == header:
        return
    _, number, algorithm = header.split("-", 2)
    differences = []
    if str(cache.version) != number:
        differences.append(f"for TensorRT {version_text(cache.version)}, here is {version_text(int(number))}")
    if cache.algorithm != algorithm:
        differences.append(f"by {cache.algorithm}, the calibrator here is {algorithm}")
    raise CacheMismatchError(
        path,
        f"the cache is {' and '.join(differences)}: TensorRT would refuse it and calibrate again. The scales themselves hold for "
        f"any version: to use them, change the first line from {cache.header!r} to {header!r}; or remove the file to calibrate",
    )


def _said(error: BaseException) -> str:
    try:
        text = str(error)
    except Exception:  # somebody else's __str__
        text = ""
    return text if isinstance(error, TrtcalibError) else f"{type(error).__name__}: {text}".rstrip(": ")
