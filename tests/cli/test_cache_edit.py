"""``trtcalib cache merge``, ``convert``, ``rename`` and ``set``: results, what stands beside them, and what is refused."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from pathlib import Path

import jsonschema
import numpy as np
import pytest

import trtcalib
from tests.cli.helpers import cache, facts, listing, manifest, normal, plain, scale_hex
from trtcalib.core.scale import bits_from_scale, scale_from_amax
from trtcalib.manifest import read_edits

HEADER = "TRT-101601-EntropyCalibration2"
SCHEMAS = Path(trtcalib.__file__).parent / "schemas"
UNKNOWN = "nothing is known of the model and the data that a.cache is from"


def write(name, *lines, header=HEADER, end="\n"):
    Path(name).write_bytes(end.join([header, *lines, ""]).encode("utf-8", "surrogateescape"))


@pytest.fixture
def made(done, net):
    done("calibrate", "model.onnx", "--data", "data.npy", "-o", "out.cache", "--batch-size", 8)
    return net


def sha256(name):
    return hashlib.sha256(Path(name).read_bytes()).hexdigest()


# results, of caches without a manifest


def test_set_shows_the_scale_and_keeps_every_other_byte(done, folder):
    write("a.cache", "a: 0000ABCD", "b: 3F800000", end="\r\n")
    result = done("cache", "set", "a.cache", "b=3.5", "-o", "b.cache")
    assert (folder / "b.cache").read_bytes() == f"{HEADER}\r\na: 0000ABCD\r\nb: 3ce1c387\r\n".encode()
    assert result.out.splitlines() == [
        f"b.cache: 2 scales, 1 changed, {HEADER}",
        "  b: scale 0.027559055, amax 3.5, was 1",
    ]
    assert result.err.startswith(f"note: {UNKNOWN}: b.cache.edits.json tells of the edits, and there is no manifest")


def test_set_splits_at_the_last_equals_sign_and_takes_several(done, folder):
    write("a.cache", "a=b: 1", "c: 2", "c: 3")
    result = done("cache", "set", "a.cache", "a=b=127", "c=254", "new: one=1e-3", "--add", "-o", "b.cache", "--json")
    assert cache(folder / "b.cache").scales == {"a=b": 1, "c": 2, "new: one": scale_from_amax(1e-3)}
    assert json.loads(result.out) == {
        "schema_version": 1,
        "cache": "b.cache",
        "header": HEADER,
        "tensors": 4,
        "changed": [
            {"name": "a=b", "before_hex": "1", "after_hex": "3f800000"},
            {"name": "c", "before_hex": "3", "after_hex": "40000000"},
        ],
        "added": ["new: one"],
        "notes": result.err.replace("note: ", "").splitlines(),
    }
    assert "tensor 'c' stands 2 times: all its lines were changed" in result.err


def test_json_fits_its_schema(done, folder):
    write("a.cache", "a: 1")
    schema = json.loads((SCHEMAS / "cache-edit.schema.json").read_text())
    content = json.loads(done("cache", "set", "a.cache", "a=1", "b=1", "--add", "-o", "b.cache", "--json").out)
    jsonschema.validate(content, schema, jsonschema.Draft202012Validator)
    assert set(schema["required"]) == set(schema["properties"]) == set(content)


def test_the_examples_run_as_they_stand(done, folder):
    write("first.cache", "relu1: 1")
    write("model.cache", "relu1: 2")
    Path("names.yaml").write_text("relu1: relu_1\n")
    for command in ("merge", "convert", "rename", "set", "export"):
        text = re.search(r"Example: trtcalib (.*)", plain(done("cache", command, "--help").out))[1]
        assert text.startswith(f"cache {command} ")
        done(*shlex.split(text))
    assert scale_hex(folder / "merged.cache") == {"relu1": "2"}
    assert (folder / "for-trtexec" / "trtexec_int8.sh").exists()


def test_an_input_may_be_the_result(done, folder):
    write("a.cache", "a: 1")
    done("cache", "set", "a.cache", "a=127", "-o", "a.cache")
    assert scale_hex(folder / "a.cache") == {"a": "3f800000"}
    assert sorted(listing(folder)) == ["a.cache", "a.cache.edits.json"]


def test_a_zero_is_set_when_it_is_asked_for(done, folder):
    write("a.cache", "a: 1")
    done("cache", "set", "a.cache", "a=0", "--allow-zero", "-o", "b.cache")
    assert scale_hex(folder / "b.cache") == {"a": "0"}


def test_merge_says_what_was_not_everywhere_and_what_was_zero(done, folder):
    write("a.cache", "x: 3f800000", "z: 0")
    write("b.cache", "z: 40000000", "y: 1", header="TRT-8601-EntropyCalibration2")
    result = done("cache", "merge", "a.cache", "b.cache", "--how", "mean", "-o", "m.cache")
    assert (folder / "m.cache").read_bytes() == f"{HEADER}\nx: 3f800000\nz: 40000000\ny: 1\n".encode()
    assert "note: tensors 'x', 'y' are not in every cache: the scale comes from those that have it" in result.err
    assert "note: tensor 'z' is all zero in some caches, which were left out there" in result.err
    assert "note: the caches are of TensorRT 10.16.1, 8.6.1: the result has the first one's header" in result.err


def test_convert_warns_where_the_algorithm_is_another(done, folder):
    write("a.cache", "x: 3F800000")
    command = ("cache", "convert", "a.cache", "--tensorrt-version", "8.6.1", "--algorithm", "minmax", "-o", "b.cache")
    result = done(*command)
    assert (folder / "b.cache").read_bytes() == b"TRT-8601-MinMaxCalibration\nx: 3F800000\n"
    assert (
        "the numbers stay those of EntropyCalibration2: TensorRT will take them as they are; they are not what its "
        in result.err
    )
    assert "names that TensorRT's parser makes itself" in result.err


def test_convert_within_a_minor_version_warns_of_nothing(done, made):
    result = done("cache", "convert", "out.cache", "--tensorrt-version", "10.16.0", "-o", "b.cache")
    assert result.err == ""
    assert done("cache", "convert", "out.cache", "--algorithm", "entropy", "-o", "c.cache").err == (
        f"note: the header was {HEADER} already\n"
    )


def test_what_convert_writes_is_what_tensorrt_asks_for(done, folder):
    from trtcalib.trt.feeder import check_cache_header

    write("a.cache", "x: 3F800000", header="TRT-8601-MinMaxCalibration")
    done("cache", "convert", "a.cache", "--tensorrt-version", "10.9.0", "--algorithm", "entropy", "-o", "b.cache")
    check_cache_header((folder / "b.cache").read_bytes(), "TRT-100900-EntropyCalibration2")


def test_rename_swaps(done, folder):
    write("a.cache", "a: 1", "b: 2", "c: 3")
    Path("map.yaml").write_text("a: b\nb: a\nc: '(Unnamed Layer* 4) [Shuffle]_output'\n")
    done("cache", "rename", "a.cache", "--map", "map.yaml", "-o", "b.cache")
    assert (folder / "b.cache").read_bytes() == (
        f"{HEADER}\nb: 1\na: 2\n(Unnamed Layer* 4) [Shuffle]_output: 3\n".encode()
    )


# what stands beside the result


def test_a_cache_without_a_manifest_gets_a_record_of_its_edits(done, folder):
    write("a.cache", "x: 1")
    done("cache", "set", "a.cache", "x=127", "-o", "b.cache")
    (folder / "sub").mkdir()
    done("cache", "convert", "b.cache", "--tensorrt-version", "8.6.1", "-o", "sub/c.cache")
    assert sorted(listing(folder / "sub")) == ["c.cache", "c.cache.edits.json"]
    content = json.loads(Path("sub/c.cache.edits.json").read_text())
    schema = json.loads((SCHEMAS / "cache-edits.schema.json").read_text())
    jsonschema.validate(content, schema, jsonschema.Draft202012Validator)
    record = read_edits(folder / "sub" / "c.cache.edits.json")
    assert (record.cache, record.cache_sha256) == ("c.cache", sha256("sub/c.cache"))
    assert (record.tensorrt_version, record.algorithm) == ("8.6.1", "EntropyCalibration2")
    first, second = record.edits
    assert (first.command, first.detail) == ("set", {"scale_hex": {"x": "3f800000"}})
    assert (first.files[0].cache, first.files[0].sha256, first.files[0].header) == (
        "a.cache",
        sha256("a.cache"),
        HEADER,
    )
    assert first.result_sha256 == second.files[0].sha256 == sha256("b.cache")
    assert second.files[0].cache == "../b.cache"
    assert second.detail == {"from": HEADER, "to": "TRT-8601-EntropyCalibration2"}


def test_the_schema_of_the_record_is_the_models_own():
    from trtcalib.edit_record import EditRecord

    expected = json.dumps(EditRecord.model_json_schema(), indent=2, ensure_ascii=False) + "\n"
    assert (SCHEMAS / "cache-edits.schema.json").read_text(encoding="utf-8") == expected


def test_the_commands_take_a_result_without_a_manifest_as_what_it_was_made_from(done, cli, refused, made):
    (made / "out.cache.json").unlink()
    done("cache", "set", "out.cache", "sum=1", "-o", "b.cache")
    assert "sum" in done("cache", "show", "b.cache").out
    assert cli("cache", "diff", "out.cache", "b.cache").code == 1
    result = cli("crosscheck", "b.cache", "--model", "model.onnx", "--data", "data.npy", "--batch-size", 8, "--json")
    verdicts = {tensor["name"]: tensor["verdict"] for tensor in json.loads(result.out)["tensors"]}
    assert {name for name, verdict in verdicts.items() if verdict not in ("exact", "same", "same bin")} == {"sum"}
    assert "b.cache.json: no such file" in refused("cache", "verify", "b.cache")


def test_a_manifest_is_carried_over_with_what_still_holds(done, made):
    before = facts(made / "out.cache")
    (made / "sub").mkdir()
    result = done("cache", "set", "out.cache", "sum=1.5", "-o", "sub/b.cache")
    assert result.err == ""
    found, was = manifest(made / "sub" / "b.cache"), manifest(made / "out.cache")
    assert (found.cache, found.cache_sha256) == ("b.cache", sha256("sub/b.cache"))
    assert (found.provenance.model.path, found.provenance.data.path) == ("../model.onnx", "../data.npy")
    assert found.provenance.model.sha256 == was.provenance.model.sha256
    assert facts(made / "sub" / "b.cache") == {name: fact for name, fact in before.items() if name != "sum"}
    assert (found.recipe, found.calibrated_by, found.findings) == (was.recipe, was.calibrated_by, was.findings)
    (edit,) = found.edits
    assert edit.files[0].model_sha256 == was.provenance.model.sha256
    assert edit.files[0].data_sha256 == was.provenance.data.sha256
    schema = json.loads((SCHEMAS / "manifest.schema.json").read_text())
    jsonschema.validate(json.loads(Path("sub/b.cache.json").read_text()), schema, jsonschema.Draft202012Validator)


def test_the_commands_take_a_result_with_a_manifest(done, cli, made):
    done("cache", "convert", "out.cache", "--tensorrt-version", "8.6.1", "-o", "v.cache")
    done("cache", "set", "v.cache", "sum=1.5", "-o", "b.cache")
    assert [edit.command for edit in manifest(made / "b.cache").edits] == ["convert", "set"]
    checks = json.loads(done("cache", "verify", "b.cache", "--json").out)["checks"]
    assert {check["what"]: check["status"] for check in checks} == dict.fromkeys(
        ("cache", "model", "data", "versions", "cpu"), "same"
    )
    rows = {line.split()[0]: line.split() for line in done("cache", "show", "b.cache").out.splitlines() if line.strip()}
    assert rows["sum"][4:] == ["-", "-"]
    assert rows["x"][4:] != ["-", "-"]
    diff = json.loads(cli("cache", "diff", "out.cache", "b.cache", "--json").out)["pairs"][0]
    assert [change["name"] for change in diff["changes"]] == ["sum"]
    assert diff["header_differs"]
    result = cli("crosscheck", "b.cache", "--model", "model.onnx", "--data", "data.npy", "--json")
    assert json.loads(result.out)["batch_size"] == 8
    Path("b.cache").write_bytes(Path("b.cache").read_bytes() + b"\n")
    assert cli("cache", "verify", "b.cache").code == 1


def test_rename_takes_the_facts_along(done, made):
    Path("map.yaml").write_text("sum: total\nx: sum\n")
    done("cache", "rename", "out.cache", "--map", "map.yaml", "-o", "b.cache")
    was, found = facts(made / "out.cache"), facts(made / "b.cache")
    assert list(found) == [{"sum": "total", "x": "sum"}.get(name, name) for name in was]
    assert found["total"] == was["sum"].model_copy(update={"name": "total"})
    assert found["sum"] == was["x"].model_copy(update={"name": "sum"})


def test_a_view_carries_nothing_once_its_source_has_another_scale(done, folder):
    from tests.cli.helpers import save_model

    save_model(folder / "model.onnx", "view (float[N, 4] x) => (float[4, N] y) { y = Transpose(x) }")
    np.save("data.npy", normal(32, 4))
    done("calibrate", "model.onnx", "--data", "data.npy", "-o", "out.cache")
    assert facts(folder / "out.cache")["y"].inherited_from == "x"
    done("cache", "convert", "out.cache", "--algorithm", "minmax", "-o", "same.cache")
    assert facts(folder / "same.cache")["y"].inherited_from == "x"
    done("cache", "set", "out.cache", "x=1", "-o", "b.cache")
    assert list(facts(folder / "b.cache")) == ["y"]
    assert facts(folder / "b.cache")["y"].inherited_from is None


def test_findings_of_a_changed_tensor_go(done, net):
    np.save("zeros.npy", np.zeros((8, 4), np.float32))
    done("calibrate", "model.onnx", "--data", "zeros.npy", "-o", "out.cache")
    zero = {f.tensor for f in manifest(net / "out.cache").findings if f.code == "all-zero-tensor"}
    assert "x" in zero
    done("cache", "set", "out.cache", "x=1", "-o", "b.cache")
    left = {f.tensor for f in manifest(net / "b.cache").findings if f.code == "all-zero-tensor"}
    assert left == zero - {"x"}


def test_merge_states_the_first_and_says_where_the_others_differ(done, cli, made):
    np.save("other.npy", 3 * normal(40, 4, seed=1))
    done("calibrate", "model.onnx", "--data", "other.npy", "-o", "other.cache", "--batch-size", 8)
    result = done("cache", "merge", "out.cache", "other.cache", "--how", "max", "-o", "m.cache")
    assert result.err == "note: other.cache is from other data: the manifest states those of out.cache\n"
    found, theirs = manifest(made / "m.cache"), manifest(made / "other.cache")
    assert found.provenance == manifest(made / "out.cache").provenance
    assert [file.data_sha256 for file in found.edits[0].files] == [
        found.provenance.data.sha256,
        theirs.provenance.data.sha256,
    ]
    assert found.edits[0].notes == ["other.cache is from other data: the manifest states those of out.cache"]
    both = [facts(made / "out.cache"), facts(made / "other.cache")]
    largest = {n: max(both, key=lambda own, n=n: own[n].scale)[n] for n in both[0]}
    assert {n: f.model_dump() for n, f in facts(made / "m.cache").items()} == {
        n: f.model_dump() for n, f in largest.items()
    }
    assert done("cache", "verify", "m.cache").code == 0
    diff = json.loads(cli("cache", "diff", "other.cache", "m.cache", "--json").out)["pairs"][0]
    assert {change["name"] for change in diff["changes"]} == {n for n in both[0] if both[0][n].scale > both[1][n].scale}


def test_merge_with_a_cache_without_a_manifest_says_so(done, made):
    write("a.cache", "x: 7f000000")
    result = done("cache", "merge", "out.cache", "a.cache", "--how", "max", "-o", "m.cache")
    assert f"note: {UNKNOWN}: the manifest states those of out.cache" in result.err
    assert "x" not in facts(made / "m.cache")
    assert manifest(made / "m.cache").edits[0].files[1].model_sha256 is None


def test_a_manifest_of_other_bytes_is_not_believed_and_does_not_stay(done, made):
    Path("out.cache").write_bytes(Path("out.cache").read_bytes() + b"\n")
    result = done("cache", "set", "out.cache", "sum=1", "-o", "out.cache")
    assert "the manifest out.cache.json is of another cache, or the cache was changed after it" in result.err
    assert not (made / "out.cache.json").exists()
    assert (made / "out.cache.edits.json").exists()


def test_a_record_of_edits_goes_where_a_manifest_comes(done, made):
    write("a.cache", "x: 1")
    done("cache", "set", "a.cache", "x=1", "-o", "b.cache")
    done("cache", "set", "out.cache", "x=1", "-o", "b.cache")
    assert (made / "b.cache.json").exists()
    assert not (made / "b.cache.edits.json").exists()


def test_the_same_edit_gives_the_same_files(done, made):
    done("cache", "set", "out.cache", "x=1", "-o", "b.cache")
    before = listing(made)
    done("cache", "set", "out.cache", "x=1", "-o", "b.cache")
    assert listing(made) == before


# names that nothing can print


def test_names_that_are_not_utf8_pass_through(done, folder):
    (folder / "a.cache").write_bytes(f"{HEADER}\n".encode() + b"caf\xe9: 1\n\x1b[31mred: 2\n")
    result = done("cache", "set", "a.cache", "caf\udce9=127", "\x1b[31mred=1", "-o", "b.cache", "--json")
    assert (folder / "b.cache").read_bytes().startswith(f"{HEADER}\n".encode() + b"caf\xe9: 3f800000\n\x1b[31mred: ")
    assert json.loads(result.out)["changed"][0]["name"] == "caf\\udce9"
    assert "\x1b" not in done("cache", "set", "a.cache", "\x1b[31mred=1", "-o", "b.cache").out


# refused


@pytest.mark.parametrize(
    ("arguments", "faults"),
    [
        (["conv2=1"], ["a.cache: no such tensor: 'conv2' (did you mean 'conv1'?); --add adds it"]),
        (["conv1"], ["TENSOR=AMAX: 'conv1': expected TENSOR=AMAX, such as conv1=3.5"]),
        (["=1"], ["TENSOR=AMAX: '=1': expected TENSOR=AMAX, such as conv1=3.5"]),
        (
            ["conv1=nan", "conv1=1e39", "conv1=-1", "conv1=0", "conv1=1e-60", "conv1=1_0", "conv1=٣"],
            [
                "TENSOR=AMAX: 'conv1=nan': the amax nan is not finite in float32",
                "TENSOR=AMAX: 'conv1=1e39': the amax 1e39 is not finite in float32",
                "TENSOR=AMAX: 'conv1=-1': the amax -1 is negative: it is the largest |x| that INT8 is to hold",
                "TENSOR=AMAX: 'conv1=0': the amax is 0, which TensorRT writes for a tensor that was all zero: --allow-zero if that is meant",
                "TENSOR=AMAX: 'conv1=1e-60': the amax 1e-60 is too small: its scale is 0 in float32",
                "TENSOR=AMAX: 'conv1=1_0': '1_0' is no number; expected an amax, such as conv1=3.5",
                "TENSOR=AMAX: 'conv1=٣': '٣' is no number; expected an amax, such as conv1=3.5",
            ],
        ),
        (["conv1=1", "conv1=2"], ["TENSOR=AMAX: 'conv1=2': the tensor stands twice"]),
        (
            ["a\nb=1", "--add"],
            ["TENSOR=AMAX: 'a\\nb=1': the name 'a\\nb' cannot stand on a line of a calibration cache"],
        ),
    ],
)
def test_set_refuses(refused, folder, arguments, faults):
    write("a.cache", "conv1: 1")
    assert refused("cache", "set", "a.cache", *arguments, "-o", "b.cache").splitlines() == faults


def test_rename_refuses_with_all_faults_at_once(refused, folder):
    write("a.cache", "a: 1", "b: 2", "c: 3", "d: 4")
    Path("map.yaml").write_text("a: x\nb: x\nc: d\nnope: y\nd: ' d'\n")
    assert refused("cache", "rename", "a.cache", "--map", "map.yaml", "-o", "b.cache").splitlines() == [
        "map.yaml: 'a': 2 tensors would be called 'x'",
        "map.yaml: 'b': 2 tensors would be called 'x'",
        "map.yaml: 'nope': no such tensor in a.cache",
        "map.yaml: 'd': the new name ' d' cannot stand on a line of a calibration cache",
    ]
    Path("map.yaml").write_text("c: d\n")
    assert refused("cache", "rename", "a.cache", "--map", "map.yaml", "-o", "b.cache") == (
        "map.yaml: 'c': a.cache has a tensor 'd' already, which is not renamed itself\n"
    )


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("a: b\na: c\n", "the key 'a' stands twice"),
        ("a: [b]\n", "input should be a valid string"),
        ("- a\n", "found list, expected a mapping"),
        ("{}\n", "names no tensor"),
        ("a: &x b\nc: *x\n", "aliases are not allowed here"),
    ],
)
def test_rename_reads_its_map_strictly(refused, folder, content, words):
    write("a.cache", "a: 1", "c: 3")
    Path("map.yaml").write_text(content)
    assert words in refused("cache", "rename", "a.cache", "--map", "map.yaml", "-o", "b.cache")


def test_merge_refuses(refused, misused, folder):
    write("a.cache", "x: 1", "", "n: 7fc00000", "m: bf800000")
    write("b.cache", "x: 1")
    write("c.cache", "x: 1", header="TRT-101601-MinMaxCalibration")
    assert refused("cache", "merge", "b.cache", "c.cache", "--how", "max", "-o", "m.cache") == (
        "c.cache: its scales are by MinMaxCalibration, those of b.cache by EntropyCalibration2: two methods have no common scale. To merge "
        "them all the same, give it the other header first: trtcalib cache convert --algorithm EntropyCalibration2\n"
    )
    assert refused("cache", "merge", "b.cache", "a.cache", "--how", "max", "-o", "m.cache").splitlines() == [
        "a.cache: line 4: tensor 'n' has the scale nan, which cannot be merged: give it one with trtcalib cache set",
        "a.cache: line 5: tensor 'm' has the scale -1.0, which cannot be merged: give it one with trtcalib cache set",
    ]
    write("a.cache", "x: 1", "y: 2")
    assert refused("cache", "merge", "a.cache", "b.cache", "--how", "max", "--strict", "-o", "m.cache") == (
        "b.cache: tensor 'y' is not in every cache, and --strict asks for the same names in all\n"
    )
    assert "expected two or more to merge" in misused("cache", "merge", "a.cache", "--how", "max", "-o", "m.cache")
    assert "Missing option '--how'" in misused("cache", "merge", "a.cache", "b.cache", "-o", "m.cache")


def test_convert_refuses(refused, misused, folder):
    write("a.cache", "x: 1")
    assert "TensorRT 11 removed calibrators" in refused(
        "cache", "convert", "a.cache", "--tensorrt-version", "11.0.0", "-o", "b.cache"
    )
    assert "expected MAJOR.MINOR.PATCH" in refused(
        "cache", "convert", "a.cache", "--tensorrt-version", "10", "-o", "b.cache"
    )
    assert "say what the header is to be" in misused("cache", "convert", "a.cache", "-o", "b.cache")
    assert "'entropi' is no algorithm (did you mean 'entropy'?)" in misused(
        "cache", "convert", "a.cache", "--algorithm", "entropi", "-o", "b.cache"
    )


@pytest.mark.parametrize("header", ["TRT-999999999-EntropyCalibration2", "TRT-0-Odd"])
def test_convert_takes_any_header(done, folder, header):
    write("a.cache", "x: 1", header=header)
    done("cache", "convert", "a.cache", "--tensorrt-version", "10.16.1", "--algorithm", "entropy", "-o", "b.cache")
    assert (folder / "b.cache").read_bytes() == f"{HEADER}\nx: 1\n".encode()


def test_results_that_would_take_the_place_of_something_are_refused(refused, folder):
    write("a.cache", "x: 1")
    Path("map.yaml").write_text("x: y\n")
    for name in ("map.yaml", "no/b.cache", "."):
        refused("cache", "rename", "a.cache", "--map", "map.yaml", "-o", name)
    Path("b.cache.json").write_text("{}")
    assert refused("cache", "set", "a.cache", "x=1", "-o", "b.cache") == (
        "b.cache.json: stands beside the result and is no manifest: move it away, or choose another name for the result\n"
    )
    write("c.cache.json", "x: 1")
    assert "is an input" in refused("cache", "set", "c.cache.json", "x=1", "-o", "c.cache")


@pytest.mark.parametrize("content", [b"", b"\0\1", b"TRT-1-x\nno line\n", b"TRT-1-x\na: 123456789\n"])
def test_what_is_no_cache_is_refused(refused, folder, content):
    (folder / "a.cache").write_bytes(content)
    assert refused("cache", "set", "a.cache", "x=1", "-o", "b.cache").startswith("a.cache:")
    assert refused("cache", "set", "missing.cache", "x=1", "-o", "b.cache") == (
        "missing.cache: cannot be read: No such file or directory\n"
    )


def test_a_broken_manifest_is_told_of(done, folder):
    write("a.cache", "x: 1")
    Path("a.cache.json").write_text("{")
    result = done("cache", "set", "a.cache", "x=1", "-o", "b.cache")
    assert "note: the manifest a.cache.json cannot be used: a.cache.json: file: Invalid JSON" in result.err


def test_many_changes_are_counted(done, folder):
    write("a.cache", *(f"t{i}: 1" for i in range(30)))
    result = done("cache", "set", "a.cache", *(f"t{i}=1" for i in range(30)), "-o", "b.cache")
    assert len(result.out.splitlines()) == 22
    assert result.out.endswith("  ... and 10 more; --json lists all\n")
    assert bits_from_scale(scale_from_amax(1)) == cache(folder / "b.cache").entries[29].bits
