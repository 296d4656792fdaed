"""A study's caches and manifests are those of a calibration run at that batch size and order, byte for byte."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.batch_study.helpers import IDENTITY, ZOO, check_equals_calibrate, contents, tensor
from tests.models import IMAGE, save_model
from trtcalib.batch_study.study import study
from trtcalib.histogram_file import load_histograms
from trtcalib.specs import EntropyRecipe, MinMaxRecipe, PercentileRecipe

FLT_MAX = float(np.finfo(np.float32).max)
SMALLEST = 2.0**-149

RECIPES = [
    "entropy",
    "minmax",
    "percentile-99",
    EntropyRecipe(method="entropy", bins=1000),
    EntropyRecipe(method="entropy", variant="pytorch-quantization", bins=256),
    PercentileRecipe(method="percentile", percentile=60, bins=258),
    MinMaxRecipe(method="minmax", bins=256),
]

# One value times powers of two meets the range again and again; zeros come first; some ranges pass float32.
tied = st.sampled_from([0.0, -0.0, 0.75, -0.75, 1.5, -1.5, 3.0, 6.0, -12.0, 24.0])
extreme = st.sampled_from([SMALLEST, -3 * SMALLEST, 2.0**-126, 1e-12, 3e8, -3.3e8, 2.0**127, FLT_MAX, -FLT_MAX])
endless = st.sampled_from([0.0, 1.0, 1.4e38, -(2.0**126), 3.3e38, FLT_MAX])  # ranges that double past float32
plain = st.floats(-20, 20, width=32)


@st.composite
def data(draw: st.DrawFn) -> np.ndarray:
    value = draw(st.sampled_from([tied, tied | plain, tied | extreme, endless, plain, st.just(0.0), st.just(-2.5)]))
    samples = draw(st.lists(st.lists(value, min_size=6, max_size=6), min_size=1, max_size=10))
    samples[-1][0] = draw(value | extreme | endless)
    zeros = draw(st.integers(0, 2))
    return np.array([[0.0] * 6] * zeros + samples, np.float32)


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("zoo") / "model.onnx", ZOO)


@settings(max_examples=70)
@given(
    x=data(),
    sizes=st.lists(st.integers(1, 12) | st.just("all"), min_size=1, max_size=3),
    orders=st.integers(0, 2),
    seed=st.integers(0, 2**40),
    recipe=st.sampled_from(RECIPES),
    workers=st.integers(1, 3),
)
def test_every_cache_and_manifest_is_calibrates(
    zoo: Path, tmp_path_factory: pytest.TempPathFactory, *, x, sizes, orders, seed, recipe, workers
) -> None:
    folder = tmp_path_factory.mktemp("out")
    result = study(
        zoo,
        x,
        folder,
        batch_sizes=sizes,
        orders=orders,
        seed=seed,
        calibrator=recipe,
        workers=workers,
        tensorrt_version="8.6.1",
    )
    check_equals_calibrate(result, folder, zoo, x, calibrator=recipe)
    shutil.rmtree(folder)


def test_many_orders_of_many_samples_too(zoo: Path, tmp_path: Path) -> None:
    """Heavy tails, so that ranges double in most orders: 6 sizes in 5 orders, over more samples than rest at a time."""
    x = np.random.default_rng(5).standard_cauchy((150, 6)).astype(np.float32)
    x[:, 0] = np.round(x[:, 0])
    result = study(zoo, x, tmp_path, batch_sizes=[1, 2, 7, 50, 149, "all"], orders=4, seed=3, workers=2)
    assert len(result.configurations) == 5 * 5 + 1
    check_equals_calibrate(result, tmp_path, zoo, x)


@pytest.mark.parametrize("top", [4, 3])
def test_orders_that_differ_in_what_was_clamped_alone_are_told_apart(tmp_path: Path, top: float) -> None:
    """1, 2, 4 and 1, 4, 2 both double from 1 to 4, but 2 was the range in the first alone, which moves it down by a bin.

    1, 3, 2 and 2, 3, 1 both end at 4 and clamped a sample's values before they doubled: those of 1, or those of 2.
    """
    model = save_model(tmp_path / "identity.onnx", IDENTITY)
    x = np.array([[1, 1, 1, 1], [2, 2, 2, 2], [top, 0.1, 0.1, 0.1]], np.float32)
    result = study(model, x, tmp_path / "out", batch_sizes=[1], orders=12, calibrator="percentile-80", workers=1)
    assert len({outcome.amax for outcome in tensor(result, "x").outcomes if outcome.range == 4}) >= 2
    check_equals_calibrate(result, tmp_path / "out", model, x, calibrator="percentile-80")


def test_the_saved_histograms_are_calibrates(zoo: Path, tmp_path: Path) -> None:
    from trtcalib import calibrate

    x = np.random.default_rng(6).standard_cauchy((40, 6)).astype(np.float32)
    result = study(zoo, x, tmp_path, batch_sizes=[1, 5], orders=1)
    assert len(result.histograms) == 2
    assert result.reference == "all"
    for name, file in result.histograms.items():
        configuration = next(c for c in result.configurations if c.name == name)
        wanted = calibrate(zoo, x, batch_size=configuration.batch_size, shuffle=configuration.shuffle)
        found = load_histograms(tmp_path / file)
        assert found.histograms == wanted.histograms
        assert found.infinite == wanted.infinite
        assert found.findings == wanted.findings
    assert max(result.configurations, key=lambda c: c.moved).name in result.histograms


def test_max_samples_and_shuffle_take_the_same_samples(zoo: Path, tmp_path: Path) -> None:
    x = np.random.default_rng(7).standard_cauchy((30, 6)).astype(np.float32)
    result = study(zoo, x, tmp_path, batch_sizes=[4], orders=2, max_samples=13)
    assert [c.batches for c in result.configurations] == [1, 4, 4, 4]
    check_equals_calibrate(result, tmp_path, zoo, x, max_samples=13)


FIXED = """
fixed (float[4, 6] x) => (float[4, 6] y)
<float[6] k = {0.5, -1, 2, 0.25, 1.5, -0.5}>
{
    scaled = Mul(x, k)
    y = Relu(scaled)
}
"""


@pytest.mark.parametrize("whole", [False, True], ids=["rows", "whole feeds"])
def test_a_model_with_a_fixed_batch_too(tmp_path: Path, whole: bool) -> None:
    """22 rows are five runs of four; two rows are left out."""
    model = save_model(tmp_path / "fixed.onnx", FIXED)
    x = np.random.default_rng(8).standard_cauchy((22, 6)).astype(np.float32)
    if whole:
        x = x[:20].reshape(5, 4, 6)
    result = study(model, x, tmp_path / "out", batch_sizes=[4, 8, "all"])
    assert [(c.name, c.batches, c.last_batch_samples) for c in result.configurations] == [
        ("all", 1, 20),
        ("b4", 5, 4),
        ("b8", 3, 4),
    ]
    assert result.cost.inferences == 10
    check_equals_calibrate(result, tmp_path / "out", model, x)


def test_a_function_without_a_size_too_and_its_orders_are_those_of_the_same_array(zoo: Path, tmp_path: Path) -> None:
    x = np.random.default_rng(9).standard_cauchy((11, 6)).astype(np.float32)

    def feeds():
        yield from ({"x": part} for part in np.split(x, [2, 3, 7]))

    result = study(zoo, feeds, tmp_path / "function", batch_sizes=[1, 4], orders=2)
    straight = [c for c in result.configurations if c.shuffle is None]
    check_equals_calibrate(
        result.model_copy(
            update={
                "configurations": straight,
                "tensors": [
                    t.model_copy(
                        update={
                            "outcomes": [
                                o for o, c in zip(t.outcomes, result.configurations, strict=False) if c.shuffle is None
                            ]
                        }
                    )
                    for t in result.tensors
                ],
            }
        ),
        tmp_path / "function",
        zoo,
        feeds,
    )
    array = study(zoo, x, tmp_path / "array", batch_sizes=[1, 4], orders=2)
    assert array.configurations == result.configurations
    assert array.tensors == result.tensors


def test_a_folder_of_images_with_one_that_cannot_be_decoded_too(tmp_path: Path) -> None:
    model = save_model(tmp_path / "image.onnx", IMAGE)
    (tmp_path / "images").mkdir()
    rng = np.random.default_rng(13)
    for n in range(9):
        pixels = rng.integers(0, rng.integers(2, 256), (8, 8, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / f"{n}.png")
    (tmp_path / "images" / "4.png").write_bytes(b"no image")
    dataset = tmp_path / "dataset.yaml"
    dataset.write_text("source: images\ninputs: {pixels: {dtype: float32}}\n")
    options = {"skip_bad_images": True}
    result = study(model, str(dataset), tmp_path / "out", batch_sizes=[1, 3], orders=1, **options)
    assert result.data.samples == 8
    assert [finding.code for finding in result.findings] == ["skipped-images"]
    assert tensor(result, "pixels").maximum_sample in {f"{n}.png" for n in range(9) if n != 4}
    check_equals_calibrate(result, tmp_path / "out", model, str(dataset), **options)


def test_constants_are_the_same_in_every_configuration(zoo: Path, tmp_path: Path) -> None:
    result = study(zoo, np.ones((3, 6), np.float32), tmp_path, batch_sizes=[1])
    constants = {t.name: t for t in result.tensors if t.kind in ("constant", "folded")}
    assert {"k", "five", "nought", "big", "endless", "twice"} <= constants.keys()
    for constant in constants.values():
        assert (constant.outcomes, constant.instability, constant.maximum_sample, constant.next_maximum) == (
            [],
            None,
            None,
            None,
        )
    assert (constants["endless"].scale, constants["endless"].scale_hex) == (None, "7f800000")
    assert constants["twice"].maximum == 4


@pytest.mark.parametrize("workers", [1, 3])
def test_any_number_of_workers_gives_the_same_bytes_twice(zoo: Path, tmp_path: Path, workers: int) -> None:
    x = np.random.default_rng(10).standard_cauchy((70, 6)).astype(np.float32)
    for name, count in (("first", 2), ("second", workers)):
        study(zoo, x, tmp_path / name, batch_sizes=[1, 8], orders=1, workers=count)
    first, second = contents(tmp_path / "first"), contents(tmp_path / "second")
    assert first == second
    assert {"study.json", "all.cache", "all.cache.json", "b8-s0.cache", "all.npz", "maxima.npz"} <= first.keys()
    assert not any(name.startswith((".", "counts")) for name in first)


def test_further_configurations_change_no_other(zoo: Path, tmp_path: Path) -> None:
    x = np.random.default_rng(11).standard_cauchy((30, 6)).astype(np.float32)
    few = study(zoo, x, tmp_path / "few", batch_sizes=[4])
    many = study(zoo, x, tmp_path / "many", batch_sizes=[1, 2, 4, 9], orders=3)
    positions = [[c.name for c in many.configurations].index(c.name) for c in few.configurations]
    assert [many.configurations[p] for p in positions] == few.configurations
    for one, other in zip(few.tensors, many.tensors, strict=True):
        assert [other.outcomes[p] for p in positions if other.outcomes] == one.outcomes
    for configuration in few.configurations:
        for suffix in ("", ".json"):
            file = f"{configuration.cache}{suffix}"
            assert (tmp_path / "few" / file).read_bytes() == (tmp_path / "many" / file).read_bytes()


def test_permuting_samples_inside_a_batch_changes_no_scale(zoo: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(12)
    x = rng.standard_cauchy((24, 6)).astype(np.float32)
    other = np.concatenate([rng.permutation(part) for part in np.split(x, 6)])
    for name, values in (("one", x), ("other", other)):
        study(zoo, values, tmp_path / name, batch_sizes=[4])
    for cache in ("all.cache", "b4.cache"):
        assert (tmp_path / "one" / cache).read_bytes() == (tmp_path / "other" / cache).read_bytes()
