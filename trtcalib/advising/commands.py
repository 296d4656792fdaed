"""Command lines that advice is followed and seen again with, for the model and the data as the user named them."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trtcalib.accuracy.task import Task

__all__ = ["CACHE", "Commands", "cli_name", "commands_for"]

CACHE = "advised.cache"
"""Beside the advice: the scales that it ends at."""


@dataclass(frozen=True, slots=True)
class Commands:
    """Command lines for the model and the data as the user named them.

    Attributes:
        model: The model.
        judged: Options that say what is calibrated and judged on, for commands that hold samples out only when told.
        data: The option that says what is calibrated on.
        folder: Where results stand.
        max_loss: What may be lost.
    """

    model: str
    judged: tuple[str, ...]
    data: tuple[str, ...]
    folder: str
    max_loss: float = 0.01

    @property
    def advise(self) -> str:
        """The line that does all of it again, on the same samples."""
        judged = [option for option in self.judged if option != "--hold-out"]
        return shlex.join(
            ["trtcalib", "advise", self.model, *judged, "--max-loss", f"{self.max_loss:g}", "-o", self.folder]
        )

    def study(self, command: str, *more: str) -> str:
        """Return the line of an accuracy study."""
        return shlex.join(["trtcalib", command, self.model, *self.judged, *more])

    def calibrate(self, *more: str) -> str:
        """Return the line of a calibration."""
        return shlex.join(["trtcalib", "calibrate", self.model, *self.data, *more])

    def fallback(self, dialects: Mapping[str, str], calibrator: str | None) -> Iterator[str]:
        """Yield a line per tool that is told of nodes to leave in float; the scales are those that the advice ends at.

        Args:
            dialects: How each tool is told, by tool.
            calibrator: What ``--calibrator`` takes; ``None``: a recipe that has no name there.
        """
        model, cache = shlex.quote(self.model), shlex.quote(f"{self.folder}/{CACHE}")
        scales = f"--calibrator {calibrator}" if calibrator is not None else f"--cache {cache} --reuse-cache"
        lines = {
            "qdq": f"trtcalib qdq {model} {cache} {{}} -o model.qdq.onnx",
            "build": f"trtcalib build {model} {shlex.join(self.data)} {scales} --fp16 {{}} -o model.engine",
            "trtexec": f"trtexec --onnx={model} --int8 --fp16 --calib={cache} {{}}",
            "modelopt": f"python -m modelopt.onnx.quantization --onnx_path={model} --calibration_cache_path={cache} {{}}",
        }
        for tool, line in lines.items():
            if tool in dialects:
                yield line.replace("{}", dialects[tool])


def cli_name(recipe: Mapping[str, Any]) -> str | None:
    """Return what ``--calibrator`` takes for a recipe; ``None`` where it needs a YAML file."""
    if recipe.get("range", "doubling") != "doubling" or recipe.get("bins", 2048) != 2048:  # noqa: PLR2004 - the defaults
        return None
    match recipe:
        case {"method": "percentile", "percentile": share}:
            return f"percentile-{share:.15g}"
        case {"method": "entropy", "variant": "tensorrt"} | {"method": "minmax" | "mse"}:
            return str(recipe["method"])
    return None


def commands_for(task: Task, folder: Path, max_loss: float) -> Commands:
    """Return how the user named things; data that have no name on a command line get a placeholder."""
    data = _word(task.data)
    judged = ["--data", data]
    judged += ["--hold-out"] if task.eval_data is None else ["--eval-data", _word(task.eval_data)]
    if task.labels is not None:
        judged += ["--labels", _word(task.labels)]
    if isinstance(task.metric, str):
        judged += ["--metric", task.metric]
    if task.output is not None:
        judged += ["--output-name", task.output]
    grouped = {
        "--batch-size": task.batching.batch_size,
        "--max-samples": task.batching.max_samples,
        "--shuffle": task.batching.shuffle,
    }
    options = [text for name, value in grouped.items() if value is not None for text in (name, str(value))]
    return Commands(str(task.model), (*judged, *options), ("--data", data, *options), str(folder), max_loss)


def _word(given: Any) -> str:
    return str(given) if isinstance(given, str | Path) else "DATA"
