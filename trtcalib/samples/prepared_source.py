"""Another source whose samples are prepared once more: what they would be with a scale, a mean or a standard deviation that is missing."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from numpy.typing import NDArray

from trtcalib.samples.feeds import DataSource, Feed, Sample

__all__ = ["PreparedSource"]


class PreparedSource:
    """Samples of another source with one input changed.

    Args:
        source: Where they come from.
        name: The input.
        change: Makes the new array; the shape and type stay.
        what: What is changed, for people; part of the digest.
    """

    def __init__(
        self, source: DataSource, name: str, change: Callable[[NDArray[Any]], NDArray[Any]], what: str
    ) -> None:
        self._source = source
        self._input = name
        self._change = change
        self._what = what
        self.name = f"{source.name} ({what})"
        self.whole = source.whole
        self.skipped: Sequence[str] = getattr(source, "skipped", ())

    def size(self) -> int | None:
        """Return the number of samples; ``None`` where only reading tells."""
        return self._source.size()

    def samples(self, order: Sequence[int] | None) -> Iterator[Sample]:
        """Yield the samples, changed when they are loaded."""
        for sample in self._source.samples(order):
            yield replace(sample, load=lambda load=sample.load: self._changed(load()))  # type: ignore[misc]  # bound early

    def sha256(self) -> str:
        """Return the digest of the source with what is changed."""
        text = f"{self._source.sha256()} {self._input} {self._what}"
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()

    def _changed(self, feed: Feed) -> Feed:
        array = feed[self._input]
        return {**feed, self._input: self._change(array).astype(array.dtype)}
