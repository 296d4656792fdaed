"""``trtcalib cache lint``: lines, annotations, JSON, exit codes; and the GitHub Action around it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tests.cli.helpers import NET, normal, save_model
from tests.cli.test_json import read
from trtcalib.linting import RULES, LintFinding, LintResult
from trtcalib.views.lint_lines import LONGEST_MESSAGE, github_lines, lint_lines

ACTION = Path(__file__).parents[2] / ".github" / "actions" / "lint-cache"

HEADER = b"TRT-101601-EntropyCalibration2\n"

ZERO = HEADER + b"x: 0\n"

COLON = HEADER + b"a:b: 3c010a14\n"


def write(content: bytes, path: str = "model.cache") -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_bytes(content)


def result(message: str, path: str = "model.cache", tensor: str | None = None) -> LintResult:
    found = LintFinding(rule=RULES["TC024"], message=message, line=12, tensor=tensor)
    return LintResult(
        path=Path(path), model=None, version=101601, algorithm="A", tensors=1, manifest=False, findings=(found,), counts={"TC024": 1}
    )  # fmt: skip


# lines and exit codes


def test_a_finding_is_a_line_and_a_summary_follows(cli) -> None:
    write(HEADER + b"x: 0\na:b: 3c010a14\nbad\n")
    done = cli("cache", "lint", "model.cache")
    lines = done.out.splitlines()
    assert (done.code, done.err, len(lines)) == (1, "", 4)
    assert lines[0].startswith("model.cache:2: TC024 warning: tensor 'x' has scale 0")
    assert lines[1].startswith("model.cache:3: TC011 info: ")
    assert lines[2].startswith("model.cache:4: TC004 error: found 'bad'")
    assert lines[3] == "model.cache: 1 error, 1 warning, 1 info in 2 tensors"


def test_a_healthy_cache_says_so(cli, folder) -> None:
    save_model(folder / "model.onnx", NET)
    import trtcalib

    trtcalib.calibrate("model.onnx", normal(32, 4)).write_cache("model.cache")
    done = cli("cache", "lint", "model.cache", "--model", "model.onnx")
    assert (done.code, done.err) == (0, "")
    assert done.out == "model.cache: no findings in 6 tensors against model.onnx, with its manifest\n"


@pytest.mark.parametrize(
    ("content", "codes"),
    [
        (HEADER + b"x: 3c010a14\n", {"info": 0, "warning": 0, "error": 0}),
        (COLON, {"info": 1, "warning": 0, "error": 0}),
        (ZERO, {"info": 1, "warning": 1, "error": 0}),
        (b"", {"info": 1, "warning": 1, "error": 1}),
    ],
)
def test_the_exit_code_is_1_from_the_severity_on_that_was_asked_for(cli, content: bytes, codes: dict[str, int]) -> None:
    write(content)
    assert {severity: cli("cache", "lint", "model.cache", "--fail-on", severity).code for severity in codes} == codes
    assert cli("cache", "lint", "model.cache").code == codes["warning"]
    assert json.loads(cli("cache", "lint", "model.cache", "--json").out)["failed"] == bool(codes["warning"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing.cache"], "trtcalib: nothing.cache: cannot be read: No such file or directory"),
        (["."], "trtcalib: .: cannot be read: Is a directory"),
        (["model.cache", "--model", "nothing.onnx"], "trtcalib: nothing.onnx: no such file"),
        (["model.cache", "--model", "model.cache"], "trtcalib: model.cache: not an ONNX model"),
        (["model.cache", "--fail-on", "fatal"], "'fatal' is not one of info, warning, error"),
        (["model.cache", "--json", "--github"], "--json and --github exclude each other"),
    ],
)
def test_what_cannot_be_read_is_exit_code_2(cli, arguments: list[str], message: str) -> None:
    write(ZERO)
    done = cli("cache", "lint", *arguments)
    assert (done.code, done.out) == (2, "")
    assert message in done.text


def test_hostile_names_cannot_drive_the_terminal(cli) -> None:
    write(HEADER + b"\x1b]0;owned\x07\xff\r\xe2\x80\xae: 0\n")
    done = cli("cache", "lint", "model.cache")
    assert done.code == 1
    assert all(line.isprintable() for line in done.out.splitlines())


def test_a_long_name_is_cut() -> None:
    lines = list(lint_lines(result("tensor " + "y" * 10_000)))
    assert len(lines[0]) < LONGEST_MESSAGE + 100


# GitHub


def test_annotations_name_file_line_and_rule(cli) -> None:
    write(HEADER + b"x: 0\na:b: 3c010a14\nbad\n", "nets/a,b.cache")
    done = cli("cache", "lint", "nets/a,b.cache", "--github")
    lines = done.out.splitlines()
    assert done.code == 1
    assert lines[0].startswith("::warning file=nets/a%2Cb.cache,line=2,title=TC024 zero-scale::tensor 'x' has scale 0")
    assert lines[1].startswith(
        "::notice file=nets/a%2Cb.cache,line=3,title=TC011 colon-in-name::the name 'a:b' holds ':'"
    )
    assert lines[2].startswith("::error file=nets/a%2Cb.cache,line=4,title=TC004 malformed-line::found 'bad'")
    assert lines[3] == "trtcalib cache lint: nets/a,b.cache: 1 error, 1 warning, 1 info in 2 tensors"


def test_a_finding_without_a_line_annotates_the_file(cli) -> None:
    write(HEADER)
    assert cli("cache", "lint", "model.cache", "--github").out.startswith(
        "::error file=model.cache,title=TC006 empty-cache::no tensor"
    )


@given(message=st.text(), path=st.text("ab%:,\r\n/ ", min_size=1))
def test_no_text_ends_its_annotation_or_begins_another(message: str, path: str) -> None:
    lines = list(github_lines(result(message, path)))
    assert len(lines) == 2
    assert all(line.isprintable() for line in lines)
    assert not lines[1].startswith("::")
    command = re.fullmatch(r"::warning file=([^,:]*),line=12,title=TC024 zero-scale::(.*)", lines[0])
    assert command is not None
    unescaped = command[1]
    for code, character in (("%0D", "\r"), ("%0A", "\n"), ("%3A", ":"), ("%2C", ","), ("%25", "%")):
        unescaped = unescaped.replace(code, character)
    assert unescaped == Path(path).as_posix()
    assert re.search(r"%(?!25|0A|0D)", command[2]) is None


# JSON


@pytest.mark.parametrize(
    "content", [b"", ZERO, COLON, HEADER + b"\xff: zz\n\xff: 1\n", b"TRT-1-\xff\n\xff: 0\nx: 7fc00000\n"]
)
def test_json_fits_its_schema_whatever_the_cache_is(cli, content: bytes) -> None:
    write(content)
    printed = json.loads(cli("cache", "lint", "model.cache", "--json").out)
    contract = read("cache-lint")
    jsonschema.validate(printed, contract, jsonschema.Draft202012Validator)
    assert contract["properties"].keys() == set(contract["required"]) == printed.keys()
    row = contract["properties"]["findings"]["items"]
    for found in printed["findings"]:
        assert row["properties"].keys() == set(row["required"]) == found.keys()
        assert found["severity"] == RULES[found["rule"]].severity


def test_json_says_what_was_found(cli) -> None:
    write(ZERO)
    printed = json.loads(cli("cache", "lint", "model.cache", "--json", "--fail-on", "error").out)
    assert printed["counts"] == {"TC024": 1}
    assert (printed["tensorrt_version"], printed["tensors"], printed["failed"], printed["fail_on"]) == (
        "10.16.1",
        1,
        False,
        "error",
    )
    (found,) = printed["findings"]
    assert (found["rule"], found["name"], found["line"], found["tensor"]) == ("TC024", "zero-scale", 2, "x")


# the Action


@pytest.fixture
def action(folder: Path):
    """Run the Action's script in a repository of its own: ``action(PATHS="model.cache")``."""
    if shutil.which("bash") is None or shutil.which("git") is None or os.name == "nt":
        pytest.skip("needs bash and git")
    bin_folder = folder / "bin"
    bin_folder.mkdir()
    # -I, which the script gives, would hide a package that is not installed; the stand-in finds it as this process does.
    stand_in = f'#!/bin/sh\n[ "$1" = -I ] || exit 9\nshift\nexec "{sys.executable}" "$@"\n'
    (bin_folder / "python").write_text(stand_in, encoding="utf-8")
    (bin_folder / "python").chmod(0o755)
    (folder / "repository").mkdir()
    environment = {
        **os.environ,
        "PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_NOSYSTEM": "1",
    }
    for name in [name for name in environment if name.startswith("GIT_") and not name.startswith("GIT_CONFIG")]:
        del environment[name]

    def run(**variables: str) -> subprocess.CompletedProcess[str]:
        command = ["bash", str(ACTION / "lint.sh")]
        return subprocess.run(
            command,
            cwd=folder / "repository",
            env={**environment, **variables},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    return run


def git(*arguments: str) -> str:
    command = [
        "git",
        "-c",
        "user.name=a",
        "-c",
        "user.email=a@b",
        "-c",
        "init.defaultBranch=main",
        "-c",
        "commit.gpgsign=false",
        *arguments,
    ]
    return subprocess.run(command, cwd="repository", capture_output=True, text=True, check=True).stdout.strip()


def test_the_action_lints_what_changed_since_the_base(action) -> None:
    git("init", "--quiet")
    for name in ("kept.cache", "removed.cache", "changed.cache"):
        write(ZERO, f"repository/{name}")
    git("add", ".")
    git("commit", "--quiet", "-m", "base")
    base = git("rev-parse", "HEAD")
    write(b"", "repository/changed.cache")
    write(COLON, "repository/sub/with 'quotes' $(touch owned); x.CACHE")
    write(b"", "repository/other.txt")
    Path("repository/removed.cache").unlink()
    Path("repository/link.cache").symlink_to("/etc/hostname")
    git("add", ".")
    git("commit", "--quiet", "-m", "head")
    done = action(BASE=base)
    assert done.returncode == 1, done.stderr
    assert re.findall(r"^::(\w+) file=(.*?),", done.stdout, re.MULTILINE) == [
        ("error", "changed.cache"),
        ("notice", "sub/with 'quotes' $(touch owned); x.CACHE"),
    ]
    assert "passed over link.cache, which is a link" in done.stdout
    assert "2 calibration caches were linted" in done.stdout
    assert not list(Path("repository").rglob("owned"))
    assert action(BASE=git("rev-parse", "HEAD")).returncode == 0


def test_the_action_lints_given_paths_and_patterns(action) -> None:
    write(COLON, "repository/a b.cache")
    write(ZERO, "repository/nets/n.cache")
    assert action(PATHS="a b.cache\n").returncode == 0
    done = action(PATHS="a b.cache\n\nnets/*.cache\r\n")
    assert (done.returncode, done.stdout.count("TC024"), done.stdout.count("TC011")) == (1, 1, 1)
    assert action(PATHS="nets/*.cache", FAIL_ON="error").returncode == 0


def test_the_action_takes_a_model_and_hostile_values_as_values(action, folder: Path) -> None:
    save_model(folder / "repository" / "net.onnx", NET)
    write(HEADER + b"other: 3c010a14\n", "repository/-n.cache")
    assert "TC041" in action(PATHS="-n.cache", MODEL="net.onnx").stdout
    assert action(PATHS="-n.cache", MODEL="--help").returncode == 2
    assert action(PATHS="-n.cache", FAIL_ON="$(touch owned)").returncode == 2
    assert not (folder / "repository" / "owned").exists()


def test_the_action_says_what_it_lacks(action) -> None:
    git("init", "--quiet")
    git("commit", "--quiet", "--allow-empty", "-m", "first")
    assert "there is no base to compare with" in action().stderr
    done = action(BASE="0" * 40)
    assert (done.returncode, "fetch-depth: 0" in done.stderr) == (2, True)
    assert action(BASE="--output=owned").returncode == 2
    done = action(PATHS="nothing/*.cache")
    assert (done.returncode, "no file fits nothing/" in done.stderr) == (2, True)
    first = git("rev-parse", "HEAD")
    git("checkout", "--quiet", "--orphan", "unrelated")
    git("commit", "--quiet", "--allow-empty", "-m", "second")
    assert "have no common commit" in action(BASE=first).stderr


def test_the_action_pastes_nothing_into_its_scripts() -> None:
    content: dict[str, Any] = yaml.safe_load((ACTION / "action.yml").read_text(encoding="utf-8"))
    steps = content["runs"]["steps"]
    scripts = [step["run"] for step in steps if "run" in step]
    assert len(scripts) == 2
    assert not any("${{" in script for script in scripts)
    assert all(step["shell"] == "bash" for step in steps if "run" in step)
    assert all(given["description"] and not given["required"] for given in content["inputs"].values())
    used = set(re.findall(r"inputs\.([\w-]+)", json.dumps(steps)))
    assert used == set(content["inputs"])
    variables = set(re.findall(r"\$\{?([A-Z_]+)", (ACTION / "lint.sh").read_text(encoding="utf-8")))
    assert variables <= set(steps[-1]["env"])
