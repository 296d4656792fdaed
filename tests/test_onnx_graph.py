"""Which tensors of a model TensorRT lists, which of them inherit, and which models are refused."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import pytest

import trtcalib.onnx_graph
from tests.models import DENSE, FIXED, make_model, save_model
from trtcalib.errors import ActivationError, ModelError
from trtcalib.onnx_graph import (
    GraphTensor,
    ModelGraph,
    ModelInput,
    constant_values,
    expose,
    external_files,
    own_histograms,
    read_model,
)

F32 = np.dtype(np.float32)


@pytest.fixture
def read(tmp_path: Path):
    def run(text: str) -> ModelGraph:
        return read_model(save_model(tmp_path / "model.onnx", text))

    return run


def listed(graph: ModelGraph) -> list[tuple[str, str]]:
    return [(tensor.name, tensor.kind) for tensor in graph.tensors]


def refusal(path: Path) -> str:
    with pytest.raises(ModelError) as caught:
        read_model(path)
    assert caught.value.path == path
    return str(caught.value).removeprefix(f"{path}: ")


class TestListed:
    def test_inputs_weights_and_activations_in_graph_order(self, read) -> None:
        graph = read(DENSE)
        assert graph.tensors == (
            GraphTensor("x", "input"),
            GraphTensor("w", "constant"),
            GraphTensor("h", "activation"),
            GraphTensor("y", "activation"),
        )
        assert graph.typed >= {"x", "w", "h", "y"}
        assert graph.in_subgraphs == 0
        assert own_histograms(graph) == list(graph.tensors)

    def test_only_floating_point(self, read) -> None:
        graph = read("""
            types (int64[N] ids, bool[N] mask, float[N] x) => (float[N] y)
            <int64[1] one = {1}, int64[1] axes = {0}>
            {
                next = Add(ids, one)
                cast = Cast<to = 1>(next)
                shape = Shape(x)
                sum = Add(cast, x)
                y = Where(mask, sum, x)
            }
            """)
        assert listed(graph) == [("x", "input"), ("cast", "activation"), ("sum", "activation"), ("y", "activation")]

    def test_float16_and_double(self, read) -> None:
        graph = read("""
            types (float16[N] h, double[N] d) => (float16[N] y, double[N] z)
            { y = Relu(h)
              z = Relu(d) }
            """)
        assert [name for name, _ in listed(graph)] == ["h", "d", "y", "z"]
        assert graph.typed == {"h", "d", "y", "z"}

    def test_parameters_of_a_layer_never_become_tensors(self, read) -> None:
        graph = read("""
            parameters (float[N, 2, 4, 4] x) => (float[N, 2, 8, 8] y)
            <float[2] s = {1, 1}, float[2] b = {0, 0}, float[2] m = {0, 0}, float[2] v = {1, 1},
             float[4] scales = {1, 1, 2, 2}, float low = {0}, float high = {6}, float[2, 2, 1, 1] w = {1, 0, 0, 1}>
            {
                c = Conv(x, w)
                n = BatchNormalization(c, s, b, m, v)
                r = Resize(n, , scales)
                y = Clip(r, low, high)
            }
            """)
        assert [name for name, _ in listed(graph)] == ["x", "w", "c", "n", "r", "y"]

    def test_a_parameter_that_is_also_used_as_a_tensor_is_listed(self, read) -> None:
        graph = read("""
            both (float[N] x) => (float[N] y)
            <float low = {0}>
            { c = Clip(x, low)
              y = Add(c, low) }
            """)
        assert ("low", "constant") in listed(graph)

    def test_weights_that_nothing_uses_are_not_listed(self, read) -> None:
        graph = read(
            "g (float[N] x) => (float[N] y) <float[1] unused = {1}, float[0] empty = {}> { y = Concat<axis = 0>(x, empty) }"
        )
        assert [name for name, _ in listed(graph)] == ["x", "y"]

    def test_optional_outputs_without_a_name(self, read) -> None:
        graph = read(
            "g (float[N, 4] x) => (float[N, 4] y) <float[4] s = {1, 1, 1, 1}> { y, , inverse = LayerNormalization(x, s) }"
        )
        assert [name for name, _ in listed(graph)] == ["x", "s", "y", "inverse"]

    def test_what_shape_inference_does_not_know_stays_a_candidate(self, read) -> None:
        graph = read("""
            <ir_version: 8, opset_import: ["" : 17, "mine" : 1]>
            custom (float[N] x) => (float[N] y)
            { a = mine.Unknown(x)
              y = Relu(a) }
            """)
        assert [name for name, _ in listed(graph)] == ["x", "a", "y"]
        assert "a" not in graph.typed

    def test_names_of_any_kind(self, tmp_path: Path) -> None:
        model = make_model(DENSE)
        model.graph.node[0].output[0] = model.graph.node[1].input[0] = "a: b\n$x$ [red]\x1b[31m/é"
        onnx.save(model, tmp_path / "m.onnx")
        assert read_model(tmp_path / "m.onnx").tensors[2].name == "a: b\n$x$ [red]\x1b[31m/é"


class TestConstants:
    NODES = """
        constants (float[N] x) => (float[N] y)
        <float[2] initializer = {1, 2}>
        {
            scalar = Constant<value = float {3}>()
            vector = Constant<value = float[2] {4, 5}>()
            one = Constant<value_float = 6.0>()
            many = Constant<value_floats = [7.0, 8.0]>()
            whole = Constant<value_int = 9>()
            wholes = Constant<value_ints = [9, 9]>()
            a = Add(x, initializer)
            b = Add(a, scalar)
            c = Add(b, vector)
            d = Add(c, one)
            e = Add(d, many)
            f = Reshape(e, wholes)
            y = Identity(f)
        }
        """

    def test_initializers_and_every_form_of_constant_node(self, read) -> None:
        graph = read(self.NODES)
        constants = [name for name, kind in listed(graph) if kind == "constant"]
        assert constants == ["initializer", "scalar", "vector", "one", "many"]
        values = {name: array.tolist() for name, array in constant_values(graph)}
        assert values == {"initializer": [1, 2], "scalar": [3], "vector": [4, 5], "one": [6], "many": [7, 8]}

    def test_values_are_flat_float32(self, read) -> None:
        # The text gives float16 by its bits.
        graph = read(
            "g (float16[N, 2] x) => (float16[N, 2] y) <float16[2, 2] w = {15360, 16384, 16896, 17408}> { y = MatMul(x, w) }"
        )
        ((name, values),) = constant_values(graph)
        assert (name, values.dtype, values.tolist()) == ("w", np.float32, [1, 2, 3, 4])

    def test_a_double_past_float32_is_infinite_without_a_warning(self, read) -> None:
        graph = read("g (double[N] x) => (double[N] y) <double[1] w = {1e300}> { y = Mul(x, w) }")
        assert next(constant_values(graph))[1] == [np.inf]

    def test_what_follows_from_constants_alone_is_folded(self, read) -> None:
        graph = read("""
            folding (float[2] x) => (float[2] y)
            <float[2] w = {1, 2}, int64[1] shape = {2}>
            {
                k = Constant<value = float[2] {3, 4}>()
                sum = Add(w, k)
                view = Reshape(sum, shape)
                noise = RandomNormalLike(w)
                drawn = RandomNormal<shape = [2]>()
                a = Add(x, view)
                b = Add(a, noise)
                y = Add(b, drawn)
            }
            """)
        kinds = dict(listed(graph))
        assert [name for name, kind in kinds.items() if kind == "folded"] == ["sum", "view"]
        assert [name for name, kind in kinds.items() if kind == "activation"] == ["noise", "drawn", "a", "b", "y"]

    def test_a_constant_that_cannot_be_decoded(self, tmp_path: Path) -> None:
        model = make_model(DENSE)
        model.graph.initializer[0].ClearField("float_data")
        model.graph.initializer[0].raw_data = b"123"
        onnx.save(model, tmp_path / "m.onnx")
        with pytest.raises(ActivationError, match=r"^tensor 'w': the constant cannot be decoded: "):
            list(constant_values(read_model(tmp_path / "m.onnx")))


def sources(graph: ModelGraph) -> dict[str, tuple[str | None, str | None]]:
    return {t.name: (t.view_of, t.scale_of) for t in graph.tensors if t.view_of or t.scale_of}


class TestInheritance:
    def test_views(self, read) -> None:
        graph = read("""
            views (float[2, 3] x) => (float[6] y, float[3, 2] z)
            <int64[1] flat = {6}, int64[1] axis = {0}>
            {
                a = Reshape(x, flat)
                b = Unsqueeze(a, axis)
                c = Squeeze(b, axis)
                d = Identity(c)
                e = Flatten(x)
                y = Relu(d)
                z = Transpose(x)
            }
            """)
        assert sources(graph) == {name: (source, None) for name, source in zip("abcdez", "xabcxx", strict=True)}
        assert [tensor.name for tensor in own_histograms(graph)] == ["x", "y"]

    def test_pools(self, read) -> None:
        graph = read("""
            pools (float[N, 1, 8, 8] x) => (float[N, 1, 1, 1] y)
            {
                m, places = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(x)
                a = AveragePool<kernel_shape = [2, 2]>(m)
                y = GlobalAveragePool(a)
            }
            """)
        assert sources(graph) == {"m": (None, "x"), "a": (None, "m")}
        assert [tensor.name for tensor in own_histograms(graph)] == ["x", "y"]

    def test_a_view_of_a_pool_shows_the_pools_own_values(self, read) -> None:
        graph = read("""
            pool_then_view (float[N, 1, 8, 8] x) => (float[N, 16] y)
            {
                m = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(x)
                y = Flatten(m)
            }
            """)
        assert sources(graph) == {"m": (None, "x"), "y": ("m", None)}
        assert [tensor.name for tensor in own_histograms(graph)] == ["x", "m"]

    def test_a_view_of_a_constant_or_a_cast_is_its_own(self, read) -> None:
        graph = read("""
            odd (int64[2] ids, float[2] x) => (float[2] y)
            <int64[1] shape = {2}>
            {
                viewed = Reshape(ids, shape)
                cast = Cast<to = 1>(viewed)
                y = Add(cast, x)
            }
            """)
        assert sources(graph) == {}

    def test_an_operator_of_that_name_in_another_domain_is_no_view(self, read) -> None:
        graph = read("""
            <ir_version: 8, opset_import: ["" : 17, "mine" : 1]>
            custom (float[N] x) => (float[N] y)
            { a = mine.Reshape(x)
              y = Identity(a) }
            """)
        assert sources(graph) == {}


def test_tensors_inside_control_flow_are_counted(read) -> None:
    graph = read("""
        branches (bool condition, float[N] x) => (float[N] y)
        {
            y = If(condition) <
                then_branch = yes () => (float[N] a) { r = Relu(x)
                                                       a = Neg(r) },
                else_branch = no () => (float[N] b) {
                    b = If(condition) <
                        then_branch = deep () => (float[N] c) { c = Abs(x) },
                        else_branch = deeper () => (float[N] d) { d = Neg(x) }>
                }>
        }
        """)
    assert graph.in_subgraphs == 5
    assert [name for name, _ in listed(graph)] == ["x", "y"]


class TestInputs:
    def test_sizes_fixed_and_free(self, read) -> None:
        graph = read("g (float[N, 3, ?, 5] x, int64[N] ids) => (float[N, 3, ?, 5] y) { y = Relu(x) }")
        assert graph.inputs == (
            ModelInput("x", F32, (None, 3, None, 5)),
            ModelInput("ids", np.dtype(np.int64), (None,)),
        )
        assert graph.fixed_batch is None

    @pytest.mark.parametrize(
        ("signature", "fixed"),
        [
            ("float[4, 3] x", 4),
            ("float[1, 3] x", 1),
            ("float[N, 3] x", None),
            ("float[4, 3] x, int64[4] ids", 4),
            ("float[4, 3] x, int64[2] ids", None),
            ("float[4, 3] x, int64[N] ids", None),
            ("float[4, 3] x, float s", 4),
            ("float[0, 3] x", None),
        ],
    )
    def test_the_fixed_batch(self, read, signature: str, fixed: int | None) -> None:
        assert read(f"g ({signature}) => (float[A, B] y) {{ y = Relu(x) }}").fixed_batch == fixed

    def test_the_fixed_batch_of_a_whole_model(self, read) -> None:
        assert read(FIXED).fixed_batch == 4

    @pytest.mark.parametrize(
        ("kind", "dtype"),
        [
            ("float16", "float16"),
            ("double", "float64"),
            ("int32", "int32"),
            ("int64", "int64"),
            ("uint8", "uint8"),
            ("bool", "bool"),
        ],
    )
    def test_dtypes(self, read, kind: str, dtype: str) -> None:
        graph = read(f"g ({kind}[N] x) => (float[N] y) {{ y = Cast<to = 1>(x) }}")
        assert graph.inputs[0].dtype == dtype

    def test_an_input_with_a_default_is_a_constant_and_is_not_fed(self, read) -> None:
        graph = read("g (float[N] x, float[1] w) => (float[N] y) <float[1] w = {2}> { y = Mul(x, w) }")
        assert [i.name for i in graph.inputs] == ["x"]
        assert listed(graph) == [("x", "input"), ("w", "constant"), ("y", "activation")]

    def test_a_rank_that_is_not_stated(self, tmp_path: Path) -> None:
        model = make_model(DENSE)
        model.graph.input[0].type.tensor_type.ClearField("shape")
        onnx.save(model, tmp_path / "m.onnx")
        assert read_model(tmp_path / "m.onnx").inputs == (ModelInput("x", F32, None),)

    def test_no_inputs(self, tmp_path: Path) -> None:
        path = save_model(tmp_path / "m.onnx", "g () => (float[1] y) <float[1] w = {1}> { y = Relu(w) }")
        assert refusal(path) == "the model has no inputs: there is nothing to calibrate"

    def test_only_inputs_with_a_default(self, tmp_path: Path) -> None:
        path = save_model(tmp_path / "m.onnx", "g (float[1] w) => (float[1] y) <float[1] w = {1}> { y = Relu(w) }")
        assert refusal(path) == "the model has no inputs: there is nothing to calibrate"

    def test_a_sequence_cannot_be_fed(self, tmp_path: Path) -> None:
        path = save_model(
            tmp_path / "m.onnx", "g (seq(float[N]) s) => (float[N] y) { y = ConcatFromSequence<axis = 0>(s) }"
        )
        assert refusal(path) == "input 's' is no tensor: only tensors can be fed"

    @pytest.mark.parametrize("kind", [onnx.TensorProto.BFLOAT16, onnx.TensorProto.UNDEFINED])
    def test_a_type_that_numpy_does_not_know(self, tmp_path: Path, kind: int) -> None:
        model = make_model(DENSE)
        model.graph.input[0].type.tensor_type.elem_type = kind
        onnx.save(model, tmp_path / "m.onnx")
        assert refusal(tmp_path / "m.onnx") == "input 'x' has a type that NumPy does not know"


class TestNoModel:
    BYTES = "not an ONNX model, or truncated: its bytes are no complete protobuf message"
    EMPTY = "not an ONNX model: it has no nodes, no IR version or no opset"

    def test_missing(self, tmp_path: Path) -> None:
        assert refusal(tmp_path / "no.onnx") == "no such file"

    def test_a_folder(self, tmp_path: Path) -> None:
        assert refusal(tmp_path) == "is no regular file; expected an .onnx file"

    def test_empty(self, tmp_path: Path) -> None:
        (tmp_path / "m.onnx").touch()
        assert refusal(tmp_path / "m.onnx") == self.EMPTY

    @pytest.mark.parametrize(
        "content", [b"hello world, this is text\n", b"\xff" * 100, b"\x89PNG\r\n\x1a\n" + bytes(50)]
    )
    def test_something_else(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "m.onnx").write_bytes(content)
        assert refusal(tmp_path / "m.onnx") in (self.BYTES, self.EMPTY)

    def test_truncated_anywhere(self, tmp_path: Path) -> None:
        whole = make_model(DENSE).SerializeToString()
        for length in range(1, len(whole) - 6, 7):
            (tmp_path / "m.onnx").write_bytes(whole[:length])
            assert refusal(tmp_path / "m.onnx") in (self.BYTES, self.EMPTY)

    @pytest.mark.parametrize("field", ["ir_version", "opset_import"])
    def test_without_what_every_model_states(self, tmp_path: Path, field: str) -> None:
        model = make_model(DENSE)
        model.ClearField(field)
        (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
        assert refusal(tmp_path / "m.onnx") == self.EMPTY

    def test_over_2_gb(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = save_model(tmp_path / "m.onnx", DENSE)
        monkeypatch.setattr(trtcalib.onnx_graph, "PROTOBUF_LIMIT", 10)
        expected = "keep the weights in an external file (onnx.save_model with save_as_external_data=True)"
        assert refusal(path) == f"the file is over protobuf's 2 GB: {expected}"


WEIGHTS = np.arange(6, dtype=np.float32)


def save_external(
    folder: Path, location: str | None = "weights.bin", *, offset: str | None = None, length: str | None = None
) -> Path:
    """Write the dense model with its weight outside, as hostile as the arguments make it."""
    model = make_model(DENSE)
    (weight,) = model.graph.initializer
    weight.ClearField("float_data")
    weight.ClearField("raw_data")
    weight.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", offset), ("length", length)):
        if value is not None:
            weight.external_data.add(key=key, value=value)
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


class TestExternalData:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        folder = tmp_path / "model"
        (folder / "sub").mkdir(parents=True)
        for file in (folder / "weights.bin", folder / "sub" / "w.bin", tmp_path / "secret.bin"):
            WEIGHTS.tofile(file)
        return folder

    def test_inside_the_folder_is_mapped(self, folder: Path) -> None:
        graph = read_model(save_external(folder))
        ((name, values),) = constant_values(graph)
        assert name == "w"
        assert isinstance(values.base, np.memmap)  # a view, no copy
        assert values.tolist() == WEIGHTS.tolist()
        assert external_files(graph) == [folder / "weights.bin"]

    def test_in_a_folder_below_and_behind_an_offset(self, folder: Path) -> None:
        (folder / "sub" / "w.bin").write_bytes(bytes(10) + WEIGHTS.tobytes())
        graph = read_model(save_external(folder, "sub/w.bin", offset="10", length="24"))
        assert next(constant_values(graph))[1].tolist() == WEIGHTS.tolist()

    def test_a_path_that_comes_back_into_the_folder(self, folder: Path) -> None:
        assert external_files(read_model(save_external(folder, "sub/../weights.bin"))) == [folder / "weights.bin"]

    def test_read_through_a_relative_path(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        save_external(folder)
        monkeypatch.chdir(folder)
        assert next(constant_values(read_model("model.onnx")))[1].tolist() == WEIGHTS.tolist()

    @pytest.mark.parametrize(
        "location",
        ["../secret.bin", "sub/../../secret.bin", "/etc/passwd", "..", ".", "", "C:\\secret.bin", "..\\secret.bin", "C:secret.bin", "file:///etc/passwd"],
    )  # fmt: skip
    def test_outside_is_refused(self, folder: Path, location: str) -> None:
        expected = f"tensor 'w': external data {location!r} lies outside the model's folder: refused"
        assert refusal(save_external(folder, location)) == expected

    def test_an_absolute_path_into_the_folder_is_refused_too(self, folder: Path) -> None:
        assert "lies outside the model's folder: refused" in refusal(save_external(folder, str(folder / "weights.bin")))

    def test_no_location_at_all(self, folder: Path) -> None:
        assert refusal(save_external(folder, None)).startswith("tensor 'w': external data '' lies outside")

    def test_a_link_that_leaves_the_folder(self, folder: Path) -> None:
        (folder / "link.bin").symlink_to("../secret.bin")
        (folder / "away").symlink_to("..")
        for location in ("link.bin", "away/secret.bin"):
            expected = f"tensor 'w': external data {location!r} lies outside the model's folder: refused"
            assert refusal(save_external(folder, location)) == expected

    def test_a_link_that_stays(self, folder: Path) -> None:
        (folder / "link.bin").symlink_to("sub/w.bin")
        assert external_files(read_model(save_external(folder, "link.bin"))) == [folder / "sub" / "w.bin"]

    @pytest.mark.parametrize("location", ["no.bin", "sub", "sub/no.bin"])
    def test_missing(self, folder: Path, location: str) -> None:
        expected = f"tensor 'w': its external data file {Path(location).name!r} is missing"
        assert refusal(save_external(folder, location)) == expected

    @pytest.mark.parametrize(("offset", "size"), [("0", 20), ("1", 24), ("99999999999999999999", 24)])
    def test_too_short(self, folder: Path, offset: str, size: int) -> None:
        os.truncate(folder / "weights.bin", size)
        needed = f"bytes {offset} to {int(offset) + 24} are needed: is it truncated?"
        expected = f"tensor 'w': external data file 'weights.bin' has {size} bytes, but {needed}"
        assert refusal(save_external(folder, offset=offset)) == expected

    def test_a_length_that_does_not_match_the_shape(self, folder: Path) -> None:
        assert (
            refusal(save_external(folder, length="20"))
            == "tensor 'w': its external data has 20 bytes, its shape needs 24"
        )

    @pytest.mark.parametrize("numbers", [{"offset": "x"}, {"length": "1.5"}, {"offset": ""}, {"offset": "9" * 5000}])
    def test_no_numbers(self, folder: Path, numbers: dict[str, str]) -> None:
        expected = "tensor 'w': offset or length of its external data is no number"
        assert refusal(save_external(folder, **numbers)) == expected

    def test_a_negative_offset(self, folder: Path) -> None:
        assert refusal(save_external(folder, offset="-4")).startswith("tensor 'w': ")

    def test_in_a_constant_node_and_in_a_subgraph(self, folder: Path) -> None:
        model = make_model("""
            g (bool c, float[N] x) => (float[N] y)
            { y = If(c) <then_branch = yes () => (float[N] a) { k = Constant<value = float[1] {1}>()
                                                                a = Add(x, k) },
                         else_branch = no () => (float[N] b) { b = Neg(x) }> }
            """)
        tensor = model.graph.node[0].attribute[0].g.node[0].attribute[0].t
        tensor.ClearField("float_data")
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="../secret.bin")
        (folder / "model.onnx").write_bytes(model.SerializeToString())
        assert "external data '../secret.bin' lies outside" in refusal(folder / "model.onnx")

    def test_a_tensor_without_elements(self, folder: Path) -> None:
        path = save_external(folder)
        model = onnx.load(path, load_external_data=False)
        model.graph.initializer[0].dims[0] = 0
        path.write_bytes(model.SerializeToString())
        assert "w" not in [tensor.name for tensor in read_model(path).tensors]


class TestExpose:
    def test_the_named_tensors_are_the_only_outputs(self, read) -> None:
        graph = read(DENSE)
        exposed = onnx.load_model_from_string(expose(graph, ["h"]))
        assert [output.name for output in exposed.graph.output] == ["h"]
        assert exposed.graph.node == graph.proto.graph.node
        assert [output.name for output in graph.proto.graph.output] == ["y"]

    def test_external_data_stays_external(self, tmp_path: Path) -> None:
        WEIGHTS.tofile(tmp_path / "weights.bin")
        exposed = onnx.load_model_from_string(expose(read_model(save_external(tmp_path)), ["h"]))
        assert exposed.graph.initializer[0].data_location == onnx.TensorProto.EXTERNAL


class TestHostileExternalData:
    """Reported against onnx_tensors.py; each fails with a bare OSError, ValueError, RuntimeError or OverflowError."""

    @pytest.mark.parametrize("location", ["a\0b", "a" * 5000, "loop", "loop/x"])
    def test_locations_that_no_file_can_have(self, tmp_path: Path, location: str) -> None:
        (tmp_path / "loop").symlink_to("loop")
        assert refusal(save_external(tmp_path, location)).startswith("tensor 'w': ")

    def test_a_negative_size(self, tmp_path: Path) -> None:
        WEIGHTS.tofile(tmp_path / "weights.bin")
        path = save_external(tmp_path)
        model = onnx.load(path, load_external_data=False)
        model.graph.initializer[0].dims[0] = -1
        path.write_bytes(model.SerializeToString())
        assert refusal(path).startswith("tensor 'w': ")
