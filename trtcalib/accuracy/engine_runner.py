"""An engine on the GPU as something that is judged."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from trtcalib.accuracy.scores import Outputs
from trtcalib.errors import EngineError
from trtcalib.onnx_graph import ModelGraph
from trtcalib.samples.feeds import Feed
from trtcalib.spec_files import brief

if TYPE_CHECKING:
    from trtcalib.trt.inference import LoadedEngine

__all__ = ["EngineRunner", "open_engine"]


class EngineRunner:
    """A loaded engine; where its smallest batch is larger than a feed, the feed's first row fills the rest up.

    Attributes:
        outputs: Names, those of the model that it was built from.
    """

    def __init__(self, engine: LoadedEngine, graph: ModelGraph) -> None:
        """Check that the engine is the model's.

        Raises:
            EngineError: If it takes or gives other tensors.
        """
        self.outputs = tuple(output.name for output in graph.proto.graph.output)
        self._engine = engine
        taken = {i.name for i in engine.inputs}
        for what, ours, theirs in (
            ("inputs", {i.name for i in graph.inputs}, taken),
            ("outputs", set(self.outputs), set(engine.outputs)),
        ):
            if not ours <= theirs:
                raise EngineError(
                    engine.path,
                    f"its {what} are {', '.join(map(brief, sorted(theirs)))}, and {graph.path} has {', '.join(map(brief, sorted(ours)))}: give "
                    "the model that it was built from",
                )

    def run(self, feed: Feed, source: str, label: str) -> Outputs:
        """Return the outputs for one feed."""
        del source, label  # the engine's own errors name the shapes
        rows = {name: array.shape[0] if array.ndim else 1 for name, array in feed.items()}
        missing = self._engine.smallest_batch - max(rows.values(), default=1)
        if missing <= 0:
            found = self._engine.run(feed).arrays
        else:
            filled = {name: np.concatenate([array, np.repeat(array[:1], missing, 0)]) for name, array in feed.items()}
            found = {name: array[:-missing] for name, array in self._engine.run(filled).arrays.items()}
        return {name: found[name] for name in self.outputs}


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
