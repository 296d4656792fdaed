"""Samples from a function, Polygraphy's convention; from the command line as ``module:function``, which runs code."""

from __future__ import annotations

import hashlib
import importlib
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trtcalib.errors import DataError, TrtcalibError
from trtcalib.onnx_graph import ModelInput
from trtcalib.samples.feeds import Sample, as_array, check_feed, update_digest

__all__ = ["FunctionSource", "import_function"]

_END = object()


class FunctionSource:
    """A function that returns an iterable of feeds, Polygraphy's convention; called again for each pass."""

    def __init__(self, name: str, function: Callable[[], Iterable[Any]], inputs: Sequence[ModelInput]) -> None:
        self.name = name
        self._function = function
        self._inputs = inputs
        self._last: Iterator[Any] | None = None
        self._digest = hashlib.sha256()
        self._feeds_digested = 0
        firsts = {i.shape[0] if i.shape else None for i in inputs}
        # Rows can be told apart only where every input has a batch axis that may be of any size.
        self._splits = firsts == {None} and all(i.shape is None or i.shape for i in inputs)
        self.whole = not self._splits

    def size(self) -> int | None:
        """Return the number of feeds where the function gives a sequence of single samples."""
        return None

    def samples(self, order: Sequence[int] | None) -> Iterator[Sample]:
        """Call the function and yield its feeds, split into single samples where the batch axis is free."""
        if order is not None:
            raise DataError(
                self.name, "a function gives its samples in its own order: shuffle them there, or save a .npz"
            )
        digest = hashlib.sha256()
        feeds = self._start()
        position = count = 0
        while (feed := self._next(feeds, position)) is not _END:
            arrays = self._checked(feed, position)
            update_digest(digest, arrays)
            count += 1
            if count >= self._feeds_digested:
                # A pass over the first batch alone must not take the place of a whole one.
                self._digest, self._feeds_digested = digest, count
            for sample in self._split(arrays, position):
                yield sample
                position += 1
        if position == 0:
            again = " when it was called again: it must start anew on each call" if self._feeds_digested > count else ""
            raise DataError(self.name, f"the function gave no samples{again}")

    def sha256(self) -> str:
        """Return the digest of what the longest pass gave."""
        return self._digest.hexdigest()

    def _start(self) -> Iterator[Any]:
        try:
            found: Any = self._function()
        except TrtcalibError:
            raise
        except (Exception, SystemExit) as error:  # its sys.exit() must not end ours, with exit code 0
            raise DataError(self.name, f"the function raised {type(error).__name__}: {error}") from error
        if isinstance(found, Iterator) and found is self._last:
            raise DataError(
                self.name,
                "the function returned the same generator again, which can be read only once: make a new one on each call",
            )
        if isinstance(found, Mapping) or not (isinstance(found, Iterable) or hasattr(found, "__getitem__")):
            raise DataError(
                self.name,
                f"the function returned {type(found).__name__}, expected an iterable of feeds: yield them, or return a list",
            )
        self._last = iter(found)
        return self._last

    def _next(self, feeds: Iterator[Any], position: int) -> Any:
        try:
            return next(feeds, _END)
        except TrtcalibError:
            raise
        except (Exception, SystemExit) as error:
            raise DataError(self.name, f"the function raised {type(error).__name__}: {error}", position) from error

    def _checked(self, feed: Any, position: int) -> dict[str, NDArray[Any]]:
        if not isinstance(feed, Mapping):
            raise DataError(
                self.name, f"found {type(feed).__name__}, expected a mapping of input name to array", position
            )
        arrays = {
            str(key): np.asarray(as_array(str(key), value, self.name, position), order="C")
            for key, value in feed.items()
        }
        check_feed(arrays, self._inputs, self.name, str(position))
        return arrays

    def _split(self, arrays: Mapping[str, NDArray[Any]], position: int) -> list[Sample]:
        rows = {len(array) if array.ndim else 1 for array in arrays.values()} if self._splits else {1}
        if len(rows) > 1:
            raise DataError(self.name, f"the inputs have different batch sizes: {sorted(rows)}", position)
        count = rows.pop()
        if count == 1:
            return [Sample(str(position), lambda: arrays)]
        return [
            Sample(str(position + row), lambda row=row: {n: a[row : row + 1] for n, a in arrays.items()})  # type: ignore[misc]  # bound early
            for row in range(count)
        ]


def import_function(text: str, module: str, function: str) -> Callable[[], Iterable[Any]]:
    """Import ``module:function``; this runs the module's code, and is asked for on the command line only."""
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        imported = importlib.import_module(module)
    except ImportError as error:
        raise DataError(text, f"the module {module!r} cannot be imported: {error}") from error
    except (Exception, SystemExit) as error:
        raise DataError(text, f"importing {module!r} raised {type(error).__name__}: {error}") from error
    found = getattr(imported, function, None)
    if found is None:
        raise DataError(text, f"the module {module!r} has no {function!r}")
    if not callable(found):
        raise DataError(text, f"{function!r} is a {type(found).__name__}, expected a function that yields feeds")
    return found  # type: ignore[no-any-return]  # what it returns is checked feed by feed
