"""Stands in for nvcc, as far as PyCUDA calls it: the "cubin" is a host library that ``fake_cuda.c`` loads and runs.

``python tests/rig/nvcc.py --cubin -ftz=false ... -arch sm_86 -I... kernel.cu`` writes ``kernel.cubin``. Options that would change the
arithmetic are refused, unless they ask for what the host does anyway.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import subprocess
import sys
from pathlib import Path

HOST = Path(__file__).with_name("kernel_host.cpp")

COMPILE = (
    "-std=c++17",
    "-O1",
    "-fPIC",
    "-shared",
    "-pthread",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-ffp-contract=off",  # __fdiv_rn and what follows it round each on their own
    "-fno-gnu-unique",  # or a library could not be unloaded
)
HARMLESS = ("-ftz=false", "-prec-div=true")


def main(arguments: list[str]) -> int:
    """Do what the command line says; the exit code is the compiler's."""
    if arguments == ["--version"]:
        print("simulated nvcc")  # noqa: T201
        return 0
    source: Path | None = None
    rest = iter(arguments)
    for argument in rest:
        if argument == "-arch":
            next(rest)
        elif argument.endswith(".cu"):
            source = Path(argument)
        elif argument not in ("--cubin", *HARMLESS) and not argument.startswith("-I"):
            sys.stderr.write(f"simulated nvcc: unknown option {argument}\n")
            return 1
    if source is None:
        sys.stderr.write("simulated nvcc: no source\n")
        return 1
    made = source.with_suffix(".cubin")
    digest = hashlib.sha256(b"\0".join([source.read_bytes(), HOST.read_bytes(), *map(str.encode, COMPILE)])).hexdigest()
    stored = Path(os.environ["TRTCALIB_RIG"], "cuda", "kernels", digest)
    if stored.exists():
        made.write_bytes(stored.read_bytes())
        return 0
    command = [
        "g++",
        *COMPILE,
        f'-DKERNEL_SOURCE="{source.resolve()}"',
        str(HOST),
        "-o",
        str(made),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    sys.stderr.write(done.stderr)
    if done.returncode == 0:
        # Whole or not at all: tests run beside each other.
        stored.parent.mkdir(exist_ok=True)
        fresh = stored.with_name(f"{digest}.{os.getpid()}")
        fresh.write_bytes(made.read_bytes())
        fresh.replace(stored)
    return done.returncode


def install(folder: Path) -> None:
    """Put a command called nvcc into a folder."""
    command = folder / "nvcc"
    command.write_text(
        f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {shlex.quote(__file__)} "$@"\n', encoding="utf-8"
    )
    os.chmod(command, 0o755)  # noqa: PTH101


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
