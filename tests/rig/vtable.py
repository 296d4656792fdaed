"""Call objects that Python hands to TensorRT the way TensorRT does: from C++, through their vtables.

A calibrator, a logger or a progress monitor that is written in Python is a C++ object to TensorRT, with one function
pointer per virtual method. The order of these is a fact of NVIDIA's public headers; it differs between the major
versions. Everything here is ctypes: no compiler, no header, no TensorRT.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

__all__ = ["UNTOUCHED", "CalibratorDriver", "CppObject", "LoggerDriver", "ProgressMonitorDriver", "address_of"]

UNTOUCHED = 0xDEADBEEF
"""What stands in place of a device pointer before a calibrator has written one; counted up per input."""

_Pointer = ctypes.c_void_p
_VERSIONED = ("getAPILanguage", "getInterfaceInfo", "~complete", "~deleting")
_CALIBRATOR = ("getBatchSize", "getBatch", "readCalibrationCache", "writeCalibrationCache", "getAlgorithm")
_MONITOR = ("phaseStart", "stepComplete", "phaseFinish")

_SIGNATURES: dict[str, tuple[Any, ...]] = {
    "getBatchSize": (ctypes.c_int32,),
    "getBatch": (ctypes.c_bool, ctypes.POINTER(_Pointer), ctypes.POINTER(ctypes.c_char_p), ctypes.c_int32),
    "readCalibrationCache": (_Pointer, ctypes.POINTER(ctypes.c_size_t)),
    "writeCalibrationCache": (None, _Pointer, ctypes.c_size_t),
    "getAlgorithm": (ctypes.c_int32,),
    "log": (None, ctypes.c_int32, ctypes.c_char_p),
    "phaseStart": (None, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_int32),
    "stepComplete": (ctypes.c_bool, ctypes.c_char_p, ctypes.c_int32),
    "phaseFinish": (None, ctypes.c_char_p),
}
"""Result and argument types per method; every one takes the object itself first."""


def address_of(instance: object) -> int:
    """Return the address of the C++ object that a pybind11 instance holds: the word behind the Python object's head."""
    word = ctypes.cast(id(instance) + object.__basicsize__, ctypes.POINTER(_Pointer))
    return int(word[0] or 0)


class CppObject:
    """A C++ object that is called through its vtable.

    Attributes:
        address: Where the object is.
        instance: The Python object, kept alive; ``None`` if only an address was given.
    """

    def __init__(self, target: object, methods: Sequence[str]) -> None:
        """Take an object that the bindings made, or the address of one, and its virtual methods in order."""
        self.instance = None if isinstance(target, int) else target
        self.address = target if isinstance(target, int) else address_of(target)
        self._slots = {name: slot for slot, name in enumerate(methods)}

    def call(self, method: str, *arguments: Any) -> Any:
        """Call a virtual method."""
        result, *types = _SIGNATURES[method]
        table = ctypes.cast(_word_at(self.address), ctypes.POINTER(_Pointer))
        function = ctypes.CFUNCTYPE(result, _Pointer, *types)(table[self._slots[method]])
        return function(self.address, *arguments)


class CalibratorDriver(CppObject):
    """Calls an INT8 calibrator as TensorRT's builder does."""

    def __init__(self, calibrator: object, major: int) -> None:
        """Take a calibrator, or the address of its C++ object, and TensorRT's major version: 8 or 10."""
        super().__init__(calibrator, _CALIBRATOR if major < 10 else (*_VERSIONED, *_CALIBRATOR))
        self._given: list[Any] = []

    def algorithm(self) -> int:
        """Return the number of a ``CalibrationAlgoType``."""
        return int(self.call("getAlgorithm"))

    def batch_size(self) -> int:
        """Return the batch size; -1 when the Python method failed."""
        return int(self.call("getBatchSize"))

    def batch(self, names: Sequence[str | bytes]) -> tuple[bool, list[int]]:
        """Ask for a batch: whether there is one, and an address per input.

        Where the calibrator wrote nothing, the address is still ``UNTOUCHED + index``; to TensorRT it is whatever was
        on its heap.
        """
        pointers = (_Pointer * len(names))(*[UNTOUCHED + index for index in range(len(names))])
        encoded = [name if isinstance(name, bytes) else name.encode() for name in names]
        answered = self.call("getBatch", pointers, (ctypes.c_char_p * len(names))(*encoded), len(names))
        return bool(answered), [int(pointer or 0) for pointer in pointers]

    def read(self) -> bytes | None:
        """Return the calibration cache that the calibrator answers with, copied at once; ``None`` for a null pointer."""
        pointer, length = self.read_pointer()
        return ctypes.string_at(pointer, length) if pointer else None

    def read_pointer(self) -> tuple[int, int]:
        """Return where the answered cache lies and its length: the memory may be gone at the next call."""
        length = ctypes.c_size_t(0)
        pointer = self.call("readCalibrationCache", ctypes.byref(length))
        return int(pointer or 0), length.value

    def write(self, cache: bytes) -> None:
        """Hand the calibrator a cache, in memory that stays as it is."""
        self._write(cache)

    def write_then_overwrite(self, cache: bytes) -> None:
        """Hand the calibrator a cache in memory that is used for something else afterwards, as TensorRT's is.

        Who kept the view that Python got sees ``#`` in place of the cache; who copied it is right.
        """
        memory = self._write(cache)
        ctypes.memset(memory, ord("#"), len(cache))

    def _write(self, cache: bytes) -> Any:
        memory = ctypes.create_string_buffer(cache, len(cache) + 1)
        self._given.append(memory)  # so that a view that was kept wrongly reads wrong bytes and does not crash
        self.call("writeCalibrationCache", ctypes.addressof(memory), len(cache))
        return memory


class LoggerDriver(CppObject):
    """Calls a logger as TensorRT does."""

    def __init__(self, logger: object, major: int) -> None:
        """Take a logger, or the address of its C++ object, and TensorRT's major version."""
        super().__init__(logger, ("log",) if major < 11 else (*_VERSIONED, "log"))

    def log(self, severity: int, message: str) -> None:
        """Log a message; the severity is the number of a ``Logger.Severity``."""
        self.call("log", int(severity), message.encode())


class ProgressMonitorDriver(CppObject):
    """Calls a progress monitor as TensorRT 10 and later do."""

    def __init__(self, monitor: object) -> None:
        """Take a progress monitor, or the address of its C++ object."""
        super().__init__(monitor, (*_VERSIONED, *_MONITOR))

    def phase_start(self, phase: str, parent: str | None, steps: int) -> None:
        """Tell that a phase begins."""
        self.call("phaseStart", phase.encode(), None if parent is None else parent.encode(), steps)

    def step_complete(self, phase: str, step: int) -> bool:
        """Tell that a step is done; ``False`` asks to cancel the build."""
        return bool(self.call("stepComplete", phase.encode(), step))

    def phase_finish(self, phase: str) -> None:
        """Tell that a phase has ended."""
        self.call("phaseFinish", phase.encode())


def _word_at(address: int) -> int:
    return int(ctypes.cast(address, ctypes.POINTER(_Pointer))[0] or 0)
