"""What docker/gpu-ci.sh found, judged and put into one table: reads the folder that it filled, and writes ``summary.md`` there.

``python docker/summary.py FOLDER --tensorrt VERSION [--simulated]``, from the repository root. Exit code 1 if anything is wrong.
"""  # noqa: INP001 - a script, not a package

from __future__ import annotations

import argparse
import json
import re
import sys
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
from numpy.typing import NDArray

from trtcalib.core.cache import CalibrationCache, parse_cache

ROOT = Path(__file__).resolve().parent.parent
SAMPLE = ROOT / "data" / "digits"
VALIDATION = ROOT / "data" / "digits-validation.yaml"

ENVIRONMENT = 3
"""trtcalib's exit code for what is missing or of the wrong version."""

MOST_LOSS = 0.02
"""Top-1 that INT8 may lose against FP32, whose 99.6 % leave tests/gpu's limit of 97 % about as much room."""

REFERENCE_BATCH = "batch-32"
"""The batch size that the others are compared with: the one that the engine specs use."""

MOST_CHARACTERS = 300
MOST_LINES = 20

COLUMNS = ("check", "verdict", "seconds", "crosscheck", "top-1", "as FP32", "INT8 layers", "p50", "found")
NOTHING = "-"
NO_RESULT = (
    "Nothing here ran on TensorRT or on a GPU: this is a dry run over a simulated builder, which shows that the script works. "
    "**No number in it is a result.**"
)
LEGEND = (
    "crosscheck: tensors whose scale is our reference's, of those that both have (percentile: an entropy search must not agree). "
    "as FP32: same answer as the model in FP32. p50: median latency of a batch, copies included."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One command that was run; its output stands in ``GROUP/NAME.out`` and ``GROUP/NAME.err``."""

    group: str
    name: str
    expected: int
    code: int
    seconds: int
    command: str

    @property
    def ended_well(self) -> bool:
        """Whether it ended as it should."""
        return self.code == self.expected


@dataclass(slots=True, kw_only=True)
class Row:
    """One row of the table: the steps of a group, what is wrong with them, and a text per column."""

    group: str
    folder: Path
    steps: list[Step]
    faults: list[str] = field(default_factory=list)
    cells: dict[str, str] = field(default_factory=dict)

    def json(self, name: str) -> dict[str, Any]:
        """Return what a step printed."""
        found: dict[str, Any] = json.loads((self.folder / f"{name}.out").read_text(encoding="utf-8"))
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What all rows share.

    Attributes:
        folder: Where everything stands.
        simulated: Whether this is a dry run.
        fp32: The sample model's scores in FP32; ``None`` where no engine ran.
    """

    folder: Path
    simulated: bool
    fp32: NDArray[np.float32] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaleChanges:
    """How the scales of two caches differ.

    Attributes:
        shared: Tensors that both caches list.
        moved: How many of them have other bits.
        alone: Tensors that only one cache lists.
        largest: The largest ratio of two scales of one tensor, 1 or more; infinite where one of them is zero, negative or not
            finite and the other is another one.
        tensor: Where it is; empty if nothing moved.
    """

    shared: int
    moved: int
    alone: int
    largest: float
    tensor: str


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the summary; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tensorrt", default="", metavar="VERSION")
    parser.add_argument("--simulated", action="store_true", help="say everywhere that no GPU was there")
    options = parser.parse_args(arguments)
    rows = make_rows(options.folder, simulated=options.simulated)
    text = as_markdown(rows, options.tensorrt, simulated=options.simulated)
    (options.folder / "summary.md").write_text(text, encoding="utf-8")
    sys.stdout.write(text)
    return int(not rows or any(row.faults for row in rows))


def make_rows(folder: Path, *, simulated: bool) -> list[Row]:
    """Judge everything in a folder."""
    groups: dict[str, list[Step]] = {}
    for step in read_steps(folder / "steps.tsv"):
        groups.setdefault(step.group, []).append(step)
    rows = [Row(group=group, folder=folder / group, steps=steps) for group, steps in groups.items()]
    run = Run(folder=folder, simulated=simulated)
    if any(step.name == "infer" and step.ended_well for row in rows for step in row.steps):
        fp32 = Row(group="FP32", folder=folder, steps=[])
        first_engine = next(n for n, row in enumerate(rows) if any(step.name == "infer" for step in row.steps))
        rows.insert(first_engine, fp32)
        try:
            run = replace(run, fp32=_run_fp32(fp32))
        except Exception as error:
            fp32.faults.append(f"{type(error).__name__}: {error}")
    for row in rows:
        for step in row.steps:
            _judge(row, step, run)
    return rows


def _judge(row: Row, step: Step, run: Run) -> None:
    """Take one step into its row."""
    row.cells["seconds"] = str(sum(step.seconds for step in row.steps))
    if not step.ended_well:
        row.faults.append(f"{step.name}: exit code {step.code}, expected {step.expected}")
    elif step.name in _JUDGES:
        try:
            row.faults += [f"{step.name}: {fault}" for fault in _JUDGES[step.name](row, step, run)]
        except Exception as error:  # whatever a file holds, the other rows must be told
            row.faults.append(f"{step.name}: what it wrote cannot be used: {type(error).__name__}: {error}")


def read_steps(path: Path) -> list[Step]:
    """Return what gpu-ci.sh noted, in its order."""
    steps = []
    for line in path.read_text(encoding="utf-8").splitlines():
        group, name, *numbers, command = line.split("\t", 5)
        expected, code, seconds = map(int, numbers)
        steps.append(Step(group=group, name=name, expected=expected, code=code, seconds=seconds, command=command))
    return steps


# The rows: each function reads what a step wrote, fills cells, and returns what is wrong.


def _doctor(row: Row, _: Step, run: Run) -> list[str]:
    report = row.json("doctor")
    parts = {part["name"]: part["found"] or "none" for part in report["parts"]}
    row.cells["found"] = "; ".join(f"{name}: {parts[name]}" for name in ("NVIDIA GPU", "PyCUDA", "Python"))
    needed = () if run.simulated else ("build", "infer", "engine inspect")
    return [
        f"{job['command']} does not work here: {job['reason']}"
        for job in report["jobs"]
        if job["command"] in needed and not job["works"]
    ]


def _tests(row: Row, _: Step, run: Run) -> list[str]:
    count = count_tests(row.folder / "junit.xml")
    row.cells["found"] = ", ".join(f"{number} {what}" for what, number in count.items())
    if not sum(count.values()):
        return ["no test was collected"]
    if not run.simulated and (count["skipped"] or not count["passed"]):
        return ["with a GPU every test must run, and none may be skipped"]
    return []


def _build(row: Row, step: Step, run: Run) -> list[str]:
    if step.expected == ENVIRONMENT:
        row.cells["found"] = "refused with one error, as it must be: this TensorRT has no calibrators"
        return refusal_faults((row.folder / "build.err").read_text(encoding="utf-8", errors="replace"))
    if row.group.startswith("batch-"):
        other = "entropy" if row.group == REFERENCE_BATCH else REFERENCE_BATCH
        caches = [parse_cache((run.folder / group / "digits.cache").read_bytes()) for group in (other, row.group)]
        row.cells["found"] = change_text(scale_changes(*caches), f"{other}'s")
    return []


def _crosscheck(row: Row, step: Step, _: Run) -> list[str]:
    result = row.json("crosscheck")
    agree, shared = count_agreement(result)
    row.cells["crosscheck"] = f"{agree} of {shared}" + ("" if step.expected == 0 else ", told apart")
    if not shared or result["passed"] != (step.expected == 0):
        return ["what it printed is not what its exit code says"]
    return []


def _inspect(row: Row, _: Step, __: Run) -> list[str]:
    found = row.json("inspect")
    int8 = found["counts"].get("INT8", 0)
    row.cells["INT8 layers"] = f"{int8} of {len(found['layers'])}"
    return [] if int8 else ["no layer runs in INT8"]


def _infer(row: Row, _: Step, run: Run) -> list[str]:
    timing = row.json("infer")
    row.cells["p50"] = f"{timing['p50_ms']:.3f} ms for {timing['batch_size']}"
    scores = read_outputs(row.folder / "outputs.npz")
    right = accuracy(scores, _labels())
    row.cells["top-1"] = f"{right:.2%}"
    if run.fp32 is None:
        return ["there is no FP32 to compare with"]
    row.cells["as FP32"] = f"{accuracy(scores, run.fp32.argmax(axis=1)):.2%}"
    loss = accuracy(run.fp32, _labels()) - right
    return [f"top-1 is {loss:.2%} below FP32's, more than {MOST_LOSS:.0%}"] if loss > MOST_LOSS else []


_JUDGES: dict[str, Callable[[Row, Step, Run], list[str]]] = {
    "doctor": _doctor,
    "pytest": _tests,
    "build": _build,
    "crosscheck": _crosscheck,
    "inspect": _inspect,
    "infer": _infer,
}


def _run_fp32(row: Row) -> NDArray[np.float32]:
    scores = fp32_outputs()
    row.cells["top-1"] = f"{accuracy(scores, _labels()):.2%}"
    row.cells["found"] = "ONNX Runtime on the CPU: what the engines are compared with"
    return scores


# What is computed


def scale_changes(old: CalibrationCache, new: CalibrationCache) -> ScaleChanges:
    """Compare the scales of two caches, tensor by tensor."""
    before, after = old.scales, new.scales
    shared = [name for name in before if name in after]
    moved = [name for name in shared if before[name].tobytes() != after[name].tobytes()]
    ratios = {name: scale_ratio(float(before[name]), float(after[name])) for name in moved}
    tensor = max(moved, key=lambda name: ratios[name], default="")
    return ScaleChanges(
        shared=len(shared),
        moved=len(moved),
        alone=len(before.keys() ^ after.keys()),
        largest=ratios.get(tensor, 1.0),
        tensor=tensor,
    )


def scale_ratio(a: float, b: float) -> float:
    """Return the larger scale over the smaller, infinite unless both are positive and finite."""
    if not (0 < a < np.inf and 0 < b < np.inf):
        return np.inf
    return max(a / b, b / a)


def change_text(changes: ScaleChanges, reference: str) -> str:
    """Say how two caches differ."""
    alone = f"; {changes.alone} tensors stand in one cache only" if changes.alone else ""
    if not changes.moved:
        return f"all {changes.shared} scales are {reference}{alone}"
    most = f"most by a factor of {changes.largest:.4g}: {changes.tensor}"
    return f"{changes.moved} of {changes.shared} scales are not {reference}, {most}{alone}"


def count_agreement(found: dict[str, Any]) -> tuple[int, int]:
    """Return how many tensors agree, of how many that both have, from crosscheck's JSON."""
    shared = [tensor for tensor in found["tensors"] if tensor["ours"] is not None]
    return sum(bool(tensor["agrees"]) for tensor in shared), len(shared)


def count_tests(report: Path) -> dict[str, int]:
    """Return how many tests passed, failed and were skipped, from pytest's own report."""
    suite = ET.parse(report).getroot().find("testsuite")  # noqa: S314 - our own pytest wrote it
    if suite is None:
        raise ValueError("the report holds no test suite")
    count = {name: int(suite.get(name, 0)) for name in ("tests", "failures", "errors", "skipped")}
    failed = count["failures"] + count["errors"]
    return {"passed": count["tests"] - failed - count["skipped"], "failed": failed, "skipped": count["skipped"]}


def accuracy(scores: NDArray[Any], labels: NDArray[Any]) -> float:
    """Return the share of rows whose largest score is the label's.

    Raises:
        ValueError: If there is not one row per label, or a score is not finite.
    """
    if scores.ndim != 2 or len(scores) != len(labels) or not len(labels):  # noqa: PLR2004 - rows and classes
        raise ValueError(f"scores have shape {scores.shape}, expected ({len(labels)}, classes)")
    if not np.isfinite(scores).all():
        raise ValueError("a score is NaN or infinite")
    return float(np.mean(scores.argmax(axis=1) == labels))


def read_outputs(path: Path) -> NDArray[Any]:
    """Return the one output of ``trtcalib infer``, one row per sample."""
    with np.load(path) as outputs:
        (scores,) = (outputs[name] for name in outputs.files)
    return np.asarray(scores).reshape(len(scores), -1)


def fp32_outputs() -> NDArray[np.float32]:
    """Return the sample model's scores on the validation images, by ONNX Runtime."""
    import onnxruntime

    from trtcalib.onnx_graph import read_model
    from trtcalib.samples.sources import open_source

    model = SAMPLE / "model.onnx"
    feeds = [sample.load() for sample in open_source(VALIDATION, read_model(model).inputs).samples(None)]
    joined = {name: np.concatenate([feed[name] for feed in feeds]) for name in feeds[0]}
    session = onnxruntime.InferenceSession(model.read_bytes(), providers=["CPUExecutionProvider"])
    (scores,) = session.run(None, joined)
    return np.asarray(scores, np.float32)


def refusal_faults(said: str) -> list[str]:
    """Return what is wrong with how calibrators were refused: it must be one line of ours, and say what to do."""
    lines = [line for line in said.splitlines() if line.startswith("trtcalib: ")]
    if len(lines) != 1:
        return [f"expected one line of error, found {len(lines)}"]
    faults = [] if "Q/DQ" in lines[0] else ["the error does not name Q/DQ models"]
    return faults + (["it printed a traceback"] if "Traceback" in said else [])


def _labels() -> NDArray[Any]:
    return np.asarray(np.load(SAMPLE / "validation-labels.npy"))


# Markdown


def as_markdown(rows: Sequence[Row], tensorrt: str, *, simulated: bool) -> str:
    """Return the table, and below it what failed."""
    mark = "SIMULATED " if simulated else ""
    lines = [f"# {mark}GPU CI: TensorRT {escape(tensorrt or 'of unknown version')}", ""]
    if simulated:
        lines += [NO_RESULT, ""]
    lines += [_line(COLUMNS), _line(["---"] * len(COLUMNS))]
    for row in rows:
        found = "; ".join([*row.faults, *filter(None, [row.cells.get("found")])])
        cells = {
            **row.cells,
            "check": mark + row.group,
            "verdict": mark + ("FAILED" if row.faults else "ok"),
            "found": found,
        }
        lines.append(_line([escape(cells.get(column) or NOTHING) for column in COLUMNS]))
    lines += ["", LEGEND]
    for row in rows:
        for step in row.steps:
            if not step.ended_well:
                lines += ["", *_failure(row, step)]
    return "\n".join(lines) + "\n"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _failure(row: Row, step: Step) -> list[str]:
    """Return the end of what a failed step said, as a code block that it cannot leave."""
    said = [row.folder / f"{step.name}.{stream}" for stream in ("err", "out")]  # pytest's words go to stdout
    text = next(
        (path.read_text(encoding="utf-8", errors="replace") for path in said if path.exists() and path.stat().st_size),
        "",
    )
    last = [_printable(line)[:MOST_CHARACTERS] for line in [step.command, *text.splitlines()[-MOST_LINES:]]]
    runs = (len(run) for line in last for run in re.findall("`+", line))
    fence = "`" * max(3, 1 + max(runs, default=0))
    return [f"**{escape(row.group)}: {escape(step.name)}**, exit code {step.code}:", "", fence, *last, fence]


def escape(text: str) -> str:
    """Return a text as Markdown that shows it, on one line of a table: no markup, no link, no control character."""
    shown = _printable(" ".join(text.split()))
    if len(shown) > MOST_CHARACTERS:
        shown = shown[:MOST_CHARACTERS] + "…"
    return re.sub(r"([\\`*_\[\]<>|&~#$@!])", r"\\\1", shown).replace("://", r":\//")


def _printable(text: str) -> str:
    """Replace control characters, invisible ones and halves of surrogates."""
    return "".join("\ufffd" if unicodedata.category(character).startswith("C") else character for character in text)


if __name__ == "__main__":
    sys.exit(main())
