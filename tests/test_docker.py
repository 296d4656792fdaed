"""The files in docker/ and the GPU workflow agree with each other, and gpu-ci.sh and its summary judge as they say.

No Docker and no GPU here: gpu-ci.sh runs over a stand-in for ``trtcalib``. Over the rig's simulated TensorRT it runs in
tests/rig/test_gpu_ci.py.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from trtcalib.core.cache import make_cache

ROOT = Path(__file__).parent.parent
DOCKER = ROOT / "docker"

IMAGES = {"23.12": "8.6.1", "24.08": "10.3", "26.05": "10.16.1.11", "26.06": "11"}
"""NVIDIA's tags that are used here, and the TensorRT in each: 23.06 to 23.12 hold 8.6.1, 26.05 is the last with 10.x."""

DEFAULT = "26.05"


def read(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def read_yaml(path: str) -> dict[Any, Any]:
    return yaml.safe_load(read(path))


def load_summary() -> ModuleType:
    spec = importlib.util.spec_from_file_location("gpu_ci_summary", DOCKER / "summary.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module


summary = load_summary()


class TestFilesAgree:
    SERVICES: Mapping[str, Any] = read_yaml("docker/compose.yaml")["services"]

    @staticmethod
    def service_of(tag: str) -> str:
        return "tensorrt-" + "-".join(IMAGES[tag].split(".")[:2])

    def test_dockerfile(self) -> None:
        text = read("docker/Dockerfile")
        assert dict(re.findall(r"^# +(\d\d\.\d\d)  TensorRT ([\d.]*\d)", text, re.MULTILINE)) == IMAGES
        assert re.findall(r"^ARG TENSORRT_TAG=(.*)$", text, re.MULTILINE) == [DEFAULT]
        assert re.findall(r"--build-arg TENSORRT_TAG=(\S+) -t trtcalib:(\S+)", text) == [(DEFAULT, DEFAULT)]
        assert re.findall(r"^FROM (\S+)", text, re.MULTILINE) == [
            "nvcr.io/nvidia/tensorrt:${TENSORRT_TAG}-py3",
            "base",
            "base",
        ]
        assert re.findall(r"^USER (.*)$", text, re.MULTILINE) == ["10001"]

    def test_dockerfile_installs_no_tensorrt(self) -> None:
        installs = re.findall(r"pip install (.*?) \\$", read("docker/Dockerfile"), re.MULTILINE)
        assert installs == ["/wheels/pycuda-*.whl --editable '.[cpu,test]'"]

    def test_compose(self) -> None:
        assert sorted(self.SERVICES) == sorted(map(self.service_of, IMAGES))
        for tag in IMAGES:
            name = self.service_of(tag)
            service = self.SERVICES[name]
            assert service["build"] == {
                "context": "..",
                "dockerfile": "docker/Dockerfile",
                "args": {"TENSORRT_TAG": tag},
            }
            assert service["image"] == f"trtcalib:{tag}"
            assert service["command"] == ["docker/gpu-ci.sh", "--output", f"/out/{name}"]
            (gpu,) = service["deploy"]["resources"]["reservations"]["devices"]
            assert gpu == {"driver": "nvidia", "count": "all", "capabilities": ["gpu"]}
            data, out = service["volumes"]
            assert (data["target"], data.get("read_only")) == ("/trtcalib/data", True)
            assert (out["target"], out.get("read_only")) == ("/out", None)
            assert (DOCKER / data["source"]).resolve() == ROOT / "data"

    def test_readme(self) -> None:
        rows = re.findall(
            r"^\| `(tensorrt-[\d-]+)` \| `tensorrt:([\d.]+)-py3` \| ([\d.]+) \|", read("docker/README.md"), re.MULTILINE
        )
        assert {(self.service_of(tag), tag, version) for tag, version in IMAGES.items()} == set(rows)

    def test_links_of_the_readme(self) -> None:
        for link in re.findall(r"\]\(([^)#:]+)\)", read("docker/README.md")):
            assert (DOCKER / link).exists(), link

    def test_workflow(self) -> None:
        job = read_yaml(".github/workflows/gpu.yml")["jobs"]["gpu"]
        assert job["strategy"]["matrix"] == {"service": list(self.SERVICES)}
        assert job["runs-on"][0] == "self-hosted"

    def test_workflow_runs_no_code_of_strangers(self) -> None:
        workflow = read_yaml(".github/workflows/gpu.yml")
        assert "pull_request_target" not in workflow[True]  # YAML 1.1's "on"
        assert workflow["permissions"] == {"contents": "read"}
        decide, gpu = workflow["jobs"]["decide"], workflow["jobs"]["gpu"]
        assert "head.repo.full_name == github.repository" in decide["if"]
        assert "labels.*.name, 'gpu'" in decide["if"]
        assert (gpu["needs"], gpu["if"]) == ("decide", "needs.decide.outputs.run == 'true'")

    @pytest.mark.parametrize("path", ["ci.yml", "gpu.yml"])
    def test_actions_are_githubs_own_and_pinned_by_major(self, path: str) -> None:
        jobs = read_yaml(f".github/workflows/{path}")["jobs"].values()
        steps = [step for job in jobs for step in job["steps"]]
        uses = [step["uses"] for step in steps if "uses" in step]
        assert uses
        assert all(re.fullmatch(r"actions/[\w-]+@v\d+", action) for action in uses)
        assert not any("${{" in step.get("run", "") for step in steps)  # what others wrote stays out of scripts

    def test_paths_that_the_workflow_filters_by_exist(self) -> None:
        steps = read_yaml(".github/workflows/gpu.yml")["jobs"]["decide"]["steps"]
        paths = re.findall(r"\w[\w./-]*|\.\w[\w./-]*", steps[1]["env"]["PATHS"].replace("\\", ""))
        assert len(paths) > 5
        assert [path for path in paths if not (ROOT / path).exists()] == []

    def test_pycuda_is_the_rigs(self) -> None:
        pinned = re.search(r"^pycuda==(\S+)", read("tests/rig/requirements.txt"), re.MULTILINE)
        assert pinned is not None
        assert f"ARG PYCUDA_VERSION={pinned[1]}\n" in read("docker/Dockerfile")
        assert f"PyCUDA {pinned[1]} compiles" in read("docker/README.md")

    def test_dry_runs_are_of_versions_that_the_rig_has(self) -> None:
        rig = re.findall(r"^tensorrt\S*-bindings==(\S+)", read("tests/rig/requirements.txt"), re.MULTILINE)
        default = re.search(r"^SIMULATED_VERSION=(\S+)", read("docker/gpu-ci.sh"), re.MULTILINE)
        assert default is not None
        assert default[1] == IMAGES[DEFAULT]
        target = re.search(r"^gpu-ci-dry-run:.*\n(.*)", read("Makefile"), re.MULTILINE)
        assert target is not None
        assert default[1] in (dried := re.findall(r"--only (\S+)", target[1]))
        assert set(dried) <= set(rig)
        assert set(re.findall(r"--dry-run=([\d.]+)", read("docker/README.md"))) <= set(rig)

    def test_the_script_builds_every_spec(self) -> None:
        named = re.search(r"^CALIBRATORS=\((.*)\)", read("docker/gpu-ci.sh"), re.MULTILINE)
        assert named is not None
        assert {f"digits-{name}.yaml" for name in named[1].split()} == {
            p.name for p in (ROOT / "engines").glob("*.yaml")
        }

    def test_the_image_gets_what_the_script_needs(self) -> None:
        lines = read(".dockerignore").splitlines()
        copied = [line[1:] for line in lines if line.startswith("!")]
        assert all((ROOT / path).exists() for path in copied)
        assert {"calibrators", "data", "docker", "engines", "pyproject.toml", "tests", "trtcalib"} <= set(copied)
        assert "*" in lines

    @pytest.mark.skipif(os.name == "nt", reason="Windows has no executable bit")
    def test_the_script_is_executable(self) -> None:
        assert os.access(DOCKER / "gpu-ci.sh", os.X_OK)


STAND_IN = """
import json, os, pathlib, sys
arguments = sys.argv[1:]
line = " ".join(arguments)
if os.environ["FAIL"] and os.environ["FAIL"] in line:
    sys.stderr.write("trtcalib: it | broke ```` <b>\\n")
    sys.exit(2)
command = arguments[0]
if command == "doctor":
    parts = [{"name": name, "found": "yes"} for name in ("NVIDIA GPU", "PyCUDA", "Python")]
    print(json.dumps({"parts": parts, "jobs": []}))
elif command == "build":
    if os.environ.get("REFUSE"):
        sys.stderr.write(os.environ["REFUSE"] + "\\n")
        sys.exit(3)
    engine = pathlib.Path(arguments[arguments.index("-o") + 1])
    size = int(arguments[arguments.index("--batch-size") + 1]) if "--batch-size" in arguments else 32
    engine.write_bytes(b"engine")
    last = {1: "3c800000", 8: "3c810000", 32: "3c800000"}[size]
    engine.with_suffix(".cache").write_text(f"TRT-101601-EntropyCalibration2\\na: 3c010204\\nb|x: {last}\\n")
elif command == "crosscheck":
    apart = "alone" in arguments[1]
    tensors = [{"ours": 1.0, "agrees": not apart}, {"ours": None, "agrees": False}]
    print(json.dumps({"passed": not apart, "tensors": tensors}))
    sys.exit(int(apart))
elif command == "infer":
    import numpy
    labels = numpy.load("data/digits/validation-labels.npy")
    wrong = int(os.environ.get("WRONG", "0"))
    labels = (labels + (numpy.arange(len(labels)) < wrong)) % 10
    numpy.savez(arguments[arguments.index("-o") + 1], probabilities=numpy.eye(10, dtype="float32")[labels])
    print(json.dumps({"p50_ms": 1.5, "batch_size": 32}))
elif command == "engine":
    print(json.dumps({"counts": {"INT8": 2, "FP32": 1}, "layers": [1, 2, 3]}))
"""

REFUSAL = "trtcalib: TensorRT 11 removed calibrators: it takes INT8 only from a model with Q/DQ nodes"

GROUPS = ["machine", "tests-gpu", "entropy", "minmax", "percentile-99.99", "batch-1", "batch-8", "batch-32"]


class Ran:
    """One run of gpu-ci.sh."""

    def __init__(self, folder: Path, *arguments: str, **environment: str) -> None:
        self.folder = folder / "out"
        stand_in = folder / "stand_in.py"
        stand_in.write_text(STAND_IN, encoding="utf-8")
        ours = {
            "PYTHON": sys.executable,
            "PYTHONPATH": str(ROOT),
            "TRTCALIB": f"{sys.executable} {stand_in}",
            "FAIL": "",
            **environment,
        }
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("TRTCALIB", "GITHUB_", "PYTEST"))}
        done = subprocess.run(
            ["bash", str(DOCKER / "gpu-ci.sh"), "--output", str(self.folder), *arguments],
            env=kept | ours,
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        self.code, self.out, self.err = done.returncode, done.stdout, done.stderr
        path = self.folder / "summary.md"
        self.summary = path.read_text(encoding="utf-8") if path.exists() else ""
        lines = [line for line in self.summary.splitlines() if line.startswith("|")][2:]
        cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
        self.rows = {row[0].removeprefix("SIMULATED "): row for row in cells}

    @property
    def failed(self) -> list[str]:
        return [name for name, row in self.rows.items() if row[1].endswith("FAILED")]


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """A run in which everything ends well."""
    folder = tmp_path_factory.mktemp("good")
    return Ran(folder, "--dry-run", GITHUB_STEP_SUMMARY=str(folder / "page.md"))


@pytest.mark.skipif(sys.platform != "linux", reason="the containers are Linux, and the script uses its tools")
class TestScript:
    def test_all_is_well(self, good: Ran) -> None:
        assert (good.code, good.err) == (0, "")
        assert list(good.rows) == [*GROUPS[:2], "FP32", *GROUPS[2:]]
        assert good.failed == []
        assert good.rows["entropy"][3:8] == ["1 of 1", "100.00%", "99.60%", "2 of 3", "1.500 ms for 32"]
        assert good.rows["percentile-99.99"][3] == "0 of 1, told apart"
        assert good.rows["batch-8"][-1] == r"1 of 2 scales are not batch-32's, most by a factor of 1.008: b\|x"
        assert good.rows["batch-1"][-1] == "all 2 scales are batch-32's"
        assert good.rows["batch-32"][-1] == "all 2 scales are entropy's"

    def test_a_dry_run_is_called_simulated_in_title_and_rows(self, good: Ran) -> None:
        assert good.summary.startswith("# SIMULATED GPU CI: TensorRT 10.16.1.11\n")
        assert all(row[0].startswith("SIMULATED ") and row[1].startswith("SIMULATED ") for row in good.rows.values())

    def test_the_summary_goes_to_the_jobs_page_too(self, good: Ran) -> None:
        assert (good.folder.parent / "page.md").read_text(encoding="utf-8") == good.summary

    def test_everything_is_kept(self, good: Ran) -> None:
        steps = summary.read_steps(good.folder / "steps.tsv")
        assert list(dict.fromkeys(step.group for step in steps)) == GROUPS
        for step in steps:
            assert (good.folder / step.group / f"{step.name}.out").exists()
        assert (good.folder / "minmax" / "digits.cache").exists()

    def test_a_step_that_fails_fails_the_run_and_hides_no_other(self, tmp_path: Path) -> None:
        ran = Ran(tmp_path, "--dry-run", FAIL="build engines/digits-minmax.yaml")
        assert ran.code == 1
        assert ran.failed == ["minmax"]
        assert ran.rows["minmax"][-1] == "build: exit code 2, expected 0"
        assert list(ran.rows)[-1] == "batch-32"
        block = ran.summary[ran.summary.index("**minmax: build**") :].splitlines()
        assert block[2] == block[-1] == "`````"  # one more than what was printed
        assert "trtcalib: it | broke ```` <b>" in block
        # The same folder again: nothing of the run before is left.
        again = Ran(tmp_path, "--dry-run=11.4.0.106", REFUSE=REFUSAL)
        assert (again.code, list(again.rows)) == (0, GROUPS[:5])
        assert again.rows["minmax"][-1].startswith("refused with one error")
        assert not (again.folder / "batch-1").exists()

    def test_a_command_that_always_fails(self, tmp_path: Path) -> None:
        ran = Ran(tmp_path, "--dry-run", TRTCALIB="false")
        assert ran.code == 1
        assert ran.failed == [group for group in GROUPS if group != "tests-gpu"]

    def test_worse_answers_than_fp32_fail_the_run(self, tmp_path: Path) -> None:
        ran = Ran(tmp_path, "--dry-run", WRONG="20")
        assert ran.code == 1
        assert ran.failed == ["entropy", "minmax", "percentile-99.99"]
        assert ran.rows["entropy"][-1] == "infer: top-1 is 3.60% below FP32's, more than 2%"

    def test_tensorrt_11_must_refuse_with_one_clear_error(self, tmp_path: Path) -> None:
        ran = Ran(tmp_path, "--dry-run=11.4.0.106", REFUSE=f"{REFUSAL}\n{REFUSAL}")
        assert ran.code == 1
        assert ran.failed == ["entropy", "minmax", "percentile-99.99"]
        assert ran.rows["minmax"][-1].startswith("build: expected one line of error, found 2")

    @pytest.mark.skipif(Path("/dev/nvidiactl").exists(), reason="there is a GPU here")
    def test_a_real_run_without_a_gpu_fails_where_a_dry_run_skips(self, tmp_path: Path) -> None:
        ran = Ran(tmp_path)
        assert ran.code == 1
        assert {"machine", "tests-gpu"} <= set(ran.failed)
        assert "nvidia-smi: exit code 127, expected 0" in ran.rows["machine"][-1]
        assert "SIMULATED" not in ran.summary

    def test_a_folder_of_somebody_elses_is_left_alone(self, tmp_path: Path) -> None:
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "thesis.txt").touch()
        ran = Ran(tmp_path, "--dry-run")
        assert ran.code == 2
        assert ran.err.startswith(f"gpu-ci: {ran.folder} is not empty and not from an earlier run")
        assert [path.name for path in ran.folder.iterdir()] == ["thesis.txt"]

    @pytest.mark.parametrize(
        ("argument", "code", "said"),
        [
            ("--dryrun", 2, "gpu-ci: unknown argument '--dryrun': see docker/gpu-ci.sh --help\n"),
            ("--output", 2, "gpu-ci: --output needs a folder\n"),
            ("--help", 0, ""),
        ],
    )
    def test_usage(self, tmp_path: Path, argument: str, code: int, said: str) -> None:
        ran = Ran(tmp_path, argument)
        assert (ran.code, ran.err) == (code, said)
        assert not ran.folder.exists()

    def test_without_the_rig_a_dry_run_says_how_to_get_it(self, tmp_path: Path) -> None:
        ran = Ran(tmp_path, "--dry-run=1.2.3", PYTHON="")
        assert (ran.code, ran.err) == (3, "gpu-ci: no simulated TensorRT 1.2.3 in build/rig: run make test-rig first\n")


class TestSummary:
    def test_escape_by_hand(self) -> None:
        found = summary.escape("a|b `c` [x](http://y) <img> *_~ \\ @me #1 & $\n\tz\x1b\u202e")
        assert found == (r"a\|b \`c\` \[x\](http:\//y) \<img\> \*\_\~ \\ \@me \#1 \& \$ z" + "\ufffd\ufffd")

    @given(st.text())
    def test_escaped_text_is_one_cell_on_one_line(self, text: str) -> None:
        found = summary.escape(text)
        assert len(f"x{found}x".splitlines()) == 1
        assert "|" not in re.sub(r"\\.", "", found)
        assert "<" not in re.sub(r"\\.", "", found)

    def test_long_text_is_cut(self) -> None:
        assert summary.escape("x" * 1000) == "x" * 300 + "…"

    @pytest.mark.parametrize(
        ("a", "b", "ratio"),
        [
            (1.0, 1.0, 1.0),
            (1.0, 2.0, 2.0),
            (2.0, 0.5, 4.0),
            (0.0, 1.0, np.inf),
            (1.0, np.nan, np.inf),
            (-1.0, 1.0, np.inf),
        ],
    )
    def test_ratio(self, a: float, b: float, ratio: float) -> None:
        assert summary.scale_ratio(a, b) == ratio

    @given(st.floats(1e-30, 1e30), st.floats(1e-30, 1e30))
    def test_ratio_has_no_direction_and_is_no_less_than_one(self, a: float, b: float) -> None:
        assert summary.scale_ratio(a, b) == summary.scale_ratio(b, a) >= 1

    @staticmethod
    def cache(**scales: float) -> Any:
        return make_cache({name: np.float32(scale) for name, scale in scales.items()}, "8.6.1", "EntropyCalibration2")

    def test_changes_of_scales(self) -> None:
        found = summary.scale_changes(self.cache(a=1, b=2, c=3, d=0), self.cache(a=1, b=3, c=2.5, e=0))
        assert found == summary.ScaleChanges(shared=3, moved=2, alone=2, largest=1.5, tensor="b")
        assert summary.change_text(found, "x's") == (
            "2 of 3 scales are not x's, most by a factor of 1.5: b; 2 tensors stand in one cache only"
        )

    def test_no_changes_of_scales(self) -> None:
        found = summary.scale_changes(self.cache(a=0, b=2), self.cache(a=0, b=2))
        assert found == summary.ScaleChanges(shared=2, moved=0, alone=0, largest=1.0, tensor="")
        assert summary.change_text(found, "x's") == "all 2 scales are x's"

    def test_a_scale_that_became_zero_is_the_largest_change(self) -> None:
        found = summary.scale_changes(self.cache(a=1, b=2), self.cache(a=0, b=9))
        assert (found.largest, found.tensor) == (np.inf, "a")

    def test_accuracy(self) -> None:
        scores = np.array([[0.1, 0.9], [0.8, 0.2], [0.3, 0.7], [0.6, 0.4]], np.float32)
        assert summary.accuracy(scores, np.array([1, 0, 0, 0])) == 0.75

    @pytest.mark.parametrize(
        ("scores", "message"),
        [
            (np.zeros((2, 10)), r"shape \(2, 10\), expected \(3, classes\)"),
            (np.zeros(3), r"shape \(3,\)"),
            (np.full((3, 10), np.nan), "NaN or infinite"),
        ],
    )
    def test_accuracy_of_what_has_none(self, scores: np.ndarray, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            summary.accuracy(scores, np.zeros(3))

    def test_fp32_is_what_the_samples_page_says(self) -> None:
        labels = np.load(ROOT / "data/digits/validation-labels.npy")
        assert summary.accuracy(summary.fp32_outputs(), labels) == pytest.approx(498 / 500)

    def test_outputs_that_cannot_be_read_fail_their_row_only(self, tmp_path: Path) -> None:
        steps = "".join(f"{group}\tinfer\t0\t0\t1\tx\n" for group in ("a", "b"))
        (tmp_path / "steps.tsv").write_text(steps, encoding="utf-8")
        for group, said in (("a", '{"p50_ms": 1, "batch_size": 1}'), ("b", "no JSON")):
            (tmp_path / group).mkdir()
            (tmp_path / group / "infer.out").write_text(said, encoding="utf-8")
        fp32, a, b = summary.make_rows(tmp_path, simulated=False)
        assert not fp32.faults
        assert a.faults[0].startswith("infer: what it wrote cannot be used: FileNotFoundError")
        assert b.faults[0].startswith("infer: what it wrote cannot be used: JSONDecodeError")

    def test_a_gpu_that_doctor_does_not_see_fails_a_real_run(self, tmp_path: Path) -> None:
        (tmp_path / "steps.tsv").write_text("machine\tdoctor\t0\t0\t1\tx\n", encoding="utf-8")
        (tmp_path / "machine").mkdir()
        (tmp_path / "machine" / "doctor.out").write_text(
            '{"parts": [{"name": "NVIDIA GPU", "found": ""}, {"name": "PyCUDA", "found": "1"}, {"name": "Python", "found": "3"}],'
            ' "jobs": [{"command": "build", "works": false, "reason": "needs NVIDIA GPU"}]}',
            encoding="utf-8",
        )
        (real,) = summary.make_rows(tmp_path, simulated=False)
        (dry,) = summary.make_rows(tmp_path, simulated=True)
        assert real.faults == ["doctor: build does not work here: needs NVIDIA GPU"]
        assert dry.faults == []

    @pytest.mark.parametrize(
        ("counts", "real", "dry"),
        [
            ('tests="3" failures="0" errors="0" skipped="0"', True, True),
            ('tests="3" failures="0" errors="0" skipped="1"', False, True),
            ('tests="3" failures="0" errors="0" skipped="3"', False, True),
            ('tests="0" failures="0" errors="0" skipped="0"', False, False),
        ],
    )
    def test_skipped_gpu_tests_are_accepted_in_a_dry_run_only(
        self, tmp_path: Path, counts: str, real: bool, dry: bool
    ) -> None:
        (tmp_path / "steps.tsv").write_text("tests-gpu\tpytest\t0\t0\t1\tx\n", encoding="utf-8")
        (tmp_path / "tests-gpu").mkdir()
        report = f"<testsuites><testsuite {counts}/></testsuites>"
        (tmp_path / "tests-gpu" / "junit.xml").write_text(report, encoding="utf-8")
        for simulated, good in ((False, real), (True, dry)):
            (row,) = summary.make_rows(tmp_path, simulated=simulated)
            assert (row.faults == []) is good

    @pytest.mark.parametrize(
        ("said", "faults"),
        [
            (f"WARNING: of TensorRT's\n{REFUSAL}\n", []),
            ("", ["expected one line of error, found 0"]),
            ("trtcalib: no\n", ["the error does not name Q/DQ models"]),
            (f"Traceback (most recent call last):\n{REFUSAL}\n", ["it printed a traceback"]),
        ],
    )
    def test_refusals(self, said: str, faults: list[str]) -> None:
        assert summary.refusal_faults(said) == faults

    def test_no_steps_are_no_success(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (tmp_path / "steps.tsv").touch()
        assert summary.main([str(tmp_path)]) == 1
        assert "TensorRT of unknown version" in capsys.readouterr().out

    def test_an_engine_without_int8_layers_fails(self, tmp_path: Path) -> None:
        (tmp_path / "steps.tsv").write_text("minmax\tinspect\t0\t0\t1\tx\n", encoding="utf-8")
        (tmp_path / "minmax").mkdir()
        (tmp_path / "minmax" / "inspect.out").write_text('{"counts": {"FP32": 2}, "layers": [1, 2]}', encoding="utf-8")
        (row,) = summary.make_rows(tmp_path, simulated=False)
        assert row.cells["INT8 layers"] == "0 of 2"
        assert row.faults == ["inspect: no layer runs in INT8"]
