"""Two models on the same data, tensor by tensor: what a float model gives, and what the one made from it gives."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from trtcalib.batches import Batches, Run, in_order
from trtcalib.collect import default_workers
from trtcalib.errors import ModelError
from trtcalib.onnx_graph import ModelGraph
from trtcalib.passes import Progress
from trtcalib.sessions import Session

__all__ = ["ComparedOutput", "ComparedTensor", "Comparison", "compare_models"]


class _Facts(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class ComparedTensor(_Facts):
    """One tensor of both models."""

    name: str
    sqnr_db: Annotated[
        float | None,
        Field(
            description="10 log10(sum of squares / sum of squared differences) over all samples; null where either is 0 or infinite"
        ),
    ]
    largest_difference: Annotated[float | None, Field(description="in the tensor's units; null where it is no number")]


class ComparedOutput(ComparedTensor):
    """One output of both models."""

    top1_agreement: Annotated[
        float | None,
        Field(description="share of rows along the last axis whose largest element is the same; null for rows of one"),
    ]
    rows: int


class Comparison(_Facts):
    """What two models give on the same samples."""

    samples: int
    outputs: list[ComparedOutput]
    tensors: Annotated[list[ComparedTensor], Field(description="inside the models, in graph order")]


def compare_models(
    reference: ModelGraph,
    other: ModelGraph,
    batches: Batches,
    names: Sequence[str] = (),
    *,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Comparison:
    """Run both models on the same samples and compare what they give; Q/DQ nodes are simulated in float.

    Memory: one sample's tensors of both models per worker.

    Args:
        reference: What the other is held against.
        other: Has the same inputs and outputs.
        batches: The samples.
        names: Tensors inside both models to compare too.
        workers: Threads; ``None``: one per CPU. The result does not depend on it.
        progress: Called with (samples done, samples in all or ``None``).

    Raises:
        ModelError: If the outputs differ, or ONNX Runtime refuses a model.
        DataError: If the samples do not fit.
    """
    outputs = [output.name for output in reference.proto.graph.output]
    if outputs != [output.name for output in other.proto.graph.output]:
        raise ModelError(other.path, f"its outputs are not those of {reference.path}: nothing can be compared")
    asked = list(dict.fromkeys([*outputs, *names]))
    sessions = [Session(model, asked, simulate=True) for model in (reference, other)]
    asked = [name for name in asked if all(name in session.floats for session in sessions)]
    sums = {name: _Sums() for name in asked}

    def work(run: Run) -> list[_Sums]:
        feed = run.load()
        pairs = zip(*(session.run(asked, feed, batches.source.name, run.label) for session in sessions), strict=True)
        return [_differences(a, b) for a, b in pairs]

    threads = workers or default_workers()
    done = 0
    with ThreadPoolExecutor(threads, thread_name_prefix="trtcalib") as pool:
        for run, found in in_order(pool, work, batches.runs(), 2 * threads):
            # In the order of the samples, so that the sums round the same whatever the number of workers.
            for name, part in zip(asked, found, strict=True):
                sums[name] = sums[name].plus(part)
            done += run.samples
            if progress is not None:
                progress(done, batches.samples)
    return Comparison(
        samples=batches.seen,
        outputs=[
            ComparedOutput(**sums[name].facts(name), top1_agreement=sums[name].agreement, rows=sums[name].rows)
            for name in outputs
            if name in sums
        ],
        tensors=[ComparedTensor(**sums[name].facts(name)) for name in asked if name not in outputs],
    )


@dataclass(frozen=True, slots=True)
class _Sums:
    """Sums over samples, float64."""

    signal: float = 0.0
    noise: float = 0.0
    largest: float = 0.0
    rows: int = 0
    same: int = 0

    def plus(self, other: _Sums) -> _Sums:
        return _Sums(
            self.signal + other.signal,
            self.noise + other.noise,
            float(np.fmax(self.largest, other.largest)),
            self.rows + other.rows,
            self.same + other.same,
        )

    @property
    def agreement(self) -> float | None:
        return self.same / self.rows if self.rows else None

    def facts(self, name: str) -> dict[str, Any]:
        ratio = self.signal / self.noise if self.noise > 0 else 0.0
        return {
            "name": name.encode("utf-8", "backslashreplace").decode(),
            "sqnr_db": float(10 * np.log10(ratio)) if 0 < ratio < np.inf else None,
            "largest_difference": self.largest if np.isfinite(self.largest) else None,
        }


def _differences(a: NDArray[Any], b: NDArray[Any]) -> _Sums:
    """Compare one tensor of one sample; tensors of other shapes, as detections after a cut have, share nothing."""
    if a.shape != b.shape:
        return _Sums(signal=float(np.square(a, dtype=np.float64).sum()), noise=float("inf"), largest=float("inf"))
    exact = a.astype(np.float64)
    with np.errstate(invalid="ignore"):
        difference = b - exact
    # Equal infinities, as in attention masks, differ by nothing and carry no signal.
    finite = np.isfinite(exact)
    difference[~finite & (a == b)] = 0
    rows = same = 0
    if a.ndim >= 1 and a.shape[-1] > 1:
        rows = a.size // a.shape[-1]
        same = int((a.argmax(axis=-1) == b.argmax(axis=-1)).sum())
    return _Sums(
        signal=float(np.square(exact[finite]).sum()),
        noise=float(np.square(difference).sum()),
        largest=float(np.abs(difference).max(initial=0)),
        rows=rows,
        same=same,
    )
