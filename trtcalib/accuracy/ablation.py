"""Which method for which part: the model judged with only its weights, only its activations, and both in INT8, per method."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from trtcalib.accuracy.result import Ablation, AblationCell, AblationRow, Score
from trtcalib.accuracy.rounds import Rounds, Steps
from trtcalib.accuracy.simulation import Choice, Simulation, WeightParts, check_quantized
from trtcalib.accuracy.study_folder import open_journal, result_folder
from trtcalib.accuracy.task import OpenTask, Task, open_task
from trtcalib.accuracy.used_scales import used_part
from trtcalib.accuracy.weight_search import SearchedSimulation
from trtcalib.calibration import Calibration, solve
from trtcalib.collect import default_workers
from trtcalib.errors import SpecError
from trtcalib.files import write_files
from trtcalib.judging.paired import Scored, gain_interval
from trtcalib.judging.scores import Metric
from trtcalib.methods import describe
from trtcalib.onnx_graph import ModelGraph
from trtcalib.passes import Progress
from trtcalib.provenance import portable_name
from trtcalib.specs import Recipe, load_recipe

__all__ = ["JOURNAL", "METHODS", "RESULT", "AblationViews", "ablate"]

METHODS = (
    "minmax",
    "entropy",
    "percentile-99.9",
    "percentile-99.99",
    "percentile-99.999",
    "percentile-99.9999",
    "mse",
)
"""Rows of the literature's tables, and mse."""

RESULT = "ablation.json"

JOURNAL = "ablation.journal"
"""What is judged already, in the result's folder while the job is under way."""

AblationViews = Callable[[Ablation], Mapping[str, bytes]]
"""Gives further files for the folder, by name, from the finished result."""

_BOTH = "both"

_COLUMNS: dict[str, tuple[bool, WeightParts]] = {
    "weights per tensor": (False, "tensor"),
    "weights per channel": (False, "channel"),
    "activations": (True, "float"),
    _BOTH: (True, "channel"),
}
"""Of every row, in this order: whether activations are quantized, and how the weights are."""

_WEIGHTS_OF_BOTH = "minmax"

_BOTH_NOTE = (
    "both: activations by the row's method, weights per channel by their largest magnitude, which is what TensorRT does; the columns of weights "
    "alone apply the row's method to the weights"
)


def ablate(
    task: Task,
    output: Path | str,
    *,
    methods: Sequence[str | Path | Recipe] = METHODS,
    views: AblationViews | None = None,
    progress: Progress | None = None,
) -> Ablation:
    """Judge each method on weights alone (per tensor, per channel), activations alone, and both, from one collection pass.

    The histograms are collected once; all methods are solved from them. Variants are judged several at a time, so that FP32 runs once for
    each group. What is judged is noted in ``ablation.journal``, from which the same call goes on after an interruption; not where
    the judged data come from a function, since only calling it to its end tells what they are.

    Of methods whose loss is equal the one with the least noise at the judged output is the best. A method cannot be told from the best where 0 lies in the 95 % interval of the paired difference of
    the two on the same samples.

    Args:
        task: Model, data, labels and metric.
        output: Folder for ``ablation.json``.
        methods: Names or recipes, all of one range policy and number of bins, for the rows in this order.
        views: Makes more files, which are written together with the result.
        progress: Called with (samples done, samples in all or ``None``), each variant's samples counted.

    Raises:
        SpecError: If a method is unknown, stands twice, or needs other histograms than the first.
        ModelError: If the model has no weighted node.
        OutputError: If the results cannot be written.
        TrtcalibError: One of its kinds, for input that cannot be used.
    """
    recipes = _recipes(methods)
    opened = open_task(task)
    simulation = SearchedSimulation(opened.graph, recipes, task.workers or default_workers())
    empty = simulation.plan(Choice(scales={}))
    if empty.of == 0:
        check_quantized(opened.graph, empty)
    folder = Path(output)
    extra = [f"ablation.{kind}" for kind in ("md", "png")] if views is not None else []
    with result_folder(folder, [RESULT, JOURNAL, *extra], task):
        size = opened.samples.batches.samples
        cells = len(recipes) * len(_COLUMNS)
        steps = Steps(progress, None if size is None else size * cells)
        calibration = opened.calibrate(recipes[0], steps.calibration)
        used = used_part(calibration, simulation)
        check_quantized(opened.graph, simulation.plan(Choice(scales=used.scales)))
        with open_journal(folder / JOURNAL, opened, used.histograms) as journal:
            rounds = Rounds(opened.graph, opened.samples, journal, task.workers, steps)
            scored = rounds.judge(_variants(simulation, used, recipes))
            assert rounds.reference is not None  # for the type checker: there is a method
            result = _result(opened, calibration, recipes, scored, rounds.reference, folder)
            files = {RESULT: f"{result.model_dump_json(indent=2)}\n".encode(), **(views(result) if views else {})}
            write_files({folder / name: content for name, content in files.items()})
    return result


def _recipes(methods: Sequence[str | Path | Recipe]) -> list[Recipe]:
    """Read the methods; every row has a name of its own, and all can be solved from the same histograms."""
    recipes = [load_recipe(method) for method in methods]
    if not recipes:
        raise SpecError("methods", (f"there is none; expected some, such as {', '.join(METHODS)}",))
    names = [describe(recipe) for recipe in recipes]
    faults = [f"{name}: stands there {names.count(name)} times" for name in sorted(set(names)) if names.count(name) > 1]
    first = recipes[0]
    faults += [
        f"{name}: asks for range {recipe.range!r} and {recipe.bins} bins, and {names[0]} for {first.range!r} and {first.bins}; one pass collects "
        "one kind of histogram"
        for name, recipe in zip(names, recipes, strict=True)
        if (recipe.range, recipe.bins) != (first.range, first.bins)
    ]
    if faults:
        raise SpecError("methods", tuple(faults))
    return recipes


def _variants(
    simulation: Simulation, used: Calibration, recipes: Sequence[Recipe]
) -> dict[str, Callable[[], ModelGraph]]:
    """Return how each cell's model is made, by the name that the journal has it under."""
    variants: dict[str, Callable[[], ModelGraph]] = {}
    for recipe in recipes:
        scales = solve(used, recipe).scales
        for column in _COLUMNS:
            variants[_key(recipe, column)] = partial(_make, simulation, _choice(column, scales, recipe))
    return variants


def _choice(column: str, scales: Mapping[str, np.float32], recipe: Recipe) -> Choice:
    activations, weights = _COLUMNS[column]
    if activations:
        return Choice(scales=scales, weights=weights)
    return Choice(scales=scales, activations=False, weights=weights, weight_recipe=recipe)


def _make(simulation: Simulation, choice: Choice) -> ModelGraph:
    return simulation.model(simulation.plan(choice))


def _key(recipe: Recipe, column: str) -> str:
    return f"{column} {recipe.model_dump_json()}"


def _result(
    opened: OpenTask,
    calibration: Calibration,
    recipes: Sequence[Recipe],
    scored: Mapping[str, Scored],
    reference: Score,
    folder: Path,
) -> Ablation:
    both = {describe(recipe): scored[_key(recipe, _BOTH)] for recipe in recipes}
    best = min(both, key=lambda name: (both[name].judgement.loss, both[name].noise))
    facts = opened.facts(calibration, folder)
    facts["notes"] += [_BOTH_NOTE]
    return Ablation(
        **facts,
        reference=reference,
        rows=[_row(recipe, scored) for recipe in recipes],
        best=portable_name(best),
        indistinguishable=[portable_name(name) for name in _like(best, both, opened.metric)],
    )


def _row(recipe: Recipe, scored: Mapping[str, Scored]) -> AblationRow:
    method = portable_name(describe(recipe))
    cells = [
        AblationCell(
            activations=activations,
            weights=weights,
            weight_method=None if weights == "float" else _WEIGHTS_OF_BOTH if activations else method,
            judgement=scored[_key(recipe, column)].judgement,
        )
        for column, (activations, weights) in _COLUMNS.items()
    ]
    return AblationRow(method=method, recipe=recipe.model_dump(mode="json"), cells=cells)


def _like(best: str, both: Mapping[str, Scored], metric: Metric) -> Iterator[str]:
    """Yield the methods that cannot be told from the best."""
    for name, scored in both.items():
        if name != best and gain_interval(scored, both[best], metric).holds(0):
            yield name
