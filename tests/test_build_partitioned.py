"""A build whose corpus is beyond the flat search, and what a build keeps in memory."""

from pathlib import Path

import numpy as np
import pytest
from pictures import encode, pictures, write_parquet

from curate import dedup
from curate.build import build
from curate.config import BuildConfig
from curate.digests import hexadecimal
from curate.row_file import RowFile
from curate.survivors import Survivors


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus of 500 pictures of which rows 400 to 439 are copies of the first, and one a copy of an ID image."""
    root = tmp_path_factory.mktemp("world")
    ident = pictures(150, seed=1)
    write_parquet(root / "id" / "train.parquet", ident[:120], [0] * 120, ["a"])
    write_parquet(root / "id" / "test.parquet", ident[120:], [0] * 30, ["a"])
    corpus: list = list(pictures(500, seed=2))
    corpus[400:440] = [encode(picture, "JPEG", quality=85) for picture in corpus[:40]]
    corpus[450] = encode(ident[3][:, ::-1], "JPEG", quality=80)
    corpus[451] = encode(np.clip(ident[3][:, ::-1] * 1.1, 0, 255).astype(np.uint8), "JPEG", quality=70)
    write_parquet(root / "corpus.parquet", corpus, [-1] * 500)
    return root


def make(world: Path, out: Path, **changes: object) -> BuildConfig:
    values = {"source": (str(world / "corpus.parquet"),), "id": str(world / "id"), "size": 400, "out": out}
    return BuildConfig(**{**values, "calibration_images": 40, "batch_rows": 100, **changes})  # type: ignore[arg-type]


def test_a_large_corpus_gives_the_set_of_the_flat_search_on_any_number_of_threads(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flat = build(make(world, tmp_path / "flat" / "mini.h5"))
    monkeypatch.setattr(dedup, "FLAT", 200)
    files = []
    for workers in (1, 2):
        folder = tmp_path / str(workers)
        result = build(make(world, folder / "mini.h5", workers=workers))
        files.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert files[0] == files[1]
    index = result.manifest["near_duplicates"]["index"]
    assert flat.manifest["near_duplicates"] == {"index": {"kind": "flat"}}
    assert (index["kind"], index["lists"], index["probes"]) == ("partitioned", 45, 16)
    assert 0.9 < index["recall"] <= 1 and 0.9 < index["recall_of_flat"] <= 1
    dropped = [entry["dropped"] for entry in result.manifest["stages"] if entry["stage"] == "near-duplicates"]
    assert dropped[0]["repeats an earlier row"] == pytest.approx(40, abs=1)
    assert result.manifest["shards"][0]["sha256"] == flat.manifest["shards"][0]["sha256"]  # the same rows, here


def test_survivors_keep_about_two_hundred_bytes_a_row(tmp_path: Path) -> None:
    """Pixels, embeddings and descriptors lie in files; what is in memory is counted."""
    rng = np.random.default_rng(0)
    survivors = Survivors(tmp_path)
    parts = []
    for first in (0, 50):
        part = {
            "image": rng.integers(0, 256, (50, 32, 32, 3), np.uint8),
            "embedding": rng.random((50, 192)).astype(np.float16),
            "descriptor": (rng.integers(-2048, 2049, (50, 144)) / 2048).astype(np.float32),
            "leaked_image": rng.integers(0, 256, (2, 32, 32, 3), np.uint8),
            "leaked_descriptor": (rng.integers(-2048, 2049, (2, 144)) / 2048).astype(np.float32),
            "key": np.array([f"corpus.parquet#{k}" for k in range(first, first + 50)], bytes),
            "sha256": np.array([rng.bytes(32).hex() for _ in range(50)], "S64"),
            **{name: np.arange(50) for name in ("label", "id_class", "leak_row")},
            **{name: np.zeros(50, np.float32) for name in ("id_similarity", "leak_similarity")},
        }
        parts.append(part)
        survivors.take(dict(part))
    survivors.join()
    together = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    assert sum(values.nbytes for values in survivors.columns.values()) < 200 * 100
    assert all(isinstance(x, RowFile) for x in (survivors.image, survivors.embedding, survivors.descriptor))
    keep = rng.random(100) < 0.6
    survivors.keep(keep)
    assert len(survivors) == keep.sum()
    np.testing.assert_array_equal(survivors.image[:], together["image"][keep])
    np.testing.assert_array_equal(survivors.embedding[:], together["embedding"][keep])
    np.testing.assert_array_equal(hexadecimal(survivors.columns["sha256"]), together["sha256"][keep])
    images, descriptors = survivors.with_leaks()
    np.testing.assert_array_equal(images[:], np.concatenate([together["image"][keep], together["leaked_image"]]))
    whole = np.concatenate([together["descriptor"][keep], together["leaked_descriptor"]]) * 2048
    np.testing.assert_array_equal(descriptors[:], whole)
