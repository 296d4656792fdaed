"""``trtcalib demo``: the main job on the embedded sample."""

from __future__ import annotations

import sys

from PIL import Image

from tests.cli.helpers import cache, codes, listing, manifest

METHODS = ("entropy", "minmax", "percentile-99.99")


def test_three_caches_their_manifests_a_picture_and_a_table_twice_the_same(done, folder):
    first = done("demo", "-o", "results/demo")
    output = folder / "results" / "demo"
    caches = [f"digits-{method}.cache" for method in METHODS]
    assert set(listing(output)) == {*caches, *(f"{name}.json" for name in caches), "digits-most-clipped.png"}

    headers = [cache(output / name).header for name in caches]
    assert headers == [
        "TRT-101601-EntropyCalibration2",
        "TRT-101601-MinMaxCalibration",
        "TRT-101601-EntropyCalibration2",
    ]
    assert len({tuple(cache(output / name).scales) for name in caches}) == 1
    assert len({(output / name).read_bytes() for name in caches}) == 3
    assert [manifest(output / name).recipe["method"] for name in caches] == ["entropy", "minmax", "percentile"]
    assert codes(output / caches[0]) == []
    with Image.open(output / "digits-most-clipped.png") as image:
        assert image.format == "PNG"

    head, *rows = [line for line in first.out.splitlines() if "─" not in line and line.strip()]
    for column in ("tensor", "range", "bins", "amax entropy", "amax minmax", "amax percentile-99.99", "scale"):
        assert column in head
    scales = cache(output / caches[0]).scales
    assert [row.split()[0] for row in rows[: len(scales)]] == list(scales)
    assert float(rows[0].split()[-1]) == float(f"{scales['image']:.8g}")
    assert first.err == ""

    before = listing(output)
    second = done("demo", "-o", "results/demo")
    assert second.out == first.out
    assert listing(output) == before


def test_the_caches_verify(done):
    done("demo", "-o", "out")
    assert {line.split()[0] for line in done("cache", "verify", "out/digits-minmax.cache").out.splitlines()} == {"same"}


def test_a_file_in_the_place_of_the_folder_is_refused(refused, folder):
    (folder / "out").write_text("")
    assert refused("demo", "-o", "out").startswith("out: cannot be made a folder")


def test_without_onnx_runtime_no_folder_is_made(refused, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert "trtcalib[cpu]" in refused("demo", "-o", "out", code=3)
