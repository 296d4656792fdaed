"""The process that asks TensorRT-RTX: it parses and builds one model for one compute capability, and prints what came of it.

The only module that imports TensorRT-RTX. It runs in a process of its own because the parser and the builder can crash; each answer is a line
of JSON on stdout, written as soon as it is known, so that the process that waits knows how far this one came. What the libraries print
themselves goes to stderr.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from trtcalib.errors import SpecError
from trtcalib.trt.builder_words import HEADING, told_precisions
from trtcalib.trt.conformance_values import Answer, Built, Failed, Missing, Parsed, Refused, Request, Started

__all__ = ["answer", "main"]

MOST_MESSAGES = 100
"""Warnings and errors of one step that are kept; the rest is counted."""

LONGEST_MESSAGE = 1000
"""Characters of a message that are kept."""

LONGEST_LISTING = 64 << 20
"""Characters that are kept of the builder's list of layers; a layer takes some thousand."""

_NO_DRIVER = "catchCudaError"
"""In the log line that follows every error on a machine without a GPU, and says nothing of the model."""

_WITHOUT_REASON = ("", "false")
"""What the parser gives as the description of a node that it does not know."""

INSTALL = "install it with: pip install 'trtcalib[rtx]' (Linux on x86_64 and Windows on x86_64, Python 3.10 to 3.13)"


def main(text: str) -> None:
    """Answer one request, given as JSON, on stdout."""
    stdout = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    _without_core_dump()

    def say(said: Answer) -> None:
        stdout.write(said.model_dump_json() + "\n")
        stdout.flush()

    try:
        answer(Request.model_validate_json(text), say)
    except SpecError as error:
        say(Refused(argument=str(error.path), faults=error.faults))
    except Exception as error:
        say(Failed(reason=_cut(f"{type(error).__name__}: {error}")))


def _without_core_dump() -> None:
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def answer(request: Request, say: Callable[[Answer], None]) -> None:
    """Parse, judge and build.

    Args:
        request: The model and what to build it for.
        say: Gets each answer when it is known.

    Raises:
        SpecError: If a compute capability or a shape cannot be had.
    """
    try:
        import tensorrt_rtx_bindings as trt
    except (ImportError, OSError) as error:
        absent = isinstance(error, ModuleNotFoundError) and error.name == "tensorrt_rtx_bindings"
        reason = (
            f"it holds NVIDIA's parser and builder; {INSTALL}"
            if absent
            else f"it is installed and cannot be loaded: {error}"
        )
        say(Missing(reason=_cut(reason)))
        return
    say(Started(version=str(trt.__version__)))
    _check_capabilities(trt, request.every_capability)
    log = _log(trt)
    builder = trt.Builder(log)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, log)
    parsed = _parsed(trt, parser, network, request.model, log)
    say(parsed)
    if parsed.accepted:
        built = _built(trt, builder, network, request, log)
        told = told_precisions(log.listing, {layer.node for layer in parsed.layers if layer.node})
        say(built.model_copy(update={"told": told}))


def _check_capabilities(trt: Any, wanted: Sequence[int]) -> None:
    """Refuse what this version has no code for."""
    known = sorted(int(name[2:]) for name in trt.ComputeCapability.__members__ if name.startswith("SM"))
    faults = [
        f"TensorRT-RTX {trt.__version__} does not build for {one}; it builds for {', '.join(map(str, known))}"
        for one in wanted
        if one not in known
    ]
    if faults:
        raise SpecError("--compute-capability", tuple(faults))


def _parsed(trt: Any, parser: Any, network: Any, model: str, log: Any) -> Parsed:
    # From the file, not from memory: external data is found beside it.
    accepted = bool(parser.parse_from_file(model))
    faults = [_parser_fault(parser.get_error(i)) for i in range(min(parser.num_errors, MOST_MESSAGES))]
    errors, warnings = log.taken()
    if not accepted:
        return Parsed(accepted=False, faults=tuple(faults or errors), warnings=warnings)
    from trtcalib.trt.network_rules import judge_network

    # What the parser keeps as errors of a model that it accepts is a warning.
    return Parsed(accepted=True, warnings=(*warnings, *faults), layers=tuple(judge_network(trt, network)))


def _parser_fault(error: Any) -> str:
    name = repr(str(error.node_name())) if error.node_name() else f"number {error.node()}"
    lines = [line for line in str(error.desc()).splitlines() if _NO_DRIVER not in line]
    text = " ".join(" ".join(lines).split())
    if text in _WITHOUT_REASON:
        text = "TensorRT-RTX does not support this operator here"
    return _cut(f"node {name} ({error.node_operator()}): {text}")


def _built(trt: Any, builder: Any, network: Any, request: Request, log: Any) -> Built:
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    capability = getattr(trt.ComputeCapability, f"SM{request.compute_capability}")
    if not config.set_compute_capability(capability, 0):
        errors, _ = log.taken()
        return Built(accepted=False, seconds=0.0, faults=errors or ("it does not take this compute capability",))
    _set_shapes(builder, config, network, request)
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # so that the builder tells its layers
    start = time.perf_counter()
    engine = builder.build_serialized_network(network, config)
    seconds = time.perf_counter() - start
    errors, warnings = log.taken()
    return Built(
        accepted=engine is not None,
        engine_bytes=None if engine is None else int(engine.nbytes),
        seconds=round(seconds, 3),
        faults=errors if engine is None else (),
        warnings=warnings if engine is None else (*errors, *warnings),
    )


def _set_shapes(builder: Any, config: Any, network: Any, request: Request) -> None:
    """Give the builder a profile where inputs have free axes; a free batch is 1 unless shapes were given."""
    inputs = [network.get_input(i) for i in range(network.num_inputs)]
    if not request.shapes and not any(-1 in tuple(tensor.shape) for tensor in inputs):
        return
    from trtcalib.engine_spec import ShapeRange
    from trtcalib.trt.network import input_shapes

    given = {name: ShapeRange(**shapes) for name, shapes in request.shapes.items()}
    profile = builder.create_optimization_profile()
    for name, shape in input_shapes(network, given, 1).items():
        profile.set_shape(name, shape.min, shape.opt, shape.max)
    config.add_optimization_profile(profile)


def _log(trt: Any) -> Any:
    """Return a logger that keeps the first warnings and errors, cut."""

    class Log(trt.ILogger):  # type: ignore[misc]  # tensorrt_rtx_bindings is untyped
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self._kept: dict[bool, list[str]] = {True: [], False: []}
            self._more = {True: 0, False: 0}
            self.listing = ""

        def log(self, severity: Any, message: str) -> None:
            if message.startswith(HEADING):
                self.listing = message[:LONGEST_LISTING]
            grave = severity in (trt.ILogger.Severity.INTERNAL_ERROR, trt.ILogger.Severity.ERROR)
            if (not grave and severity != trt.ILogger.Severity.WARNING) or _NO_DRIVER in message:
                return
            text = _cut(" ".join(message.split()))
            if text in self._kept[grave]:
                return
            if len(self._kept[grave]) < MOST_MESSAGES:
                self._kept[grave].append(text)
            else:
                self._more[grave] += 1

        def taken(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
            """Return errors and warnings since the last call."""
            kept = [
                (*self._kept[grave], *([f"... and {self._more[grave]} more"] if self._more[grave] else []))
                for grave in (True, False)
            ]
            self._kept, self._more = {True: [], False: []}, {True: 0, False: 0}
            return kept[0], kept[1]

    return Log()


def _cut(text: str) -> str:
    # What is no UTF-8 cannot be told on stdout.
    return text[:LONGEST_MESSAGE].encode("utf-8", "replace").decode()


if __name__ == "__main__":
    main(sys.argv[1])
