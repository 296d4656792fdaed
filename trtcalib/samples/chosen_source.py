"""Some samples of another source, as a source of their own: the part to calibrate on, and the part that is held out."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

from trtcalib.errors import DataError
from trtcalib.samples.feeds import DataSource, Sample

__all__ = ["ChosenSource"]


class ChosenSource:
    """Samples of another source, chosen by position.

    Args:
        source: Where they come from; it must know its size.
        positions: Which, ascending.
        part: What an error calls them: ``the held-out samples``.

    Raises:
        DataError: If the source's samples have no random order, or none is chosen.
    """

    def __init__(self, source: DataSource, positions: Sequence[int], part: str) -> None:
        if source.size() is None:
            raise DataError(source.name, "its samples can be read in one order only, so that no part can be chosen")
        if not positions:
            raise DataError(source.name, f"{part} would be none: there are too few samples")
        self._source = source
        self._positions = list(positions)
        self.name = f"{source.name} ({part})"
        self.whole = source.whole
        self.skipped: Sequence[str] = getattr(source, "skipped", ())

    def size(self) -> int:
        """Return how many samples were chosen."""
        return len(self._positions)

    def samples(self, order: Sequence[int] | None) -> Iterator[Sample]:
        """Yield them, in the source's order or in the given one."""
        chosen = self._positions if order is None else [self._positions[index] for index in order]
        return self._source.samples(chosen)

    def sha256(self) -> str:
        """Return the digest of the source with the positions."""
        text = f"{self._source.sha256()} {self._positions}"
        return hashlib.sha256(text.encode()).hexdigest()
