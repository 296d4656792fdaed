"""``trtcalib build`` over the simulated builder: what it writes, what it says of it, and what TensorRT was told.

The batches that the simulated builder read from the simulated device are compared with the data byte for byte.
"""

from __future__ import annotations

import hashlib
import json
import threading

import jsonschema
import numpy as np
import onnx
import pytest

import trtcalib
from tests.cli.helpers import listing
from tests.rig import simulated
from tests.rig.driving import opened_device
from tests.rig.flow import CONV, DENSE, QUANTIZED, ROOT, calibrating_flow, joined
from trtcalib.core.cache import parse_cache
from trtcalib.core.scale import bits_from_scale

FILES = ["out.cache", "out.cache.json", "out.engine", "out.engine.json"]

RECIPE = "method: percentile\npercentile: 99.9\nrange: global\n"

CALIBRATORS = {
    "entropy": "EntropyCalibration2",
    "minmax": "MinMaxCalibration",
    "percentile-99.99": "EntropyCalibration2",
    "recipe.yaml": "EntropyCalibration2",
}


@pytest.fixture
def flow(tmp_path, version):
    return calibrating_flow(tmp_path, version)


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def written_by(flow):
    return sorted(path for path in listing(flow.folder) if path.startswith("out."))


def check_schema(flow, name, schema):
    content = json.loads((flow.folder / name).read_text(encoding="utf-8"))
    rules = json.loads((ROOT / "trtcalib/schemas" / schema).read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator(rules).validate(content)


# What is written


@pytest.mark.parametrize("calibrator", CALIBRATORS)
def test_simulated_build_writes_engine_cache_and_true_manifests(flow, calibrator):
    flow.model(CONV)
    data = flow.data(11, 2, 4, 4)
    flow.write("recipe.yaml", RECIPE)
    build = ["build", "model.onnx", "--data", "data.npy", "--calibrator", calibrator, "--batch-size", 4]
    result = flow.done(*build, "-o", "out.engine", "--workers", 3)
    assert written_by(flow) == FILES
    check_schema(flow, "out.engine.json", "engine-manifest.schema.json")
    check_schema(flow, "out.cache.json", "manifest.schema.json")

    engine, cache = flow.engine_manifest(), flow.cache_manifest()
    path = flow.folder / "out.engine"
    assert (engine.engine, engine.engine_sha256, engine.engine_bytes) == (
        "out.engine",
        sha256(path),
        path.stat().st_size,
    )
    assert engine.tensorrt_version == flow.version
    assert engine.device.name == "simulated CUDA device (host memory)"
    assert engine.device.compute_capability == "8.6"
    assert engine.device.memory > 0
    assert (engine.model.path, engine.model.sha256) == ("model.onnx", sha256(flow.folder / "model.onnx"))
    assert engine.cache.path == "out.cache"
    assert engine.cache.sha256 == cache.cache_sha256 == sha256(flow.folder / "out.cache")
    assert engine.cache.header == flow.header(CALIBRATORS[calibrator])
    assert (engine.data, engine.data.path) == (cache.provenance.data, "data.npy")
    assert engine.recipe == cache.recipe
    assert engine.shapes == {"x": {"min": (1, 2, 4, 4), "opt": (4, 2, 4, 4), "max": (4, 2, 4, 4)}}
    assert set(engine.seconds) == {"calibration", "build"}
    assert all(0 <= seconds < 60 for seconds in engine.seconds.values())
    assert {"python", "trtcalib", "pycuda", "cpu"} <= engine.versions.keys()

    by_tensorrt = calibrator in ("entropy", "minmax")
    header = (flow.folder / "out.cache").read_text().splitlines()[0]
    assert header == engine.cache.header
    assert cache.calibrated_by == ("tensorrt" if by_tensorrt else "trtcalib")
    assert engine.cache.origin == ("tensorrt" if by_tensorrt else "trtcalib")
    assert engine.batches_fed == len(result.batches) == (2 if by_tensorrt else 0)
    assert engine.data.samples == (8 if by_tensorrt else 11)
    assert (engine.batching.batch_size, engine.batching.batches) == (4, 2 if by_tensorrt else 3)
    if by_tensorrt:
        assert joined(result.batches)["x"].tobytes() == data[:8].tobytes()
        assert cache.provenance.shapes == {"x": (4, 2, 4, 4)}
        assert cache.provenance.device == engine.device
        assert result.findings == [
            "partial-last-batch: 3 samples at the end were left out: they fill no batch of 4, and TensorRT takes full batches only"
        ]
        assert f"{engine.cache.header}, written by TensorRT from 2 batches" in result.out
    else:
        assert result.build["calibration"]["honoured"]
        assert f"{engine.cache.header}, scales chosen by trtcalib on the CPU" in result.out
    assert f"{engine.engine_bytes} bytes for TensorRT {flow.version} on simulated CUDA device" in result.out


@pytest.mark.parametrize("calibrator", ["entropy", "minmax"])
def test_simulated_calibration_of_an_input_is_what_trtcalib_computes_on_the_cpu(flow, calibrator):
    model = flow.model(CONV)
    data = flow.data(12, 2, 4, 4)
    data[4:] *= 3  # a range that grows from batch to batch
    np.save(flow.folder / "data.npy", data)
    build = ["build", "model.onnx", "--data", "data.npy", "--calibrator", calibrator, "--batch-size", 4]
    flow.done(*build, "-o", "out.engine", knobs={"scales_of_all_tensors": True})
    cache = parse_cache((flow.folder / "out.cache").read_bytes())
    mine = trtcalib.calibrate(model, flow.folder / "data.npy", calibrator, batch_size=4).scales
    assert {"x", "a", "y"} <= cache.scales.keys()
    assert bits_from_scale(cache.scales["x"]) == bits_from_scale(mine["x"])
    for name in ("a", "y"):  # sums over a batch of four may differ in their last bits
        assert cache.scales[name] == pytest.approx(mine[name], rel=1e-5)


def test_simulated_build_answers_the_percentiles_that_trtcalib_computes_on_the_cpu(flow):
    model = flow.model(CONV)
    flow.data(10, 2, 4, 4)
    build = ["build", "model.onnx", "--data", "data.npy", "--calibrator", "percentile-99", "--batch-size", 4]
    result = flow.done(*build, "-o", "out.engine")
    version = ".".join(flow.version.split(".")[:3])
    mine = trtcalib.calibrate(model, flow.folder / "data.npy", "percentile-99", batch_size=4)
    mine.write_cache(flow.folder / "mine.cache", version)
    assert (flow.folder / "out.cache").read_bytes() == (flow.folder / "mine.cache").read_bytes()
    calibration = result.build["calibration"]
    assert calibration["answered"] == (flow.folder / "mine.cache").read_text()
    assert (calibration["honoured"], calibration["batches"]) == (True, [])
    assert "partial-last-batch" not in result.err  # the CPU takes partial batches


def test_simulated_build_of_the_sample_as_a_user_would_start_it(flow):
    data = ROOT / "data/digits-calibration.yaml"
    result = flow.start("build", ROOT / "data/digits/model.onnx", "--data", data, "-o", "out.engine")
    assert result.code == 0, result
    assert written_by(flow) == FILES
    manifest = flow.engine_manifest()
    assert (manifest.batches_fed, manifest.data.samples, manifest.batching.batch_size) == (40, 1280, 32)
    images = np.load(ROOT / "data/digits/calibration-images.npy")[:1280].astype(np.float32) / 16
    assert joined(result.batches)["image"].tobytes() == images.tobytes()
    saw = result.saw
    assert (saw["errors"], saw["unimplemented"]) == ([], [])
    # Nothing but these lines: no message of TensorRT, no warning of PyCUDA at the end.
    assert result.findings == [
        "partial-last-batch: 17 samples at the end were left out: they fill no batch of 32, and TensorRT takes full batches only"
    ]
    assert len(result.err.splitlines()) == 1
    assert [line.split(": ")[0] for line in result.out.splitlines()] == ["out.engine", "out.cache", "crosscheck"]


def test_simulated_build_writes_the_cache_where_it_is_told(flow):
    flow.model()
    flow.data()
    (flow.folder / "caches").mkdir()
    arguments = ["--cache", "caches/mine.cache", "--batch-size", 4, "-o", "out.engine"]
    flow.done("build", "model.onnx", "--data", "data.npy", *arguments)
    assert flow.engine_manifest().cache.path == "caches/mine.cache"
    manifest = flow.cache_manifest("caches/mine.cache")
    assert (manifest.provenance.model.path, manifest.provenance.data.path) == ("../model.onnx", "../data.npy")
    assert not (flow.folder / "out.cache").exists()


# The cross-check with trtcalib's own scales


TWICE = """
import os, signal
import numpy as np

calls = []

def feeds():
    calls.append(1)
    if len(calls) == 2 and os.environ["AGAIN"] == "raises":
        raise RuntimeError("only once")
    if len(calls) == 2 and os.environ["AGAIN"] == "is interrupted":
        os.kill(os.getpid(), signal.SIGINT)
    yield {"x": np.load("data.npy")}
"""


def test_simulated_build_compares_its_cache_with_trtcalibs_scales(flow):
    flow.model(CONV)
    flow.data(12, 2, 4, 4)
    build = ["build", "model.onnx", "--data", "data.npy", "--batch-size", 4, "--crosscheck", "-o", "out.engine"]
    result = flow.done(*build, knobs={"scales_of_all_tensors": True})
    assert result.out.splitlines()[2].startswith("crosscheck: 100.0% of ")
    found = flow.engine_manifest().crosscheck
    assert (found.method, found.passed, found.agreement) == ("entropy", True, 1.0)
    assert found.tensors >= 3
    check_schema(flow, "out.engine.json", "engine-manifest.schema.json")


def test_simulated_build_is_not_lost_where_its_cache_cannot_be_compared(flow):
    flow.model()
    flow.data(8)
    flow.write("twice.py", TWICE)
    build = ["build", "model.onnx", "--data", "twice:feeds", "--batch-size", 4, "--crosscheck", "-o", "out.engine"]
    result = flow.done(*build, AGAIN="raises")
    (finding,) = result.findings
    assert finding.startswith("crosscheck-skipped: TensorRT's cache was not compared with our reference: twice:feeds: ")
    assert "only once" in finding
    assert written_by(flow) == FILES
    assert flow.engine_manifest().crosscheck is None


def test_simulated_ctrl_c_while_the_cache_is_compared_leaves_nothing(flow):
    flow.model()
    flow.data(8)
    flow.write("twice.py", TWICE)
    build = ["build", "model.onnx", "--data", "twice:feeds", "--batch-size", 4, "--crosscheck", "-o", "out.engine"]
    result = flow.run(*build, AGAIN="is interrupted")
    assert result.code == 130, result
    assert written_by(flow) == []


# Engine specs


SPEC = """
model: model.onnx
data: data.npy
calibrator: minmax
batch_size: 4
max_samples: 8
builder: {{workspace: 1MiB, tf32: false}}
{output}
"""


def test_simulated_build_of_an_engine_spec(flow):
    (flow.folder / "engines").mkdir()
    flow.model(name="engines/model.onnx")
    data = flow.data(20, name="engines/data.npy")
    flow.write("engines/mine.yaml", SPEC.format(output=""))
    result = flow.done("build", "engines/mine.yaml")
    out = flow.folder / "engines/out"
    assert sorted(path.name for path in out.iterdir()) == [name.replace("out.", "mine.") for name in FILES]
    assert joined(result.batches)["x"].tobytes() == data[:8].tobytes()
    manifest = flow.engine_manifest("engines/out/mine.engine")
    assert (manifest.model.path, manifest.data.path) == ("../model.onnx", "../data.npy")
    assert manifest.settings == {
        "strongly_typed": False,
        "fp16": False,
        "tf32": False,
        "workspace": 1 << 20,
        "fallback": {},
        "dla": None,
    }
    assert result.build["memory_pools"] == {"WORKSPACE": 1 << 20}
    assert "TF32" not in result.build["flags"]


def test_simulated_build_lets_options_override_an_engine_spec(flow):
    flow.model()
    data = flow.data(20)
    flow.write("mine.yaml", SPEC.format(output="output: spec.engine"))
    flow.done("build", "mine.yaml")
    assert (flow.folder / "spec.engine").exists()
    options = ["--batch-size", 3, "--max-samples", 7, "--calibrator", "entropy", "--tf32", "-o", "out.engine"]
    result = flow.done("build", "mine.yaml", *options)
    assert written_by(flow) == FILES
    assert [batch["x"].shape for batch in result.batches] == [(3, 3), (3, 3)]
    assert joined(result.batches)["x"].tobytes() == data[:6].tobytes()
    assert "TF32" in result.build["flags"]
    assert result.build["memory_pools"] == {"WORKSPACE": 1 << 20}
    assert flow.engine_manifest().cache.header == flow.header()
    assert flow.engine_manifest().batching.max_samples == 7


# Data


TWO = """
two (float[N, 3] x, float[N, 2, 2] mask) => (float[N, 3] y, float[N, 2, 2] z)
{
    y = Relu(x)
    z = Relu(mask)
}
"""

MIXED = """
mixed (float[N, 3] x, int64[N, 2] ids, bool[N, 4] keep) => (float[N, 3] y, float[N, 2] z, float[N, 4] k)
{
    y = Relu(x)
    z = Cast<to = 1>(ids)
    k = Cast<to = 1>(keep)
}
"""


def test_simulated_build_feeds_each_input_its_own_data(flow):
    flow.model(TWO)
    x, mask = flow.data(8), flow.data(8, 2, 2, seed=1)
    np.savez(flow.folder / "data.npz", mask=mask, x=x)  # not in the network's order
    result = flow.done("build", "model.onnx", "--data", "data.npz", "--batch-size", 4, "-o", "out.engine")
    found = joined(result.batches)
    assert list(result.batches[0]) == ["x", "mask"]
    assert (found["x"].tobytes(), found["mask"].tobytes()) == (x.tobytes(), mask.tobytes())
    assert parse_cache((flow.folder / "out.cache").read_bytes()).scales.keys() == {"x", "mask"}
    assert flow.cache_manifest().provenance.shapes == {"x": (4, 3), "mask": (4, 2, 2)}


@pytest.mark.parametrize("calibrator", ["entropy", "minmax", "percentile-99.99"])
def test_simulated_build_feeds_integers_and_booleans_as_they_are(flow, calibrator):
    flow.model(MIXED)
    rng = np.random.default_rng(0)
    x, ids, keep = flow.data(6), rng.integers(-9, 9, (6, 2)), rng.random((6, 4)) > 0.5
    np.savez(flow.folder / "data.npz", keep=keep, ids=ids, x=x)
    build = ["build", "model.onnx", "--data", "data.npz", "--batch-size", 3, "--calibrator", calibrator]
    result = flow.done(*build, "-o", "out.engine")
    assert "x" in parse_cache((flow.folder / "out.cache").read_bytes()).scales
    assert "ids" not in parse_cache((flow.folder / "out.cache").read_bytes()).scales
    if not calibrator.startswith("percentile"):
        found = joined(result.batches)
        # TensorRT 8 has no 64-bit integers: its network takes them as 32 bits, and so must the batches be.
        assert found["ids"].dtype == (np.int32 if flow.is_8 else np.int64)
        np.testing.assert_array_equal(found["ids"], ids)
        assert found["keep"].dtype == np.bool_
        assert found["keep"].tobytes() == keep.tobytes()
        assert found["x"].tobytes() == x.tobytes()


def test_simulated_build_feeds_float16_inputs_as_float32(flow):
    flow.model(DENSE.replace("float[", "float16["))
    data = flow.data(8).astype(np.float16)
    np.save(flow.folder / "data.npy", data)
    result = flow.done("build", "model.onnx", "--data", "data.npy", "--batch-size", 4, "-o", "out.engine")
    found = joined(result.batches)["x"]
    assert found.dtype == np.float32
    assert found.tobytes() == data.astype(np.float32).tobytes()


FEEDS = """
import numpy as np

def feeds():
    values = np.load("data.npy")
    for start in range(0, len(values), 2):  # two samples a time; trtcalib groups them anew
        yield {"x": values[start : start + 2]}
"""

DATASET = "source: images\ninputs:\n  pixels: {layout: chw, dtype: float32, scale: 1/255}\n"

PIXELS = "net (float[N, 3, 4, 4] pixels) => (float[N, 3, 4, 4] y) { y = Relu(pixels) }"


@pytest.mark.parametrize("source", ["data.npy", "data.npz", "feeds:feeds", "dataset.yaml"])
def test_simulated_build_takes_every_kind_of_data(flow, source):
    flow.model()
    data = flow.data(7)
    np.savez(flow.folder / "data.npz", anything=data)
    flow.write("feeds.py", FEEDS)
    flow.write("dataset.yaml", "source: data.npz\n")
    result = flow.done("build", "model.onnx", "--data", source, "--batch-size", 3, "-o", "out.engine")
    assert joined(result.batches)["x"].tobytes() == data[:6].tobytes()
    assert [len(batch["x"]) for batch in result.batches] == [3, 3]
    manifest = flow.engine_manifest()
    assert manifest.data.path == source
    assert manifest.data.is_path == (source != "feeds:feeds")
    assert (manifest.data.samples, manifest.batches_fed) == (6, 2)
    assert result.findings[0].startswith("partial-last-batch: 1 samples at the end were left out")


def test_simulated_build_takes_a_folder_of_images(flow):
    from PIL import Image

    flow.model(PIXELS)
    (flow.folder / "images").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (4, 4, 4, 3)).astype(np.uint8)
    for number, image in enumerate(pixels):
        Image.fromarray(image).save(flow.folder / f"images/{number}.png")
    flow.write("dataset.yaml", DATASET)
    result = flow.done("build", "model.onnx", "--data", "dataset.yaml", "--batch-size", 2, "-o", "out.engine")
    wanted = pixels.transpose(0, 3, 1, 2).astype(np.float32) / 255
    np.testing.assert_allclose(joined(result.batches)["pixels"], wanted, rtol=1e-6)
    (flow.folder / "images/1.png").write_bytes(b"no image")
    for name in ("out.cache", "out.cache.json"):
        (flow.folder / name).unlink()
    options = ["--batch-size", 3, "--skip-bad-images", "-o", "out.engine"]
    result = flow.done("build", "model.onnx", "--data", "dataset.yaml", *options)
    np.testing.assert_allclose(joined(result.batches)["pixels"], wanted[[0, 2, 3]], rtol=1e-6)
    assert "skipped-images: 1 images could not be decoded: 1.png" in result.findings


def test_simulated_build_shuffles_and_limits_the_samples(flow):
    flow.model()
    data = flow.data(12)
    options = ["--max-samples", 9, "--shuffle", 7, "--batch-size", 4, "-o", "out.engine"]
    result = flow.done("build", "model.onnx", "--data", "data.npy", *options)
    order = np.random.Generator(np.random.PCG64(7)).permutation(9)[:8]
    assert joined(result.batches)["x"].tobytes() == data[order].tobytes()
    batching = flow.engine_manifest().batching
    assert (batching.shuffle, batching.max_samples, batching.batches) == (7, 9, 2)


def test_simulated_build_finds_external_data_beside_the_model(flow):
    path = flow.model(DENSE)
    model = onnx.load(path)
    array = onnx.numpy_helper.to_array(model.graph.initializer[0])
    model.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(array, "w"))
    onnx.save_model(model, path, save_as_external_data=True, location="w.bin", size_threshold=0)
    flow.data()
    flow.done("build", "model.onnx", "--data", "data.npy", "--batch-size", 4, "-o", "out.engine")
    assert flow.engine_manifest().model.external_sha256 == {"w.bin": sha256(flow.folder / "w.bin")}


# Settings


def test_simulated_build_hands_all_settings_to_tensorrt(flow):
    flow.model(CONV)
    flow.data(8, 2, 4, 4)
    options = ["--fp16", "--no-tf32", "--workspace", "4GiB", "--fallback", "fp32:re*", "--fallback", "fp16:conv"]
    result = flow.done(
        "build", "model.onnx", "--data", "data.npy", "--batch-size", 4, *options, "-o", "out.engine", "--no-fp16"
    )
    build = result.build
    assert set(build["flags"]) == {"INT8", "FP16", "OBEY_PRECISION_CONSTRAINTS"}  # fp16 fallback needs FP16
    assert build["memory_pools"] == {"WORKSPACE": 4 << 30}
    assert build["layer_precisions"] == {"conv": "HALF", "relu": "FLOAT"}
    assert build["settings"]["ProfilingVerbosity"] == 2  # detailed, for `engine inspect`
    assert not build["strongly_typed"]
    assert flow.engine_manifest().settings == {
        "strongly_typed": False,
        "fp16": False,
        "tf32": False,
        "workspace": 4 << 30,
        "fallback": {"fp32": ["re*"], "fp16": ["conv"]},
        "dla": None,
    }


def test_simulated_build_leaves_tensorrt_its_defaults(flow):
    flow.model(CONV)
    flow.data(8, 2, 4, 4)
    result = flow.done("build", "model.onnx", "--data", "data.npy", "--batch-size", 4, "-o", "out.engine")
    assert set(result.build["flags"]) == {"INT8", "TF32"}
    assert result.build["memory_pools"] == {}
    assert result.build["layer_precisions"] == {}
    assert flow.cache_manifest().provenance.tf32 is True
    result = flow.done(
        "build", "model.onnx", "--data", "data.npy", "--batch-size", 4, "-o", "b.engine", "--fp16", "--tf32"
    )
    assert set(result.build["flags"]) == {"INT8", "TF32", "FP16"}


def test_simulated_build_reads_and_writes_a_timing_cache(flow):
    flow.model()
    flow.data()
    build = ["build", "model.onnx", "--data", "data.npy", "--batch-size", 4, "--timing-cache", "kernels.timing"]
    flow.done(*build, "-o", "out.engine")
    path = flow.folder / "kernels.timing"
    first = path.read_text().splitlines()
    assert first[0] == f"SIMULATED-TIMINGS {flow.version} Simulated GPU"
    path.write_text("\n".join([first[0], "POOLING other INT8", ""]))  # kernels of another model, same GPU
    flow.done(*build, "-o", "out.engine")
    assert path.read_text().splitlines() == [first[0], "POOLING other INT8", *first[1:]]
    path.write_text("SIMULATED-TIMINGS 7.0.0 Simulated GPU\nCONVOLUTION old INT8\n")
    result = flow.done(*build, "-o", "out.engine")
    assert "WARNING: TensorRT does not take the timing cache kernels.timing: it is of another version or GPU" in (
        result.err
    )
    assert path.read_text().splitlines() == first  # not a mixture
    assert "timing_cache" not in flow.engine_manifest().settings


# Q/DQ


def test_simulated_build_of_a_model_with_qdq_nodes_needs_no_data(flow):
    flow.model(QUANTIZED)
    result = flow.done("build", "model.onnx", "-o", "out.engine")
    assert written_by(flow) == ["out.engine", "out.engine.json"]
    assert result.findings == []
    assert result.build["calibration"] is None
    manifest = flow.engine_manifest()
    check_schema(flow, "out.engine.json", "engine-manifest.schema.json")
    assert manifest.explicit_quantization
    assert (manifest.cache, manifest.data, manifest.batching, manifest.recipe) == (None, None, None, None)
    assert manifest.batches_fed == 0


def test_simulated_build_of_a_model_with_qdq_nodes_says_that_data_are_ignored(flow):
    flow.model(QUANTIZED)
    build = ["build", "model.onnx", "--data", "nowhere.npz", "-o", "out.engine"]
    result = flow.run(*build, "--fail-on", "calibrator-ignored")
    assert result.code == 1
    (finding,) = result.findings
    assert finding == (
        "calibrator-ignored: the model holds Q/DQ nodes: TensorRT takes their scales and ignores every calibrator; no data were "
        "read"
    )
    assert written_by(flow) == ["out.engine", "out.engine.json"]


# What is said


def test_simulated_build_prints_json_alone_on_stdout(flow):
    flow.model()
    flow.data(9)
    build = ["build", "model.onnx", "--data", "data.npy", "--batch-size", 4, "-o", "out.engine"]
    result = flow.done(*build, "--json")
    assert result.json == json.loads((flow.folder / "out.engine.json").read_text())
    assert "out.engine: " in result.err
    assert result.findings


def test_simulated_build_fails_on_findings_where_asked_and_still_writes(flow):
    flow.model()
    flow.data(9)
    build = ["build", "model.onnx", "--data", "data.npy", "--batch-size", 4, "-o", "out.engine"]
    assert flow.run(*build, "--fail-on", "partial-last-batch").code == 1
    assert written_by(flow) == FILES
    (flow.folder / "out.cache").unlink()
    assert flow.run(*build, "--fail-on", "all-zero-tensor").code == 0
    (flow.folder / "out.cache").unlink()
    assert flow.run(*build, "--fail-on", "finding").code == 1
    refused = flow.run(*build, "--fail-on", "nonsense")
    assert refused.code == 2
    assert "'nonsense' is no finding" in " ".join(refused.words.replace("│", "").split())


def test_simulated_build_shows_tensorrts_messages_only_when_asked(flow):
    flow.model()
    flow.data(8)
    build = ["build", "model.onnx", "--data", "data.npy", "--batch-size", 4, "-o", "out.engine"]
    quiet = flow.done(*build)
    assert quiet.err == ""
    assert ["INFO", "  Calibrated batch 1."] in quiet.saw["messages"]
    (flow.folder / "out.cache").unlink()
    loud = flow.done("-v", *build)
    assert "INFO:   Calibrated batch 1." in loud.err.splitlines()
    assert loud.out == quiet.out.replace(quiet.out.split(" in ")[-1], loud.out.split(" in ")[-1])


def test_simulated_build_tells_and_keeps_tensorrts_warnings(flow):
    flow.model()
    flow.data(8)
    build = ["build", "model.onnx", "--data", "data.npy", "--batch-size", 4, "-o", "out.engine"]
    flow.done(*build)
    result = flow.done(*build)  # the cache is used again, and the simulated one has no scale of inner tensors
    text = "Missing scale and zero-point for tensor y, expect fall back to non-int8 implementation for any layer consuming or "
    assert f"WARNING: {text}producing given tensor" in result.err.splitlines()
    assert f"{text}producing given tensor" in flow.engine_manifest().messages
    assert any(finding.startswith("tensors-without-scale: ") for finding in result.findings)
    assert "'h', 'y'" in result.findings[0]


# Through Python


class TestBuildEngineInThisProcess:
    @pytest.fixture
    def simulation(self, trt, version, cuda):
        simulation = simulated.install(trt, version)
        simulation.knobs.is_device = cuda.is_device
        yield simulation
        assert (simulation.errors, simulation.unimplemented) == ([], [])

    def test_simulated_build_works_on_a_worker_thread(self, flow, simulation, cuda):
        from trtcalib.engine_build import build_engine
        from trtcalib.engine_spec import EngineSpec

        model, data = flow.model(), flow.data(8)
        spec = EngineSpec(
            model=str(model),
            data=str(flow.folder / "data.npy"),
            batch_size=4,
            output=str(flow.folder / "out.engine"),
        )
        done, failed = [], []

        def work():
            try:
                done.append(build_engine(spec, progress=lambda *step: steps.append(step)))
            except BaseException as error:
                failed.append(error)

        steps = []
        with opened_device():  # keeps the primary context, which trtcalib holds for the life of the process
            thread = threading.Thread(target=work)
            thread.start()
            thread.join()
            assert failed == []
            assert cuda.counts().live_allocations == 0
        assert not list(flow.folder.glob("out.*"))  # nothing is written before write()
        done[0].write()
        assert written_by(flow) == FILES
        assert joined(simulation.calibration.batches)["x"].tobytes() == data.tobytes()
        assert [step for step in steps if step[0] == "calibrating"] == [("calibrating", 1, 2), ("calibrating", 2, 2)]
        phases = {phase for phase, _, _ in steps}
        assert ("Building Engine" in phases) == (not flow.is_8)  # TensorRT 8 has no progress monitor
        assert ("Timing layers" in phases) == (not flow.is_8)

    @pytest.mark.parametrize("text", [DENSE, QUANTIZED], ids=["calibrated", "with Q/DQ nodes"])
    def test_simulated_build_ends_on_an_error_of_the_progress_callback(self, flow, simulation, text):
        from trtcalib.engine_build import build_engine
        from trtcalib.engine_spec import EngineSpec
        from trtcalib.errors import CalibrationError

        if flow.is_8 and text is QUANTIZED:
            pytest.skip("TensorRT 8 tells no progress, and there are no batches that would")
        model = flow.model(text)
        flow.data(8)
        files = {"data": str(flow.folder / "data.npy"), "output": str(flow.folder / "out.engine")}
        spec = EngineSpec(model=str(model), batch_size=4, **files)

        def progress(*_):
            raise ZeroDivisionError("bar")

        with opened_device(), pytest.raises((ZeroDivisionError, CalibrationError), match="bar"):
            build_engine(spec, progress=progress)
        assert not list(flow.folder.glob("out.*"))
