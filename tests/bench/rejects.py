"""What trtcalib, NVIDIA ModelOpt and ONNX Runtime do with the same broken, unfit and odd inputs: the tables of docs/side-by-side.md.

    python tests/bench/rejects.py [--modelopt PYTHON]

PYTHON is the interpreter of an environment with ``nvidia-modelopt[onnx]`` and torch; this one needs neither. What is missing is said to
be. The columns of trtcalib are its commands, run in this process.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any
from unittest.mock import patch

import onnx

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.bench.reject_cells import CACHE, MODEL, OUTPUT, TABLE, came_of_it, markdown, short
from tests.bench.reject_inputs import CACHES, CacheInput, builder_models, write_model
from tests.bench.reject_runtime import as_runtime_table, quantize_by_runtime, run_in_runtime
from trtcalib.cli.main import _run
from trtcalib.core.cache import parse_cache
from trtcalib.errors import MissingPackageError

CAPABILITY = 89
"""What the builder builds for; the corpus' tests show that the others are told the same."""

_LONG_WINDED = re.compile(
    r"^(trtcalib|note): | \(\d+ of the cache's \d+ names are tensors of this model\)|\. --partial .*"
)
"""Of qdq's messages, what a cell leaves out."""

LONGEST_REASON = 210
"""Of TensorRT-RTX's, which begin with node and call."""

SECONDS = 300
"""For one process of ModelOpt; four are usual."""

CACHE_HEADS = (
    "what is wrong or odd",
    "should be",
    "`cache lint`",
    "`trtcalib qdq`",
    "ModelOpt's import",
    "ONNX Runtime, the same as its own table",
)
BUILDER_HEADS = ("model", "onnx.checker", "ONNX Runtime", "`trtcalib check-builder`")


def main() -> None:
    """Run what is there and print two tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--modelopt", metavar="PYTHON", help="interpreter of an environment with nvidia-modelopt[onnx]")
    modelopt = parser.parse_args().modelopt
    print("\n".join(f"- {line}" for line in versions(modelopt)), end="\n\n")
    rows = []
    for case in CACHES:
        print(f"{case.title} ...", file=sys.stderr)
        with scratch(case):
            ours = (lint(), qdq())
        with scratch(case):
            theirs = modelopts(modelopt) if modelopt else "missing"
        with scratch(case):
            rows.append((case.title, case.due, *ours, theirs, runtime_table(case)))
    print(markdown("caches", CACHE_HEADS, rows))
    refusals = sorted({runtime_as_it_is(case) for case in CACHES})
    print(f"ONNX Runtime, given the calibration caches themselves ({len(CACHES)}): {'; '.join(refusals)}\n")
    print(markdown("builder", BUILDER_HEADS, [builder_row(name, proto) for name, proto in builder_models().items()]))


@contextlib.contextmanager
def scratch(case: CacheInput) -> Iterator[Path]:
    """Write a case into a folder of its own, which is the current one meanwhile, so that messages name no other."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            write_model(case, Path(MODEL))
            Path(CACHE).write_bytes(case.content)
            yield Path(folder)
        finally:
            os.chdir(before)


def lint() -> str:
    """Lint the case in the current folder; of infos that every model has, one with constants, nothing is shown."""
    code, out, _ = command("cache", "lint", CACHE, "--model", MODEL, "--json")
    found = {f"{each['rule']} {each['severity']}": None for each in json.loads(out)["findings"]}
    return ", ".join([f"exit {code}", *(each for each in found if each != "TC045 info")])


def qdq() -> str:
    """Convert the case in the current folder."""
    code, out, err = command("qdq", MODEL, CACHE, "-o", OUTPUT)
    said = [_LONG_WINDED.sub("", line) for line in err.splitlines()]
    said += [line.partition(":")[0] for line in out.splitlines() if line.startswith("raised")]
    return "; ".join([f"exit {code}", *came_of_it(), *map(short, said)])


def modelopts(python: str) -> str:
    """Convert the case in the current folder with ModelOpt."""
    answer = ask_modelopt(python, MODEL, CACHE, OUTPUT)
    said = "success" if answer.get("error") is None else short(answer["error"])
    return "; ".join([said, *came_of_it()])


def ask_modelopt(python: str, *files: str) -> dict[str, Any]:
    """Run ModelOpt in a process of its own and return its answer, or how the process ended."""
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder, "answer.json")
        child = Path(__file__).with_name("modelopt_child.py")
        try:
            done = subprocess.run(
                [python, str(child), str(answer), *files], capture_output=True, timeout=SECONDS, check=False
            )
        except subprocess.TimeoutExpired:
            return {"error": f"no end after {SECONDS} s"}
        except OSError as error:
            return {"error": f"missing: {error.strerror}"}
        if answer.exists():
            return json.loads(answer.read_text(encoding="utf-8"))  # type: ignore[no-any-return]  # the child's own format
    last = (done.stderr.decode(errors="replace").strip().splitlines() or [""])[-1]
    return {"error": f"the process ended with {done.returncode}: {last}"}


def runtime_table(case: CacheInput) -> str:
    """Quantize the case in the current folder with ONNX Runtime, its scales in the JSON that ONNX Runtime writes itself."""
    if case.is_of_form:
        return "no counterpart"
    as_runtime_table(parse_cache(case.content), Path(TABLE))
    return "; ".join([quantize_by_runtime(Path(TABLE)), *came_of_it()])


def runtime_as_it_is(case: CacheInput) -> str:
    """Give ONNX Runtime the calibration cache itself; return the class of its error."""
    with scratch(case):
        return quantize_by_runtime(Path(CACHE)).partition(":")[0]


def builder_row(name: str, proto: onnx.ModelProto) -> tuple[str, ...]:
    """Return what each says of a Q/DQ model."""
    return (f"`{name}`", checker(proto), run_in_runtime(proto), builder(proto))


def checker(proto: onnx.ModelProto) -> str:
    """Return ``accepted`` or onnx.checker's refusal, shapes and types inferred."""
    try:
        onnx.checker.check_model(proto, full_check=True)
    except Exception as error:
        return short(f"refused: {error}")
    return "accepted"


def builder(proto: onnx.ModelProto) -> str:
    """Ask TensorRT-RTX through ``check-builder``; return the exit code, who refused, and the first words of why."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, MODEL)
        onnx.save_model(proto, path)
        code, out, err = command("check-builder", str(path), "--compute-capability", str(CAPABILITY), "--json")
    if code == MissingPackageError.exit_code:
        return "missing" if "is missing" in err else short(err)
    answer = json.loads(out)
    reasons = [*answer["parser_faults"], *answer["parser_warnings"], *(each["reason"] for each in answer["builds"])]
    outcome = [f"parser {answer['parser']}", *(f"builder {each['outcome']}" for each in answer["builds"])]
    return f"exit {code}; {', '.join(outcome)}; {short(next(filter(None, reasons), ''), LONGEST_REASON)}"


def command(*arguments: str) -> tuple[int, str, str]:
    """Run a command of trtcalib; return exit code, stdout and stderr."""
    out, err = io.StringIO(), io.StringIO()
    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        patch.object(sys, "argv", ["trtcalib", *arguments]),
    ):
        code = _run()
    return code, out.getvalue(), err.getvalue()


def versions(modelopt: str | None) -> list[str]:
    """Tell what runs, in lines."""
    ours = ("trtcalib", "onnx", "onnxruntime", "tensorrt-rtx-cu12-bindings")
    lines = [", ".join([f"Python {sys.version.split()[0]}", *(f"{name} {_version(name)}" for name in ours)])]
    if modelopt is None:
        return [*lines, "NVIDIA ModelOpt: missing (--modelopt was not given)"]
    answer = ask_modelopt(modelopt)
    theirs = answer.get("versions", {"error": answer.get("error", "")})
    return [*lines, "in ModelOpt's environment: " + ", ".join(f"{name} {value}" for name, value in theirs.items())]


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "from the source tree" if name == "trtcalib" else "missing"


if __name__ == "__main__":
    main()
