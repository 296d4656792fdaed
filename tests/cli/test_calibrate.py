"""``trtcalib calibrate``: the cache, its manifest, and every choice that a user makes."""

from __future__ import annotations

import json
from itertools import pairwise

import jsonschema
import numpy as np
import pytest

import trtcalib
from tests.cli.helpers import (
    METHODS,
    NET,
    RELU,
    batched,
    cache,
    codes,
    expected_scale,
    facts,
    manifest,
    normal,
    save_model,
    scale_hex,
)
from trtcalib.core.scale import bits_from_scale, scale_from_bits
from trtcalib.files import sha256_of
from trtcalib.manifest import Manifest

CALIBRATE = ("calibrate", "model.onnx", "--data", "data.npy")


@pytest.mark.parametrize(
    ("version", "calibrator", "header"),
    [
        ("10.16.1", "entropy", b"TRT-101601-EntropyCalibration2"),
        ("10.0.1", "minmax", b"TRT-100001-MinMaxCalibration"),
        ("8.6.1", "entropy", b"TRT-8601-EntropyCalibration2"),
        ("8.6.1.6", "percentile-99.9", b"TRT-8601-EntropyCalibration2"),
        ("7.2.2", "minmax", b"TRT-7202-MinMaxCalibration"),
    ],
)
def test_the_header_is_what_that_tensorrt_accepts(done, net, version, calibrator, header):
    done(*CALIBRATE, "-o", "out.cache", "--tensorrt-version", version, "--calibrator", calibrator)
    assert (net / "out.cache").read_bytes().splitlines()[0] == header


def test_the_default_is_entropy_for_the_last_tensorrt_with_calibrators(done, net):
    done(*CALIBRATE, "-o", "out.cache")
    assert cache(net / "out.cache").header == "TRT-101601-EntropyCalibration2"
    assert manifest(net / "out.cache").tensorrt_version == "10.16.1"


@pytest.mark.parametrize("command", ["calibrate", "solve"])
def test_tensorrt_11_is_refused_with_the_reason_before_any_work(done, refused, net, command):
    done(*CALIBRATE, "-o", "out.cache", "--histograms", "h.npz")
    work = CALIBRATE if command == "calibrate" else ("solve", "h.npz")
    message = refused(*work, "-o", "eleven.cache", "--tensorrt-version", "11.0.0")
    assert "TensorRT version '11.0.0'" in message
    assert "removed calibrators" in message
    assert "Q/DQ" in message


@pytest.mark.parametrize("version", ["ten", "10", "10.16", "", "10.16.1-rc1"])
def test_a_malformed_version_is_refused(refused, net, version):
    assert "expected MAJOR.MINOR.PATCH" in refused(*CALIBRATE, "-o", "out.cache", "--tensorrt-version", version)


def test_the_scales_are_those_of_the_core(done, net):
    done(*CALIBRATE, "-o", "out.cache")
    data = np.load("data.npy")
    lines = scale_hex(net / "out.cache")
    assert list(lines) == ["x", "w", "b", "product", "sum", "y"]
    assert lines["x"] == f"{bits_from_scale(expected_scale(batched(data))):x}"
    assert scale_from_bits(int(lines["b"], 16)) == np.float32(
        np.float32(2048.5) * np.float32(np.float32(0.3) / 2048)
    ) / np.float32(127)


def test_minmax_is_the_largest_magnitude_over_127(done, net):
    done(*CALIBRATE, "-o", "out.cache", "--calibrator", "minmax")
    largest = np.abs(np.load("data.npy")).max()
    assert cache(net / "out.cache").scales["x"] == largest / np.float32(127)


def test_the_default_batch_size_is_printed(done, net):
    result = done(*CALIBRATE, "-o", "out.cache")
    assert result.out == (
        "out.cache: 6 scales by EntropyCalibration2 for TensorRT 10.16.1, from 40 samples in 2 batches of 32\n"
    )
    assert manifest(net / "out.cache").provenance.batching.batch_size == 32


def test_the_default_batch_size_is_the_models_own_where_it_is_fixed(done, folder):
    save_model(folder / "model.onnx", NET.replace("N", "4"))
    np.save("data.npy", normal(12, 4))
    result = done(*CALIBRATE, "-o", "out.cache")
    assert "from 12 samples in 3 batches of 4" in result.out
    assert result.err == ""


def test_the_batch_size_decides_where_the_range_starts(done, net):
    data = np.load("data.npy")
    for size in (1, 8, 40):
        done(*CALIBRATE, "-o", f"{size}.cache", "--batch-size", size)
        x = facts(net / f"{size}.cache")["x"]
        histogram = trtcalib.collect_histogram(batched(data, size))
        assert x.first_maximum == np.abs(data[:size]).max()
        assert (x.range, x.doublings, x.clamped) == (histogram.range, histogram.doublings, histogram.clamped)
        assert x.scale == expected_scale(batched(data, size))


def test_max_samples_takes_the_first_ones(done, net):
    result = done(*CALIBRATE, "-o", "out.cache", "--max-samples", 10, "--batch-size", 5)
    assert "from 10 samples in 2 batches of 5" in result.out
    assert facts(net / "out.cache")["x"].scale == expected_scale(batched(np.load("data.npy")[:10], 5))


def test_more_samples_than_there_are_is_all_of_them(done, net):
    assert "from 40 samples" in done(*CALIBRATE, "-o", "out.cache", "--max-samples", 1000).out


def test_shuffle_is_numpys_pcg64_permutation_of_the_seed(done, net):
    data = np.load("data.npy")
    done(*CALIBRATE, "-o", "shuffled.cache", "--shuffle", 7, "--batch-size", 4)
    order = np.random.Generator(np.random.PCG64(7)).permutation(40)
    np.save("data.npy", data[order])
    done(*CALIBRATE, "-o", "by-hand.cache", "--batch-size", 4)
    assert (net / "shuffled.cache").read_bytes() == (net / "by-hand.cache").read_bytes()
    assert manifest(net / "shuffled.cache").provenance.batching.shuffle == 7


def test_drop_last_leaves_out_the_rest(done, net):
    result = done(*CALIBRATE, "-o", "out.cache", "--drop-last")
    assert "from 32 samples in 1 batch of 32" in result.out
    assert result.err == ""
    assert codes(net / "out.cache") == []
    assert facts(net / "out.cache")["x"].scale == expected_scale([np.load("data.npy")[:32]])


@pytest.mark.parametrize("calibrator", ["entropy", "minmax", "percentile-99.9"])
@pytest.mark.parametrize("size", [3, 32])
def test_the_number_of_workers_changes_nothing(done, net, calibrator, size):
    for workers in (1, 2, 3):
        done(
            *CALIBRATE, "-o", "out.cache", "--workers", workers, "--calibrator", calibrator, "--batch-size", size,
            "--histograms", "h.npz",
        )  # fmt: skip
        for file in ("out.cache", "out.cache.json", "h.npz"):
            (net / file).rename(net / f"{workers}-{file}")
    for file in ("out.cache", "out.cache.json", "h.npz"):
        assert len({(net / f"{workers}-{file}").read_bytes() for workers in (1, 2, 3)}) == 1


def test_a_second_run_gives_the_same_bytes(done, net):
    runs = []
    for _ in range(2):
        done(*CALIBRATE, "-o", "out.cache", "--shuffle", 3)
        runs.append(((net / "out.cache").read_bytes(), (net / "out.cache.json").read_bytes()))
    assert runs[0] == runs[1]


def test_the_manifest_states_everything_that_decides_the_cache(done, net):
    done(
        *CALIBRATE,
        "-o",
        "out.cache",
        "--shuffle",
        5,
        "--max-samples",
        20,
        "--batch-size",
        8,
        "--calibrator",
        "percentile-99.9",
    )
    found = manifest(net / "out.cache")
    facts_ = found.provenance
    assert found.cache_sha256 == sha256_of("out.cache")
    assert found.recipe == {"range": "doubling", "bins": 2048, "method": "percentile", "percentile": 99.9}
    assert (facts_.model.path, facts_.model.sha256) == ("model.onnx", sha256_of("model.onnx"))
    assert (facts_.data.path, facts_.data.is_path, facts_.data.samples) == ("data.npy", True, 20)
    assert facts_.batching.model_dump() == {
        "batch_size": 8, "batches": 3, "last_batch_samples": 4, "max_samples": 20, "shuffle": 5, "drop_last": False,
        "skip_bad_images": False,
    }  # fmt: skip
    assert facts_.session_options["graph_optimization_level"] == "ORT_ENABLE_EXTENDED"
    assert {"onnxruntime", "onnx", "numpy"} <= facts_.versions.keys() | {"onnxruntime"}
    assert facts_.cpu
    assert str(net) not in (net / "out.cache.json").read_text()


def test_paths_in_the_manifest_are_relative_to_it(done, net):
    (net / "results").mkdir()
    done(*CALIBRATE, "-o", "results/out.cache")
    found = manifest(net / "results" / "out.cache")
    assert (found.cache, found.provenance.model.path, found.provenance.data.path) == (
        "out.cache", "../model.onnx", "../data.npy",
    )  # fmt: skip


def test_the_manifest_fits_its_schema_and_the_cache(done, net):
    done(*CALIBRATE, "-o", "out.cache")
    content = json.loads((net / "out.cache.json").read_text())
    jsonschema.validate(content, Manifest.model_json_schema(), cls=jsonschema.Draft202012Validator)
    assert content["schema_version"] == 1
    assert {t["name"]: t["scale_hex"] for t in content["tensors"]} == scale_hex(net / "out.cache")
    x = facts(net / "out.cache")["x"]
    histogram = trtcalib.collect_histogram(batched(np.load("data.npy")))
    assert (x.kind, x.range, x.maximum, x.values) == ("input", histogram.range, histogram.maximum, 160)
    assert (x.first_maximum, x.doublings, x.clamped) == (histogram.first_max, histogram.doublings, histogram.clamped)
    assert x.amax == trtcalib.entropy_amax(histogram) == np.float32(x.bin_m + 0.5) * np.float32(histogram.range / 2048)
    assert x.inherited_from is None


def test_json_is_the_manifest_and_nothing_else(done, net):
    result = done(*CALIBRATE, "-o", "out.cache", "--json")
    assert result.out == (net / "out.cache.json").read_text(encoding="utf-8")
    assert "6 scales" in result.err
    assert "partial-last-batch" in result.err


@pytest.mark.parametrize("method", METHODS)
def test_solving_saved_histograms_is_calibrating_anew(done, net, method):
    done(*CALIBRATE, "-o", "first.cache", "--histograms", "h.npz", "--calibrator", "minmax")
    for calibrate, name in ((CALIBRATE, "calibrated"), (("solve", "h.npz"), "solved")):
        (net / name).mkdir()
        done(*calibrate, "-o", f"{name}/out.cache", "--calibrator", method)
    for file in ("out.cache", "out.cache.json"):
        assert (net / "solved" / file).read_bytes() == (net / "calibrated" / file).read_bytes()


@pytest.mark.parametrize("size", [1, 32, 40])
def test_plain_api_gives_the_same_as_the_command(done, net, size):
    done(*CALIBRATE, "-o", "command.cache", "--batch-size", size)
    result = trtcalib.calibrate("model.onnx", "data.npy", batch_size=size)
    assert result.scales == cache(net / "command.cache").scales
    result.write_cache("api.cache")
    assert (net / "api.cache").read_bytes() == (net / "command.cache").read_bytes()


@pytest.mark.parametrize(
    ("recipe", "same_as"),
    [
        ("method: minmax", "minmax"),
        ("method: entropy", "entropy"),
        ("{method: entropy, variant: tensorrt, range: doubling, bins: 2048}", "entropy"),
        ("method: percentile\npercentile: 99.9", "percentile-99.9"),
    ],
)
def test_recipes_from_yaml(done, net, recipe, same_as):
    (net / "recipe.yaml").write_text(recipe)
    done(*CALIBRATE, "-o", "recipe.cache", "--calibrator", "recipe.yaml")
    done(*CALIBRATE, "-o", "name.cache", "--calibrator", same_as)
    assert (net / "recipe.cache").read_bytes() == (net / "name.cache").read_bytes()


@pytest.mark.parametrize("variant", ["pseudocode", "pytorch-quantization"])
def test_variants_of_the_search_come_from_a_recipe(done, net, variant):
    (net / "recipe.yaml").write_text(f"method: entropy\nvariant: {variant}\n")
    done(*CALIBRATE, "-o", "out.cache", "--calibrator", "recipe.yaml")
    histogram = trtcalib.collect_histogram(batched(np.load("data.npy")))
    assert facts(net / "out.cache")["x"].amax == trtcalib.entropy_amax(histogram, variant)


def test_the_global_range_is_the_true_maximum(done, net):
    (net / "recipe.yaml").write_text("method: entropy\nrange: global\n")
    done(*CALIBRATE, "-o", "out.cache", "--calibrator", "recipe.yaml", "--batch-size", 4)
    data = np.load("data.npy")
    x = facts(net / "out.cache")["x"]
    assert (x.range, x.doublings) == (np.abs(data).max(), 0)
    assert x.scale == expected_scale([data])


@pytest.mark.parametrize("policy", ["doubling", "global", "square", "extend"])
def test_every_range_policy_gives_a_cache_that_does_not_depend_on_workers(done, net, policy):
    (net / "recipe.yaml").write_text(f"method: entropy\nrange: {policy}\nbins: 512\n")
    for workers in (1, 3):
        done(
            *CALIBRATE, "-o", f"{workers}.cache", "--calibrator", "recipe.yaml", "--batch-size", 4, "--workers", workers
        )
    assert (net / "1.cache").read_bytes() == (net / "3.cache").read_bytes()
    assert manifest(net / "1.cache").provenance.range == policy


def test_fail_on_any_finding(cli, net):
    result = cli(*CALIBRATE, "-o", "out.cache", "--fail-on", "finding")
    assert result.code == 1
    assert "finding: partial-last-batch: " in result.err
    assert (net / "out.cache").exists()


def test_fail_on_a_code_looks_at_that_code_alone(cli, net):
    assert cli(*CALIBRATE, "-o", "out.cache", "--fail-on", "all-zero-tensor").code == 0
    assert (
        cli(*CALIBRATE, "-o", "out.cache", "--fail-on", "all-zero-tensor", "--fail-on", "partial-last-batch").code == 1
    )


def test_fail_on_is_content_without_findings(cli, net):
    assert cli(*CALIBRATE, "-o", "out.cache", "--drop-last", "--fail-on", "finding").code == 0


def test_fail_on_an_unknown_code_is_refused_with_the_known_ones(misused, net):
    message = misused(*CALIBRATE, "-o", "out.cache", "--fail-on", "zeros")
    assert "'zeros' is no finding" in message
    assert "all-zero-tensor" in message


@pytest.mark.parametrize(
    ("option", "value"),
    [("--batch-size", 0), ("--max-samples", 0), ("--shuffle", -1), ("--workers", 0), ("--batch-size", "many")],
)
def test_numbers_out_of_range_are_misuse(misused, net, option, value):
    assert option in misused(*CALIBRATE, "-o", "out.cache", option, value)


def test_an_existing_cache_is_replaced(done, net):
    (net / "out.cache").write_text("old")
    (net / "out.cache.json").write_text("old")
    done(*CALIBRATE, "-o", "out.cache")
    assert cache(net / "out.cache").version == 101601
    assert manifest(net / "out.cache").cache == "out.cache"


def test_verbose_logs_go_to_stderr(done, net):
    assert done("--verbose", *CALIBRATE, "-o", "out.cache", "--json").out.startswith("{")


# Models


def test_several_inputs_each_by_its_name(done, folder):
    save_model(folder / "model.onnx", "two (float[N, 4] x, float[N, 1] gate) => (float[N, 4] y) { y = Mul(x, gate) }")
    x, gate = normal(32, 4), normal(32, 1, seed=1)
    np.savez("data.npz", gate=gate, x=x, labels=np.arange(32))
    done("calibrate", "model.onnx", "--data", "data.npz", "-o", "out.cache")
    found = facts(folder / "out.cache")
    assert list(found) == ["x", "gate", "y"]
    for name, values in (("x", x), ("gate", gate), ("y", x * gate)):
        assert found[name].scale == expected_scale([values])


def test_integer_inputs_are_fed_and_not_listed(done, folder):
    save_model(
        folder / "model.onnx",
        "embed (int64[N, 2] ids) => (float[N, 2, 2] y) <float[3, 2] table = {1, -2, 3, -4, 5, -6}> { y = Gather(table, ids) }",
    )
    np.save("ids.npy", np.arange(64).reshape(32, 2) % 2)
    done("calibrate", "model.onnx", "--data", "ids.npy", "-o", "out.cache", "--calibrator", "minmax")
    found = facts(folder / "out.cache")
    assert {name: tensor.amax for name, tensor in found.items()} == {"table": 6, "y": 4}


def test_bool_and_int32_inputs(done, folder):
    save_model(
        folder / "model.onnx",
        "pick (bool[N, 1] keep, int32[N, 1] n, float[N, 3] x) => (float[N, 3] y)"
        "{ m = Cast<to = 1>(n) scaled = Mul(x, m) y = Where(keep, scaled, x) }",
    )
    x = normal(32, 3)
    keep, n = np.arange(32).reshape(32, 1) % 2 == 0, np.full((32, 1), 3, np.int32)
    np.savez("data.npz", keep=keep, n=n, x=x)
    done("calibrate", "model.onnx", "--data", "data.npz", "-o", "out.cache")
    found = facts(folder / "out.cache")
    assert list(found) == ["x", "m", "scaled", "y"]
    assert found["y"].scale == expected_scale([np.where(keep, x * np.float32(3), x)])


def test_dynamic_axes_with_another_shape_in_every_sample(done, folder, module):
    save_model(folder / "model.onnx", "lengths (float[N, L] x) => (float[N, L] y) { y = Neg(x) }")
    name = module(
        "import numpy as np\n"
        "def feeds():\n"
        "    rng = np.random.default_rng(0)\n"
        "    for length in range(1, 9):\n"
        "        yield {'x': rng.normal(size=(1, length)).astype(np.float32)}\n"
    )
    done("calibrate", "model.onnx", "--data", f"{name}:feeds", "-o", "out.cache", "--batch-size", 4)
    rng = np.random.default_rng(0)
    rows = [rng.normal(size=length).astype(np.float32) for length in range(1, 9)]
    expected = expected_scale([np.concatenate(rows[:4]), np.concatenate(rows[4:])])
    assert facts(folder / "out.cache")["x"].scale == facts(folder / "out.cache")["y"].scale == expected
    data = manifest(folder / "out.cache").provenance.data
    assert (data.path, data.is_path, data.samples) == (f"{name}:feeds", False, 8)


def test_batches_from_a_function_are_split_into_samples(done, folder, module):
    save_model(folder / "model.onnx", RELU)
    name = module(
        "import numpy as np\n"
        "def feeds():\n"
        "    x = np.random.default_rng(0).normal(size=(30, 4)).astype(np.float32)\n"
        "    yield {'x': x[:20]}\n"
        "    yield {'x': x[20:]}\n"
    )
    result = done("calibrate", "model.onnx", "--data", f"{name}:feeds", "-o", "out.cache", "--batch-size", 10)
    assert "from 30 samples in 3 batches of 10" in result.out
    assert facts(folder / "out.cache")["x"].scale == expected_scale(batched(normal(30, 4), 10))


def test_max_samples_stops_an_endless_function(done, folder, module):
    save_model(folder / "model.onnx", RELU)
    name = module(
        "import itertools, numpy as np\n"
        "def feeds():\n"
        "    for n in itertools.count(1):\n"
        "        yield {'x': np.full((1, 4), n, np.float32)}\n"
    )
    done(
        "calibrate",
        "model.onnx",
        "--data",
        f"{name}:feeds",
        "-o",
        "out.cache",
        "--max-samples",
        8,
        "--calibrator",
        "minmax",
    )
    assert facts(folder / "out.cache")["x"].amax == 8


def test_a_fixed_batch_runs_at_its_size(done, folder):
    # The mean over the batch axis shows which samples ran together.
    save_model(folder / "model.onnx", "fixed (float[4, 3] x) => (float[1, 3] y) { y = ReduceMean<axes = [0]>(x) }")
    x = normal(12, 3)
    np.save("data.npy", x)
    done("calibrate", "model.onnx", "--data", "data.npy", "-o", "out.cache", "--calibrator", "minmax")
    assert facts(folder / "out.cache")["y"].amax == pytest.approx(
        np.abs(x.reshape(3, 4, 3).mean(axis=1)).max(), rel=1e-6
    )


def test_a_batch_size_that_the_fixed_batch_does_not_divide_is_refused(refused, folder):
    save_model(folder / "model.onnx", RELU.replace("N", "4"))
    np.save("data.npy", normal(12, 4))
    message = refused(*CALIBRATE, "-o", "out.cache", "--batch-size", 6)
    assert "fixed batch of 4" in message
    assert "6" in message


def test_fewer_samples_than_the_fixed_batch_are_refused(refused, folder):
    save_model(folder / "model.onnx", RELU.replace("N", "4"))
    np.save("data.npy", normal(3, 4))
    assert "fewer samples than the 4" in refused(*CALIBRATE, "-o", "out.cache")


def test_a_model_without_a_batch_axis_runs_whole(done, folder):
    save_model(folder / "model.onnx", "whole (float x, float[5] v) => (float[5] y) { y = Mul(x, v) }")
    x, v = normal(8), normal(8, 5, seed=1)
    np.savez("data.npz", x=x, v=v)
    result = done("calibrate", "model.onnx", "--data", "data.npz", "-o", "out.cache", "--calibrator", "minmax")
    assert facts(folder / "out.cache")["y"].amax == np.abs(x[:, None] * v).max()
    assert result.err == ""


def test_half_precision_activations_are_counted_as_float32(done, folder):
    save_model(
        folder / "model.onnx",
        "half (float[N, 4] x) => (float[N, 4] y) { h = Cast<to = 10>(x) r = Relu(h) y = Cast<to = 1>(r) }",
    )
    x = normal(32, 4)
    np.save("data.npy", x)
    done(*CALIBRATE, "-o", "out.cache")
    found = facts(folder / "out.cache")
    half = x.astype(np.float16).astype(np.float32)
    assert found["h"].scale == expected_scale([half])
    assert found["r"].scale == found["y"].scale == expected_scale([np.maximum(half, 0)])


def test_a_pool_carries_its_inputs_scale_and_a_view_of_it_shows_its_own_range(done, folder):
    # Negative values make the pool's range differ: it keeps the largest, not the largest magnitude.
    save_model(
        folder / "model.onnx",
        "branches (float[N, 1, 2, 4] x) => (float[N, 2] flat, float[N, 1, 2, 4] y) {"
        " n = Neg(x) pool = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(n) flat = Flatten(pool) y = Relu(pool) }",
    )
    x = np.abs(normal(32, 1, 2, 4))
    np.save("data.npy", x)
    done(*CALIBRATE, "-o", "out.cache", "--calibrator", "minmax")
    found = facts(folder / "out.cache")
    pooled = (-x).reshape(32, 2, 2, 2).max(axis=(1, 3))
    assert (found["pool"].amax, found["pool"].inherited_from) == (x.max(), "n")
    assert (found["flat"].amax, found["flat"].inherited_from) == (np.abs(pooled).max(), "pool")
    assert found["y"].amax == 0


def test_a_model_of_views_alone(done, folder):
    save_model(folder / "model.onnx", "views (float[N, 4] x) => (float[4, N] y) { i = Identity(x) y = Transpose(i) }")
    np.save("data.npy", normal(32, 4))
    done(*CALIBRATE, "-o", "out.cache")
    assert len(set(scale_hex(folder / "out.cache").values())) == 1
    assert facts(folder / "out.cache")["y"].inherited_from == "x"


def test_what_is_computed_from_constants_alone_is_counted_once_and_changes_no_fact(done, folder):
    save_model(
        folder / "model.onnx",
        "folded (float[N, 2] x) => (float[N, 2] y) <float[2] a = {1, 2}, float[2] b = {3, -4}> { c = Mul(a, b) y = Add(x, c) }",
    )
    np.save("data.npy", normal(40, 2))
    result = done(*CALIBRATE, "-o", "out.cache")
    found = facts(folder / "out.cache")
    assert (found["c"].kind, found["c"].values, found["c"].maximum) == ("folded", 2, 8)
    assert "from 40 samples in 2 batches of 32" in result.out
    assert codes(folder / "out.cache") == ["partial-last-batch"]


def test_names_that_onnx_allows(done, folder):
    names = ["onnx::Conv_1", "a: b", "naïve/层", "x" * 300]
    model = save_model(folder / "model.onnx", RELU)
    del model.graph.node[:]  # ONNX text has no such names
    chain = ["x", *names, "y"]
    for source, target in pairwise(chain):
        model.graph.node.add(op_type="Relu", input=[source], output=[target])
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    np.save("data.npy", normal(32, 4))
    done(*CALIBRATE, "-o", "out.cache")
    assert list(scale_hex(folder / "out.cache")) == chain
    assert list(facts(folder / "out.cache")) == chain
