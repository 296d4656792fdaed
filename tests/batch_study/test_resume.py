"""An interrupted study goes on from what it saved, and never from anything else."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.batch_study.helpers import ZOO, check_equals_calibrate, contents
from tests.models import save_model
from trtcalib.batch_study import counting, state
from trtcalib.batch_study.result import Study
from trtcalib.batch_study.study import study
from trtcalib.core.growth import SampleMaxima
from trtcalib.core.many_ranges import Intervals

SAMPLES = 140
RECIPE = "percentile-99"  # depends on every count, and is quick
OPTIONS = {"batch_sizes": [1, 50], "orders": 1, "calibrator": RECIPE}


class Counter:
    """Counts inferences, both passes together, and interrupts at one of them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.runs = 0
        self.interrupt_at: int | None = None
        for kind in (counting.MaximaTally, counting.RangeTally):
            monkeypatch.setattr(kind, "add", self.counted(kind.add))

    def counted(self, add: Callable[..., object]) -> Callable[..., object]:
        def add_one(*arguments: object) -> object:
            self.runs += 1
            if self.runs == self.interrupt_at:
                raise KeyboardInterrupt
            return add(*arguments)

        return add_one

    def take(self) -> int:
        """Return the inferences since the last call."""
        runs, self.runs, self.interrupt_at = self.runs, 0, None
        return runs


@pytest.fixture
def counter(monkeypatch: pytest.MonkeyPatch) -> Counter:
    return Counter(monkeypatch)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("zoo") / "model.onnx", ZOO)


@pytest.fixture(scope="module")
def data(model: Path) -> Path:
    path = model.with_name("data.npy")
    np.save(path, np.random.default_rng(4).standard_cauchy((SAMPLES, 6)).astype(np.float32))
    return path


@pytest.fixture(scope="module")
def whole(model: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What an uninterrupted study leaves."""
    folder = tmp_path_factory.mktemp("parent") / "out"
    # Manifests state paths relative to themselves, so that all folders must lie as deep.
    run(model, data, folder)
    return contents(folder)


def run(model: Path, data: object, folder: Path, **options: object) -> Study:
    return study(model, data, folder, **{"workers": 1, **OPTIONS, **options})


@pytest.fixture
def out(whole: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("parent") / "out"


@pytest.fixture
def finished(whole: dict[str, bytes], out: Path) -> Path:
    """The folder of a study that was not interrupted."""
    return filled(out, whole)


@pytest.fixture(scope="module")
def in_the_second_pass(
    whole: dict[str, bytes], model: Path, data: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, bytes]:
    """What is left after an interruption there."""
    folder = tmp_path_factory.mktemp("parent") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(counting, "SAVE_EVERY", 0)
        Counter(patch).interrupt_at = SAMPLES + 100
        with pytest.raises(KeyboardInterrupt):
            run(model, data, folder)
    return contents(folder)


@pytest.fixture
def halfway(in_the_second_pass: dict[str, bytes], out: Path) -> Path:
    """The folder of a study that was interrupted in the second pass."""
    return filled(out, in_the_second_pass)


def filled(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture
def interrupted(model: Path, data: Path, out: Path, counter: Counter) -> Callable[..., int]:
    """Interrupt a study at an inference; returns how many were run."""

    def go(at: int, **options: object) -> int:
        counter.interrupt_at = at
        with pytest.raises(KeyboardInterrupt):
            run(model, data, out, **options)
        return counter.take()

    return go


class TestInterrupted:
    def test_in_the_first_pass(self, model, data, out, whole, counter, interrupted) -> None:
        interrupted(50)
        assert [file.name for file in out.iterdir()] == ["maxima.npz"]
        run(model, data, out)
        # What was under way when it was interrupted is run again.
        assert 2 * SAMPLES - 49 <= counter.take() <= 2 * SAMPLES - 44
        assert contents(out) == whole

    def test_at_the_very_first_sample_nothing_is_left(self, out, interrupted) -> None:
        interrupted(1)
        assert not out.exists()

    def test_several_times_in_the_first_pass(self, model, data, out, whole, counter, interrupted) -> None:
        for _ in range(3):
            interrupted(40)
        run(model, data, out)
        assert counter.take() <= 2 * SAMPLES - 3 * 34
        assert contents(out) == whole

    def test_in_the_last_inference_of_the_first_pass(self, model, data, out, whole, counter, interrupted) -> None:
        interrupted(SAMPLES)
        run(model, data, out)
        assert counter.take() <= SAMPLES + 4
        assert contents(out) == whole

    def test_between_the_passes(self, model, data, out, whole, counter, interrupted) -> None:
        interrupted(SAMPLES + 1)
        run(model, data, out)
        assert counter.take() == SAMPLES
        assert contents(out) == whole

    @pytest.mark.parametrize("workers", [1, 3])
    def test_in_the_middle_of_the_second_pass(
        self, *, model, data, out, whole, counter, interrupted, monkeypatch, workers
    ) -> None:
        """Counts are saved after every 64 samples: 64 of these 100 are not run again."""
        monkeypatch.setattr(counting, "SAVE_EVERY", 0)
        interrupted(SAMPLES + 100, workers=workers)
        assert sorted(file.name for file in out.iterdir()) == ["counts.npz", "maxima.npz"]
        run(model, data, out, workers=workers)
        assert counter.take() == SAMPLES - 64
        assert contents(out) == whole

    def test_after_the_second_pass(self, model, data, out, whole, counter, monkeypatch) -> None:
        from trtcalib.batch_study.telling import Telling

        monkeypatch.setattr(counting, "SAVE_EVERY", 0)
        with monkeypatch.context() as patch:
            patch.setattr(Telling, "study", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                run(model, data, out)
        assert counter.take() == 2 * SAMPLES
        (out.parent / "kept.npz").write_bytes((out / "counts.npz").read_bytes())
        run(model, data, out)
        assert counter.take() == 0
        assert contents(out) == whole
        # More samples than there are: not gone on from.
        (out / "counts.npz").write_bytes((out.parent / "kept.npz").read_bytes())
        rewritten(out / "counts.npz", rows=lambda a: a + 1)
        run(model, data, out)
        assert counter.take() == SAMPLES
        assert contents(out) == whole

    def test_counts_of_other_ranges_are_not_gone_on_from(
        self, model, data, out, counter, interrupted, monkeypatch
    ) -> None:
        monkeypatch.setattr(counting, "SAVE_EVERY", 0)
        interrupted(SAMPLES + 100)
        result = run(model, data, out, batch_sizes=[3], orders=4)
        assert counter.take() == SAMPLES
        check_equals_calibrate(result, out, model, data, calibrator=RECIPE)

    def test_while_it_saves_what_was_saved_before_stands(
        self, *, model, data, out, whole, counter, interrupted, monkeypatch
    ) -> None:
        interrupted(50)
        before = (out / "maxima.npz").read_bytes()

        def torn(file, **arrays: object) -> None:
            file.write(b"PK")
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(np, "savez", torn)
            with pytest.raises(KeyboardInterrupt):
                run(model, data, out)
        assert contents(out) == {"maxima.npz": before}
        run(model, data, out)
        assert contents(out) == whole


class TestExtended:
    def test_further_orders_and_sizes_take_the_maxima_that_are_there(self, model, data, finished, counter) -> None:
        result = run(model, data, finished, batch_sizes=[1, 5], orders=3)
        assert counter.take() == SAMPLES
        check_equals_calibrate(result, finished, model, data, calibrator=RECIPE)
        assert result.cost.inferences == 2 * SAMPLES

    def test_another_recipe_too_where_the_bins_are_the_same(self, model, data, finished, counter) -> None:
        result = run(model, data, finished, calibrator="minmax")
        assert counter.take() == SAMPLES
        check_equals_calibrate(result, finished, model, data, calibrator="minmax")

    def test_the_same_again_gives_the_same_bytes(self, model, data, finished, whole) -> None:
        run(model, data, finished)
        assert contents(finished) == whole


class TestOfSomethingElse:
    """What was saved for other data, another model or other options is not used."""

    def check(self, out: Path, model: Path, data: object, counter: Counter, runs: int, **options: object) -> None:
        counter.take()
        result = run(model, data, out, **options)
        assert counter.take() == runs
        check_equals_calibrate(result, out, model, data, calibrator=RECIPE, **options)

    @pytest.mark.parametrize("sizes", [(None, 60), (60, None), (60, 90), (90, 60)])
    def test_another_number_of_samples(self, model, data, out, counter, sizes) -> None:
        before, after = sizes
        run(model, data, out, max_samples=before)
        self.check(out, model, data, counter, 2 * (after or SAMPLES), max_samples=after)

    def test_other_data_under_the_same_name(self, model, tmp_path, out, counter) -> None:
        path = tmp_path / "data.npy"
        x = np.random.default_rng(1).standard_cauchy((30, 6)).astype(np.float32)
        np.save(path, x)
        run(model, path, out)
        x[4] = [0.1, 0.2, 0.3, 0.1, 0.2, 0.3]
        np.save(path, x)
        self.check(out, model, path, counter, 60)

    def test_another_model_under_the_same_name(self, tmp_path, out, counter) -> None:
        x = np.random.default_rng(1).standard_cauchy((30, 6)).astype(np.float32)
        path = save_model(tmp_path / "m.onnx", ZOO)
        run(path, x, out)
        save_model(path, ZOO.replace("float five = {5}", "float five = {4}"))
        self.check(out, path, x, counter, 60)

    def test_a_functions_data_cannot_be_told_so_nothing_is_saved(self, model, out, counter) -> None:
        """The maxima stay and one value that equals its sample's maximum goes: only all the values would tell."""
        x = np.tile(np.array([[2, 2, 1, 1, 1, 1]], np.float32), (30, 1))
        x[20:] *= 3

        def feeds():
            yield from ({"x": row[None]} for row in x)

        counter.interrupt_at = 15
        with pytest.raises(KeyboardInterrupt):
            run(model, feeds, out, orders=0)
        assert not out.exists()
        x[:10, 1] = 0.5
        counter.take()
        result = run(model, feeds, out, batch_sizes=[1], orders=0)
        assert counter.take() == 60
        check_equals_calibrate(result, out, model, feeds, calibrator=RECIPE)
        assert not (out / "maxima.npz").exists()

    def test_a_function_after_an_array_does_not_take_the_arrays(self, model, out, counter) -> None:
        x = np.random.default_rng(1).standard_cauchy((30, 6)).astype(np.float32)
        run(model, x, out)
        counter.take()
        run(model, lambda: [{"x": x[:7]}], out, orders=0)
        assert counter.take() == 14


def rewritten(path: Path, **changes: Callable[[np.ndarray], np.ndarray] | None) -> None:
    """Write a saved state anew with some arrays changed, or left out."""
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    for name, change in changes.items():
        if change is None:
            del arrays[name]
        else:
            arrays[name] = change(arrays[name])
    np.savez(path, **arrays)


HOSTILE_MAXIMA: dict[str, Callable[[Path], object]] = {
    "nothing": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("not a zip"),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-300]),
    "a byte changed": lambda path: path.write_bytes(path.read_bytes()[:900] + b"\xff" + path.read_bytes()[901:]),
    "no stamp": lambda path: rewritten(path, about=None),
    "another stamp": lambda path: rewritten(path, about=lambda a: a[::-1].copy()),
    "an array missing": lambda path: rewritten(path, times=None),
    "fewer samples": lambda path: rewritten(path, maxima=lambda a: a[:-1]),
    "fewer times": lambda path: rewritten(path, times=lambda a: a[:-1]),
    "another rank": lambda path: rewritten(path, maxima=lambda a: a[None]),
    "another type": lambda path: rewritten(path, maxima=lambda a: a.astype(np.float64)),
    "fractions": lambda path: rewritten(path, times=lambda a: a.astype(np.float32)),
    "NaN": lambda path: rewritten(path, maxima=lambda a: np.where(a > 1, np.nan, a).astype(np.float32)),
    "infinity": lambda path: rewritten(path, maxima=lambda a: a + np.float32(np.inf)),
    "negative maxima": lambda path: rewritten(path, maxima=lambda a: -a),
    "negative times": lambda path: rewritten(path, times=lambda a: -a),
    "sizes of another shape": lambda path: rewritten(path, sizes=lambda a: a[:1]),
    "sizes of another type": lambda path: rewritten(path, sizes=lambda a: a.astype(np.float64)),
    "infinite of another shape": lambda path: rewritten(path, infinite=lambda a: a[:, None]),
    "labels that are no JSON": lambda path: rewritten(path, labels=lambda _: np.frombuffer(b"[", np.uint8)),
    "labels that nest deep": lambda path: rewritten(path, labels=lambda _: np.frombuffer(b"[" * 10**6, np.uint8)),
    "labels that are numbers": lambda path: rewritten(path, labels=lambda a: np.frombuffer(a.tobytes().replace(b'"', b""), np.uint8)),
    "labels that are a number": lambda path: rewritten(path, labels=lambda _: np.frombuffer(b"200", np.uint8)),
    "facts of another length": lambda path: rewritten(path, facts=lambda a: a[:2]),
    "no samples": lambda path: rewritten(path, maxima=lambda a: a[:0], times=lambda a: a[:0], labels=lambda _: np.frombuffer(b"[]", np.uint8)),
    "pickled": lambda path: np.savez(path, about=np.array([Bomb()], object)),
    "a pickle": lambda path: path.write_bytes(pickle.dumps(Bomb())),
}  # fmt: skip


class Bomb:
    """Writes a file when it is unpickled."""

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.write_text, (Path("exploded"), "x"))


@pytest.fixture
def in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


class TestDamaged:
    @pytest.mark.parametrize("damage", HOSTILE_MAXIMA)
    def test_maxima_are_found_anew(
        self, *, model, data, finished, whole, counter, in_empty_folder, damage: str
    ) -> None:
        HOSTILE_MAXIMA[damage](finished / "maxima.npz")
        run(model, data, finished)
        assert counter.take() == 2 * SAMPLES
        assert contents(finished) == whole
        assert contents(in_empty_folder) == {}

    def test_maxima_too_large_to_be_read_are_found_anew(
        self, model, data, finished, whole, counter, monkeypatch
    ) -> None:
        import trtcalib.histogram_file

        monkeypatch.setattr(trtcalib.histogram_file, "_LARGEST", 100)
        run(model, data, finished)
        assert counter.take() == 2 * SAMPLES
        assert contents(finished) == whole

    @pytest.mark.parametrize(
        "damage",
        [
            {"about": None},
            {"rows": None},
            {"counts": None},
            {"alone": None},
            {"rows": lambda a: a * 0},
            {"rows": lambda a: a * 0 + SAMPLES + 1},
            {"rows": lambda a: -a},
            {"rows": lambda a: a * 0, "alone": lambda a: a[:0]},
            {"rows": lambda a: -a, "alone": lambda a: a[:0]},
            {"rows": lambda a: a[:0]},
            {"rows": lambda a: np.array([np.inf])},
            {"counts": lambda a: a[:-1]},
            {"counts": lambda a: np.append(a, 0)},
            {"counts": lambda a: a[:, None]},
            {"counts": lambda a: a.astype(np.float64)},
            {"counts": lambda a: a.astype(np.int32)},
            {"counts": lambda a: -a},
            {"alone": lambda a: a[:2048]},
            {"alone": lambda a: np.append(a, a)},
            {"alone": lambda a: a[:-1]},
            {"alone": lambda a: a.astype(np.float64)},
            {"alone": lambda a: -a},
        ],
    )
    def test_counts_are_counted_anew(self, model, data, halfway, whole, counter, damage) -> None:
        rewritten(halfway / "counts.npz", **damage)
        run(model, data, halfway)
        assert counter.take() == SAMPLES
        assert contents(halfway) == whole

    def test_what_is_not_damaged_is_gone_on_from(self, model, data, halfway, whole, counter) -> None:
        rewritten(halfway / "counts.npz", counts=lambda a: a)
        run(model, data, halfway)
        assert counter.take() == SAMPLES - 64
        assert contents(halfway) == whole

    def test_counts_that_are_no_file_of_ours_are_counted_anew(self, model, data, finished, whole, counter) -> None:
        (finished / "counts.npz").write_bytes(b"PK\3\4")
        run(model, data, finished)
        assert counter.take() == SAMPLES
        assert contents(finished) == whole

    def test_names_of_the_files(self) -> None:
        assert (state.MAXIMA, state.COUNTS) == ("maxima.npz", "counts.npz")


class TestState:
    """What was saved is given back for the same plan alone, whatever fits by its size."""

    PLAN = counting.TensorPlan(Intervals([5.0], 4), 2, (3.0,))

    def saved(self, folder: Path, about: dict[str, object]) -> state.State:
        found = state.State(folder, about)
        intervals = self.PLAN.intervals
        counted = state.Counted(
            rows=3, counts=[np.arange(intervals.size), None], alone=[{3.0: np.array([1, 2, 3, 4])}, {}]
        )
        found.save_counts(counted, [self.PLAN, counting.TensorPlan(None)])
        return found

    def test_the_same_plan_gets_it_back(self, tmp_path: Path) -> None:
        found = self.saved(tmp_path, {"a": 1}).load_counts([self.PLAN, counting.TensorPlan(None)], 3)
        assert found.rows == 3
        assert found.counts[0].tolist() == list(range(self.PLAN.intervals.size))
        assert found.counts[1] is None
        assert [{r: counts.tolist() for r, counts in alone.items()} for alone in found.alone] == [
            {3.0: [1, 2, 3, 4]},
            {},
        ]

    @pytest.mark.parametrize(
        "plan",
        [
            counting.TensorPlan(Intervals([6.0], 4), 2, (3.0,)),
            counting.TensorPlan(Intervals([5.0], 4), 1, (3.0,)),
            counting.TensorPlan(Intervals([5.0], 4), 2, (2.0,)),
        ],
        ids=["range", "outlier", "range without it"],
    )
    def test_another_of_the_same_size_does_not(self, tmp_path: Path, plan: counting.TensorPlan) -> None:
        assert plan.intervals.size == self.PLAN.intervals.size
        assert self.saved(tmp_path, {"a": 1}).load_counts([plan, counting.TensorPlan(None)], 3) is None

    def test_nor_does_another_study_or_one_of_fewer_samples(self, tmp_path: Path) -> None:
        self.saved(tmp_path, {"a": 1})
        plans = [self.PLAN, counting.TensorPlan(None)]
        assert state.State(tmp_path, {"a": 2}).load_counts(plans, 3) is None
        assert state.State(tmp_path, {"a": 1}).load_counts(plans, 2) is None
        assert state.State(tmp_path, None).load_counts(plans, 3) is None

    def test_maxima_are_those_of_the_same_tensors(self, tmp_path: Path) -> None:
        one = np.ones((1, 1))
        found = state.Maxima(
            samples=SampleMaxima(one.astype(np.float32), one.astype(np.int64)),
            labels=("0",),
            sizes=np.array([4]),
            infinite=np.array([0]),
            complete=True,
            seen=1,
            left_out=0,
        )
        saver = state.State(tmp_path, {})
        saver.save_maxima(found, ["x"])
        assert saver.load_maxima(["x"]).labels == ("0",)
        assert saver.load_maxima(["y"]) is None

    def test_what_cannot_be_told_apart_is_not_saved(self, tmp_path: Path) -> None:
        unknown = state.State(tmp_path, None)
        unknown.save_counts(state.Counted(rows=1, counts=[], alone=[]), [])
        assert contents(tmp_path) == {}
