import hashlib
from dataclasses import replace

import numpy as np
import pytest
from pictures import encode, pictures, write_parquet

from curate.build import build
from curate.config import BuildConfig
from curate.evidence import (
    CLEAREST,
    DOUBTFUL,
    EDGES,
    ID,
    LEAK,
    LEFT,
    PAIRS,
    PER_GROUP,
    SIDE,
    Batch,
    Evidence,
    Partners,
    narrowest,
    read_evidence,
)
from srood import outliers
from srood.errors import InputError


def some_rows(count: int = 300) -> tuple[Batch, list[str | None], np.ndarray]:
    rng = np.random.default_rng(3)
    images = rng.integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
    batch = Batch([f"corpus#{row}" for row in range(count)], images, np.arange(count) % 7)
    reasons: list[str | None] = [(None, "a", "b")[row % 3] for row in range(count)]
    return batch, reasons, rng.random(count).astype(np.float32)


def collect(splits: list[int], seed: int = 5) -> Evidence:
    batch, reasons, similarity = some_rows()
    whole = Evidence(seed)
    for rows in np.split(np.arange(len(reasons)), splits):
        part = Evidence(seed)
        some = [reasons[row] for row in rows]
        part.drop("stage", batch, rows, some, similarity[rows], Partners(batch, rows[::-1]))
        gone = np.array([row for row in rows if reasons[row]], np.int64)
        part.pairs(CLEAREST, batch, gone, similarity[gone], Partners(batch, gone), largest=True)
        part.pairs(DOUBTFUL, batch, gone, similarity[gone], Partners(batch, gone), largest=False)
        part.count(LEAK, "dropped", similarity[gone])
        stored = {"other": np.zeros(1), **part.to_part()}
        whole.take_part(stored)
        assert list(stored) == ["other"]
    return whole


def test_what_is_shown_is_a_draw_by_hash_over_all_rows():
    batch, reasons, similarity = some_rows()
    rank = {key: hashlib.sha256(f"5\0{key}".encode()).digest()[:6] for key in batch.keys}
    for reason in ("a", "b"):
        expected = sorted((key for key, why in zip(batch.keys, reasons, strict=True) if why == reason), key=rank.get)
        shown = collect([]).groups["stage", reason]
        assert [row.key for row in shown] == expected[:PER_GROUP]
        for row in shown:
            number = int(row.key.partition("#")[2])
            assert np.array_equal(row.image, batch.images[number]) and row.label == number % 7
            assert row.similarity == similarity[number]
            assert row.partner_key == f"corpus#{299 - number}"
            assert np.array_equal(row.partner, batch.images[299 - number])
    assert [r.key for r in collect([]).groups["stage", "a"]] != [r.key for r in collect([], 6).groups["stage", "a"]]


def test_pairs_are_the_extremes_and_histograms_count_everything():
    _, reasons, similarity = some_rows()
    gone = np.sort(similarity[[reason is not None for reason in reasons]])
    evidence = collect([40, 41, 200])
    assert [row.similarity for row in evidence.groups[PAIRS, CLEAREST]] == gone[::-1][:PER_GROUP].tolist()
    assert [row.similarity for row in evidence.groups[PAIRS, DOUBTFUL]] == gone[:PER_GROUP].tolist()
    assert np.array_equal(evidence.histograms[f"{LEAK}, dropped"], np.histogram(gone, EDGES[LEAK])[0])


def test_neither_the_split_into_batches_nor_storing_changes_anything():
    once = collect([]).to_arrays()
    # partners were counted from each part's end, so only what does not depend on that is compared
    for splits in ([1, 2, 3, 150], [299], list(range(10, 300, 10))):
        again = collect(splits).to_arrays()
        assert set(again) == set(once)
        for name in ("stage", "reason", "key", "label", "similarity", "rank", "picture", "histogram"):
            assert np.array_equal(again[name], once[name]), name
    there_and_back = Evidence.from_arrays(once).to_arrays()
    assert all(
        np.array_equal(there_and_back[name], once[name], equal_nan=once[name].dtype.kind == "f") for name in once
    )


def test_rows_that_were_not_decoded_have_no_picture_and_large_ones_are_made_small():
    evidence = Evidence(0)
    batch = Batch(["x", "y\udcff"], np.full((2, 300, 200, 3), 90, np.uint8))
    evidence.drop("decode", batch, np.arange(2), ["empty", "truncated"], pictures=False)
    evidence.drop_all("stage", "why", batch, np.array([0]))
    again = Evidence.from_arrays(evidence.to_arrays())
    (empty,) = again.groups["decode", "empty"]
    assert empty.image is None and np.isnan(empty.similarity) and empty.label == -1
    assert again.groups["decode", "truncated"][0].key == "y\udcff"
    assert again.groups["stage", "why"][0].image.shape == (SIDE, SIDE * 2 // 3 + 1, 3)


def test_narrowest_are_the_most_similar_that_have_a_neighbour():
    protected = Batch(["p0", "p1"], np.stack([np.full((4, 4, 3), v, np.uint8) for v in (10, 20)]))
    found = narrowest(np.array([0.1, 0.5, 0.0, 0.3]), np.array([1, 0, -1, 1]), protected)
    assert [(row, key) for row, (key, _) in found.items()] == [(1, "p0"), (3, "p1"), (0, "p1")]
    assert found[1][1][0, 0, 0] == 10
    assert narrowest(np.zeros(2), np.zeros(2, int), None) == {}


# ---- as a build leaves it -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    root = tmp_path_factory.mktemp("world")
    ident, corpus = pictures(80, seed=1), list(pictures(160, seed=2))
    write_parquet(root / "id" / "train.parquet", ident[:60], [i % 2 for i in range(60)], ["a", "b"])
    write_parquet(root / "id" / "test.parquet", ident[60:], [i % 2 for i in range(20)], ["a", "b"])
    for row in range(3):
        corpus[20 + row] = ident[60 + row]  # exact leaks
        corpus[30 + row] = encode(ident[row][:, ::-1], "JPEG", quality=85)  # mirrored leaks
        corpus[40 + row] = encode(corpus[50 + row], "JPEG", quality=88)  # near-duplicates of later rows
        corpus[60 + row] = corpus[row]  # exact duplicates
    corpus[70] = b"no image"
    write_parquet(root / "corpus.parquet", corpus, [0] * 160, ["thing"], row_group_size=50)
    return root, ident, corpus


@pytest.fixture(scope="module")
def built(world, tmp_path_factory):
    root, _, _ = world
    config = BuildConfig(
        source=(str(root / "corpus.parquet"),), id=str(root / "id"), size=100, calibration_images=20,
        out=tmp_path_factory.mktemp("built") / "mini.h5", batch_rows=50, id_recall=0.2, exclude_labels="none",
    )  # fmt: skip
    return config, build(config)


def test_a_build_shows_what_was_planted_beside_what_it_repeats(built, world):
    _, ident, corpus = world
    config, result = built
    evidence = read_evidence(config.out, result.manifest)
    assert [row.key for row in evidence.groups["decode", "not an image"]] == ["corpus.parquet#70"]
    exact = {row.key: row for row in evidence.groups["leaks", "exact copy"]}
    assert set(exact) == {f"corpus.parquet#{20 + row}" for row in range(3)}
    near = {row.key: row for row in evidence.groups["leaks", "near-duplicate"]}
    for row in range(3):
        leak = exact[f"corpus.parquet#{20 + row}"]
        assert leak.partner_key == f"test.parquet#{row}" and leak.similarity == 1
        assert np.array_equal(leak.image, ident[60 + row]) and np.array_equal(leak.partner, ident[60 + row])
        mirrored = near[f"corpus.parquet#{30 + row}"]
        assert mirrored.partner_key == f"train.parquet#{row}" and np.array_equal(mirrored.partner, ident[row])
        assert f"corpus.parquet#{60 + row}" in {
            shown.key for shown in evidence.groups["exact duplicates", "same pixels as an earlier row"]
        }
    repeats = {row.key: row for row in evidence.groups["near-duplicates", "repeats an earlier row"]}
    for row in range(3):
        if repeat := repeats.get(f"corpus.parquet#{50 + row}"):
            assert repeat.partner_key == f"corpus.parquet#{40 + row}"
            assert np.array_equal(repeat.image, corpus[50 + row])
    assert repeats


def test_groups_and_histograms_agree_with_the_manifest(built):
    config, result = built
    evidence, manifest = read_evidence(config.out, result.manifest), result.manifest
    for entry in manifest["stages"]:
        for reason, count in entry["dropped"].items():
            assert len(evidence.groups[entry["stage"], reason]) == min(count, PER_GROUP), (entry["stage"], reason)
    stages = {entry["stage"]: sum(entry["dropped"].values()) for entry in manifest["stages"]}
    totals = {name: int(counts.sum()) for name, counts in evidence.histograms.items()}
    assert totals[f"{LEAK}, kept"] == totals[f"{ID}, kept"] == manifest["rows"] == 100
    assert totals[f"{LEAK}, dropped"] == stages["leaks"]
    assert totals[f"{ID}, dropped"] == stages["ID-class neighbours"]
    assert totals[f"{ID}, held-out ID images"] == 20
    kept = outliers.OutlierSet.open(config.out)
    expected = np.histogram(kept.read("id_similarity"), EDGES[ID])[0]
    assert np.array_equal(evidence.histograms[f"{ID}, kept"], expected)
    left = evidence.groups[PAIRS, LEFT]
    assert round(left[0].similarity, 4) == manifest["leak_certificate"]["largest_similarity_left"]
    assert {row.key.encode() for row in left} <= set(kept.read("key").tolist())


def test_other_batches_and_workers_show_the_same(built, tmp_path):
    config, _ = built
    again = replace(config, out=tmp_path / "mini.h5", batch_rows=33, workers=1)
    build(again)
    arrays = [read_evidence(c.out, outliers.read_manifest(c.out)).to_arrays() for c in (config, again)]
    for name in arrays[0]:
        assert np.array_equal(arrays[0][name], arrays[1][name], equal_nan=arrays[0][name].dtype.kind == "f"), name


def test_the_file_is_verified_but_not_needed(built, tmp_path):
    config, result = built
    for file in config.out.parent.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    moved, file = tmp_path / "mini.h5", tmp_path / "mini-evidence.h5"
    assert outliers.verify(moved) == []
    assert result.manifest["evidence"] == {
        "file": "mini-evidence.h5",
        "bytes": file.stat().st_size,
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
    }
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    assert any("mini-evidence.h5: was altered" in problem for problem in outliers.verify(moved))
    with pytest.raises(InputError, match="mini-evidence.h5: was altered"):
        read_evidence(moved, result.manifest)
    file.unlink()
    assert outliers.OutlierSet.open(moved).num_rows == 100
    assert outliers.verify(moved) == []
    assert read_evidence(moved, result.manifest) is None
    file.write_bytes(content)
    outliers.remove_set(moved)
    assert list(tmp_path.iterdir()) == []
