"""`curate merge`: which rows, in which order, and what is certified of them; expected values by h5py and numpy."""

import hashlib
import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from digits_images import write_digits
from scipy.stats import binomtest
from small_sets import COPIED, REPEATED, config, files, manifest_of, rewrite, rows_of

from curate import cli, prose
from curate.build import build
from curate.deriving import joining
from curate.deriving.merge import EXACT, NEAR, MergeConfig, merge
from curate.deriving.parents import open_parent
from curate.deriving.redo import redo
from curate.deriving.select import SelectConfig, select
from curate.report import render
from srood import outliers
from srood.errors import InputError
from srood.models import build_model
from srood.models.weights import WeightsInfo, save_weights
from train.config import TuneConfig
from train.tune import tune


@pytest.fixture
def sets(small_sets) -> dict[str, Path]:
    return {name: small_sets / name / "mini.h5" for name in "abc"}


@pytest.fixture(scope="module")
def merged(small_sets, tmp_path_factory) -> Path:
    """The sets a and b."""
    out = tmp_path_factory.mktemp("merged") / "both.h5"
    return merge(MergeConfig((small_sets / "a" / "mini.h5", small_sets / "b" / "mini.h5"), out)).out


def numbers(keys: np.ndarray) -> set[int]:
    return {int(key.partition(b"#")[2]) for key in keys.tolist()}


def test_every_picture_once_and_copies_are_dropped(sets, merged):
    a, b, both = rows_of(sets["a"]), rows_of(sets["b"]), rows_of(merged)
    exact = set(a["sha256"].tolist()) & set(b["sha256"].tolist())
    assert 0 < len(exact) <= REPEATED
    planted = range(REPEATED, REPEATED + COPIED)  # in both corpora at the same rows, changed in the second
    pairs = [row for row in planted if row in numbers(a["key"]) & numbers(b["key"])]
    assert len(pairs) >= 5
    entry = manifest_of(merged)["stages"][-1]
    assert entry == {
        **{"stage": "merge", "seen": 270, "dropped": {EXACT: len(exact), NEAR: len(pairs)}},
        "left": 270 - len(exact) - len(pairs),
    }
    assert len(both["sha256"]) == len(set(both["sha256"].tolist())) == entry["left"]
    pixels = {hashlib.sha256(image.tobytes()).hexdigest().encode() for image in both["image"]}
    assert pixels == set(both["sha256"].tolist())
    for row in pairs:  # one of the two is left, the one of the lower rank
        of_a, of_b = (
            columns["sha256"][[int(k.partition(b"#")[2]) for k in columns["key"].tolist()].index(row)]
            for columns in (a, b)
        )
        left = {of_a, of_b} & pixels
        assert left == {min(of_a, of_b, key=lambda digest: hashlib.sha256(b"0:" + digest).digest())}
    assert not outliers.verify(merged)


def test_rows_keep_their_columns_and_labels_keep_their_names(sets, merged):
    rows = {}
    for name in "ba":  # a row that both have is of one of them
        columns = rows_of(sets[name])
        for row, digest in enumerate(columns["sha256"].tolist()):
            rows.setdefault(digest, []).append({column: columns[column][row] for column in columns})
    both = rows_of(merged)
    assert set(both) == set(rows_of(sets["a"])) - {"id_ness"}  # two corpora, two scales
    for row, digest in enumerate(both["sha256"].tolist()):
        names = ("key", "id_similarity", "id_class", "name")
        here = [both[name][row] for name in names]
        assert any(all(np.array_equal(here[n], o[name]) for n, name in enumerate(names)) for o in rows[digest])
        assert np.array_equal(both["image"][row], rows[digest][0]["image"])
    assert sorted(manifest_of(merged)["label_names"]) == sorted(
        ["house", "elm tree", "tabby cat", "n04285008 sports car", "lamp"]
    )
    assert "left out: column id_ness" in " ".join(manifest_of(merged)["derived"]["notes"])


def test_clusters_are_together_only_where_they_were(sets, merged):
    both, clusters = rows_of(merged), {}
    of = {name: dict(zip(*(rows_of(sets[name])[x].tolist() for x in ("key", "cluster")), strict=True)) for name in "ab"}
    assert set(of["a"]).isdisjoint(of["b"])
    for key, number in zip(both["key"].tolist(), both["cluster"].tolist(), strict=True):
        clusters.setdefault(number, set()).update((name, of[name][key]) for name in of if key in of[name])
    assert all(len(where) == 1 for where in clusters.values())
    assert sorted(clusters) == list(range(10)) == list(range(manifest_of(merged)["sampling"]["clusters"]))


def test_the_order_is_a_hash_of_seed_and_pixels_and_prefixes_are_samples(sets, merged, tmp_path):
    digests = rows_of(merged)["sha256"].tolist()
    assert digests == sorted(digests, key=lambda digest: hashlib.sha256(b"0:" + digest).digest())
    other = merge(MergeConfig((sets["a"], sets["b"]), tmp_path / "x.h5", seed=3)).out
    digests = rows_of(other)["sha256"].tolist()
    assert digests == sorted(digests, key=lambda digest: hashlib.sha256(b"3:" + digest).digest())
    of_a = np.isin(digests, rows_of(sets["a"])["sha256"])
    share = of_a.mean()
    for size in (60, 100, 160):  # within four standard deviations of a draw without replacement
        deviation = np.sqrt(share * (1 - share) / size * (1 - size / len(of_a)))
        assert abs(of_a[:size].mean() - share) < 4 * deviation


def test_the_order_of_the_sets_changes_no_byte_and_the_result_can_be_made_again(sets, merged, tmp_path):
    for name, files_given in (("1", (sets["b"], sets["a"])), ("2", (sets["a"], sets["b"]))):
        out = tmp_path / name / "both.h5"
        merge(MergeConfig(files_given, out))
        assert files(out.parent) == files(merged.parent)
    derived = manifest_of(merged)["derived"]
    prints = {outliers.OutlierSet.open(sets[name]).fingerprint: sets[name] for name in "ab"}
    parents = [prints[parent["fingerprint"]] for parent in derived["parents"]]
    again = tmp_path / "3" / "both.h5"
    assert redo(derived, parents, again) == again
    assert files(again.parent) == files(merged.parent)
    assert derived["options"] == {"keep_near_duplicates": False, "seed": 0}
    assert "already holds this set" in merge(MergeConfig((sets["b"], sets["a"]), again)).notes[0]


def test_keeping_near_duplicates_drops_repeated_pixels_only(sets, merged, tmp_path):
    out = merge(MergeConfig((sets["a"], sets["b"]), tmp_path / "x.h5", keep_near_duplicates=True)).out
    union = set(rows_of(sets["a"])["sha256"].tolist()) | set(rows_of(sets["b"])["sha256"].tolist())
    assert set(rows_of(out)["sha256"].tolist()) == union
    assert set(manifest_of(out)["stages"][-1]["dropped"]) == {EXACT}
    dropped = [
        digest for digest in rows_of(out)["sha256"].tolist() if digest not in set(rows_of(merged)["sha256"].tolist())
    ]
    assert len(dropped) == manifest_of(merged)["stages"][-1]["dropped"][NEAR]


def test_the_manifest_says_what_holds_of_every_row(sets, merged):
    a, b, both = manifest_of(sets["a"]), manifest_of(sets["b"]), manifest_of(merged)
    assert len(a["leak_certificate"]["protected"]) == 3
    certificate = both["leak_certificate"]
    assert certificate["protected"] == b["leak_certificate"]["protected"] and len(certificate["protected"]) == 2
    left = [m["leak_certificate"]["largest_similarity_left"] for m in (a, b)]
    assert certificate["largest_similarity_left"] == max(left) < certificate["threshold"]["similarity"]
    assert any("no longer certified against" in note and "ood" in note for note in both["derived"]["notes"])

    for number, entry in enumerate(both["stages"][:-1]):
        one, other = a["stages"][number], b["stages"][number]
        assert entry["seen"] == one["seen"] + other["seen"] and entry["left"] == one["left"] + other["left"]
    assert both["stages"][-2]["dropped"] == {"not drawn": 40}
    columns = rows_of(merged)
    cats, rows = int((columns["name"] == "tabby cat").sum()), len(columns["name"])
    interval = binomtest(cats, rows).proportion_ci(method="exact")
    found = both["contamination"]
    assert found["kept"] == pytest.approx(cats / rows, abs=1e-6)
    assert found["kept_interval"] == pytest.approx([interval.low, interval.high], abs=1e-6)
    assert (found["measured_by"], found["corpus"], found["corpus_interval"]) == ("labels", None, None)
    assert both["sources"] in (a["sources"] + b["sources"], b["sources"] + a["sources"])
    assert sorted(both["config"]["source"]) == ["first.parquet", "second.parquet"]
    assert both["config"]["image_size"] == 32 and both["config"]["protect"] == []
    assert both["rows"] == both["requested_rows"] == both["config"]["size"] == rows
    assert (both["id_filter"]["recall"], both["id_filter"]["id_ness"], both["id_filter"]["curve"]) == (0, None, [])
    assert both["id_filter"]["spread"] == {"neighbour": None, "class": None, "energy": None}
    assert "evidence" not in both and both.keys() | {"evidence"} == a.keys() | {"derived"}


def test_sets_of_one_corpus_share_its_scale_and_the_lower_threshold_finds_copies(sets, tmp_path):
    a, c = manifest_of(sets["a"]), manifest_of(sets["c"])
    thresholds = [m["leak_certificate"]["threshold"]["similarity"] for m in (a, c)]
    assert thresholds[0] != thresholds[1]
    parents = [open_parent(sets[name]) for name in "ac"]
    assert joining.strictest_threshold(parents).similarity == min(thresholds)
    out = merge(MergeConfig((sets["a"], sets["c"]), tmp_path / "x.h5")).out
    manifest, columns = manifest_of(out), rows_of(out)
    assert manifest["leak_certificate"]["threshold"]["similarity"] == max(thresholds)
    assert manifest["id_filter"] == a["id_filter"] and manifest["sources"] == a["sources"]
    assert manifest["contamination"]["corpus"] == 0.25  # of the corpus that both were drawn from
    of = {
        k: v
        for name in "ac"
        for k, v in zip(*(rows_of(sets[name])[x].tolist() for x in ("key", "id_ness")), strict=True)
    }
    assert columns["id_ness"].tolist() == [of[key] for key in columns["key"].tolist()]
    both = set(rows_of(sets["a"])["key"].tolist()) & set(rows_of(sets["c"])["key"].tolist())
    assert manifest["stages"][-1]["dropped"] == {EXACT: len(both)} and manifest["stages"][0]["seen"] == 360


def test_parts_of_a_set_give_the_set_again_with_its_clusters(sets, tmp_path):
    near = select(SelectConfig(sets["a"], tmp_path / "near.h5", id_ness="50%:")).out
    rest = select(SelectConfig(sets["a"], tmp_path / "rest.h5", id_ness=":60%")).out
    out = merge(MergeConfig((near, rest), tmp_path / "whole.h5")).out
    whole, a = rows_of(out), rows_of(sets["a"])
    order = np.argsort(whole["key"]), np.argsort(a["key"])
    for name in a:
        assert np.array_equal(whole[name][order[0]], a[name][order[1]]), name
    stages = manifest_of(out)["stages"]
    assert [entry["stage"] for entry in stages[-3:]] == ["select", "select", "merge"]
    assert all(before["left"] == after["seen"] for before, after in itertools.pairwise(stages))
    assert stages[0]["seen"] == 360 and stages[-1]["left"] == 150
    lines = prose.command(manifest_of(out), "whole.h5")[0].splitlines()
    assert [line.split()[1] for line in lines] == ["build", "select", "select", "merge"]
    names = [parent["file"] for parent in manifest_of(out)["derived"]["parents"]]
    assert lines[-1] == f"curate merge {' '.join(names)} --seed 0 --out whole.h5"


def test_sets_of_one_name_are_put_into_folders_by_the_command(merged, sets):
    lines = prose.command(manifest_of(merged), "both.h5")[0].splitlines()
    second = manifest_of(merged)["derived"]["parents"][1]["fingerprint"][:8]
    assert lines[0].endswith("--out mini.h5") and lines[1].endswith(f"--out {second}/mini.h5")
    assert lines[2] == f"curate merge mini.h5 {second}/mini.h5 --seed 0 --out both.h5"
    page = render(outliers.OutlierSet.open(merged))
    assert "merged from mini.h5" in page and "no longer certified against" in page and lines[2] in page
    assert "at most" in " ".join(prose.certificate(manifest_of(merged)))


def test_a_merge_of_merges_has_the_rows_of_all(sets, merged, tmp_path):
    out = merge(MergeConfig((merged, sets["c"]), tmp_path / "x.h5", keep_near_duplicates=True)).out
    union = set(rows_of(merged)["sha256"].tolist()) | set(rows_of(sets["c"])["sha256"].tolist())
    assert set(rows_of(out)["sha256"].tolist()) == union
    stages = manifest_of(out)["stages"]
    assert [entry["stage"] for entry in stages[-2:]] == ["merge", "merge"]
    assert all(before["left"] == after["seen"] for before, after in itertools.pairwise(stages))
    assert joining.strictest_threshold([open_parent(out)]).similarity == min(
        manifest_of(sets[name])["leak_certificate"]["threshold"]["similarity"] for name in "abc"
    )
    again = redo(
        manifest_of(out)["derived"],
        sorted([merged, sets["c"]], key=lambda path: [e["sha256"] for e in manifest_of(path)["shards"]]),
        tmp_path / "y" / "x.h5",
    )
    assert files(again.parent) == {path.name: path.read_bytes() for path in tmp_path.glob("x*.h5")}


def test_a_row_keeps_its_label_where_one_set_has_none():
    from curate.deriving.merge import in_order

    sha256 = np.array([b"b", b"a", b"a", b"b"])
    rows = in_order(sha256, np.array([-1, 3, 5, 2]), np.array([0, 0, 1, 1]), 0)
    assert sorted(rows.tolist()) == [1, 3]  # of "a" that of the first set, of "b" the one with a label


def test_labels_without_names_are_none_among_others(sets):
    parents = [open_parent(sets[name]) for name in "ab"]
    parents[0].manifest["label_names"] = []
    notes: list[str] = []
    labels = joining.renumber_labels(parents, [np.array([0, 3, -1]), np.array([2, -1, 0])], notes)
    assert [label.tolist() for label in labels] == [[-1, -1, -1], [2, -1, 0]]
    assert notes == ["2 rows of mini.h5 have a label without a name; among others' it is none (-1)"]
    contamination = joining.contamination(parents, np.concatenate(labels), {"tabby cat": "cat"})
    assert contamination["kept"] == 0.5 and contamination["labelled_rows_kept"] == 2
    parents[1].manifest["id_labels"] = {}
    assert joining.contamination(parents, np.concatenate(labels), {"tabby cat": "cat"})["measured_by"] is None


def test_sets_that_do_not_fit_are_refused(sets, small_sets, tmp_path):
    for path, content in files(sets["a"].parent).items():
        (tmp_path / path).write_bytes(content)
    before = sorted(tmp_path.iterdir())
    pairs = [((sets["a"],), "needs at least two sets"), ((sets["a"], tmp_path / "mini.h5"), "are the same set")]
    for given, words in pairs:
        with pytest.raises(InputError, match=words):
            merge(MergeConfig(given, tmp_path / "x.h5"))
    with pytest.raises(InputError, match="is a set that it is made from"):
        merge(MergeConfig((sets["b"], tmp_path / "mini.h5"), tmp_path / "mini.h5", overwrite=True))
    assert sorted(tmp_path.iterdir()) == before and not outliers.verify(tmp_path / "mini.h5")

    changes = {
        "their images are of 32 and 16 pixels": lambda m: m["config"].update(image_size=16),
        "their ID classes differ": lambda m: m["id_filter"].update(id_class_names=["cat", "lorry"]),
        "their ID sets differ": lambda m: m["leak_certificate"]["protected"][0].update(fingerprint="0"),
        "their embedders differ": lambda m: m["id_filter"].update(embedder_fingerprint="0"),
    }
    for words, change in changes.items():
        parents = [open_parent(sets[name]) for name in "ab"]
        joining.check_comparable(parents)
        change(parents[1].manifest)
        with pytest.raises(InputError, match=words) as error:
            joining.check_comparable(parents)
        assert "build both with one --" in str(error.value)


def test_id_sets_without_fingerprint_go_by_name_and_nothing_is_certified_with_an_unprotected_set(small_sets, tmp_path):
    plain = build(config(small_sets, "x", "second.parquet", size=30, protect=("none",), out=tmp_path / "plain.h5")).out
    parent = open_parent(plain)
    other = open_parent(small_sets / "a" / "mini.h5")
    joining.check_comparable([parent, other])
    parent.manifest["config"]["id"] = "elsewhere"
    with pytest.raises(InputError, match="their ID sets differ"):
        joining.check_comparable([parent, other])
    result = merge(MergeConfig((plain, small_sets / "a" / "mini.h5"), tmp_path / "x.h5"))
    certificate = manifest_of(result.out)["leak_certificate"]
    assert certificate["protected"] == [] and certificate["largest_similarity_left"] is None
    assert sum("no longer certified" in note for note in result.notes) == 3
    assert prose.certificate(result.manifest)[0].startswith("No protected set is one that every set")
    assert ("not certified", "leaks: no set is one that all its parents were checked against") in prose.headlines(
        result.manifest
    )


def test_a_column_that_one_set_lacks_is_left_out(sets, tmp_path):
    energy = np.linspace(-3, 0, 150).astype(np.float32)
    changed = rewrite(sets["a"], tmp_path / "changed" / "mini.h5", lambda c: {**c, "energy": energy})
    lacking = rewrite(sets["c"], tmp_path / "lacking" / "mini.h5", lambda c: {n: c[n] for n in c if n != "cluster"})
    result = merge(MergeConfig((changed, lacking), tmp_path / "x.h5"))
    assert set(rows_of(result.out)) == set(rows_of(sets["a"])) - {"cluster"}
    assert "left out: column cluster, energy of mini.h5, which mini.h5 does not have" in result.notes
    assert "clusters" not in result.manifest["sampling"]


def test_training_takes_a_merged_set(merged, tmp_path):
    torch.manual_seed(0)
    info = WeightsInfo("resnet20", None, (0.3, 0.3, 0.3), (0.4, 0.4, 0.4))
    save_weights(tmp_path / "start.safetensors", build_model("resnet20", 10).state_dict(), info)
    settings = {"id": str(write_digits(tmp_path / "digits", train=16)), "checkpoint": tmp_path / "start.safetensors"}
    settings |= {"model": "resnet20", "batch_size": 8, "outlier_batch_size": 8, "epochs": 1, "device": "cpu"}
    run = tune(TuneConfig(**settings, outliers=merged), tmp_path / "run")
    (recorded,) = json.loads((run / "run.json").read_text())["outliers"]
    assert recorded["rows"] == manifest_of(merged)["rows"]
    assert recorded["fingerprint"] == outliers.OutlierSet.open(merged).fingerprint


def test_the_command_line(sets, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["curate", "merge", *map(str, sets.values()), "--out", str(tmp_path / "x.h5")])
    with pytest.raises(SystemExit) as end:
        cli.main()
    printed = capsys.readouterr()
    assert not end.value.code and "wrote " in printed.out and "note: leaks: no longer certified against" in printed.err
    rows = set().union(*(rows_of(path)["sha256"].tolist() for path in sets.values()))
    assert (
        manifest_of(tmp_path / "x.h5")["rows"]
        == len(rows) - manifest_of(tmp_path / "x.h5")["stages"][-1]["dropped"][NEAR]
    )
    assert replace(MergeConfig((), tmp_path), seed=1).options() == {"keep_near_duplicates": False, "seed": 1}
