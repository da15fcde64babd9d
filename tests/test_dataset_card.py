"""The card, the notes on licences and the Croissant metadata of a set, as the Hub's own tools read them."""

from __future__ import annotations

import hashlib
import inspect
import json
import re
import shlex
from pathlib import Path

import h5py
import numpy as np
import pytest
from hub_server import front_matter
from huggingface_hub import DatasetCard
from PIL import Image
from published_sets import LABELS, config, contents

from curate.build import build
from curate.publishing.card import escape, limits, yaml_features
from curate.publishing.publish import PublishConfig, prepare
from curate.publishing.rights import rights
from srood.outliers import OutlierSet

# https://huggingface.co/docs/hub/datasets-cards and datasetcard.md of huggingface/hub-docs
SCHEMA = {
    "license": (str, list),
    "license_name": str,
    "license_link": str,
    "pretty_name": str,
    "task_categories": list,
    "size_categories": list,
    "source_datasets": list,
    "tags": list,
    "configs": list,
    "dataset_info": dict,
}
SIZES = re.compile(
    r"n<1K|1K<n<10K|10K<n<100K|100K<n<1M|1M<n<10M|10M<n<100M|100M<n<1B|1B<n<10B|10B<n<100B|100B<n<1T|n>1T"
)


@pytest.fixture(scope="module")
def folder(built_set, tmp_path_factory) -> Path:
    target = tmp_path_factory.mktemp("published") / "repo"
    prepare(PublishConfig(built_set, "owner/things"), target)
    return target


@pytest.fixture(scope="module")
def index(built_set, tmp_path_factory) -> Path:
    """The same without pixels."""
    target = tmp_path_factory.mktemp("index") / "repo"
    prepare(PublishConfig(built_set, "owner/things", index_only=True), target)
    return target


def test_the_metadata_are_what_the_hub_expects(folder, built_set, writable_hub):
    text = (folder / "README.md").read_text(encoding="utf-8")
    found = front_matter(text)
    assert set(found) <= set(SCHEMA)
    for name, value in found.items():
        assert isinstance(value, SCHEMA[name]), name
    assert found["license"] == "cc-by-4.0" and found["task_categories"] == ["image-classification"]
    assert found["size_categories"] == ["n<1K"] and SIZES.fullmatch(found["size_categories"][0])
    assert {"out-of-distribution-detection", "outlier-exposure"} <= set(found["tags"])
    assert found["configs"] == [
        {"config_name": "default", "data_files": [{"split": "train", "path": "data/train-*.parquet"}]}
    ]
    info = found["dataset_info"]
    (split,) = info["splits"]
    assert (split["name"], split["num_examples"]) == ("train", 90)
    assert info["download_size"] == sum(path.stat().st_size for path in (folder / "data").iterdir())
    assert info["dataset_size"] == split["num_bytes"] > 0
    if '"https://huggingface.co/api/validate-yaml"' in inspect.getsource(DatasetCard.validate):
        pytest.skip("this huggingface_hub asks huggingface.co, whatever HF_ENDPOINT says")
    DatasetCard(text).validate()  # what the client checks, and what it asks the Hub to check
    (checked,) = [r for r in writable_hub.requests if r.path == "/api/validate-yaml"]
    assert json.loads(checked.body)["repoType"] == "dataset"


def test_the_features_are_those_of_the_parquet_files(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    import datasets

    from curate.exporting.parquet import features

    described = front_matter((folder / "README.md").read_text(encoding="utf-8"))["dataset_info"]["features"]
    loaded = datasets.load_dataset(
        "parquet", data_files=str(folder / "data" / "*.parquet"), split="train", cache_dir=str(tmp_path)
    )
    assert described == loaded.features._to_yaml_list()
    assert datasets.Features._from_yaml_list(described) == loaded.features
    opened = OutlierSet.open(folder / "hdf5" / "mini.h5")
    assert yaml_features(features(opened)) == described
    assert loaded.features["label"].names == list(LABELS)


def test_the_text_states_what_the_manifest_holds(folder, built_set):
    text = (folder / "README.md").read_text(encoding="utf-8")
    with h5py.File(built_set) as file:
        manifest = json.loads(file["manifest"][()])
    assert "90 images of 32x32 pixels" in text
    (command,) = re.findall(r"^    (curate build .*)$", text, flags=re.M)
    words = shlex.split(command)[2:]
    options = dict(zip(words[::2], words[1::2], strict=True))
    assert (options["--source"], options["--size"], options["--id"]) == ("things.parquet", "90", "photos")
    for stage in manifest["stages"]:
        dropped = sum(stage["dropped"].values())
        assert f"| {stage['stage']} | {stage['seen']} | {dropped} | {stage['left']} |" in text
    assert "| things.parquet | 120 | cc-by-4.0 | unknown |" in text
    certificate = manifest["leak_certificate"]
    assert f"the largest similarity left is {certificate['largest_similarity_left']:g}" in text
    assert "train.parquet (80 images) and test.parquet (40 images)" in text
    assert "80 Million Tiny Images" in text and "No source of this set is recorded as it." in text
    assert "no filter for offensive content" in text
    assert manifest["recipe"] in text and OutlierSet.open(built_set).fingerprint in text
    assert "![90 rows drawn at random](contact-sheet.png)" in text
    notes = (folder / "LICENSES.md").read_text(encoding="utf-8")
    assert "## things.parquet" in notes and "- licence: cc-by-4.0" in notes and "- may be passed on: yes" in notes
    assert limits(rights({"sources": [{"name": "tiny_images.bin", "rows": 1}]}))[1].endswith(
        "Rows of this set are from it."
    )


def test_tables_of_the_card_have_as_many_cells_as_headings(folder):
    lines = (folder / "README.md").read_text(encoding="utf-8").splitlines()
    width = 0
    for line in lines:
        cells = len(re.findall(r"(?<!\\)\|", line)) if line.startswith("|") else 0
        assert cells in (0, width) or width == 0, line
        width = cells


def test_text_of_strangers_is_no_markup():
    assert escape("a | <b>c</b>\n# d `e` [f](g)") == r"a \| \<b\>c\</b\> \# d \`e\` \[f\](g)"


def test_the_contact_sheet_shows_rows_of_the_set(folder, built_set):
    sheet = np.asarray(Image.open(folder / "contact-sheet.png"))
    assert sheet.shape == (8 * 64, 12 * 64, 3)
    images = OutlierSet.open(built_set).read_images()
    # 90 rows, all of them in the set's order; a shrunk tile is nearest to its row
    tiles = sheet.reshape(8, 64, 12, 64, 3).swapaxes(1, 2).reshape(96, 64, 64, 3)[:90]
    small = tiles.reshape(90, 32, 2, 32, 2, 3).mean((2, 4))
    distance = np.abs(small[:, None] - images[None].astype(float)).mean((2, 3, 4))
    assert np.array_equal(distance.argmin(1), np.arange(90))


def test_croissant_is_valid_and_gives_the_pixels(folder, built_set, caplog):
    import mlcroissant

    # repositories are read by git, so here the folder stands for it
    described = mlcroissant.Dataset(jsonld=str(folder / "croissant.json"), mapping={"repo": str(folder)})
    assert not described.metadata.ctx.issues.errors
    assert not described.metadata.ctx.issues.warnings - _of_no_concern(described.metadata.ctx.issues.warnings)
    records = list(described.records("rows"))
    opened = OutlierSet.open(built_set)
    assert len(records) == 90
    by_key = {record["rows/key"].decode(): record for record in records}
    for image, key, label in zip(
        opened.read_images(), opened.read("key").tolist(), opened.read("label").tolist(), strict=True
    ):
        record = by_key[key.decode()]
        assert np.array_equal(np.asarray(record["rows/image"]), image)
        assert record["rows/label"] == label


def _of_no_concern(warnings: set[str]) -> set[str]:
    """A date of publication and a version are recommended; a set has neither: its fingerprint says which it is."""
    return {warning for warning in warnings if "datePublished" in warning or "version" in warning}


def test_croissant_names_every_file_with_its_hash(folder):
    document = json.loads((folder / "croissant.json").read_text())
    named = {entry["name"]: entry for entry in document["distribution"] if "contentSize" in entry}
    expected = {name for name in contents(folder) if re.search(r"\.(parquet|h5)$|manifest.json", name)}
    assert set(named) == expected
    for name, data in contents(folder).items():
        if name in named:
            assert named[name]["sha256"] == hashlib.sha256(data).hexdigest()
            assert named[name]["contentSize"] == f"{len(data)} B"
            assert named[name]["contentUrl"].endswith(f"/datasets/owner/things/resolve/main/{name}")
    assert document["license"] == ["cc-by-4.0"]


def test_an_index_holds_no_pixel(index, built_set):
    files = contents(index)
    assert set(files) == {
        *("README.md", "LICENSES.md", "croissant.json", "manifest.json", "hdf5/mini.h5"),
        *(f"data/train-{number:05d}-of-00003.parquet" for number in range(3)),
    }
    import mlcroissant
    import pyarrow.parquet as pq

    table = pq.read_table(index / "data")
    opened = OutlierSet.open(built_set)
    assert "image" not in table.column_names
    assert table["sha256"].to_pylist() == [digest.decode() for digest in opened.read("sha256").tolist()]
    assert table["key"].to_pylist() == [key.decode() for key in opened.read("key").tolist()]
    text = files["README.md"].decode()
    assert "curate rebuild hf://owner/things" in text and "srood train" not in text and "contact-sheet" not in text
    assert "index-only" in front_matter(text)["tags"]
    assert b"No image is passed on here" in files["LICENSES.md"]
    described = mlcroissant.Dataset(jsonld=str(index / "croissant.json"), mapping={"repo": str(index)})
    assert not described.metadata.ctx.issues.errors
    for name, data in files.items():  # and none is hidden: no run of an image's first line is in any file
        for image in opened.read_images([0, 44, 89]):
            assert image[0].tobytes() not in data, name


def test_a_source_that_may_not_be_passed_on(built_set, tmp_path, curate):
    root = built_set.parent.parent
    for license, words in (
        ("ImageNet terms", "may not be passed on: things.parquet"),
        (None, "it is not known whether"),
    ):
        made = build(config(root, tmp_path / str(license) / "mini.h5", source_license=license, size=20)).out
        code, out, err = curate("publish", made, "owner/things", "--dry-run", tmp_path / "dry")
        assert (code, out) == (2, "") and err.startswith(f"error: {made}: ") and words in err and "--index-only" in err
        assert not (tmp_path / "dry").exists()
        code, _, _ = curate("publish", made, "owner/things", "--dry-run", tmp_path / f"{license} index", "--index-only")
        assert code == 0
    confirmed = tmp_path / "confirmed"
    assert curate("publish", made, "owner/things", "--dry-run", confirmed, "--rights-confirmed")[0] == 0
    card = front_matter((confirmed / "README.md").read_text())
    assert (card["license"], card["license_name"], card["license_link"]) == ("other", "of-the-sources", "LICENSES.md")
    assert "not known; the publisher says so" in (confirmed / "LICENSES.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["things"], "things: does not name its owner; give owner/name"),
        (["owner/things", "--license", "MIT 2"], "--license MIT 2: is not as the Hub abbreviates licences"),
        (["owner/things", "--revision", "a b"], "--revision a b: cannot be the name of a branch"),
    ],
)
def test_bad_arguments(built_set, tmp_path, curate, arguments, expected):
    code, out, err = curate("publish", built_set, *arguments, "--dry-run", tmp_path / "dry")
    assert (code, out) == (2, "") and err.startswith(f"error: {expected}")


def test_no_path_of_this_machine_is_published(built_set, folder):
    parts = {part.encode() for part in built_set.parent.parent.parts if len(part) > 7}
    assert parts
    for name, data in contents(folder).items():
        assert not [part for part in parts if part in data], name


def test_a_set_made_from_sets(small_sets, tmp_path):
    from curate.deriving.merge import MergeConfig, merge
    from curate.deriving.select import SelectConfig, select

    a, b = small_sets / "a" / "mini.h5", small_sets / "b" / "mini.h5"
    wide = merge(MergeConfig(files=(a, b), out=tmp_path / "wide.h5")).out
    made = select(SelectConfig(file=wide, out=tmp_path / "narrow.h5", size=70)).out
    prepare(PublishConfig(made, "owner/narrow", rights_confirmed=True), tmp_path / "repo")
    text = (tmp_path / "repo" / "README.md").read_text()
    assert "70 images of 32x32 pixels" in text
    commands = re.findall(r"^    (curate (?:build|merge|select) .*)$", text, flags=re.M)
    assert [line.split()[1] for line in commands] == ["build", "build", "merge", "select"]
    assert "| select | " in text and "first.parquet" in text and "second.parquet" in text
    assert (tmp_path / "repo" / "hdf5" / "narrow.h5").read_bytes() == made.read_bytes()


def test_the_card_says_what_was_done_and_no_more(built_set, tmp_path):
    root = built_set.parent.parent
    bare = {"protect": ("none",), "id_recall": 0.0, "exclude_labels": "none", "source_license": "cc-by-4.0"}
    made = build(config(root, tmp_path / "mini.h5", size=20, **bare)).out
    prepare(PublishConfig(made, "owner/bare", license="mit", index_only=True), tmp_path / "index")
    text = (tmp_path / "index" / "README.md").read_text()
    assert "Neither images that show its classes nor copies of its images were looked for." in text
    assert "The licence of a source does not let" not in text  # it does
    prepare(PublishConfig(made, "owner/bare", license="mit"), tmp_path / "whole")
    text = (tmp_path / "whole" / "README.md").read_text()
    assert front_matter(text)["license"] == "mit"
    assert "Each image stays under the licence of its source (cc-by-4.0)." in text
