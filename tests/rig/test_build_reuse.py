"""``trtcalib build`` over the simulated builder: a calibration cache is used again when it was made from the same things."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.cli.helpers import listing
from tests.rig.flow import DENSE, calibrating_flow, joined

BUILD = ["build", "model.onnx", "--data", "data.npy", "--batch-size", 4]
MADE_ANEW = "cache-not-reused: out.cache is written anew: "

AREA = "area (float[N, 2, H, W] x) => (float[N, 2, H, W] y) { y = Relu(x) }"


@pytest.fixture
def flow(tmp_path, version):
    return calibrating_flow(tmp_path, version)


@pytest.fixture
def built(flow):
    """A flow in which a first build has calibrated."""
    flow.model()
    flow.data(12)
    first = flow.done(*BUILD, "-o", "out.engine")
    assert first.findings == []
    return flow


def differences(result):
    """Return what a build said it calibrated anew for."""
    (told,) = [finding for finding in result.findings if finding.startswith("cache-not-reused: ")]
    assert told.startswith(MADE_ANEW), told
    return told.removeprefix(MADE_ANEW)


def content(flow, name="out.cache"):
    return (flow.folder / name).read_bytes()


def test_simulated_second_build_of_the_same_feeds_no_batch(built):
    before = listing(built.folder)
    result = built.done(*BUILD, "-o", "out.engine")
    calibration = result.build["calibration"]
    assert (calibration["honoured"], calibration["batches"]) == (True, [])
    assert calibration["answered"].encode() == content(built)
    assert f"out.cache: {built.header()}, used again as it stood" in result.out
    after = listing(built.folder)
    assert {name for name in after if after[name] != before[name]} == {"out.engine.json"}
    manifest = built.engine_manifest()
    assert (manifest.cache.origin, manifest.batches_fed) == ("reused", 0)
    assert manifest.data == built.cache_manifest().provenance.data
    assert manifest.batching.batch_size == 4


def test_simulated_build_of_another_engine_uses_the_same_cache(built):
    (built.folder / "other").mkdir()
    result = built.done(*BUILD, "--fp16", "--cache", "out.cache", "-o", "other/fast.engine")
    assert result.build["calibration"]["honoured"]
    manifest = built.engine_manifest("other/fast.engine")
    assert (manifest.cache.path, manifest.data.path) == ("../out.cache", "../data.npy")
    assert sorted(listing(built.folder / "other")) == ["fast.engine", "fast.engine.json"]


def test_simulated_percentile_cache_is_used_again(flow):
    flow.model()
    flow.data(12)
    build = [*BUILD, "--calibrator", "percentile-99", "-o", "out.engine"]
    flow.done(*build)
    made = content(flow)
    result = flow.done(*build)
    assert "used again as it stood" in result.out
    assert flow.engine_manifest().cache.origin == "reused"
    assert content(flow) == made
    # Entropy has the same header, so only the manifest can tell that these scales are others.
    result = flow.done(*BUILD, "-o", "out.engine")
    told = differences(result)
    assert "its scales were chosen by trtcalib on the CPU, this build wants TensorRT itself" in told
    assert "recipe was {" in told
    assert len(result.batches) == 3


def other_model(flow):
    flow.model(DENSE.replace("{1, 0, 0, 1, 1, 1}", "{1, 0, 0, 1, 1, 2}"))


def other_data(flow):
    flow.data(12, seed=1)


def edited_cache(flow):
    path = flow.folder / "out.cache"
    path.write_text(path.read_text().replace("x: 3", "x: 4"))


def no_manifest(flow):
    (flow.folder / "out.cache.json").unlink()


def damaged_manifest(flow):
    flow.write("out.cache.json", content(flow, "out.cache.json").decode()[:200])


def manifest_of_a_later_trtcalib(flow):
    manifest = json.loads(content(flow, "out.cache.json"))
    flow.write("out.cache.json", json.dumps({**manifest, "schema_version": 99}))


def empty_cache(flow):
    flow.write("out.cache", "")


def no_cache_at_all(flow):
    flow.write("out.cache", "nonsense\n")


CHANGES = {
    other_model: "the model is another one",
    other_data: "the data, or their preparation, are other ones",
    edited_cache: "it was changed after its manifest was written",
    no_manifest: "its manifest out.cache.json tells nothing: no such file: a cache that trtcalib wrote has its manifest beside it",
    damaged_manifest: "its manifest out.cache.json tells nothing: ",
    manifest_of_a_later_trtcalib: "its manifest out.cache.json tells nothing: schema_version: ",
    empty_cache: "it is empty",
    no_cache_at_all: "it is no calibration cache: ",
}


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_simulated_build_after_one_change_of_files_calibrates_anew(built, change):
    made = content(built)
    change(built)
    result = built.done(*BUILD, "-o", "out.engine")
    told = differences(result)
    assert told.startswith(CHANGES[change])
    assert "; " not in told  # nothing else differs
    assert joined(result.batches)["x"].tobytes() == np.load(built.folder / "data.npy").tobytes()
    assert built.engine_manifest().cache.origin == "tensorrt"
    assert built.cache_manifest().findings == []  # what stood there before is no fact about this cache
    if change is not other_data:
        assert content(built) == made
    again = built.done(*BUILD, "-o", "out.engine")  # what was written is in order
    assert "used again as it stood" in again.out


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--batch-size", 3], "batch size was 4, now 3; shapes was {'x': [4, 3]}, now {'x': [3, 3]}"),
        (["--max-samples", 8], "max_samples was None, now 8"),
        (["--shuffle", 3], "shuffle was None, now 3"),
        (["--skip-bad-images"], "skip_bad_images was False, now True"),
        (["--no-tf32"], "tf32 was True, now False"),
        (["--calibrator", "minmax"], "its first line is 'TRT-{number}-EntropyCalibration2', TensorRT here takes"),
        (
            ["--calibrator", "recipe.yaml"],
            "its scales were chosen by TensorRT itself, this build wants trtcalib on the",
        ),
    ],
    ids=lambda value: "-".join(map(str, value)) if isinstance(value, list) else "",
)
def test_simulated_build_after_one_change_of_options_calibrates_anew(built, options, told):
    built.write("recipe.yaml", "method: entropy\nvariant: pseudocode\n")
    result = built.done(*BUILD, *options, "-o", "out.engine")
    found = differences(result)
    assert found.startswith(told.replace("{number}", built.number))
    assert built.engine_manifest().cache.origin in ("tensorrt", "trtcalib")
    again = built.done(*BUILD, *options, "-o", "out.engine")
    assert "used again as it stood" in again.out


def test_simulated_build_after_settings_that_no_scale_depends_on_uses_the_cache(built):
    options = ["--fp16", "--workspace", "1GiB", "--fallback", "fp32:relu", "--workers", 1, "--tf32"]
    result = built.done(*BUILD, *options, "-o", "out.engine")
    assert result.build["calibration"]["honoured"]


def test_simulated_build_after_a_change_of_shapes_calibrates_anew(flow):
    flow.model(AREA)
    flow.data(4, 2, 4, 4)
    build = ["build", "model.onnx", "--data", "data.npy", "-o", "out.engine", "--shapes"]
    flow.done(*build, "x:1x2x4x4,2x2x4x4,4x2x8x8")
    result = flow.done(*build, "x:1x2x4x4,2x2x4x4,4x2x9x9")
    assert result.build["calibration"]["honoured"]  # kMAX plays no part in calibration
    result = flow.done(*build, "x:1x2x4x4,4x2x4x4,4x2x8x8")
    assert differences(result) == ("batch size was 2, now 4; shapes was {'x': [2, 2, 4, 4]}, now {'x': [4, 2, 4, 4]}")


def test_simulated_build_with_another_tensorrt_calibrates_anew(built):
    other = "10.16.1.11" if built.is_8 else "8.6.1"
    result = built.done(*BUILD, "-o", "out.engine", version=other)
    other_number = "101601" if built.is_8 else "8601"
    assert differences(result) == (
        f"its first line is '{built.header()}', TensorRT here takes 'TRT-{other_number}-EntropyCalibration2'"
    )
    assert content(built).startswith(f"TRT-{other_number}-".encode())
    assert built.engine_manifest().tensorrt_version == other


def test_simulated_build_from_a_function_always_calibrates_anew(flow):
    flow.model()
    flow.data(8)
    flow.write("feeds.py", 'import numpy as np\n\ndef feeds():\n    yield {"x": np.load("data.npy")}\n')
    build = ["build", "model.onnx", "--data", "feeds:feeds", "--batch-size", 4, "-o", "out.engine"]
    flow.done(*build)
    result = flow.done(*build)
    assert differences(result) == ("the data come from a function, and only running it tells whether they are the same")
    assert len(result.batches) == 2


def test_simulated_build_fails_where_asked_when_the_cache_is_not_reused(built):
    other_data(built)
    result = built.run(*BUILD, "-o", "out.engine", "--fail-on", "cache-not-reused")
    assert result.code == 1
    assert built.engine_manifest().cache.origin == "tensorrt"


# --reuse-cache


def test_simulated_reuse_cache_insists(built):
    made = content(built)
    other_model(built)
    other_data(built)
    no_manifest(built)
    result = built.done(*BUILD, "--reuse-cache", "-o", "out.engine")
    assert result.build["calibration"]["answered"].encode() == made
    assert "used again as it stood" in result.out
    assert content(built) == made
    assert not (built.folder / "out.cache.json").exists()  # nobody knows what it was made from
    manifest = built.engine_manifest()
    assert (manifest.cache.origin, manifest.data, manifest.batching) == ("reused", None, None)


def test_simulated_reuse_cache_does_not_believe_the_manifest_of_other_bytes(built):
    cache = built.folder / "out.cache"
    lines = cache.read_bytes().splitlines(keepends=True)
    cache.write_bytes(b"".join([*lines[:-1], lines[-1].replace(lines[-1][-4:], b"001\n")]))
    result = built.done(*BUILD, "--reuse-cache", "-o", "out.engine")
    (told,) = [finding for finding in result.findings if finding.startswith("cache-manifest-not-believed: ")]
    assert "out.cache.json is of another cache, or the cache was changed after it" in told
    manifest = built.engine_manifest()
    assert (manifest.cache.origin, manifest.data, manifest.batching) == ("reused", None, None)


def test_simulated_reuse_cache_of_trtcalib_calibrate(flow):
    flow.model()
    flow.data(12)
    version = ".".join(flow.version.split(".")[:3])
    options = ["--batch-size", 4, "--tensorrt-version", version, "-o", "out.cache"]
    flow.done("calibrate", "model.onnx", "--data", "data.npy", *options)
    result = flow.done(*BUILD, "--reuse-cache", "-o", "out.engine")
    assert result.build["calibration"]["honoured"]
    # All tensors that have a scale on the CPU have one here: none is told to be missing.
    assert result.findings == []
    assert result.err == ""


def test_simulated_reuse_cache_of_another_version_is_refused(built):
    other = "10.16.1.11" if built.is_8 else "8.6.1"
    here, there = ("10.16.1", "8.6.1") if built.is_8 else ("8.6.1", ".".join(built.version.split(".")[:3]))
    said = built.refused(*BUILD, "--reuse-cache", "-o", "out.engine", version=other)
    assert said.startswith(f"out.cache: the cache is for TensorRT {there}, here is {here}: ")
    assert "TensorRT would refuse it and calibrate again" in said
    assert f"change the first line from '{built.header()}' to 'TRT-" in said


def test_simulated_reuse_cache_of_another_algorithm_is_refused(built):
    said = built.refused(*BUILD, "--calibrator", "minmax", "--reuse-cache", "-o", "out.engine")
    assert said.startswith("out.cache: the cache is by EntropyCalibration2, the calibrator here is MinMaxCalibration: ")
    assert f"change the first line from '{built.header()}' to '{built.header('MinMaxCalibration')}'" in said


def test_simulated_reuse_cache_takes_the_conversion_that_it_names(built):
    cache = built.folder / "out.cache"
    cache.write_text(cache.read_text().replace("EntropyCalibration2", "MinMaxCalibration"))
    result = built.done(*BUILD, "--calibrator", "minmax", "--reuse-cache", "-o", "out.engine")
    assert result.build["calibration"]["algorithm"] == "MinMaxCalibration"
    assert result.build["calibration"]["honoured"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "out.cache: cannot be used again: No such file or directory"),
        ("", "out.cache"),
        ("nonsense\n", "out.cache:1: "),
    ],
    ids=["none", "empty", "no cache"],
)
def test_simulated_reuse_cache_without_a_cache_is_refused(flow, text, said):
    flow.model()
    flow.data(8)
    if text is not None:
        flow.write("out.cache", text)
    assert flow.refused(*BUILD, "--reuse-cache", "-o", "out.engine").startswith(said)
