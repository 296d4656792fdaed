"""What stands around running an engine: batches put together, outputs kept, numbers reported."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from trtcalib.batches import Batching, plan_batches
from trtcalib.engine_run import Timing, _grouped, _npy_header, _Results
from trtcalib.errors import DataError, OutputError
from trtcalib.samples.feeds import Sample


class Rows:
    """A source of ``length`` rows; row i is ``i``, of shape ``shapes[i]`` where that is told."""

    name = "rows"
    whole = False

    def __init__(self, length: int, shapes: dict[int, tuple[int, ...]] | None = None) -> None:
        self.length = length
        self.shapes = shapes or {}

    def size(self) -> int:
        return self.length

    def samples(self, order: Sequence[int] | None) -> Iterator[Sample]:
        for i in range(self.length):
            array = np.full((1, *self.shapes.get(i, (2,))), i, np.float32)
            yield Sample(f"row {i}", lambda array=array: {"x": array})

    def sha256(self) -> str:
        return "0" * 64


def grouped(length: int, fixed: int | None = None, **batching: int) -> list[tuple[list[float], int]]:
    """First column of each feed, and the samples so far."""
    batches = plan_batches(Rows(length), fixed, Batching(**batching))
    return [(feed["x"][:, 0].tolist(), seen) for feed, seen in _grouped(batches)]


class TestGrouping:
    def test_the_last_batch_may_have_fewer_samples(self) -> None:
        assert grouped(5, batch_size=2) == [([0, 1], 2), ([2, 3], 4), ([4], 5)]

    def test_a_fixed_batch_is_one_feed(self) -> None:
        assert grouped(7, 3, batch_size=3) == [([0, 1, 2], 3), ([3, 4, 5], 6)]

    @given(length=st.integers(1, 30), size=st.integers(1, 10), most=st.none() | st.integers(1, 40))
    def test_every_sample_once_in_order(self, length: int, size: int, most: int | None) -> None:
        found = grouped(length, batch_size=size, max_samples=most)
        used = min(length, most or length)
        assert [value for values, _ in found for value in values] == list(range(used))
        assert [seen for _, seen in found] == [min(used, size * (i + 1)) for i in range(len(found))]
        assert {len(values) for values, _ in found[:-1]} <= {size}

    def test_samples_of_different_shapes_in_one_batch(self) -> None:
        batches = plan_batches(Rows(3, {1: (3,)}), None, Batching(batch_size=3))
        with pytest.raises(DataError) as caught:
            list(_grouped(batches))
        assert str(caught.value) == "data: sample row 1: input 'x' has shape (1, 3), another sample of its batch (1, 2)"

    def test_samples_of_different_shapes_in_different_batches(self) -> None:
        batches = plan_batches(Rows(2, {1: (3,)}), None, Batching(batch_size=1))
        assert [feed["x"].shape for feed, _ in _grouped(batches)] == [(1, 2), (1, 3)]

    def test_no_samples(self) -> None:
        with pytest.raises(DataError, match=r"^rows: fewer samples than the 1 that one batch needs$"):
            grouped(0)


class TestNpyHeader:
    @given(array=hnp.arrays(hnp.scalar_dtypes(), hnp.array_shapes(min_dims=0, max_dims=4, min_side=0)))
    def test_numpy_reads_what_stands_behind_it(self, tmp_path_factory, array: np.ndarray) -> None:
        path = tmp_path_factory.mktemp("npy") / "x.npy"
        path.write_bytes(_npy_header(array.dtype, array.shape) + array.tobytes())
        found = np.load(path)
        assert (found.dtype, found.shape) == (array.dtype, array.shape)
        assert found.tobytes() == array.tobytes()


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary files go."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


class TestResults:
    @given(
        rows=st.lists(st.integers(0, 4), min_size=1, max_size=4),
        dtype=st.sampled_from(["float32", "float16", "int64", "bool"]),
        rest=hnp.array_shapes(min_dims=0, max_dims=2, min_side=0),
    )
    def test_batches_are_put_together_along_the_first_axis(self, tmp_path_factory, rows, dtype, rest) -> None:
        path = tmp_path_factory.mktemp("results") / "out.npz"
        values = np.random.default_rng(0)
        batches = [{n: values.integers(0, 2, (r, *rest)).astype(dtype) for n in ("a", "b")} for r in rows]
        with _Results(path) as results:
            for batch in batches:
                results.add(batch)
            results.write()
        with np.load(path) as found:
            assert sorted(found.files) == ["a", "b"]
            for name in found.files:
                expected = np.concatenate([batch[name] for batch in batches])
                assert found[name].dtype == expected.dtype
                np.testing.assert_array_equal(found[name], expected)

    def test_numbers_without_an_axis_become_one_row_each(self, tmp_path: Path) -> None:
        with _Results(tmp_path / "out.npz") as results:
            for value in (1, 2):
                results.add({"loss": np.array(value, np.float32)})
            results.write()
        with np.load(tmp_path / "out.npz") as found:
            assert found["loss"].tolist() == [1, 2]

    def test_values_in_any_memory_order(self, tmp_path: Path) -> None:
        array = np.arange(6).reshape(3, 2).T
        with _Results(tmp_path / "out.npz") as results:
            results.add({"y": array})
            results.write()
        with np.load(tmp_path / "out.npz") as found:
            np.testing.assert_array_equal(found["y"], array)

    @pytest.mark.parametrize("name", ["/m/Conv_output_0", "../../x", "a:0", "y" * 300, "é", " "])
    def test_any_output_name(self, tmp_path: Path, name: str) -> None:
        with _Results(tmp_path / "out.npz") as results:
            results.add({name: np.ones((2, 1))})
            results.write()
        assert sorted(path.name for path in tmp_path.iterdir()) == ["out.npz"]
        with np.load(tmp_path / "out.npz") as found:
            assert found.files == [name]
            assert found[name].tolist() == [[1], [1]]

    @pytest.mark.parametrize("second", [np.zeros((2, 4), np.float32), np.zeros(2, np.float32)])
    def test_outputs_that_do_not_fit_together(self, tmp_path: Path, second: np.ndarray) -> None:
        with _Results(tmp_path / "out.npz") as results:
            results.add({"y": np.zeros((2, 3), np.float32)})
            with pytest.raises(DataError) as caught:
                results.add({"y": second})
        assert str(caught.value) == (
            f"outputs: output 'y' has shape {second.shape}, before it had ('?', 3): batches of different shapes cannot be put "
            "into one array"
        )
        assert list(tmp_path.iterdir()) == []

    def test_without_a_file_nothing_is_kept(self, scratch: Path) -> None:
        with _Results(None) as results:
            results.add({"y": np.zeros(3)})
            assert list(scratch.iterdir()) == []
            results.write()

    def test_temporary_files_go_in_every_case(self, tmp_path: Path, scratch: Path) -> None:
        for path in (tmp_path / "out.npz", tmp_path / "no" / "out.npz"):
            with _Results(path) as results:
                results.add({"y": np.zeros(3)})
                assert len(list(scratch.rglob("*"))) == 2
                if path.parent.is_dir():
                    results.write()
                else:
                    with pytest.raises(OutputError, match="does not exist: create it first"):
                        results.write()
            assert list(scratch.iterdir()) == []

    def test_a_full_disk_keeps_what_stood_there(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(_: int) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        path = tmp_path / "out.npz"
        path.write_bytes(b"older")
        monkeypatch.setattr(os, "fsync", full)
        with _Results(path) as results:
            results.add({"y": np.zeros(3)})
            with pytest.raises(OutputError, match=r"out\.npz: cannot be written: No space left on device$"):
                results.write()
        assert path.read_bytes() == b"older"
        assert list(tmp_path.iterdir()) == [path]


def test_the_timing_is_plain_values() -> None:
    timing = Timing(
        samples=5, batches=3, batch_size=2, p50_ms=1.5, p90_ms=2.0, p99_ms=2.5, samples_per_second=100.0, left_out=0
    )
    assert timing.as_json() == {
        "schema_version": 1,
        "samples": 5,
        "batches": 3,
        "batch_size": 2,
        "p50_ms": 1.5,
        "p90_ms": 2.0,
        "p99_ms": 2.5,
        "samples_per_second": 100.0,
        "left_out": 0,
    }
