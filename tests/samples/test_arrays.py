"""``.npy`` and ``.npz`` files: mapped, never read whole, never unpickled; and what damaged ones say."""

from __future__ import annotations

import gc
import os
import pickle
import struct
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from trtcalib.errors import DataError
from trtcalib.samples.arrays import open_arrays

VALUES = np.arange(12, dtype=np.float32).reshape(4, 3)


@pytest.fixture(autouse=True)
def temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where compressed members are unpacked, apart from the machine's own."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def npy(header: str, values: bytes = b"", version: tuple[int, int] = (1, 0)) -> bytes:
    """A .npy file with any header, however wrong."""
    text = header.encode() + b" " * (-(len(header) + 11) % 64) + b"\n"
    return b"\x93NUMPY" + bytes(version) + struct.pack("<H" if version == (1, 0) else "<I", len(text)) + text + values


def header(descr: str = "'<f4'", shape: str = "(2, 3)", order: str = "False") -> str:
    return f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}"


def refusal(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        open_arrays(path, ["x"])
    return str(caught.value)


class TestNpy:
    @pytest.mark.parametrize("dtype", ["float32", "float16", "float64", "int64", "int32", "uint8", "bool", ">f4"])
    @pytest.mark.parametrize("order", ["C", "F"])
    def test_is_mapped_with_its_values(self, tmp_path: Path, dtype: str, order: str) -> None:
        values = np.array(VALUES, dtype, order=order)
        np.save(tmp_path / "a.npy", values)
        (array,) = open_arrays(tmp_path / "a.npy", []).values()
        assert type(array) is np.memmap
        assert array.dtype == values.dtype
        assert array.flags.f_contiguous == (order == "F")
        np.testing.assert_array_equal(array, values)
        with pytest.raises(ValueError, match="read-only"):
            array[0, 0] = 1

    @pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
    def test_all_versions_of_the_format(self, tmp_path: Path, version: tuple[int, int]) -> None:
        (tmp_path / "a.npy").write_bytes(npy(header(), VALUES[:2].tobytes(), version))
        np.testing.assert_array_equal(open_arrays(tmp_path / "a.npy", [])[""], VALUES[:2])

    def test_a_file_larger_than_memory_is_not_read(self, tmp_path: Path) -> None:
        path = tmp_path / "a.npy"
        path.write_bytes(npy(header(shape=f"({1 << 28}, 1024)")))
        start = path.stat().st_size
        try:
            os.truncate(path, start + (1 << 40))  # a sparse file: no block is stored
        except OSError:
            pytest.skip("this file system has no files of a terabyte")
        array = open_arrays(path, [])[""]
        assert array.shape == (1 << 28, 1024)
        assert not array[-1].any()

    @pytest.mark.parametrize(
        ("content", "reason"),
        [
            (b"", "not a .npy array, or truncated: its header cannot be read"),
            (b"\x93NUMPY\x01\x00", "not a .npy array, or truncated: its header cannot be read"),
            (b"text, not an array", "not a .npy array, or truncated: its header cannot be read"),
            (npy(header(), b"", (9, 0)), "not a .npy array, or truncated: its header cannot be read"),
            (npy("__import__('os').abort()"), "not a .npy array, or truncated: its header cannot be read"),
            (npy(header("'nonsense'")), "not a .npy array, or truncated: its header cannot be read"),
            (npy(header("(" * 3000 + ")" * 3000)), "not a .npy array, or truncated: its header cannot be read"),
            (npy(header() + " " * 20000), "not a .npy array, or truncated: its header cannot be read"),
            (npy(header(), bytes(23)), "truncated: shape (2, 3) of float32 needs more bytes than the file has"),
            (npy(header(shape="(281474976710656, 281474976710656)"), b"\0"), "truncated: shape (281474976710656, 281474976710656) of float32 needs more bytes than the file has"),
            (npy(header(shape="(-1, 3)"), bytes(24)), "not a .npy array: its header states the shape (-1, 3)"),
            (npy(header(shape="(True, 3)"), bytes(24)), "not a .npy array: its header states the shape (True, 3)"),
            (npy(header(shape="(0, 9223372036854775808)")), "not a .npy array: its header states the shape (0, 9223372036854775808)"),
            (npy(header(shape="(0, 281474976710656, 281474976710656)")), "the data are empty: there is no sample to calibrate on (shape (0, 281474976710656, 281474976710656))"),
            (npy(header("'<U4'"), bytes(96)), "holds <U4, expected numbers or booleans"),
            (npy(header("'<c8'"), bytes(48)), "holds complex64, expected numbers or booleans"),
            (npy(header("'|V0'")), "holds |V0, expected numbers or booleans"),
            (npy(header("[('a', '<f4')]"), bytes(24)), "holds [('a', '<f4')], expected numbers or booleans"),
        ],
        ids=lambda value: repr(value[:60]),
    )  # fmt: skip
    def test_damaged_and_hostile_files(self, tmp_path: Path, content: bytes, reason: str) -> None:
        path = tmp_path / "a.npy"
        path.write_bytes(content)
        assert refusal(path) == f"{path}: {reason}"

    def test_a_single_number_has_no_axis(self, tmp_path: Path) -> None:
        np.save(tmp_path / "a.npy", np.float32(3))
        assert open_arrays(tmp_path / "a.npy", [])[""].shape == ()

    def test_a_pipe_does_not_block(self, tmp_path: Path) -> None:
        if not hasattr(os, "mkfifo"):
            pytest.skip("no named pipes here")
        os.mkfifo(tmp_path / "a.npy")
        assert refusal(tmp_path / "a.npy") == f"{tmp_path / 'a.npy'}: is no regular file"

    def test_a_file_that_cannot_be_opened(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        np.save(tmp_path / "a.npy", VALUES)

        def refuse(*args: object, **options: object) -> None:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(Path, "open", refuse)
        assert refusal(tmp_path / "a.npy") == f"{tmp_path / 'a.npy'}: cannot be read: Permission denied"


class Mine:
    """Unpickling one runs code: it makes a file."""

    def __init__(self, made: Path) -> None:
        self.made = made

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.made,))


class TestPickled:
    REASON = "holds Python objects, which only pickle can read: refused; save it with a numeric dtype"

    def test_npy(self, tmp_path: Path) -> None:
        path, made = tmp_path / "a.npy", tmp_path / "made"
        np.save(path, np.array([Mine(made)], dtype=object), allow_pickle=True)
        assert refusal(path) == f"{path}: {self.REASON}"
        assert not made.exists()

    @pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
    def test_npz(self, tmp_path: Path, save) -> None:
        path, made = tmp_path / "a.npz", tmp_path / "made"
        save(path, x=np.array([Mine(made)], dtype=object))
        assert refusal(path) == f"{path}: array 'x': {self.REASON}"
        assert not made.exists()

    @pytest.mark.parametrize("suffix", [".npy", ".npz"])
    def test_a_bare_pickle(self, tmp_path: Path, suffix: str) -> None:
        path, made = tmp_path / f"a{suffix}", tmp_path / "made"
        path.write_bytes(pickle.dumps(Mine(made)))
        assert refusal(path).startswith(f"{path}: not a {suffix} ")
        assert not made.exists()


class TestNpz:
    @pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
    @pytest.mark.parametrize("order", ["C", "F"])
    def test_is_mapped_with_its_values(self, tmp_path: Path, save, order: str) -> None:
        save(tmp_path / "a.npz", x=np.array(VALUES, order=order), ids=np.arange(4))
        arrays = open_arrays(tmp_path / "a.npz", ["x", "ids"])
        assert list(arrays) == ["x", "ids"]
        assert all(type(array) is np.memmap for array in arrays.values())
        np.testing.assert_array_equal(arrays["x"], VALUES)
        np.testing.assert_array_equal(arrays["ids"], np.arange(4))

    @pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
    def test_other_compressions(self, tmp_path: Path, method: int) -> None:
        np.save(tmp_path / "x.npy", VALUES)
        with zipfile.ZipFile(tmp_path / "a.npz", "w", method) as archive:
            archive.write(tmp_path / "x.npy", "x.npy")
        np.testing.assert_array_equal(open_arrays(tmp_path / "a.npz", ["x"])["x"], VALUES)

    def test_stored_members_are_mapped_in_place(self, tmp_path: Path, temporary_folder: Path) -> None:
        np.savez(tmp_path / "a.npz", x=VALUES)
        array = open_arrays(tmp_path / "a.npz", ["x"])["x"]
        assert array.filename == tmp_path / "a.npz"
        assert not list(temporary_folder.iterdir())

    def test_members_that_are_not_wanted_are_not_unpacked(self, tmp_path: Path, temporary_folder: Path) -> None:
        np.savez_compressed(tmp_path / "a.npz", x=VALUES, labels=np.arange(4), other=VALUES)
        arrays = open_arrays(tmp_path / "a.npz", ["x"])
        assert list(arrays) == ["x"]
        assert len(list(temporary_folder.iterdir())) == 1

    def test_where_a_wanted_one_is_missing_all_are_given_so_that_an_error_can_list_them(self, tmp_path: Path) -> None:
        np.savez(tmp_path / "a.npz", a=VALUES, b=VALUES)
        assert list(open_arrays(tmp_path / "a.npz", ["a", "x"])) == ["a", "b"]
        assert list(open_arrays(tmp_path / "a.npz", ["x"])) == ["a", "b"]

    def test_other_files_inside_are_left_out(self, tmp_path: Path) -> None:
        with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
            archive.writestr("readme.txt", "hello")
        assert open_arrays(tmp_path / "a.npz", ["x"]) == {}

    def test_unpacked_files_go_with_the_array(self, tmp_path: Path, temporary_folder: Path) -> None:
        np.savez_compressed(tmp_path / "a.npz", x=VALUES)
        array = open_arrays(tmp_path / "a.npz", ["x"])["x"]
        row = np.asarray(array[1:2])
        assert list(temporary_folder.glob("*/array.npy"))
        del array
        gc.collect()
        np.testing.assert_array_equal(row, VALUES[1:2])
        del row
        gc.collect()
        assert not list(temporary_folder.iterdir())


def patch_directory(path: Path, offset: int, form: str, value: int) -> None:
    """Change a field of the first member's entry in the zip's central directory."""
    content = bytearray(path.read_bytes())
    struct.pack_into(form, content, bytes(content).rindex(b"PK\x01\x02") + offset, value)
    path.write_bytes(content)


class TestDamagedNpz:
    FLAGS, METHOD, PACKED_SIZE, SIZE, OFFSET = 8, 10, 20, 24, 42

    @pytest.mark.parametrize(
        ("save", "field", "form", "value", "reason"),
        [
            (np.savez_compressed, SIZE, "<I", 100, ": not a .npz file, or truncated: Bad CRC-32 for file 'x.npy'"),
            (np.savez_compressed, PACKED_SIZE, "<I", 20, ": not a .npz file, or truncated: Bad CRC-32"),
            (np.savez_compressed, FLAGS, "<H", 1, ": not a .npz file, or truncated: File <ZipInfo"),
            (np.savez_compressed, METHOD, "<H", 99, ": not a .npz file, or truncated: That compression method is not supported"),
            (np.savez_compressed, METHOD, "<H", 12, ": array 'x': cannot be unpacked into "),
            (np.savez_compressed, METHOD, "<H", 0, ": array 'x': not a .npy array, or truncated: its header cannot be read"),
            (np.savez, OFFSET, "<I", 1 << 24, ": not a .npz file, or truncated: unpack requires a buffer of 30 bytes"),
            (np.savez, OFFSET, "<I", 10, ": array 'x': not a .npy array, or truncated: its header cannot be read"),
            (np.savez, SIZE, "<I", 130, ": array 'x': truncated: shape (4, 3) of float32 needs more bytes than the file has"),
        ],
    )  # fmt: skip
    def test_an_archive_that_lies(  # noqa: PLR0917 - one line of the table
        self, tmp_path, temporary_folder, save, field, form, value, reason
    ) -> None:
        path = tmp_path / "a.npz"
        save(path, x=VALUES)
        patch_directory(path, field, form, value)
        assert refusal(path).startswith(f"{path}{reason}")
        assert not list(temporary_folder.iterdir())

    def test_a_stored_array_that_reaches_past_its_member(self, tmp_path: Path) -> None:
        path = tmp_path / "a.npz"
        np.savez(path, x=VALUES, y=np.zeros(100))
        path.write_bytes(path.read_bytes().replace(b"(4, 3), ", b"(9, 3), "))
        expected = "truncated: shape (9, 3) of float32 needs more bytes than the file has"
        assert refusal(path) == f"{path}: array 'x': {expected}"

    @pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04" + bytes(40)])
    def test_no_zip(self, tmp_path: Path, content: bytes) -> None:
        path = tmp_path / "a.npz"
        path.write_bytes(content)
        assert refusal(path) == f"{path}: not a .npz file, or truncated: File is not a zip file"

    @pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
    def test_truncated(self, tmp_path: Path, save) -> None:
        path = tmp_path / "a.npz"
        save(path, x=VALUES)
        path.write_bytes(path.read_bytes()[:-30])
        assert refusal(path) == f"{path}: not a .npz file, or truncated: File is not a zip file"

    def test_a_full_disk_while_unpacking(self, tmp_path, temporary_folder, monkeypatch) -> None:
        path = tmp_path / "a.npz"
        np.savez_compressed(path, x=VALUES)

        def full(*args: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("shutil.copyfileobj", full)
        text = refusal(path)
        assert text.startswith(f"{path}: array 'x': cannot be unpacked into {temporary_folder}")
        assert text.endswith(": No space left on device")
        assert not list(temporary_folder.iterdir())
