"""`curate audit`: every pair of the same picture, with the row numbers of the sets as they are read."""

from __future__ import annotations

import base64
import csv
import io
import json
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from pictures import encode, pictures, write_parquet
from PIL import Image

from curate.alignment import aligned_similarity
from curate.audit import COLUMNS, Audit, audit, write_pairs
from curate.audit_page import MOST, page
from curate.copies import COPIES, synthetic_copies
from curate.leaks import ProtectedIndex
from srood.errors import InputError

BAD = {3: b"", 10: b"<html></html>", 11: b"\x89PNG\r\n"}  # row of A -> no image


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """B: 80 pictures. A: 60 others with copies planted, and rows that are no image between them."""
    root = tmp_path_factory.mktemp("audit")
    b = pictures(80, seed=11)
    a: list = list(pictures(60, seed=12))
    for row in range(5):
        a[20 + row] = b[40 + row]  # exact
        a[30 + row] = encode(b[70 - row][:, ::-1], "JPEG", quality=85)  # mirrored and recompressed
    a[50] = b[40]  # the same once more: a row of B may be in several pairs
    for row, data in BAD.items():
        a[row] = data
    b = list(b)
    b[0] = b""  # so that rows of B are not positions either
    write_parquet(root / "a.parquet", a, [0] * 60, ["thing"])
    write_parquet(root / "b.parquet", b, [0] * 80, ["thing"])
    return root


PLANTED = {
    **{(20 + row, 40 + row): "exact" for row in range(5)},
    **{(30 + row, 70 - row): "near" for row in range(5)},
    (50, 40): "exact",
}


@pytest.fixture(scope="module")
def found(world: Path) -> Audit:
    return audit(str(world / "a.parquet"), str(world / "b.parquet"))


def curate(cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "curate", *arguments], cwd=cwd, capture_output=True, text=True, check=False
    )


def decoded(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """(row numbers, images) of a Parquet file, without the code under test."""
    rows, images = [], []
    for row, item in enumerate(pq.read_table(path)["image"].to_pylist()):
        try:
            images.append(np.asarray(Image.open(io.BytesIO(item["bytes"])).convert("RGB")))
            rows.append(row)
        except OSError:
            pass
    return np.array(rows), np.stack(images)


def test_planted_copies_are_found_at_their_row_numbers_with_bad_rows_between(found: Audit) -> None:
    table = found.table()
    assert tuple(table.column_names) == COLUMNS
    rows = {(r["row_a"], r["row_b"]): r["kind"] for r in table.to_pylist()}
    assert rows == PLANTED
    for pair in table.to_pylist():
        assert (pair["key_a"], pair["key_b"]) == (f"a.parquet#{pair['row_a']}", f"b.parquet#{pair['row_b']}")
        assert pair["similarity"] == 1 if pair["kind"] == "exact" else pair["similarity"] < 1
    assert found.a.skipped == {"empty": 1, "not an image": 2}
    assert len(found.flagged()) == 11


def test_pairs_are_those_of_brute_force_over_all_pairs(world: Path, found: Audit) -> None:
    """Both sets are so small that every image is a candidate of every other."""
    rows_a, a = decoded(world / "a.parquet")
    rows_b, b = decoded(world / "b.parquet")
    typical = ProtectedIndex(b, found.threshold).search(a).typical
    every = aligned_similarity(np.repeat(a, len(b), axis=0), np.tile(b, (len(a), 1, 1, 1)), np.repeat(typical, len(b)))
    same = (a[:, None] == b).all(axis=(2, 3, 4)) | (a[:, None, :, ::-1] == b).all(axis=(2, 3, 4))
    score = np.where(same, 1, every.reshape(len(a), len(b)))
    expected = {
        (int(rows_a[i]), int(rows_b[j])): score[i, j] for i, j in np.argwhere(score >= found.threshold.similarity)
    }
    got = {(r["row_a"], r["row_b"]): r["similarity"] for r in found.table().to_pylist()}
    assert got == pytest.approx(expected, abs=1e-6)


def test_pairs_are_sorted_and_read_back_the_same_from_both_formats(found: Audit, tmp_path: Path) -> None:
    write_pairs(found, tmp_path / "pairs.parquet")
    write_pairs(found, tmp_path / "pairs.csv")
    rows = pq.read_table(tmp_path / "pairs.parquet").to_pylist()
    with open(tmp_path / "pairs.csv", newline="") as file:
        text = list(csv.DictReader(file))
    types = {"row_a": int, "row_b": int, "key_a": str, "key_b": str, "similarity": float, "kind": str}
    assert [{name: types[name](value) for name, value in row.items()} for row in text] == rows
    assert rows == sorted(rows, key=lambda r: (r["row_a"], -r["similarity"], r["row_b"])) and len(rows) == len(PLANTED)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pairs.csv", "pairs.parquet"]


def test_no_pair_is_an_empty_table_and_not_an_error(tmp_path: Path) -> None:
    for name, seed in (("a", 3), ("b", 4)):
        write_parquet(tmp_path / f"{name}.parquet", pictures(20, seed), [0] * 20)
    found = audit(str(tmp_path / "a.parquet"), str(tmp_path / "b.parquet"))
    write_pairs(found, tmp_path / "pairs.parquet")
    assert pq.read_table(tmp_path / "pairs.parquet").num_rows == 0
    assert found.summary()["closest"] == [] and "No two images" in page(found)
    alone = tmp_path / "alone.parquet"
    write_parquet(alone, pictures(1, 5), [0])
    assert len(audit(str(alone)).pairs) == 0


def test_within_a_set_each_pair_comes_once_and_groups_are_counted(tmp_path: Path) -> None:
    images: list = [b"", *pictures(60, seed=21)]  # the bad row moves all numbers by one
    images[11] = encode(images[5][:, ::-1])
    images[12] = images[5]
    images[40] = np.clip(images[20] * 0.9, 0, 255).astype(np.uint8)
    write_parquet(tmp_path / "set.parquet", images, [0] * 61)
    found = audit(str(tmp_path / "set.parquet"))
    rows = found.table().to_pylist()
    assert {(r["row_a"], r["row_b"]): r["kind"] for r in rows} == {
        (5, 11): "near",
        (5, 12): "exact",
        (11, 12): "near",
        (20, 40): "near",
    }
    assert all(r["row_a"] < r["row_b"] for r in rows)
    assert rows == sorted(rows, key=lambda r: (r["row_a"], -r["similarity"], r["row_b"]))
    summary = found.summary()
    assert summary["groups"] == {"number": 2, "largest": 3, "repeats": 3}
    assert summary["flagged"] == 5 and summary["b"] is None


def test_recall_by_kind_of_copy(srood_data: Path, tmp_path: Path) -> None:
    """Copies of CIFAR-10 images, 40 of each kind, among 2,000 of its images."""
    column = pq.read_table(srood_data / "cifar10/test.parquet", columns=["image"])["image"].slice(0, 2000).to_pylist()
    real = np.stack([np.asarray(Image.open(io.BytesIO(x["bytes"])).convert("RGB")) for x in column])
    rng = np.random.default_rng(8)
    rows = np.arange(0, 2000, 50)
    copies = np.concatenate([synthetic_copies(real[rows], kind, rng) for kind in COPIES])
    write_parquet(tmp_path / "real.parquet", list(real), [0] * len(real))
    write_parquet(tmp_path / "copies.parquet", list(copies), [0] * len(copies))
    found = audit(str(tmp_path / "copies.parquet"), str(tmp_path / "real.parquet"))
    own = rows[found.pairs.place_a % len(rows)] == found.pairs.place_b
    hit = np.isin(np.arange(len(copies)), found.pairs.place_a[own]).reshape(len(COPIES), len(rows)).mean(axis=1)
    recall = dict(zip(COPIES, hit, strict=True))
    assert recall["flip"] == 1
    assert min(recall[k] for k in ("shift", "scale", "jpeg", "light", "colour", "flip+shift+light+jpeg")) >= 0.9
    assert min(recall[k] for k in ("crop", "mark")) >= 0.75
    others = np.unique(found.pairs.place_a[~own] % len(rows))
    assert len(others) <= 3  # images of which the test set holds a near-duplicate


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.images: list[dict[str, str | None]] = []
        self.links: list[str | None] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag == "img":
            self.images.append(values)
        self.links += [values[name] for name in ("href", "src") if name in values]
        if tag not in ("img", "meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_holds_the_pairs_closest_first_and_nothing_from_elsewhere(world: Path, found: Audit) -> None:
    parsed = _Page()
    text = page(found)
    parsed.feed(text)
    assert parsed.open == []
    assert all(link and link.startswith("data:image/png;base64,") for link in parsed.links)
    assert "http" not in text and "prefers-color-scheme: dark" in text and "width=device-width" in text
    shown = [image["alt"] for image in parsed.images]
    closest = found.summary(MOST)["closest"]
    assert shown == [pair[key] for pair in closest for key in ("key_a", "key_b")]
    assert [p["similarity"] for p in closest] == sorted((p["similarity"] for p in closest), reverse=True)
    pixels = dict(zip(*decoded(world / "b.parquet"), strict=True))
    for image in parsed.images[1::2]:
        data = base64.b64decode(str(image["src"]).partition(",")[2])
        row = int(str(image["alt"]).partition("#")[2])
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(data))), pixels[row])


def test_names_of_files_are_no_markup(tmp_path: Path) -> None:
    for row, picture in enumerate(pictures(12, 5)):
        (tmp_path / "set").mkdir(exist_ok=True)
        (tmp_path / "set" / f"{row:02d} <b>&.png").write_bytes(encode(picture))
    (tmp_path / "set" / "again.png").write_bytes(encode(pictures(12, 5)[7]))
    text = page(audit(str(tmp_path / "set")))
    assert "07 &lt;b&gt;&amp;.png" in text and "<b>&.png" not in text


def test_the_page_is_capped_and_says_so(found: Audit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("curate.audit_page.MOST", 4)
    text = page(found)
    assert text.count("<img ") == 8 and "11 pairs are judged the same picture; the 4 closest are shown" in text


def test_the_command_prints_writes_and_fails_on_request(world: Path) -> None:
    plain = curate(world, "audit", "a.parquet", "--against", "b.parquet", "--out", "new/pairs.csv", "--html", "p.html")
    assert plain.returncode == 0, plain.stderr
    lines = [" ".join(line.split()) for line in plain.stdout.splitlines()]
    assert "images of A 57 of a.parquet, 3 more cannot be used" in lines
    assert "flagged images of A 11 (19.30%)" in lines
    assert "pairs 11: 6 exact, 5 near" in lines
    assert "1.0000 exact a.parquet#20 b.parquet#40" in lines
    assert {"wrote new/pairs.csv", "wrote p.html"} <= set(lines)
    assert (world / "new" / "pairs.csv").read_text().count("\n") == 12 and (world / "p.html").stat().st_size > 5000
    asked = curate(world, "audit", "a.parquet", "--against", "b.parquet", "--json", "--fail-on-match", "--workers", "1")
    assert asked.returncode == 1
    summary = json.loads(asked.stdout)
    assert summary["pairs"] == {"all": 11, "exact": 6, "near": 5} and len(summary["closest"]) == 10


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("nowhere",), "nowhere: no such file"),
        (("a.parquet", "--against", "nowhere"), "nowhere: no such file"),
        (("a.parquet", "--out", "pairs.txt"), "--out pairs.txt: must end in .parquet or .csv"),
    ],
)
def test_bad_input_is_one_line(world: Path, arguments: tuple[str, ...], words: str) -> None:
    result = curate(world, "audit", *arguments)
    assert result.returncode == 2 and words in result.stderr and result.stderr.count("\n") == 1


def test_options_are_checked(world: Path) -> None:
    for changes, words in (
        ({"image_size": 4}, "--image-size 4"),
        ({"workers": 0}, "--workers 0"),
        ({"seed": -1}, "--seed -1"),
    ):
        with pytest.raises(InputError, match=words):
            audit(str(world / "a.parquet"), **changes)  # type: ignore[arg-type]


def test_an_audit_and_a_build_take_the_same_threshold_and_drop_the_same_rows(world: Path, tmp_path: Path) -> None:
    from curate.build import build
    from curate.config import BuildConfig

    ident = tmp_path / "id"
    write_parquet(ident / "train.parquet", list(decoded(world / "b.parquet")[1]), [0] * 79)
    write_parquet(ident / "test.parquet", pictures(10, seed=13), [0] * 10)
    config = BuildConfig(
        source=(str(world / "a.parquet"),), id=str(ident), size=30, out=tmp_path / "x.h5", dry_run=True
    )
    manifest = build(config).manifest
    found = audit(str(world / "a.parquet"), str(ident / "train.parquet"))
    assert found.threshold.to_dict() == manifest["leak_certificate"]["threshold"]
    dropped = {stage["stage"]: stage["dropped"] for stage in manifest["stages"]}
    assert sum(dropped["leaks"].values()) == len(found.flagged()) - 1  # row 50 has the pixels of row 20
