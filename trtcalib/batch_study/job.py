"""What is studied, and how its samples are grouped."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trtcalib.batch_study.configurations import Layout
from trtcalib.batches import Batches, Batching, plan_batches
from trtcalib.input_checks import WatchedSource
from trtcalib.onnx_graph import ModelGraph
from trtcalib.specs import Recipe

__all__ = ["Job"]


@dataclass(frozen=True, slots=True)
class Job:
    """What all steps need."""

    graph: ModelGraph
    data: Any
    source: WatchedSource
    output: Path
    recipe: Recipe
    max_samples: int | None
    skip_bad_images: bool
    tensorrt_version: str
    workers: int

    def batches(self, layout: Layout) -> Batches:
        """Plan the batches of a layout."""
        batching = Batching(batch_size=layout.batch_size, max_samples=self.max_samples, shuffle=layout.shuffle)
        return plan_batches(self.source, self.graph.fixed_batch, batching)

    def digest(self, known: str) -> str:
        """Return the data's digest after a pass."""
        return self.source.sha256() if self.source.size() is None else known
