"""`curate diff`: rows, columns, order, manifests and bytes; expected values by h5py and numpy."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from small_sets import config, files, manifest_of, rewrite, rows_of

from curate import cli
from curate.build import build
from curate.deriving.diff import ColumnDifference, compare, manifest_differences
from curate.deriving.select import SelectConfig, select
from srood.errors import InputError


@pytest.fixture
def a(small_sets) -> Path:
    return small_sets / "a" / "mini.h5"


@pytest.fixture
def curate(monkeypatch, capsys):
    def call(*words: object) -> tuple[int, str]:
        monkeypatch.setattr("sys.argv", ["curate", "diff", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        return (end.value.code or 0, capsys.readouterr().out)

    return call


def test_the_same_set_under_another_name_is_identical(a, tmp_path, curate):
    copy = rewrite(a, tmp_path / "copy.h5", lambda columns: columns, shard_rows=64)
    found = compare(a, copy)
    assert found.same_shards and [field for field, _, _ in found.fields] == ["evidence.sha256"]  # it has no evidence
    twin = tmp_path / "twin" / "mini.h5"
    shutil.copytree(a.parent, twin.parent)
    found = compare(a, twin)
    assert found.verdict == "identical" and found.fields == () and found.columns == {} and found.same_order
    code, printed = curate(a, twin, "--fail-on-difference")
    assert code == 0 and printed.startswith("identical: 150 rows, every byte of the shards")
    other = select(SelectConfig(a, tmp_path / "1" / "x.h5", size=30)).out
    again = select(SelectConfig(a, tmp_path / "1" / "y.h5", size=30)).out
    assert compare(other, again).verdict == "identical"


def test_rows_in_both_and_in_one_only(small_sets, curate):
    a, c = small_sets / "a" / "mini.h5", small_sets / "c" / "mini.h5"
    keys = [set(rows_of(path)["key"].tolist()) for path in (a, c)]
    found = compare(a, c)
    assert found.verdict == "different" and found.rows == (150, 100)
    assert found.common == len(keys[0] & keys[1]) and found.only == (len(keys[0] - keys[1]), len(keys[1] - keys[0]))
    assert not found.same_order and not found.same_shards
    one, other = (dict(zip(rows_of(p)["key"].tolist(), rows_of(p)["cluster"].tolist(), strict=True)) for p in (a, c))
    assert found.columns == {"cluster": ColumnDifference(sum(one[key] != other[key] for key in keys[0] & keys[1]))}
    fields = {field: values for field, *values in found.fields}
    assert fields["config.seed"] == [0, 1] and fields["rows"] == [150, 100]
    assert fields["stages.sample.left"] == [150, 100] and fields["stages.sample.dropped.not drawn"] == [30, 80]
    assert fields["leak_certificate.threshold.similarity"] == [
        manifest_of(path)["leak_certificate"]["threshold"]["similarity"] for path in (a, c)
    ]
    further = manifest_of(a)["leak_certificate"]["protected"][2]
    assert fields[f"leak_certificate.protected.{further['name']}.rows"] == [20, None]
    code, printed = curate(a, c, "--fail-on-difference")
    first = f"different: {found.common} rows in both, {found.only[0]} only in A, {found.only[1]} only in B"
    assert code == 1 and printed.splitlines()[0] == first
    lines = [" ".join(line.split()) for line in printed.splitlines()]
    assert "config.seed 0 1" in lines and f"rows only here {found.only[0]} {found.only[1]}" in lines
    assert f"cluster {found.columns['cluster'].rows}" in lines


def test_columns_of_common_rows(a, tmp_path):
    def change(columns):
        columns = {name: values[::-1].copy() for name, values in columns.items()}
        columns["id_ness"][[3, 5, 9]] += np.float32([0.25, -0.5, 0.125])
        columns["id_similarity"][7] = np.nan
        columns["label"][[0, 1]] = -1
        columns.pop("cluster")
        return columns | {"rank": np.arange(150)}

    b = rewrite(a, tmp_path / "b.h5", change)
    found = compare(a, b)
    assert found.verdict == "same rows, other bytes" and found.common == 150 and not found.same_order
    assert found.columns.keys() == {"id_ness", "id_similarity", "label"}
    assert found.columns["id_ness"].rows == 3 and found.columns["id_ness"].largest == pytest.approx(0.5, abs=1e-6)
    assert found.columns["id_similarity"] == ColumnDifference(1, None)
    assert found.columns["label"] == ColumnDifference(2)
    assert found.only_columns == (("cluster",), ("rank",))
    assert compare(b, b).columns == {}  # NaN is NaN


def test_labels_are_compared_by_name_and_shards_by_bytes(a, tmp_path, curate):
    names = manifest_of(a)["label_names"]
    renamed = rewrite(
        a, tmp_path / "1" / "mini.h5", lambda c: c | {"label": 3 - c["label"]}, shard_rows=64, label_names=names[::-1]
    )
    found = compare(a, renamed)
    assert found.columns == {} and found.same_order and not found.same_shards
    assert found.verdict == "same rows, other bytes"
    code, printed = curate(a, renamed)
    assert code == 0 and printed.startswith("same rows, other bytes: all 150 rows in both; 2 fields of the manifest")
    larger = compare(a, rewrite(a, tmp_path / "2" / "mini.h5", lambda c: c, shard_rows=50))
    assert larger.columns == {} and not larger.same_shards and larger.verdict == "same rows, other bytes"
    versions = manifest_of(a)["versions"] | {"numpy": "0.1"}
    older = compare(a, rewrite(a, tmp_path / "3" / "mini.h5", lambda c: c, shard_rows=64, versions=versions))
    assert older.same_shards and older.headline().startswith("same rows, other bytes: shards are byte-identical")
    assert ("versions.numpy", manifest_of(a)["versions"]["numpy"], "0.1") in older.fields


def test_a_picture_that_is_there_twice_pairs_twice(a, tmp_path):
    doubled = rewrite(a, tmp_path / "b.h5", lambda c: {n: np.concatenate([v, v[:5]]) for n, v in c.items()})
    assert (compare(a, doubled).common, compare(a, doubled).only) == (150, (0, 5))
    assert (compare(doubled, doubled).common, compare(doubled, doubled).only) == (155, (0, 0))


def test_the_summary_is_json_and_altered_sets_are_refused(small_sets, a, tmp_path, curate):
    b = small_sets / "b" / "mini.h5"
    summary = json.loads(curate(a, b, "--json")[1])
    common = set(rows_of(a)["sha256"].tolist()) & set(rows_of(b)["sha256"].tolist())
    assert summary == json.loads(json.dumps(compare(a, b).summary()))
    assert summary["in_both"] == len(common) and summary["only_in"] == {"a": 150 - len(common), "b": 120 - len(common)}
    assert summary["verdict"] == "different" and summary["columns"].keys() >= {"key", "label"}
    assert {"field": "config.source", "a": ["first.parquet"], "b": ["second.parquet"]} in summary["manifest"]
    copy = tmp_path / "set" / "mini.h5"
    shutil.copytree(a.parent, copy.parent)
    (copy.parent / manifest_of(a)["shards"][1]["file"]).unlink()
    with pytest.raises(InputError, match="is missing"):
        compare(a, copy)
    assert curate(a, copy)[0] == 2


def test_sets_made_from_sets_differ_by_options_and_parents(small_sets, a, tmp_path):
    one = manifest_of(select(SelectConfig(a, tmp_path / "1.h5", size=9)).out)
    other = manifest_of(select(SelectConfig(small_sets / "c" / "mini.h5", tmp_path / "2.h5", size=8)).out)
    fields = {field for field, _, _ in manifest_differences(one, other)}
    assert {"derived.options.size", "derived.parents.0.fingerprint"} <= fields
    assert not any("manifest" in field for field in fields)
    assert manifest_differences(one, one) == []
    assert ("derived.operation", None, "select") in manifest_differences(manifest_of(a), one)


def test_a_build_with_another_setting(small_sets, tmp_path):
    """What `curate rebuild` asks: is it the same set?"""
    again = build(config(small_sets, "b", "second.parquet", size=120, out=tmp_path / "mini.h5", workers=2)).out
    assert compare(small_sets / "b" / "mini.h5", again).verdict == "identical"
    fewer = build(config(small_sets, "b", "second.parquet", size=60, out=tmp_path / "fewer.h5")).out
    found = compare(again, fewer)
    assert (found.common, found.only, found.same_order) == (60, (60, 0), True)


def test_sets_on_the_hub(small_sets, a, tmp_path, writable_hub, curate, monkeypatch, capsys):
    """Read from there, a set gives the bytes that it gives from the disk."""
    writable_hub.add("owner/set", a.parent)
    assert curate("hf://owner/set", a)[1].startswith("identical: 150 rows")
    for file, out in (("hf://owner/set/mini.h5", tmp_path / "1" / "x.h5"), (a, tmp_path / "2" / "x.h5")):
        monkeypatch.setattr("sys.argv", ["curate", "select", str(file), "--size", "20", "--out", str(out)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        assert not end.value.code, capsys.readouterr().err
    assert files(tmp_path / "1") == files(tmp_path / "2")
    both = ["curate", "merge", "hf://owner/set@main", str(small_sets / "c" / "mini.h5"), "--json"]
    monkeypatch.setattr("sys.argv", [*both, "--keep-near-duplicates", "--out", str(tmp_path / "y.h5")])
    capsys.readouterr()
    with pytest.raises(SystemExit):
        cli.main()
    keys = [set(rows_of(path)["key"].tolist()) for path in (a, small_sets / "c" / "mini.h5")]
    assert json.loads(capsys.readouterr().out)["manifest"]["rows"] == len(keys[0] | keys[1])
