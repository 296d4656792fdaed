"""An engine on the GPU as something that is judged."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from trtcalib.errors import DataError, EngineError
from trtcalib.judging.scores import Outputs
from trtcalib.onnx_graph import ModelGraph
from trtcalib.samples.feeds import Feed, shape_text
from trtcalib.spec_files import brief

if TYPE_CHECKING:
    from trtcalib.trt.inference import LoadedEngine

__all__ = ["EngineRunner", "open_engine"]

_MOST_LISTED = 8
"""Tensors that an error lists; hostile models have thousands."""


class EngineRunner:
    """A loaded engine; where its smallest batch is larger than a feed, the feed's first row fills the rest up.

    Attributes:
        outputs: Names, those of the model that it was built from.
    """

    def __init__(self, engine: LoadedEngine, graph: ModelGraph) -> None:
        """Check that the engine is the model's.

        Raises:
            EngineError: If it takes or gives other tensors, or takes another type of number.
        """
        self.outputs = tuple(output.name for output in graph.proto.graph.output)
        self._engine = engine
        ours, theirs = {i.name for i in graph.inputs}, {i.name for i in engine.inputs}
        if ours != theirs:
            raise _other_tensors(engine, graph, "inputs", ours, theirs)
        if not set(self.outputs) <= set(engine.outputs):
            raise _other_tensors(engine, graph, "outputs", set(self.outputs), set(engine.outputs))
        self._dtypes = {i.name: i.dtype for i in engine.inputs}
        for wanted in graph.inputs:
            found = self._dtypes[wanted.name]
            if not np.can_cast(wanted.dtype, found, "same_kind"):
                raise EngineError(
                    engine.path, f"its input {brief(wanted.name)} is {found}, and that of {graph.path} {wanted.dtype}"
                )

    def run(self, feed: Feed, source: str, label: str) -> Outputs:
        """Return the outputs for one feed.

        Raises:
            DataError: If the feed lies outside the engine's profile, or holds numbers that the engine's type does not.
            EngineError: If TensorRT reports a failure, or the outputs of a batch that was filled up do not count its samples.
        """
        taken = {name: self._cast(name, array, source, label) for name, array in feed.items()}
        # Of the input that the engine's smallest batch is told of.
        rows = next((feed[i.name].shape[0] for i in self._engine.inputs if feed[i.name].ndim), 1)
        missing = self._engine.smallest_batch - rows
        if missing <= 0:
            found = self._engine.run(taken).arrays
            return {name: found[name] for name in self.outputs}
        found = self._engine.run({name: _filled(array, rows, missing) for name, array in taken.items()}).arrays
        for name in self.outputs:
            if found[name].shape[:1] != (rows + missing,):
                raise EngineError(
                    self._engine.path,
                    f"its smallest batch is {rows + missing}, and output {brief(name)} has shape {shape_text(found[name].shape)}, so that "
                    f"samples cannot be judged one by one: build it with a smallest batch of {rows}",
                )
        return {name: found[name][:rows] for name in self.outputs}

    def _cast(self, name: str, array: NDArray[Any], source: str, label: str) -> NDArray[Any]:
        """Return an array as the engine takes it: 32-bit integers where the model has 64, half precision where it has single."""
        cast = array.astype(self._dtypes[name], copy=False)
        if array.dtype.kind in "iu" and (cast != array).any():
            raise DataError(source, f"input {brief(name)} holds numbers that the engine's {cast.dtype} does not", label)
        return cast


def _other_tensors(
    engine: LoadedEngine, graph: ModelGraph, what: str, ours: Collection[str], theirs: Collection[str]
) -> EngineError:
    listed = [", ".join(map(brief, sorted(names)[:_MOST_LISTED])) for names in (theirs, ours)]
    return EngineError(
        engine.path,
        f"its {what} are {listed[0]}, and {graph.path} has {listed[1]}: give the model that it was built from",
    )


def _filled(array: NDArray[Any], rows: int, missing: int) -> NDArray[Any]:
    return np.concatenate([array, np.repeat(array[:1], missing, 0)]) if array.shape[:1] == (rows,) else array


@contextlib.contextmanager
def open_engine(engine: Path, graph: ModelGraph) -> Iterator[EngineRunner]:
    """Load an engine, which runs its code: it must be one that is trusted.

    Raises:
        EngineError: If it cannot be loaded, or is not the model's.
        DeviceError: If there is no GPU.
        MissingPackageError: If TensorRT is not installed.
    """
    from trtcalib.trt.buffers import open_device
    from trtcalib.trt.inference import LoadedEngine
    from trtcalib.trt.require import import_tensorrt

    import_tensorrt()  # the first thing that people miss is the first that is told
    with contextlib.closing(open_device()) as device, LoadedEngine(engine, device) as loaded:
        yield EngineRunner(loaded, graph)
