"""Read a user's YAML file strictly and check it against a model: all faults at once, each with the path of its key."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import yaml
from pydantic import TypeAdapter, ValidationError

from trtcalib.errors import SpecError

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

__all__ = ["Wording", "brief", "nearest", "read_yaml", "validate"]

_LARGEST_FILE = 1 << 20
"""Bytes of the largest YAML file that is read: a spec is a page, and a larger file is a mistake or an attack."""

_LONGEST_SHOWN = 80
"""Characters of a value that a fault shows."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wording:
    """How the faults of one kind of file are worded.

    Attributes:
        keys: The valid keys at the top.
        below: The valid keys further down, by path; ``*`` stands for a name that the user chooses.
        expected: By key, what a value should be, where pydantic would say it in several errors, one per form.
        tags: Tags of a union, which pydantic puts in front of a location and which are no keys.
        special: Words an error itself, or returns ``None``.
        default_key: What is named where a fault has no key.
    """

    keys: Collection[str]
    below: Mapping[tuple[str, ...], Collection[str]] = field(default_factory=dict)
    expected: Mapping[str, str] = field(default_factory=dict)
    tags: Collection[str] = ()
    special: Callable[[ErrorDetails, Mapping[Any, Any]], str | None] = lambda _error, _content: None
    default_key: str = "file"


def validate(adapter: TypeAdapter[T], content: Any, path: Path | str, wording: Wording) -> T:
    """Check what a file holds.

    Raises:
        SpecError: With all faults, in the order of the model's fields.
    """
    if not isinstance(content, dict):
        listed = ", ".join(sorted(wording.keys))
        raise SpecError(path, (f"found {type(content).__name__}, expected a mapping with the keys {listed}",))
    try:
        return adapter.validate_python(content)
    except ValidationError as error:
        faults = tuple(dict.fromkeys(_fault(e, content, wording) for e in error.errors(include_url=False)))
        raise SpecError(path, faults) from error


def _fault(error: ErrorDetails, content: Mapping[Any, Any], wording: Wording) -> str:
    """Say one of pydantic's errors in one line that starts with the key's path."""
    location = list(error["loc"])
    if len(location) > 1 and location[0] in wording.tags:
        del location[0]
    if said := wording.special({**error, "loc": tuple(location) or (wording.default_key,)}, content):
        return said
    parent = next((p for p in wording.below if _matches(p, location)), None)
    # Behind a field stands a position in a list, or which branch of a union was tried.
    depth = 2 if parent is None else len(parent) + 1
    absent = error["type"] == "missing" and len(location) <= depth
    del location[depth:]
    key = ".".join(brief(str(part), quoted=False) for part in location) or wording.default_key
    kind, found = error["type"], error.get("input")
    if kind == "extra_forbidden":
        valid = wording.keys if parent is None else wording.below[parent]
        return f"{key}: unknown key{nearest(str(location[-1]), valid)}; expected one of {', '.join(sorted(valid))}"
    named = location[0] if parent is None and len(location) > 1 else location[-1] if parent is not None else ""
    if named in wording.expected and not absent:
        value: Any = content
        for part in location:
            value = value[part]
        return f"{key}: found {brief(value)}, expected {wording.expected[str(named)]}"
    if absent:
        return f"{key}: this key is missing"
    if kind in ("model_type", "dict_type"):
        return f"{key}: found {brief(found)}, expected a mapping"
    if kind == "value_error":
        return f"{key}: {error['ctx']['error']}"
    message = str(error["msg"])
    return f"{key}: found {brief(found)}, {message[:1].lower()}{message[1:]}"


def _matches(pattern: tuple[str, ...], location: list[Any]) -> bool:
    """Whether a location lies directly or further below a pattern."""
    return len(location) > len(pattern) and all(
        p in ("*", part) for p, part in zip(pattern, location[: len(pattern)], strict=True)
    )


def brief(value: Any, *, quoted: bool = True) -> str:
    """Return a value as a fault shows it: a hostile one may be a megabyte, or hold line ends."""
    text = value if not quoted and value.isprintable() else repr(value)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."


def nearest(word: str, valid: Collection[str]) -> str:
    """Return a hint at the valid word that a wrong one resembles, or nothing."""
    close = difflib.get_close_matches(word, sorted(valid), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


class _StrictLoader(yaml.SafeLoader):
    """Safe YAML without what a spec never needs: duplicate keys (the last would win) and aliases (a bomb's fuse)."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            mark = self.get_mark()
            raise yaml.MarkedYAMLError(problem="aliases are not allowed here", problem_mark=mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002 - PyYAML's signature
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise yaml.MarkedYAMLError(problem=f"the key {key.value!r} stands twice", problem_mark=key.start_mark)
            seen.add(key.value if isinstance(key, yaml.ScalarNode) else None)
        return super().construct_mapping(node, deep=deep)


def read_yaml(path: Path) -> Any:
    """Return what a YAML file holds: plain values only.

    Raises:
        SpecError: If the file is missing, too large, no UTF-8, or no YAML without aliases and duplicate keys.
    """
    try:
        if path.exists() and not path.is_file():
            raise SpecError(path, ("is no regular file",))
        if path.stat().st_size > _LARGEST_FILE:
            raise SpecError(path, (f"the file is over {_LARGEST_FILE} bytes: a spec is a page of YAML",))
        return yaml.load(path.read_text(encoding="utf-8"), Loader=_StrictLoader)  # noqa: S506 - a SafeLoader
    except SpecError:
        raise
    except FileNotFoundError as error:
        raise SpecError(path, ("no such file",)) from error
    except OSError as error:
        raise SpecError(path, (f"cannot be read: {error.strerror}",)) from error
    except UnicodeDecodeError as error:
        raise SpecError(path, ("not a text file in UTF-8",)) from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise SpecError(path, (f"{where}not valid YAML: {error.problem}",)) from error
    except RecursionError as error:
        raise SpecError(path, ("not valid YAML: nested too deeply",)) from error
    except (yaml.YAMLError, ValueError) as error:
        raise SpecError(path, (f"not valid YAML: {str(error).splitlines()[0]}",)) from error
