"""Names that TensorRT's parser made, such as ``(Unnamed Layer* 4) [Fully Connected]_output``: which tensors of the model they may be.

What is known of them: the number counts layers in network order, and the brackets hold the layer's kind. A proposal is a guess from the order,
for a person to check; nothing applies it by itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml

from trtcalib.errors import SpecError
from trtcalib.onnx_graph import ModelGraph
from trtcalib.qdq.wiring import is_standard
from trtcalib.spec_files import brief, nearest

__all__ = ["as_yaml", "propose_names", "renamed"]

_PARSER_MADE = re.compile(r"\(Unnamed Layer\* ([0-9]{1,9})\) \[([A-Za-z ]{1,80})\]_output(?:_[0-9]{1,4})?")

_OPERATORS: dict[str, frozenset[str]] = {
    "Activation": frozenset({"Relu", "Sigmoid", "Tanh", "LeakyRelu", "Elu", "Selu", "Clip", "HardSigmoid", "Softplus"}),
    "Concatenation": frozenset({"Concat"}),
    "Convolution": frozenset({"Conv"}),
    "Deconvolution": frozenset({"ConvTranspose"}),
    "ElementWise": frozenset({"Add", "Sub", "Mul", "Div", "Pow", "Max", "Min", "Sum"}),
    "Fully Connected": frozenset({"Gemm", "MatMul"}),
    "Gather": frozenset({"Gather", "GatherElements", "GatherND"}),
    "Matrix Multiply": frozenset({"MatMul", "Gemm"}),
    "Normalization": frozenset({"LayerNormalization", "InstanceNormalization", "GroupNormalization"}),
    "Pooling": frozenset({"MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool"}),
    "Reduce": frozenset({"ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceProd", "GlobalAveragePool"}),
    "Resize": frozenset({"Resize", "Upsample"}),
    "Scale": frozenset({"BatchNormalization"}),
    "Shuffle": frozenset({"Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten"}),
    "Slice": frozenset({"Slice", "Split"}),
    "Softmax": frozenset({"Softmax"}),
    "Unary": frozenset({"Sqrt", "Exp", "Log", "Abs", "Neg", "Erf", "Sin", "Cos", "Reciprocal"}),
}
"""ONNX operators that a kind of layer may have come from. ``Fully Connected`` is what a real cache shows; the other spellings, and all of
the pairing, are ours."""


@dataclass(frozen=True, slots=True)
class _Made:
    """A name of the parser's: its layer's number and kind, and between which tensors of the model it stands in the cache."""

    name: str
    number: int
    kind: str
    after: int
    before: int


def renamed(
    scales: Mapping[str, np.float32], names: Mapping[str, str], model: ModelGraph, path: Path
) -> dict[str, np.float32]:
    """Return scales under the model's names; a tensor's own line in the cache wins over a mapped one.

    Args:
        scales: As in the cache.
        names: The model's tensor for a name of the cache.
        model: The model.
        path: Where the names were read from.

    Raises:
        SpecError: If a name is not the cache's, or a tensor not the model's; all of them at once.
    """
    known = _tensors(model)
    faults = [
        f"{brief(n, quoted=False)}: is no name of the cache{nearest(n, scales)}" for n in names if n not in scales
    ]
    faults += [
        f"{brief(name, quoted=False)}: {brief(tensor)} is no tensor of {model.path}{nearest(tensor, known)}"
        for name, tensor in names.items()
        if tensor not in known
    ]
    if faults:
        raise SpecError(path, tuple(faults))
    return {
        **{names.get(name, name): scale for name, scale in scales.items()},
        **{n: s for n, s in scales.items() if n not in names},
    }


def propose_names(model: ModelGraph, names: Sequence[str]) -> dict[str, str]:
    """Return the tensor that each name of TensorRT's parser most likely is, where order and kind leave one answer.

    Args:
        model: The model.
        names: Of the cache, in its order.
    """
    graph = model.proto.graph
    positions = {name: index for index, node in enumerate(graph.node) for name in node.output if name}
    made = _parser_made(names, positions)
    listed = set(names)
    proposals: dict[str, str] = {}
    for kind, operators in _OPERATORS.items():
        group = sorted((each for each in made if each.kind == kind), key=lambda each: each.number)
        free = [
            node.output[0]
            for node in graph.node
            if is_standard(node) and node.op_type in operators and any(node.output[:1]) and node.output[0] not in listed
        ]
        proposals |= dict(_paired(group, [name for name in free if name not in proposals.values()], positions))
    return {name: proposals[name] for name in names if name in proposals}


def as_yaml(proposals: Mapping[str, str]) -> str:
    """Return the proposals as the YAML that ``--names`` takes."""
    text: str = yaml.safe_dump(dict(proposals), sort_keys=False, allow_unicode=True, width=10_000)
    return text


def _parser_made(names: Sequence[str], positions: Mapping[str, int]) -> list[_Made]:
    known = [positions.get(name) for name in names]
    ordered = [position for position in known if position is not None]
    # Only where the cache follows the graph do a name's neighbours say where in the graph it stands.
    follows = ordered == sorted(ordered)
    found = []
    for index, name in enumerate(names):
        match = _PARSER_MADE.fullmatch(name)
        if match is not None:
            after = [p for p in known[:index] if p is not None] if follows else []
            before = [p for p in known[index:] if p is not None] if follows else []
            found.append(
                _Made(
                    name, int(match[1]), match[2], after[-1] if after else -1, before[0] if before else len(positions)
                )
            )
    return found


def _paired(group: Sequence[_Made], free: Sequence[str], positions: Mapping[str, int]) -> Iterator[tuple[str, str]]:
    """Yield pairs where the numbers are equal: of a whole kind, or else between two neighbours."""
    if len(group) == len(free):
        yield from ((made.name, name) for made, name in zip(group, free, strict=True))
        return
    for after, before in dict.fromkeys((made.after, made.before) for made in group):
        here = [made for made in group if (made.after, made.before) == (after, before)]
        between = [name for name in free if after < positions[name] < before]
        if len(here) == len(between):
            yield from ((made.name, name) for made, name in zip(here, between, strict=True))


def _tensors(model: ModelGraph) -> set[str]:
    graph = model.proto.graph
    return {name for node in graph.node for name in node.output if name} | {info.name for info in graph.input}
