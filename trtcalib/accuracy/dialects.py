"""How tools are told to leave nodes out of INT8: each has its own list, and its own language of patterns."""

from __future__ import annotations

import fnmatch
import re
import shlex
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import onnx

from trtcalib.provenance import portable_name
from trtcalib.qdq.placement import WEIGHTED
from trtcalib.spec_files import brief

__all__ = ["Dialects", "dialects"]

_CONSIDERED = frozenset({*WEIGHTED, "Add"})
"""Operators that ``trtcalib qdq`` asks its patterns about: weighted ones, and skip Adds."""

_LISTED = ","
"""What parts the names of ``--fallback`` and ``--layerPrecisions``; neither has a way to write it otherwise."""

_OF_TRTEXEC = ":*"
"""What trtexec besides reads as the start of a precision, and as a pattern."""

_ENDS = ("$", r"\Z")
"""Ends of a regular expression: the first, which is better known, is found before a line end at the end of a name, too."""


@dataclass(frozen=True, slots=True)
class Dialects:
    """What can be told.

    Attributes:
        lines: Options by tool, ready to be pasted into a POSIX shell. Each names exactly the nodes that were asked for.
        notes: For each tool that cannot be told, why not: it has no line, since one that leaves a node out would not bring what was found.
    """

    lines: dict[str, str]
    notes: tuple[str, ...]


class _UntoldError(Exception):
    """Why a tool's list cannot hold a node."""


def dialects(nodes: Sequence[onnx.NodeProto], outputs: Sequence[str]) -> Dialects:
    """Return how each tool is told to leave nodes out of INT8.

    - ``qdq``: regular expressions that :func:`re.search` looks for in a node's name and outputs.
    - ``build``: ``fp16:LAYER,LAYER``, each a name or a pattern of :mod:`fnmatch`. TensorRT's parser names layers after nodes.
    - ``trtexec``: ``NAME:fp16,...``, which is to be obeyed; the command itself says ``--int8 --fp16``. ``build`` sets the same flags.
    - ``modelopt``: regular expressions that are matched from the start of a node's name.

    Args:
        nodes: All nodes of the model.
        outputs: First outputs of those to leave in float.
    """
    tools: dict[str, Callable[[_Names, list[onnx.NodeProto]], str]] = {
        "qdq": _qdq,
        "build": _build,
        "trtexec": _trtexec,
        "modelopt": _modelopt,
    }
    names = _Names(nodes)
    wanted = {node.output[0]: node for node in nodes if node.output}
    chosen = [wanted[output] for output in outputs]
    lines, notes = {}, []
    for tool, tell in tools.items() if chosen else ():
        try:
            lines[tool] = tell(names, chosen)
        except _UntoldError as error:
            notes.append(f"{tool} cannot be told of the nodes to leave in float: {error}")
    return Dialects(lines, tuple(notes))


class _Names:
    """Tells whether a pattern finds one node alone."""

    def __init__(self, nodes: Sequence[onnx.NodeProto]) -> None:
        self._count = Counter(node.name for node in nodes)
        self._considered = [node for node in nodes if node.op_type in _CONSIDERED]

    def of(self, node: onnx.NodeProto) -> str:
        """Return a name that no other node has."""
        shown = brief(portable_name(node.name or (node.output[0] if node.output else "")))
        if not node.name:
            raise _UntoldError(f"it knows nodes by name, and the one that makes {shown} has none")
        if self._count[node.name] > 1:
            raise _UntoldError(f"{self._count[node.name]} nodes are called {shown}")
        return str(node.name)

    def plain(self, node: onnx.NodeProto, forbidden: str) -> str:
        """Return a name of printable characters without these, which no other node has."""
        name = self.of(node)
        found = sorted({c for c in name if c in forbidden or not c.isprintable()})
        if found:
            held = " and ".join(map(repr, found))
            raise _UntoldError(f"its list has no way to write the {held} of {brief(portable_name(name))}")
        return name

    def pattern(self, node: onnx.NodeProto) -> str:
        """Return a regular expression that is found in this node's name or output and in no other's that may be quantized."""
        for text in (text for text in (node.name, *node.output) if text):
            for end in _ENDS:
                pattern = f"^{_escaped(text)}{end}"
                if [each for each in self._considered if _is_found(pattern, each)] == [node]:
                    return pattern
        shown = brief(portable_name(node.name or node.output[0]))
        raise _UntoldError(f"name and outputs of {shown} are those of other nodes as well")

    def whole(self, node: onnx.NodeProto) -> str:
        """Return a regular expression that matches this node's name and no other's."""
        name = _escaped(self.of(node))
        patterns = [f"^{name}{end}" for end in _ENDS]
        return next(p for p in patterns if sum(bool(re.match(p, other)) for other in self._count) == 1)

    def glob(self, node: onnx.NodeProto) -> str:
        """Return a pattern of fnmatch that is this node's name alone."""
        name = self.plain(node, _LISTED)
        edges = len(name) - len(name.lstrip()), len(name.rstrip())
        # White space at the ends is taken off where the list is read.
        special = [c in "*?[" or not edges[0] <= i < edges[1] for i, c in enumerate(name)]
        pattern = "".join(f"[{c}]" if is_special else c for c, is_special in zip(name, special, strict=True))
        found = [other for other in self._count if other == pattern or fnmatch.fnmatchcase(other, pattern)]
        if found != [name]:
            raise _UntoldError(f"{brief(portable_name(name))} cannot be told from {brief(portable_name(found[0]))}")
        return pattern


def _is_found(pattern: str, node: onnx.NodeProto) -> bool:
    return any(re.search(pattern, text) for text in (node.name, *node.output) if text)


def _escaped(text: str) -> str:
    """Return a text as a regular expression of printable characters."""
    return "".join(re.escape(c) if c.isprintable() else _code(c) for c in text)


def _code(character: str) -> str:
    """Return a character as Python's regular expressions write it by its number: two, four or eight digits."""
    number = ord(character)
    return f"\\x{number:02x}" if number < 1 << 8 else f"\\u{number:04x}" if number < 1 << 16 else f"\\U{number:08x}"


def _qdq(names: _Names, nodes: list[onnx.NodeProto]) -> str:
    return " ".join(f"--exclude {shlex.quote(names.pattern(node))}" for node in nodes)


def _build(names: _Names, nodes: list[onnx.NodeProto]) -> str:
    return f"--fallback {shlex.quote('fp16:' + _LISTED.join(names.glob(node) for node in nodes))}"


def _trtexec(names: _Names, nodes: list[onnx.NodeProto]) -> str:
    told = _LISTED.join(f"{names.plain(node, _LISTED + _OF_TRTEXEC)}:fp16" for node in nodes)
    return f"--precisionConstraints=obey --layerPrecisions={shlex.quote(told)}"


def _modelopt(names: _Names, nodes: list[onnx.NodeProto]) -> str:
    patterns = (shlex.quote(names.whole(node)) for node in nodes)
    return f"--nodes_to_exclude {' '.join(patterns)}"
