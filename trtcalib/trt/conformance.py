"""What TensorRT-RTX's parser and ahead-of-time builder say of a Q/DQ model, asked in processes of their own, node by node.

TensorRT-RTX is NVIDIA's TensorRT for RTX GPUs. Its parser and builder run without a GPU, so that this is as near to a check by TensorRT as a
machine without one comes: accepted by TensorRT-RTX, ahead of time. The engines are thrown away; nothing is run.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from pathlib import Path

import onnx

from trtcalib.errors import EngineError, MissingPackageError, ModelError, SpecError
from trtcalib.onnx_graph import read_model
from trtcalib.onnx_tensors import subgraphs
from trtcalib.trt.child_process import Ended, run_module
from trtcalib.trt.conformance_values import (
    ANSWER,
    BuildOutcome,
    Built,
    Conformance,
    Failed,
    LayerFacts,
    Missing,
    NodeVerdict,
    Outcome,
    Parsed,
    Refused,
    Request,
    Started,
)
from trtcalib.trt.network_rules import COMPUTED

__all__ = ["COMPUTE_CAPABILITIES", "TIMEOUT", "check_model"]

COMPUTE_CAPABILITIES = (80, 86, 89, 120)
"""What is built for unless others are asked for: Ampere (data centre, GeForce), Ada and Blackwell, all that NVIDIA supports with RTX here."""

TIMEOUT = 300.0
"""Seconds for one compute capability; a detector of 12 MB takes two."""

_CHILD = "trtcalib.trt.conformance_child"

_WEIGHTED = frozenset({"Conv", "ConvTranspose", "MatMul", "Gemm"})

_LONGEST_COMPLAINT = 300

_ONE_NAME = "Input dimensions with this name"
"""In what TensorRT says of axes that the model gives one name, and that got different sizes."""


def check_model(
    path: Path | str,
    *,
    compute_capabilities: Sequence[int] = COMPUTE_CAPABILITIES,
    timeout: float = TIMEOUT,
    shapes: Mapping[str, Mapping[str, Sequence[int]]] | None = None,
) -> Conformance:
    """Parse and build a model with TensorRT-RTX, and judge the network that its parser made.

    Args:
        path: The ONNX model; external data lies beside it.
        compute_capabilities: Such as 86 for SM 8.6; each is built in a process of its own.
        timeout: Seconds for each.
        shapes: Per input with free axes its min, opt and max; a batch alone that is free is 1.

    Raises:
        ModelError: If the file is no ONNX model, or its name is one that TensorRT-RTX cannot be given.
        MissingPackageError: If TensorRT-RTX is not installed.
        SpecError: If a compute capability or shape cannot be had.
        DeviceError: If no process can be started.
        EngineError: If the process ends without an answer, for a reason that is not the model's.
    """
    graph = read_model(path)
    _check_name(graph.path)
    nodes = _weighted_nodes(graph.proto)
    given = {name: {key: tuple(sizes) for key, sizes in ranges.items()} for name, ranges in (shapes or {}).items()}
    found: Conformance | None = None
    for capability in dict.fromkeys(compute_capabilities):
        request = Request(
            model=str(graph.path.absolute()),
            compute_capability=capability,
            every_capability=tuple(dict.fromkeys(compute_capabilities)),
            shapes=given,
        )
        reply = _Reply(graph.path, run_module(_CHILD, request.model_dump_json(), timeout), timeout, nodes)
        if found is None:
            found = reply.beginning(str(path))
        if found.parser != "accepted":
            break
        found = found.model_copy(update={"builds": (*found.builds, reply.build(capability, found.nodes))})
    if found is None:
        raise SpecError("--compute-capability", ("none was given, expected such as 80,86,89,120",))
    return found


def _check_name(path: Path) -> None:
    try:
        str(path.absolute()).encode()
    except UnicodeEncodeError as error:
        raise ModelError(
            ascii(str(path)),
            "this name is no UTF-8, which TensorRT-RTX takes only: give the file and its folders other names",
        ) from error


def _weighted_nodes(proto: onnx.ModelProto) -> dict[str, tuple[str, bool]]:
    """Return the operator of every node by the name that the parser knows it by, and whether it is a weighted one."""
    return {
        node.name or f"node_of_{node.output[0]}": (
            node.op_type,
            node.op_type in _WEIGHTED and node.domain in ("", "ai.onnx"),
        )
        for graph in (proto.graph, *subgraphs(proto.graph))
        for node in graph.node
        if node.name or node.output
    }


class _Reply:
    """What a process said before it ended, and how it ended."""

    def __init__(self, path: Path, ended: Ended, timeout: float, nodes: Mapping[str, tuple[str, bool]]) -> None:
        self._path = path
        self._nodes = nodes
        self._ended = ended
        self._timeout = timeout
        self._version: str | None = None
        self._parsed: Parsed | None = None
        self._built: Built | None = None
        self._is_garbled = False
        for line in ended.output.splitlines():
            self._take(line)

    def _take(self, line: bytes) -> None:
        try:
            answer = ANSWER.validate_json(line)
        except ValueError:
            self._is_garbled = True
            return
        match answer:
            case Started():
                self._version = answer.version
            case Missing():
                raise MissingPackageError("tensorrt_rtx_bindings", answer.reason)
            case Refused():
                raise SpecError(answer.argument, answer.faults)
            case Failed():
                raise EngineError(self._path, f"the check by TensorRT-RTX failed: {answer.reason}")
            case Parsed():
                self._parsed = answer
            case Built():
                self._built = answer

    def beginning(self, model: str) -> Conformance:
        """Return the result as far as the parser goes."""
        parsed = self._parsed
        if parsed is None:
            return Conformance(
                model=model,
                tensorrt_rtx_version=self._version,
                parser=self._how_it_went(),
                parser_faults=(self._reason("the parser", ()),),
            )
        return Conformance(
            model=model,
            tensorrt_rtx_version=self._version,
            parser="accepted" if parsed.accepted else "rejected",
            parser_faults=parsed.faults,
            parser_warnings=parsed.warnings,
            nodes=tuple(_verdicts(parsed.layers, self._nodes)) if parsed.accepted else (),
        )

    def build(self, capability: int, nodes: Sequence[NodeVerdict]) -> BuildOutcome:
        """Return what the builder said."""
        built = self._built
        if built is None:
            reason = self._reason("the builder", nodes)
            return BuildOutcome(compute_capability=capability, outcome=self._how_it_went(), reason=reason)
        return BuildOutcome(
            compute_capability=capability,
            outcome="accepted" if built.accepted else "rejected",
            engine_bytes=built.engine_bytes,
            seconds=built.seconds,
            reason="" if built.accepted else _hinted("; ".join(built.faults) or "the builder gave no reason"),
            warnings=built.warnings,
            told_int8=sum(built.told.values()) if built.told else None,
            told_float=tuple(_node_name(node, self._nodes) for node, is_int8 in built.told.items() if not is_int8),
        )

    def _how_it_went(self) -> Outcome:
        return "timeout" if self._ended.code is None else "crashed"

    def _reason(self, who: str, nodes: Sequence[NodeVerdict]) -> str:
        if self._ended.code is None:
            return f"{who} {self._ended.how} ({self._timeout:g} s): give more with --timeout"
        parts = [f"{who} {self._ended.how}"]
        if self._is_garbled:
            parts.append("what it printed is no answer")
        if self._ended.how.startswith("crashed"):
            computed = next((node for node in nodes if any(COMPUTED in reason for reason in node.reasons)), None)
            parts.append(
                f"a scale that {COMPUTED} is known to do that (seen with 1.7.1)"
                + ("" if computed is None else f", and {computed.node or computed.layer!r} has one")
            )
        lines = self._ended.complaint.strip().splitlines()
        if lines:
            parts.append(f"its last words: {lines[-1][-_LONGEST_COMPLAINT:]}")
        return "; ".join(parts)


def _verdicts(layers: Sequence[LayerFacts], nodes: Mapping[str, tuple[str, bool]]) -> Iterator[NodeVerdict]:
    """Yield a verdict per weighted layer, and one per weighted node that the parser made none of."""
    seen = set()
    for layer in layers:
        name = _node_name(layer.node, nodes)
        seen.add(name)
        yield NodeVerdict(
            node=name or None,
            operator=nodes[name][0] if name in nodes else None,
            layer=layer.layer,
            kind=layer.kind,
            int8_inputs=not layer.reasons,
            reasons=layer.reasons,
        )
    for name, (operator, is_weighted) in nodes.items():
        if is_weighted and name not in seen:
            reason = "the parser made no convolution or matrix multiplication of it"
            yield NodeVerdict(node=name, operator=operator, layer=None, kind=None, int8_inputs=False, reasons=(reason,))


def _node_name(origin: str, nodes: Container[str]) -> str:
    """Return a node's name from the parser's metadata: it comes first, then the subgraphs and functions that it lies in."""
    return origin if origin in nodes else origin.partition(" | ")[0]  # names may hold the bar themselves


def _hinted(reason: str) -> str:
    if _ONE_NAME not in reason:
        return reason
    return f"{reason}: axes of one name must have one size; give equal --shapes, or rename the axes in the model"
