"""A folder to work in, and the command line as a function: arguments in, exit code, stdout and stderr out."""

from __future__ import annotations

import importlib
import itertools
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import trtcalib
from tests.cli.helpers import NET, Result, listing, normal, save_model
from trtcalib.cli.main import _run

_modules = itertools.count()


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder of the test; what it imports from there is forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setenv("COLUMNS", "100")
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):  # Rich takes them for a terminal
        monkeypatch.delenv(name, raising=False)
    # Processes of their own find the package where this one found it, installed or not.
    root = str(Path(trtcalib.__file__).resolve().parents[1])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")])))
    return tmp_path


@pytest.fixture
def cli(folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    """Run a command in this process: ``cli("cache", "show", path)``."""

    def run(*arguments: object) -> Result:
        monkeypatch.setattr(sys, "argv", ["trtcalib", *map(str, arguments)])
        capfd.readouterr()
        code = _run()
        return Result(code, *capfd.readouterr())

    return run


@pytest.fixture
def done(cli: Callable[..., Result]) -> Callable[..., Result]:
    """Run a command that must succeed."""

    def run(*arguments: object) -> Result:
        result = cli(*arguments)
        assert result.code == 0, result.err
        return result

    return run


@pytest.fixture
def refused(cli: Callable[..., Result], folder: Path) -> Callable[..., str]:
    """Run a command that must refuse its input: exit code 2, clear words on stderr only, and no file left or changed."""

    def run(*arguments: object, code: int = 2) -> str:
        before = listing(folder)
        result = cli(*arguments)
        assert result.code == code, result
        assert result.out == ""
        assert "Traceback" not in result.err
        assert all(line.startswith("trtcalib: ") for line in result.err.splitlines()), result.err
        assert listing(folder) == before
        return result.err.replace("trtcalib: ", "")

    return run


@pytest.fixture
def misused(cli: Callable[..., Result], folder: Path) -> Callable[..., str]:
    """Run a command that is used wrongly: exit code 2, the usage on stderr, and no file left or changed."""

    def run(*arguments: object) -> str:
        before = listing(folder)
        result = cli(*arguments)
        assert result.code == 2, result
        assert result.out == ""
        assert "Usage:" in result.err
        assert listing(folder) == before
        return result.text

    return run


@pytest.fixture
def net(folder: Path) -> Path:
    """``model.onnx`` with ``data.npy``, 40 samples, in the current folder."""
    save_model(folder / "model.onnx", NET)
    np.save(folder / "data.npy", normal(40, 4))
    return folder


@pytest.fixture
def module(folder: Path) -> Iterator[Callable[[str], str]]:
    """Write a module into the current folder and return its name."""
    names = []

    def write(text: str) -> str:
        names.append(f"feeds_{os.getpid()}_{next(_modules)}")
        (folder / f"{names[-1]}.py").write_text(text, encoding="utf-8")
        importlib.invalidate_caches()
        return names[-1]

    yield write
    for name in names:
        sys.modules.pop(name, None)
