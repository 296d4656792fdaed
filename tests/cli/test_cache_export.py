"""``trtcalib cache export``: what each tool would read back, and what is refused."""

from __future__ import annotations

import ast
import configparser
import json
import shlex
import subprocess
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.cli.helpers import cache, listing
from trtcalib.cache_tools.edited import EditSource
from trtcalib.cache_tools.export import DIALECTS, export_cache
from trtcalib.cache_tools.scale_files import read_scales
from trtcalib.core.cache import format_cache, make_cache
from trtcalib.core.scale import scale_from_amax

HEADER = "TRT-101601-EntropyCalibration2"
FOLDERS = tuple(dialect for dialect in DIALECTS if dialect != "dynamic-range-json")
LINES = ("deepstream", "trtexec", "polygraphy")

amax = st.floats(min_value=0, max_value=float(np.finfo(np.float32).max), width=32)


def write(*lines, header=HEADER, name="a.cache"):
    Path(name).write_bytes("\n".join([header, *lines, ""]).encode("utf-8", "surrogateescape"))


def native(content):
    """Read as ONNX Runtime's provider does: a line split at its first colon, float32 bits with an implicit leading one always."""
    found = {}
    for line in content.decode().splitlines()[1:]:
        name, digits = line.split(":")[:2]
        bits = int(digits, 16)
        exponent, fraction = (bits >> 23 & 0xFF) - 127, bits & 0x7FFFFF
        scale = np.float32((-1.0 if bits >> 31 else 1.0) * 2.0**exponent * (1 + fraction / 2**23))
        found[name] = scale * np.float32(127)
    return found


def table(content):
    from onnxruntime.quantization.CalTableFlatBuffers.TrtTable import TrtTable

    found = TrtTable.GetRootAs(content, 0)
    pairs = [found.Dict(i) for i in range(found.DictLength())]
    return {pair.Key().decode(): np.float32(pair.Value().decode()) for pair in pairs}


def assigned(path, name):
    """Return a literal that a script assigns; the script is not run."""
    for node in ast.parse(Path(path).read_text()).body:
        if isinstance(node, ast.Assign) and node.targets[0].id == name:
            return ast.literal_eval(node.value)
    raise AssertionError(name)


# round trips


@given(st.dictionaries(st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1), amax))
def test_ranges_read_back_to_the_same_scales(tmp_path_factory, ranges):
    scales = {name: scale_from_amax(np.float32(value)) for name, value in ranges.items()}
    made = make_cache(scales, "10.16.1", "EntropyCalibration2")
    source = EditSource(path=Path("a.cache"), content=format_cache(made), cache=made)
    folder = tmp_path_factory.mktemp("export")
    if scales:
        (content,) = export_cache(source, "dynamic-range-json", folder / "r.json").files.values()
        (folder / "r.json").write_bytes(content)
        assert read_scales(folder / "r.json").scales.bits == {entry.name: entry.bits for entry in made.entries}
    exported = export_cache(source, "onnxruntime-table", folder).files[folder / "calibration.flatbuffers"]
    assert {name: scale_from_amax(value) for name, value in table(exported).items()} == scales


def test_dynamic_ranges(done, folder):
    write("x: 3c010a14", "onnx::Conv_329: 3f800000", "zero: 0")
    result = done("cache", "export", "a.cache", "--to", "dynamic-range-json", "-o", "r.json")
    found = json.loads((folder / "r.json").read_text())
    assert found["onnx::Conv_329"] == [-127, 127]
    assert found["zero"] == [0, 0]
    assert found["x"] == [-1.000244140625, 1.000244140625]
    assert result.out == "r.json\n"
    assert "tensor.dynamic_range = tuple(ranges[tensor.name])" in result.err
    assert "note: tensor 'zero' has a zero scale" in result.err
    assert done("cache", "diff", "a.cache", "r.json").code == 0


def test_a_scale_that_no_amax_gives_is_told_of(done, folder):
    write("x: 3fc00030", *(f"t{i}: {0x3FC00000 + i:x}" for i in range(300)))
    result = done("cache", "export", "a.cache", "--to", "dynamic-range-json", "-o", "r.json")
    assert "no float32 amax gives exactly the scale of " in result.err


def test_onnxruntime_reads_the_cache_itself(done, folder):
    write("x: 3c010a14", "y: 3f800000")
    done("cache", "export", "a.cache", "--to", "onnxruntime", "-o", "out", "--model", "m.onnx")
    assert Path("out/int8.cache").read_bytes() == Path("a.cache").read_bytes()
    scales = cache(folder / "a.cache").scales
    assert native(Path("out/int8.cache").read_bytes()) == {n: s * np.float32(127) for n, s in scales.items()}
    assert assigned("out/onnxruntime_int8.py", "options") == {
        "trt_int8_enable": True,
        "trt_int8_calibration_table_name": "int8.cache",
        "trt_int8_use_native_calibration_table": True,
    }
    assert "'../m.onnx'" in Path("out/onnxruntime_int8.py").read_text()


def test_onnxruntime_is_said_to_misread_tiny_scales(done, folder):
    write("x: 0", "y: 00000001", "z: 00800000")
    result = done("cache", "export", "a.cache", "--to", "onnxruntime", "-o", "out")
    assert (
        "2 scales are zero or subnormal ('x', 'y'): the provider reads them as another tiny number, 0 as 5.9e-39"
        in (result.err)
    )
    read = native(Path("out/int8.cache").read_bytes())
    assert float(read["x"]) / 127 == pytest.approx(2.0**-127, rel=1e-3)
    assert float(read["z"]) / 127 == pytest.approx(2.0**-126, rel=1e-6)


def test_onnxruntimes_own_table_holds_any_name(done, folder):
    write("onnx::Conv_329: 3f800000", "a: b: 3c010a14", "zero: 0")
    done("cache", "export", "a.cache", "--to", "onnxruntime-table", "-o", "out")
    assert table(Path("out/calibration.flatbuffers").read_bytes()) == {
        "onnx::Conv_329": 127,
        "a: b": np.float32(1.000244140625),
        "zero": 0,
    }
    assert assigned("out/onnxruntime_int8.py", "options") == {
        "trt_int8_enable": True,
        "trt_int8_calibration_table_name": "calibration.flatbuffers",
        "trt_int8_use_native_calibration_table": False,
    }


def test_deepstream(done, folder):
    write("x: 1")
    (folder / "models").mkdir()
    done("cache", "export", "a.cache", "--to", "deepstream", "-o", "out", "--model", "models/my model.onnx")
    parser = configparser.ConfigParser()
    parser.read("out/config_infer_int8.txt")
    assert dict(parser["property"]) == {
        "onnx-file": "../models/my model.onnx",
        "int8-calib-file": "int8.cache",
        "network-mode": "1",
    }
    assert "TensorRT 10.16.1" in Path("out/config_infer_int8.txt").read_text()


@pytest.mark.parametrize("dialect", ["trtexec", "polygraphy"])
@pytest.mark.parametrize("model", ["m.onnx", 'it\'s $(rm -rf x) `y` "z".onnx', "-q.onnx"])
def test_scripts_pass_the_model_as_one_word(done, folder, dialect, model):
    """The shell runs them, with a stand-in for the tool that prints its arguments and its folder."""
    write("x: 1")
    done("cache", "export", "a.cache", "--to", dialect, "-o", "out", "--model", f"./{model}")
    (folder / "bin").mkdir()
    tool = folder / "bin" / dialect
    tool.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n[ -f int8.cache ] && echo found\n')
    tool.chmod(0o755)
    script = f"out/{dialect}_int8.sh"
    result = subprocess.run(
        ["sh", script], env={"PATH": f"{folder}/bin:/usr/bin:/bin"}, capture_output=True, text=True, check=True
    )
    expected = {
        "trtexec": [f"--onnx=../{model}", "--int8", "--calib=int8.cache", "--saveEngine=int8.engine"],
        "polygraphy": [
            *("convert", f"../{model}", "--int8", "--calibration-cache", "int8.cache"),
            *("--calib-base-cls", "IInt8EntropyCalibrator2", "-o", "int8.engine"),
        ],
    }[dialect]
    assert result.stdout.splitlines() == [*expected, "found"]
    assert listing(folder).keys() >= {"out/int8.cache", script}


def test_a_model_in_the_folder_itself_is_no_option(done, folder):
    write("x: 1")
    done("cache", "export", "a.cache", "--to", "polygraphy", "-o", ".", "--model", "./-q.onnx")
    assert "convert ./-q.onnx " in Path("polygraphy_int8.sh").read_text()


@pytest.mark.parametrize(
    ("algorithm", "calibrator"),
    [
        ("EntropyCalibration2", "IInt8EntropyCalibrator2"),
        ("MinMaxCalibration", "IInt8MinMaxCalibrator"),
        ("EntropyCalibration", "IInt8EntropyCalibrator"),
        ("LegacyCalibration", "IInt8LegacyCalibrator"),
    ],
)
def test_polygraphy_takes_the_calibrator_of_the_header(done, folder, algorithm, calibrator):
    write("x: 1", header=f"TRT-8601-{algorithm}")
    done("cache", "export", "a.cache", "--to", "polygraphy", "-o", "out", "--model", "it's.onnx")
    python, shell = (Path(f"out/polygraphy_int8.{suffix}").read_text() for suffix in ("py", "sh"))
    compile(python, "polygraphy_int8.py", "exec")
    assert f"Calibrator(data_loader=[], cache='int8.cache', BaseClass=trt.{calibrator})" in python
    assert '"../it\'s.onnx"' in python
    assert shlex.split(shell.splitlines()[-1])[-3] == calibrator
    assert "TensorRT 8.6.1" in python
    assert "TensorRT 8.6.1" in shell


@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_dialect_says_which_tensorrt_it_is_for(done, folder, dialect):
    write("x: 1")
    result = done("cache", "export", "a.cache", "--to", dialect, "-o", "out")
    texts = [
        path.read_text()
        for path in (Path("out").iterdir() if Path("out").is_dir() else [])
        if path.suffix in (".py", ".sh", ".txt")
    ]
    assert all(
        "TensorRT 8.6 to 10.16" in text or "TensorRT 10.16.1" in text
        for text in [*texts, *([] if texts else [result.err])]
    )
    assert Path("a.cache").read_bytes() == f"{HEADER}\nx: 1\n".encode()


@pytest.mark.parametrize("dialect", LINES)
def test_a_header_of_another_age_is_told_of(done, folder, dialect):
    write("x: 1", header="TRT-7202-EntropyCalibration2")
    result = done("cache", "export", "a.cache", "--to", dialect, "-o", "out")
    assert "note: these lines are for TensorRT 8.6 to 10.16; the header is of 7.2.2" in result.err


def test_nothing_of_a_file_name_reaches_a_script_as_a_line(done, folder):
    write("x: 1", name="a\nrm -rf x\x1b[31m.cache")
    for dialect in FOLDERS:
        done("cache", "export", "a\nrm -rf x\x1b[31m.cache", "--to", dialect, "-o", dialect)
        for path in (folder / dialect).iterdir():
            assert not any(line.startswith(b"rm ") for line in path.read_bytes().splitlines())
            assert b"\x1b" not in path.read_bytes()


# refused


@pytest.mark.parametrize("dialect", ["trtexec", "deepstream"])
def test_tools_with_one_calibrator_refuse_another_algorithm(refused, folder, dialect):
    write("x: 1", header="TRT-101601-MinMaxCalibration")
    assert (
        "calibrator is an IInt8EntropyCalibrator2, which takes no cache by MinMaxCalibration. The scales can be given to it all the same "
        "under its header: trtcalib cache convert --algorithm EntropyCalibration2"
    ) in refused("cache", "export", "a.cache", "--to", dialect, "-o", "out")


@pytest.mark.parametrize("dialect", LINES)
def test_a_header_that_no_tensorrt_takes_is_refused(refused, folder, dialect):
    write("x: 1", header="TRT-110400-EntropyCalibration2")
    assert "of TensorRT 11.4.0, which reads no cache" in refused(
        "cache", "export", "a.cache", "--to", dialect, "-o", "out"
    )
    write("x: 1", header="TRT-999999999-EntropyCalibration2")
    assert "which reads no cache" in refused("cache", "export", "a.cache", "--to", dialect, "-o", "out")
    write("x: 1", header="TRT-101601-Odd")
    assert "no calibrator takes 'Odd': expected one of EntropyCalibration2, " in refused(
        "cache", "export", "a.cache", "--to", dialect, "-o", "out"
    )


def test_names_with_a_colon_are_refused_by_name_for_the_native_table(refused, folder):
    write("x: 1", "onnx::Conv_329: 3f800000", "", "y:z: 1", "inf: 7f800000")
    reason = (
        "the provider splits a line at the first ':', so that it would read another name: take --to onnxruntime-table"
    )
    assert refused("cache", "export", "a.cache", "--to", "onnxruntime", "-o", "out").splitlines() == [
        f"a.cache: line 3: tensor 'onnx::Conv_329': {reason}",
        f"a.cache: line 5: tensor 'y:z': {reason}",
        "a.cache: line 6: tensor 'inf': the scale inf is no finite dynamic range: give it one with trtcalib cache set",
    ]


@pytest.mark.parametrize("dialect", ["dynamic-range-json", "onnxruntime-table"])
def test_what_a_table_cannot_hold_is_refused_by_name(refused, folder, dialect):
    write("inf: 7f800000", "nan: 7fc00000", "minus: bf800000", "large: 7f7fffff", "caf\udce9: 1")
    found = refused("cache", "export", "a.cache", "--to", dialect, "-o", "out").splitlines()
    assert [line.split(": ")[2] for line in found] == [
        "tensor 'inf'",
        "tensor 'nan'",
        "tensor 'minus'",
        "tensor 'large'",
        "tensor 'caf\\udce9'",
    ]
    assert found[3].endswith("stands for an amax beyond float32: give it another with trtcalib cache set")
    assert found[4].endswith("the name is not UTF-8: see trtcalib cache rename")


def test_what_tensorrt_itself_writes_goes_to_tensorrts_own_tools(done, folder):
    write("mask: 7f800000", "zero: 0", "caf\udce9: b: 1")
    for dialect in LINES:
        done("cache", "export", "a.cache", "--to", dialect, "-o", dialect)
        assert Path(dialect, "int8.cache").read_bytes() == Path("a.cache").read_bytes()


def test_odd_places_and_models_are_refused(refused, misused, folder):
    write("x: 1")
    Path("file").write_text("")
    Path("int8.cache").write_bytes(Path("a.cache").read_bytes())
    assert "file: is a file; --to trtexec writes several: give the name of a folder" in refused(
        "cache", "export", "a.cache", "--to", "trtexec", "-o", "file"
    )
    assert "int8.cache: is an input" in refused("cache", "export", "int8.cache", "--to", "trtexec", "-o", ".")
    assert "is a folder" in refused("cache", "export", "a.cache", "--to", "dynamic-range-json", "-o", ".")
    assert "give the model another name" in refused(
        "cache", "export", "a.cache", "--to", "trtexec", "-o", "out", "--model", "a\nb.onnx"
    )
    assert "give the model another name" in refused(
        "cache", "export", "a.cache", "--to", "deepstream", "-o", "out", "--model", "a;b.onnx"
    )
    assert "missing.cache: cannot be read" in refused(
        "cache", "export", "missing.cache", "--to", "trtexec", "-o", "out"
    )
    assert "'tritonn' is not one of" in misused("cache", "export", "a.cache", "--to", "tritonn", "-o", "out")
