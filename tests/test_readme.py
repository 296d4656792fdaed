"""What the README shows is true: its Python runs, its links lead somewhere, its commands exist."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from trtcalib.accuracy.ablation import ablate
from trtcalib.accuracy.task import Task
from trtcalib.findings import CODES

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_python_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = re.search(r"```python\n(.*?)```", README, re.DOTALL)
    assert code is not None
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.onnx").write_bytes((ROOT / "data/digits/model.onnx").read_bytes())
    images = np.load(ROOT / "data/digits/calibration-images.npy")[:32]
    np.savez(tmp_path / "images.npz", image=images.astype(np.float32) / 16)
    exec(code[1].replace('"conv1"', '"stem_conv"'), {})
    assert (tmp_path / "model.cache").read_bytes().startswith(b"TRT-8601-EntropyCalibration2\n")


@pytest.mark.parametrize(
    "page", ["README.md", "CONTRIBUTING.md", "data/README.md", "calibrators/README.md", "tests/bench/README.md"]
)
def test_relative_links_lead_to_files(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
        assert ((ROOT / page).parent / link).exists(), link


def test_links_within_the_page_name_its_headings() -> None:
    headings = {
        re.sub(r"[^\w\- ]", "", h).strip().lower().replace(" ", "-")
        for h in re.findall(r"^#+ (.*)$", README, re.MULTILINE)
    }
    for anchor in re.findall(r"\]\(#([^)]+)\)", README):
        assert anchor in headings


def test_codes_of_findings_that_it_names_exist() -> None:
    for code in re.findall(r"--fail-on ([\w-]+)`", README):
        assert code == "finding" or code in CODES


def test_the_table_of_methods_is_what_ablate_gives(tmp_path: Path) -> None:
    """Within half a point and 3 dB: ONNX Runtime's own sums move with its version and the CPU."""
    data = ROOT / "data"
    task = Task(
        model=data / "digits/model.onnx",
        data=data / "digits-calibration.yaml",
        eval_data=data / "digits-validation.yaml",
    )
    found = ablate(task, tmp_path / "ablation")
    table = README.split("| method | weights per tensor |")[1].split("\n\n")[0].splitlines()[2:]
    shown = {
        cells[1]: [float(cell.split()[0]) for cell in cells[2:7]]
        for cells in (re.split(r" *\| *", row) for row in table)
    }
    assert list(shown) == [row.method for row in found.rows]
    for row in found.rows:
        values = [100 * (cell.judgement.value or 0) for cell in row.cells]
        assert shown[row.method][:4] == pytest.approx(values, abs=0.5)
        assert shown[row.method][4] == pytest.approx(row.cells[3].judgement.outputs[0].sqnr_db, abs=3)
