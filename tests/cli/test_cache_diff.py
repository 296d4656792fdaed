"""``trtcalib cache diff``: files of scales side by side, what moved and why."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from tests.cli.helpers import NET, normal, save_model
from tests.cli.test_json import read
from trtcalib.cli.cache_diff import SHOWN_TENSORS
from trtcalib.core.cache_causes import Kind
from trtcalib.core.cache_story import Basis, ExplanationKind
from trtcalib.core.scale import bits_from_scale

ROOT = Path(__file__).parents[2]


def write(path, scales, header="TRT-101601-EntropyCalibration2", end="\n"):
    lines = [header, *(f"{name}: {bits_from_scale(scale):x}" for name, scale in scales.items()), ""]
    Path(path).write_bytes(end.join(lines).encode("utf-8", "surrogateescape"))


def diff(cli, *arguments, code):
    result = cli("cache", "diff", *arguments)
    assert (result.code, result.err) == (code, ""), result
    return result


def as_json(cli, *arguments, code):
    return json.loads(diff(cli, *arguments, "--json", code=code).out)


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """Caches of the embedded sample at two batch sizes, in another order and by MinMax, without manifests in bare/."""
    import trtcalib

    folder = tmp_path_factory.mktemp("digits")
    data = np.load(ROOT / "data/digits/calibration-images.npy")[:256].astype(np.float32) / 16
    np.savez(folder / "images.npz", image=data)
    model, images = str(ROOT / "data/digits/model.onnx"), str(folder / "images.npz")
    for name, recipe, options in (
        ("b8", "entropy", {"batch_size": 8}),
        ("b32", "entropy", {"batch_size": 32}),
        ("s7", "entropy", {"batch_size": 8, "shuffle": 7}),
        ("few", "entropy", {"batch_size": 8, "max_samples": 64}),
        ("minmax", "minmax", {"batch_size": 32}),
    ):
        result = trtcalib.calibrate(model, images, recipe, **options)
        result.write_cache(folder / f"{name}.cache", tensorrt_version="10.16.1")
    (folder / "bare").mkdir()
    for cache in folder.glob("*.cache"):
        shutil.copy(cache, folder / "bare")
    return folder


# same and different


def test_the_same_scales_exit_0_whatever_the_order_and_the_line_ends(cli, folder):
    write("a.cache", {"x": 1.0, "y": 2.0})
    write("b.cache", {"y": 2.0, "x": 1.0}, end="\r\n")
    text = diff(cli, "a.cache", "a.cache", code=0).text
    assert "B against A: the same; 2 names match: 0 changed, 2 unchanged; 0 added, 0 missing" in text
    text = diff(cli, "a.cache", "b.cache", code=0).text
    assert "the lines stand in another order, which makes no difference to the scales" in text
    assert "its lines end in CRLF" in text


def test_what_moved_is_ranked_and_exits_1(cli, folder):
    write("a.cache", {"small": 1.0, "large": 1.0, "gone": 1.0, "kept": 1.0, "view": 1.0})
    write("b.cache", {"small": 1.25, "large": 0.3, "new": 1.0, "kept": 1.0, "view": 0.3})
    result = diff(cli, "a.cache", "b.cache", code=1)
    rows = [line.split() for line in result.out.splitlines() if line.startswith((" large", " small", " kept"))]
    assert [row[0] for row in rows] == ["large", "small"]
    assert rows[0][1:5] == ["=", "view", "1", "0.3"]
    assert "different; 4 names match: 3 changed (2 distinct), 1 unchanged; 1 added, 1 missing" in result.text
    assert "added: new missing: gone" in result.text


def test_a_tolerance_ignores_small_changes_and_never_headers(cli, folder):
    write("a.cache", {"x": 1.0})
    write("b.cache", {"x": 1.0 + 2.0**-20})
    write("c.cache", {"x": 1.0}, header="TRT-8601-EntropyCalibration2")
    assert "--rtol 1e-6 ignores them" in diff(cli, "a.cache", "b.cache", code=1).text
    assert "1 within 1e-06" in diff(cli, "a.cache", "b.cache", "--rtol", "1e-6", code=0).text
    text = diff(cli, "a.cache", "c.cache", "--rtol", "1", code=1).text
    assert "other headers: TensorRT 10.16.1 -> 8.6.1; nothing else differs" in text


def test_several_files_stand_beside_the_first(cli, folder):
    write("a.cache", {"x": 1.0, "y": 2.0})
    write("b.cache", {"x": 3.0, "y": 2.0})
    write("c.cache", {"x": 1.0, "y": 4.0})
    result = diff(cli, "a.cache", "b.cache", "c.cache", code=1)
    assert [line.split()[:4] for line in result.out.splitlines() if line.startswith((" x", " y"))] == [
        ["x", "1", "3", "="],
        ["y", "2", "=", "2"],
    ]
    assert "C: exactly x 2: the same bin of a range that doubled 1 x more often" in result.text
    assert "B against A" in result.text
    assert "C against A" in result.text
    found = as_json(cli, "a.cache", "b.cache", "c.cache", code=1)
    assert [pair["path"] for pair in found["pairs"]] == ["b.cache", "c.cache"]


def test_a_long_table_is_cut_and_counted(cli, folder):
    count = SHOWN_TENSORS + 50
    write("a.cache", {f"t{i}": 1.0 + i for i in range(count)})
    write("b.cache", {f"t{i}": (1.0 + i) * (1.1 + i / 1000) for i in range(count)})
    result = diff(cli, "a.cache", "b.cache", code=1)
    assert sum(line.startswith(" t") for line in result.out.splitlines()) == SHOWN_TENSORS + 1  # and the heading
    assert "... 50 more rows of 50 tensors, which moved less; --json lists all" in result.text


# why


def test_manifests_say_which_batch_size_moved_the_scales(cli, digits):
    result = diff(cli, digits / "b8.cache", digits / "b32.cache", code=1)
    assert "stated: same model and data, batch size 8 -> 32" in result.text
    facts = [
        {t["name"]: t for t in json.loads((digits / f"{name}.cache.json").read_text())["tensors"]}
        for name in ("b8", "b32")
    ]
    found = as_json(cli, digits / "b8.cache", digits / "b32.cache", code=1)["pairs"][0]
    assert found["changes"]
    for change in found["changes"]:
        old, new = (by_name[change["name"]] for by_name in facts)
        assert change["stated"]
        assert (change["facts_before"]["bin_m"], change["facts_after"]["bin_m"]) == (old["bin_m"], new["bin_m"])
        assert change["kind"] == "range"
        assert (old["first_maximum"], old["doublings"]) != (new["first_maximum"], new["doublings"])
    assert "no-pattern" not in {found["kind"] for found in found["explanations"]}


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ("s7", "same model and data, order of the source -> shuffled with seed 7"),
        ("few", "same model and data, samples 256 -> 64"),
        ("minmax", "same model and data, method entropy -> minmax"),
    ],
)
def test_manifests_say_what_else_was_another_one(cli, digits, other, words):
    assert f"stated: {words}" in diff(cli, digits / "b8.cache", digits / f"{other}.cache", code=1).text


def test_fewer_samples_show_as_other_largest_magnitudes(cli, digits):
    found = as_json(cli, digits / "b8.cache", digits / "few.cache", code=1)["pairs"][0]
    kinds = {change["kind"] for change in found["changes"]}
    assert "values" in kinds
    assert {explanation["kind"] for explanation in found["explanations"]} >= {"batching", "values"}


def test_without_manifests_another_batch_size_is_no_more_than_a_guess(cli, digits):
    found = as_json(cli, digits / "bare/b8.cache", digits / "bare/b32.cache", code=1)["pairs"][0]
    (guess,) = [e for e in found["explanations"] if e["kind"] == "no-pattern"]
    assert "another batch size or order, other data, another model or method" in guess["sentence"]
    assert "scales are the same to the bit" in guess["sentence"]
    assert not any(change["stated"] for change in found["changes"])


def test_without_manifests_minmax_shows_by_its_half_bins(cli, digits):
    found = as_json(cli, digits / "bare/b32.cache", digits / "bare/minmax.cache", code=1)["pairs"][0]
    kinds = {explanation["kind"]: explanation for explanation in found["explanations"]}
    assert kinds["header"]["sentence"] == "other headers: algorithm EntropyCalibration2 -> MinMaxCalibration"
    assert kinds["algorithm"]["count"] >= 3


def test_data_scaled_by_a_factor_show_as_one_factor_in_a_linear_model(cli, done, folder):
    save_model(folder / "model.onnx", NET.replace("Add(product, b)", "Mul(product, b)"))
    for name, factor in (("one", 1), ("two", 255)):
        np.save(folder / "data.npy", normal(64, 4) * np.float32(factor))
        done("calibrate", "model.onnx", "--data", "data.npy", "-o", f"{name}.cache", "--drop-last")
        (folder / f"{name}.cache.json").unlink()
    found = as_json(cli, "one.cache", "two.cache", code=1)["pairs"][0]
    kinds = {explanation["kind"]: explanation for explanation in found["explanations"]}
    assert kinds.keys() == {"common-factor"}
    assert (kinds["common-factor"]["count"], kinds["common-factor"]["of"]) == (4, 4)
    assert found["unchanged"] == 2  # the constants


@pytest.mark.golden
def test_real_caches_differ_from_others_and_not_from_themselves(cli, golden):
    caches = sorted(golden.glob("*/golden.cache"))
    assert len(caches) >= 3
    for cache in caches:
        diff(cli, cache, cache, code=0)
    one, two = (golden / case / "golden.cache" for case in ("add_scalar_trt8204", "add_scalar_trt100001"))
    text = diff(cli, one, two, code=1).text
    assert "TensorRT 8.2.4 -> 10.0.1" in text
    assert "1 names match: 1 changed" in text


@pytest.mark.golden
def test_the_views_of_a_real_cache_share_a_row(cli, golden, folder):
    lines = (golden / "lenet_mnist_trt7202/golden.cache").read_text().splitlines()
    moved = ["pool1", "conv1"]
    changed = [
        line[:-8] + f"{int(line[-8:], 16) + 0x800000:x}" if line.split(":")[0] in moved else line for line in lines
    ]
    (folder / "b.cache").write_text("\n".join(changed))
    result = diff(cli, golden / "lenet_mnist_trt7202/golden.cache", "b.cache", code=1)
    assert "conv1 = pool1" in result.text
    assert "2 changed (1 distinct)" in result.text
    assert "1 of 1 distinct changes are by exactly a power of two" in result.text


# other files


def test_tables_of_onnx_runtime_stand_beside_caches(cli, folder):
    minmax = {"x": np.float32(1.5) / np.float32(127), "conv 1": np.float32(4) / np.float32(127)}
    write("a.cache", minmax, header="TRT-101601-MinMaxCalibration")
    (folder / "calibration.json").write_text('{"x": [-0.5, 1.5], "conv 1": [-4.0, 0.25]}')
    (folder / "calibration.cache").write_text("x 1.5\nconv 1 4.0\n")
    (folder / "ranges.json").write_text('{"x": 1.5, "conv 1": 4}')
    result = diff(cli, "a.cache", "calibration.json", "calibration.cache", "ranges.json", code=0)
    assert "taken as scale = max(|lowest|, |highest|) / 127 in float32" in result.text
    found = as_json(cli, "a.cache", "calibration.json", "calibration.cache", "ranges.json", code=0)
    formats = [file["format"] for file in found["files"]]
    assert formats == ["calibration-cache", "onnxruntime-json", "onnxruntime-text", "dynamic-ranges-json"]


def test_a_map_of_names_brings_the_parsers_names_together(cli, refused, folder):
    write("a.cache", {"(Unnamed Layer* 4) [Shuffle]_output": 1.0, "x": 2.0})
    write("b.cache", {"view": 1.0, "x": 2.0})
    (folder / "names.yaml").write_text('"(Unnamed Layer* 4) [Shuffle]_output": view\n')
    diff(cli, "a.cache", "b.cache", code=1)
    diff(cli, "a.cache", "b.cache", "--names", "names.yaml", code=0)
    write("c.cache", {"(Unnamed Layer* 4) [Shuffle]_output": 9.0, "view": 1.0, "x": 2.0})
    diff(cli, "b.cache", "c.cache", "--names", "names.yaml", code=0)  # the tensor that has the name goes before
    (folder / "names.yaml").write_text("other: view\n")
    assert "none of its 1 names stands in any" in refused(
        "cache", "diff", "a.cache", "b.cache", "--names", "names.yaml"
    )


# bad input


def test_one_file_is_too_few(misused, folder):
    write("a.cache", {"x": 1.0})
    assert "got one file, expected two or more to compare" in misused("cache", "diff", "a.cache")
    assert "Missing argument" in misused("cache", "diff")


@pytest.mark.parametrize("rtol", ["-1", "nan", "inf", "some"])
def test_a_tolerance_that_is_none_is_refused(misused, folder, rtol):
    write("a.cache", {"x": 1.0})
    assert "--rtol" in misused("cache", "diff", "a.cache", "a.cache", "--rtol", rtol)


def test_files_without_a_common_name_are_refused(refused, folder):
    write("a.cache", {"x": 1.0, "y": 1.0})
    write("b.cache", {"p" * 99: 1.0, "q": 1.0, "r": 1.0, "s": 1.0})
    text = refused("cache", "diff", "a.cache", "b.cache")
    assert "b.cache: none of its 4 names is one of the 2 in a.cache: they are of different models" in text
    assert f"it starts with '{'p' * 40}…', 'q', 'r', the other with 'x', 'y'" in text
    write("empty.cache", {})
    assert "starts with nothing" in refused("cache", "diff", "a.cache", "empty.cache")


def test_few_common_names_are_compared_and_told(cli, folder):
    write("a.cache", {"x": 1.0, "a": 1.0, "b": 1.0})
    write("b.cache", {"x": 1.0, "c": 1.0, "d": 1.0})
    text = diff(cli, "a.cache", "b.cache", code=1).text
    assert "only 1 of 3 names match: they are of different models" in text


def test_files_that_cannot_be_read_are_named(refused, folder):
    write("a.cache", {"x": 1.0})
    (folder / "calibration.flatbuffers").write_bytes(b"\x08\0\0\0")
    assert "missing.cache: cannot be read" in refused("cache", "diff", "a.cache", "missing.cache")
    text = refused("cache", "diff", "a.cache", "calibration.flatbuffers")
    assert "calibration.flatbuffers: is binary: of ONNX Runtime's tables take calibration.json" in text


def test_hostile_names_cannot_drive_the_terminal(cli, folder):
    names = ["\x1b[2Jgone", "[red]markup[/red]", "a" * 10_000, "not \udcff utf-8", "\u202eright to left"]
    write("a.cache", {**dict.fromkeys(names, 1.0), "only \x1b[31mA": 1.0})
    write("b.cache", {**{name: 2.0 + i for i, name in enumerate(names)}, "only \x1b[31mB": 1.0})
    result = diff(cli, "a.cache", "b.cache", code=1)
    assert not set(result.out) & {"\x1b", "\u202e"}
    assert "[red]markup[/red]" in result.out
    assert max(map(len, result.out.splitlines())) < 2000
    assert "not \\udcff utf-8" in {c["name"] for c in as_json(cli, "a.cache", "b.cache", code=1)["pairs"][0]["changes"]}


# --json


def test_json_holds_bits_where_it_has_no_number(cli, folder):
    write("a.cache", {"zero": 0.0, "nan": np.nan, "max": 1e-45})
    write("b.cache", {"zero": 1.0, "nan": 1.0, "max": np.inf})
    found = {change["name"]: change for change in as_json(cli, "a.cache", "b.cache", code=1)["pairs"][0]["changes"]}
    assert (found["nan"]["before"], found["nan"]["before_hex"], found["nan"]["ulp"]) == (None, "7fc00000", None)
    assert (found["max"]["before_hex"], found["max"]["after"], found["max"]["after_hex"]) == ("1", None, "7f800000")
    assert [found["zero"][key] for key in ("before", "ratio", "log_ratio", "kind")] == [0.0, None, None, "zero"]


def test_the_schema_names_every_key_and_every_word(cli, digits):
    import jsonschema

    printed = as_json(cli, digits / "b8.cache", digits / "minmax.cache", digits / "bare/b32.cache", code=1)
    contract = read("cache-diff")
    jsonschema.validate(printed, contract, jsonschema.Draft202012Validator)
    keys = contract["properties"]
    assert keys.keys() == set(contract["required"]) == printed.keys()
    pair = keys["pairs"]["items"]
    change, explanation = pair["properties"]["changes"]["items"], pair["properties"]["explanations"]["items"]
    for part, shown in (
        (keys["files"]["items"], printed["files"][0]),
        (pair, printed["pairs"][0]),
        (change, printed["pairs"][0]["changes"][0]),
        (explanation, printed["pairs"][0]["explanations"][0]),
        (change["properties"]["facts_before"]["anyOf"][1], printed["pairs"][0]["changes"][0]["facts_before"]),
    ):
        assert part["properties"].keys() == set(part["required"]) == shown.keys()
    assert set(change["properties"]["kind"]["enum"]) == set(get_args(Kind))
    assert set(explanation["properties"]["kind"]["enum"]) == set(get_args(ExplanationKind))
    assert set(explanation["properties"]["basis"]["enum"]) == set(get_args(Basis))
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**printed, "schema_version": 2}, contract, jsonschema.Draft202012Validator)


def test_five_caches_of_five_thousand_tensors_are_quick(cli, folder):
    random = np.random.default_rng(0)
    scales = random.uniform(0.01, 1, 5000).astype(np.float32)
    for place in range(5):
        write(f"{place}.cache", {f"layer{i}/output_{i}": scale for i, scale in enumerate(scales)})
        scales *= random.uniform(0.5, 2, 5000).astype(np.float32)
    files = [f"{place}.cache" for place in range(5)]
    diff(cli, *files, code=1)
    start = time.process_time()
    result = diff(cli, *files, code=1)
    assert time.process_time() - start < 3, "far beyond what it takes, so that a busy machine does not fail it"
    assert "... 4900 more rows of 4900 tensors" in result.text
