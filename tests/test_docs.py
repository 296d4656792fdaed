"""What docs/how-tensorrt-calibrates.md shows is true: its figures and tables are made anew, its code and its links are followed."""

from __future__ import annotations

import contextlib
import importlib
import io
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trtcalib.calibration import calibrate
from trtcalib.core.entropy import VARIANTS, divergences, entropy_bin
from trtcalib.core.histogram import Histogram, collect_histogram
from trtcalib.views.plots import format_figure

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
FIGURES = DOCS / "figures"
PAGE = (DOCS / "how-tensorrt-calibrates.md").read_text(encoding="utf-8")

NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?(?:e[+-]?\d+)?(?![\w.])")

CLOSE = 1e-3
"""Relative: another CPU moves the last bits of activations, and the page's numbers have four digits."""

MOST_BYTES = 200_000
"""Of a picture."""

SECTIONS = 16
"""Rules that the page states, each under an anchor of its own."""


def tables(text: str) -> dict[str, list[str]]:
    """The lines of each marked table."""
    found = re.findall(r"<!-- table: ([\w-]+) -->\n\n((?:\|.*\n)+)", text)
    assert len(found) == len({name for name, _ in found})
    return {name: lines.splitlines() for name, lines in found}


def assert_same(shown: list[str], made: list[str]) -> None:
    """The same words in the same places, and numbers as close as CPUs let them be."""
    assert [NUMBER.sub("#", line) for line in shown] == [NUMBER.sub("#", line) for line in made]
    for line, again in zip(shown, made, strict=True):
        numbers, anew = NUMBER.findall(line), NUMBER.findall(again)
        assert [float(x) for x in numbers] == pytest.approx([float(x) for x in anew], rel=CLOSE), line


def script(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(FIGURES / name), *arguments]
    return subprocess.run(command, capture_output=True, text=True, encoding="utf-8", env=environment, check=False)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder of pictures drawn anew, and what the script printed."""
    folder = tmp_path_factory.mktemp("images")
    done = script("rules.py", "--quick", "-o", str(folder))
    assert (done.returncode, done.stderr) == (0, "")
    return folder, done.stdout


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch):
    """The scripts' modules, imported as the scripts import each other."""
    monkeypatch.syspath_prepend(FIGURES)
    before = set(sys.modules)
    yield importlib.import_module
    for name in set(sys.modules) - before:
        if str(FIGURES) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def test_the_tables_are_what_the_script_prints(drawn: tuple[Path, str]) -> None:
    made = tables(drawn[1])
    assert len(made) == 10
    for name, lines in made.items():
        assert_same(tables(PAGE)[name], lines)


@pytest.mark.golden
def test_the_evidence_is_what_the_real_caches_give(golden: Path) -> None:
    done = script("evidence.py", "--quick", "--golden", str(golden))
    assert done.returncode == 0, done.stderr
    made = tables(done.stdout)
    assert made.keys() == {"tensors", "evidence", "layout", "batches", "clamp"}
    rows = {line.split("|")[1]: line for line in tables(PAGE)["evidence"]}
    for line in made.pop("evidence"):
        assert rows[line.split("|")[1]] == line
    for name, lines in made.items():
        assert tables(PAGE)[name] == lines


def test_without_the_caches_the_evidence_script_says_so(tmp_path: Path) -> None:
    done = script("evidence.py", "--golden", str(tmp_path / "absent"))
    assert done.returncode == 2
    assert "no such folder; it must hold the caches that TensorRT wrote" in done.stderr


def test_onnx_runtime_chooses_what_the_page_says(figures) -> None:
    runtime = pytest.importorskip("onnxruntime")
    if f"version {runtime.__version__})" not in PAGE:
        pytest.skip(f"the page's table is of another ONNX Runtime than {runtime.__version__}")
    material = figures("activations")
    names = ["branch_b_relu"]
    batches = material.activations(material.SAMPLE_MODEL, material.SAMPLE_DATA, names, 32)
    made = tables(figures("comparisons").runtime_table(batches))["onnxruntime"]
    shown = [line for line in tables(PAGE)["onnxruntime"] if line in made or line.startswith("| branch_b_relu ")]
    assert_same(shown, made)


def test_no_table_of_the_page_is_left_unchecked(drawn: tuple[Path, str]) -> None:
    checked = {*tables(drawn[1]), "tensors", "evidence", "layout", "batches", "clamp", "onnxruntime"}
    assert set(tables(PAGE)) == checked


def test_the_pictures_are_those_that_the_script_draws(drawn: tuple[Path, str]) -> None:
    shown = set(re.findall(r"!\[[^\]]+\]\(images/([^)]+)\)", PAGE))
    assert shown == {picture.name for picture in drawn[0].iterdir()}
    for name in shown:
        content = (DOCS / "images" / name).read_bytes()
        assert len(content) < MOST_BYTES, name
        assert b"fill: #ffffff" in content.split(b'<g id="axes_1">')[0], "a white ground of its own"


def test_a_picture_has_the_same_bytes_each_time(drawn: tuple[Path, str], figures) -> None:
    pictures = {
        "p-and-q.svg": figures("search_pictures").p_and_q,
        "range-doubling.svg": figures("pictures")._range_doubling,
    }
    for name, draw in pictures.items():
        with figures("drawing").style():
            figure = draw()
        assert format_figure(figure, "svg") == (drawn[0] / name).read_bytes()


def test_the_sample_tensors_are_those_that_calibrate_collects(figures) -> None:
    sample = figures("activations")
    values = sample.activations(sample.SAMPLE_MODEL, sample.SAMPLE_DATA, sample.SAMPLE_TENSORS, 32)
    result = calibrate(sample.SAMPLE_MODEL, sample.SAMPLE_DATA, batch_size=32)
    for name, batches in values.items():
        assert collect_histogram(batches) == result.histograms[name], name


def plain_kl(counts: list[int], i: int, search) -> float:
    """One candidate, bin by bin, in a reading of ``readings.Search``; levels of whole bins only."""
    bins = list(counts)
    bins[0] = {"copy": bins[1], "keep": bins[0], "empty": 0, "one": 1}[search.bin_zero]
    p = [float(count) for count in bins[:i]]
    p[-1] += sum(bins[i:])
    if sum(count > 0 for count in bins[:i]) < search.min_occupied:
        return math.inf
    source = p if search.clipped_in_q else bins[:i]
    level = [j * search.levels // i for j in range(i)]
    if search.merge == "stride":
        level = [min(j // (i // search.levels), search.levels - 1) for j in range(i)]
    q = []
    for j in range(i):
        members = [k for k in range(i) if level[k] == level[j] and source[k] > 0]
        q.append(sum(source[k] for k in members) / len(members) if source[j] > 0 else 0.0)
    if not any(q):
        return math.inf
    total, sum_q, result = sum(p), sum(q), 0.0
    for x, y in zip(p, q, strict=True):
        if x > 0 and y == 0 and search.missing == "forbid":
            return math.inf
        if x > 0 and (y > 0 or search.missing != "skip"):
            result += x / total * math.log(x / total / (y / sum_q if y > 0 else search.missing))
    return result


@settings(max_examples=10)
@given(seed=st.integers(0, 2**32 - 1))
def test_every_reading_agrees_with_a_plain_loop(seed: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(FIGURES)
        readings = importlib.import_module("readings")
    rng = np.random.default_rng(seed)
    counts = rng.poisson(30 * np.exp(-np.arange(300) / rng.uniform(10, 100))).astype(np.int64)
    counts[:2] += 1
    for name, search in readings.SEARCHES.items():
        if search.smoothing or search.merge == "fractional":
            continue
        curve = readings.curve(counts, search)
        for i in (search.first, 277, counts.size + search.last):
            expected = plain_kl(counts.tolist(), i, search)
            assert curve[i - search.first] == pytest.approx(expected, rel=1e-9, abs=1e-9), (name, i)


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=20)
def test_the_rules_among_the_readings_are_the_search_of_the_package(seed: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(FIGURES)
        readings = importlib.import_module("readings")
    rng = np.random.default_rng(seed)
    counts = rng.poisson(1000 * np.exp(-np.arange(2048) / rng.uniform(20, 300))).astype(np.int64)
    counts[1] += 1
    histogram = Histogram(counts=counts, range=np.float32(1))
    assert readings.curve(counts) == pytest.approx(divergences(histogram), abs=1e-9)
    assert readings.pick(counts) == entropy_bin(histogram)
    assert readings.RULES.first == VARIANTS["tensorrt"].first


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", PAGE))))
def test_links_lead_to_files(link: str) -> None:
    assert (DOCS / link).exists()


def test_links_within_the_page_name_its_anchors() -> None:
    headings = re.findall(r"^#+ (.*)$", PAGE, re.MULTILINE)
    slugs = [re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings]
    anchors = [*re.findall(r'<a id="([\w-]+)"></a>', PAGE), *slugs]
    assert {f"r{number}" for number in range(1, SECTIONS + 1)} <= set(anchors)
    for target in re.findall(r"\]\(#([^)]+)\)", PAGE):
        assert anchors.count(target) == 1, target


def test_every_rule_states_its_evidence() -> None:
    for number in range(1, SECTIONS + 1):
        assert f"### R{number}. " in PAGE
    sections = re.split(r"^(?=### R\d+\. )", PAGE, flags=re.MULTILINE)[1:]
    without = [text.split(".")[0] for text in sections if "*Evidence" not in text]
    assert without == ["### R8"]  # shared with R9
    assert "*Evidence for R8 and R9.*" in PAGE


@pytest.mark.parametrize("position", range(len(re.findall(r"```python\n", PAGE))))
def test_the_python_examples_print_what_they_say(position: int) -> None:
    code = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)[position]
    expected = re.findall(r"^print\(.*\)  # (.*)$", code, re.MULTILINE)
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(code, {})
    assert expected
    assert out.getvalue().splitlines() == expected


def shell_lines(start: str) -> list[str]:
    blocks = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
    return [line.split("#")[0].strip() for block in blocks for line in block.splitlines() if line.startswith(start)]


def test_the_commands_and_their_options_exist() -> None:
    from typer.testing import CliRunner

    from trtcalib.cli.main import app

    lines = shell_lines("trtcalib ")
    assert len(lines) >= 5
    for line in lines:
        words = line.split()[1:]
        command = words[:2] if words[0] in ("cache", "engine") else words[:1]
        result = CliRunner().invoke(app, [*command, "--help"], env={"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"})
        assert result.exit_code == 0, line
        for option in re.findall(r"(?<= )--?[a-z][\w-]*", line):
            assert re.search(rf"(?<![\w-]){option}(?![\w-])", result.output), (line, option)


def test_the_scripts_that_it_names_exist() -> None:
    named = set(re.findall(r"docs/figures/\w+\.py", PAGE))
    for name in named:
        assert (ROOT / name).is_file(), name
    for line in shell_lines("python docs/"):
        done = script(Path(line.split()[1]).name, "--help")
        assert done.returncode == 0
        assert done.stdout.startswith("usage: ")
