"""What an engine is made of, from what TensorRT's inspector tells; a stand-in tells it here."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.trt.fakes import FACTS, FakeEngine, installed, tensorrt
from trtcalib.errors import EngineError
from trtcalib.manifest import EngineManifest, ModelFacts, manifest_path

INT8 = "Thirty-two wide channel vectorized row major Int8 format"
FP16 = "Row major linear FP16 format"
FP32 = "Row major linear FP32"


@pytest.fixture(scope="module")
def inspection() -> Iterator[ModuleType]:
    """The module under test, over a fake TensorRT."""
    with pytest.MonkeyPatch.context() as monkeypatch, installed(tensorrt(), monkeypatch):
        from trtcalib.trt import inspection

        yield inspection


@pytest.fixture
def inspect(inspection: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Any]:
    """Inspect an engine whose inspector says this."""
    path = tmp_path / "x.engine"
    path.write_bytes(b"plan")

    def run(said: Any, manifest: EngineManifest | bytes | None = None, engine: FakeEngine | None = None) -> Any:
        text = said if isinstance(said, str) else json.dumps(said)
        engine = engine or FakeEngine(text, {"x": [(1, 3), (8, 3), (32, 3)]})
        runtime = SimpleNamespace(deserialize_cuda_engine=lambda content: engine)
        module = tensorrt("10.16.1.11", Runtime=lambda log: runtime)
        monkeypatch.setitem(sys.modules, "tensorrt", module)
        if manifest is not None:
            content = manifest if isinstance(manifest, bytes) else manifest.model_dump_json().encode()
            manifest_path(path).write_bytes(content)
        return inspection.inspect_engine(path)

    return run


def layer(name: str = "conv1", *formats: str, kind: str = "CaskConvolution", out: str = "y") -> dict[str, Any]:
    """A layer as TensorRT 8.6 to 10.16 write it."""
    ends = [{"Name": "x", "Location": "Device", "Dimensions": [8, 3], "Format/Datatype": text} for text in formats]
    return {"Name": name, "LayerType": kind, "Inputs": ends, "Outputs": [{"Name": out, "Format/Datatype": FP32}]}


def manifest(*messages: str, fallback: Any = None) -> EngineManifest:
    return EngineManifest(
        engine="x.engine",
        engine_sha256="0" * 64,
        engine_bytes=4,
        tensorrt_version="10.16.1.11",
        device=FACTS,
        model=ModelFacts(path="m.onnx", sha256="1" * 64),
        explicit_quantization=False,
        cache=None,
        data=None,
        batching=None,
        recipe=None,
        shapes={},
        settings={} if fallback is None else {"fallback": fallback},
        batches_fed=0,
        seconds={},
        versions={},
        findings=[],
        messages=list(messages),
    )


class TestPrecision:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            (INT8, "INT8"),
            ("Four wide channel vectorized row major Int8 format", "INT8"),
            ("Channel major INT8 format where channel % 4 == 0", "INT8"),
            ("Row major Int8 format", "INT8"),
            (FP32, "FP32"),
            (FP16, "FP16"),
            ("Channel major FP16 format where channel % 8 == 0", "FP16"),
            ("Two wide channel vectorized row major FP16 format", "FP16"),
            ("Row major linear BF16", "BF16"),
            ("Row major linear FP8", "FP8"),
            ("Row major linear Int32 format", "INT32"),
            ("Row major linear INT64", "INT64"),
            ("Row major linear UInt8 format", "UINT8"),
            ("Row major linear BOOL", "BOOL"),
            ("Int8", "INT8"),
            ("Half", "FP16"),
            ("Float", "FP32"),
            ("BFloat16", "BF16"),
            ("kINT8", "unknown"),
            ("N/A due to dynamic shapes", "unknown"),
            ("Unknown format", "unknown"),
            ("", "unknown"),
        ],
    )
    def test_is_the_type_that_the_first_input_names(self, inspection: ModuleType, text: str, expected: str) -> None:
        (found,) = inspection.parse_layers([{"Name": "conv1", "Inputs": [{"Name": "x", "Format/Datatype": text}]}])
        assert found.precision == expected
        assert found.formats == (text,)

    def test_the_first_input_decides(self, inspection: ModuleType) -> None:
        (found,) = inspection.parse_layers([layer("conv1", INT8, FP16)])
        assert found.precision == "INT8"
        assert found.formats == (INT8, FP16, FP32)
        assert found.tensors == ("x", "x", "y")

    def test_an_input_that_names_none_leaves_it_to_the_next(self, inspection: ModuleType) -> None:
        (found,) = inspection.parse_layers([layer("conv1", "N/A due to dynamic shapes", FP16)])
        assert found.precision == "FP16"

    def test_type_and_layout_under_keys_of_their_own(self, inspection: ModuleType) -> None:
        end = {"Name": "x", "Format": "Row major linear", "Datatype": "Half"}
        (found,) = inspection.parse_layers([{"Name": "a", "LayerType": "gemm", "Inputs": [end], "Outputs": []}])
        assert (found.precision, found.formats) == ("FP16", ("Half, Row major linear",))

    def test_a_layer_without_ends_is_unknown(self, inspection: ModuleType) -> None:
        (found,) = inspection.parse_layers([{"Name": "signal", "LayerType": "Signal", "Inputs": [], "Outputs": []}])
        assert (found.name, found.type, found.precision) == ("signal", "Signal", "unknown")

    def test_an_engine_without_detail_gives_names_only(self, inspection: ModuleType) -> None:
        found = inspection.parse_layers(["conv1 + relu1", "fc"])
        assert [(f.name, f.type, f.precision, f.formats) for f in found] == [
            ("conv1 + relu1", "unknown", "unknown", ()),
            ("fc", "unknown", "unknown", ()),
        ]


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.just(INT8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["Name", "LayerType", "Inputs", "Outputs", "Format/Datatype", "x"]), inner, max_size=4
        )
    ),
    max_leaves=15,
)


class TestHostile:
    @given(content=st.lists(_JSON, max_size=4))
    def test_whatever_stands_there_every_layer_is_listed(self, inspection: ModuleType, content: list[Any]) -> None:
        found = inspection.parse_layers(content)
        assert len(found) == len(content)
        for one in found:
            assert {type(one.name), type(one.type), type(one.precision)} == {str}
            assert all(type(text) is str for text in (*one.formats, *one.tensors))

    @pytest.mark.parametrize("ends", [None, 3, "Int8", {"Name": "x"}, ["Int8", None, 3, []]])
    def test_ends_that_are_none_are_unknown(self, inspection: ModuleType, ends: Any) -> None:
        (found,) = inspection.parse_layers([{"Name": "a", "Inputs": ends, "Outputs": ends}])
        assert (found.precision, found.formats, found.tensors) == ("unknown", (), ())

    @pytest.mark.parametrize(
        "said",
        [
            "",
            "no JSON",
            "null",
            "3",
            "[]",
            "{}",
            '{"Layers": null}',
            '{"Layers": 3}',
            "[" * 100000,
            '"Layers"',
            '{"layers": []}',
        ],
    )
    def test_an_inspector_that_tells_nothing(self, inspect, tmp_path: Path, said: str) -> None:
        with pytest.raises(EngineError) as caught:
            inspect(said)
        expected = f"{tmp_path / 'x.engine'}: TensorRT's engine inspector told nothing that can be read"
        assert str(caught.value) == expected

    def test_no_inspector(self, inspect) -> None:
        engine = FakeEngine("", {})
        engine.create_engine_inspector = lambda: None
        with pytest.raises(EngineError, match="told nothing that can be read"):
            inspect("", engine=engine)

    def test_huge_names_and_control_characters_are_kept_as_they_are(self, inspect) -> None:
        """Who prints them makes them printable."""
        names = ["x" * 100_000, "a\x1b[31mb\r\n", "\u202eabc", ""]
        found = inspect({"Layers": [layer(name, FP32) for name in names]}, manifest("nothing to do with it"))
        assert [one.name for one in found.layers] == names
        assert {one.reason for one in found.layers} == {""}

    @pytest.mark.parametrize("fallback", [[], "fp16", 3, {"fp16": None}, {"fp16": 3}, {"fp16": [None, 3, "["]}])
    def test_settings_of_a_manifest_that_was_changed(self, inspect, fallback: Any) -> None:
        (found,) = inspect({"Layers": [layer("conv1", FP32)]}, manifest(fallback=fallback)).layers
        assert found.reason == ""


class TestInspection:
    def test_counts_versions_and_detail(self, inspect, tmp_path: Path) -> None:
        layers = [layer("a", INT8), layer("b", FP16), layer("c", INT8), layer("d", "N/A due to dynamic shapes")]
        layers[3]["Outputs"] = []
        found = inspect({"Layers": layers, "Bindings": ["x", "y"]})
        assert found.counts == {"INT8": 2, "FP16": 1, "unknown": 1}
        assert list(found.counts) == ["INT8", "FP16", "unknown"]
        assert (found.path, found.tensorrt_version, found.detailed) == (str(tmp_path / "x.engine"), "10.16.1.11", True)

    def test_names_only(self, inspect) -> None:
        found = inspect({"Layers": ["conv1 + relu1"]})
        assert not found.detailed
        assert found.counts == {"unknown": 1}

    def test_formats_are_asked_for_at_the_shapes_that_it_was_tuned_for(self, inspect) -> None:
        engine = FakeEngine('{"Layers": []}', {"x": [(1, 3), (8, 3), (32, 3)], "fixed": [(4, 3)] * 3})
        inspect("", engine=engine)
        assert engine.set == {"x": (8, 3)}

    def test_a_warning_that_engines_are_programs_comes_once(self, inspect, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.WARNING)
        for _ in range(2):
            inspect({"Layers": []})
        (record,) = caplog.records
        assert "engines are executable" in record.getMessage()


class TestReasons:
    def reason(self, inspect, facts: EngineManifest | None, *layers: dict[str, Any]) -> list[str]:
        return [one.reason for one in inspect({"Layers": list(layers)}, facts).layers]

    def test_no_manifest_no_reason(self, inspect) -> None:
        assert self.reason(inspect, None, layer("conv1", FP32)) == [""]

    def test_a_message_that_names_the_layer_or_its_tensor(self, inspect) -> None:
        about = "Missing scale and zero-point for tensor h, expect fall back to non-int8 implementation"
        layers = [layer("conv1", FP32, out="h"), layer("h2", FP32, out="h2"), layer("conv2 + relu2", FP16, out="z")]
        facts = manifest(about, "relu2: no INT8 kernel", "relu2: a second message")
        assert self.reason(inspect, facts, *layers) == [about, "", "relu2: no INT8 kernel"]

    @pytest.mark.parametrize(
        ("message", "said"),
        [
            ("tensor conv1_output", False),
            ("tensor myconv1", False),
            ("node /block/conv1", False),
            ("node conv1/bias", False),
            ("net.conv1", False),
            ("conv1", True),
            ("(conv1)", True),
            ("'conv1': why", True),
            ("falls back: conv1.", True),
        ],
    )
    def test_a_name_inside_another_is_not_meant(self, inspect, message: str, said: bool) -> None:
        assert self.reason(inspect, manifest(message), layer("conv1", FP32)) == [message if said else ""]

    def test_names_that_are_patterns_to_re(self, inspect) -> None:
        name = "(Unnamed Layer* 3) [Convolution]"
        assert self.reason(inspect, manifest(f"no INT8 kernel: {name}"), layer(name, FP32)) == [
            f"no INT8 kernel: {name}"
        ]

    @pytest.mark.parametrize("pattern", ["conv1", "conv*", "con?1", "relu1"])
    def test_fallback_as_the_builder_matches_it(self, inspect, pattern: str) -> None:
        layers = [layer("conv1 + relu1", FP16), layer("fc || fc2", FP16)]
        facts = manifest("conv1: another reason", fallback={"fp16": [pattern]})
        assert self.reason(inspect, facts, *layers) == ["asked for by fallback", ""]

    def test_a_name_with_brackets_is_no_pattern_of_itself(self, inspect) -> None:
        name = "(Unnamed Layer* 3) [Convolution]"
        assert self.reason(inspect, manifest(fallback={"fp32": [name]}), layer(name, FP32)) == ["asked for by fallback"]

    def test_what_runs_in_int8_or_only_moves_data_needs_no_reason(self, inspect) -> None:
        layers = [
            layer("conv1", INT8),
            layer("conv1", "Int32"),
            layer("conv1", FP32, kind="Reformat"),
            layer("conv1", FP32, kind="NoOp"),
        ]
        assert self.reason(inspect, manifest("conv1: no INT8 kernel"), *layers) == [""] * 4
