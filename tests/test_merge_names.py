"""`curate merge` where names repeat or differ: labels of one name in a corpus, one ID set under two names."""

import shutil
from collections import Counter
from pathlib import Path

import pytest
from pictures import pictures, write_parquet
from small_sets import manifest_of, rows_of

from curate.build import build
from curate.config import BuildConfig
from curate.deriving.merge import MergeConfig, merge
from curate.deriving.select import SelectConfig, select

NAMES = ["lamp", "tabby cat"]


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    """Two corpora with the same label names, and an ID set in two folders."""
    root = tmp_path_factory.mktemp("names")
    ident, corpus = pictures(60, seed=1), pictures(120, seed=2)
    for split, rows in (("train", slice(0, 40)), ("test", slice(40, 60))):
        write_parquet(root / "id" / f"{split}.parquet", ident[rows], [i % 2 for i in range(60)[rows]], ["cat", "truck"])
    shutil.copytree(root / "id", root / "copy")
    write_parquet(root / "one.parquet", corpus[:60], [row % 2 for row in range(60)], NAMES)
    write_parquet(root / "two.parquet", corpus[60:], [row % 2 for row in range(60)], NAMES)
    return root


def made(world: Path, out: Path, sources: str = "one two", ident: str = "id", **changes) -> Path:
    source = tuple(str(world / f"{name}.parquet") for name in sources.split())
    small = {"workers": 1, "calibration_images": 20, "exclude_labels": "none", "clusters": 3, "id_recall": 0.0}
    return build(BuildConfig(source, id=str(world / ident), out=out, **{"size": 80, **small, **changes})).out


def names_by_pixels(*paths: Path) -> dict[bytes, str]:
    return {
        digest: name
        for path in paths
        for digest, name in zip(*(rows_of(path)[of].tolist() for of in ("sha256", "name")), strict=True)
    }


@pytest.mark.parametrize("third", [False, True])
def test_labels_keep_their_names_where_a_corpus_has_a_name_twice(world, tmp_path, third):
    parents = [made(world, tmp_path / f"{seed}.h5", seed=seed) for seed in (0, 1)]
    assert manifest_of(parents[0])["label_names"] == NAMES * 2
    if third:  # of another corpus, so that labels are numbered anew
        parents.append(made(world, tmp_path / "other.h5", "two", size=30))
    out = merge(MergeConfig(tuple(parents), tmp_path / "x.h5", keep_near_duplicates=True)).out
    manifest, rows = manifest_of(out), rows_of(out)
    assert manifest["label_names"] == (NAMES if third else NAMES * 2)
    assert dict(zip(rows["sha256"].tolist(), rows["name"].tolist(), strict=True)) == names_by_pixels(*parents)
    share = Counter(rows["name"].tolist())["tabby cat"] / len(rows["name"])
    assert 0.3 < share < 0.7
    assert manifest["contamination"]["kept"] == pytest.approx(share, abs=1e-6)
    cats = select(SelectConfig(out, tmp_path / "cats.h5", label=("tabby cat",))).out
    assert sorted(rows_of(cats)["sha256"].tolist()) == sorted(rows["sha256"][rows["name"] == "tabby cat"].tolist())


def test_an_id_set_under_two_names_is_named(world, tmp_path):
    parents = [made(world, tmp_path / f"{n}.h5", n, n_id, size=40) for n, n_id in (("one", "id"), ("two", "copy"))]
    assert [manifest_of(path)["config"]["id"] for path in parents] == ["id", "copy"]
    out = merge(MergeConfig(tuple(parents), tmp_path / "x.h5")).out
    first = manifest_of(out)["derived"]["parents"][0]["manifest"]["config"]["id"]
    assert manifest_of(out)["config"]["id"] == first in ("id", "copy")
    again = merge(MergeConfig((out, made(world, tmp_path / "third.h5", "one", "copy", size=30)), tmp_path / "y.h5")).out
    assert manifest_of(again)["config"]["id"] in ("id", "copy")
