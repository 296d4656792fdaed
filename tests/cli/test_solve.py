"""``trtcalib solve``: another cache from saved histograms. That it equals calibrating anew is in test_calibrate.py."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest

from tests.cli.helpers import facts, listing, manifest, save_model

DIVIDED = """
divided (float[N, 2] x) => (float[N, 2] y)
{
  one = Constant<value_floats = [1.0, 0.0]>()
  zero = Constant<value_floats = [0.0, 1.0]>()
  big = Div(one, zero)
  y = Add(x, one)
}
"""


@pytest.fixture
def saved(done, net):
    done("calibrate", "model.onnx", "--data", "data.npy", "-o", "first.cache", "--histograms", "h.npz")
    return net


def test_it_needs_neither_model_nor_data_nor_onnx_runtime(done, saved, monkeypatch):
    for file in ("model.onnx", "data.npy"):
        (saved / file).unlink()
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    result = done("solve", "h.npz", "-o", "out.cache")
    assert "6 scales by EntropyCalibration2" in result.out
    assert (saved / "out.cache").read_bytes() == (saved / "first.cache").read_bytes()


def test_json_is_the_manifest(done, saved):
    result = done("solve", "h.npz", "-o", "out.cache", "--calibrator", "percentile-99", "--json")
    assert result.out == (saved / "out.cache.json").read_text(encoding="utf-8")
    assert json.loads(result.out)["recipe"]["percentile"] == 99


def test_findings_and_fail_on_are_kept(cli, saved):
    result = cli("solve", "h.npz", "-o", "out.cache", "--fail-on", "partial-last-batch")
    assert result.code == 1
    assert "finding: partial-last-batch" in result.err


def test_paths_in_the_manifest_follow_the_cache(done, saved):
    (saved / "elsewhere").mkdir()
    done("solve", "h.npz", "-o", "elsewhere/out.cache")
    assert manifest(saved / "elsewhere" / "out.cache").provenance.model.path == "../model.onnx"


def test_histograms_with_infinite_values_stay_infinite_scales(done, folder):
    save_model(folder / "model.onnx", DIVIDED)
    np.save("data.npy", np.ones((32, 2), np.float32))
    done("calibrate", "model.onnx", "--data", "data.npy", "-o", "first.cache", "--histograms", "h.npz")
    done("solve", "h.npz", "-o", "out.cache")
    assert (folder / "out.cache").read_bytes() == (folder / "first.cache").read_bytes()
    assert facts(folder / "out.cache")["big"].scale_hex == "7f800000"


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04 cut off"])
def test_a_damaged_file_is_refused(refused, folder, content):
    (folder / "h.npz").write_bytes(content)
    assert "h.npz: not a .npz file, or truncated" in refused("solve", "h.npz", "-o", "out.cache")


def test_a_truncated_file_is_refused(refused, saved):
    content = (saved / "h.npz").read_bytes()
    (saved / "h.npz").write_bytes(content[: len(content) // 2])
    assert "h.npz: not a .npz file, or truncated" in refused("solve", "h.npz", "-o", "out.cache")


def test_another_npz_is_refused(refused, folder):
    np.savez("h.npz", x=np.zeros(3))
    assert "h.npz: not a file that --histograms wrote" in refused("solve", "h.npz", "-o", "out.cache")


def test_a_missing_file_is_refused(refused, folder):
    assert refused("solve", "h.npz", "-o", "out.cache") == "h.npz: no such file\n"


def test_pickled_objects_are_refused(refused, folder):
    np.savez("h.npz", about=np.array([{}], object))
    assert "h.npz: " in refused("solve", "h.npz", "-o", "out.cache")


def test_a_newer_format_is_refused(refused, saved):
    with np.load("h.npz") as file:
        arrays = dict(file)
    about = json.loads(arrays["about"].tobytes()) | {"format": 99}
    np.savez("h.npz", **(arrays | {"about": np.frombuffer(json.dumps(about).encode(), np.uint8)}))
    assert "format 99 is newer" in refused("solve", "h.npz", "-o", "out.cache")


@pytest.mark.parametrize("change", ["range: global", "bins: 1024"])
def test_another_range_or_number_of_bins_needs_another_pass(refused, saved, change):
    (saved / "recipe.yaml").write_text(f"method: entropy\n{change}\n")
    message = refused("solve", "h.npz", "-o", "out.cache", "--calibrator", "recipe.yaml")
    assert "collected with range 'doubling' and 2048 bins: run calibrate again" in message


def test_nothing_else_is_written(done, saved):
    before = listing(saved)
    done("solve", "h.npz", "-o", "out.cache")
    assert listing(saved).keys() - before.keys() == {"out.cache", "out.cache.json"}
