"""``trtcalib migrate``: exit codes, what is printed where, what is refused before any work."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.cli.helpers import NET, listing, normal, save_model

MIGRATE = ["migrate", "model.onnx", "model.cache", "--compute-capability", "none", "-o", "out"]


@pytest.fixture
def calibrated(folder: Path, done) -> Path:
    save_model(folder / "model.onnx", NET)
    np.save(folder / "data.npy", normal(16, 4))
    done("calibrate", "model.onnx", "--data", "data.npy", "--batch-size", 16, "-o", "model.cache")
    return folder


def test_a_migration_tells_each_check_and_what_to_run(done, calibrated: Path) -> None:
    result = done(*MIGRATE, "--data", "data.npy")
    said = [line.split(":")[0].split() for line in result.out.splitlines()[:5]]
    assert said == [["passed", name] for name in ("lint", "convert", "checker", "compare")] + [["skipped", "builder"]]
    assert result.out.splitlines()[-1] == f"what to run now: {Path('out/NEXT-STEPS.md')}"
    assert result.err == ""
    assert set(listing(calibrated / "out")) == {"model-qdq.onnx", "migration.json", "NEXT-STEPS.md"}


def test_what_it_writes_can_be_read_back_and_is_refused_as_input(done, refused, calibrated: Path) -> None:
    done(*MIGRATE)
    done("cache", "from-qdq", "out/model-qdq.onnx", "-o", "back.cache")
    done("cache", "lint", "back.cache")
    assert "already" in refused("qdq", "out/model-qdq.onnx", "back.cache", "-o", "again.onnx")


def test_a_check_that_fails_is_exit_code_1_and_leaves_the_report_alone(cli, calibrated: Path) -> None:
    cache = calibrated / "model.cache"
    line = next(line for line in cache.read_text().splitlines() if line.startswith("x: "))
    cache.write_text(cache.read_text().replace(line, "x: 7fc00000"))
    result = cli(*MIGRATE)
    assert result.code == 1
    assert result.out.startswith("failed   lint: ")
    assert set(listing(calibrated / "out")) == {"migration.json"}


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--partial", "perhaps"], "'perhaps' is none of error, skip, fill"),
        (["--target", "tensorrt-9"], "'tensorrt-9' is none of"),
        (["--exclude", "("], "is no regular expression"),
        (["--compute-capability", "ninety"], "expected numbers such as 80,86,89,120"),
        (["--shapes", "x"], "x"),
    ],
)
def test_options_that_cannot_be_are_refused_before_any_work(cli, calibrated: Path, options, told) -> None:
    before = listing(calibrated)
    result = cli(*MIGRATE, *options)
    assert result.code == 2
    assert told in result.text
    assert listing(calibrated) == before


def test_missing_inputs_are_told_by_name(cli, calibrated: Path) -> None:
    for argument, name in ((1, "nowhere.onnx"), (2, "nowhere.cache")):
        command = [*MIGRATE]
        command[argument] = name
        result = cli(*command)
        assert result.code == 2
        assert name in result.err
