"""The benchmark: ``python tests/bench/run.py [--quick] [--json FILE]``; prints Markdown tables of ratios.

Not a test and not collected by pytest: ratios on a shared machine swing too much to pass or fail by.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from ablation import ablation_section
from accuracy import accuracy_section
from collection import collection_section
from large import large_section
from planted_faults import planted_section
from processes import calibrator_section, memory_section, start_up_section
from qdq import qdq_section
from report import Section, markdown
from search import search_section
from sensitivity import sensitivity_section
from studies import study_section

from trtcalib.collect import default_workers
from trtcalib.sessions import SESSION_OPTIONS

PACKAGES = (
    "trtcalib",
    "onnxruntime",
    "onnx",
    "numpy",
    "numba",
    "scipy",
    "nudenet",
    "rapidocr-onnxruntime",
    "scikit-image",
    "tensorrt-rtx-cu12-bindings",
)


def main() -> None:
    """Run the sections that were asked for."""
    arguments = _arguments()
    quick, workers = arguments.quick, arguments.workers
    sections: dict[str, Callable[[], Section]] = {
        "search": lambda: search_section(quick=quick),
        "collection": lambda: collection_section(quick=quick, workers=workers),
        "calibrator": lambda: calibrator_section(quick=quick, workers=workers),
        "memory": lambda: memory_section(quick=quick, workers=workers),
        "start-up": start_up_section,
        "large": large_section,
        "study": lambda: study_section(quick=quick, workers=workers),
        "qdq": lambda: qdq_section(quick=quick, workers=workers),
        "ablation": lambda: ablation_section(quick=quick, workers=workers),
        "sensitivity": lambda: sensitivity_section(quick=quick, workers=workers),
        "accuracy": lambda: accuracy_section(quick=quick, workers=workers, modelopt=arguments.modelopt),
        "planted": lambda: planted_section(workers=workers),
    }
    setting = _setting(workers)
    print("\n".join(f"- {name}: {value}" for name, value in setting.items()), end="\n\n")
    found: dict[str, Any] = {"setting": setting, "quick": quick}
    for name in arguments.only or sections:
        print(f"{name} ...", file=sys.stderr)
        section = sections[name]()
        print(markdown(section), flush=True)
        found[name] = section.facts
        if arguments.json is not None:
            arguments.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few pictures and rounds: to see that it runs")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers there as well")
    parser.add_argument("--workers", type=int, default=default_workers(), help="threads (default: one per CPU)")
    parser.add_argument(
        "--modelopt",
        type=Path,
        metavar="PYTHON",
        help="for accuracy: interpreter of an environment with nvidia-modelopt[onnx]",
    )
    names = [
        "search",
        "collection",
        "calibrator",
        "memory",
        "start-up",
        "large",
        "study",
        "qdq",
        "ablation",
        "sensitivity",
        "accuracy",
        "planted",
    ]
    parser.add_argument("--only", nargs="+", choices=names, metavar="SECTION", help=", ".join(names))
    return parser.parse_args()


def _setting(workers: int) -> dict[str, str]:
    return {
        "machine": f"{_processor()}, {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f} at the start",
        "Python": f"{platform.python_version()} on {platform.system()}",
        "packages": ", ".join(f"{name} {_version(name)}" for name in PACKAGES),
        "workers x threads": f"{workers} x {SESSION_OPTIONS['intra_op_num_threads']}",
        "session options": ", ".join(str(value) for value in SESSION_OPTIONS.values()),
    }


def _processor() -> str:
    """Return the processor's name, where the system tells it."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "from the source tree" if name == "trtcalib" else "missing"


if __name__ == "__main__":
    main()
