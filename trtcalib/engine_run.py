"""Run an engine on data: outputs to a ``.npz``, latency and throughput."""

from __future__ import annotations

import contextlib
import io
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from trtcalib.batches import Batches, Batching, Run, plan_batches
from trtcalib.errors import DataError
from trtcalib.files import new_file
from trtcalib.samples.feeds import Feed
from trtcalib.samples.sources import open_source

__all__ = ["Timing", "run_engine"]

WARM_UP = 3
"""Runs of the first batch before anything is timed: the first ones load kernels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """How long an engine took; wall time of a batch, copies to and from the device included.

    Attributes:
        samples: How many samples were run.
        batches: In how many batches.
        batch_size: Samples per batch; the last one may have fewer, and then is in none of the latencies.
        p50_ms: Median latency of a batch, in milliseconds.
        p90_ms: 90th percentile.
        p99_ms: 99th percentile.
        samples_per_second: Samples over the sum of the latencies: reading the data is not counted.
        left_out: Samples at the end that fill no batch of an engine with a fixed one.
    """

    samples: int
    batches: int
    batch_size: int
    p50_ms: float
    p90_ms: float
    p99_ms: float
    samples_per_second: float
    left_out: int

    def as_json(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {"schema_version": 1, **asdict(self)}


def run_engine(
    engine: Path | str,
    data: Any,
    output: Path | None = None,
    *,
    batch_size: int | None = None,
    max_samples: int | None = None,
    progress: Callable[[int, int | None], None] | None = None,
) -> Timing:
    """Run an engine on data.

    Args:
        engine: The file; it is executable, so it must be one that is trusted.
        data: As for ``calibrate``.
        output: A ``.npz`` for the outputs, one array per output, samples along the first axis; they go through temporary
            files, not through memory.
        batch_size: Samples per batch; by default the batch that the engine was tuned for.
        max_samples: Use only the first so many samples.
        progress: Called with (samples done, samples in all or ``None``).

    Raises:
        DataError: If the data do not fit the engine, or outputs of different batches do not fit together.
        EngineError: If the engine cannot be loaded or run.
        OutputError: If the outputs cannot be written.
    """
    from trtcalib.trt.buffers import open_device
    from trtcalib.trt.inference import LoadedEngine
    from trtcalib.trt.require import import_tensorrt

    import_tensorrt()  # the first thing that people miss is the first that is told
    with contextlib.closing(open_device()) as device, LoadedEngine(engine, device) as loaded:
        source = open_source(data, loaded.inputs)
        firsts = {i.shape[0] for i in loaded.inputs if i.shape}
        fixed = firsts.pop() if len(firsts) == 1 else None
        size = fixed if source.whole or fixed else batch_size or loaded.opt_batch
        if fixed and batch_size not in (None, fixed):
            raise DataError(str(engine), f"the engine has a fixed batch of {fixed}, asked for {batch_size}")
        batches = plan_batches(source, fixed, Batching(batch_size=size, max_samples=max_samples))
        seconds: list[float] = []
        sizes: list[int] = []
        with _Results(output) as results:
            for feed, samples in _grouped(batches):
                for _ in range(WARM_UP if not seconds else 0):
                    loaded.run(feed)
                found = loaded.run(feed)
                seconds.append(found.seconds)
                sizes.append(samples - sum(sizes))
                results.add(found.arrays)
                if progress is not None:
                    progress(samples, batches.samples)
            results.write()
    # A last batch with fewer samples is faster, and would tell of a latency that no full batch has.
    full = [took for took, size in zip(seconds, sizes, strict=True) if size == max(sizes)]
    p50, p90, p99 = (float(p) for p in np.percentile(np.array(full) * 1000, [50, 90, 99]))
    return Timing(
        samples=batches.seen,
        batches=len(seconds),
        batch_size=max(sizes),
        p50_ms=p50,
        p90_ms=p90,
        p99_ms=p99,
        samples_per_second=batches.seen / sum(seconds),
        left_out=batches.left_out,
    )


def _grouped(batches: Batches) -> Iterator[tuple[Feed, int]]:
    """Yield each batch as one feed, with the number of samples so far; the last may have fewer samples."""
    group: list[Run] = []
    seen = 0
    for run in batches.runs():
        if group and run.batch != group[0].batch:
            yield _joined(group), seen
            group = []
        group.append(run)
        seen += run.samples
    yield _joined(group), seen


def _joined(runs: list[Run]) -> Feed:
    feeds = [run.load() for run in runs]
    if len(feeds) == 1:
        return feeds[0]
    for run, feed in zip(runs, feeds, strict=True):
        for name, array in feed.items():
            if array.shape[1:] != feeds[0][name].shape[1:]:
                raise DataError(
                    "data",
                    f"input {name!r} has shape {array.shape}, another sample of its batch {feeds[0][name].shape}",
                    run.label,
                )
    return {name: np.concatenate([feed[name] for feed in feeds]) for name in feeds[0]}


class _Results:
    """Outputs of all batches, one temporary file per output, put together as a ``.npz`` at the end."""

    def __init__(self, output: Path | None) -> None:
        self._output = output
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._files: dict[str, BinaryIO] = {}
        self._kinds: dict[str, tuple[np.dtype[Any], tuple[int, ...]]] = {}
        self._rows: dict[str, int] = {}

    def __enter__(self) -> _Results:  # noqa: PYI034 - Self is Python 3.11's
        if self._output is not None:
            self._folder = tempfile.TemporaryDirectory(prefix="trtcalib-")
        return self

    def __exit__(self, *raised: object) -> None:
        for file in self._files.values():
            file.close()
        if self._folder is not None:
            self._folder.cleanup()

    def add(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Take the outputs of one batch."""
        if self._folder is None:
            return
        for name, array in arrays.items():
            rows = array if array.ndim else array.reshape(1)
            kind = (rows.dtype, rows.shape[1:])
            if name not in self._files:
                path = Path(self._folder.name) / str(len(self._files))
                self._files[name] = path.open("w+b")  # closed by __exit__
                self._kinds[name], self._rows[name] = kind, 0
            if kind != self._kinds[name]:
                raise DataError(
                    "outputs",
                    f"output {name!r} has shape {array.shape}, before it had {('?', *self._kinds[name][1])}: batches of different "
                    "shapes cannot be put into one array",
                )
            self._files[name].write(np.ascontiguousarray(rows).tobytes())
            self._rows[name] += rows.shape[0]

    def write(self) -> None:
        """Write the ``.npz``."""
        if self._output is None:
            return
        with new_file(self._output) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
            for name, stored in self._files.items():
                dtype, shape = self._kinds[name]
                stored.seek(0)
                # Built here, because a name may hold what a path must not; NumPy reads any.
                with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as entry:
                    entry.write(_npy_header(dtype, (self._rows[name], *shape)))
                    shutil.copyfileobj(stored, entry)


def _npy_header(dtype: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
    header = io.BytesIO()
    descr = np.lib.format.dtype_to_descr(dtype)
    np.lib.format.write_array_header_1_0(header, {"descr": descr, "fortran_order": False, "shape": shape})
    return header.getvalue()
