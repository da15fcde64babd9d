"""WordNet's nouns against WordNet itself, and what class names are taken to mean."""

from __future__ import annotations

import gzip
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml
from pictures import pictures, write_parquet

from curate import exclusions, wordnet
from curate.build import build
from curate.config import BuildConfig
from curate.semantics import check_applicable, from_synsets, load_exclusions, match_labels
from srood.errors import InputError

ROOT = Path(__file__).parent.parent
PACKAGED = ROOT / "manifests" / "wordnet"
WORDNET = Path("/usr/share/wordnet")


@pytest.fixture(scope="module")
def nouns() -> wordnet.WordNet:
    return wordnet.load()


def wordnet_command(word: str, *options: str) -> str:
    """What Debian's `wn` prints: a reading of WordNet that is not ours."""
    if shutil.which("wn") is None:
        pytest.skip("needs the program wn: apt-get install wordnet")
    return subprocess.run(["wn", word, *options], capture_output=True, text=True, check=False).stdout


def test_file_is_what_the_tool_makes_of_wordnet(tmp_path: Path) -> None:
    if not (WORDNET / "data.noun").is_file():
        pytest.skip("needs WordNet 3.0: apt-get install wordnet-base")
    command = [sys.executable, str(ROOT / "tools" / "make_nouns.py"), str(WORDNET), str(tmp_path / "nouns.tsv.gz")]
    subprocess.run(command, check=True, capture_output=True)
    made, packaged = (gzip.decompress((folder / "nouns.tsv.gz").read_bytes()) for folder in (tmp_path, PACKAGED))
    assert made == packaged
    assert (tmp_path / "LICENSE").read_text() == (PACKAGED / "LICENSE").read_text()


def test_file_is_small_and_its_licence_is_beside_it() -> None:
    assert (PACKAGED / "nouns.tsv.gz").stat().st_size < 900_000
    licence = (PACKAGED / "LICENSE").read_text()
    assert "WordNet 3.0 Copyright 2006 by Princeton University" in licence
    assert "this software and database" in licence.replace("\n", " ").lower()


def test_words_and_hypernyms_are_those_of_data_noun(nouns: wordnet.WordNet) -> None:
    if not (WORDNET / "data.noun").is_file():
        pytest.skip("needs WordNet 3.0: apt-get install wordnet-base")
    checked, kept = 0, set(nouns.words)
    for line in (WORDNET / "data.noun").read_text(encoding="latin-1").splitlines():
        wnid = "n" + line[:8]
        if wnid in kept:
            data = line.split(" | ")[0]
            assert re.findall(r"(?<= )(\S+) [0-9a-f](?= )", data[14:])[: len(nouns.words[wnid])] == [
                word.replace(" ", "_") for word in nouns.words[wnid]
            ]
            up = {"n" + offset for offset in re.findall(r" @i? (\d{8}) n 0000", data)}
            assert set(nouns.hypernyms[wnid]) == up & kept
            checked += 1
    assert checked == len(nouns.words) > 40_000


def test_every_imagenet_class_is_there(nouns: wordnet.WordNet) -> None:
    found = find_spec("timm")  # found, not imported: that takes seconds
    if found is None or found.origin is None:
        pytest.skip("needs timm, which lists ImageNet's classes")
    listed = Path(found.origin).parent / "data" / "_info"
    one_k = (listed / "imagenet_synsets.txt").read_text().split()
    assert len(one_k) == 1000 and not set(one_k) - set(nouns.words)
    all_21k = (listed / "imagenet21k_goog_synsets.txt").read_text().split()
    assert len(set(all_21k) - set(nouns.words)) < 0.005 * len(all_21k)  # colours, dances and the like


@pytest.mark.parametrize("word", ["mouse", "crane", "bat", "orange", "seal"])
def test_senses_are_in_the_order_of_wn(word: str, nouns: wordnet.WordNet) -> None:
    listing = wordnet_command(word, "-synsn", "-o")
    in_order = ["n" + offset for offset in re.findall(r"^\{(\d{8})\} ", listing, re.M)]
    assert [wnid for wnid in in_order if wnid in nouns.senses[word]] == list(nouns.senses[word])


@pytest.mark.parametrize(
    ("name", "wnids"),
    [
        ("mouse", {"n02330245", "n03793489"}),  # the animal and the device; not the timid man, not the black eye
        ("crane", {"n02012849", "n03126707", "n09295455"}),  # bird, machine, constellation
        ("computer mouse", {"n03793489"}),
        ("tabby_cat", {"n02123045"}),
        ("Tabby Cats", {"n02123045"}),
        ("tench, Tinca tinca", {"n01440764"}),
        ("n02123045 striped thing", {"n02123045"}),
        ("n02123045", {"n02123045"}),
        ("cup_cakes", {"n07631023"}),
        ("nurse", {"n10366966", "n10345100"}),  # a person first of all
        ("maple_tree", {"n12752205"}),  # not the wood
        ("golden retriever dog", {"n02099601"}),
        ("street sign", {"n06794110"}),
        ("aquarium_fish", set()),  # not in WordNet, and not every fish
        ("foobarium", set()),
        ("a", set()),
        ("7", set()),
        ("", set()),
    ],
)
def test_meaning_of_class_names(name: str, wnids: set[str], nouns: wordnet.WordNet) -> None:
    assert set(wordnet.meaning(name, nouns).synsets) == wnids


def test_cifar100_names_agree_with_the_choice_by_hand(nouns: wordnet.WordNet) -> None:
    """Of the 100 classes whose synsets people chose, names alone find the chosen synset in nearly all."""
    content = yaml.safe_load((ROOT / "manifests" / "exclusions" / "cifar100.yaml").read_text())
    found = {
        label: set(wordnet.meaning(label, nouns).synsets) & {root["wnid"] for root in roots}
        for label, roots in content["roots"].items()
    }
    missed = sorted(label for label, wnids in found.items() if not wnids)
    assert missed == ["aquarium_fish", "crocodile"]  # the choice was all crocodilians, the name says crocodiles


@pytest.mark.parametrize(
    ("id_name", "only_by_hand", "only_by_names"),
    [
        ("cifar10", {"gondola", "lifeboat"}, {"lion"}),
        ("cifar100", {"goldfish", "American alligator"}, {"koala", "candle", "water tower"}),
    ],
)
def test_names_alone_against_the_choice_by_hand_on_tiny_imagenet(
    srood_data: Path, id_name: str, only_by_hand: set[str], only_by_names: set[str]
) -> None:
    corpus = srood_data / "tiny-imagenet" / "corpus.parquet"
    names = yaml.safe_load(pq.read_schema(corpus).metadata[b"huggingface"])["info"]["features"]["label"]["names"]
    by_hand = load_exclusions(ROOT / "manifests" / "exclusions" / f"{id_name}.yaml")
    by_names = from_synsets("names", exclusions.derive("names", exclusions.class_names_of(id_name)))
    one, other = ({names[i][10:] for i in match_labels(names, which)} for which in (by_hand, by_names))
    assert (one - other, other - one) == (only_by_hand, only_by_names)


def test_derived_synsets_are_those_below_by_hand(nouns: wordnet.WordNet) -> None:
    content = exclusions.derive("mine", ["zebra", "foobarium", "1"])
    expected = {wnid for wnid in nouns.words if is_below(wnid, "n02391049", nouns)}
    assert set(content["synsets"]["zebra"]) == expected and len(expected) == 4
    assert content["words"] == {"foobarium": ["foobarium"]}
    assert exclusions.notes(content) == ("no WordNet synset for class 'foobarium': excluded by word only",)


def is_below(wnid: str, root: str, nouns: wordnet.WordNet) -> bool:
    return wnid == root or any(is_below(up, root, nouns) for up in nouns.hypernyms[wnid])


def test_written_file_excludes_the_same_labels(tmp_path: Path) -> None:
    names = ["mouse", "dog", "maple_tree", "foobarium"]
    content = exclusions.derive("mine", names)
    exclusions.write(tmp_path / "mine.yaml", exclusions.render(content))
    labels = [
        *("n02330245 mouse", "n03793489 mouse, computer mouse", "computer mouse", "n07676602 frank"),
        *("beagle", "sycamore", "Foobarium", "n09999999 foobarium", "sofa", "n02123045 tabby"),
    ]
    read_back = match_labels(labels, load_exclusions(tmp_path / "mine.yaml"))
    assert read_back == match_labels(labels, from_synsets("mine", content))
    assert read_back == {
        0: "mouse: n02330245 mouse",
        1: "mouse: n03793489 mouse (by a less usual sense of 'mouse')",
        2: "mouse: n03793489 computer mouse (by a less usual sense of 'mouse')",
        3: "dog: n07676602 frank (by a less usual sense of 'dog')",
        4: "dog: n02088364 beagle",
        5: "maple_tree: n12754981 sycamore (by word; it has other meanings)",
        6: "foobarium: foobarium",
        7: "foobarium: foobarium",
    }
    with pytest.raises(InputError, match="exists, and may hold your edits"):
        exclusions.write(tmp_path / "mine.yaml", "")
    with pytest.raises(InputError, match=r"must end in \.yaml"):
        exclusions.write(tmp_path / "mine.txt", "")


def test_names_without_words_are_refused() -> None:
    with pytest.raises(InputError, match=r"no label exclusions are known for digits: its class names \(0, 1, 2\)"):
        exclusions.derive("digits", ["0", "1", "2"])


def test_explain_needs_no_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SROOD_DATA", raising=False)
    found = exclusions.explain("cifar100")
    assert [entry["class"] for entry in found["classes"]][:2] == ["apple", "aquarium_fish"]
    assert len(found["classes"]) == 100
    tiger = next(entry for entry in found["classes"] if entry["class"] == "tiger")
    assert (tiger["synsets"][0]["wnid"], tiger["wnids"]) == ("n02129604", 4)
    assert {"tiger", "bengal tiger"} <= set(tiger["words"])
    assert found["source"] == "manifests/exclusions/cifar100.yaml"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ID set of zebras and cranes, and a corpus with labels that show them, or might."""
    root = tmp_path_factory.mktemp("wordnet")
    images = pictures(90, seed=5)
    write_parquet(root / "animals.parquet", images[:40], [i % 2 for i in range(40)], ["zebra", "crane"])
    labels = ["n02391234 mountain zebra", "crane", "n03126707 crane", "sofa", "n09999999 toy zebra"]
    write_parquet(root / "corpus.parquet", images[40:], [i % 5 for i in range(50)], labels)
    return root


def test_explain_against_a_corpus_counts_rows(world: Path) -> None:
    found = exclusions.explain(str(world / "animals.parquet"), str(world / "corpus.parquet"))["corpus"]
    excluded = {entry["label"]: entry["rows"] for entry in found["excluded"]}
    assert excluded == {"n02391234 mountain zebra": 10, "crane": 10, "n03126707 crane": 10}
    assert (found["rows"], found["rows_excluded"], found["rows_without_label"]) == (50, 30, 0)
    doubtful = [entry["label"] for entry in found["borderline"] if entry["excluded"]]
    assert "n03126707 crane" in doubtful and "n02391234 mountain zebra" not in doubtful


def test_build_derives_exclusions_for_a_file(world: Path, tmp_path: Path) -> None:
    small = {"batch_rows": 64, "workers": 1, "calibration_images": 20, "size": 50, "dry_run": True}
    spec = {"source": (str(world / "corpus.parquet"),), "id": str(world / "animals.parquet")}
    result = build(BuildConfig(out=tmp_path / "mini.h5", **spec, **small))
    assert set(result.manifest["excluded_labels"]) == {"n02391234 mountain zebra", "crane", "n03126707 crane"}
    assert result.manifest["contamination"]["corpus"] == pytest.approx(0.6)
    assert result.manifest["contamination"]["kept"] == 0
    assert any("class names with several meanings, all of them excluded: crane (1 in all" in n for n in result.notes)


def test_word_of_an_id_class_beside_others_is_borderline() -> None:
    content = exclusions.derive("mine", ["bus", "crane"])
    mine = from_synsets("mine", content)
    check_applicable(["fire engine"], mine, require_match=False)
    assert match_labels(["space bus"], mine) == {}
    assert "its last word 'bus'" in str(exclusions.near_miss("space bus", mine))
    assert exclusions.near_miss("sofa", mine) is None


def test_command_prints_and_writes(world: Path, tmp_path: Path) -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "curate", "exclusions", *arguments]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    out = tmp_path / "mine.yaml"
    shown = run(str(world / "animals.parquet"), "--corpus", str(world / "corpus.parquet"), "--out", str(out))
    assert shown.returncode == 0, shown.stderr
    assert "3 of 5 labels would be excluded, 30 of 50 rows (60.0%)" in shown.stdout
    assert load_exclusions(out).wnids["n02391049"][0] == "zebra"
    gone = run("nowhere")
    assert gone.returncode == 2 and gone.stderr.startswith("error: nowhere: no such file, folder or named set")
