"""``docker/gpu-ci.sh`` from start to end over the simulated builder. Nothing that it measures is a result.

It takes a minute, so ``make gpu-ci-dry-run`` runs it once, for one TensorRT with calibrators and one without.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.rig.install import PROJECT

pytestmark = pytest.mark.skipif("TRTCALIB_GPU_CI_DRY_RUN" not in os.environ, reason="make gpu-ci-dry-run runs it")

ENGINES = ["entropy", "minmax", "percentile-99.99"]
BATCHES = ["batch-1", "batch-8", "batch-32"]


@pytest.fixture(scope="module")
def folder(version: str) -> Path:
    """What the simulated run left behind."""
    folder = PROJECT / "build" / "gpu-ci" / f"dry-run-{version}"
    command = [str(PROJECT / "docker" / "gpu-ci.sh"), f"--dry-run={version}", "--output", str(folder)]
    ours = {"PYTHON", "TRTCALIB", "TRTCALIB_REQUIRE_GPU"}
    kept = {name: value for name, value in os.environ.items() if name not in ours}
    code = subprocess.run(command, env=kept, cwd=PROJECT, timeout=600, check=False).returncode
    assert code == 0
    return folder


@pytest.fixture(scope="module")
def rows(folder: Path) -> dict[str, list[str]]:
    """The table's rows by what they check."""
    lines = [line for line in (folder / "summary.md").read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines[2:]]
    return {row[0].removeprefix("SIMULATED "): row for row in cells}


def has_calibrators(version: str) -> bool:
    return int(version.partition(".")[0]) < 11


def test_simulated_run_says_so_in_the_title_and_in_every_row(
    folder: Path, rows: dict[str, list[str]], version: str
) -> None:
    text = (folder / "summary.md").read_text(encoding="utf-8")
    assert text.startswith(f"# SIMULATED GPU CI: TensorRT {version}\n")
    assert "**No number in it is a result.**" in text
    assert all(row[0].startswith("SIMULATED ") and row[1] == "SIMULATED ok" for row in rows.values())


def test_simulated_engines_have_a_row_each(rows: dict[str, list[str]], version: str) -> None:
    engines = ["FP32", *ENGINES, *BATCHES] if has_calibrators(version) else ENGINES
    assert list(rows) == ["machine", "tests-gpu", *engines]


def test_simulated_engines_are_compared(folder: Path, rows: dict[str, list[str]], version: str) -> None:
    if not has_calibrators(version):
        pytest.skip("TensorRT 11 has no calibrators")
    for name in ENGINES:
        check, _, _, crosscheck, top1, as_fp32, int8, p50, _ = rows[name]
        agree, shared = map(int, re.match(r"(\d+) of (\d+)", crosscheck).groups())
        assert shared > 20, check
        assert agree == (0 if name.startswith("percentile") else shared)
        assert (top1, as_fp32) == ("99.60%", "100.00%")  # the simulated runtime runs the model in FP32
        assert int(int8.partition(" ")[0]) > 3
        assert " ms for 32" in p50
        for file in ("digits.engine", "digits.engine.json", "digits.cache", "digits.cache.json", "outputs.npz"):
            assert (folder / name / file).stat().st_size > 0
    assert "not batch-32's, most by a factor of" in rows["batch-1"][-1]
    assert re.fullmatch(r"all \d+ scales are entropy's", rows["batch-32"][-1])


def test_simulated_tensorrt_11_refuses_each_spec(folder: Path, rows: dict[str, list[str]], version: str) -> None:
    if has_calibrators(version):
        pytest.skip("this TensorRT has calibrators")
    for name in ENGINES:
        assert rows[name][-1].startswith("refused with one error")
        assert sorted(path.name for path in (folder / name).iterdir()) == ["build.err", "build.out"]


def test_simulated_run_collects_the_tests_that_need_a_gpu(rows: dict[str, list[str]]) -> None:
    skipped = re.search(r"(\d+) skipped", rows["tests-gpu"][-1])
    assert skipped is not None
    assert int(skipped[1]) > 10
