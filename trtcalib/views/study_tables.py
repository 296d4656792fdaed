"""A study in the terminal."""

from __future__ import annotations

from collections.abc import Iterator

from rich import box
from rich.table import Table
from rich.text import Text

from trtcalib.study_result import StudiedTensor, Study
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
    ranked = sorted(
        (tensor for tensor in study.tensors if tensor.instability), key=lambda tensor: -(tensor.instability or 0.0)
    )
    if not ranked:
        yield "no scale depends on the batch size or the order"
        return
    yield f"the {min(most, len(ranked))} most unstable of {len(ranked)} tensors that moved at all:"
    for tensor in ranked[:most]:
        index = _moved_most(tensor)
        configuration = study.configurations[index]
        outcome = tensor.outcomes[index]
        yield (
            f"  {shortened(tensor.name, 60)}: scales {100 * (tensor.instability or 0):.3g} % apart; {configuration.name} "
            f"{percent(outcome.change or 0)}: {printable(why(outcome, configuration, study.bins))}"
        )


def _moved_most(tensor: StudiedTensor) -> int:
    return max(range(len(tensor.outcomes)), key=lambda index: abs(tensor.outcomes[index].change or 0))
