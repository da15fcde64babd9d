"""Files of others that are bounded before they are read: YAML, the manifest's JSON, pickled checkpoints, Parquet."""

import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from rebuilt_sets import write_document
from safetensors.torch import load_file

from srood import json_documents, yaml_files
from srood.errors import InputError
from srood.manifest_fields import problem
from srood.models.weights import read_info
from srood.outliers import read_manifest
from srood.parquet import ParquetPart, _batch_rows


def test_aliases_are_read_as_long_as_they_do_not_expand():
    text = "a: &x [1, 2]\nb: [*x, *x]\nc: &y two\nd: *y\n"
    assert yaml_files.parse(text) == {"a": [1, 2], "b": [[1, 2], [1, 2]], "c": "two", "d": "two"}
    laughs = "a0: &a0 [lol]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 9))
    with pytest.raises(yaml.YAMLError, match="more than 1,000,000 values"):  # 9^8 = 43 million
        yaml_files.parse(laughs)
    with pytest.raises(yaml.YAMLError, match="within what it stands for"):
        yaml_files.parse("&a [*a]")


NO_PLAIN_VALUES = {
    "a tag": "!!python/object/apply:os.getcwd []",
    "a date that is none": "a: 2020-13-45",
    "deep": "[" * 100_000,
    "deep by dashes": "- " * 600 + "a",
    "a number of 10,000 digits": f"a: {'9' * 10_000}",
    "a key that is a list": "? [a]\n: b",
}


@pytest.mark.parametrize("text", NO_PLAIN_VALUES.values(), ids=NO_PLAIN_VALUES)
def test_yaml_that_is_no_plain_value_is_an_error_of_yaml(text):
    with pytest.raises(yaml.YAMLError):
        yaml_files.parse(text)


@pytest.mark.parametrize("text", ['{"a": NaN}', '{"a": -Infinity}', '{"a": 1, "a": 2}', "[" * 100_000, "{"])
def test_json_is_strict(text):
    with pytest.raises(ValueError):
        json_documents.parse(text)


def test_an_altered_manifest_is_named(tmp_path):
    text = json.dumps({"format": "srood-outliers", "schema_version": 1, "rows": 0, "shards": []}).encode()
    for digest, words in (("0" * 64, "was altered"), (None, None)):
        path = tmp_path / "mini.h5"
        with h5py.File(path, "w") as file:
            file["manifest"] = np.bytes_(text)
            if digest:
                file["manifest_sha256"] = np.bytes_(digest)
        if words:
            with pytest.raises(InputError, match=words):
                read_manifest(path)
        else:  # as sets were written before there was a checksum
            assert read_manifest(path)["rows"] == 0


def test_a_field_of_another_type_is_named():
    assert problem({"stages": [{"stage": "a", "seen": 1, "dropped": {"x": 1}, "left": 0}], "unknown": None}) == ""
    assert problem({"stages": [{"stage": "a", "seen": 1, "dropped": {"x": "1"}, "left": 0}]}) == (
        "manifest.stages[0].dropped.x is str"
    )
    assert problem({"stages": [{"stage": "a"}]}) == "manifest.stages[0] has no seen"


READ, USED = {"inspect", "report"}, {"select", "merge", "publish"}  # commands that get by with less, and the others


@pytest.mark.parametrize(
    ("field", "refuse"),
    [
        ("id_filter.id_ness", set()),
        ("requested_rows", set()),
        ("id_filter.recall", {"select", "merge"}),
        ("id_filter.embedder", {"select", "merge"}),
        ("sources", USED),
        ("sources.0.name", USED),
        ("sources.0.rows", set()),
        ("config", USED),
        ("config.image_size", USED),
        ("contamination", {"select", "merge"}),
        ("leak_certificate", {"select", "merge"}),
        ("leak_certificate.protected.0.rows", {"select", "merge"}),
        ("leak_certificate.threshold.similarity", {"select", "merge"}),
        ("versions", USED),
    ],
)
def test_a_manifest_that_lacks_a_field(small_sets, tmp_path, curate, field, refuse):
    """Commands do without it, or name it in one line."""
    path = Path(shutil.copytree(small_sets / "a", tmp_path / "sets")) / "mini.h5"
    document = read_manifest(path)
    document["id_filter"]["recall"] = 0.5  # as if there had been a filter, of which a line is printed
    *above, last = (int(part) if part.isdecimal() else part for part in field.split("."))
    holder = document
    for part in above:
        holder = holder[part]
    del holder[last]
    write_document(path, document)
    out, other = tmp_path / "out", small_sets / "b" / "mini.h5"
    arguments = {
        "inspect": (path,),
        "report": (path, "--out", out / "report.html"),
        "select": (path, "--size", 5, "--out", out / "some.h5"),
        "merge": (path, other, "--keep-near-duplicates", "--out", out / "all.h5"),
        "publish": (path, "owner/name", "--rights-confirmed", "--dry-run", out / "dry"),
    }
    out.mkdir()
    for command in READ | USED:
        code, _, err = curate(command, *arguments[command])
        assert code == (2 if command in refuse else 0), (command, err)
        if code:
            missing = ".".join(part for part in field.split(".") if part != "0")
            assert err.startswith(f"error: {path}: its manifest has no {missing}") and err.count("\n") == 1


@pytest.mark.slow
def test_the_message_on_a_pickled_checkpoint_converts_it(tmp_path):
    path = tmp_path / "it's a checkpoint.pt"
    torch.save({"state_dict": {"fc.weight": torch.arange(6.0)}}, path)
    with pytest.raises(InputError, match="pickled checkpoint") as caught:
        read_info(path)
    words = shlex.split(str(caught.value).partition("convert it with `")[2].rpartition("`, which")[0])
    assert words[0] == "python"
    subprocess.run([sys.executable, *words[1:]], check=True)
    assert load_file(path.with_suffix(".safetensors"))["fc.weight"].tolist() == [0, 1, 2, 3, 4, 5]


def test_rows_that_repeat_a_large_image_are_read_few_at_a_time(tmp_path):
    large, small = b"\0" * (40 << 20), b"\0" * 1000
    for value, rows in ((large, 1), (small, 256)):
        path = tmp_path / "a.parquet"
        column = pa.DictionaryArray.from_arrays(pa.array([0] * 5000, pa.int32()), pa.array([value], pa.binary()))
        pq.write_table(pa.table({"image": column}), path, store_schema=False)
        with pq.ParquetFile(path) as file:
            assert _batch_rows(file.metadata.row_group(0), "image", ParquetPart(path=path)) == rows
