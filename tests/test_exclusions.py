"""Label exclusions against WordNet read another way, and the manifests that name data sets and sources."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml
from pictures import pictures, write_parquet

from curate.exclusions import explain
from curate.semantics import Exclusions, check_applicable, load_exclusions, match_labels, unmatched_entries
from srood.errors import InputError

ROOT = Path(__file__).parent.parent
MANIFESTS = ROOT / "manifests"
WORDNET = Path("/usr/share/wordnet")

# The classes of Tiny ImageNet that show a CIFAR-10 class, chosen by eye from its 200 names.
TINY_IMAGENET = {
    "frog": ["bullfrog", "tailed frog"],
    "bird": ["goose", "black stork", "king penguin", "albatross"],
    "dog": [
        "Chihuahua",
        "Yorkshire terrier",
        "golden retriever",
        "Labrador retriever",
        "German shepherd",
        "standard poodle",
    ],
    "cat": ["tabby", "Persian cat", "Egyptian cat", "cougar"],
    "automobile": ["beach wagon", "convertible", "limousine", "sports car"],
    "truck": ["moving van", "police van"],
    "ship": ["gondola", "lifeboat"],
}


@pytest.fixture(scope="module")
def cifar10() -> Exclusions:
    return load_exclusions(MANIFESTS / "exclusions" / "cifar10.yaml")


@pytest.fixture(scope="module")
def cifar100() -> Exclusions:
    return load_exclusions(MANIFESTS / "exclusions" / "cifar100.yaml")


def reason(label: str, exclusions: Exclusions) -> str | None:
    return match_labels([label], exclusions).get(0)


def hypernyms() -> dict[str, set[str]]:
    """WNID -> WNIDs of its direct hypernyms: the pointers up, which the tool does not follow."""
    up: dict[str, set[str]] = {}
    for line in (WORDNET / "data.noun").read_text(encoding="latin-1").splitlines():
        if not line.startswith(" "):
            up["n" + line[:8]] = {"n" + o for o in re.findall(r" @i? (\d{8}) n 0000", line.split(" | ")[0])}
    return up


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_synsets_are_those_below_the_roots(name: str) -> None:
    if not (WORDNET / "data.noun").is_file():
        pytest.skip("needs WordNet 3.0: apt-get install wordnet-base")
    content = yaml.safe_load((MANIFESTS / "exclusions" / f"{name}.yaml").read_text())
    up, cut = hypernyms(), {entry["wnid"] for entry in content["without"]}
    for label, roots in content["roots"].items():
        wanted = {root["wnid"] for root in roots}
        known = {wnid: wnid in wanted for wnid in wanted | cut}

        def below(wnid: str, known: dict[str, bool] = known) -> bool:
            if wnid not in known:
                known[wnid] = any(below(parent) for parent in up[wnid])
            return known[wnid]

        assert set(content["synsets"][label]) == {wnid for wnid in up if below(wnid)}, label


def test_tool_reproduces_the_files(tmp_path: Path) -> None:
    if not (WORDNET / "data.noun").is_file():
        pytest.skip("needs WordNet 3.0: apt-get install wordnet-base")
    files = [Path(shutil.copy(path, tmp_path)) for path in (MANIFESTS / "exclusions").glob("*.yaml")]
    command = [sys.executable, str(ROOT / "tools" / "make_exclusions.py"), str(WORDNET), *map(str, files)]
    subprocess.run(command, check=True, capture_output=True)
    for path in files:
        assert path.read_bytes() == (MANIFESTS / "exclusions" / path.name).read_bytes()


def test_every_id_class_has_exclusions() -> None:
    for name, count in (("cifar10", 10), ("cifar100", 100)):
        content = yaml.safe_load((MANIFESTS / "exclusions" / f"{name}.yaml").read_text())
        dataset = yaml.safe_load((MANIFESTS / "datasets" / f"{name}.yaml").read_text())
        assert len(dataset["classes"]) == count
        assert list(content["synsets"]) == list(content["roots"]) == dataset["classes"]
        assert all(root["why"] for roots in content["roots"].values() for root in roots)


@pytest.mark.parametrize(
    ("label", "id_class"),
    [
        ("n02123045 tabby, tabby cat", "cat"),
        ("n02123045", "cat"),
        ("n02086240-Shih-Tzu", "dog"),
        ("tabby, tabby cat", "cat"),
        ("tabby_cat", "cat"),
        ("Tabby Cats", "cat"),
        ("cat", "cat"),
        ("cat, feline", "cat"),
        ("puppies", "dog"),
        ("Geese", "bird"),
        ("catamaran", "ship"),
        ("beach wagon, station wagon, wagon, estate car", "automobile"),
        ("fire engine, fire truck", "truck"),
        ("airliner", "airplane"),
        ("Saint_Bernard", "dog"),
        ("red deer", "deer"),
        ("sorrel", "horse"),
        ("bullfrog, Rana catesbeiana", "frog"),
    ],
)
def test_labels_that_show_a_cifar10_class(label: str, id_class: str, cifar10: Exclusions) -> None:
    found = reason(label, cifar10)
    assert found is not None and found.startswith(f"{id_class}: ")


@pytest.mark.parametrize(
    "label",
    [
        "hot dog",
        "hotdog, hot dog, red hot",
        "sea horse",
        "bird house",
        "birdhouse",
        "bullet train, bullet",
        "truckle bed",
        "catalog",
        "cattle",
        "caterpillar",
        "dragonfly",
        "n02843684 birdhouse",
        "n04146614 school bus",
        "school bus",
        "bus",
        "trolleybus",
        "n02129165 lion",
        "gazelle",
        "n02423022 gazelle",
        "bison",
        "n03126707 crane",
        "n04465501 tractor",
        "tower",
    ],
)
def test_labels_that_show_no_cifar10_class(label: str, cifar10: Exclusions) -> None:
    assert reason(label, cifar10) is None


def test_reasons_name_class_synset_and_doubt(cifar10: Exclusions) -> None:
    assert reason("n02123045 tabby, tabby cat", cifar10) == "cat: n02123045 tabby"
    assert reason("crane", cifar10) == "bird: n02012849 crane (by word; it has other meanings)"
    assert reason("racer, race car", cifar10) == "automobile: n04037443 race car"
    assert reason("racer, bike", cifar10) is None  # the other word tells the sense


@pytest.mark.parametrize(
    ("label", "id_class"),
    [
        ("n01498041", "ray"),
        ("n02330245 mouse", "mouse"),
        ("n03793489 mouse, computer mouse", None),
        ("n07747607 orange", "orange"),
        ("n04389033 tank, army tank", "tank"),
        ("n04388743 storage tank", None),
        ("n02948072 candle", None),
        ("n04335435 streetcar", "streetcar"),
        ("n07720875 bell pepper", "sweet_pepper"),
        ("n01891633 shrew", "shrew"),
        ("n12582231 palm", "palm_tree"),
        ("n03085013 computer keyboard", "keyboard"),
        ("n02123045 tabby", None),
    ],
)
def test_cifar100_takes_the_right_sense(label: str, id_class: str | None, cifar100: Exclusions) -> None:
    found = reason(label, cifar100)
    assert (found.split(":")[0] if found else None) == id_class


def test_tiny_imagenet_share(srood_data: Path, cifar10: Exclusions) -> None:
    table = pq.read_table(srood_data / "tiny-imagenet" / "corpus.parquet", columns=["label"])
    features = yaml.safe_load(table.schema.metadata[b"huggingface"])["info"]["features"]
    names = features["label"]["names"]
    excluded = match_labels(names, cifar10)
    by_hand = {name: id_class for id_class, words in TINY_IMAGENET.items() for name in words}
    assert {names[i][10:]: why.split(":")[0] for i, why in excluded.items()} == by_hand
    # By words alone the two cranes cannot be told apart: Tiny ImageNet's is the machine.
    by_words = match_labels([name[10:] for name in names], cifar10)
    assert {names[i][10:] for i in by_words} - set(by_hand) == {"crane"}
    assert set(by_hand) - {names[i][10:] for i in by_words} == set()
    counts = Counter(table["label"].to_pylist())
    assert 0.10 < sum(counts[i] for i in excluded) / table.num_rows < 0.16


def test_labels_beyond_the_names_of_a_corpus_are_none(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "corpus.parquet", pictures(6, seed=1), [0, 1, 2, 2, 7, 0], ["tabby cat", "lamp"])
    found = explain("cifar10", str(path))["corpus"]
    assert (found["labels"], found["rows"], found["rows_without_label"], found["rows_excluded"]) == (2, 6, 3, 2)


def test_user_lists(tmp_path: Path) -> None:
    labels = ["n02123045 tabby", "n02129165 lion", "snail", "School Bus"]
    plain = tmp_path / "mine.txt"
    plain.write_text("# mine\nn02123045 tabby\n\nschool_bus\n")
    assert match_labels(labels, load_exclusions(plain)) == {
        0: "excluded: n02123045 tabby",
        3: "excluded: school bus",
    }
    (tmp_path / "of_windows.txt").write_text("lion\nsnail\n", encoding="utf-8-sig")
    assert set(match_labels(labels, load_exclusions(tmp_path / "of_windows.txt"))) == {1, 2}
    listed = tmp_path / "mine.yaml"
    listed.write_text("- lion\n- snial\n")
    mine = load_exclusions(listed)
    assert match_labels(labels, mine) == {1: "excluded: lion"}  # words count beside a WNID when the user says words
    assert unmatched_entries(labels, mine) == ["snial"]
    grouped = tmp_path / "grouped.yaml"
    grouped.write_text("cat: [n02123045, lion]\n")
    assert match_labels(labels, load_exclusions(grouped)) == {0: "cat: n02123045", 1: "cat: lion"}


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("a.yaml", "just words", "no list of labels"),
        ("a.yaml", "[]", "no list of labels"),
        ("a.yaml", "- [1", "not valid YAML"),
        ("a.yaml", "- 7", "7 is neither a label nor a WNID"),
        ("a.yaml", "synsets: [n02123045]", "must map ID classes to synsets"),
        ("a.yaml", "synsets: {cat: {tabby: n02123045}}", "must look like"),
        ("a.yaml", "synsets: {cat: {n02123045: tabby}}\nroots: {cat: [n02123045]}", "`roots` must map"),
        ("a.yaml", "synsets: {cat: {n02123045: tabby}}\nambiguous: 3", "`ambiguous` must be a list"),
        ("a.txt", "# nothing\n", "no list of labels"),
    ],
)
def test_malformed_files_are_named(name: str, text: str, expected: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=re.escape(expected)) as error:
        load_exclusions(tmp_path / name)
    assert str(tmp_path / name) in str(error.value)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone\.yaml"):
        load_exclusions(tmp_path / "gone.yaml")


def test_check_applicable(cifar10: Exclusions) -> None:
    check_applicable(["tabby", "7"], cifar10, "corpus")
    check_applicable(["banded", "bubbly"], cifar10, "textures", require_match=False)
    with pytest.raises(InputError, match="does not match textures"):
        check_applicable(["banded", "bubbly"], cifar10, "textures")
    with pytest.raises(InputError, match="no words or WNIDs"):
        check_applicable(["0", "1", "2"], cifar10, "digits", require_match=False)
    with pytest.raises(InputError, match="no class names"):
        check_applicable([], cifar10, "folder")


DATASETS = sorted(path.stem for path in (MANIFESTS / "datasets").glob("*.yaml"))


@pytest.mark.parametrize("name", DATASETS)
def test_dataset_manifests(name: str) -> None:
    entry = yaml.safe_load((MANIFESTS / "datasets" / f"{name}.yaml").read_text())
    assert entry["name"] == name
    for field in ("title", "eval_preprocess", "license", "citation", "homepage", "notes"):
        assert isinstance(entry[field], str) and entry[field], field
    assert entry["redistribution"] in ("yes", "no", "unknown")
    assert re.fullmatch(r"[\w.-]+/[\w.-]+", entry["hub"]["repo"])
    assert re.fullmatch(r"[0-9a-f]{40}|main", entry["hub"]["revision"])
    assert entry["splits"] and all(glob.endswith(".parquet") for glob in entry["splits"].values())
    assert set(entry["columns"]) == {"image", "label"}
    if "id_splits" in entry:
        assert set(entry["id_splits"]) <= set(entry["splits"])
        assert len(entry["mean"]) == len(entry["std"]) == 3


def test_paper_sets_are_named() -> None:
    paper = {"cifar10", "cifar100", "textures", "svhn", "places365", "lsun-crop", "lsun-resize", "isun"}
    assert paper <= set(DATASETS)


def test_classes_are_those_of_the_files(srood_data: Path) -> None:
    for name in ("cifar10", "cifar100"):
        metadata = pq.read_schema(srood_data / name / "test.parquet").metadata[b"huggingface"]
        names = yaml.safe_load(metadata)["info"]["features"]["label"]["names"]
        assert yaml.safe_load((MANIFESTS / "datasets" / f"{name}.yaml").read_text())["classes"] == names


def test_tinyimages_alt_reads_named_sets_and_no_ood_test_set() -> None:
    source = yaml.safe_load((MANIFESTS / "sources" / "tinyimages-alt.yaml").read_text())
    assert source["sources"][0]["set"] == "tiny-imagenet"
    for entry in source["sources"]:
        dataset = yaml.safe_load((MANIFESTS / "datasets" / f"{entry['set']}.yaml").read_text())
        assert entry["split"] in dataset["splits"] and dataset["hub"] and entry["why"] and entry["license"]
    test_sets = {"textures", "svhn", "places365", "lsun-crop", "lsun-resize", "isun", "cifar10", "cifar100"}
    assert not test_sets & {entry["set"] for entry in source["sources"]}
