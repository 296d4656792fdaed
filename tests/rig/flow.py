"""How the end-to-end tests meet trtcalib: commands over the simulated builder, and what these leave in a folder.

A command runs as ``simulated_cli`` runs it, in a process of its own. Starting Python and importing everything would take
most of the time, so that is done once per TensorRT version, by a process (``python -m tests.rig.flow VERSION``) that forks for
each command.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import io
import json
import logging
import os
import re
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from tests.cli.helpers import listing
from tests.models import make_model
from tests.rig import bindings
from trtcalib.manifest import EngineManifest, Manifest

ROOT = Path(__file__).resolve().parents[2]

CONV = """
net (float[N, 2, 4, 4] x) => (float[N, 3, 4, 4] y)
<float[3, 2, 1, 1] w = {1, -2, 3, 0.5, -1, 2}>
{
    [conv] a = Conv(x, w)
    [relu] y = Relu(a)
}
"""
"""One input with a free batch; two layers."""

DENSE = """
dense (float[N, 3] x) => (float[N, 2] y)
<float[3, 2] w = {1, 0, 0, 1, 1, 1}>
{
    [product] h = MatMul(x, w)
    [relu] y = Relu(h)
}
"""

FIXED = """
fixed (float[4, 3] x) => (float[4, 3] y)
{
    [relu] y = Relu(x)
}
"""

QUANTIZED = """
quantized (float[N, 3] x) => (float[N, 3] y)
<float scale = {0.5}, int8 zero = {0}>
{
    [quantize] q = QuantizeLinear(x, scale, zero)
    [dequantize] d = DequantizeLinear(q, scale, zero)
    [relu] y = Relu(d)
}
"""


@dataclass(frozen=True)
class Result:
    """What a command did.

    Attributes:
        code: Exit code; negative for a signal.
        out: stdout.
        err: stderr.
        record: Where the simulation wrote what it saw.
    """

    code: int
    out: str
    err: str
    record: Path = field(repr=False)

    @property
    def json(self) -> Any:
        """stdout, which must be JSON and nothing else."""
        return json.loads(self.out)

    @property
    def words(self) -> str:
        """stderr as one line, every run of white space one space."""
        return " ".join(self.err.split())

    @property
    def findings(self) -> list[str]:
        """What was told as a finding."""
        return [line.removeprefix("finding: ") for line in self.err.splitlines() if line.startswith("finding: ")]

    @cached_property
    def _arrays(self) -> dict[str, NDArray[Any]]:
        with np.load(self.record) as content:
            return dict(content)

    @property
    def saw(self) -> dict[str, Any]:
        """What the simulation recorded, as JSON values."""
        return json.loads(str(self._arrays["record"]))

    @property
    def build(self) -> dict[str, Any]:
        """The record of the only build."""
        (build,) = self.saw["builds"]
        return build

    @property
    def batches(self) -> list[dict[str, NDArray[Any]]]:
        """The batches that the simulated builder read from device memory in the only build."""
        found: dict[int, dict[str, NDArray[Any]]] = {}
        for key, array in self._arrays.items():
            if key != "record":
                _, batch, name = key.split("/", 2)
                found.setdefault(int(batch), {})[name] = array
        return [found[number] for number in range(len(found))]


class Flow:
    """A folder with models and data, in which commands run.

    Attributes:
        folder: The working folder of the commands.
        version: TensorRT's version.
    """

    def __init__(self, folder: Path, version: str) -> None:
        self.folder = folder / "work"
        self.folder.mkdir()
        self.version = version
        self._notes = folder  # beside the working folder, where listings do not see them
        self._commands = 0

    @property
    def is_8(self) -> bool:
        """Whether this is TensorRT 8, which has no progress monitor and no 64-bit integers."""
        return self.version.startswith("8.")

    @property
    def number(self) -> str:
        """The version as a cache's header counts it."""
        major, minor, patch = (int(part) for part in self.version.split(".")[:3])
        return str(major * (10000 if major >= 10 else 1000) + minor * 100 + patch)

    def header(self, algorithm: str = "EntropyCalibration2") -> str:
        """Return the only first line of a cache that this TensorRT takes."""
        return f"TRT-{self.number}-{algorithm}"

    def model(self, text: str = DENSE, name: str = "model.onnx") -> Path:
        """Write a model that is given as ONNX text."""
        onnx.save_model(make_model(text), self.folder / name)
        return self.folder / name

    def data(self, samples: int = 8, *shape: int, seed: int = 0, name: str = "data.npy") -> NDArray[np.float32]:
        """Write float32 samples to a ``.npy`` and return them."""
        values = np.random.default_rng(seed).normal(size=(samples, *(shape or (3,)))).astype(np.float32)
        np.save(self.folder / name, values)
        return values

    def write(self, name: str, text: str) -> Path:
        """Write a text file."""
        (self.folder / name).write_text(text, encoding="utf-8")
        return self.folder / name

    def run(
        self, *arguments: object, version: str | None = None, knobs: Mapping[str, Any] | None = None, **environment: str
    ) -> Result:
        """Run a command, in a forked process.

        A build does not cross-check its cache unless it is asked to: that is a run of the data on the CPU.
        """
        if "build" in arguments and "--crosscheck" not in arguments:
            arguments = (*arguments, "--no-crosscheck")
        request = self._request(arguments, knobs, environment)
        server = _server(version or self.version)
        assert server.stdin is not None
        assert server.stdout is not None
        server.stdin.write(json.dumps(request) + "\n")
        server.stdin.flush()
        return self._result(request, int(server.stdout.readline()))

    def start(self, *arguments: object, knobs: Mapping[str, Any] | None = None, **environment: str) -> Result:
        """Run a command, in a process that is started as a user would."""
        request = self._request(arguments, knobs, environment)
        command = [sys.executable, "-m", "tests.rig.simulated_cli", self.version, *request["arguments"]]
        with Path(request["out"]).open("wb") as out, Path(request["err"]).open("wb") as err:
            process = subprocess.run(
                command,
                cwd=self.folder,
                env={**os.environ, "PYTHONPATH": str(ROOT), **request["environment"]},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                timeout=120,
                check=False,
            )
        return self._result(request, process.returncode)

    def done(self, *arguments: object, **options: Any) -> Result:
        """Run a command that must succeed, without a fault of the simulation or a line that nobody expects."""
        result = self.run(*arguments, **options)
        assert result.code == 0, result
        assert "Traceback" not in result.err, result.err
        saw = result.saw
        assert (saw["errors"], saw["unimplemented"]) == ([], [])
        return result

    def refused(self, *arguments: object, code: int = 2, **options: Any) -> str:
        """Run a command that must refuse its input, in clear words, and change no file; return these words."""
        before = listing(self.folder)
        result = self.run(*arguments, **options)
        assert result.code == code, result
        assert result.out == ""
        assert "Traceback" not in result.err, result.err
        assert listing(self.folder) == before
        lines = result.err.splitlines()
        # What TensorRT itself said may stand before it.
        assert all(re.match(r"trtcalib: |ERROR: |WARNING: ", line) for line in lines), result.err
        return "\n".join(line.removeprefix("trtcalib: ") for line in lines if line.startswith("trtcalib: "))

    def engine_manifest(self, name: str = "out.engine") -> EngineManifest:
        """Return the manifest beside an engine."""
        return EngineManifest.model_validate_json((self.folder / f"{name}.json").read_bytes())

    def cache_manifest(self, name: str = "out.cache") -> Manifest:
        """Return the manifest beside a cache."""
        return Manifest.model_validate_json((self.folder / f"{name}.json").read_bytes())

    def _request(
        self, arguments: Sequence[object], knobs: Mapping[str, Any] | None, environment: Mapping[str, str]
    ) -> dict[str, Any]:
        self._commands += 1
        notes = self._notes / str(self._commands)
        return {
            "arguments": [str(argument) for argument in arguments],
            "folder": str(self.folder),
            "environment": {
                "COLUMNS": "100",
                "PYTHONDONTWRITEBYTECODE": "1",
                "TRTCALIB_RIG_KNOBS": json.dumps(knobs or {}),
                "TRTCALIB_RIG_RECORD": f"{notes}.npz",
                **environment,
            },
            "out": f"{notes}.out",
            "err": f"{notes}.err",
        }

    @staticmethod
    def _result(request: Mapping[str, Any], code: int) -> Result:
        texts = (Path(request[stream]).read_text(encoding="utf-8") for stream in ("out", "err"))
        return Result(code, *texts, Path(request["environment"]["TRTCALIB_RIG_RECORD"]))


def calibrating_flow(folder: Path, version: str) -> Flow:
    """Return a flow; the calling test is skipped where TensorRT has no calibrators."""
    if int(version.split(".", maxsplit=1)[0]) >= 11:
        pytest.skip("TensorRT 11 has no calibrators")
    return Flow(folder, version)


def joined(batches: Sequence[Mapping[str, NDArray[Any]]]) -> dict[str, NDArray[Any]]:
    """Return the samples of all batches, per input."""
    return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}


@cache
def _server(version: str) -> subprocess.Popen[str]:
    """Start the process that forks for a version's commands; it ends with this one."""
    command = [sys.executable, "-B", "-m", "tests.rig.flow", version]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def end() -> None:
        process.communicate()  # an end of its input ends it

    atexit.register(end)
    return process


def _serve(version: str) -> None:
    """Fork for each request on stdin, and answer with the exit code."""
    from tests.rig import fake_cuda, simulated_cli
    from trtcalib.cli.main import app
    from trtcalib.core.entropy import entropy_amax
    from trtcalib.core.histogram import collect_histogram

    bindings.load(version)
    fake_cuda.load()
    for module in _LOADED_ONCE:
        importlib.import_module(module)
    entropy_amax(collect_histogram([np.ones(8, np.float32)]))  # loads the compiled kernels
    with contextlib.redirect_stdout(io.StringIO()):
        app(["build", "--help"], standalone_mode=False)  # loads what Typer needs to read options
    logging.root.handlers.clear()  # the command that comes sets up its own
    for line in sys.stdin:
        request = json.loads(line)
        child = os.fork()
        if not child:
            _become(request)
            os._exit(_exit_code(lambda request=request: simulated_cli.main(version, request["arguments"])))
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)  # noqa: T201 - the answer


_LOADED_ONCE = (
    "tests.rig.simulated.builder",
    "tests.rig.simulated.parser",
    "tests.rig.simulated.runtime",
    "trtcalib.engine_build",
    "trtcalib.engine_run",
    "trtcalib.trt.buffers",
    "trtcalib.trt.inspection",
    "trtcalib.views.tables",
)
"""What takes long to import. ONNX Runtime is not among them: it has threads, which a fork loses."""


def _exit_code(command: Callable[[], None]) -> int:
    """Run a command that ends with SystemExit, and what it left to do at exit; taking Python apart takes much longer."""
    try:
        command()
    except SystemExit as error:
        code = error.code
    except BaseException:
        traceback.print_exc()
        code = 1
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    return code if isinstance(code, int) else 0


def _become(request: Mapping[str, Any]) -> None:
    """Make a forked process what a newly started one would be."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(request["folder"])
    os.environ.update(request["environment"])
    streams = [(os.devnull, os.O_RDONLY), *((request[name], os.O_WRONLY | os.O_CREAT) for name in ("out", "err"))]
    for number, (path, flags) in enumerate(streams):
        opened = os.open(path, flags, 0o644)
        os.dup2(opened, number)
        os.close(opened)


if __name__ == "__main__":
    _serve(sys.argv[1])
