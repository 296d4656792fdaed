"""Engine specs as YAML and from the command line: what loads, and every fault by its text."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trtcalib.engine_spec import (
    BuilderSettings,
    EngineSpec,
    ShapeRange,
    change_spec,
    load_engine_spec,
    parse_fallback,
    parse_shapes,
    parse_size,
)
from trtcalib.errors import SpecError
from trtcalib.onnx_graph import read_model
from trtcalib.samples.sources import open_source
from trtcalib.specs import load_recipe

ROOT = Path(__file__).parents[1]
ENGINES = sorted((ROOT / "engines").glob("*.y*ml"))
KEYS = "batch_size, builder, calibrator, data, max_samples, model, output, shapes, shuffle"
SIZES = "expected a list of sizes of at least 1, such as [8, 3, 224, 224]"
BYTES = "expected a number of bytes, or a size such as 4GiB or 512MiB"
LAYERS = "expected lists of layers under fp16 or fp32, such as {fp16: [conv1]}"


def write(folder: Path, text: str, name: str = "net.yaml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def faults_of(folder: Path, text: str) -> tuple[str, ...]:
    path = write(folder, text)
    with pytest.raises(SpecError) as caught:
        load_engine_spec(path)
    assert caught.value.path == path
    return caught.value.faults


def refusal(job, *arguments: object) -> str:
    with pytest.raises(SpecError) as caught:
        job(*arguments)
    return str(caught.value)


class TestRepositoryFiles:
    def test_there_is_one_per_calibrator(self) -> None:
        assert {"digits-entropy", "digits-minmax", "digits-percentile-99.99"} <= {path.stem for path in ENGINES}

    @pytest.mark.parametrize("path", ENGINES, ids=lambda path: path.name)
    def test_every_one_loads_and_fits_its_model_and_data(self, path: Path) -> None:
        spec = load_engine_spec(path)
        graph = read_model(spec.model)
        assert spec.data is not None
        assert open_source(spec.data, graph.inputs).size() > 0
        load_recipe(spec.calibrator)
        shapes = {i.name: i.shape for i in graph.inputs}
        assert spec.shapes.keys() <= shapes.keys()
        for name, given_shapes in spec.shapes.items():
            for sizes in zip(shapes[name], given_shapes.min, given_shapes.opt, given_shapes.max, strict=True):
                assert sizes[0] is None or set(sizes) == {sizes[0]}

    @pytest.mark.parametrize("path", ENGINES, ids=lambda path: path.name)
    def test_what_it_builds_goes_where_git_ignores_it(self, path: Path) -> None:
        assert Path(load_engine_spec(path).output) == ROOT / "engines" / "out" / f"{path.stem}.engine"


class TestFiles:
    def test_the_smallest(self, tmp_path: Path) -> None:
        assert load_engine_spec(write(tmp_path, "model: m.onnx\n")) == EngineSpec(
            model=str(tmp_path / "m.onnx"), output=str(tmp_path / "out" / "net.engine")
        )

    def test_all_keys(self, tmp_path: Path) -> None:
        text = """
        model: ../models/m.onnx
        data: images.npz
        calibrator: mine.yaml
        batch_size: 8
        max_samples: 500
        shuffle: 3
        shapes:
          x: {min: [1, 3], opt: [8, 3], max: [32, 3]}
          "x:0": {min: [1], opt: [1], max: [1]}
        builder:
          fp16: true
          tf32: false
          workspace: 1.5 GiB
          timing_cache: timing.cache
          fallback: {fp16: [conv1, "block*"], fp32: [head]}
          dla: 1
          strongly_typed: false
        output: /engines/m.engine
        """
        spec = load_engine_spec(write(tmp_path, text))
        assert spec == EngineSpec(
            model=str(tmp_path / "../models/m.onnx"),
            data=str(tmp_path / "images.npz"),
            calibrator=str(tmp_path / "mine.yaml"),
            batch_size=8,
            max_samples=500,
            shuffle=3,
            shapes={
                "x": ShapeRange(min=(1, 3), opt=(8, 3), max=(32, 3)),
                "x:0": ShapeRange(min=(1,), opt=(1,), max=(1,)),
            },
            builder=BuilderSettings(
                fp16=True,
                tf32=False,
                workspace=3 << 29,
                timing_cache=str(tmp_path / "timing.cache"),
                fallback={"fp16": ("conv1", "block*"), "fp32": ("head",)},
                dla=1,
            ),
            output="/engines/m.engine",
        )
        assert set(EngineSpec.model_fields) == {k for k in KEYS.split(", ") if k in text or k == "builder"}
        assert all(f"{key}:" in text for key in BuilderSettings.model_fields)

    @pytest.mark.parametrize("name", ["entropy", "minmax", "percentile-99.9"])
    def test_a_calibrators_name_is_no_path(self, tmp_path: Path, name: str) -> None:
        assert load_engine_spec(write(tmp_path, f"model: m.onnx\ncalibrator: {name}")).calibrator == name

    def test_absolute_paths_stay(self, tmp_path: Path) -> None:
        spec = load_engine_spec(write(tmp_path, "{model: /m.onnx, data: /d.npz, calibrator: /c.yml}"))
        assert (spec.model, spec.data, spec.calibrator) == ("/m.onnx", "/d.npz", "/c.yml")

    def test_paths_from_the_current_folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        write(tmp_path, "{model: m.onnx, data: d.npz}")
        monkeypatch.chdir(tmp_path)
        spec = load_engine_spec("net.yaml")
        assert (spec.model, spec.data, Path(spec.output)) == ("m.onnx", "d.npz", Path("out/net.engine"))

    def test_code_cannot_be_named(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Whoever gives a spec away must not be able to run code; from the command line it is the user's own wish."""
        text = "{model: m.onnx, data: 'package.module:feeds'}"
        fault = "data: 'package.module:feeds' does not exist beside this file; a YAML file cannot name code to run"
        assert faults_of(tmp_path, text) == (fault,)
        monkeypatch.chdir(tmp_path)
        assert refusal(load_engine_spec, "net.yaml") == f"net.yaml: {fault}"
        changed = change_spec(EngineSpec(model="m.onnx"), {"data": "package.module:feeds"}, {})
        assert changed.data == "package.module:feeds"

    def test_a_folder_with_such_a_name_is_data(self, tmp_path: Path) -> None:
        (tmp_path / "images:train").mkdir()
        spec = load_engine_spec(write(tmp_path, "{model: m.onnx, data: 'images:train'}"))
        assert spec.data == str(tmp_path / "images:train")

    def test_all_faults_at_once(self, tmp_path: Path) -> None:
        text = """
        modle: m.onnx
        data: [1]
        batch_size: 0
        max_samples: many
        shuffle: -1
        shapes:
          x: {min: [1, 3], opt: [0, 3], mx: [4, 3]}
          z: {min: [2], opt: [1], max: [4]}
          w: {min: [1], opt: [1, 2], max: [1]}
        builder: {fp16: maybe, workspace: 4XB, timing_cache: 3, fallback: {int8: [a]}, fb: 1}
        output: 4
        """
        assert faults_of(tmp_path, text) == (
            "model: this key is missing",
            "data: found [1], input should be a valid string",
            "batch_size: found 0, input should be greater than or equal to 1",
            "max_samples: found 'many', input should be a valid integer, unable to parse string as an integer",
            "shuffle: found -1, input should be greater than or equal to 0",
            f"shapes.x.opt: found [0, 3], {SIZES}",
            "shapes.x.max: this key is missing",
            "shapes.x.mx: unknown key (did you mean 'max'?); expected one of max, min, opt",
            "shapes.z: axis 0 has min 2, opt 1, max 4, expected min <= opt <= max",
            "shapes.w: min, opt and max have 1, 2 and 1 axes",
            "builder.fp16: found 'maybe', input should be a valid boolean, unable to interpret input",
            f"builder.workspace: found '4XB', {BYTES}",
            "builder.timing_cache: found 3, input should be a valid string",
            f"builder.fallback: found {{'int8': ['a']}}, {LAYERS}",
            "builder.fb: unknown key; expected one of dla, fallback, fp16, strongly_typed, tf32, timing_cache, workspace",
            "output: found 4, input should be a valid string",
            f"modle: unknown key (did you mean 'model'?); expected one of {KEYS}",
        )

    @pytest.mark.parametrize(
        ("text", "fault"),
        [
            ("[]", f"found list, expected a mapping with the keys {KEYS}"),
            ("model: m\nworkspace: 4GiB", f"workspace: unknown key; expected one of {KEYS}"),
            ("model: m\nbuilder: {workspace: 0}", f"builder.workspace: found 0, {BYTES}"),
            ("model: m\nbuilder: {workspace: -5}", f"builder.workspace: found -5, {BYTES}"),
            ("model: m\nbuilder: {workspace: true}", f"builder.workspace: found True, {BYTES}"),
            ("model: m\nbuilder: {workspace: 1.5}", f"builder.workspace: found 1.5, {BYTES}"),
            ("model: m\nbuilder: {workspace: [1]}", f"builder.workspace: found [1], {BYTES}"),
            (f"model: m\nbuilder: {{workspace: {'9' * 400}}}", f"builder.workspace: found {'9' * 80}..., {BYTES}"),
            ("model: m\nbuilder: {dla: -1}", "builder.dla: found -1, expected the number of a DLA core, such as 0"),
            ("model: m\nbuilder: {dla: yes}", "builder.dla: found True, expected the number of a DLA core, such as 0"),
            (
                "model: m\nbuilder: {strongly_typed: maybe}",
                "builder.strongly_typed: found 'maybe', input should be a valid boolean, unable to interpret input",
            ),
            ("model: m\nbuilder: {fallback: [a]}", f"builder.fallback: found ['a'], {LAYERS}"),
            ("model: m\nbuilder: {fallback: {fp16: a}}", f"builder.fallback: found {{'fp16': 'a'}}, {LAYERS}"),
            (
                "model: m\nshapes: {x: {min: [1], opt: [1], max: [2147483648]}}",
                f"shapes.x.max: found [2147483648], {SIZES}",
            ),
            ("model: m\nshapes: {x: {min: 1, opt: [1], max: [1]}}", f"shapes.x.min: found 1, {SIZES}"),
            ("model: m\nshapes: {x: {min: [1], opt: [x], max: [1]}}", f"shapes.x.opt: found ['x'], {SIZES}"),
            ("model: m\nmodel: n", "line 2, column 1: not valid YAML: the key 'model' stands twice"),
        ],
    )
    def test_faults(self, tmp_path: Path, text: str, fault: str) -> None:
        assert faults_of(tmp_path, text) == (fault,)

    def test_missing(self, tmp_path: Path) -> None:
        assert refusal(load_engine_spec, tmp_path / "no.yaml") == f"{tmp_path / 'no.yaml'}: no such file"


class TestStrongTyping:
    """Every type is the model's, so that what decides types elsewhere is a fault; each is told."""

    FAULTS = tuple(
        f"builder.{key}: not with strongly_typed (--qdq), {reason}"
        for key, reason in {
            "fp16": "where every type is the model's: leave fp16 out; trtcalib qdq --fp16 makes float16 of what is not quantized",
            "fallback": "where every type is the model's: leave fallback out; trtcalib qdq --exclude keeps nodes out of INT8",
            "dla": "which is for models with Q/DQ nodes: DLA takes INT8 scales from a calibration only, so leave one of the two out",
        }.items()
    )
    OTHERS = "dla: 0, fallback: {fp32: [head]}, fp16: true"

    def test_it_is_off_unless_asked_for(self, tmp_path: Path) -> None:
        assert not load_engine_spec(write(tmp_path, "model: m")).builder.strongly_typed
        assert load_engine_spec(write(tmp_path, "model: m\nbuilder: {strongly_typed: true}")).builder.strongly_typed

    @pytest.mark.parametrize("text", ["strongly_typed: true, {}", "{}, strongly_typed: true"])
    def test_every_fault_at_once_in_whatever_order_the_keys_stand(self, tmp_path: Path, text: str) -> None:
        assert faults_of(tmp_path, f"model: m\nbuilder: {{{text.format(self.OTHERS)}}}") == self.FAULTS

    def test_on_the_command_line(self) -> None:
        spec = EngineSpec(model="m", builder=BuilderSettings(fp16=True))
        assert refusal(change_spec, spec, {}, {"strongly_typed": True}) == f"engine spec: {self.FAULTS[0]}"
        assert change_spec(spec, {}, {"strongly_typed": True, "fp16": False}).builder.strongly_typed

    def test_what_decides_no_type_may_stand_beside_it(self, tmp_path: Path) -> None:
        text = "strongly_typed: true, fp16: false, fallback: {}, dla: null, tf32: false, workspace: 1, timing_cache: t"
        builder = load_engine_spec(write(tmp_path, f"model: m\nbuilder: {{{text}}}")).builder
        assert (builder.strongly_typed, builder.tf32, builder.workspace) == (True, False, 1)

    def test_off_it_forbids_nothing(self, tmp_path: Path) -> None:
        text = f"model: m\nbuilder: {{strongly_typed: false, {self.OTHERS}}}"
        assert load_engine_spec(write(tmp_path, text)).builder.dla == 0


class TestWhatWasGiven:
    """A calibrator that somebody chose can be told from the one that nobody chose."""

    @pytest.mark.parametrize(
        ("text", "given"), [("", False), ("calibrator: entropy", True), ("calibrator: x.yaml", True)]
    )
    def test_in_a_file_and_after_changes(self, tmp_path: Path, text: str, given: bool) -> None:
        spec = load_engine_spec(write(tmp_path, f"model: m.onnx\n{text}"))
        assert ("calibrator" in spec.model_fields_set) is given
        assert ("calibrator" in change_spec(spec, {"batch_size": 2}, {"fp16": True}).model_fields_set) is given

    def test_on_the_command_line(self) -> None:
        spec = EngineSpec(model="m.onnx")
        assert "calibrator" in change_spec(spec, {"calibrator": "entropy"}, {}).model_fields_set
        assert "calibrator" not in change_spec(spec, {"calibrator": None}, {}).model_fields_set


class TestChanges:
    SPEC = EngineSpec(
        model="m.onnx",
        data="d.npz",
        batch_size=8,
        shapes={"x": ShapeRange(min=(1,), opt=(2,), max=(3,))},
        builder=BuilderSettings(fp16=True, tf32=False, workspace="1GiB", fallback={"fp32": ("head",)}),
        output="m.engine",
    )

    def test_nothing_given_nothing_changed(self) -> None:
        assert change_spec(self.SPEC, dict.fromkeys(EngineSpec.model_fields), {}) == self.SPEC
        assert change_spec(self.SPEC, {}, dict.fromkeys(BuilderSettings.model_fields)) == self.SPEC

    def test_what_is_given_replaces_and_the_rest_stays(self) -> None:
        changed = change_spec(
            self.SPEC, {"data": "e.npz", "batch_size": None, "shapes": parse_shapes(["y:4"])}, {"fp16": False}
        )
        assert changed == self.SPEC.model_copy(
            update={
                "data": "e.npz",
                "shapes": {"y": ShapeRange(min=(4,), opt=(4,), max=(4,))},
                "builder": self.SPEC.builder.model_copy(update={"fp16": False}),
            }
        )

    @pytest.mark.parametrize(
        ("changes", "builder", "fault"),
        [
            ({}, {"workspace": "4GiBB"}, f"builder.workspace: found '4GiBB', {BYTES}"),
            (
                {"shapes": parse_shapes(["x:2,1,3"])},
                {},
                "shapes.x: axis 0 has min 2, opt 1, max 3, expected min <= opt <= max",
            ),
            ({"shapes": parse_shapes(["x:1,2,9999999999"])}, {}, f"shapes.x.max: found (9999999999,), {SIZES}"),
        ],
    )
    def test_faults(self, changes, builder, fault: str) -> None:
        assert refusal(change_spec, self.SPEC, changes, builder) == f"engine spec: {fault}"


class TestSizes:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("4GiB", 4 << 30),
            ("512MiB", 512 << 20),
            ("512 MB", 512_000_000),
            ("1.5KiB", 1536),
            (" 7 ", 7),
            ("7b", 7),
            ("1kb", 1000),
            ("2gb", 2 * 10**9),
            (4096, 4096),
            ("1048576GiB", 1 << 50),
        ],
    )
    def test_literals(self, text: str | int, expected: int) -> None:
        assert parse_size(text) == expected

    @given(st.integers(1, 2**50))
    def test_a_number_of_bytes_is_itself(self, size: int) -> None:
        assert parse_size(size) == parse_size(str(size)) == parse_size(f"{size}B") == size

    @pytest.mark.parametrize("text", ["", "GiB", "-1", "4 G", "4TiB", "1e9", "4,5GiB", "0x10", "nan", "٤", "4GiB 4GiB"])
    def test_no_sizes(self, text: str) -> None:
        with pytest.raises(ValueError, match="is no size such as 4GiB, 512MiB or a number of bytes$"):
            parse_size(text)

    @pytest.mark.parametrize("text", ["0", "0.5", "0GiB", "1048577GiB", "9" * 400, str(2**50 + 1)])
    def test_sizes_that_nobody_has(self, text: str) -> None:
        with pytest.raises(ValueError, match="is not between 1 byte and 1024 TiB$"):
            parse_size(text)


class TestShapes:
    def test_min_opt_max_or_one_for_all(self) -> None:
        assert parse_shapes(["x:1x3,8x3, 32x3", "scores:5"]) == {
            "x": {"min": (1, 3), "opt": (8, 3), "max": (32, 3)},
            "scores": {"min": (5,), "opt": (5,), "max": (5,)},
        }

    @given(
        name=st.text(min_size=1, max_size=8),
        shapes=st.lists(st.lists(st.integers(0, 10**9), min_size=1, max_size=4), min_size=3, max_size=3),
    )
    def test_any_name_comes_back_with_its_shapes(self, name: str, shapes: list[list[int]]) -> None:
        """Also one that holds ``:`` itself, as TensorFlow's do."""
        text = f"{name}:{','.join('x'.join(map(str, shape)) for shape in shapes)}"
        low, best, high = map(tuple, shapes)
        assert parse_shapes([text]) == {name: {"min": low, "opt": best, "max": high}}

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "x",
            "x:",
            ":1x3",
            "x:1x3,2x3",
            "x:1,2,3,4",
            "x:1x,2,3",
            "x:1xx3",
            "x:-1x3",
            "x:1.5",
            "x:a",
            "x:1x3,",
            "x:" + "9" * 5000,
        ],
    )
    def test_faults(self, text: str) -> None:
        expected = (
            f"--shapes: found {text!r}, expected INPUT:MIN,OPT,MAX such as x:1x3x224x224,8x3x224x224,32x3x224x224"
        )
        assert refusal(parse_shapes, [text]) == expected

    def test_an_input_twice(self) -> None:
        assert refusal(parse_shapes, ["x:1", "x:2"]) == "--shapes: input 'x' stands twice"


class TestFallback:
    def test_layers_by_precision(self) -> None:
        assert parse_fallback(["fp16:conv1, block*", "fp32:head", "fp16:/m/Conv:0,"]) == {
            "fp16": ("conv1", "block*", "/m/Conv:0"),
            "fp32": ("head",),
        }

    @pytest.mark.parametrize("text", ["", "fp16", "fp16:", "fp16: ,", "int8:conv1", "conv1", "FP16:conv1"])
    def test_faults(self, text: str) -> None:
        expected = f"--fallback: found {text!r}, expected fp16:LAYER,LAYER or fp32:LAYER,LAYER"
        assert refusal(parse_fallback, [text]) == expected
