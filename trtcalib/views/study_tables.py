"""A study in the terminal."""

from __future__ import annotations

import math
from collections.abc import Iterator

from rich import box
from rich.table import Table
from rich.text import Text

from trtcalib.batch_study.result import StudiedTensor, Study
from trtcalib.views.text import printable, shortened
from trtcalib.views.text_study import percent, why

__all__ = ["configuration_table", "unstable_lines"]


def configuration_table(study: Study) -> Table:
    """Show each configuration: how many tensors moved from the reference, and the furthest."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("configuration", "batches", "moved > 1 %", "furthest"):
        table.add_column(heading, justify="left" if heading in ("configuration", "furthest") else "right")
    for index, configuration in enumerate(study.configurations):
        batches = str(configuration.batches)
        if configuration.last_batch_samples != configuration.batch_size:
            batches += f" (last: {configuration.last_batch_samples})"
        furthest = _furthest(study, index)
        table.add_row(
            configuration.name,
            batches,
            f"{configuration.moved:.0%}",
            Text(furthest),
            style="bold" if index == 0 else None,
        )
    return table


def _furthest(study: Study, index: int) -> str:
    changes = [
        (abs(outcome.change), outcome.change, tensor.name)
        for tensor in study.tensors
        if tensor.outcomes and (outcome := tensor.outcomes[index]).change
    ]
    if not changes:
        return "the reference" if index == 0 else ""
    _, change, name = max(changes)
    return f"{percent(change)} {shortened(name, 60)}"


def unstable_lines(study: Study, most: int) -> Iterator[str]:
    """Yield the tensors that batch size and order move most, each with the configuration that moved it furthest and why."""
    # Where a scale goes past float32, no number tells how far it moved: further than all others.
    ranked = sorted((tensor for tensor in study.tensors if tensor.outcomes and tensor.instability != 0), key=_stability)
    if not ranked:
        yield "no scale depends on the batch size or the order"
        return
    yield f"the {min(most, len(ranked))} most unstable of {len(ranked)} tensors that moved at all:"
    for tensor in ranked[:most]:
        index = _moved_most(tensor)
        configuration = study.configurations[index]
        outcome = tensor.outcomes[index]
        apart = "past float32 in some" if tensor.instability is None else f"{100 * tensor.instability:.3g} % apart"
        moved = "not to be told in per cent" if outcome.change is None else percent(outcome.change)
        yield (
            f"  {shortened(tensor.name, 60)}: scales {apart}; {configuration.name} {moved}: "
            f"{printable(why(outcome, configuration, study.bins))}"
        )


def _stability(tensor: StudiedTensor) -> float:
    return -math.inf if tensor.instability is None else -tensor.instability


def _moved_most(tensor: StudiedTensor) -> int:
    changes = [math.inf if outcome.change is None else abs(outcome.change) for outcome in tensor.outcomes]
    return changes.index(max(changes))
