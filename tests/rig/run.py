"""Makes the rig where it is missing, and runs ``tests/rig`` in it once for each TensorRT version.

Each version gets a process of its own, as many at a time as there are CPUs, because a process can hold one version of the bindings, and because a mistake about
a C++ interface ends in a crash that must not take the other versions' results with it.

    python tests/rig/run.py [--only 8.6.1] [-- pytest's arguments]

Exit code 0 if all passed, or if the rig cannot be made here (offline, another machine: one line says so, and
TRTCALIB_REQUIRE_RIG=1 forbids it); 1 otherwise.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree as ET

import install

NO_TESTS_COLLECTED = 5  # pytest's exit code


@dataclass(frozen=True, kw_only=True)
class Result:
    """What pytest said of one TensorRT version."""

    version: str
    passed: int
    failed: int
    skipped: int
    trouble: str = ""

    @property
    def is_good(self) -> bool:
        return not self.trouble and not self.failed


def main() -> int:
    use_python_3_11()
    parser = argparse.ArgumentParser(description="Run the tests that need NVIDIA's bindings or PyCUDA, without a GPU.")
    versions = list(install.bindings())
    parser.add_argument("--only", metavar="VERSION", choices=versions, action="append", help="one TensorRT version")
    parser.add_argument("pytest", nargs="*", metavar="-- ARGUMENT", help="handed on to pytest")
    arguments = parser.parse_args()

    python = install.or_exit(install.install)
    wanted = arguments.only or versions
    with ThreadPoolExecutor(min(len(wanted), os.cpu_count() or 1)) as pool:
        results = list(pool.map(lambda version: run(python, version, arguments.pytest), wanted))
    install.say(table(results))
    return int(not all(result.is_good for result in results))


def use_python_3_11() -> None:
    """Start again under Python 3.11 if this is another one and it can be found; install.py says so if it cannot."""
    other = shutil.which("python3.11")
    if sys.version_info[:2] != install.PYTHON and other is not None:
        os.execv(other, [other, *sys.argv])


def run(python: Path, version: str, extra: list[str]) -> Result:
    report = install.RIG / "results" / f"{version}.xml"
    report.parent.mkdir(exist_ok=True)
    report.unlink(missing_ok=True)
    names_files = any(Path(install.PROJECT, argument.partition("::")[0]).exists() for argument in extra)
    where = [] if names_files else ["tests/rig"]
    command = [str(python), "-m", "pytest", "-q", f"--junitxml={report}", *where, *extra]
    ours = {"TRTCALIB_RIG": str(install.RIG), "TRTCALIB_RIG_TENSORRT": version}
    # PYTHONPATH and VIRTUAL_ENV are of whoever called; the environment below build/rig is the one that counts.
    kept = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "VIRTUAL_ENV"}}
    done = subprocess.run(
        command, env=kept | ours, cwd=install.PROJECT, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    # In one piece: versions run side by side.
    title = f"\n== TensorRT {version}: its own Python bindings, and PyCUDA over a simulated driver\n"
    install.say(title + done.stdout.decode(errors="replace"))
    code = done.returncode
    return judge(version, code, report, narrowed=bool(extra))


def judge(version: str, code: int, report: Path, *, narrowed: bool) -> Result:
    """Read pytest's own report; without one, or without a test that passed, something is wrong."""
    if code < 0:
        return Result(version=version, passed=0, failed=0, skipped=0, trouble=f"crashed: {signal.Signals(-code).name}")
    if not report.exists():
        return Result(version=version, passed=0, failed=0, skipped=0, trouble=f"pytest ended with {code} and no report")
    suite = ET.parse(report).getroot().find("testsuite")
    count = {name: int(suite.get(name, 0)) for name in ("tests", "failures", "errors", "skipped")}
    failed = count["failures"] + count["errors"]
    passed = count["tests"] - failed - count["skipped"]
    trouble = ""
    if not passed and not narrowed:
        trouble = "no test passed"
    elif code and not failed and not (narrowed and code == NO_TESTS_COLLECTED):
        trouble = f"pytest ended with {code}"
    return Result(version=version, passed=passed, failed=failed, skipped=count["skipped"], trouble=trouble)


def table(results: list[Result]) -> str:
    lines = [f"\n{'TensorRT':<12} {'passed':>7} {'failed':>7} {'skipped':>8}"]
    for result in results:
        counts = f"{result.passed:>7} {result.failed:>7} {result.skipped:>8}"
        lines.append(f"{result.version:<12} {counts}  {result.trouble}".rstrip())
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
