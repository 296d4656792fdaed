"""Files that are written whole or not at all, and the digests that a manifest states."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path

import pytest

from trtcalib.errors import OutputError
from trtcalib.files import (
    check_writable,
    make_folder,
    new_file,
    sample_folder,
    sha256_of,
    sha256_of_bytes,
    write_files,
)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


class TestAtomicWrites:
    def test_all_files_stand_there(self, tmp_path: Path) -> None:
        write_files({tmp_path / "x": b"1", tmp_path / "y": b""})
        assert (tmp_path / "x").read_bytes() == b"1"
        assert (tmp_path / "y").read_bytes() == b""
        assert names(tmp_path) == ["x", "y"]

    def test_what_stood_there_is_replaced(self, tmp_path: Path) -> None:
        write_files({tmp_path / "x": b"old and long"})
        write_files({tmp_path / "x": b"new"})
        assert (tmp_path / "x").read_bytes() == b"new"

    def test_nothing_takes_its_place_before_everything_is_written(self, tmp_path, monkeypatch) -> None:
        path, beside = tmp_path / "x", tmp_path / "no" / "y"
        path.write_bytes(b"old")
        with pytest.raises(OutputError, match=r"does not exist: create it first$"):
            write_files({path: b"new", beside: b"new"})
        assert path.read_bytes() == b"old"
        assert names(tmp_path) == ["x"]

    @pytest.mark.parametrize("where", ["fsync", "replace"])
    @pytest.mark.parametrize("good", [0, 1])
    def test_a_full_disk_leaves_nothing_behind(self, tmp_path, monkeypatch, where: str, good: int) -> None:
        calls = []
        replace = Path.replace

        def full(*args: object) -> None:
            calls.append(args)
            if len(calls) > good:
                raise OSError(errno.ENOSPC, "No space left on device")
            if where == "replace":
                replace(*args)

        x, y = tmp_path / "x", tmp_path / "y"
        x.write_bytes(b"old")
        monkeypatch.setattr(os if where == "fsync" else Path, where, full)
        with pytest.raises(OutputError) as caught:
            write_files({x: b"new", y: b"new"})
        failed = (x, y)[good]
        assert str(caught.value) == f"{failed}: cannot be written: No space left on device"
        assert caught.value.path == failed
        assert names(tmp_path) == ["x"]
        if (where, good) != ("replace", 1):  # the first rename has happened then
            assert x.read_bytes() == b"old"

    @pytest.mark.parametrize("stop", [KeyboardInterrupt, MemoryError])
    def test_an_interruption_leaves_nothing_behind(self, tmp_path, monkeypatch, stop) -> None:
        def interrupt(descriptor: int) -> None:
            raise stop

        monkeypatch.setattr(os, "fsync", interrupt)
        with pytest.raises(stop):
            write_files({tmp_path / "x": b"new"})
        assert names(tmp_path) == []

    @pytest.mark.parametrize("name", ["x" * 255, "\U0001d4b3" * 63, "é" * 127, ".hidden", "a b"])
    def test_every_name_that_the_file_system_takes(self, tmp_path: Path, name: str) -> None:
        write_files({tmp_path / name: b"1"})
        assert names(tmp_path) == [name]

    def test_a_link_is_replaced_and_its_target_kept(self, tmp_path: Path) -> None:
        target, link = tmp_path / "target", tmp_path / "link"
        target.write_bytes(b"old")
        link.symlink_to(target)
        write_files({link: b"new"})
        assert (target.read_bytes(), link.read_bytes()) == (b"old", b"new")


class TestNewFile:
    def test_takes_its_place_when_the_block_ends(self, tmp_path: Path) -> None:
        path = tmp_path / "x"
        path.write_bytes(b"old and long")
        with new_file(path) as file:
            file.write(b"ne")
            file.write(b"w")
            assert path.read_bytes() == b"old and long"
        assert path.read_bytes() == b"new"
        assert names(tmp_path) == ["x"]

    @pytest.mark.parametrize("stop", [ValueError, KeyboardInterrupt, MemoryError])
    def test_vanishes_when_the_block_fails(self, tmp_path: Path, stop: type[BaseException]) -> None:
        path = tmp_path / "x"
        path.write_bytes(b"old")

        def block() -> None:
            with new_file(path) as file:
                file.write(b"new")
                raise stop

        with pytest.raises(stop):
            block()
        assert path.read_bytes() == b"old"
        assert names(tmp_path) == ["x"]

    @pytest.mark.parametrize(("module", "where"), [(os, "fsync"), (Path, "replace"), (Path, "open")])
    def test_a_full_disk_leaves_nothing_behind(self, tmp_path, monkeypatch, module, where: str) -> None:
        def full(*args: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        path = tmp_path / "x"
        path.write_bytes(b"old")

        def block() -> None:
            with new_file(path) as file:
                file.write(b"new")

        monkeypatch.setattr(module, where, full)
        with pytest.raises(OutputError) as caught:
            block()
        monkeypatch.undo()
        assert str(caught.value) == f"{path}: cannot be written: No space left on device"
        assert path.read_bytes() == b"old"
        assert names(tmp_path) == ["x"]

    @pytest.mark.parametrize("name", ["x" * 255, "\U0001d4b3" * 63, ".hidden"])
    def test_every_name_that_the_file_system_takes(self, tmp_path: Path, name: str) -> None:
        with new_file(tmp_path / name) as file:
            file.write(b"1")
        assert names(tmp_path) == [name]

    def test_a_path_that_cannot_be_written_is_refused_before_the_block(self, tmp_path: Path) -> None:
        with pytest.raises(OutputError, match=r"does not exist: create it first$"):
            new_file(tmp_path / "no" / "x").__enter__()


def refuse_access(path: object, mode: int) -> bool:
    return mode != os.W_OK


class TestUnwritablePaths:
    @pytest.fixture(params=["check", "write"])
    def refusal(self, request: pytest.FixtureRequest):
        """What checking a path says, and what writing to it says: the same."""

        def run(path: Path | str) -> str:
            with pytest.raises(OutputError) as caught:
                check_writable(path) if request.param == "check" else write_files({Path(path): b"new"})
            return str(caught.value)

        return run

    def test_a_folder(self, refusal, tmp_path: Path) -> None:
        assert refusal(tmp_path) == f"{tmp_path}: is a folder; expected the name of a file to write"
        assert refusal("") == ".: is a folder; expected the name of a file to write"

    def test_a_folder_that_does_not_exist(self, refusal, tmp_path: Path) -> None:
        expected = f"the folder {str(tmp_path / 'no')!r} does not exist: create it first"
        assert refusal(tmp_path / "no" / "x") == f"{tmp_path / 'no' / 'x'}: {expected}"

    def test_a_file_in_the_place_of_the_folder(self, refusal, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        assert "file' does not exist: create it first" in refusal(tmp_path / "file" / "x")

    def test_a_special_file_is_not_replaced(self, refusal, tmp_path: Path) -> None:
        if not hasattr(os, "mkfifo"):
            pytest.skip("no named pipes here")
        path = tmp_path / "pipe"
        os.mkfifo(path)
        assert refusal(path) == f"{path}: is no regular file; a result takes the place of what stands there"
        assert path.is_fifo()

    @pytest.mark.skipif(not Path("/dev/null").exists(), reason="no devices here")
    def test_a_device_is_not_replaced(self, refusal) -> None:
        assert refusal("/dev/null") == "/dev/null: is no regular file; a result takes the place of what stands there"
        assert Path("/dev/null").is_char_device()

    def test_a_folder_that_cannot_be_written_to(self, refusal, tmp_path, monkeypatch) -> None:
        monkeypatch.setattr(os, "access", refuse_access)  # root may write everywhere
        assert refusal(tmp_path / "x") == f"{tmp_path / 'x'}: the folder {str(tmp_path)!r} cannot be written to"

    def test_a_name_that_is_too_long(self, tmp_path: Path) -> None:
        path = tmp_path / ("x" * 300)
        with pytest.raises(OutputError) as caught:
            write_files({path: b"new"})
        assert str(caught.value).startswith(f"{path}: cannot be written: ")
        assert names(tmp_path) == []

    def test_a_write_that_the_system_refuses(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(*args: object, **options: object) -> None:
            raise PermissionError(errno.EACCES, "Permission denied")

        monkeypatch.setattr(Path, "open", refuse)
        with pytest.raises(OutputError, match=r"x: cannot be written: Permission denied$"):
            write_files({tmp_path / "x": b"new"})


def test_a_path_that_can_be_written_passes_and_nothing_is_made(tmp_path: Path) -> None:
    check_writable(tmp_path / "x")
    assert names(tmp_path) == []
    (tmp_path / "x").touch()
    check_writable(str(tmp_path / "x"))


class TestFolders:
    def test_parents_are_made(self, tmp_path: Path) -> None:
        make_folder(tmp_path / "a" / "b")
        make_folder(str(tmp_path / "a" / "b"))
        assert (tmp_path / "a" / "b").is_dir()

    def test_a_file_stands_there(self, tmp_path: Path) -> None:
        (tmp_path / "a").touch()
        with pytest.raises(OutputError, match=r"a: cannot be made a folder: File exists$"):
            make_folder(tmp_path / "a")

    def test_the_sample_is_there(self) -> None:
        assert (sample_folder() / "digits" / "model.onnx").is_file()


def test_digests(tmp_path: Path) -> None:
    content = bytes(range(256)) * 10000
    (tmp_path / "x").write_bytes(content)
    assert sha256_of(tmp_path / "x") == sha256_of_bytes(content) == hashlib.sha256(content).hexdigest()
    assert sha256_of_bytes(b"") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
