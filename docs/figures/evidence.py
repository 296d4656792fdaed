"""Hold every rule, and the readings that real caches reject, against caches that TensorRT wrote; print the page's tables.

    python docs/figures/evidence.py [--golden FOLDER]

The caches and the models and inputs that they were made from may not be redistributed, so they are not in this
repository; by default they are looked for in ``../shared/golden``, beside the checkout. Exit code 2 without them.
"""

# ruff: noqa: INP001, T201 - scripts of one page, not a package; tables go to stdout

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from activations import ROOT, activations
from numpy.typing import NDArray
from readings import SEARCHES, Search, pick, scale_of, with_range
from tables import markdown

from trtcalib.core.entropy import VARIANTS, entropy_amax
from trtcalib.core.histogram import Histogram, collect_histogram
from trtcalib.core.scale import bits_from_scale, scale_from_amax, scale_from_bits, ulp_distance

MOST_ULP = 8
"""A scale this close is the same: GPU and CPU sums differ, and a neighbouring bin is thousands of ULP away."""

COLUMNS = {
    "lenet_mnist_trt7202": "7.2.2 LeNet",
    "add_scalar_trt8204": "8.2.4 add",
    "add_scalar_trt100001": "10.0.1 add",
    "qwen3_rotary_trt10300": "10.3.0 rotary",
    "scalars": "7.2.3, 10.10.0 scalars",
}

RANGES = {
    "R is the maximum of all batches": "global",
    "R stays the first batch's maximum": "first",
    "R becomes the square of the new maximum": "square",
    "more bins of the first batch's width": "extend",
    "4096 bins of the first batch's width": "wide",
    "all values counted at the final range, none clamped earlier": "final",
    "index rounded to the nearest bin": "rounded",
    "index computed in float64": "float64",
    "1024 bins": "bins 1024",
    "4096 bins": "bins 4096",
}

LENET = "lenet_mnist_trt7202"
LENET_IMAGES = 500
LAYOUT_SIZES = (1, 10, 16, 20, 25, 32, 50, 100, 250, 500)
LAYOUT_BATCHES = (1, 5, 8, 9, 10)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One tensor of a real cache.

    Attributes:
        column: Key of :data:`COLUMNS`.
        name: As in the cache.
        batches: Its values, one array per calibration batch.
        golden: The bits that TensorRT wrote.
        histogram: What the rules collect from the values.
    """

    column: str
    name: str
    batches: Sequence[NDArray[np.float32]]
    golden: int
    histogram: Histogram


def main() -> int:
    """Print the tables; 2 when there are no caches to check against."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--golden", type=Path, default=ROOT.parent / "shared" / "golden", metavar="FOLDER")
    parser.add_argument("--quick", action="store_true", help="leave out the readings that need a loop over candidates")
    arguments = parser.parse_args()
    folder = arguments.golden
    if not folder.is_dir():
        print(f"evidence.py: {folder}: no such folder; it must hold the caches that TensorRT wrote", file=sys.stderr)
        return 2
    cases = load_cases(folder)
    print(
        markdown(
            "tensors", ("cache", "tensor", "doublings", "m", "TensorRT", "rules", "ULP"), tensor_rows(cases), texts=2
        )
    )
    print(markdown("evidence", ("reading", *COLUMNS.values(), "all"), evidence_rows(cases, quick=arguments.quick)))
    print(markdown("layout", ("batch size", *map(str, LAYOUT_SIZES)), layout_rows(cases)))
    print(markdown("batches", ("batches of 50", *map(str, LAYOUT_BATCHES)), batches_rows(cases)))
    print(markdown("clamp", ("LeNet tensor", "doublings", "m, the rules", "m, none clamped"), clamp_rows(cases)))
    return 0


def load_cases(folder: Path) -> list[Case]:
    """Read the golden folder and run its models."""
    cases = []
    for column in COLUMNS:
        if column == "scalars":
            rows = json.loads((folder / "scalar_constants.json").read_text(encoding="utf-8"))["rows"]
            cases += [
                _case(column, row["tensor"], [np.array([row["absmax"]], np.float32)], row["golden"]) for row in rows
            ]
            continue
        meta = json.loads((folder / column / "meta.json").read_text(encoding="utf-8"))
        names = [row["onnx_tensor"] for row in meta["reproduction"]]
        values = activations(folder / column / "model.onnx", _inputs(folder / column), names, meta["batch_size"])
        for row in meta["reproduction"]:
            cases.append(_case(column, row["cache_name"], values[row["onnx_tensor"]], row["golden"]))
    return cases


def _case(column: str, name: str, batches: Sequence[NDArray[np.float32]], golden: str) -> Case:
    histogram = collect_histogram(batches)
    return Case(column=column, name=name, batches=batches, golden=int(golden, 16), histogram=histogram)


def _inputs(folder: Path) -> NDArray[np.float32]:
    arrays = np.load(folder / "inputs.npz")
    if "images" in arrays:
        return np.asarray(arrays["images"][:, np.newaxis] / np.float32(255), np.float32)
    return np.asarray(next(iter(arrays.values())), np.float32)


def tensor_rows(cases: Sequence[Case]) -> Iterator[tuple[str, ...]]:
    """Yield one row per tensor: what TensorRT wrote and what the rules give."""
    for case in cases:
        scale = scale_from_amax(entropy_amax(case.histogram))
        yield (
            COLUMNS[case.column],
            f"`{case.name}`",
            str(case.histogram.doublings),
            str(pick(case.histogram.counts)),
            f"`{case.golden:x}`",
            f"`{bits_from_scale(scale):x}`",
            str(ulp_distance(scale, scale_from_bits(case.golden))),
        )


def evidence_rows(cases: Sequence[Case], *, quick: bool = False) -> Iterator[tuple[str, ...]]:
    """Yield one row per reading: tensors matched of tensors tested, per cache."""
    yield _row("**the rules**", cases, partial(_by_range, "doubling"))
    for name, reading in RANGES.items():
        yield _row(name, cases, partial(_by_range, reading))
    for name, search in SEARCHES.items():
        if quick and (search.smoothing or search.merge == "fractional"):
            continue
        yield _row(name, cases, _by_search(search))
    for variant in VARIANTS:
        if variant != "tensorrt" and not (quick and variant != "pytorch-quantization"):
            yield _row(f"variant `{variant}`", cases, partial(_by_variant, variant))


def layout_rows(cases: Sequence[Case]) -> Iterator[tuple[str, ...]]:
    """Yield how many LeNet tensors match where the same 500 images are grouped in other batches."""
    found = [_matched(cases, partial(_regrouped, size)) for size in LAYOUT_SIZES]
    yield "tensors of 7", *map(str, found)


def batches_rows(cases: Sequence[Case]) -> Iterator[tuple[str, ...]]:
    """Yield how many LeNet tensors match where only the first batches are used."""
    found = [_matched(cases, partial(_first, n)) for n in LAYOUT_BATCHES]
    yield "tensors of 7", *map(str, found)


def clamp_rows(cases: Sequence[Case]) -> Iterator[tuple[str, ...]]:
    """Yield what the values do that were equal to the range when they were counted."""
    for case in cases:
        if case.column == LENET:
            counts, _ = with_range(case.batches, "final")
            h = case.histogram
            yield f"`{case.name}`", str(h.doublings), str(pick(h.counts)), str(pick(counts))


def _matched(cases: Sequence[Case], batches: Callable[[Case], list[NDArray[np.float32]]]) -> int:
    lenet = [case for case in cases if case.column == LENET]
    scales = [scale_from_amax(entropy_amax(collect_histogram(batches(case)))) for case in lenet]
    return sum(
        ulp_distance(scale, scale_from_bits(case.golden)) <= MOST_ULP for scale, case in zip(scales, lenet, strict=True)
    )


def _first(number: int, case: Case) -> list[NDArray[np.float32]]:
    return list(case.batches[:number])


def _regrouped(size: int, case: Case) -> list[NDArray[np.float32]]:
    per_sample = np.concatenate(case.batches).reshape(LENET_IMAGES, -1)
    return [per_sample[start : start + size] for start in range(0, LENET_IMAGES, size)]


def _by_search(search: Search) -> Callable[[Case], np.float32]:
    picks: dict[bytes, np.float32] = {}

    def scale(case: Case) -> np.float32:
        # Constants share one histogram but for its range, which scales the result.
        key = case.histogram.counts.tobytes() + case.histogram.range.tobytes()
        if key not in picks:
            picks[key] = scale_of(case.histogram.counts, case.histogram.range, search)
        return picks[key]

    return scale


def _by_range(reading: str, case: Case) -> np.float32:
    counts, range_ = with_range(case.batches, reading)
    return scale_of(counts, range_)


def _by_variant(variant: str, case: Case) -> np.float32:
    return scale_from_amax(entropy_amax(case.histogram, variant))


def _row(name: str, cases: Sequence[Case], scale: Callable[[Case], np.float32]) -> tuple[str, ...]:
    matched = dict.fromkeys(COLUMNS, 0)
    tested = dict.fromkeys(COLUMNS, 0)
    for case in cases:
        tested[case.column] += 1
        matched[case.column] += ulp_distance(scale(case), scale_from_bits(case.golden)) <= MOST_ULP
    cells = [f"{matched[column]}/{tested[column]}" for column in COLUMNS]
    return (name, *cells, f"{sum(matched.values())}/{sum(tested.values())}")


if __name__ == "__main__":
    sys.exit(main())
