"""Bad input: one clear sentence, exit code 2, nothing half-written (the fixture ``refused`` compares the folder)."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

from tests.cli.helpers import NET, RELU, facts, listing, normal, save_model

CALIBRATE = ("calibrate", "model.onnx", "--data", "data.npy", "-o", "out.cache")

TWO_INPUTS = "two (float[N, 2] x, int64[N, 1] ids) => (float[N, 2] y) { f = Cast<to = 1>(ids) y = Mul(x, f) }"

IMAGES = """
source: images
inputs:
  x: {resize: [4, 4], scale: 1/255, dtype: float32}
"""


@pytest.fixture
def images(folder):
    """``model.onnx`` that takes 3 x 4 x 4 images, ``images/`` with 32 good ones, and ``data.yaml``."""
    save_model(folder / "model.onnx", "pictures (float[N, 3, 4, 4] x) => (float[N, 3, 4, 4] y) { y = Relu(x) }")
    (folder / "images").mkdir()
    for index, pixels in enumerate(np.random.default_rng(0).integers(0, 256, (32, 6, 6, 3), np.uint8)):
        Image.fromarray(pixels).save(folder / "images" / f"{index:02}.png")
    (folder / "data.yaml").write_text(IMAGES)
    return folder


# The model


def test_missing_model(refused, net):
    assert refused("calibrate", "no.onnx", "--data", "data.npy", "-o", "out.cache") == "no.onnx: no such file\n"


def test_a_folder_for_a_model(refused, net):
    (net / "folder.onnx").mkdir()
    message = refused("calibrate", "folder.onnx", "--data", "data.npy", "-o", "out.cache")
    assert message.startswith("folder.onnx: is no regular file")


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99])
def test_truncated_model(refused, net, share):
    content = (net / "model.onnx").read_bytes()
    (net / "model.onnx").write_bytes(content[: int(len(content) * share)])
    assert refused(*CALIBRATE).startswith("model.onnx: ")


@pytest.mark.parametrize("content", [b"", b"<html>no model</html>", b"\x00" * 100, b"\x08\x08", bytes(range(256)) * 9])
def test_not_an_onnx_model(refused, net, content):
    (net / "model.onnx").write_bytes(content)
    assert "model.onnx: not an ONNX model" in refused(*CALIBRATE)


def test_unsupported_opset(refused, net):
    save_model(net / "model.onnx", NET, opset=99)
    message = refused(*CALIBRATE)
    assert message.startswith("model.onnx: ONNX Runtime refuses the model")
    assert "99" in message


def test_unknown_operator(refused, net):
    save_model(net / "model.onnx", "unknown (float[N, 4] x) => (float[N, 4] y) { y = com.acme.Frobnicate(x) }")
    message = refused(*CALIBRATE)
    assert message.startswith("model.onnx: ONNX Runtime refuses the model")
    assert "Frobnicate" in message


def test_a_graph_that_does_not_hang_together(refused, net):
    save_model(net / "model.onnx", "broken (float[N, 4] x) => (float[N, 4] y) { y = Add(x, nowhere) }")
    message = refused(*CALIBRATE)
    assert message.startswith("model.onnx: ")
    assert "nowhere" in message


def test_a_model_without_inputs(refused, net):
    save_model(net / "model.onnx", "nothing () => (float[1] y) { y = Constant<value_floats = [1.0]>() }")
    assert refused(*CALIBRATE) == "model.onnx: the model has no inputs: there is nothing to calibrate\n"


def test_a_constant_that_holds_nan(refused, net):
    model = save_model(net / "model.onnx", NET)
    model.graph.initializer[1].CopyFrom(onnx.numpy_helper.from_array(np.array([1, np.nan, 2], np.float32), "b"))
    (net / "model.onnx").write_bytes(model.SerializeToString())
    assert refused(*CALIBRATE) == "tensor 'b': the constant holds NaN\n"


def external(folder, location, values=12):
    """Put the weights of NET into a file of their own."""
    model = save_model(folder / "model.onnx", NET)
    weights = model.graph.initializer[0]
    weights.ClearField("float_data")
    weights.ClearField("raw_data")
    weights.data_location = onnx.TensorProto.EXTERNAL
    weights.external_data.add(key="location", value=location)
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    np.arange(values, dtype=np.float32).tofile(folder / "weights.bin")


def test_external_data_is_read(done, net):
    external(net, "weights.bin")
    done(*CALIBRATE, "--calibrator", "minmax")
    assert facts(net / "out.cache")["w"].amax == 11


def test_external_data_that_is_missing(refused, net):
    external(net, "weights.bin")
    (net / "weights.bin").unlink()
    assert refused(*CALIBRATE) == "model.onnx: tensor 'w': its external data file 'weights.bin' is missing\n"


def test_external_data_that_is_truncated(refused, net):
    external(net, "weights.bin", values=11)
    message = refused(*CALIBRATE)
    assert message.startswith("model.onnx: tensor 'w': external data file 'weights.bin' has 44 bytes")


@pytest.mark.parametrize(
    "location", ["../weights.bin", "/etc/passwd", "sub/../../weights.bin", "", "..", "C:\\weights.bin"]
)
def test_external_data_outside_the_models_folder(refused, folder, monkeypatch, location):
    (folder / "here").mkdir()
    external(folder, location)
    (folder / "model.onnx").rename(folder / "here" / "model.onnx")
    np.save("here/data.npy", normal(40, 4))
    monkeypatch.chdir("here")
    message = refused(*CALIBRATE)
    assert message == f"model.onnx: tensor 'w': external data {location!r} lies outside the model's folder: refused\n"


@pytest.mark.skipif(os.name == "nt", reason="symbolic links need a privilege on Windows")
def test_external_data_behind_a_link_that_leads_outside(refused, folder, monkeypatch):
    (folder / "here").mkdir()
    external(folder, "link.bin")
    (folder / "model.onnx").rename(folder / "here" / "model.onnx")
    (folder / "here" / "link.bin").symlink_to(folder / "weights.bin")
    np.save("here/data.npy", normal(40, 4))
    monkeypatch.chdir("here")
    assert "'link.bin' lies outside the model's folder" in refused(*CALIBRATE)


# The data


def test_missing_data(refused, net):
    message = refused("calibrate", "model.onnx", "--data", "no.npz", "-o", "out.cache")
    assert message.startswith("no.npz: no such file or folder; expected a .npz, a .npy, a dataset .yaml")


def test_an_unknown_kind_of_file(refused, net):
    (net / "data.csv").write_text("1,2\n")
    assert "data.csv: found a .csv file, expected" in refused(
        "calibrate", "model.onnx", "--data", "data.csv", "-o", "out.cache"
    )


@pytest.mark.parametrize("shape", [(0, 4), (0,), ()])
def test_empty_data(refused, net, shape):
    np.save("data.npy", np.zeros(shape, np.float32))
    assert refused(*CALIBRATE).startswith("data.npy: ")


def test_an_archive_without_arrays(refused, net):
    np.savez("data.npz")
    message = refused("calibrate", "model.onnx", "--data", "data.npz", "-o", "out.cache")
    assert message.startswith("data.npz: no array for input 'x'")


@pytest.mark.parametrize("name", ["data.npy", "data.npz"])
@pytest.mark.parametrize("share", [0, 0.1, 0.5, 0.97])
def test_truncated_arrays(refused, net, name, share):
    np.savez("data.npz", x=normal(40, 4))
    content = (net / name).read_bytes()
    (net / name).write_bytes(content[: int(len(content) * share)])
    message = refused("calibrate", "model.onnx", "--data", name, "-o", "out.cache")
    assert message.startswith(name)
    assert "truncated" in message


@pytest.mark.parametrize("name", ["data.npy", "data.npz"])
def test_pickled_arrays(refused, net, name):
    value = np.array([[Path("runs code")] * 4], object)
    (np.save if name == "data.npy" else np.savez)(name, value)
    message = refused("calibrate", "model.onnx", "--data", name, "-o", "out.cache")
    assert message.startswith(name)
    assert "pickle" in message


def test_wrong_shape(refused, net):
    np.save("data.npy", normal(40, 5))
    assert refused(*CALIBRATE) == "data.npy: sample 0: input 'x' has shape (1, 5), the model takes [?, 4]\n"


def test_wrong_rank(refused, net):
    np.save("data.npy", normal(40, 4, 1, 1))
    assert "data.npy: input 'x' got an array of shape (40, 4, 1, 1); expected [?, 4]" in refused(*CALIBRATE)


def test_wrong_dtype(refused, net):
    np.save("data.npy", normal(40, 4).astype(np.float64))
    message = refused(*CALIBRATE)
    assert message.startswith("data.npy: sample 0: input 'x' is float64, the model takes float32")
    assert ".astype(numpy.float32)" in message


def test_missing_and_wrong_names(refused, folder):
    save_model(folder / "model.onnx", TWO_INPUTS)
    np.savez("data.npz", x=normal(4, 2), id=np.zeros((4, 1), np.int64))
    message = refused("calibrate", "model.onnx", "--data", "data.npz", "-o", "out.cache")
    assert message == "data.npz: no array for input 'ids'; found 'x', 'id', the model needs 'x', 'ids'\n"


def test_different_numbers_of_samples(refused, folder):
    save_model(folder / "model.onnx", TWO_INPUTS)
    np.savez("data.npz", x=normal(4, 2), ids=np.zeros((5, 1), np.int64))
    message = refused("calibrate", "model.onnx", "--data", "data.npz", "-o", "out.cache")
    assert message == "data.npz: the arrays have different numbers of samples ('x': 4, 'ids': 5)\n"


@pytest.mark.parametrize(("value", "words"), [(np.nan, "holds NaN"), (np.inf, "infinite"), (-np.inf, "infinite")])
@pytest.mark.parametrize("sample", [0, 37])
def test_nan_and_infinity_in_an_input(refused, net, value, words, sample):
    data = normal(40, 4)
    data[sample, 2] = value
    np.save("data.npy", data)
    message = refused(*CALIBRATE)
    assert message.startswith(f"data.npy: sample {sample}: input 'x' holds ")
    assert words in message


@pytest.mark.parametrize(
    ("graph", "tensor"),
    [
        ("logarithm (float[N, 4] x) => (float[N, 4] y) { bad = Log(x) y = Relu(bad) }", "bad"),
        ("quotient (float[N, 4] x) => (float[N, 4] y) { zero = Relu(x) bad = Div(zero, zero) y = Exp(bad) }", "bad"),
    ],
)
@pytest.mark.parametrize("sample", [1, 35])
def test_nan_inside_the_graph_names_tensor_and_sample(refused, folder, graph, tensor, sample):
    save_model(folder / "model.onnx", graph)
    data = np.abs(normal(40, 4)) + 1
    data[sample, 0] = -1
    np.save("data.npy", data)
    for workers in (1, 3):
        message = refused(*CALIBRATE, "--workers", workers)
        assert message.startswith(f"tensor {tensor!r} at sample {sample}: holds NaN")


def test_data_that_onnx_runtime_cannot_run(refused, folder):
    save_model(folder / "model.onnx", "pick (int64[N] i) => (float[N] y) <float[2] t = {1, 2}> { y = Gather(t, i) }")
    np.save("data.npy", np.array([0, 1, 7]))
    message = refused(*CALIBRATE)
    assert message.startswith("data.npy: sample 2: ONNX Runtime cannot run the model")


# Images


def test_a_folder_of_images_needs_a_dataset(refused, images):
    message = refused("calibrate", "model.onnx", "--data", "images", "-o", "out.cache")
    assert message.startswith(
        "images: a folder of images needs to be told how to prepare input 'x'; give a dataset YAML"
    )


def test_the_example_in_that_message_is_a_dataset(cli, images):
    message = cli("calibrate", "model.onnx", "--data", "images", "-o", "out.cache").err
    example = "\n".join(line.removeprefix("trtcalib: ") for line in message.splitlines()[1:])
    (images / "data.yaml").write_text(example.replace("224, 224", "4, 4"))
    assert cli("calibrate", "model.onnx", "--data", "data.yaml", "-o", "out.cache").code == 0


def test_an_empty_folder(refused, images):
    for file in (images / "images").iterdir():
        file.unlink()
    assert "images: the folder holds no image" in refused(
        "calibrate", "model.onnx", "--data", "data.yaml", "-o", "out.cache"
    )


@pytest.mark.parametrize("content", [b"", b"not an image", b"\x89PNG\r\n\x1a\n"])
def test_an_undecodable_image_is_named(refused, images, content):
    (images / "images" / "20.png").write_bytes(content)
    message = refused("calibrate", "model.onnx", "--data", "data.yaml", "-o", "out.cache")
    assert message.startswith("images: sample 20.png: the image cannot be decoded")


def test_a_truncated_image_is_named(refused, images):
    content = (images / "images" / "07.png").read_bytes()
    (images / "images" / "07.png").write_bytes(content[:-40])
    message = refused("calibrate", "model.onnx", "--data", "data.yaml", "-o", "out.cache")
    assert message.startswith("images: sample 07.png: the image cannot be decoded")


def test_a_shape_that_the_preparation_gets_wrong(refused, images):
    (images / "data.yaml").write_text(IMAGES.replace("[4, 4]", "[5, 4]"))
    message = refused("calibrate", "model.onnx", "--data", "data.yaml", "-o", "out.cache")
    assert message == "images: sample 00.png: input 'x' has shape (1, 3, 5, 4), the model takes [?, 3, 4, 4]\n"


# Functions that yield feeds


def feeds(body):
    return f"import numpy as np\ndef feeds():\n    {body}\n"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("raise OSError('the camera is gone')", "the function raised OSError: the camera is gone"),
        (
            "yield {'x': np.zeros((1, 4), np.float32)}; 1 / 0",
            "sample 1: the function raised ZeroDivisionError: division by zero",
        ),
        ("return []", "the function gave no samples"),
        ("return None", "the function returned NoneType, expected an iterable of feeds"),
        ("yield np.zeros((1, 4), np.float32)", "sample 0: found ndarray, expected a mapping of input name to array"),
        ("yield {'x': np.zeros((1, 4))}", "sample 0: input 'x' is float64, the model takes float32"),
        ("yield {'x': np.zeros((1, 5), np.float32)}", "sample 0: input 'x' has shape (1, 5), the model takes [?, 4]"),
        ("yield {'z': np.zeros((1, 4), np.float32)}", "sample 0: input 'x' is missing; found 'z'"),
        (
            "yield {'x': np.zeros((1, 4), np.float32), 'z': np.zeros(1)}",
            "sample 0: the model has no input 'z'; it has 'x'",
        ),
        ("yield {'x': np.full((3, 4), np.nan, np.float32)}", "sample 0: input 'x' holds NaN"),
    ],
)
def test_a_function_that_misbehaves(refused, net, module, body, words):
    name = module(feeds(body))
    message = refused("calibrate", "model.onnx", "--data", f"{name}:feeds", "-o", "out.cache", "--workers", 1)
    assert message.startswith(f"{name}:feeds: {words}")


def test_data_that_change_between_passes(refused, net, module):
    name = module(feeds("yield {'x': np.random.default_rng().normal(size=(40, 4)).astype(np.float32)}"))
    message = refused("calibrate", "model.onnx", "--data", f"{name}:feeds", "-o", "out.cache")
    assert message.startswith(f"{name}:feeds: the first batch gave other values when it was read again (tensor 'x'")
    assert "without random augmentation" in message


def test_a_function_that_can_be_read_only_once(refused, net, module):
    name = module(
        "import numpy as np\n"
        "once = iter([{'x': np.full((1, 4), n, np.float32)} for n in range(1, 41)])\n"
        "def feeds():\n    return once\n"
    )
    message = refused("calibrate", "model.onnx", "--data", f"{name}:feeds", "-o", "out.cache")
    assert message.startswith(f"{name}:feeds: ")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("import not_installed_anywhere", "cannot be imported: No module named 'not_installed_anywhere'"),
        ("def other(): pass", "has no 'feeds'"),
        ("feeds = 3", "'feeds' is a int, expected a function"),
        ("1 / 0", "raised ZeroDivisionError"),
        ("import sys\nsys.no_such_thing", "raised AttributeError"),
        ("def broken(:", "raised SyntaxError"),
    ],
)
def test_a_module_that_misbehaves(refused, net, module, content, words):
    name = module(content)
    message = refused("calibrate", "model.onnx", "--data", f"{name}:feeds", "-o", "out.cache")
    assert message.startswith(f"{name}:feeds: ")
    assert words in message


def test_a_missing_module(refused, net):
    message = refused("calibrate", "model.onnx", "--data", "no_such_module:feeds", "-o", "out.cache")
    assert message.startswith("no_such_module:feeds: the module 'no_such_module' cannot be imported")


def test_a_function_cannot_be_shuffled(refused, net, module):
    name = module(feeds("yield {'x': np.ones((1, 4), np.float32)}"))
    message = refused("calibrate", "model.onnx", "--data", f"{name}:feeds", "-o", "out.cache", "--shuffle", 1)
    assert "a function gives its samples in its own order" in message


# YAML


def test_all_faults_of_a_dataset_at_once(refused, images):
    (images / "data.yaml").write_text(
        "source: images\nlabel: labels.npy\ninputs:\n  x: {resizze: 4, colour: green, scale: 1/0, std: [0], dtype: float31}\n"
    )
    lines = refused("calibrate", "model.onnx", "--data", "data.yaml", "-o", "out.cache").splitlines()
    assert all(line.startswith("data.yaml: ") for line in lines)
    faults = {line.split(": ")[1]: line for line in lines}
    assert faults.keys() == {
        "label", "inputs.x.resizze", "inputs.x.colour", "inputs.x.scale", "inputs.x.std.0", "inputs.x.dtype",
    } or faults.keys() == {"label", "inputs.x.resizze", "inputs.x.colour", "inputs.x.scale", "inputs.x.std", "inputs.x.dtype"}  # fmt: skip
    assert "did you mean 'labels'?" in faults["label"]
    assert "did you mean 'resize'?" in faults["inputs.x.resizze"]
    assert "'green'" in faults["inputs.x.colour"]
    assert "1/0" in faults["inputs.x.scale"]


def test_all_faults_of_a_recipe_at_once(refused, net):
    (net / "recipe.yaml").write_text("method: percentile\npercentil: 99\npercentile: 101\nbins: 7\nrange: tripling\n")
    lines = refused(*CALIBRATE, "--calibrator", "recipe.yaml").splitlines()
    faults = {line.split(": ")[1]: line for line in lines}
    assert faults.keys() == {"percentil", "percentile", "bins", "range"}
    assert "did you mean 'percentile'?" in faults["percentil"]
    assert "101 is not in (0, 100]" in faults["percentile"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "expected a mapping with the keys method"),
        ("method: entropi", "did you mean 'entropy'?"),
        ("variant: smoothed", "method: this key is missing"),
        ("method: [", "not valid YAML"),
        ("method: minmax\nmethod: entropy", "the key 'method' stands twice"),
        ("a: &a [x]\nb: *a", "aliases are not allowed"),
        ("method: !!python/object/apply:os.system [echo]", "not valid YAML"),
        ("method: entropy\nvariant: pseudo-code", "variant: found 'pseudo-code'"),
        ("method: percentile", "percentile: this key is missing"),
    ],
)
def test_a_recipe_with_a_fault(refused, net, content, words):
    (net / "recipe.yaml").write_text(content)
    message = refused(*CALIBRATE, "--calibrator", "recipe.yaml")
    assert message.startswith("recipe.yaml: ")
    assert words in message


@pytest.mark.parametrize(
    ("calibrator", "words"),
    [
        ("entropi", "did you mean 'entropy'?"),
        ("percentile", "did you mean 'percentile-99.99'?"),
        ("percentile-0", "0.0 is not in (0, 100]"),
        ("percentile-100.1", "100.1 is not in (0, 100]"),
        ("percentile-nan", "is not in (0, 100]"),
        ("percentile-high", "'high' is not in (0, 100]"),
        ("missing.yaml", "missing.yaml: no such file"),
    ],
)
def test_an_unknown_calibrator(refused, net, calibrator, words):
    message = refused(*CALIBRATE, "--calibrator", calibrator)
    assert message.startswith(f"{calibrator}: ")
    assert words in message


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("source: elsewhere", "source: 'elsewhere' does not exist beside this file"),
        ("source: os:listdir", "a YAML file cannot name code to run"),
        ("source: images\ninputs: {image: {}}", "inputs.image: the model has no such input; it has x"),
        ("source: images\nlabels: no.npy\ninputs: {x: {}}", "labels: 'no.npy' does not exist"),
        ("inputs: {}", "source: this key is missing"),
    ],
)
def test_a_dataset_with_a_fault(refused, images, content, words):
    (images / "data.yaml").write_text(content)
    message = refused("calibrate", "model.onnx", "--data", "data.yaml", "-o", "out.cache")
    assert message.startswith("data.yaml: ")
    assert words in message


# Results that cannot be written


@pytest.fixture
def unread(net, module):
    """Data that must not be read, because the output is refused first."""
    return f"{module('raise SystemError')}:feeds"


def test_an_output_in_a_folder_that_does_not_exist(refused, net, unread):
    message = refused("calibrate", "model.onnx", "--data", unread, "-o", "nowhere/out.cache")
    assert message == "nowhere/out.cache: the folder 'nowhere' does not exist: create it first\n"


@pytest.mark.parametrize("taken", ["out.cache", "out.cache.json", "h.npz"])
def test_a_folder_in_the_place_of_a_result(refused, net, unread, taken):
    (net / taken).mkdir()
    message = refused("calibrate", "model.onnx", "--data", unread, "-o", "out.cache", "--histograms", "h.npz")
    assert message == f"{taken}: is a folder; expected the name of a file to write\n"


def test_a_folder_that_cannot_be_written_to(refused, net, unread, monkeypatch):
    real = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK and real(path, mode))
    message = refused("calibrate", "model.onnx", "--data", unread, "-o", "out.cache")
    assert message == "out.cache: the folder '.' cannot be written to\n"


@pytest.mark.skipif(
    os.name == "nt" or os.geteuid() == 0, reason="root may write anywhere, Windows has other permissions"
)
def test_a_read_only_folder(refused, net, unread):
    (net / "locked").mkdir(mode=0o500)
    assert "cannot be written to" in refused("calibrate", "model.onnx", "--data", unread, "-o", "locked/out.cache")


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such devices")
def test_a_device_in_the_place_of_a_result(refused, net, unread):
    assert "/dev/null: is no regular file" in refused("calibrate", "model.onnx", "--data", unread, "-o", "/dev/null")


SAME_PLACE = "is an input or another result of this command: choose another name"


@pytest.mark.parametrize("result", ["model.onnx", "data.npy", "./sub/../model.onnx", "recipe.yaml"])
def test_a_result_in_the_place_of_an_input(refused, net, result):
    (net / "sub").mkdir()
    (net / "recipe.yaml").write_text("method: minmax")
    message = refused("calibrate", "model.onnx", "--data", "data.npy", "--calibrator", "recipe.yaml", "-o", result)
    assert message == f"{Path(result)}: {SAME_PLACE}\n"


def test_two_results_in_the_same_place(refused, net):
    for name in ("out.cache", "out.cache.json"):
        assert refused(*CALIBRATE, "--histograms", name) == f"{name}: {SAME_PLACE}\n"


def test_a_cache_or_a_picture_in_the_place_of_the_histograms(done, refused, net):
    done(*CALIBRATE, "--histograms", "h.npz")
    (net / "h.npz").rename(net / "h.png")
    assert SAME_PLACE in refused("solve", "h.png", "-o", "h.png")
    assert SAME_PLACE in refused("plot", "--histograms", "h.png", "--tensor", "x", "-o", "h.png")


@pytest.fixture
def full_disk(monkeypatch):
    """Let the disk be full from the n-th file on that is written out."""

    def fill(after):
        written = []

        def fsync(_descriptor):
            written.append(1)
            if len(written) > after:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(os, "fsync", fsync)

    return fill


@pytest.mark.parametrize("after", [0, 1])
@pytest.mark.parametrize("existing", [False, True])
def test_disk_full(done, refused, net, full_disk, after, existing):
    if existing:
        done(*CALIBRATE, "--calibrator", "minmax")
    full_disk(after)
    message = refused(*CALIBRATE)
    assert message.startswith("out.cache")
    assert "cannot be written: No space left on device" in message


def test_disk_full_while_histograms_are_saved(refused, net, full_disk):
    full_disk(2)
    assert "h.npz: cannot be written: No space left" in refused(*CALIBRATE, "--histograms", "h.npz")


def test_disk_full_while_solving_and_plotting(done, refused, net, full_disk):
    done(*CALIBRATE, "--histograms", "h.npz")
    full_disk(0)
    assert "No space left" in refused("solve", "h.npz", "-o", "solved.cache")
    assert "No space left" in refused("plot", "--histograms", "h.npz", "--tensor", "x", "-o", "x.png")


# The environment


@pytest.mark.parametrize("command", ["calibrate", "plot", "demo"])
def test_without_onnx_runtime_the_message_says_what_to_install(refused, net, monkeypatch, command):
    arguments = {
        "calibrate": CALIBRATE,
        "plot": ("plot", "model.onnx", "--data", "data.npy", "--tensor", "x", "-o", "x.png"),
        "demo": ("demo", "-o", "out"),
    }
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    message = refused(*arguments[command], code=3)
    assert message.startswith("the package 'onnxruntime' is missing")
    for word in (
        "pip install 'trtcalib[cpu]'",
        "(onnxruntime)",
        "pip install 'trtcalib[cuda]'",
        "(onnxruntime-gpu)",
        "clash",
    ):
        assert word in message


def test_a_refusal_leaves_what_was_there(done, refused, net):
    done(*CALIBRATE, "--histograms", "h.npz")
    before = listing(net)
    data = normal(40, 4)
    data[39] = np.nan
    np.save("data.npy", data)
    refused(*CALIBRATE, "--histograms", "h.npz")
    assert {name: digest for name, digest in listing(net).items() if name != "data.npy"} == {
        name: digest for name, digest in before.items() if name != "data.npy"
    }


def test_hostile_names_in_messages_cannot_drive_the_terminal(cli, folder):
    model = save_model(folder / "model.onnx", RELU)
    model.graph.node[0].op_type, model.graph.node[0].output[0] = "Log", "\x1b[2J"
    model.graph.node.add(op_type="Relu", input=["\x1b[2J"], output=["y"])
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    np.save("data.npy", -np.ones((4, 4), np.float32))
    result = cli(*CALIBRATE)
    assert result.code == 2
    assert "\x1b" not in result.err
    assert "\\x1b[2J" in result.err
