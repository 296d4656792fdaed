"""Python objects that the real bindings take for TensorRT's C++ objects.

A simulated class names its table of virtual methods and implements some of them as Python methods, marked with
:func:`method`, which says how arguments and result travel. The memory of an object is twelve words:

====  =======================================================================
word  content
====  =======================================================================
0     the vtable of the public class: destructors and few others, or, for the parser's classes, all methods
1     the address of word 4 (the public class forwards to its implementation)
2     the address of a part: what a class that is more than a layer forwards to beside that; else empty
3     empty
4     the vtable of the implementation: all methods
7     how often the object was deleted (stub.c counts)
8-11  spare, for an implementation that is deleted itself
====  =======================================================================

No exception leaves a method: it is kept in ``Simulation.errors`` and the method answers null. A method that is not
implemented answers null too and is kept in ``Simulation.unimplemented``. What was made for C++ is never freed, since
the bindings' destructors may run when the interpreter is gone.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from tests.rig.bindings import stub_library
from tests.rig.simulated.tables import methods_in_order, public_methods_in_order

if TYPE_CHECKING:
    from tests.rig.simulated.record import Simulation

__all__ = [
    "BOOL",
    "DIMS",
    "DIMS_BY_REFERENCE",
    "FLOAT",
    "INT",
    "INT64",
    "OBJECT",
    "POINTER",
    "SIZE",
    "TEXT",
    "WEIGHTS",
    "Simulated",
    "address_of_text",
    "keep",
    "method",
    "object_at",
    "read_dims",
    "write_dims",
]

_WORDS = 12
_WORD = ctypes.sizeof(ctypes.c_void_p)
_PART = 2
_IMPLEMENTATION = 4
_DELETED = 7
_MAX_DIMS = 8
_SPARE_SLOTS = 16

_Word = ctypes.c_void_p


@dataclass(frozen=True, slots=True, eq=False)
class Kind:
    """How a value travels between C++ and a Python method."""

    ctype: Any
    from_c: Callable[[Any], Any] = lambda value: value
    to_c: Callable[[Any], Any] = lambda value: value


_kept: list[Any] = []
ctypes.pythonapi.Py_IncRef(ctypes.py_object(_kept))  # outlives the interpreter, as C++ objects do
_objects: dict[int, Simulated] = {}
_vtables: dict[tuple[type, int], tuple[int, int]] = {}
_texts: dict[str, int] = {}


def keep(value: Any) -> Any:
    """Keep something for as long as the process lives, because C++ may hold its address."""
    _kept.append(value)
    return value


def address_of_text(text: str | None) -> int:
    """Return the address of a text as C++ takes it; null for ``None``."""
    if text is None:
        return 0
    if text not in _texts:
        _texts[text] = ctypes.addressof(keep(ctypes.create_string_buffer(text.encode("utf-8", "surrogateescape"))))
    return _texts[text]


def object_at(address: int | None) -> Any:
    """Return the object that the bindings know by an address; ``None`` for null."""
    return _objects[address] if address else None


INT = Kind(ctypes.c_int32, int, int)
INT64 = Kind(ctypes.c_int64, int, int)
BOOL = Kind(ctypes.c_bool, bool, bool)
SIZE = Kind(ctypes.c_size_t, int, int)
FLOAT = Kind(ctypes.c_float, float, float)
POINTER = Kind(ctypes.c_void_p, lambda value: value or 0, lambda value: value or 0)
TEXT = Kind(
    ctypes.c_void_p,
    lambda value: ctypes.string_at(value).decode("utf-8", "surrogateescape") if value else None,
    address_of_text,
)
OBJECT = Kind(ctypes.c_void_p, object_at, lambda value: value.address if value is not None else 0)
DIMS = Kind(None)
"""Dimensions: in Python a tuple, or ``None`` for the invalid dimensions (-1 of them)."""
WEIGHTS = Kind(None)
"""Weights as a result: in Python the number of a ``DataType``, an address, and how many values stand there."""
DIMS_BY_REFERENCE = Kind(ctypes.c_void_p)
"""Dimensions as an argument that TensorRT 8 passes by reference too."""


def method(result: Kind | None, *arguments: Kind) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Mark a Python method as a virtual method, with the kinds of its result and arguments."""

    def mark(function: Callable[..., Any]) -> Callable[..., Any]:
        function.signature = (result, arguments)  # type: ignore[attr-defined]
        return function

    return mark


class Simulated:
    """A simulated C++ object.

    Attributes:
        address: What the bindings hold.
        simulation: Where everything is recorded.
    """

    TABLE: ClassVar[str]
    """The class whose virtual methods stand in the vtable."""

    def __init__(self, simulation: Simulation) -> None:
        self.simulation = simulation
        self._words = keep((_Word * _WORDS)())
        self.address = ctypes.addressof(self._words)
        inside = self.address + _IMPLEMENTATION * _WORD
        public, implementation = _vtables_of(type(self), simulation.major)
        self._words[0], self._words[1], self._words[_IMPLEMENTATION] = public, inside, implementation
        _objects[self.address] = _objects[inside] = self

    def add_part(self, part: Simulated) -> None:
        """Let the bindings find the implementation of a derived class behind that of its base."""
        self._words[_PART] = part.address + _IMPLEMENTATION * _WORD

    @property
    def deleted(self) -> bool:
        """Whether the bindings have destroyed the object."""
        return bool(self._words[_DELETED])

    @method(None, POINTER)
    def setErrorRecorder(self, recorder):
        self.error_recorder = recorder

    @method(POINTER)
    def getErrorRecorder(self):
        return getattr(self, "error_recorder", 0)


def _vtables_of(cls: type[Simulated], major: int) -> tuple[int, int]:
    """Return the addresses of the public and of the implementation's vtable; made once per class."""
    if (cls, major) not in _vtables:
        methods = _table(cls, methods_in_order(cls.TABLE, major), major)
        public = methods  # the parser's classes have no separate implementation
        if not cls.TABLE.startswith("I"):
            public = _table(cls, public_methods_in_order(cls.TABLE, major), major)
        _vtables[cls, major] = (public, methods)
    return _vtables[cls, major]


def _table(cls: type[Simulated], names: list[str], major: int) -> int:
    """Make the vtable of the named methods."""
    destructors = {"~complete": stub_library().rig_ignore, "~deleting": stub_library().rig_mark_deleted}
    # Methods that a later minor version appended are recorded like those that are not implemented.
    spare = [f"slot {len(names) + index}" for index in range(_SPARE_SLOTS)]
    return _vtable(
        [
            _address_of_function(destructors[name]) if name in destructors else _callback(cls, name, major)
            for name in [*names, *spare]
        ]
    )


def _vtable(slots: list[int]) -> int:
    """Lay out a vtable: offset to top, type information, functions; return where the functions begin."""
    # pybind11 looks at the dynamic type of what it gets; one that it does not know makes it take the static type.
    unknown_type = ctypes.addressof(_Word.in_dll(ctypes.CDLL("libstdc++.so.6"), "_ZTISt9exception"))
    table = keep((_Word * (2 + len(slots)))(0, unknown_type, *slots))
    return ctypes.addressof(table) + 2 * _WORD


def _address_of_function(function: Any) -> int:
    return int(ctypes.cast(function, _Word).value or 0)


def _callback(cls: type[Simulated], name: str, major: int) -> int:
    """Return the address of a C function that calls the Python method, or records that there is none."""
    function = getattr(cls, name.replace("#", "_"), None)
    if function is None or not hasattr(function, "signature"):
        entry: Callable[..., Any] = _missing(f"{cls.TABLE}.{name}")
        prototype = ctypes.CFUNCTYPE(_Word, _Word, _Word)
    else:
        result, arguments = function.signature
        types = [_type_of_dims(major) if kind is DIMS else kind.ctype for kind in arguments]
        if result in (DIMS, WEIGHTS):  # too large for registers: the caller passes where to write it, before the object
            prototype = ctypes.CFUNCTYPE(_Word, _Word, _Word, *types)
        else:
            prototype = ctypes.CFUNCTYPE(result and result.ctype, _Word, *types)
        entry = _entry(name, function, major)
    return _address_of_function(keep(prototype(entry)))


def _missing(name: str) -> Callable[..., int]:
    def entry(first: int, second: int) -> int:
        target = _objects.get(first) or _objects.get(second)  # a result in memory shifts the object by one
        if target is not None:
            target.simulation.unimplemented.append(name)
        sys.stderr.write(f"simulated TensorRT: {name} is not implemented\n")
        return 0

    return entry


def _entry(name: str, function: Callable[..., Any], major: int) -> Callable[..., Any]:
    """Wrap a Python method: arguments from C, result to C, exceptions kept."""
    result, kinds = function.signature  # type: ignore[attr-defined]

    def call(this: int, raw: tuple[Any, ...]) -> Any:
        target = _objects[this]
        try:
            if target.deleted:
                raise RuntimeError("called after the object was deleted")
            arguments = [
                read_dims(value, major) if kind in (DIMS, DIMS_BY_REFERENCE) else kind.from_c(value)
                for kind, value in zip(kinds, raw, strict=True)
            ]
            return function(target, *arguments)
        except BaseException as error:
            target.simulation.keep_error(f"{target.TABLE}.{name}", error)
            return None

    if result is DIMS:

        def entry(out: int, this: int, *raw: Any) -> int:
            write_dims(out, call(this, raw), major)
            return out

    elif result is WEIGHTS:

        def entry(out: int, this: int, *raw: Any) -> int:
            weights = _Weights.from_address(out)
            weights.type, weights.values, weights.count = call(this, raw) or (0, None, 0)
            return out

    else:

        def entry(this: int, *raw: Any) -> Any:  # type: ignore[misc]
            answer = call(this, raw)
            return (
                None if result is None else result.to_c(0 if answer is None and result.ctype is not _Word else answer)
            )

    return entry


class _Dims32(ctypes.Structure):
    _fields_ = (("nbDims", ctypes.c_int32), ("d", ctypes.c_int32 * _MAX_DIMS))


class _Dims64(ctypes.Structure):
    _fields_ = (("nbDims", ctypes.c_int32), ("d", ctypes.c_int64 * _MAX_DIMS))


class _Weights(ctypes.Structure):
    _fields_ = (("type", ctypes.c_int32), ("values", ctypes.c_void_p), ("count", ctypes.c_int64))


def _struct_of_dims(major: int) -> Any:
    return _Dims32 if major < 10 else _Dims64


def _type_of_dims(major: int) -> Any:
    """Return how dimensions are passed: TensorRT 8 passes them by value (where marked so), 10 by reference."""
    return _Dims32 if major < 10 else ctypes.c_void_p


def read_dims(value: Any, major: int) -> tuple[int, ...] | None:
    """Return dimensions from a structure or from an address."""
    dims = _struct_of_dims(major).from_address(value) if isinstance(value, int) else value
    return None if dims.nbDims < 0 else tuple(dims.d[: dims.nbDims])


def write_dims(address: int, shape: tuple[int, ...] | None, major: int) -> None:
    """Write dimensions to an address."""
    dims = _struct_of_dims(major).from_address(address)
    dims.nbDims = -1 if shape is None else len(shape)
    for index, extent in enumerate(shape or ()):
        dims.d[index] = extent
