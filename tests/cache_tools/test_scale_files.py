"""Files of scales as they are read: caches with their manifests, tables as amax / 127."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest

import trtcalib
from tests.cli.helpers import NET, normal, save_model
from trtcalib.cache_tools.scale_files import MOST_ODDITIES, read_scales
from trtcalib.core.cache_causes import RangeFacts
from trtcalib.errors import CacheFormatError

HEADER = b"TRT-101601-EntropyCalibration2\n"


@pytest.fixture
def made(tmp_path: Path) -> Path:
    save_model(tmp_path / "model.onnx", NET)
    np.save(tmp_path / "data.npy", normal(40, 4))
    result = trtcalib.calibrate(tmp_path / "model.onnx", tmp_path / "data.npy", batch_size=8)
    result.write_cache(tmp_path / "a.cache", tensorrt_version="10.16.1")
    return tmp_path / "a.cache"


def refused(path: Path) -> str:
    with pytest.raises(CacheFormatError) as caught:
        read_scales(path)
    assert caught.value.path == path
    return caught.value.reason


def test_a_manifest_of_these_bytes_gives_ranges_and_bins(made: Path) -> None:
    found = read_scales(made)
    stated = {tensor["name"]: tensor for tensor in json.loads(Path(f"{made}.json").read_text())["tensors"]}
    assert found.manifest is not None
    assert found.scales.facts.keys() == found.scales.bits.keys() == stated.keys()
    assert found.scales.facts["sum"] == RangeFacts(
        **{key: stated["sum"][key] for key in ("first_maximum", "doublings", "maximum", "bin_m")}
    )
    assert found.notes == ()


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda cache: cache.write_bytes(cache.read_bytes() + b"\n"), "nothing in it was believed"),
        (lambda cache: Path(f"{cache}.json").write_text("{"), "cannot be used"),
        (lambda cache: Path(f"{cache}.json").write_text("[1]"), "cannot be used"),
    ],
)
def test_a_manifest_of_other_bytes_or_a_broken_one_is_told_and_not_used(made: Path, spoil, words: str) -> None:
    spoil(made)
    found = read_scales(made)
    assert found.manifest is None
    assert found.scales.facts == {}
    assert len(found.scales.bits) == 6
    assert any(words in note for note in found.notes)


def test_names_that_are_no_utf_8_find_their_facts(made: Path) -> None:
    manifest = json.loads(Path(f"{made}.json").read_text())
    content = made.read_bytes().replace(b"sum:", b"s\xff:")
    made.write_bytes(content)
    for tensor in manifest["tensors"]:
        tensor["name"] = tensor["name"].replace("sum", "s\\udcff")
    manifest["cache_sha256"] = trtcalib.files.sha256_of_bytes(content)
    Path(f"{made}.json").write_text(json.dumps(manifest))
    assert read_scales(made).scales.facts.keys() >= {"s\udcff", "product"}


def test_line_ends_and_odd_lines_are_told(tmp_path: Path) -> None:
    path = tmp_path / "a.cache"
    path.write_bytes(HEADER.replace(b"\n", b"\r\n") + b"a: 3f800000\r\na: 0\r\nb: 7fc00000\r\n")
    found = read_scales(path)
    assert found.scales.bits == {"a": 0, "b": 0x7FC00000}
    assert found.header == "TRT-101601-EntropyCalibration2"
    assert found.scales.header == (101601, "EntropyCalibration2")
    assert found.notes == (
        "tensor 'a' stands 2 times; the last is used",
        "tensor 'a' has a zero scale",
        "tensor 'b' has a NaN scale",
        "its lines end in CRLF",
    )


def test_many_odd_lines_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "a.cache"
    path.write_bytes(HEADER + b"".join(b"t%d: 0\n" % i for i in range(1000)))
    notes = read_scales(path).notes
    assert len(notes) == MOST_ODDITIES + 1
    assert notes[-1] == f"... and {1000 - MOST_ODDITIES} more oddities"


def test_a_tables_scale_is_amax_over_127_in_float32(tmp_path: Path) -> None:
    path = tmp_path / "calibration.json"
    path.write_text('{"a": [-1.5, 0.1], "b": [0, 1e60], "c": [NaN, 1]}')
    found = read_scales(path)
    third = np.float32(1.5) / np.float32(127)
    assert found.scales.bits["a"] == struct.unpack("<I", struct.pack("<f", third))[0]
    assert found.scales.bits["b"] == 0x7F800000
    assert (found.format, found.header, found.scales.header, found.manifest) == ("onnxruntime-json", None, None, None)
    assert found.notes[0].startswith("an ONNX Runtime table of lowest and highest: taken as scale = ")
    assert found.notes[1:] == ("tensor 'b' has the amax 1e+60", "tensor 'c' has the amax nan")


def test_a_negative_number_in_a_text_table_stays_negative_and_is_told(tmp_path: Path) -> None:
    path = tmp_path / "calibration.cache"
    path.write_text("a -1.5\nb 2.0\n")
    found = read_scales(path)
    assert found.format == "onnxruntime-text"
    assert found.scales.bits["a"] & 0x80000000
    assert found.notes[-1] == "tensor 'a' has the amax -1.5"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b" \n", "is empty"),
        (HEADER + b"a 1\n", "expected 'tensor name: hexadecimal scale'"),
        (b"TRT-x\n", "expected a calibration cache with a header"),
        (b"\0", "is binary"),
    ],
)
def test_what_is_none_of_them_is_refused_naming_the_file(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "a.cache"
    path.write_bytes(content)
    assert words in refused(path)


def test_missing_files_folders_and_huge_ones_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "cannot be read: No such file" in refused(tmp_path / "missing.cache")
    assert "cannot be read" in refused(tmp_path)
    monkeypatch.setattr("trtcalib.cache_tools.scale_files.MOST_BYTES", 1 << 20)
    (tmp_path / "large").write_bytes(b" " * ((1 << 20) + 1))
    assert refused(tmp_path / "large") == "is larger than 1 MiB: is it a table of scales?"
