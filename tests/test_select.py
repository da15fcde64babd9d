"""`curate select`: which rows, and what the manifest says of them; expected values by h5py and numpy."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binomtest
from small_sets import config, files, manifest_of, rows_of

from curate import cli, prose
from curate.build import build
from curate.deriving.redo import redo
from curate.deriving.select import SelectConfig, parse_band, select
from curate.report import render
from srood import outliers
from srood.errors import InputError


@pytest.fixture
def a(small_sets) -> Path:
    return small_sets / "a" / "mini.h5"


def chosen(a: Path, out: Path, **conditions) -> np.ndarray:
    """The rows of `a`, by number, that `select` writes, after a look at every column of them."""
    before, after = rows_of(a), rows_of(select(SelectConfig(a, out, **conditions)).out)
    place = {digest: row for row, digest in enumerate(before["sha256"].tolist())}
    rows = np.array([place[digest] for digest in after["sha256"].tolist()])
    assert before.keys() == after.keys()
    for name in before:
        assert np.array_equal(before[name][rows], after[name]) and (
            name == "name" or before[name].dtype == after[name].dtype
        )
    assert not outliers.verify(out)
    return rows


def test_all_conditions_at_once_in_the_order_of_the_set(a, tmp_path):
    columns = rows_of(a)
    conditions = {"exclude_label": ("house",), "cluster": (0, 3), "id_ness": "-2.5:1", "size": 11}
    met = (columns["name"] != "house") & np.isin(columns["cluster"], [0, 3])
    met &= (columns["id_ness"] >= -2.5) & (columns["id_ness"] <= 1)
    assert met.sum() > 11
    rows = chosen(a, tmp_path / "some.h5", **conditions)
    assert rows.tolist() == np.flatnonzero(met)[:11].tolist()

    last = manifest_of(tmp_path / "some.h5")["stages"][-1]
    house, out_of = columns["name"] == "house", ~np.isin(columns["cluster"], [0, 3])
    assert last["stage"] == "select" and (last["seen"], last["left"]) == (150, 11)
    assert last["dropped"]["excluded label"] == house.sum()
    assert last["dropped"]["not of these clusters"] == (~house & out_of).sum()
    assert last["dropped"]["beyond --size"] == met.sum() - 11
    assert 150 - sum(last["dropped"].values()) == 11


@pytest.mark.parametrize(
    ("label", "names"),
    [
        ("house", {"house"}),
        ("elm tree", {"elm tree"}),
        ("Tabby_Cat", {"tabby cat"}),
        ("n04285008", {"n04285008 sports car"}),
        ("sports car", {"n04285008 sports car"}),
    ],
)
def test_labels_by_name_word_and_wordnet_id(a, tmp_path, label, names):
    expected = np.flatnonzero(np.isin(rows_of(a)["name"], list(names)))
    assert chosen(a, tmp_path / "x.h5", label=(label,)).tolist() == expected.tolist()
    rest = chosen(a, tmp_path / "y.h5", exclude_label=(label,))
    assert sorted([*rest, *expected]) == list(range(150))


def test_a_band_of_values_holds_both_ends_and_shares_are_quantiles(a, tmp_path):
    id_ness = rows_of(a)["id_ness"]
    low, high = np.sort(id_ness)[[20, 70]]
    rows = chosen(a, tmp_path / "values.h5", id_ness=f"{low:.4f}:{high:.4f}")
    assert rows.tolist() == np.flatnonzero((id_ness >= low) & (id_ness <= high)).tolist() and len(rows) >= 51
    assert chosen(a, tmp_path / "open.h5", id_ness=f":{high:.4f}").tolist() == np.flatnonzero(id_ness <= high).tolist()
    rows = chosen(a, tmp_path / "shares.h5", id_ness="50%:90%")
    from_, to = np.quantile(id_ness.astype(float), [0.5, 0.9])
    assert rows.tolist() == np.flatnonzero((id_ness >= from_) & (id_ness <= to)).tolist()
    assert (
        f"ID-ness 50%:90% of mini.h5: {from_:.4f} to {to:.4f}"
        in manifest_of(tmp_path / "shares.h5")["derived"]["notes"]
    )
    top = chosen(a, tmp_path / "top.h5", id_ness="90%:")
    assert top.tolist() == np.flatnonzero(id_ness >= to).tolist()


@pytest.mark.parametrize("text", ["0.5", ":", "1:0", "50%:0.9", "%:90%", "90%:50%", "50%:120%", "a:b", "1:1"])
def test_what_is_no_band(text):
    with pytest.raises(InputError, match="--id-ness"):
        parse_band(text)


def test_the_manifest_is_true_of_the_rows_and_names_its_parent(a, tmp_path):
    parent, result = manifest_of(a), select(SelectConfig(a, tmp_path / "x.h5", exclude_label=("house",), size=40))
    manifest, columns = manifest_of(result.out), rows_of(result.out)
    cats = int((columns["name"] == "tabby cat").sum())
    interval = binomtest(cats, 40).proportion_ci(method="exact")
    found = manifest["contamination"]
    assert 0 < cats < 40 and found["kept"] == pytest.approx(cats / 40)
    assert found["kept_interval"] == pytest.approx([interval.low, interval.high], abs=1e-6)
    assert (found["labelled_rows_kept"], found["estimated"]) == (40, None)
    assert (found["corpus"], found["corpus_interval"]) == (0.25, parent["contamination"]["corpus_interval"])

    derived = manifest["derived"]
    assert derived["operation"] == "select"
    assert derived["options"] == {
        **{"label": [], "exclude_label": ["house"], "cluster": [], "id_ness": None, "size": 40},
    }
    (origin,) = derived["parents"]
    assert origin["manifest"] == parent and origin["file"] == "mini.h5"
    assert origin["fingerprint"] == outliers.OutlierSet.open(a).fingerprint
    assert origin["shards"] == [entry["sha256"] for entry in parent["shards"]]
    assert manifest["stages"][:-1] == parent["stages"] and manifest["requested_rows"] == manifest["rows"] == 40
    for name in ("leak_certificate", "id_filter", "sources", "label_names", "id_labels", "resampling"):
        assert manifest[name] == parent[name]
    assert "evidence" not in manifest and manifest.keys() | {"evidence"} == parent.keys() | {"derived"}
    assert not any(str(path) in json.dumps(manifest) for path in (a.parent, tmp_path))


def test_estimates_and_strata_are_not_carried_over(a, tmp_path):
    """Of a parent that says more than small sets can: the estimate is of other rows, and so are drawn strata."""
    from curate.deriving.parents import open_parent
    from curate.deriving.select import describe

    parent, notes = open_parent(a), []
    parent.manifest["contamination"]["estimated"] = {"kept": {"point": 0.1, "low": 0, "high": 0.2}}
    parent.manifest["sampling"]["strata"] = {"all": 4, "drawn": 4, "least": 1, "most": 2}
    parent.manifest.pop("id_labels")
    described = describe(parent, np.array([2, 2, 0]), 3, {}, notes)
    assert described["contamination"] == {
        **{"measured_by": None, "corpus": None, "kept": None, "labelled_rows_kept": 3, "estimated": None},
        **{"corpus_interval": None, "kept_interval": None},
    }
    assert "strata" not in described["sampling"] and described["sampling"]["strategy"] == "uniform"
    assert len(notes) == 2 and "id_labels" not in described


def test_shards_are_of_the_parents_rows_and_bytes_are_the_same_again(a, tmp_path):
    config = SelectConfig(a, tmp_path / "1" / "x.h5", exclude_label=("elm tree",), cluster=(4, 0, 1, 2))
    select(config)
    rows = [entry["rows"] for entry in manifest_of(config.out)["shards"]]
    assert rows[0] == 64 and len(rows) == 2
    again = replace(config, out=tmp_path / "2" / "x.h5", cluster=(0, 1, 2, 4, 4))
    select(again)
    assert files(config.out.parent) == files(again.out.parent)
    before = {path: path.stat().st_mtime_ns for path in config.out.parent.iterdir()}
    assert "already holds this set" in select(config).notes[0]
    assert {path: path.stat().st_mtime_ns for path in config.out.parent.iterdir()} == before
    with pytest.raises(InputError, match="exists with other content; give --overwrite"):
        select(replace(config, size=5))
    select(replace(config, size=5, overwrite=True))
    assert sorted(path.name for path in config.out.parent.iterdir()) == ["x-00000-of-00001.h5", "x.h5"]


def test_the_first_rows_are_what_a_smaller_build_writes_to_the_byte(small_sets, a, tmp_path):
    smaller = config(small_sets, "a", "first.parquet", size=70, protect=(str(small_sets / "ood.parquet"),))
    built = build(replace(smaller, out=tmp_path / "built" / "mini.h5")).out
    out = select(SelectConfig(a, tmp_path / "selected" / "mini.h5", size=70)).out
    for entry in manifest_of(out)["shards"]:
        assert (out.parent / entry["file"]).read_bytes() == (built.parent / entry["file"]).read_bytes()


def test_a_selection_of_a_selection_and_the_same_once_more(a, tmp_path):
    first = select(SelectConfig(a, tmp_path / "few.h5", exclude_label=("house",))).out
    second = select(SelectConfig(first, tmp_path / "fewer.h5", cluster=(1, 2), size=9)).out
    columns = rows_of(a)
    met = (columns["name"] != "house") & np.isin(columns["cluster"], [1, 2])
    assert rows_of(second)["key"].tolist() == columns["key"][met][:9].tolist()
    manifest = manifest_of(second)
    assert [entry["stage"] for entry in manifest["stages"][-2:]] == ["select", "select"]
    lefts, seens = ([entry[x] for entry in manifest["stages"]] for x in ("left", "seen"))
    assert seens[1:] == lefts[:-1] and lefts[-1] == 9

    again = redo(manifest["derived"], [first], tmp_path / "again" / "fewer.h5")
    assert manifest_of(again) == manifest
    assert files(again.parent) == {path.name: path.read_bytes() for path in tmp_path.glob("fewer*.h5")}
    with pytest.raises(InputError, match="is made from 1 sets, 2 are given"):
        redo(manifest["derived"], [first, a], tmp_path / "z.h5")
    with pytest.raises(InputError, match="was made by select with colour; use the srood that made it"):
        redo({**manifest["derived"], "options": {"colour": 1}}, [first], tmp_path / "z.h5")

    lines = prose.command(manifest, "fewer.h5")[0].splitlines()
    assert lines[0].startswith("curate build ") and lines[0].endswith("--out mini.h5")
    assert lines[1] == "curate select mini.h5 --exclude-label house --out few.h5"
    assert lines[2] == "curate select few.h5 --cluster 1 --cluster 2 --size 9 --out fewer.h5"
    page = render(outliers.OutlierSet.open(second))
    assert "selected from few.h5" in page and "A set made from sets has no evidence file" in page
    assert all(line in page for line in lines[1:])


@pytest.mark.parametrize(
    ("conditions", "words"),
    [
        ({"label": ("tabby cats",)}, "--label tabby cats: is no label of .*did you mean 'tabby cat'?"),
        ({"exclude_label": ("hose",)}, "--exclude-label hose: is no label of .*did you mean 'house'?"),
        ({"label": ("qqq",)}, "--label qqq: is no label of .*its 4 labels are house, elm tree, tabby cat, ..."),
        ({"cluster": (7,)}, "--cluster 7: no row of .* is of this cluster; there are 5, numbered 0 to 4"),
        ({"id_ness": "50:60"}, r"no row meets all conditions \(outside the band of ID-ness 150\); weaken one"),
        ({"label": ("house",), "exclude_label": ("house",)}, "no row meets all conditions"),
        ({"size": 0}, "--size 0: must be at least 1"),
        ({}, "nothing is selected; give --label"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(a, tmp_path, conditions, words):
    with pytest.raises(InputError, match=words) as error:
        select(SelectConfig(a, tmp_path / "x.h5", **conditions))
    assert "\n" not in str(error.value) and list(tmp_path.iterdir()) == []


def test_a_set_is_not_written_over_itself_nor_over_its_shards(a, tmp_path):
    for name, content in files(a.parent).items():
        (tmp_path / ("other.h5" if name == "mini.h5" else name)).write_bytes(content)
    for file, out in ((a, a), (tmp_path / "other.h5", tmp_path / "mini.h5")):
        with pytest.raises(InputError, match="is a set that it is made from"):
            select(SelectConfig(file, out, size=3, overwrite=True))
    assert not outliers.verify(a) and not outliers.verify(tmp_path / "other.h5")


def test_the_command_line(a, tmp_path, monkeypatch, capsys):
    def curate(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["curate", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        return (end.value.code or 0, *capsys.readouterr())

    out = tmp_path / "x.h5"
    code, printed, notes = curate("select", a, "--out", out, "--id-ness", "-9:9", "--size", "1k")
    assert code == 0 and "wrote " in printed and "asked for 1,000 rows, 150 meet the conditions" in notes
    code, printed, _ = curate("select", a, "--out", tmp_path / "y.h5", "--label", "house", "--json")
    assert json.loads(printed)["manifest"]["rows"] == (rows_of(a)["name"] == "house").sum()
    assert curate("select", a, "--out", tmp_path / "z.h5", "--label", "mouse")[0] == 2
    code, printed, _ = curate("inspect", out)
    printed = " ".join(printed.split())  # lines are folded
    assert (
        code == 0 and "selected from mini.h5 (150 rows" in printed and "largest similarity left at most 0." in printed
    )
    assert curate("verify", out)[0] == 0
    assert curate("report", out, "--out", tmp_path / "report.html")[0] == 0
