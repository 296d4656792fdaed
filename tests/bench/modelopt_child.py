"""One conversion by NVIDIA ModelOpt, in a process and an environment of its own: ``modelopt_child.py ANSWER.json [MODEL CACHE OUTPUT]``.

Without a model it answers with versions only. It answers through a file, since ModelOpt and ONNX Runtime write to stdout and stderr.
"""

from __future__ import annotations

import json
import sys
from importlib.metadata import version
from pathlib import Path

PACKAGES = ("nvidia-modelopt", "onnxruntime-gpu", "onnx", "torch")


def main(answer: Path, *files: str) -> None:
    """Convert and write what came of it."""
    from modelopt.onnx.quantization import quantize

    found: dict[str, object] = {"versions": {name: _version(name) for name in PACKAGES}}
    if files:
        model, cache, output = files
        try:
            quantize(
                model,
                quantize_mode="int8",
                calibration_cache_path=cache,
                calibration_eps=["cpu"],
                high_precision_dtype="fp32",
                output_path=output,
            )
        except Exception as error:
            found["error"] = f"{type(error).__name__}: {error}"
    answer.write_text(json.dumps(found), encoding="utf-8")


def _version(name: str) -> str:
    try:
        return version(name)
    except ImportError:
        return "missing"


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
