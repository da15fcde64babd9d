"""Files of others that are bounded before they are read: YAML, the manifest's JSON, pickled checkpoints, Parquet."""

import json
import shlex
import subprocess
import sys

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
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
