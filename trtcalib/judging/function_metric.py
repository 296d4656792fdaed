"""A metric of the user's own: ``function(outputs, label)``; from the command line as ``module:function``, which runs code."""

from __future__ import annotations

import re
import reprlib
import traceback
from collections.abc import Callable
from typing import Any

import numpy as np

from trtcalib.errors import MetricError
from trtcalib.judging.scores import Outputs
from trtcalib.samples.function_source import import_function
from trtcalib.spec_files import brief

__all__ = ["Function", "is_function"]

_FUNCTION = re.compile(r"([A-Za-z_][\w.]*):([A-Za-z_]\w*)")

_LONGEST_SAID = 500
"""Characters of an exception's text that are shown."""

_LAST_FRAMES = 20
"""Frames of a traceback that are shown: those next to the fault."""

_LONGEST_TRACEBACK = 8000
"""Characters of a traceback that are shown, from its end, where the fault stands."""


class Function:
    """A user's ``function(outputs, label)``, which returns a number; higher is better.

    It gets copies of all outputs by name, so that what it changes is changed for nobody else, and the label, ``None``
    where there are none.
    """

    needs_labels = False
    pooled = False
    is_share = False

    def __init__(self, wanted: str | Callable[..., Any]) -> None:
        """Take a function, or import ``module:function``, which runs the module's code.

        Raises:
            DataError: If it cannot be imported.
        """
        if callable(wanted):
            self.name: str = getattr(wanted, "__qualname__", type(wanted).__qualname__)
            self._function = wanted
            return
        match = _FUNCTION.fullmatch(wanted)
        if match is None:
            raise MetricError(brief(wanted), "is no module:function")
        self.name = wanted
        self._function = import_function(wanted, match[1], match[2])

    def score(self, outputs: Outputs, reference: Outputs, label: Any, sample: str) -> float:
        """Return what the function gives as a float; the reference is not looked at."""
        del reference
        copies = {name: array.copy() for name, array in outputs.items()}
        try:
            found = self._function(copies, label)
        except (Exception, SystemExit) as error:  # its sys.exit() must not end ours, with exit code 0
            raise _raised(self.name, sample, error) from error
        number = _number(found)
        if number is None or not np.isfinite(number):
            raise MetricError(self.name, f"returned {_shown(found)}, expected a finite number", sample)
        return number


def is_function(text: str) -> bool:
    """Whether a text has the form ``module:function``."""
    return _FUNCTION.fullmatch(text) is not None


def _raised(metric: str, sample: str, error: BaseException) -> MetricError:
    try:
        text = str(error)[:_LONGEST_SAID]
    except Exception:  # a user's exception may fail to say what it is
        text = "(its text cannot be shown)"
    said = f"raised {type(error).__name__}" + (f": {text}" if text else "")
    # The first frame is ours.
    frames = error.__traceback__.tb_next if error.__traceback__ is not None else None
    if frames is None:
        return MetricError(metric, f"{said}; it is called as function(outputs, label) and returns a number", sample)
    shown = "".join(traceback.format_exception(type(error), error, frames, limit=-_LAST_FRAMES))
    return MetricError(metric, said, sample, shown[-_LONGEST_TRACEBACK:].rstrip())


def _number(found: Any) -> float | None:
    if not isinstance(found, bool | int | float | np.bool_ | np.integer | np.floating):
        return None
    try:
        return float(found)
    except OverflowError:  # an int beyond float64
        return None


def _shown(found: Any) -> str:
    try:
        text = reprlib.repr(found)
    except Exception:  # as of an int with more digits than Python writes
        return f"something of type {type(found).__name__} that cannot be shown"
    return brief(text, quoted=False) if text.isprintable() else brief(text)
