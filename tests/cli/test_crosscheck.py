"""``trtcalib crosscheck``: the table, the JSON, exit codes, and what it does with a cache's manifest."""

from __future__ import annotations

import json
import shutil
import time

import numpy as np
import pytest

from tests.cli.helpers import NET, cache, normal, save_model
from trtcalib.cli.crosscheck import _show
from trtcalib.core.agreement import Agreement
from trtcalib.core.cache import CacheEntry, CalibrationCache, format_cache
from trtcalib.core.scale import bits_from_scale
from trtcalib.crosscheck import Crosscheck

CHECK = ["--model", "model.onnx", "--data", "data.npy"]

LAYERS = NET.replace("y = Relu(sum)", "e = Exp(sum)\n  y = Sigmoid(e)")


@pytest.fixture
def made(done, net):
    """``out.cache``, 40 samples in batches of 8, with its manifest; ``alone.cache`` without."""
    save_model(net / "model.onnx", LAYERS)
    done("calibrate", "model.onnx", "--data", "data.npy", "-o", "out.cache", "--batch-size", 8)
    shutil.copy("out.cache", "alone.cache")
    return net


def write(path, scales, header="EntropyCalibration2"):
    entries = tuple(CacheEntry(name, bits_from_scale(scale)) for name, scale in scales.items())
    path.write_bytes(format_cache(CalibrationCache(101601, header, entries)))


def moved(folder, *names, factor=0.9003):
    """``moved.cache``: our own, some scales multiplied."""
    scales = cache(folder / "out.cache").scales
    write(folder / "moved.cache", {n: s * np.float32(factor if n in names else 1) for n, s in scales.items()})


def printed(result):
    return json.loads(result.out)


# The table


def test_a_cache_agrees_with_itself(done, made):
    result = done("crosscheck", "alone.cache", *CHECK, "--batch-size", 8)
    assert result.err == ""
    lines = [line.split() for line in result.out.splitlines() if line.strip()]
    assert lines[0][:2] == ["tensor", "verdict"]
    assert {line[1] for line in lines[2:-1]} == {"exact"}
    assert " ".join(lines[-1]) == (
        "alone.cache: 100.0% of 7 tensors agree with our calibration of 40 samples in batches of 8 by entropy (7 exact)"
    )


def test_what_disagrees_stands_first_and_the_exit_code_is_1(cli, made):
    moved(made, "sum")
    result = cli("crosscheck", "moved.cache", *CHECK, "--batch-size", 8)
    assert (result.code, result.err) == (1, "")
    rows = [line.split() for line in result.out.splitlines() if line.strip()][2:]
    assert rows[0][:4] == ["sum", "other", "range", "-"]
    assert "85.7% of 7 tensors agree" in result.out
    assert result.out.splitlines()[-1].startswith(
        "note: 1 of 5 scales that depend on the data are no bin of our ranges"
    )


def test_a_long_table_is_cut_behind_what_disagrees(cli, made, monkeypatch):
    monkeypatch.setattr("trtcalib.cli.crosscheck.SHOWN_TENSORS", 2)
    moved(made, "sum", "e", "y")
    result = cli("crosscheck", "moved.cache", *CHECK, "--batch-size", 8)
    rows = [line.split() for line in result.out.splitlines() if line.strip()]
    assert [row[0] for row in rows[2:4]] == ["sum", "e"]
    assert " ".join(rows[4]) == "... and 5 more tensors, of which 1 disagree; --json lists all"
    assert "57.1% of 7 tensors agree" in result.out


def test_a_thousand_tensors_are_shown_at_once(folder, capfd):
    """What is shown costs no more than half a second beyond the calibration; measured as CPU time."""
    scale = 0.5
    tensors = tuple(
        Agreement(name=f"t{n}", verdict="exact", theirs=scale, ours=scale, ulp=0, agrees=True) for n in range(1000)
    )
    result = Crosscheck(
        header="TRT-8601-EntropyCalibration2",
        method="entropy",
        batch_size=1,
        samples=1,
        tensors=tensors,
        only_ours=(),
        min_agreement=0.95,
        notes=(),
    )
    _show(result, folder / "x.cache")  # Rich is imported
    start = time.process_time()
    _show(result, folder / "x.cache")
    assert time.process_time() - start < 0.5
    assert "... and 750 more tensors, of which 0 disagree" in capfd.readouterr().out


@pytest.mark.parametrize(("share", "code"), [("0.85", 0), ("0.86", 1), ("1", 1), ("0", 0)])
def test_min_agreement(cli, made, share, code):
    moved(made, "sum")
    assert cli("crosscheck", "moved.cache", *CHECK, "--batch-size", 8, "--min-agreement", share).code == code


@pytest.mark.parametrize("share", ["1.01", "-0.1", "most"])
def test_a_share_beyond_0_to_1_is_misuse(misused, made, share):
    assert "--min-agreement" in misused("crosscheck", "out.cache", *CHECK, "--min-agreement", share)


def test_another_batch_size_is_told(cli, made):
    result = cli("crosscheck", "alone.cache", *CHECK, "--batch-size", 5)
    assert result.code == 1
    assert "another batch size or order" in result.text
    assert "--find looks for it" in result.text


def test_the_default_batch_size_is_32_and_the_rest_is_left_out(cli, made):
    result = cli("crosscheck", "alone.cache", *CHECK)
    assert "32 samples in batches of 32" in result.out


# JSON


@pytest.mark.parametrize("code", [0, 1])
def test_json_is_all_that_stands_on_stdout(cli, made, code):
    moved(made, *["sum"] * code)
    result = cli("crosscheck", "moved.cache", *CHECK, "--batch-size", 8, "--json")
    assert (result.code, result.err) == (code, "")
    found = printed(result)
    assert found["passed"] == (code == 0)
    assert len(found["tensors"]) == 7


# The manifest beside a cache


def test_the_batch_size_comes_from_the_manifest(done, made):
    found = printed(done("crosscheck", "out.cache", *CHECK, "--json"))
    assert (found["batch_size"], found["samples"], found["notes"]) == (8, 40, [])
    assert found["method"] == "entropy (as its manifest says)"


def test_order_number_and_partial_batch_come_from_the_manifest(done, made):
    done(
        "calibrate",
        "model.onnx",
        "--data",
        "data.npy",
        "-o",
        "o.cache",
        "--batch-size",
        7,
        "--max-samples",
        30,
        "--shuffle",
        4,
    )
    found = printed(done("crosscheck", "o.cache", *CHECK, "--json"))
    assert (found["batch_size"], found["samples"], found["agreement"]) == (7, 30, 1)


def test_options_go_before_the_manifest(cli, made):
    result = cli("crosscheck", "out.cache", *CHECK, "--batch-size", 4, "--max-samples", 20, "--shuffle", 0, "--json")
    found = printed(result)
    assert (result.code, found["batch_size"], found["samples"]) == (1, 4, 20)
    assert found["notes"][:3] == [
        "its manifest states batch_size 8, and this comparison took 4",
        "its manifest states max_samples None, and this comparison took 20",
        "its manifest states shuffle None, and this comparison took 0",
    ]


@pytest.mark.parametrize("method", ["percentile-99.9", "minmax"])
def test_the_recipe_comes_from_the_manifest(cli, done, made, method):
    done("calibrate", "model.onnx", "--data", "data.npy", "-o", "p.cache", "--batch-size", 8, "--calibrator", method)
    result = done("crosscheck", "p.cache", *CHECK)
    assert f"by {method.replace('-', ' ')} (as its manifest says) (7 exact)" in result.text
    (made / "p.cache.json").unlink()
    alone = cli("crosscheck", "p.cache", *CHECK, "--batch-size", 8)
    assert alone.code == (method != "minmax")
    assert ("were made by percentiles" in alone.text) == (method != "minmax")


def test_a_manifest_of_other_bytes_is_not_believed(cli, made):
    shutil.copy("out.cache.json", "moved.cache.json")
    moved(made, "sum")
    result = cli("crosscheck", "moved.cache", *CHECK, "--json")
    found = printed(result)
    assert (found["batch_size"], found["method"]) == (32, "entropy")
    assert found["notes"][0].startswith("the manifest moved.cache.json is of another cache")


def test_a_damaged_manifest_is_refused(refused, made):
    (made / "out.cache.json").write_text("{")
    assert "out.cache.json: " in refused("crosscheck", "out.cache", *CHECK)


def test_bad_images_are_skipped_as_the_manifest_says(done, folder):
    from PIL import Image

    save_model(folder / "model.onnx", "m (float[N, 3, 4, 4] x) => (float[N, 3, 4, 4] y) { y = Relu(x) }")
    (folder / "images").mkdir()
    for n, image in enumerate((normal(6, 4, 4, 3) * 99).astype(np.uint8)):
        Image.fromarray(image).save(folder / "images" / f"{n}.png")
    (folder / "images" / "3.png").write_bytes(b"no image")
    (folder / "data.yaml").write_text("source: images\ninputs: {x: {scale: 1/255}}\n")
    data = ["--data", "data.yaml"]
    done("calibrate", "model.onnx", *data, "-o", "out.cache", "--batch-size", 2, "--skip-bad-images")
    found = printed(done("crosscheck", "out.cache", "--model", "model.onnx", *data, "--json"))
    assert (found["samples"], found["agreement"]) == (5, 1)


# Bad input


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["no.cache", *CHECK], "no.cache: cannot be read: No such file"),
        (["out.cache", "--model", "no.onnx", "--data", "data.npy"], "no.onnx: no such file"),
        (["out.cache", "--model", "model.onnx", "--data", "no.npy"], "no.npy: no such file or folder"),
        (["alone.cache", *CHECK, "--batch-size", 64], "data.npy: fewer samples than the 64 that one batch needs"),
        (["data.npy", *CHECK], "is it a calibration cache?"),
        (["out.cache", *CHECK, "--names", "no.yaml"], "no.yaml: no such file"),
    ],
)
@pytest.mark.parametrize("find", [False, True])
def test_what_cannot_be_read_is_refused(refused, made, arguments, words, find):
    if find and "--batch-size" in arguments:
        return
    assert words in refused("crosscheck", *arguments, *["--find"] * find)


def test_the_cache_of_another_model_is_refused(refused, made):
    write(made / "other.cache", {"conv1": np.float32(1), "conv2": np.float32(2)})
    message = refused("crosscheck", "other.cache", *CHECK)
    assert message.startswith(
        "other.cache: none of its 2 names is a tensor of the model, which has 7: it is the cache of another"
    )
    message = refused("crosscheck", "other.cache", *CHECK, "--find")
    assert message.startswith("other.cache: none of its 2 names is a tensor of the model that depends on the data")


def test_the_names_that_match_are_counted(done, made):
    scales = cache(made / "out.cache").scales
    write(made / "some.cache", {"x": scales["x"], "a": np.float32(1), "b2": np.float32(1)})
    result = done("crosscheck", "some.cache", *CHECK, "--batch-size", 8)
    assert "note: 1 of 3 names are tensors of the model" in result.out
    assert "100.0% of 1 tensors agree" in result.out


# --names


def test_a_map_of_names(done, made):
    scales = dict(cache(made / "out.cache").scales)
    scales["(Unnamed Layer* 1) [Shuffle]_output"] = scales.pop("sum")
    write(made / "parser.cache", scales)
    (made / "map.yaml").write_text('"(Unnamed Layer* 1) [Shuffle]_output": sum\n')
    found = printed(done("crosscheck", "parser.cache", *CHECK, "--batch-size", 8, "--names", "map.yaml", "--json"))
    assert [t["tensor"] for t in found["tensors"] if t["tensor"]] == ["sum"]
    assert (found["counts"], found["only_ours"]) == ({"exact": 7}, [])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("- x\n", ["map.yaml: found list, expected a mapping with the keys CACHE-NAME: MODEL-TENSOR"]),
        ("a: 1\nb: [x]\n", ["map.yaml: a: ", "map.yaml: b: "]),
        ("a: summ\nb: nothing\nc: x\n", ["a: 'summ' is no tensor of model.onnx that TensorRT calibrates (did you mean 'sum'?)", "b: 'nothing' is no tensor"]),
        ("a: x\na: y\n", ["the key 'a' stands twice"]),
        ("a: [\n", ["not valid YAML"]),
    ],
)  # fmt: skip
def test_all_faults_of_a_map_are_told(refused, made, content, words):
    (made / "map.yaml").write_text(content)
    message = refused("crosscheck", "out.cache", *CHECK, "--names", "map.yaml")
    for word in words:
        assert word in message
    assert "c: " not in message


# --find


def test_find_names_the_layout(done, made):
    result = done("crosscheck", "alone.cache", *CHECK, "--find")
    assert result.err == ""
    assert "batch size 8, samples 0 to 39 in 5 batches: 5 of 5 bins are TensorRT's" in result.out.splitlines()
    assert len(result.out.splitlines()) <= 11


def test_find_cuts_a_long_list(done, made):
    np.save("data.npy", np.concatenate([10 * np.ones((1, 4), np.float32), normal(60, 4)]))
    done("calibrate", "model.onnx", "--data", "data.npy", "-o", "long.cache", "--batch-size", 1)
    *lines, last = done("crosscheck", "long.cache", *CHECK, "--find").out.splitlines()
    assert len(lines) == 10
    assert last.startswith("... and ")
    assert last.endswith(" more whose ranges fit, of 61 batch sizes over 61 samples")


def test_find_prints_json(done, made):
    found = printed(done("crosscheck", "alone.cache", *CHECK, "--find", "--json"))
    assert (found["tensors"], found["samples"], found["batch_sizes"]) == (5, 40, 40)
    assert {"batch_size": 8, "offset": 0, "samples": 40, "same_bins": 5} in found["layouts"]


@pytest.mark.parametrize("json_", [False, True])
def test_find_finds_nothing_in_a_shuffled_order(cli, done, made, json_):
    done("calibrate", "model.onnx", "--data", "data.npy", "-o", "s.cache", "--batch-size", 8, "--shuffle", 3)
    result = cli("crosscheck", "s.cache", *CHECK, "--find", *["--json"] * json_)
    assert (result.code, result.err) == (1, "")
    if json_:
        assert printed(result)["layouts"] == []
    else:
        assert result.out == (
            "no layout fits: of 40 batch sizes over 40 samples, none makes the scales of all 5 tensors a bin of its ranges; the cache "
            "was made from other data, in another order, or not by TensorRT's entropy search\n"
        )


def test_find_refuses_a_function(refused, made, module):
    name = module("import numpy as np\ndef feeds():\n    yield {'x': np.ones((4, 4), np.float32)}\n")
    message = refused("crosscheck", "alone.cache", "--model", "model.onnx", "--data", f"{name}:feeds", "--find")
    assert message == f"{name}:feeds: a function's samples cannot be read from an offset: give them as .npz or .npy\n"


def test_find_refuses_a_minmax_cache(refused, done, made):
    done("calibrate", "model.onnx", "--data", "data.npy", "-o", "m.cache", "--calibrator", "minmax")
    message = refused("crosscheck", "m.cache", *CHECK, "--find")
    assert message.startswith("m.cache: the header says MinMaxCalibration, whose scales are maxima over all data")


@pytest.mark.parametrize("option", ["--batch-size", "--max-samples", "--shuffle"])
def test_find_refuses_what_it_searches(misused, made, option):
    assert "leave out --batch-size, --max-samples and --shuffle" in misused(
        "crosscheck", "out.cache", *CHECK, "--find", option, 1
    )


# Hostile caches


@pytest.mark.parametrize("json_", [False, True])
def test_hostile_names_cannot_drive_the_terminal(cli, made, json_):
    scale = f"{bits_from_scale(cache(made / 'out.cache').scales['x']):x}"
    names = ["\x1b[2Jgone", "\x07bell\r\x08", "right\u202eleft", "[red]x[/red]", "[/]", "a" * 9999]
    lines = [f"{name}: 6".encode() for name in names] + [
        b"not \xff utf-8: 3",
        f"x: {scale}".encode(),
        b"w: 7fc00000",
        b"",
    ]
    (made / "a.cache").write_bytes(b"TRT-101601-Own\x1b[31m\n" + b"\n".join(lines))
    result = cli("crosscheck", "a.cache", *CHECK, "--batch-size", 8, *["--json"] * json_)
    assert (result.code, result.err) == (1, "")
    assert not set(result.out) & {"\x1b", "\x07", "\x08", "\r", "\u202e", "\udcff"}
    if json_:
        assert printed(result)["tensors"][-1]["theirs"] is None
        result.out.encode("ascii")
        assert "\\udcff" not in result.out.replace("\\\\udcff", "")
    else:
        assert "\\x1b[2Jgone" in result.out
        assert "[red]x[/red]" in result.out
        assert max(map(len, result.out.splitlines())) < 700


# Saved histograms


def test_saved_histograms_stand_in_for_the_data(done, made):
    done("calibrate", "model.onnx", "--data", "data.npy", "-o", "h.cache", "--batch-size", 8, "--histograms", "h.npz")
    by_data = done("crosscheck", "alone.cache", *CHECK, "--batch-size", 8)
    by_histograms = done("crosscheck", "alone.cache", "--model", "model.onnx", "--histograms", "h.npz")
    assert by_histograms.out == by_data.out


def test_the_method_is_the_headers_whatever_the_histograms_were_solved_by(done, made):
    done(
        "calibrate",
        "model.onnx",
        "--data",
        "data.npy",
        "-o",
        "m.cache",
        "--calibrator",
        "minmax",
        "--histograms",
        "h.npz",
    )
    result = done("crosscheck", "m.cache", "--model", "model.onnx", "--histograms", "h.npz", "--json")
    assert printed(result)["counts"] == {"exact": 7}


def test_histograms_of_another_model_are_refused(refused, done, made):
    done("calibrate", "model.onnx", "--data", "data.npy", "-o", "h.cache", "--histograms", "h.npz")
    save_model(made / "other.onnx", NET)
    said = refused("crosscheck", "alone.cache", "--model", "other.onnx", "--histograms", "h.npz")
    assert said.startswith("h.npz: the histograms are of another model than other.onnx: they were collected from ")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([], "give either --data or --histograms"),
        (["--data", "data.npy", "--histograms", "h.npz"], "give either --data or --histograms"),
        (["--histograms", "h.npz", "--find"], "their samples and batches are settled"),
        (["--histograms", "h.npz", "--batch-size", "8"], "their samples and batches are settled"),
    ],
)
def test_data_or_histograms(cli, made, given, said):
    result = cli("crosscheck", "alone.cache", "--model", "model.onnx", *given)
    assert result.code == 2
    assert said in " ".join(result.err.split())
