"""NVIDIA's real Python bindings without TensorRT: stub libraries stand where libnvinfer and its companions would.

The bindings link against three or four libraries, from which they need about a dozen C functions. Libraries of the
same names that are loaded before them satisfy the loader, whatever else they lack. A process can hold one version.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from types import ModuleType

__all__ = ["available_versions", "bindings_folder", "load", "stub_library"]

STUB_SOURCE = Path(__file__).with_name("stub.c")

_loaded: dict[str, ModuleType] = {}
_stubs: list[ctypes.CDLL] = []


def available_versions() -> list[str]:
    """Return the versions whose bindings lie in ``$TRTCALIB_RIG/tensorrt``, oldest first; none without that variable."""
    if "TRTCALIB_RIG" not in os.environ:
        return []
    found = Path(os.environ["TRTCALIB_RIG"], "tensorrt").glob("*/tensorrt_bindings")
    return sorted((path.parent.name for path in found), key=lambda name: [int(part) for part in name.split(".")])


def bindings_folder(version: str) -> Path:
    """Return the folder that holds the package ``tensorrt_bindings`` of a version.

    Raises:
        FileNotFoundError: If ``TRTCALIB_RIG`` is not set, or holds no such version.
    """
    if "TRTCALIB_RIG" not in os.environ:
        raise FileNotFoundError("TRTCALIB_RIG is not set: it names the folder that holds tensorrt/<version>")
    folder = Path(os.environ["TRTCALIB_RIG"], "tensorrt", version)
    if not (folder / "tensorrt_bindings").is_dir():
        raise FileNotFoundError(f"no bindings of TensorRT {version} in {folder}: there are {available_versions()}")
    return folder


def load(version: str) -> ModuleType:
    """Import the real bindings of a version as ``tensorrt`` and return the module; the same one at every call.

    Raises:
        FileNotFoundError: If the bindings are not there.
        RuntimeError: If this process holds another version.
    """
    if version in _loaded:
        return _loaded[version]
    if _loaded or "tensorrt" in sys.modules:
        raise RuntimeError(
            f"this process holds TensorRT {', '.join(_loaded) or 'already'}, so it cannot load {version}"
        )
    folder = bindings_folder(version)
    names = _wanted_libraries(folder)
    # A library of that name that is in the process already is not looked for again when the bindings are loaded.
    _stubs.extend(ctypes.CDLL(str(path), ctypes.RTLD_GLOBAL) for path in _compiled_stubs(folder, names))
    sys.path.insert(0, str(folder))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import tensorrt_bindings
    sys.modules["tensorrt"] = tensorrt_bindings
    _loaded[version] = tensorrt_bindings
    return tensorrt_bindings


def stub_library() -> ctypes.CDLL:
    """Return the loaded stub library, for its hooks."""
    return _stubs[0]


def _wanted_libraries(folder: Path) -> list[str]:
    """Return the names of NVIDIA's libraries that the bindings ask the loader for, such as ``libnvinfer.so.10``."""
    headers = subprocess.run(
        ["objdump", "-p", str(folder / "tensorrt_bindings" / "tensorrt.so")], check=True, capture_output=True, text=True
    )
    return re.findall(r"NEEDED\s+(libnv\S+)", headers.stdout)


def _compiled_stubs(folder: Path, names: list[str]) -> list[Path]:
    """Compile the stubs unless that was done before; the first library holds all functions, the others none."""
    digest = hashlib.sha256(STUB_SOURCE.read_bytes()).hexdigest()[:12]
    finished = folder / "stubs" / digest
    if not finished.is_dir():
        finished.parent.mkdir(exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(dir=finished.parent))
        for index, name in enumerate(names):
            source = ["-x", "c", str(STUB_SOURCE) if index == 0 else os.devnull]
            command = ["gcc", "-w", "-O1", "-shared", "-fPIC", f"-Wl,-soname,{name}", "-o", str(unfinished / name)]
            subprocess.run([*command, *source], check=True)
        try:
            unfinished.rename(finished)
        except OSError:  # another process was faster
            shutil.rmtree(unfinished)
    return [finished / name for name in names]
