"""Makes the test rig below ``build/rig``: an environment with real PyCUDA over a simulated CUDA driver, and NVIDIA's bindings.

Each step leaves a stamp with what it was made from, so that only what changed is made again. Needs Linux on x86_64,
Python 3.11 (the only one that all four versions of the bindings have wheels for) and a C and C++ compiler.

    python tests/rig/install.py

Only the standard library is used, because this runs before anything is installed.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
HERE = PROJECT / "tests" / "rig"
RIG = PROJECT / "build" / "rig"
PYTHON = (3, 11)

CUDA = RIG / "cuda"
HEADERS = CUDA / "headers" / "nvidia"
INCLUDES = (HEADERS / "cuda_runtime" / "include", HEADERS / "cuda_profiler_api" / "include")
WHEELS = RIG / "wheels"

COMPILE = (
    "-std=gnu11",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-O1",
    "-fPIC",
    "-shared",
    "-pthread",
    "-Wl,-soname,libcuda.so.1",
)
# Nothing here waits for PyCUDA's own code, so its many templates are compiled for speed of compiling.
PYCUDA_FLAGS = "-O0 -g0 -w"
# cuRAND is the one thing that PyCUDA links besides the driver, and siteconf.py the only way to leave it out.
SITECONF = f"""CUDA_ENABLE_CURAND = False
CUDADRV_LIB_DIR = [{str(CUDA)!r}]
CUDA_INC_DIR = {[str(folder) for folder in INCLUDES]!r}
"""
# Weak, so that what fake_cuda.c defines takes their place.
REFUSAL = '__attribute__((weak)) int {name}(void) {{ return simulated_cuda_refuse("{name}"); }}\n'


class CannotRun(Exception):
    """The rig cannot be made here, and nobody did anything wrong: offline, or another kind of machine."""


class InstallError(Exception):
    """A step failed that should work here."""


def install() -> Path:
    """Make whatever of the rig is missing or out of date, and return the Python of its environment.

    Raises:
        CannotRun: On another machine or Python than the rig is for, or if the package index cannot be reached.
        InstallError: If a step fails for any other reason.
    """
    require_this_machine()
    RIG.mkdir(parents=True, exist_ok=True)
    with only_one_at_a_time(), ThreadPoolExecutor(max_workers=1) as background:
        make_builder()
        unpack_headers()
        compile_driver()
        # The compiler is busy for a minute or two while the rest waits for the network.
        pycuda = background.submit(build_pycuda)
        make_environment()
        for version, requirement in bindings().items():
            unpack_bindings(version, requirement)
        unpack_compiler()
        install_pycuda(pycuda.result())
        install_cuda_python()
    return python_of("venv")


def require_this_machine() -> None:
    """Say in one line why the rig cannot be made here, if so."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        raise CannotRun(f"it is for Linux on x86_64, and this is {platform.system()} on {platform.machine()}")
    if sys.version_info[:2] != PYTHON:
        raise CannotRun(f"it is for Python 3.11, and this is {platform.python_version()}")
    missing = [compiler for compiler in ("gcc", "g++") if shutil.which(compiler) is None]
    if missing:
        raise CannotRun(f"no {' and no '.join(missing)} on this machine")


def bindings() -> dict[str, str]:
    """TensorRT version -> requirement of the bindings, oldest first."""
    chosen = [pin for pin in pins() if pin.startswith("tensorrt-") and pin.partition("==")[0].endswith("-bindings")]
    return {pin.partition("==")[2]: pin for pin in chosen}


# The steps


def make_builder() -> None:
    """An environment that only builds, so that its versions are chosen here and not by what PyCUDA's build asks for."""
    wanted = [pin_of("setuptools"), pin_of("wheel"), pin_of("numpy")]
    with step("builder", *wanted, sys.version, sys.base_prefix) as missing:
        if missing:
            make_venv("builder")
            pip("builder", "install", *wanted)


def unpack_headers() -> None:
    wanted = [pin_of("nvidia-cuda-runtime-cu12"), pin_of("nvidia-cuda-profiler-api-cu12")]
    with step("headers", *wanted) as missing:
        if missing:
            unpack(CUDA / "headers", *wanted)


def compile_driver() -> None:
    """libcuda.so.1: fake_cuda.c, and a refusal for every other function that NVIDIA's headers declare."""
    source = HERE / "fake_cuda.c"
    with step(
        "driver", source.read_text(encoding="utf-8"), pin_of("nvidia-cuda-runtime-cu12"), REFUSAL, *COMPILE
    ) as missing:
        if not missing:
            return
        includes = [f"-I{folder}" for folder in INCLUDES]
        refusals = CUDA / "refusals.c"
        functions = [REFUSAL.format(name=name) for name in declared_functions(includes)]
        refusals.write_text("int simulated_cuda_refuse(const char *name);\n" + "".join(functions), encoding="utf-8")
        fresh = CUDA / "libcuda.fresh"
        call("gcc", *COMPILE, *includes, "-o", str(fresh), str(source), str(refusals))
        fresh.replace(CUDA / "libcuda.so.1")
        link = CUDA / "libcuda.so"  # the name that linkers look for
        link.unlink(missing_ok=True)
        link.symlink_to("libcuda.so.1")


def declared_functions(includes: Sequence[str]) -> list[str]:
    """The driver's functions by the versioned names that the headers' macros give them."""
    headers = "#include <cuda.h>\n#include <cudaProfiler.h>\n"
    text = call("gcc", "-E", "-P", "-x", "c", *includes, "-", stdin=headers)
    names = sorted(set(re.findall(r"\bCUresult\s+(cu[A-Z]\w*)\s*\(", text)))
    if not names:
        raise InstallError("no function was found in NVIDIA's cuda.h")
    return names


def build_pycuda() -> Path:
    """The wheel of PyCUDA, built from its sdist against NVIDIA's headers and the simulated driver."""
    pin = pin_of("pycuda")
    parts = (
        pin,
        pin_of("numpy"),
        pin_of("nvidia-cuda-runtime-cu12"),
        SITECONF,
        PYCUDA_FLAGS,
        sys.version,
        sys.base_prefix,
    )
    with step("pycuda", *parts) as missing:
        if missing:
            work = RIG / "pycuda"
            for folder in (work, WHEELS):
                shutil.rmtree(folder, ignore_errors=True)
            pip(
                "builder",
                "download",
                "--no-deps",
                "--no-binary=:all:",
                "--no-build-isolation",
                "--dest",
                str(work),
                pin,
            )
            (archive,) = work.iterdir()
            shutil.unpack_archive(archive, work)
            (source,) = (path for path in work.iterdir() if path.is_dir())
            (source / "siteconf.py").write_text(SITECONF, encoding="utf-8")
            options = ("--no-index", "--no-deps", "--no-build-isolation", "--no-cache-dir")
            pip("builder", "wheel", *options, "--wheel-dir", str(WHEELS), str(source), CFLAGS=PYCUDA_FLAGS)
            shutil.rmtree(work)
    (wheel,) = WHEELS.glob("*.whl")
    return wheel


def make_environment() -> None:
    """The environment that the tests run in: trtcalib itself, editable, and what goes beside it."""
    import tomllib  # not in Python 3.10, which is told so by require_this_machine

    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))
    lock = PROJECT / "requirements" / "ci.txt"
    locked = ["-c", str(lock)] if os.environ.get("LOCKED") else []
    beside = [pin_of(name) for name in ("polygraphy", "mako", "platformdirs", "pytools")]
    parts = (
        repr(project["project"]),
        repr(project["build-system"]),
        *beside,
        str(PROJECT),
        sys.version,
        sys.base_prefix,
    )
    with step("environment", *parts, lock.read_text(encoding="utf-8") if locked else "") as missing:
        if missing:
            make_venv("venv")
            pip("venv", "install", *locked, "-e", f"{PROJECT}[cpu,test]", *beside)


def unpack_bindings(version: str, requirement: str) -> None:
    with step(f"tensorrt-{version}", requirement) as missing:
        if missing:
            unpack(RIG / "tensorrt" / version, requirement)


def unpack_compiler() -> None:
    """NVRTC, which compiles kernels and needs no GPU for it."""
    with step("nvrtc", pin_of("nvidia-cuda-nvrtc-cu12")) as missing:
        if missing:
            unpack(CUDA / "nvrtc", pin_of("nvidia-cuda-nvrtc-cu12"))


def install_pycuda(wheel: Path) -> None:
    with step(
        "pycuda-installed", *(stamp(name).read_text(encoding="utf-8") for name in ("environment", "pycuda"))
    ) as missing:
        if missing:
            pip("venv", "install", "--no-index", "--no-deps", "--force-reinstall", str(wheel))


def install_cuda_python() -> None:
    wanted = [pin_of("cuda-bindings"), pin_of("cuda-pathfinder")]
    with step("cuda-python", *wanted, stamp("environment").read_text(encoding="utf-8")) as missing:
        if missing:
            pip("venv", "install", "--no-deps", "--only-binary=:all:", *wanted)


# What the steps are made of


@contextmanager
def step(name: str, *parts: str) -> Iterator[bool]:
    """Yield whether a step must be done; once it is, leave a stamp with the digest of what it was made from."""
    digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()
    path = stamp(name)
    if path.exists() and path.read_text(encoding="utf-8") == digest:
        yield False
        return
    path.unlink(missing_ok=True)
    started = time.monotonic()
    yield True
    path.parent.mkdir(exist_ok=True)
    path.write_text(digest, encoding="utf-8")
    say(f"rig: made {name} in {time.monotonic() - started:.0f} s")


def stamp(name: str) -> Path:
    return RIG / "stamps" / name


@contextmanager
def only_one_at_a_time() -> Iterator[None]:
    """Wait while another process installs into the same folder."""
    with (RIG / "lock").open("w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def pins() -> list[str]:
    lines = (HERE / "requirements.txt").read_text(encoding="utf-8").splitlines()
    return [pin for line in lines if (pin := line.partition("#")[0].strip())]


def pin_of(name: str) -> str:
    (pin,) = (pin for pin in pins() if pin.startswith(f"{name}=="))
    return pin


def python_of(environment: str) -> Path:
    return RIG / environment / "bin" / "python"


def make_venv(name: str) -> None:
    call(sys.executable, "-m", "venv", "--clear", str(RIG / name))


def unpack(folder: Path, *requirements: str) -> None:
    """Put the files of wheels into a folder of their own, without what they depend on."""
    shutil.rmtree(folder, ignore_errors=True)
    pip("builder", "install", "--no-deps", "--only-binary=:all:", "--target", str(folder), *requirements)


def pip(environment: str, command: str, *arguments: str, **variables: str) -> None:
    """Run pip in one of our environments.

    Raises:
        CannotRun: If it failed because the package index could not be reached, by pip's own words.
        InstallError: If it failed for another reason.
    """
    always = ("--quiet", "--disable-pip-version-check", "--no-input", "--retries", "3")
    try:
        call(str(python_of(environment)), "-m", "pip", command, *always, *arguments, **variables)
    except InstallError as error:
        if index_was_out_of_reach(str(error)):
            raise CannotRun("the package index cannot be reached") from error
        raise


def index_was_out_of_reach(output: str) -> bool:
    """Whether pip gave up connecting. A wrong pin of ours, or a build that fails, ends without these words."""
    gave_up = "Retry(total=0" in output and "connection broken by" in output
    return gave_up or "Max retries exceeded with url" in output


def call(*command: str, stdin: str = "", **variables: str) -> str:
    """Run a command and return what it printed to stdout.

    Raises:
        InstallError: If it failed, with all that it printed.
    """
    environment = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "VIRTUAL_ENV"}}
    done = subprocess.run(
        command, input=stdin, capture_output=True, text=True, check=False, env=environment | variables, cwd=PROJECT
    )
    if done.returncode:
        raise InstallError(f"exit code {done.returncode} of: {' '.join(command)}\n{done.stdout}{done.stderr}")
    return done.stdout


def say(line: str) -> None:
    print(line, flush=True)  # noqa: T201 - a script that says what it does


def or_exit(work: Callable[[], Path]) -> Path:
    """Do the work; leave the process with one line and 0 if it cannot be done here, or 1 if that may not happen.

    TRTCALIB_REQUIRE_RIG=1 says that it may not.
    """
    try:
        return work()
    except CannotRun as reason:
        required = os.environ.get("TRTCALIB_REQUIRE_RIG", "") not in {"", "0"}
        say(f"rig skipped: {reason}" + (", but TRTCALIB_REQUIRE_RIG is set" if required else ""))
        sys.exit(int(required))
    except InstallError as error:
        say(f"rig: {error}")
        sys.exit("rig: the installation failed")


if __name__ == "__main__":
    say(f"rig: ready, with {or_exit(install)}")
