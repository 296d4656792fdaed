"""Recipes and datasets as YAML: what loads, and every fault by its text."""

from __future__ import annotations

import os
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path

import pytest
import yaml

import trtcalib.specs
from trtcalib.errors import SpecError
from trtcalib.specs import (
    METHODS_GROUP,
    DatasetSpec,
    EntropyRecipe,
    InputSpec,
    MinMaxRecipe,
    MseRecipe,
    PercentileRecipe,
    PluginRecipe,
    load_dataset,
    load_recipe,
)

ROOT = Path(__file__).parents[1]
PERCENTILES = ("99.9", "99.99", "99.999", "99.9999")


def write(folder: Path, text: str | bytes, name: str = "spec.yaml") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def faults_of(load, path: Path) -> tuple[str, ...]:
    with pytest.raises(SpecError) as caught:
        load(path)
    assert caught.value.path == path
    assert str(caught.value) == "\n".join(f"{path}: {fault}" for fault in caught.value.faults)
    return caught.value.faults


@pytest.fixture
def plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed package that registers the method ``mean``."""
    points = EntryPoints([EntryPoint("mean", "builtins:float", METHODS_GROUP)])
    monkeypatch.setattr(trtcalib.specs, "entry_points", lambda *, group: points.select(group=group))


class TestRepositoryFiles:
    @pytest.mark.parametrize("path", sorted((ROOT / "calibrators").glob("*.yaml")), ids=lambda path: path.name)
    def test_every_recipe_loads(self, path: Path) -> None:
        assert load_recipe(path) == load_recipe(str(path))

    @pytest.mark.parametrize("path", sorted((ROOT / "data").glob("*.yaml")), ids=lambda path: path.name)
    def test_every_dataset_loads_and_its_files_exist(self, path: Path) -> None:
        spec = load_dataset(path)
        assert (path.parent / spec.source).exists()
        assert spec.labels is None or (path.parent / spec.labels).is_file()

    def test_every_engine_spec_is_a_mapping(self) -> None:
        for path in (ROOT / "engines").glob("*.yaml"):
            assert isinstance(yaml.safe_load(path.read_text(encoding="utf-8")), dict), path

    def test_no_yaml_hides_from_these_tests(self) -> None:
        found = {path.parent.name for pattern in ("*.yaml", "*.yml") for path in ROOT.glob(f"*/{pattern}")}
        assert found <= {"calibrators", "data", "engines", "docker", ".github"}
        assert not list((ROOT / "calibrators").glob("*.yml"))

    @pytest.mark.parametrize("name", ["entropy", "minmax", "mse", *(f"percentile-{p}" for p in PERCENTILES)])
    def test_a_built_in_name_is_the_recipe_of_that_file(self, name: str) -> None:
        assert load_recipe(name) == load_recipe(ROOT / "calibrators" / f"{name}.yaml")

    def test_every_recipe_file_has_a_built_in_name(self) -> None:
        names = {path.stem for path in (ROOT / "calibrators").glob("*.yaml")}
        assert names == {"entropy", "minmax", "mse", *(f"percentile-{p}" for p in PERCENTILES)}


class TestRecipes:
    def test_built_in_names(self) -> None:
        assert load_recipe("entropy") == EntropyRecipe(
            method="entropy", variant="tensorrt", range="doubling", bins=2048
        )
        assert load_recipe("minmax") == MinMaxRecipe(method="minmax")
        assert load_recipe("mse") == MseRecipe(method="mse", range="doubling", bins=2048)
        assert load_recipe("percentile-99.5") == PercentileRecipe(method="percentile", percentile=99.5)
        assert load_recipe("percentile-100") == PercentileRecipe(method="percentile", percentile=100)

    def test_a_recipe_is_returned_as_it_is(self) -> None:
        recipe = MinMaxRecipe(method="minmax", bins=4096)
        assert load_recipe(recipe) is recipe

    def test_all_keys_of_a_file(self, tmp_path: Path) -> None:
        path = write(tmp_path, "method: entropy\nvariant: smoothed\nrange: global\nbins: 4096\n", "mine.yml")
        assert load_recipe(path) == EntropyRecipe(method="entropy", variant="smoothed", range="global", bins=4096)

    @pytest.mark.parametrize(
        ("name", "hint"),
        [
            ("entropi", " (did you mean 'entropy'?)"),
            ("MinMax", " (did you mean 'minmax'?)"),
            ("mae", " (did you mean 'mse'?)"),
            ("kl", ""),
            ("", ""),
        ],
    )
    def test_an_unknown_name_tells_the_known_ones_and_the_nearest(self, name: str, hint: str) -> None:
        with pytest.raises(SpecError) as caught:
            load_recipe(name)
        expected = "expected entropy, minmax, mse, percentile-<p> or the name of a .yaml file"
        assert str(caught.value) == f"{name}: no such calibrator: {expected}{hint}"

    @pytest.mark.parametrize(
        ("name", "found"),
        [("0", "0.0"), ("101", "101.0"), ("-1", "-1.0"), ("nan", "nan"), ("inf", "inf"), ("abc", "'abc'"), ("", "''")],
    )
    def test_a_percentile_outside_its_interval(self, name: str, found: str) -> None:
        with pytest.raises(SpecError) as caught:
            load_recipe(f"percentile-{name}")
        assert str(caught.value) == f"percentile-{name}: percentile: {found} is not in (0, 100]"

    def test_all_faults_at_once_with_the_nearest_key(self, tmp_path: Path) -> None:
        path = write(tmp_path, "method: entropy\nvarient: smoothed\nrange: doubled\nbins: 257\nvariant: ours\n")
        valid = "expected one of bins, method, range, variant"
        assert faults_of(load_recipe, path) == (
            "range: found 'doubled', input should be 'doubling', 'global', 'square' or 'extend'",
            "bins: found 257, input should be a multiple of 2",
            "variant: found 'ours', input should be 'tensorrt', 'pseudocode', 'smoothed' or 'pytorch-quantization'",
            f"varient: unknown key (did you mean 'variant'?); {valid}",
        )

    @pytest.mark.parametrize(
        ("text", "fault"),
        [
            (
                "method: entrpy",
                "method: found 'entrpy', expected one of entropy, minmax, mse, percentile (did you mean 'entropy'?)",
            ),
            ("method: [a]", "method: found ['a'], expected one of entropy, minmax, mse, percentile"),
            ("method:", "method: found None, expected one of entropy, minmax, mse, percentile"),
            ("methd: entropy", "method: this key is missing, expected one of entropy, minmax, mse, percentile"),
            ("{}", "method: this key is missing, expected one of entropy, minmax, mse, percentile"),
            ("method: mse\npercentile: 99", "percentile: unknown key; expected one of bins, method, range"),
            ("method: percentile", "percentile: this key is missing"),
            ("method: percentile\npercentile: 101", "percentile: 101 is not in (0, 100]"),
            ("method: percentile\npercentile: most", "percentile: 'most' is not in (0, 100]"),
            ("method: percentile\npercentile: .nan", "percentile: nan is not in (0, 100]"),
            ("method: minmax\npercentile: 99", "percentile: unknown key; expected one of bins, method, range"),
            ("method: entropy\nbins: 128", "bins: found 128, input should be greater than or equal to 256"),
            ("method: entropy\nbins: 131072", "bins: found 131072, input should be less than or equal to 65536"),
            ("method: entropy\nentropy: 1", "entropy: unknown key; expected one of bins, method, range, variant"),
            ("[entropy]", "found list, expected a mapping with the keys method"),
            ("", "found NoneType, expected a mapping with the keys method"),
            ("entropy", "found str, expected a mapping with the keys method"),
        ],
    )
    def test_faults(self, tmp_path: Path, text: str, fault: str) -> None:
        assert faults_of(load_recipe, write(tmp_path, text)) == (fault,)


class TestPlugins:
    def test_a_registered_method_and_its_options(self, tmp_path: Path, plugin: None) -> None:
        path = write(tmp_path, "method: mean\noptions: {times: 3, soft: true, mode: fast, by: 0.5}\nbins: 512\n")
        recipe = load_recipe(path)
        assert recipe == PluginRecipe(
            method="mean", options={"times": 3, "soft": True, "mode": "fast", "by": 0.5}, bins=512
        )
        assert recipe.options["soft"] is True

    @pytest.mark.parametrize(
        ("text", "fault"),
        [
            (
                "method: meen",
                "method: found 'meen', expected one of entropy, minmax, mse, percentile, mean (did you mean 'mean'?)",
            ),
            ("method: mean\ntimes: 3", "times: unknown key; expected one of bins, method, options, range"),
            ("method: mean\npercentile: 3", "percentile: unknown key; expected one of bins, method, options, range"),
            ("method: mean\noptions: {a: [1]}", "options.a: found [1], expected true, false, a number or a text"),
            ("method: mean\noptions: 3", "options: found 3, expected a mapping"),
        ],
    )
    def test_faults(self, tmp_path: Path, plugin: None, text: str, fault: str) -> None:
        assert faults_of(load_recipe, write(tmp_path, text)) == (fault,)

    def test_a_plugin_cannot_take_the_place_of_a_built_in_method(self, monkeypatch: pytest.MonkeyPatch) -> None:
        points = EntryPoints([EntryPoint("entropy", "builtins:float", METHODS_GROUP)])
        monkeypatch.setattr(trtcalib.specs, "entry_points", lambda *, group: points)
        assert isinstance(load_recipe("entropy"), EntropyRecipe)


class TestDatasets:
    def test_the_smallest(self, tmp_path: Path) -> None:
        assert load_dataset(write(tmp_path, "source: images/\n")) == DatasetSpec(source="images/")

    def test_all_keys(self, tmp_path: Path) -> None:
        text = """
        source: images
        labels: labels.npy
        inputs:
          pixels:
            resize: [224, 192]
            fit: letterbox
            pad: 0
            interpolation: bicubic
            crop: [200, 100]
            colour: bgr
            layout: hwc
            scale: 1/255
            mean: [0.1, 0.2, 0.3]
            std: [1, 2, 3]
            dtype: float16
          other: {resize: 256, scale: 2}
        """
        spec = load_dataset(write(tmp_path, text))
        assert spec.labels == "labels.npy"
        assert spec.inputs["other"] == InputSpec(resize=256, scale=2.0)
        assert spec.inputs["pixels"] == InputSpec(
            resize=(224, 192),
            fit="letterbox",
            pad=0,
            interpolation="bicubic",
            crop=(200, 100),
            colour="bgr",
            layout="hwc",
            scale="1/255",
            mean=(0.1, 0.2, 0.3),
            std=(1, 2, 3),
            dtype="float16",
        )

    def test_all_faults_at_once_one_per_key(self, tmp_path: Path) -> None:
        text = """
        sourc: images
        labels: [1]
        entropy: 1
        inputs:
          x: {resize: big, fit: fill, pad: 300, crop: [1], scale: 1/0, mean: 0.5, std: [0], dtype: float8, sclae: 1}
          y: {resize: [1, 2, 3], scale: -1, mean: [a], colour: red, layout: nchw, interpolation: cubic}
        """
        keys = ", ".join(sorted(InputSpec.model_fields))
        resize = "expected [height, width] or the length of the shorter side, 1 to 16384"
        scale = "expected a positive number or a fraction such as 1/255"
        assert faults_of(load_dataset, write(tmp_path, text)) == (
            "source: this key is missing",
            "labels: found [1], input should be a valid string",
            f"inputs.x.resize: found 'big', {resize}",
            "inputs.x.fit: found 'fill', input should be 'stretch' or 'letterbox'",
            "inputs.x.pad: found 300, input should be less than or equal to 255",
            "inputs.x.crop: found [1], expected [height, width], at least 1",
            f"inputs.x.scale: found '1/0', {scale}",
            "inputs.x.mean: found 0.5, expected a list of numbers, one per channel",
            "inputs.x.std: found [0], expected a list of positive numbers, one per channel",
            "inputs.x.dtype: found 'float8', input should be 'float32', 'float16', 'float64', 'int64', 'int32', 'int8', 'uint8' or 'bool'",
            f"inputs.x.sclae: unknown key (did you mean 'scale'?); expected one of {keys}",
            f"inputs.y.resize: found [1, 2, 3], {resize}",
            "inputs.y.interpolation: found 'cubic', input should be 'bilinear', 'nearest' or 'bicubic'",
            "inputs.y.colour: found 'red', input should be 'rgb', 'bgr' or 'grey'",
            "inputs.y.layout: found 'nchw', input should be 'chw' or 'hwc'",
            f"inputs.y.scale: found -1, {scale}",
            "inputs.y.mean: found ['a'], expected a list of numbers, one per channel",
            "sourc: unknown key (did you mean 'source'?); expected one of inputs, labels, source",
            "entropy: unknown key; expected one of inputs, labels, source",
        )

    @pytest.mark.parametrize(
        "scale",
        ["0", "-1", "0/255", "-1/255", "1/0", ".nan", ".inf", "nan", "1/x", "x", "1/2/3", "1e400", "1e999999999"],
    )
    def test_a_scale_is_positive_and_finite(self, tmp_path: Path, scale: str) -> None:
        (fault,) = faults_of(load_dataset, write(tmp_path, f"source: a\ninputs: {{x: {{scale: {scale}}}}}"))
        assert fault.startswith("inputs.x.scale: found ")
        assert fault.endswith(", expected a positive number or a fraction such as 1/255")

    @pytest.mark.parametrize("scale", ["1/255", "1/127.5", "0.5", "2", "1 / 16"])
    def test_scales(self, tmp_path: Path, scale: str) -> None:
        load_dataset(write(tmp_path, f"source: a\ninputs: {{x: {{scale: {scale}}}}}"))

    @pytest.mark.parametrize(
        ("text", "fault"),
        [
            ("source: 3", "source: found 3, input should be a valid string"),
            ("source: a\ninputs: [x]", "inputs: found ['x'], expected a mapping"),
            (
                "source: a\ninputs: {x: 3}",
                "inputs.x: found 3, expected a mapping",
            ),
            ("source: a\n1: 2", "1: found 1, keys should be strings"),
            ("- source", "found list, expected a mapping with the keys inputs, labels, source"),
        ],
    )
    def test_faults(self, tmp_path: Path, text: str, fault: str) -> None:
        assert faults_of(load_dataset, write(tmp_path, text)) == (fault,)

    def test_what_a_fault_shows_of_a_hostile_value_is_short_and_one_line(self, tmp_path: Path) -> None:
        text = f'source: a\n"k\\n\\e[31m": 1\ninputs: {{x: {{fit: {"a" * 5000}}}}}\n{"b" * 900}: 1\n'
        fit, hostile, long = faults_of(load_dataset, write(tmp_path, text))
        assert fit == f"inputs.x.fit: found '{'a' * 79}..., input should be 'stretch' or 'letterbox'"
        assert hostile.startswith("'k\\n\\x1b[31m': unknown key")
        assert long.startswith(f"{'b' * 80}...: unknown key")


class TestHostileFiles:
    @pytest.mark.parametrize(
        ("content", "fault"),
        [
            ("source: a\nsource: b", "line 2, column 1: not valid YAML: the key 'source' stands twice"),
            (
                "source: a\ninputs:\n  x: {pad: 1, pad: 2}",
                "line 3, column 15: not valid YAML: the key 'pad' stands twice",
            ),
            ("source: &a b\nlabels: *a", "line 2, column 11: not valid YAML: aliases are not allowed here"),
            ("source: a\n<<: *b", "line 2, column 7: not valid YAML: aliases are not allowed here"),
            ("? [1]\n: 2", "line 1, column 3: not valid YAML: found unhashable key"),
            ("source: a\n---\nsource: b", "line 2, column 1: not valid YAML: but found another document"),
            ("\tsource: a", "line 1, column 1: not valid YAML: found character '\\t' that cannot start any token"),
            ("source: {a", "line 1, column 11: not valid YAML: expected ',' or '}', but got '<stream end>'"),
            ("source: 2001-99-99", "not valid YAML: month must be in 1..12"),
            ("[" * 5000, "not valid YAML: nested too deeply"),
            (b"source: \xff", "not a text file in UTF-8"),
            (b"source: \x00", "not valid YAML: unacceptable character #x0000: special characters are not allowed"),
            ("#" * (1 << 20) + "\n", "the file is over 1048576 bytes: a spec is a page of YAML"),
        ],
        ids=lambda value: repr(value[:30]),
    )
    def test_faults(self, tmp_path: Path, content: str | bytes, fault: str) -> None:
        path = write(tmp_path, content)
        assert faults_of(load_dataset, path) == (fault,)
        assert faults_of(load_recipe, path) == (fault,)

    @pytest.mark.parametrize(
        "tag", ["!!python/object/apply:os.mkdir [made]", "!!python/name:os.mkdir", "!!python/module:os", "!mine 3"]
    )
    def test_tags_that_would_run_code_are_refused(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tag: str
    ) -> None:
        monkeypatch.chdir(tmp_path)
        (fault,) = faults_of(load_dataset, write(tmp_path, f"source: {tag}"))
        assert fault.startswith("line 1, column 9: not valid YAML: could not determine a constructor for the tag")
        assert [file.name for file in tmp_path.iterdir()] == ["spec.yaml"]

    def test_a_missing_file(self, tmp_path: Path) -> None:
        assert faults_of(load_dataset, tmp_path / "no.yaml") == ("no such file",)
        assert faults_of(load_recipe, tmp_path / "no.yaml") == ("no such file",)

    def test_a_folder(self, tmp_path: Path) -> None:
        (tmp_path / "x.yaml").mkdir()
        assert faults_of(load_recipe, tmp_path / "x.yaml") == ("is no regular file",)

    @pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
    def test_a_pipe_does_not_block(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "x.yaml")
        assert faults_of(load_recipe, tmp_path / "x.yaml") == ("is no regular file",)

    def test_a_name_that_is_too_long(self, tmp_path: Path) -> None:
        (fault,) = faults_of(load_recipe, tmp_path / f"{'a' * 5000}.yaml")
        assert fault.startswith("cannot be read: ")
