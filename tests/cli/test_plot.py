"""``trtcalib plot``: one tensor's histogram as a picture."""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from PIL import Image

from tests.cli.helpers import RELU, listing, normal, save_model

PLOT = ("plot", "model.onnx", "--data", "data.npy")


def test_png(done, net):
    assert done(*PLOT, "--tensor", "sum", "-o", "x.png").out == "x.png\n"
    with Image.open(net / "x.png") as image:
        assert image.format == "PNG"
        assert image.width > 600
        assert len(image.convert("RGB").getcolors(1 << 24)) > 20


def test_svg_and_a_capital_suffix(done, net):
    done(*PLOT, "--tensor", "sum", "-o", "x.SVG")
    assert ET.parse(net / "x.SVG").getroot().tag.endswith("svg")


def test_the_picture_shows_the_amax_of_every_method(done, net, monkeypatch):
    from trtcalib.views import plots

    seen = []
    real = plots.draw_histogram
    monkeypatch.setattr(plots, "draw_histogram", lambda *arguments: seen.append(real(*arguments)) or seen[-1])
    done(*PLOT, "--tensor", "x", "-o", "x.png", "--batch-size", "1")
    (axes,) = seen[0].axes
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    for method in ("entropy", "minmax", "percentile 99.9", "percentile 99.99", "percentile 99.999"):
        assert any(label.startswith(f"{method}: amax ") for label in labels), labels
    assert axes.get_yscale() == "log"
    assert axes.get_title().startswith("x — 2048 bins over")
    assert any(label.startswith("160 values") for label in labels)
    minmax = next(label for label in labels if label.startswith("minmax"))
    assert minmax == f"minmax: amax {np.abs(np.load('data.npy')).max():.5g}"


def test_saved_histograms_give_the_same_picture_without_running_the_model(done, net, monkeypatch):
    done("calibrate", "model.onnx", "--data", "data.npy", "-o", "out.cache", "--histograms", "h.npz")
    for kind in ("png", "svg"):
        done(*PLOT, "--tensor", "sum", "-o", f"run.{kind}")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    for kind in ("png", "svg"):
        done("plot", "--histograms", "h.npz", "--tensor", "sum", "-o", f"saved.{kind}")
        assert (net / f"run.{kind}").read_bytes() == (net / f"saved.{kind}").read_bytes()


def test_a_constant_and_a_tensor_of_zeros(done, folder):
    save_model(folder / "model.onnx", RELU)
    np.save("data.npy", -np.ones((32, 4), np.float32))
    for tensor in ("x", "y"):
        done(*PLOT, "--tensor", tensor, "-o", f"{tensor}.png")


def test_a_pools_output_shows_the_histogram_whose_scale_it_carries(done, folder):
    save_model(
        folder / "model.onnx",
        "pool (float[N, 1, 2, 2] x) => (float[N, 1, 1, 1] y) { y = MaxPool<kernel_shape = [2, 2]>(x) }",
    )
    np.save("data.npy", normal(32, 1, 2, 2))
    done(*PLOT, "--tensor", "y", "-o", "x.png")


def test_a_name_is_text_and_no_mathematics(done, folder):
    model = save_model(folder / "model.onnx", RELU)
    model.graph.node[0].output[0] = model.graph.output[0].name = "$\\frac{y_1"
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    np.save("data.npy", normal(32, 4))
    done(*PLOT, "--tensor", "$\\frac{y_1", "-o", "x.svg")


@pytest.mark.parametrize("name", ["x.jpg", "x", "x.pdf"])
def test_another_suffix_is_refused(refused, net, name):
    assert refused(*PLOT, "--tensor", "sum", "-o", name) == f"{name}: pictures are written as .png or .svg\n"


def test_an_unknown_tensor_is_refused_with_the_nearest_name(refused, net):
    message = refused(*PLOT, "--tensor", "produkt", "-o", "x.png")
    assert message == "no histogram for tensor 'produkt', did you mean 'product'?\n"


def test_an_unknown_tensor_unlike_any(refused, net):
    assert "no histogram for tensor '%%'; 6 tensors have one" in refused(*PLOT, "--tensor", "%%", "-o", "x.png")


def test_an_unknown_tensor_is_refused_before_the_data_are_read(refused, net, module):
    name = module("def feeds():\n    raise SystemError('the data were read')\n")
    message = refused("plot", "model.onnx", "--data", f"{name}:feeds", "--tensor", "produkt", "-o", "x.png")
    assert "did you mean 'product'?" in message


@pytest.mark.parametrize("arguments", [["model.onnx"], ["--data", "data.npy"], []])
def test_model_and_data_go_together(misused, net, arguments):
    assert "MODEL.onnx and --data are needed, or --histograms" in misused(
        "plot", *arguments, "--tensor", "x", "-o", "x.png"
    )


def test_histograms_take_the_place_of_model_and_data(misused, net):
    message = misused(*PLOT, "--histograms", "h.npz", "--tensor", "x", "-o", "x.png")
    assert "takes the place of MODEL.onnx and --data" in message


def test_nothing_else_is_written(done, net):
    before = listing(net)
    done(
        *PLOT,
        "--tensor",
        "sum",
        "-o",
        "x.png",
        "--max-samples",
        "8",
        "--shuffle",
        "1",
        "--drop-last",
        "--batch-size",
        "4",
    )
    assert listing(net).keys() - before.keys() == {"x.png"}
