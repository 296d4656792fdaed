"""``trtcalib cache show`` and ``trtcalib cache verify``."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.cli.helpers import NET, normal, save_model


@pytest.fixture
def made(done, net):
    done("calibrate", "model.onnx", "--data", "data.npy", "-o", "out.cache", "--batch-size", 8)
    return net


def write(folder, *lines, header="TRT-101601-EntropyCalibration2"):
    content = b"\n".join(
        [header.encode(), *(line if isinstance(line, bytes) else line.encode() for line in lines), b""]
    )
    (folder / "a.cache").write_bytes(content)


# show


def test_show_prints_hex_scale_and_amax(done, folder):
    write(folder, "input: 3c010a14", "weird: name: 3f800000")
    lines = [line.split() for line in done("cache", "show", "a.cache").out.splitlines() if line.strip()]
    assert " ".join(lines[0]) == "TRT-101601-EntropyCalibration2: 2 tensors, TensorRT 10.16.1, EntropyCalibration2"
    assert lines[1] == ["tensor", "hex", "scale", "amax"]
    assert lines[3:] == [["input", "3c010a14", "0.007875938", "1.0002"], ["weird:", "name", "3f800000", "1", "127"]]


def test_show_adds_range_and_bin_from_the_manifest_beside_it(done, made):
    with_manifest = done("cache", "show", "out.cache").out
    assert "range" in with_manifest
    tensors = {t["name"]: t for t in json.loads((made / "out.cache.json").read_text())["tensors"]}
    row = next(line.split() for line in with_manifest.splitlines() if line.split()[:1] == ["sum"])
    assert row[1] == tensors["sum"]["scale_hex"]
    assert row[4:] == [f"{tensors['sum']['range']:.5g}", str(tensors["sum"]["bin_m"])]
    (made / "out.cache.json").unlink()
    assert "range" not in done("cache", "show", "out.cache").out


def test_show_says_what_inherits(done, folder):
    save_model(folder / "model.onnx", "view (float[N, 4] x) => (float[4, N] y) { y = Transpose(x) }")
    np.save("data.npy", normal(32, 4))
    done("calibrate", "model.onnx", "--data", "data.npy", "-o", "out.cache")
    assert "y = x" in done("cache", "show", "out.cache").text


def test_show_counts_the_names_that_a_model_predicts(done, folder):
    save_model(folder / "model.onnx", NET)
    write(folder, "x: 1", "sum: 1", "(Unnamed Layer* 4) [Shuffle]_output: 1")
    text = done("cache", "show", "a.cache", "--model", "model.onnx").text
    assert "2 of 3 names are tensors of model.onnx; the other 1 were made by TensorRT's parser" in text


def test_show_json(done, folder):
    save_model(folder / "model.onnx", NET)
    write(folder, "x: 3f800000", "odd: 7f800000", "zero: 0", header="TRT-8601-MinMaxCalibration")
    result = done("cache", "show", "a.cache", "--model", "model.onnx", "--json")
    assert json.loads(result.out) == {
        "schema_version": 1,
        "tensorrt_version": "8.6.1",
        "algorithm": "MinMaxCalibration",
        "tensors": [
            {"name": "x", "scale_hex": "3f800000", "scale": 1.0},
            {"name": "odd", "scale_hex": "7f800000", "scale": None},
            {"name": "zero", "scale_hex": "0", "scale": 0.0},
        ],
        "findings": ["tensor 'odd' has an infinite scale", "tensor 'zero' has a zero scale"],
        "names_in_model": 1,
    }
    assert result.err == ""


@pytest.mark.parametrize("json_", [False, True])
def test_hostile_names_cannot_drive_the_terminal(done, folder, json_):
    write(
        folder,
        "\x1b[2Jgone: 1",
        "\x07bell\r\x08: 2",
        b"not \xff utf-8: 3",
        "right\u202eleft: 4",
        "[red]x[/red]: 5",
        "a" * 9999 + ": 6",
    )
    result = done("cache", "show", "a.cache", *["--json"] * json_)
    shown = result.out + result.err
    assert not set(shown) & {"\x1b", "\x07", "\x08", "\r", "\u202e", "\udcff"}
    if not json_:
        assert "\\x1b[2Jgone" in shown
        assert "[red]x[/red]" in shown
        assert max(map(len, shown.splitlines())) < 300
    assert "'not " in result.err or json_


def test_oddities_are_findings_on_stderr(done, folder):
    write(folder, "a: 0", "a: 7fc00000", "b: bf800000", header="TRT-8601-OwnCalibration")
    result = done("cache", "show", "a.cache")
    first, *rest = [line.partition(": ")[2] for line in result.err.splitlines()]
    assert first.startswith("unknown algorithm 'OwnCalibration' in the header: expected one of EntropyCalibration2, ")
    assert rest == [
        "tensor 'a' stands 2 times; the last is used",
        "tensor 'a' has a zero scale",
        "tensor 'a' has a NaN scale",
        "tensor 'b' has a negative scale",
    ]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", ["1: found nothing", "expected a header such as 'TRT-101601-EntropyCalibration2'"]),
        (b"\x80\x81\x00 binary", ["1: found", "is it a calibration cache?"]),
        (
            b"TRT-8601-MinMaxCalibration\nx: 1\nno separator\n",
            ["3: found 'no separator'", "'tensor name: hexadecimal scale'"],
        ),
        (b"TRT-8601-MinMaxCalibration\nx: 0x12\n", ["2: tensor 'x' has scale '0x12'", "hexadecimal digits"]),
        (b"TRT-8601-MinMaxCalibration\nx: 123456789\n", ["2: tensor 'x'", "one to eight hexadecimal digits"]),
    ],
)
@pytest.mark.parametrize("command", ["show", "verify"])
def test_what_is_no_cache_is_refused_with_file_and_line(refused, folder, command, content, words):
    (folder / "a.cache").write_bytes(content)
    message = refused("cache", command, "a.cache")
    assert message.startswith("a.cache:")
    for word in words:
        assert word in message


@pytest.mark.parametrize("command", ["show", "verify"])
def test_a_missing_cache_is_refused(refused, folder, command):
    message = refused("cache", command, "a.cache")
    assert message.startswith("a.cache:")
    assert "cannot be read: No such file" in message


def test_show_refuses_a_missing_model(refused, made):
    assert "no.onnx: no such file" in refused("cache", "show", "out.cache", "--model", "no.onnx")


def test_show_refuses_a_damaged_manifest(refused, made):
    (made / "out.cache.json").write_text("{")
    assert "out.cache.json: " in refused("cache", "show", "out.cache")


# verify


def statuses(result):
    return {check["what"]: check["status"] for check in json.loads(result.out)["checks"]}


def test_verify_finds_nothing_where_nothing_changed(done, made):
    result = done("cache", "verify", "out.cache")
    assert [line.split()[0] for line in result.out.splitlines()] == ["same"] * 5
    assert statuses(done("cache", "verify", "out.cache", "--json")) == dict.fromkeys(
        ("cache", "model", "data", "versions", "cpu"), "same"
    )


def test_verify_says_that_the_model_changed(cli, made):
    save_model(made / "model.onnx", NET.replace("0.1", "0.2"))
    result = cli("cache", "verify", "out.cache", "--json")
    assert (result.code, statuses(result)["model"], statuses(result)["data"]) == (1, "changed", "same")


def test_verify_says_that_the_data_changed(cli, made):
    np.save("data.npy", normal(40, 4, seed=1))
    result = cli("cache", "verify", "out.cache", "--json")
    assert (result.code, statuses(result)["model"], statuses(result)["data"]) == (1, "same", "changed")


def test_verify_says_that_the_cache_changed(cli, made):
    content = (made / "out.cache").read_text()
    (made / "out.cache").write_text(content.replace(": 3", ": 4", 1))
    result = cli("cache", "verify", "out.cache")
    assert result.code == 1
    assert result.out.startswith("changed   cache: out.cache")


def test_verify_says_that_a_package_changed(cli, made):
    manifest = json.loads((made / "out.cache.json").read_text())
    manifest["provenance"]["versions"]["numpy"] = "1.0"
    (made / "out.cache.json").write_text(json.dumps(manifest))
    result = cli("cache", "verify", "out.cache")
    assert result.code == 1
    assert "changed   numpy: 1.0, here " in result.out


def test_verify_cannot_know_what_is_missing(done, made):
    for file in ("model.onnx", "data.npy"):
        (made / file).rename(made / f"moved-{file}")
    result = done("cache", "verify", "out.cache", "--json")
    assert (statuses(result)["model"], statuses(result)["data"]) == ("unknown", "unknown")
    assert "--model" in result.out
    moved = ("--model", "moved-model.onnx", "--data", "moved-data.npy")
    assert set(statuses(done("cache", "verify", "out.cache", "--json", *moved)).values()) == {"same"}


def test_verify_works_from_another_folder(done, made, monkeypatch):
    (made / "sub").mkdir()
    monkeypatch.chdir(made / "sub")
    assert set(statuses(done("cache", "verify", "../out.cache", "--json")).values()) == {"same"}


def test_verify_runs_a_function_only_when_it_is_told_to(done, net, module):
    name = module(
        "import numpy as np, pathlib\n"
        "def feeds():\n"
        "    with pathlib.Path('calls').open('a') as file:\n"
        "        file.write('x')\n"
        "    yield {'x': np.ones((4, 4), np.float32)}\n"
    )
    done("calibrate", "model.onnx", "--data", f"{name}:feeds", "-o", "out.cache")
    calls = (net / "calls").read_text()
    result = done("cache", "verify", "out.cache", "--json")
    assert statuses(result)["data"] == "unknown"
    assert (net / "calls").read_text() == calls
    assert statuses(done("cache", "verify", "out.cache", "--json", "--data", f"{name}:feeds"))["data"] == "same"
    assert (net / "calls").read_text() != calls


def test_verify_without_a_manifest_is_refused(refused, made):
    (made / "out.cache.json").unlink()
    message = refused("cache", "verify", "out.cache")
    assert "out.cache.json: no such file: a cache that trtcalib wrote has its manifest beside it" in message


def test_verify_refuses_what_is_no_manifest(refused, made):
    (made / "out.cache.json").write_text('{"schema_version": 2}')
    message = refused("cache", "verify", "out.cache")
    assert "out.cache.json: schema_version: " in message
    assert "out.cache.json: provenance: " in message
