"""What an interrupted study finds again, and what it does not take for its own."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import pytest

from trtcalib.accuracy.journal import Journal
from trtcalib.errors import OutputError

JOB = {"model": "5a" * 32, "metric": "top1", "samples": 20}


def written(path: Path, job: dict[str, object] | None = None) -> Journal:
    journal = Journal(path, job or JOB)
    journal.note("first", {"loss": 0.25})
    journal.note("second", [1, None, "x"])
    return journal


def test_what_was_noted_is_found_again(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    assert written(path).resumed == 0
    again = Journal(path, dict(reversed(JOB.items())))
    assert again.resumed == 2
    assert (again.get("first"), again.get("second"), again.get("third")) == ({"loss": 0.25}, [1, None, "x"], None)
    again.note("first", 7)
    assert Journal(path, JOB).get("first") == 7


@pytest.mark.parametrize("changed", [{"samples": 21}, {"more": None}, {"metric": "top5"}])
def test_a_journal_of_another_job_is_begun_anew(tmp_path: Path, changed: dict[str, object]) -> None:
    path = tmp_path / "journal"
    written(path)
    other = Journal(path, {**JOB, **changed})
    assert (other.resumed, other.get("first")) == (0, None)
    assert len(path.read_text().splitlines()) == 1
    assert Journal(path, JOB).resumed == 0


def test_wherever_it_is_cut_off_whole_lines_stay_and_what_comes_after_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    written(path)
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        journal = Journal(path, JOB)
        ends = [sum(map(len, lines[: n + 1])) for n in range(len(lines))]
        assert journal.resumed == max(
            sum(end - 1 <= length for end in ends) - 1, 0
        )  # a line that lacks its end alone is whole
        journal.note("after", length)
        assert Journal(path, JOB).get("after") == length
        assert Journal(path, JOB).resumed == journal.resumed + 1


@pytest.mark.parametrize(
    "line",
    [
        b"[" * 100_000,
        b'{"name": ["a"], "value": 1}',
        b'{"value": 1}',
        b"7",
        b"\xff\xfe",
        b"null",
        b'{"name": "huge", "value": ' + b"9" * 5000 + b"}",
        b"",
    ],
)
def test_hostile_lines_are_passed_over(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "journal"
    written(path)
    with path.open("ab") as file:
        file.write(line + b"\n")
    journal = Journal(path, JOB)
    assert journal.resumed in (0, 2)
    assert journal.get("first") in (None, {"loss": 0.25})
    journal.note("third", 3)
    assert Journal(path, JOB).get("third") == 3


def test_names_and_values_that_json_hardly_holds(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    journal = Journal(path, {"path": Path("a\udc80"), **JOB})
    for name, value in (("a\udc80", -math.inf), ("line\u2028\nbreak", "\n\r\x1c\x85"), ("", 1e-320)):
        journal.note(name, value)
    again = Journal(path, {"path": Path("a\udc80"), **JOB})
    assert again.resumed == 3
    assert (again.get("a\udc80"), again.get("line\u2028\nbreak"), again.get("")) == (-math.inf, "\n\r\x1c\x85", 1e-320)


def test_a_file_that_is_no_journal_of_ours_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    path.write_text(json.dumps({"journal": "00"}) + "\n" + json.dumps({"name": "first", "value": 1}) + "\n")
    assert Journal(path, JOB).resumed == 0
    with path.open("wb") as file:
        file.truncate((1 << 24) + 1)
    assert Journal(path, JOB).resumed == 0
    assert path.stat().st_size < 1000


def test_it_is_removed_when_the_job_is_done(tmp_path: Path) -> None:
    journal = written(tmp_path / "journal")
    journal.remove()
    journal.remove()
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot be written: Is a directory"):
        Journal(tmp_path, JOB)
    with pytest.raises(OutputError, match="cannot be written: No such file or directory"):
        Journal(tmp_path / "nowhere" / "journal", JOB)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no named pipes in folders")
def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "journal")
    with pytest.raises(OutputError, match="no regular file"):
        Journal(tmp_path / "journal", JOB)
