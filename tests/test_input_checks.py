"""Inputs that were not prepared as the model expects are told, and those that were are not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.lib.stride_tricks import sliding_window_view

import trtcalib
from tests.models import make_model
from trtcalib.batch_study import counting
from trtcalib.batch_study.study import study
from trtcalib.findings import CODES
from trtcalib.input_checks import InputStatistics, Statistics, compare_inputs, input_findings, starts_with_arithmetic
from trtcalib.input_preparation import IMAGENET_MEAN, IMAGENET_STD, expected_preparation
from trtcalib.manifest import manifest_path
from trtcalib.onnx_graph import ModelGraph, read_model

DIGITS = Path(__file__).parent.parent / "data" / "digits"
MEAN, STD = (np.array(v, np.float32).reshape(1, 3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))

CONV = "y = Conv<kernel_shape = [3, 3]>({}, w)"
NORM = "m (float[N, 3, H, W] x) => (float[N, 8, A, B] y) { c = Conv(x, w) y = BatchNormalization(c, one, nought, mean, var) }"


def photographs(count: int = 12) -> np.ndarray:
    """Smooth pictures in 0 to 1 with the means and spreads of photographs, [count, 3, 16, 16]; the edges are sharp."""
    random = np.random.default_rng(6)
    coarse = random.normal(0.46, 0.24, (count, 3, 4, 4)).clip(0, 1)
    return np.kron(coarse, np.ones((1, 1, 4, 4))).astype(np.float32)


def normalised(x: np.ndarray) -> np.ndarray:
    return (x - MEAN) / STD


def graph_of(folder: Path, body: str, shape: str = "N, 3, 16, 16", **constants: np.ndarray) -> ModelGraph:
    """A model of one input ``x``; what its text leaves open is a constant."""
    text = body if body.startswith("m (") else f"m (float[{shape}] x) => (float[A, B, C, D] y) {{ {body} }}"
    model = make_model(text)
    constants.setdefault("w", np.ones((2, 3, 3, 3), np.float32))
    model.graph.initializer.extend(onnx.numpy_helper.from_array(v, k) for k, v in constants.items())
    onnx.save_model(model, folder / "model.onnx")
    return read_model(folder / "model.onnx")


def trained(folder: Path, on: np.ndarray, bias: np.ndarray | None = None) -> ModelGraph:
    """A convolution that blurs more than it sharpens, whose batch normalization was trained on these pictures."""
    weights = np.random.default_rng(1).uniform(-0.2, 1, (8, 3, 3, 3)).astype(np.float32)
    out = np.einsum("nchwij,ocij->nohw", sliding_window_view(on, (3, 3), (2, 3)).astype(np.float64), weights)
    out += 0 if bias is None else bias[:, np.newaxis, np.newaxis]
    return graph_of(
        folder,
        NORM if bias is None else NORM.replace("Conv(x, w)", "Conv(x, w, b)"),
        w=weights,
        one=np.ones(8, np.float32),
        nought=np.zeros(8, np.float32),
        mean=out.mean((0, 2, 3)).astype(np.float32),
        var=out.var((0, 2, 3)).astype(np.float32),
        **({} if bias is None else {"b": bias}),
    )


def of(x: np.ndarray, name: str = "x") -> InputStatistics:
    found = Statistics()
    for position in range(len(x)):
        found.add(position, {name: x[position : position + 1]})
    return found.inputs()[0]


def codes(graph: ModelGraph, x: np.ndarray) -> list[str]:
    return [finding.code for finding in input_findings([of(x.astype(np.float32))], graph)]


def message(graph: ModelGraph, x: np.ndarray) -> str:
    (finding,) = input_findings([of(x.astype(np.float32))], graph)
    assert finding.tensor == "x"
    assert finding.code in CODES
    return finding.message


class TestRawPixels:
    @pytest.fixture
    def conv(self, tmp_path) -> ModelGraph:
        return graph_of(tmp_path, CONV.format("x"))

    def test_pixels_are_told_with_the_line_that_scales_them(self, conv) -> None:
        assert message(conv, np.round(photographs() * 255)) == (
            "input 'x' holds whole numbers from 0 to 255: looks like 8-bit pixels that nothing scaled; a model that takes them so is fine "
            "as it is. For a model of 0 to 1, a dataset YAML states inputs: {x: {scale: 1/255}}"
        )

    @pytest.mark.parametrize(("top", "line"), [(15, "1/15"), (16, "1/16"), (17, "1/255"), (200, "1/255")])
    def test_grey_levels_are_told(self, conv, top, line) -> None:
        told = message(conv, np.round(photographs() * top))
        assert f"from 0 to {top}: looks like {'8-bit pixels' if top > 16 else 'unscaled grey levels'}" in told
        assert told.endswith(f"{{x: {{scale: {line}}}}}")

    @pytest.mark.parametrize(
        "x",
        [
            photographs(),
            normalised(photographs()),
            photographs() * 255,  # hardly a whole number
            np.round(photographs()),  # a mask, a one-hot code
            np.round(photographs() * 14),  # classes, pieces on a board
            np.round(photographs() * 255) - 128,
            np.round(photographs() * 1000),
        ],
    )
    def test_other_values_are_not(self, conv, x) -> None:
        assert codes(conv, x) == []

    def test_a_share_of_odd_values_is_allowed_up_to_one_percent(self, conv) -> None:
        x = np.round(photographs() * 255)
        x.flat[: x.size // 100] = 103.53
        assert codes(conv, x) == ["input-like-raw-pixels"]
        x.flat[: x.size // 100 + 1] = 103.53
        assert codes(conv, x) == []

    def test_values_that_are_no_picture_are_not_told(self, tmp_path) -> None:
        graph = graph_of(
            tmp_path, "m (float[N, 64] x) => (float[N, 2] y) { y = MatMul(x, v) }", v=np.ones((64, 2), np.float32)
        )
        assert codes(graph, np.arange(640).reshape(10, 64) % 256) == []

    @pytest.mark.parametrize(
        "body",
        [
            "s = Mul(x, f) " + CONV.format("s"),
            "s = Sub(x, f) t = Div(s, f) " + CONV.format("t"),
            "t = Transpose<perm = [0, 1, 3, 2]>(x) c = Identity(t) s = Div(c, f) " + CONV.format("s"),
            "s = BatchNormalization(x, w3, w3, w3, w3) " + CONV.format("s"),
            "s = Mul(x, f) d = " + CONV.format("x")[4:] + " y = Concat<axis = 1>(d, s)",
            "y = MaxPool<kernel_shape = [2, 2]>(x)",
        ],
    )
    def test_a_model_that_prepares_its_input_itself_takes_any_range(self, tmp_path, body) -> None:
        graph = graph_of(tmp_path, body, f=np.full(1, 2, np.float32), w3=np.ones(3, np.float32))
        assert codes(graph, np.round(photographs() * 255)) == []
        assert starts_with_arithmetic(graph, "x") == ("MaxPool" not in body)

    @pytest.mark.parametrize(
        "body",
        [
            "t = Cast<to = 1>(x) i = Identity(t) " + CONV.format("i"),
            "t = Concat<axis = 0>(border, x) " + CONV.format("t"),
            "y = Conv(x, w) n = Shape(x)",
            "f = Flatten(x) v = MatMul(f, k) y = Reshape(v, s)",
            # YOLOv5's Focus: four slices that a convolution takes together.
            "a = Slice(x, i0, i9, i2, i1) b = Slice(x, i1, i9, i2, i1) c = Concat<axis = 2>(a, b) " + CONV.format("c"),
        ],
    )
    def test_what_only_moves_values_prepares_nothing(self, tmp_path, body) -> None:
        graph = graph_of(
            tmp_path,
            body,
            k=np.ones((768, 2), np.float32),
            s=np.array([-1, 2, 1, 1]),
            border=np.zeros((1, 3, 16, 16), np.float32),
            i0=np.array([0]),
            i1=np.array([1]),
            i2=np.array([2]),
            i9=np.array([16]),
        )
        assert not starts_with_arithmetic(graph, "x")
        assert codes(graph, np.round(photographs() * 255)) == ["input-like-raw-pixels"]

    def test_a_name_that_is_no_plain_word_is_quoted_in_the_line(self, tmp_path) -> None:
        model = make_model("m (float[N, 3, 16, 16] x) => (float[A, B, C, D] y) { y = Conv(x, w) }")
        model.graph.input[0].name = model.graph.node[0].input[0] = "images: 0"
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.ones((2, 3, 3, 3), np.float32), "w"))
        onnx.save_model(model, tmp_path / "model.onnx")
        (finding,) = input_findings(
            [of(np.round(photographs() * 255).astype(np.float32), "images: 0")], read_model(tmp_path / "model.onnx")
        )
        assert '{"images: 0": {scale: 1/255}}' in finding.message


class TestBatchNormalization:
    """The evidence that a model brings along."""

    def test_pixels_that_it_was_trained_on_are_no_alarm(self, tmp_path) -> None:
        pixels = np.round(photographs() * 255)
        graph = trained(tmp_path, pixels)
        assert codes(graph, pixels) == []
        assert expected_preparation(graph, of(pixels)).as_fed

    def test_pixels_that_it_was_not_trained_on_are_told_with_what_would_fit(self, tmp_path) -> None:
        graph = trained(tmp_path, normalised(photographs()))
        told = message(graph, np.round(photographs() * 255))
        assert "trained on other values ((x/255-mean)/std" in told
        assert "x/255 " not in told

    def test_pixels_without_mean_and_std_are_told(self, tmp_path) -> None:
        graph = trained(tmp_path, normalised(photographs()))
        assert codes(graph, photographs()) == ["input-not-normalised"]
        told = message(graph, photographs())
        assert "(x-mean)/std" in told
        assert "are mean and std of inputs.x missing in the dataset YAML?" in told

    @pytest.mark.parametrize("prepare", [lambda x: x, normalised, lambda x: 2 * x - 1, lambda x: np.round(255 * x)])
    @pytest.mark.parametrize("bias", [None, np.linspace(-9, 9, 8).astype(np.float32)])
    def test_what_it_was_trained_on_fits_and_is_not_told(self, tmp_path, prepare, bias) -> None:
        x = prepare(photographs())
        graph = trained(tmp_path, x, bias)
        assert expected_preparation(graph, of(x)).as_fed
        assert codes(graph, x) == []

    @pytest.mark.parametrize(
        ("trained_on", "fed", "name"),
        [
            (lambda x: x, lambda x: x * 255, "x/255"),
            (lambda x: x * 255, lambda x: x, "x*255"),
            (normalised, lambda x: x * 255, "(x/255-mean)/std"),
            (normalised, lambda x: x, "(x-mean)/std"),
            (lambda x: x * 255, lambda x: 2 * x - 1, "(x+1)*127.5"),
            (lambda x: x * 255, normalised, "(x*std+mean)*255"),
        ],
    )
    def test_the_preparation_between_two_is_the_one_that_fits_best(self, tmp_path, trained_on, fed, name) -> None:
        x = photographs()
        expected = expected_preparation(trained(tmp_path, trained_on(x)), of(fed(x)))
        assert not expected.as_fed
        assert expected.fitting[0] == name

    def test_a_folded_one_is_no_evidence(self, tmp_path) -> None:
        graph = graph_of(tmp_path, CONV.format("x"))
        assert expected_preparation(graph, of(photographs())) is None
        assert codes(graph, photographs()) == []

    def test_channels_in_another_order_are_no_evidence_and_a_shape_does_not_matter(self, tmp_path) -> None:
        graph = trained(tmp_path, normalised(photographs()))
        swap = make_model(
            "m (float[N, 3, H, W] x) => (float[A] y) <int64[3] i = {2, 1, 0}> { n = Shape(x) z = Gather<axis = 1>(x, i) }"
        ).graph
        graph.proto.graph.node.insert(0, swap.node[0])
        assert expected_preparation(graph, of(photographs())) is not None
        graph.proto.graph.initializer.extend(swap.initializer)
        graph.proto.graph.node[1].input[0] = "z"
        graph.proto.graph.node.insert(0, swap.node[1])
        assert expected_preparation(graph, of(photographs())) is None

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("var", np.full(8, -1, np.float32)),
            ("mean", np.full(8, np.nan, np.float32)),
            ("mean", np.ones(3, np.float32)),
            ("var", np.ones((8, 1), np.float32)),
            ("w", np.ones((8, 1, 3, 3), np.float32)),
            ("w", np.full((8, 3, 3, 3), np.inf, np.float32)),
            ("w", np.ones((8, 3, 3), np.float32)),
            ("mean", np.ones(8, np.int64)),
        ],
    )
    def test_numbers_that_make_no_sense_are_no_evidence(self, tmp_path, name, value) -> None:
        graph = trained(tmp_path, normalised(photographs()))
        kept = [t for t in graph.proto.graph.initializer if t.name != name]
        del graph.proto.graph.initializer[:]
        graph.proto.graph.initializer.extend([*kept, onnx.numpy_helper.from_array(value, name)])
        assert expected_preparation(graph, of(photographs())) is None

    def test_the_sample_model_takes_its_own_scale_and_no_other(self) -> None:
        graph = read_model(DIGITS / "model.onnx")
        raw = np.load(DIGITS / "calibration-images.npy").reshape(-1, 1, 8, 8).astype(np.float32)

        def expected(x):
            return expected_preparation(graph, of(x, "image"))

        assert expected(raw / 16).as_fed
        assert expected(raw).fitting[0] == "x/16"
        assert not expected(raw).as_fed
        assert not expected(raw / 255).as_fed
        told = list(input_findings([of(raw, "image")], graph))
        assert [(f.code, "x/16" in f.message) for f in told] == [("input-like-raw-pixels", True)]


class TestConstantChannels:
    def test_a_channel_that_was_lost_is_told(self, tmp_path) -> None:
        graph = graph_of(tmp_path, CONV.format("x"))
        x = photographs()
        x[:, 1] = 0
        assert message(graph, x) == (
            "channel 1 of 3 of input 'x' is 0 everywhere in 12 samples and the others are not: was it lost when the samples were made?"
        )

    def test_grey_pictures_a_full_alpha_channel_and_empty_pictures_are_not(self, tmp_path) -> None:
        graph = graph_of(tmp_path, CONV.format("x"))
        alpha = np.concatenate([photographs(), np.ones((12, 1, 16, 16))], 1)
        for x in (np.repeat(photographs()[:, :1], 3, 1), alpha, np.zeros((2, 3, 16, 16)), np.ones((2, 1, 16, 16))):
            assert codes(graph, x) == []
        alpha[:, 3] = 0
        assert codes(graph, alpha) == ["input-constant-channel"]


class TestTwoSets:
    X = photographs()

    @pytest.mark.parametrize(
        ("change", "cause"),
        [
            (lambda x: x * 255, "0 to 255 in the one and 0 to 1 in the other"),
            (lambda x: x * 16, "0 to 16 in the one"),
            (normalised, "are mean and std missing"),
            (lambda x: x * 1000, "were the samples of both prepared alike?"),
            (lambda x: x + 1, "were the samples of both prepared alike?"),
        ],
    )
    def test_sets_that_were_prepared_otherwise_are_told_whichever_is_which(self, change, cause) -> None:
        ours, theirs = of(self.X), of(change(self.X).astype(np.float32))
        for pair in ((ours, theirs), (theirs, ours)):
            (finding,) = compare_inputs([pair[0]], [pair[1]])
            assert (finding.code, finding.tensor) == ("inputs-differ", "x")
            assert cause in finding.message
            assert f"is {pair[0].minimum:.4g} to {pair[0].maximum:.4g} (" in finding.message
            assert f"and {pair[1].minimum:.4g} to {pair[1].maximum:.4g} (" in finding.message

    @pytest.mark.parametrize(
        "change", [lambda x: x, lambda x: x[:3], lambda x: 1 - x, lambda x: x * 3, lambda x: x * 0]
    )
    def test_sets_that_differ_as_data_do_are_not(self, change) -> None:
        assert list(compare_inputs([of(self.X)], [of(change(self.X))])) == []

    def test_a_factor_of_four_is_told_and_less_is_not(self) -> None:
        assert [f.code for f in compare_inputs([of(self.X)], [of(self.X * 4)])] == ["inputs-differ"]
        assert list(compare_inputs([of(self.X)], [of(self.X * np.float32(3.99))])) == []

    def test_inputs_of_one_set_only_are_not_compared(self) -> None:
        assert list(compare_inputs([of(self.X)], [of(self.X * 255, "other")])) == []


class TestInTheCommands:
    RAW = np.round(
        photographs(40) * np.array([255, *[200] * 39], np.float32).reshape(40, 1, 1, 1)
    )  # the first sample tells itself

    def test_calibrate_says_it_in_the_manifest(self, tmp_path) -> None:
        graph = graph_of(tmp_path, CONV.format("x"))
        found = trtcalib.calibrate(graph.path, self.RAW).manifest(tmp_path / "x.cache").findings
        assert "input-like-raw-pixels" in [finding.code for finding in found]

    def test_the_embedded_sample_is_fine(self) -> None:
        found = trtcalib.calibrate(DIGITS / "model.onnx", DIGITS.parent / "digits-calibration.yaml", "minmax").findings
        assert [finding.code for finding in found if finding.code.startswith("input")] == []

    @pytest.mark.parametrize("interrupt_at", [None, 30, 60])
    def test_a_study_says_the_same_even_where_it_was_interrupted(self, tmp_path, monkeypatch, interrupt_at) -> None:
        model = graph_of(tmp_path, CONV.format("x")).path
        np.save(tmp_path / "data.npy", self.RAW)
        monkeypatch.setattr(counting, "_AT_A_TIME", 10)
        monkeypatch.setattr(counting, "SAVE_EVERY", 0)
        runs = []

        def interrupted(add):
            def add_one(*arguments):
                runs.append(1)
                if len(runs) == interrupt_at:
                    raise KeyboardInterrupt
                return add(*arguments)

            return add_one

        for kind in (counting.MaximaTally, counting.RangeTally):
            monkeypatch.setattr(kind, "add", interrupted(kind.add))
        choices = {"batch_sizes": [8], "orders": 1, "calibrator": "minmax", "workers": 1}
        out = tmp_path / "out"
        if interrupt_at:
            with pytest.raises(KeyboardInterrupt):
                study(model, tmp_path / "data.npy", out, **choices)
        result = study(model, tmp_path / "data.npy", out, **choices)
        assert "input-like-raw-pixels" in [finding.code for finding in result.findings]
        assert len(runs) < 100  # went on, and did not begin again
        for layout in result.configurations:
            path = out / layout.cache
            wanted = trtcalib.calibrate(
                model, tmp_path / "data.npy", "minmax", batch_size=layout.batch_size, shuffle=layout.shuffle
            ).files(path)
            assert manifest_path(path).read_bytes() == wanted[manifest_path(path)]
