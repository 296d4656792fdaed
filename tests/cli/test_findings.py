"""What a calibration notices and does not stop for: exit code 0, on stderr and in the manifest."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

import trtcalib
from tests.cli.helpers import (
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
from trtcalib.findings import CODES
from trtcalib.histogram_file import load_histograms

CALIBRATE = ("calibrate", "model.onnx", "--data", "data.npy", "-o", "out.cache")


def messages(folder):
    return {(finding.code, finding.tensor): finding.message for finding in manifest(folder / "out.cache").findings}


def test_infinite_activations_are_left_out_and_counted(done, folder):
    # An attention mask: 1 keeps, 0 hides by adding log(0) = -inf.
    save_model(
        folder / "model.onnx",
        "attention (float[N, 4] scores, float[N, 4] keep) => (float[N, 4] y) {"
        " mask = Log(keep) masked = Add(scores, mask) y = Softmax(masked) }",
    )
    scores, keep = normal(40, 4), np.ones((40, 4), np.float32)
    keep[5:20, 1] = 0
    np.savez("data.npz", scores=scores, keep=keep)
    for workers in (1, 3):
        result = done(
            "calibrate", "model.onnx", "--data", "data.npz", "-o", "out.cache", "--batch-size", 10, "--workers", workers
        )
        found = messages(folder)
        assert found["infinite-values", "masked"] == "15 infinite values were left out of the activation 'masked'"
        assert found.keys() == {("infinite-values", "mask"), ("infinite-values", "masked"), ("all-zero-tensor", "mask")}
        assert "finding: infinite-values: 15 infinite values" in result.err
        finite = [batch[kept > 0] for batch, kept in zip(batched(scores, 10), batched(keep, 10), strict=True)]
        assert facts(folder / "out.cache")["masked"].scale == expected_scale(finite)
        assert facts(folder / "out.cache")["masked"].values == 145
        assert np.isfinite(list(cache(folder / "out.cache").scales.values())).all()


def test_half_precision_that_overflows_is_infinite(done, folder):
    save_model(folder / "model.onnx", "half (float[N, 2] x) => (float16[N, 2] y) { y = Cast<to = 10>(x) }")
    np.save("data.npy", np.tile(np.array([[1, 1e6]], np.float32), (32, 1)))
    done(*CALIBRATE)
    assert messages(folder)["infinite-values", "y"].startswith("32 infinite values")
    assert facts(folder / "out.cache")["y"].maximum == 1


def test_an_infinite_constant_has_an_infinite_scale_as_tensorrt_writes_it(done, folder):
    model = save_model(
        folder / "model.onnx",
        "mask (float[N, 2] x) => (float[N, 2] y) { m = Constant<value_floats = [-1.0, 0.0]>() y = Max(x, m) }",
    )
    model.graph.node[0].attribute[0].floats[0] = -np.inf
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    np.save("data.npy", normal(32, 2))
    result = done(*CALIBRATE)
    assert scale_hex(folder / "out.cache")["m"] == "7f800000"
    assert messages(folder).keys() >= {("infinite-values", "m"), ("infinite-scale", "m")}
    assert facts(folder / "out.cache")["m"].scale is None
    assert "written as 7f800000" in result.err


@pytest.mark.parametrize("calibrator", ["entropy", "minmax", "percentile-99.9"])
def test_a_tensor_of_zeros_is_written_as_0(done, folder, calibrator):
    save_model(folder / "model.onnx", RELU)
    np.save("data.npy", -np.ones((32, 4), np.float32))
    result = done(*CALIBRATE, "--calibrator", calibrator)
    assert (folder / "out.cache").read_bytes().endswith(b"\ny: 0\n")
    assert codes(folder / "out.cache") == ["all-zero-tensor"]
    assert "'y' is zero in every sample; its scale is written as 0" in result.err


def test_zeros_in_the_whole_first_batch(done, folder):
    save_model(folder / "model.onnx", RELU)
    x = normal(40, 4)
    x[:16] = 0
    x[16:24] = -np.abs(x[16:24])
    np.save("data.npy", x)
    for workers in (1, 3):
        done(*CALIBRATE, "--batch-size", 8, "--histograms", "h.npz", "--workers", workers)
        assert messages(folder).keys() == {("first-batch-all-zero", "x"), ("first-batch-all-zero", "y")}
        found = load_histograms("h.npz").histograms
        for name, values in (("x", x), ("y", np.maximum(x, 0))):
            expected = trtcalib.collect_histogram(batched(values, 8))
            assert np.array_equal(found[name].counts, expected.counts)
            assert (found[name].range, found[name].first_max) == (expected.range, expected.first_max)
            assert (found[name].doublings, found[name].clamped) == (expected.doublings, expected.clamped)
        assert facts(folder / "out.cache")["x"].first_maximum == np.abs(x[16:24]).max()
        assert facts(folder / "out.cache")["y"].first_maximum == x[24:32].max()


def test_a_partial_last_batch(done, net):
    result = done("calibrate", "model.onnx", "--data", "data.npy", "-o", "out.cache", "--batch-size", 16)
    assert "partial-last-batch: the last batch has 8 of 16 samples" in result.err
    assert manifest(net / "out.cache").provenance.batching.last_batch_samples == 8


def test_samples_that_do_not_fill_the_fixed_batch_are_told(done, folder):
    save_model(folder / "model.onnx", RELU.replace("N", "4"))
    np.save("data.npy", normal(10, 4))
    result = done(*CALIBRATE)
    assert "from 8 samples" in result.out
    assert codes(folder / "out.cache") == ["partial-last-batch"]
    assert "2" in messages(folder)["partial-last-batch", None]


def test_skipped_images_are_counted(done, folder):
    save_model(folder / "model.onnx", "pictures (float[N, 3, 4, 4] x) => (float[N, 3, 4, 4] y) { y = Relu(x) }")
    (folder / "images").mkdir()
    for index, pixels in enumerate(np.random.default_rng(0).integers(0, 256, (34, 4, 4, 3), np.uint8)):
        Image.fromarray(pixels).save(folder / "images" / f"{index:02}.png")
    for bad in ("05.png", "31.png"):
        (folder / "images" / bad).write_bytes(b"not an image")
    (folder / "data.yaml").write_text("source: images\ninputs: {x: {scale: 1/255, dtype: float32}}\n")
    result = done("calibrate", "model.onnx", "--data", "data.yaml", "-o", "out.cache", "--skip-bad-images")
    assert "from 32 samples in 1 batch of 32" in result.out
    assert messages(folder) == {("skipped-images", None): "2 images could not be decoded: 05.png, 31.png"}
    assert manifest(folder / "out.cache").provenance.batching.skip_bad_images
    pixels = [
        np.asarray(Image.open(f), np.float32) / 255
        for f in sorted((folder / "images").glob("*"))
        if f.stat().st_size > 12
    ]
    assert facts(folder / "out.cache")["x"].scale == expected_scale([np.stack(pixels)])
    assert {line.split()[0] for line in done("cache", "verify", "out.cache").out.splitlines()} == {"same"}


def test_tensors_inside_control_flow_cannot_be_observed(done, folder):
    save_model(
        folder / "model.onnx",
        """branches (float[N, 4] x, bool flag) => (float[N, 4] y) {
            y = If (flag) <
                then_branch = yes () => (float[N, 4] a) { inner = Neg(x) a = Relu(inner) },
                else_branch = no () => (float[N, 4] b) { b = Identity(x) }
            >
        }""",
    )
    x = normal(32, 4)
    np.savez("data.npz", x=x, flag=np.ones(32, bool))
    # flag has no batch axis and x has one, so the samples are rows of x.
    result = done("calibrate", "model.onnx", "--data", "data.npz", "-o", "out.cache", "--calibrator", "minmax")
    assert list(facts(folder / "out.cache")) == ["x", "y"]
    assert facts(folder / "out.cache")["y"].amax == max(0, -x.min())
    assert codes(folder / "out.cache") == ["tensors-in-subgraphs"]
    assert "3 tensors inside If, Loop or Scan bodies" in result.err


def test_a_tensor_that_never_holds_a_value(done, folder):
    save_model(
        folder / "model.onnx",
        "empty (float[N, 4] x) => (float[N, 4] y, float[N, M] z) {"
        " e = Constant<value_ints = [4]>() z = Slice(x, e, e, one) y = Relu(x) }".replace(
            "z = Slice", "one = Constant<value_ints = [1]>() z = Slice"
        ),
    )
    np.save("data.npy", normal(32, 4))
    result = done(*CALIBRATE)
    assert list(scale_hex(folder / "out.cache")) == ["x", "y"]
    assert codes(folder / "out.cache") == ["unseen-tensor"]
    assert "'z' held no values in any sample" in result.err


@pytest.mark.parametrize("name", ["two\nlines", " padded", "padded\t"])
def test_a_name_that_cannot_stand_on_a_line_is_left_out(done, folder, name):
    model = save_model(folder / "model.onnx", RELU)
    model.graph.node[0].output[0] = model.graph.output[0].name = name
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    np.save("data.npy", normal(32, 4))
    done(*CALIBRATE)
    assert list(scale_hex(folder / "out.cache")) == ["x"]
    assert codes(folder / "out.cache") == ["unwritable-name"]


def test_many_findings_are_counted_on_the_terminal_and_kept_in_the_manifest(done, folder):
    chain = " ".join(f"t{n + 1} = Relu(t{n})" for n in range(30))
    save_model(folder / "model.onnx", f"long (float[N, 2] t0) => (float[N, 2] t30) {{ {chain} }}")
    np.save("data.npy", -np.ones((32, 2), np.float32))
    result = done(*CALIBRATE)
    assert "... and 10 more findings, in the manifest" in result.err
    assert codes(folder / "out.cache") == ["all-zero-tensor"] * 30


@pytest.mark.parametrize("code", CODES)
def test_every_code_is_accepted_by_fail_on(done, net, code):
    done("calibrate", "model.onnx", "--data", "data.npy", "-o", "out.cache", "--drop-last", "--fail-on", code)
