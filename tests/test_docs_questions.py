"""What docs/batch-size-and-order.md shows is true: its tables are made anew, its commands run, its bounds hold."""

from __future__ import annotations

import importlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from trtcalib.core.entropy import entropy_amax
from trtcalib.core.histogram import collect_histogram

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
FIGURES = DOCS / "figures"
PAGE = (DOCS / "batch-size-and-order.md").read_text(encoding="utf-8")

NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?(?![\w.])")

CLOSE = 1e-3
"""Relative: the page's numbers have four digits, and the last one may round the other way."""

EXACT = {"generated-last"}
"""Tables of sums that are exact in float32: the same on every machine."""

LENET = {"policies", "implied"}

MOST_BYTES = 200_000
"""Of a picture."""


def tables(text: str) -> dict[str, list[str]]:
    """The lines of each marked table."""
    found = re.findall(r"<!-- table: ([\w-]+) -->\n\n((?:\|.*\n)+)", text)
    assert len(found) == len({name for name, _ in found})
    return {name: lines.splitlines() for name, lines in found}


def assert_close(shown: list[str], made: list[str]) -> None:
    assert [NUMBER.sub("#", line) for line in shown] == [NUMBER.sub("#", line) for line in made]
    for line, again in zip(shown, made, strict=True):
        numbers = [float(x) for x in NUMBER.findall(line)]
        assert numbers == pytest.approx([float(x) for x in NUMBER.findall(again)], rel=CLOSE), line


def commands(start: str) -> list[str]:
    blocks = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
    return [line.split("#")[0].strip() for block in blocks for line in block.splitlines() if line.startswith(start)]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, list[str]]]:
    """A folder of pictures drawn anew, and the tables that were printed."""
    folder = tmp_path_factory.mktemp("images")
    command = [sys.executable, str(FIGURES / "questions.py"), "-o", str(folder), "--golden", str(folder / "absent")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert "no such folder; the tables about LeNet are left out" in done.stderr
    return folder, tables(done.stdout)


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch):
    """The scripts' modules, imported as the scripts import each other."""
    monkeypatch.syspath_prepend(FIGURES)
    before = set(sys.modules)
    yield importlib.import_module
    for name in set(sys.modules) - before:
        if str(FIGURES) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def test_every_table_of_the_page_is_made_by_the_script(made) -> None:
    assert set(tables(PAGE)) == {*made[1], *LENET}


@pytest.mark.parametrize("name", sorted(set(tables(PAGE)) - LENET))
def test_a_table_of_the_page_is_what_the_script_prints(made, name: str) -> None:
    import onnxruntime

    if name in EXACT:
        assert tables(PAGE)[name] == made[1][name]
        return
    if f"onnxruntime {onnxruntime.__version__}," not in PAGE:
        pytest.skip(f"the page's numbers are of another ONNX Runtime than {onnxruntime.__version__}")
    assert_close(tables(PAGE)[name], made[1][name])


@pytest.mark.golden
def test_the_tables_about_lenet_are_what_the_real_cache_gives(golden: Path, figures) -> None:
    lenet_ranges = figures("lenet_ranges")
    lenet = lenet_ranges.load_lenet(golden / lenet_ranges.LENET)
    for name, rows in (("policies", lenet_ranges.policy_rows), ("implied", lenet_ranges.implied_rows)):
        assert_close(tables(PAGE)[name][2:], [f"| {' | '.join(row)} |" for row in rows(lenet)])


def test_the_pictures_are_those_that_the_script_draws(made) -> None:
    drawn = {picture.name for picture in made[0].iterdir()}
    shown = set(re.findall(r"!\[[^\]]+\]\(images/([^)]+)\)", PAGE))
    assert shown - drawn == {"study-plot.png"}  # trtcalib plot draws it
    assert drawn <= shown
    for name in shown:
        content = (DOCS / "images" / name).read_bytes()
        assert len(content) < MOST_BYTES, name
        if name.endswith(".svg"):
            assert b"fill: #ffffff" in content.split(b'<g id="axes_1">')[0], "a white ground of its own"
        else:
            assert Image.open(DOCS / "images" / name).convert("RGB").getpixel((0, 0)) == (255, 255, 255)


def test_the_commands_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from typer.testing import CliRunner

    from trtcalib.cli.main import app

    shutil.copytree(ROOT / "data", tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    command = [sys.executable, str(FIGURES / "generated_sample.py"), "questions"]
    subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    shutil.copy("questions/model.onnx", "model.onnx")
    np.savez("images.npz", x=np.load("questions/normal.npy"))
    lines = commands("trtcalib ")
    assert len(lines) >= 10
    for line in lines:
        words = line.split()[1:]
        few = ["--max-samples", "64"] if words[0] == "study" else []
        done = CliRunner().invoke(app, [*words, *few])
        assert done.exit_code == (1 if words[:2] == ["cache", "diff"] else 0), (line, done.output, done.exception)


def test_the_scripts_that_it_names_take_their_options() -> None:
    lines = commands("python docs/")
    assert lines
    for line in lines:
        done = subprocess.run(
            [sys.executable, str(ROOT / line.split()[1]), "--help"],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            check=True,
        )
        assert done.stdout.startswith("usage: ")


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", PAGE))))
def test_links_lead_to_files(link: str) -> None:
    assert (DOCS / link).exists()


def test_links_name_anchors_that_exist() -> None:
    for target in re.findall(r"\]\(#([^)]+)\)", PAGE):
        assert PAGE.count(f'<a id="{target}"></a>') == 1, target
    for page, target in re.findall(r"\]\(([\w-]+\.md)#([^)]+)\)", PAGE):
        text = (DOCS / page).read_text(encoding="utf-8")
        assert f'<a id="{target}"></a>' in text or f"## {target.capitalize()}" in text, target


values = st.lists(st.floats(0, 1e6, width=32), min_size=1, max_size=30)


@given(batches=st.lists(values, min_size=1, max_size=8))
def test_the_range_ends_between_once_and_twice_the_maximum(batches: list[list[float]]) -> None:
    histogram = collect_histogram(batches)
    largest = max(map(max, batches))
    if 0 < largest < np.finfo(np.float32).tiny:
        return  # subnormal ranges are not what the page is about
    assert largest <= histogram.exact_range
    assert histogram.exact_range < 2 * largest or largest == 0


@given(batch=values, outlier=st.floats(1, 1e6, width=32))
def test_amax_is_at_least_the_floor_of_128_bins(batch: list[float], outlier: float) -> None:
    histogram = collect_histogram([[*batch, outlier]])
    floor = 128.5 / 2048 * float(histogram.range)
    assert float(entropy_amax(histogram)) >= floor * (1 - 1e-6)


def test_the_generated_values_are_exact_in_float32(figures, tmp_path: Path) -> None:
    figures("generated_sample").write_samples(tmp_path)
    model = onnx.load(tmp_path / "model.onnx")
    weights = next(onnx.numpy_helper.to_array(w) for w in model.graph.initializer if w.name == "w1").astype(np.float64)
    for name in ("normal", "outlier", "even", "sorted"):
        values = np.load(tmp_path / f"{name}.npy").astype(np.float64)
        # Every partial sum is a multiple of 2**-12, and below 2**12: whole numbers of at most 24 bits.
        assert ((values * 64) % 1 == 0).all()
        assert ((weights * 64) % 1 == 0).all()
        assert np.abs(values @ np.abs(weights)).max() < 2**12
        assert (np.abs(values) @ np.abs(weights)).max() < 2**12


def test_the_even_samples_hold_every_loudness_in_each_batch_and_the_sorted_ones_the_same_samples(
    figures, tmp_path: Path
) -> None:
    sample = figures("generated_sample")
    sample.write_samples(tmp_path)
    even, ordered = np.load(tmp_path / "even.npy"), np.load(tmp_path / "sorted.npy")
    assert sorted(map(bytes, even)) == sorted(map(bytes, ordered))
    loudness = np.sqrt((even.reshape(-1, sample.KINDS, even.shape[1]) ** 2).mean(axis=2))
    spread = loudness.max(axis=1) / loudness.min(axis=1)
    assert (spread > 8).all()
    in_order = np.sqrt((ordered.reshape(-1, sample.KINDS, even.shape[1]) ** 2).mean(axis=2))
    assert (in_order.max(axis=1) / in_order.min(axis=1) < 2).all()


def test_the_digits_are_dealt_out(figures, tmp_path: Path) -> None:
    figures("generated_sample").write_samples(tmp_path)
    images = np.load(ROOT / "data/digits/calibration-images.npy") / np.float32(16)
    labels = np.load(ROOT / "data/digits/calibration-labels.npy")
    digit = {image.tobytes(): int(label) for image, label in zip(images, labels, strict=True)}
    dealt = [digit[image.tobytes()] for image in np.load(tmp_path / "digits-even.npy")]
    assert sorted(dealt) == sorted(labels.tolist())
    for start in range(0, 1200, 10):
        assert sorted(dealt[start : start + 10]) == list(range(10))


def test_sqnr_of_rounding_and_of_clipping_worked_out_by_hand(figures) -> None:
    sqnr = figures("cases").sqnr
    one = np.float32(1)
    # 1 and 0.4 become 1 and 0: 1.16 / 0.16.
    assert sqnr([np.array([1.0, 0.4], np.float32)], one) == pytest.approx(10 * np.log10(1.16 / 0.16), abs=1e-6)
    # 200 and -200 become 127 and -128.
    values = [np.array([200.0], np.float32), np.array([-200.0], np.float32)]
    assert sqnr(values, one) == pytest.approx(10 * np.log10(80000 / (73**2 + 72**2)))


def test_bins_for_a_share_worked_out_by_hand(figures) -> None:
    bins_for_share = figures("cases").bins_for_share
    counts = np.array([5, 0, 4, 1])
    assert [bins_for_share(counts, share) for share in (0.5, 0.6, 0.9, 1.0)] == [1, 3, 3, 4]


def test_wilsons_interval_worked_out_by_hand(figures) -> None:
    wilson = figures("top_one").wilson
    z2 = 1.959964**2
    assert wilson(0, 10) == pytest.approx((0, z2 / (10 + z2)), abs=1e-12)
    assert wilson(10, 10) == pytest.approx((10 / (10 + z2), 1), abs=1e-12)


def test_activations_are_rounded_and_clipped_and_the_output_is_not(figures) -> None:
    import onnxruntime

    text = (
        '<ir_version: 8, opset_import: ["" : 17]> g (float[3] x) => (float[3] y) { half = Mul(x, f)\n y = Abs(half) }'
    )
    model = onnx.parser.parse_model(text)
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(0.5), "f"))
    scales = {"x": np.float32(1), "half": np.float32(1), "y": np.float32(1), "f": np.float32(1)}
    rounded = figures("top_one").fake_quantized(model, scales)
    session = onnxruntime.InferenceSession(rounded.SerializeToString(), providers=["CPUExecutionProvider"])
    # x: 300 becomes 127, 2.6 becomes 3, -6.2 becomes -6; halves 63.5, 1.5 and -3 become 64, 2 and -3.
    (found,) = session.run(None, {"x": np.array([300, 2.6, -6.2], np.float32)})
    assert found.tolist() == [64, 2, 3]
