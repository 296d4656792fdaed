"""Histograms in a file: exact round trip, solving from it, and files that are damaged or hostile."""

from __future__ import annotations

import contextlib
import io
import json
import pickle
import struct
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import trtcalib
import trtcalib.histogram_file
from tests.models import save_model
from trtcalib.calibration import Calibration, solve
from trtcalib.errors import HistogramError, OutputError
from trtcalib.histogram_file import load_histograms, save_histograms
from trtcalib.specs import EntropyRecipe, MinMaxRecipe, PercentileRecipe, PluginRecipe

NET = """
net (float[N, 1, 8, 8] x) => (float[N, 16] y)
<float[1, 1, 3, 3] w = {1, 0, -1, 2, 0, -2, 1, 0, -1}, float k = {2}>
{
    twice = Mul(w, k)
    c = Conv<pads = [1, 1, 1, 1]>(x, twice)
    r = Relu(c)
    p = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(r)
    y = Flatten(p)
}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("histograms")
    save_model(folder / "model.onnx", NET)
    values = np.random.default_rng(0).normal(size=(40, 1, 8, 8)) * np.linspace(0.1, 3, 40).reshape(-1, 1, 1, 1)
    np.save(folder / "data.npy", values.astype(np.float32))
    return folder


def calibrate(folder: Path, calibrator="entropy") -> Calibration:
    return trtcalib.calibrate(folder / "model.onnx", folder / "data.npy", calibrator, batch_size=16, workers=2)


@pytest.fixture(scope="module")
def calibration(folder: Path) -> Calibration:
    return calibrate(folder)


@pytest.fixture(scope="module")
def saved(folder: Path, calibration: Calibration) -> Path:
    save_histograms(calibration, folder / "h.npz")
    return folder / "h.npz"


class TestRoundTrip:
    def test_everything_comes_back(self, calibration: Calibration, saved: Path) -> None:
        assert load_histograms(saved) == replace(calibration, clips={})
        assert calibration.findings
        assert any(histogram.doublings for histogram in calibration.histograms.values())

    @pytest.mark.parametrize("name", ["entropy", "minmax", "percentile-99.9"])
    def test_solving_from_the_file_is_bit_equal_to_calibrating(self, folder: Path, saved: Path, name: str) -> None:
        solved = solve(load_histograms(saved), name)
        direct = calibrate(folder, name)
        assert {k: v.tobytes() for k, v in solved.scales.items()} == {k: v.tobytes() for k, v in direct.scales.items()}
        assert solved.manifest(folder / "x.cache") == direct.manifest(folder / "x.cache")

    @pytest.mark.parametrize(
        "recipe",
        [
            EntropyRecipe(method="entropy", variant="smoothed"),
            MinMaxRecipe(method="minmax"),
            PercentileRecipe(method="percentile", percentile=99),
            PluginRecipe(method="mine", options={"a": True, "b": 1, "c": 1.5, "d": "x"}),
        ],
    )
    def test_every_kind_of_recipe(self, tmp_path: Path, calibration: Calibration, recipe) -> None:
        save_histograms(replace(calibration, recipe=recipe), tmp_path / "h.npz")
        loaded = load_histograms(tmp_path / "h.npz").recipe
        assert type(loaded) is type(recipe)
        assert loaded == recipe

    def test_names_of_any_kind(self, tmp_path: Path, calibration: Calibration) -> None:
        name = "a: b\n\x1b[31m $x$ é 卷积 \udc80"
        odd = replace(calibration, histograms={name: calibration.histograms["x"]}, infinite={name: 3})
        save_histograms(odd, tmp_path / "h.npz")
        loaded = load_histograms(tmp_path / "h.npz")
        assert (dict(loaded.histograms), loaded.infinite) == (odd.histograms, odd.infinite)

    def test_no_histograms(self, tmp_path: Path, calibration: Calibration) -> None:
        save_histograms(replace(calibration, histograms={}), tmp_path / "h.npz")
        assert load_histograms(tmp_path / "h.npz").histograms == {}

    def test_histograms_of_different_sizes(self, tmp_path: Path, calibration: Calibration) -> None:
        x = calibration.histograms["x"]
        short = replace(x, counts=x.counts[:256])
        save_histograms(replace(calibration, histograms={"a": short, "b": x, "c": short}), tmp_path / "h.npz")
        assert dict(load_histograms(tmp_path / "h.npz").histograms) == {"a": short, "b": x, "c": short}

    def test_paths_travel_with_the_folder(self, tmp_path: Path, saved: Path) -> None:
        (tmp_path / "h.npz").write_bytes(saved.read_bytes())
        provenance = load_histograms(tmp_path / "h.npz").provenance
        assert (provenance.model.path, provenance.data.path) == (
            str(tmp_path / "model.onnx"),
            str(tmp_path / "data.npy"),
        )
        assert str(saved.parent).encode() not in np.load(saved)["about"].tobytes()

    def test_the_same_calibration_gives_the_same_arrays(
        self, tmp_path: Path, calibration: Calibration, saved: Path
    ) -> None:
        save_histograms(calibration, saved.parent / "again.npz")
        with np.load(saved) as first, np.load(saved.parent / "again.npz") as second:
            assert all(first[name].tobytes() == second[name].tobytes() for name in first.files)

    def test_a_folder_that_is_not_there(self, tmp_path: Path, calibration: Calibration) -> None:
        with pytest.raises(OutputError, match="does not exist: create it first"):
            save_histograms(calibration, tmp_path / "no" / "h.npz")
        assert list(tmp_path.iterdir()) == []


def refusal(path: Path) -> str:
    with pytest.raises(HistogramError) as caught:
        load_histograms(path)
    assert str(caught.value).count(str(path)) == 1
    return str(caught.value).removeprefix(f"{path}: ")


@pytest.fixture
def damage(saved: Path, tmp_path: Path):
    """Write the file with some arrays replaced or removed, and some keys of its JSON; say how loading refuses it."""

    def run(
        about: dict | None = None, *, without: tuple[str, ...] = (), about_bytes: bytes | None = None, **arrays
    ) -> str:
        with np.load(saved) as file:
            content = {name: file[name] for name in file.files if name not in without}
        if about is not None:
            keys = {**json.loads(content["about"].tobytes()), **about}
            about_bytes = json.dumps({key: value for key, value in keys.items() if value is not None}).encode()
        if about_bytes is not None:
            content["about"] = np.frombuffer(about_bytes, np.uint8)
        np.savez_compressed(tmp_path / "bad.npz", **{**content, **arrays})
        return refusal(tmp_path / "bad.npz")

    return run


class TestNoFile:
    def test_missing(self, tmp_path: Path) -> None:
        assert refusal(tmp_path / "no.npz") == "no such file"

    def test_a_folder(self, tmp_path: Path) -> None:
        assert refusal(tmp_path) == "cannot be read: Is a directory"

    @pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04" + bytes(40), pickle.dumps([1])])
    def test_no_zip(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "h.npz").write_bytes(content)
        assert refusal(tmp_path / "h.npz") == "not a .npz file, or truncated: File is not a zip file"

    def test_truncated(self, tmp_path: Path, saved: Path) -> None:
        content = saved.read_bytes()
        for length in range(100, len(content), 997):
            (tmp_path / "h.npz").write_bytes(content[:length])
            assert refusal(tmp_path / "h.npz").startswith("not a .npz file, or truncated: ")

    def test_flipped_bytes_never_raise_anything_else(self, tmp_path: Path, saved: Path) -> None:
        content = saved.read_bytes()
        rng = np.random.default_rng(0)
        for position in rng.integers(0, len(content), 200):
            hostile = bytearray(content)
            hostile[position] ^= int(rng.integers(1, 256))
            (tmp_path / "h.npz").write_bytes(hostile)
            with contextlib.suppress(HistogramError):  # some flips change nothing that is read
                load_histograms(tmp_path / "h.npz")

    def test_a_file_that_unpacks_to_terabytes(self, tmp_path: Path, saved: Path) -> None:
        content = bytearray(saved.read_bytes())
        for position in [i for i in range(len(content)) if content.startswith(b"PK\x01\x02", i)]:
            struct.pack_into("<I", content, position + 24, 0xFFFFFFF0)
        (tmp_path / "h.npz").write_bytes(content)
        size = 8 * 0xFFFFFFF0
        assert refusal(tmp_path / "h.npz") == f"unpacks to {size} bytes, more than the {4 << 30} that are read"

    def test_a_header_that_claims_more_than_there_is(self, tmp_path: Path) -> None:
        member = io.BytesIO()
        np.lib.format.write_array_header_1_0(member, {"descr": "<i8", "fortran_order": False, "shape": (1 << 40,)})
        with zipfile.ZipFile(tmp_path / "h.npz", "w") as archive:
            archive.writestr("counts.npy", member.getvalue())
        assert refusal(tmp_path / "h.npz").startswith("not a .npz file, or truncated: ")

    def test_pickled_arrays_are_refused(self, damage) -> None:
        message = damage(range=np.array([{"code": 1}], object))
        assert message.startswith(
            "not a .npz file, or truncated: Object arrays cannot be loaded when allow_pickle=False"
        )

    def test_another_npz(self, tmp_path: Path) -> None:
        np.savez(tmp_path / "h.npz", x=np.zeros(3))
        assert refusal(tmp_path / "h.npz") == "not a file that --histograms wrote: 'about' is missing"


class TestDamagedContent:
    def test_a_newer_format(self, damage) -> None:
        assert damage({"format": 2}) == "format 2 is newer than this trtcalib reads (1): update it"

    @pytest.mark.parametrize("key", ["format", "names", "tensors", "infinite", "recipe", "provenance", "findings"])
    def test_missing_keys(self, damage, key: str) -> None:
        assert damage({key: None}) == f"not a file that --histograms wrote: '{key}' is missing"

    @pytest.mark.parametrize(
        "name", ["about", "counts", "bins", "range", "first_max", "maximum", "doublings", "clamped"]
    )
    def test_missing_arrays(self, damage, name: str) -> None:
        assert damage(without=(name,)) == f"not a file that --histograms wrote: '{name}' is missing"

    @pytest.mark.parametrize("about", [b"", b"[]", b"3", b"\xff", b"[" * 100000, b'{"format": "1"}'])
    def test_no_json(self, damage, about: bytes) -> None:
        message = damage(without=("about",), about_bytes=about)
        assert message.startswith("not a file that --histograms wrote: ")

    @pytest.mark.parametrize(
        ("key", "value"),
        [
            ("names", 3),
            ("tensors", [{}]),
            ("infinite", {"x": "many"}),
            ("recipe", {"method": 3}),
            ("provenance", []),
            ("findings", 3),
            ("format", "1"),
        ],
    )
    def test_keys_of_another_type(self, damage, key: str, value: object) -> None:
        assert damage({key: value}).startswith("not a file that --histograms wrote: ")

    def test_negative_counts(self, damage, calibration: Calibration) -> None:
        counts = np.concatenate([h.counts for h in calibration.histograms.values()])
        counts[5] = -3
        assert damage(counts=counts) == "counts must not be negative, got -3"

    @pytest.mark.parametrize(
        ("name", "values"),
        [
            ("range", np.nan),
            ("range", -1),
            ("first_max", np.inf),
            ("maximum", np.nan),
            ("maximum", -1),
            ("doublings", -1),
            ("doublings", 1 << 40),
        ],
    )
    def test_numbers_that_cannot_be(self, damage, calibration: Calibration, name: str, values: float) -> None:
        length = len(calibration.histograms)
        dtype = np.int64 if name == "doublings" else np.float32
        expected = "histogram 'x' has a range, maximum or number of doublings that cannot be: damaged"
        assert damage(**{name: np.full(length, values, dtype)}) == expected

    @pytest.mark.parametrize(
        ("name", "values", "shown"),
        [
            ("counts", np.zeros(3), "float64 of shape (3,)"),
            ("bins", np.zeros((2, 2), np.int64), "int64 of shape (2, 2)"),
            ("range", np.array(["a"]), "<U1 of shape (1,)"),
            ("clamped", np.array(3), "int64 of shape ()"),
        ],
    )
    def test_arrays_of_another_kind(self, damage, name: str, values: np.ndarray, shown: str) -> None:
        assert damage(**{name: values}) == f"array {name!r} is {shown}: damaged"

    @pytest.mark.parametrize(
        "arrays",
        [{"bins": np.array([2048])}, {"counts": np.zeros(5, np.int64)}, {"range": np.zeros(1, np.float32)}],
    )
    def test_lengths_that_do_not_fit(self, damage, arrays: dict) -> None:
        assert damage(**arrays) == "the numbers of names, bins and counts do not fit together: damaged"

    def test_columns_that_are_too_short(self, damage) -> None:
        message = damage(clamped=np.zeros(1, np.int64))
        assert message.startswith("not a file that --histograms wrote: index 1 is out of bounds")

    def test_a_negative_number_of_bins(self, damage, calibration: Calibration) -> None:
        bins = np.array([h.bins for h in calibration.histograms.values()])
        bins[0], bins[1] = -2048, bins[1] + 4096
        assert damage(bins=bins).startswith("counts must be one-dimensional and not empty")

    def test_a_tensor_that_derives_from_none(self, damage) -> None:
        tensors = [{"name": "y", "kind": "activation", "view_of": "z", "scale_of": None}]
        assert damage({"tensors": tensors}) == "tensor 'y' derives from 'z', which does not stand before it"

    def test_a_tensor_that_derives_from_itself(self, damage) -> None:
        tensors = [{"name": "y", "kind": "activation", "view_of": None, "scale_of": "y"}]
        assert damage({"tensors": tensors}) == "tensor 'y' derives from 'y', which does not stand before it"
