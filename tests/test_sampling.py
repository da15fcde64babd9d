"""Sampling strategies against counts by hand and brute force, and end to end through a build."""

from __future__ import annotations

import importlib.util
from collections import Counter
from pathlib import Path

import faiss
import numpy as np
import pytest
from pictures import pictures, write_parquet
from typer.testing import CliRunner

from curate import sampling
from curate.build import build
from curate.cli import app
from curate.clusters import cluster, default_clusters
from curate.config import BuildConfig
from srood import outliers
from srood.errors import InputError

STRATEGIES = ("uniform", "stratified", "clusters", "hard:0.2-0.8", "diverse:0.1-0.9")


def blobs(per_blob: tuple[int, ...], dimensions: int = 16, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors around well separated directions, shuffled, and the blob of each."""
    rng = np.random.default_rng(seed)
    truth = rng.permutation(np.repeat(np.arange(len(per_blob)), per_blob))
    vectors = np.eye(dimensions)[truth] + 0.05 * rng.normal(size=(len(truth), dimensions))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16), truth


def columns(count: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Rows with skewed labels, some without, in eight blobs."""
    rng = np.random.default_rng(seed)
    vectors, _ = blobs((count // 8,) * 7 + (count - 7 * (count // 8),), seed=seed)
    label = np.minimum(rng.geometric(0.3, count) - 1, 9)
    label[rng.random(count) < 0.1] = -1
    return {"label": label, "embedding": vectors, "id_similarity": rng.normal(size=count).astype(np.float32)}


def draw(text: str, data: dict[str, np.ndarray], size: int, seed: int = 0, **more) -> sampling.Sample:
    survivors = more.pop("survivors", np.arange(len(data["label"])))
    return sampling.draw(sampling.parse(text), data, survivors, size, seed, **more)


def water_filling(available: dict[int, int], size: int) -> tuple[int, int]:
    """Least and most rows of the strata that have not run out, by pouring one row after the other."""
    got = dict.fromkeys(available, 0)
    for _ in range(size):
        open_strata = [key for key in got if got[key] < available[key]]
        got[min(open_strata, key=lambda key: got[key])] += 1
    levels = [got[key] for key in got if got[key] < available[key]]
    return min(levels), max(levels)


@pytest.mark.parametrize("strategy", ["stratified", "clusters"])
@pytest.mark.parametrize("size", [10, 97, 400])
def test_strata_get_equal_counts_until_they_run_out(strategy, size):
    data = columns(500)
    sample = draw(strategy, data, size, clusters=8)
    strata = data["label"] if strategy == "stratified" else sample.cluster
    available, got = Counter(strata.tolist()), Counter(strata[sample.rows].tolist())
    assert len(set(sample.rows.tolist())) == size == sum(got.values())
    least, most = water_filling(available, size)
    for stratum, rows in available.items():
        assert got[stratum] == rows or least <= got[stratum] <= most
    assert most - least <= 1


def test_equal_counts_by_hand():
    data = columns(12)
    data["label"] = np.array([0, 0, 0, 0, 0, 0, 0, 1, 1, 1, -1, 2])
    assert Counter(data["label"][draw("stratified", data, 8).rows].tolist()) == {0: 3, 1: 3, -1: 1, 2: 1}
    assert Counter(data["label"][draw("stratified", data, 12).rows].tolist()) == {0: 7, 1: 3, -1: 1, 2: 1}
    record = draw("stratified", data, 8).record
    assert record["strata"] == {"all": 4, "drawn": 4, "least": 1, "most": 3}


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_sizes_are_nested_and_seeds_differ(strategy):
    data = columns(600)
    largest = draw(strategy, data, 600).rows
    assert len(set(largest.tolist())) == len(largest)
    for size in (1, 50, 333):
        assert np.array_equal(draw(strategy, data, size).rows, largest[:size])
    assert not np.array_equal(draw(strategy, data, 50, seed=1).rows, largest[:50])


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_only_survivors_are_drawn(strategy):
    data = columns(600)
    survivors = np.flatnonzero(np.random.default_rng(9).random(600) < 0.5)
    sample = draw(strategy, data, 600, survivors=survivors)
    assert set(sample.rows.tolist()) | set(sample.outside.tolist()) == set(survivors.tolist())
    assert not set(sample.rows.tolist()) & set(sample.outside.tolist())
    inside = np.isin(np.arange(600), np.setdiff1d(survivors, sample.outside))
    assert (sample.cluster[inside] >= 0).all() and (sample.cluster[~inside] == -1).all()


@pytest.mark.parametrize("strategy", ["stratified", "clusters"])
def test_any_prefix_is_stratified_too(strategy):
    data = columns(600)
    sample = draw(strategy, data, 600, clusters=8)
    strata = data["label"] if strategy == "stratified" else sample.cluster
    for size in (20, 60, 100):
        counts = Counter(strata[sample.rows[:size]].tolist())
        least, most = water_filling(Counter(strata.tolist()), size)
        assert max(counts.values()) == most and most - least <= 1


@pytest.mark.parametrize(("text", "low", "high"), [("hard:0.5-0.9", 0.5, 0.9), ("hard:0-.25", 0, 0.25)])
def test_band_is_of_quantiles_of_the_survivors(text, low, high):
    data = columns(1000)
    survivors = np.arange(0, 1000, 3)
    likeness = data["id_similarity"][survivors]
    bounds = np.quantile(likeness.astype(float), [low, high])
    expected = {int(row) for row, value in zip(survivors, likeness, strict=True) if bounds[0] <= value <= bounds[1]}
    sample = draw(text, data, 1000, survivors=survivors)
    assert set(sample.rows.tolist()) == expected
    assert len(expected) == pytest.approx((high - low) * len(survivors), abs=1.5)
    assert sample.record["band"]["rows"] == len(expected)
    assert (sample.record["band"]["from"], sample.record["band"]["to"]) == pytest.approx(tuple(bounds), abs=1e-6)


def test_hard_is_uniform_within_its_band():
    data = columns(1000)
    sample = draw("hard:0.4-0.8", data, 200)
    assert np.array_equal(
        sample.rows, [row for row in draw("uniform", data, 1000).rows if row not in sample.outside][:200]
    )
    drawn, band = data["id_similarity"][sample.rows], np.setdiff1d(np.arange(1000), sample.outside)
    assert drawn.mean() == pytest.approx(data["id_similarity"][band].mean(), abs=0.05)


def test_id_ness_decides_where_there_is_one():
    data = columns(100)
    data["id_ness"] = np.arange(100) / 100
    sample = draw("hard:0.5-0.9", data, 100)
    assert sorted(sample.rows) == list(range(50, 90)) and sample.record["band"]["of"] == "id_ness"


def test_diverse_takes_the_most_id_like_of_each_cluster_in_turn():
    data = columns(400)
    sample = draw("diverse:0.1-0.9", data, 400, clusters=8)
    for of_cluster in range(8):
        members = np.flatnonzero(sample.cluster == of_cluster)
        in_order = sample.rows[sample.cluster[sample.rows] == of_cluster]
        assert np.array_equal(in_order, members[np.argsort(-data["id_similarity"][members])])
    firsts = {
        int(members[data["id_similarity"][members].argmax()])
        for members in (np.flatnonzero(sample.cluster == k) for k in range(8))
    }
    assert set(draw("diverse:0.1-0.9", data, 8, clusters=8).rows.tolist()) == firsts


def test_as_many_clusters_as_rows_is_one_row_of_each():
    sample = draw("diverse:0.1-0.9", columns(400), 40, clusters=40)
    drawn = Counter(sample.cluster[sample.rows].tolist())
    assert (
        sample.record["clusters"] == 40 and max(drawn.values()) <= 2 and len(drawn) >= 35
    )  # k-means may leave one empty


def test_clusters_find_blobs_that_are_there():
    vectors, truth = blobs((50, 100, 200, 400))
    found = cluster(vectors, np.arange(750), 4, seed=0)
    assert all(len(set(found[truth == blob].tolist())) == 1 for blob in range(4)) and len(set(found.tolist())) == 4
    some = np.arange(0, 750, 2)
    again = cluster(vectors, some, 4, seed=3)
    assert all(len(set(again[truth[some] == blob].tolist())) == 1 for blob in range(4))


def test_clusters_are_nearest_centroids_by_brute_force():
    """At a fixed point of spherical k-means, each row lies nearest the mean direction of its cluster."""
    vectors, _ = blobs((60,) * 5, seed=2)
    found = cluster(vectors, np.arange(300), 5, seed=1)
    means = np.stack([vectors[found == k].astype(float).mean(axis=0) for k in range(5)])
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    assert np.array_equal((vectors.astype(float) @ means.T).argmax(axis=1), found)


def test_threads_and_faiss_state_do_not_matter():
    vectors = np.random.default_rng(0).normal(size=(3000, 64)).astype(np.float32)
    before = faiss.omp_get_max_threads()
    results = []
    for threads in (1, 4):
        faiss.omp_set_num_threads(threads)
        results.append(cluster(vectors, np.arange(3000), 40, seed=0))
        assert faiss.omp_get_max_threads() == threads
    faiss.omp_set_num_threads(before)
    assert np.array_equal(*results)


def test_number_of_clusters():
    assert [default_clusters(rows) for rows in (0, 1, 100, 10_000, 65_536, 10**6)] == [1, 1, 10, 100, 256, 256]
    assert len(set(cluster(blobs((3, 3))[0], np.arange(6), 50, 0).tolist())) <= 6
    assert cluster(blobs((3,))[0], np.arange(0), 5, 0).shape == (0,)
    assert draw("clusters", columns(100), 10, survivors=np.arange(0)).rows.shape == (0,)
    assert draw("diverse", columns(100), 10, survivors=np.arange(0)).rows.shape == (0,)


def test_balanced_strategies_cover_more_than_uniform_ones():
    rng = np.random.default_rng(0)
    data = columns(5000)
    data["label"] = np.minimum(rng.zipf(1.3, 5000), 200)
    hit = {text: len(set(data["label"][draw(text, data, 150).rows].tolist())) for text in ("uniform", "stratified")}
    assert hit["stratified"] == min(150, len(set(data["label"].tolist()))) > hit["uniform"]
    vectors, truth = blobs((2000, 20, 20, 20, 20, 20, 20, 20))
    skewed = {"label": truth, "embedding": vectors, "id_similarity": rng.random(2140)}
    hit = {text: Counter(truth[draw(text, skewed, 40, clusters=20).rows].tolist()) for text in ("uniform", "clusters")}
    assert len(hit["clusters"]) == 8 > len(hit["uniform"]) and hit["clusters"][0] < 30 < hit["uniform"][0]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("hardest", "no such strategy; one of uniform, stratified"),
        ("hard", "needs a band of quantiles, as in hard:0.5-0.9"),
        ("hard:0.9-0.5", "the band must have 0 <= LOW < HIGH < 1"),
        ("hard:0.5-1.5", "the band must have"),
        ("hard:0.5", "needs a band"),
        ("hard:0.5-1", "HIGH must be below 1"),
        ("diverse:0.5-1.0", "HIGH must be below 1"),
        ("uniform:0.1-0.2", "uniform takes no band"),
    ],
)
def test_bad_options_are_one_line(text, words, tmp_path):
    with pytest.raises(InputError, match=words) as error:
        build(BuildConfig(sample=text, out=tmp_path / "mini.h5"))
    assert str(error.value).startswith(f"--sample {text}: ") and "\n" not in str(error.value)
    with pytest.raises(InputError, match="--clusters 0: must be at least 1"):
        build(BuildConfig(clusters=0, out=tmp_path / "mini.h5"))


def test_remarks_on_what_does_not_suit():
    none = np.full(5, -1)
    remarks = lambda text, embedder="checkpoint": sampling.remarks(sampling.parse(text), embedder, none)  # noqa: E731
    assert remarks("stratified") == [
        "--sample stratified: the corpus has no labels, so this is a uniform sample; try clusters"
    ]
    assert "with thumbnails ID-likeness is of layout and colour" in remarks("hard:0.1-0.5", "thumbnail")[0]
    assert remarks("uniform", "thumbnail") == remarks("hard:0.1-0.5") == []


def test_coverage_of_the_benchmark_by_hand():
    path = Path(__file__).parent.parent / "benchmarks" / "sampling.py"
    spec = importlib.util.spec_from_file_location("sampling_benchmark", path)
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    labels, judge = np.array([0, 0, 1, 2, 3]), np.array([0, 1, 1, 2, 2])
    found = benchmark.coverage(labels, judge, np.array([True, False, False, False, True]), np.array([0, 1, 2, 3]))
    assert found["entropy_bits"] == pytest.approx(1.5)  # 1/2, 1/4, 1/4
    assert (found["rows"], found["labels"], found["clusters"], found["id_share"]) == (4, 3, 3, 0.25)
    rows = benchmark.long_tail(np.repeat(np.arange(4), 30))
    assert sorted(np.unique(rows // 30, return_counts=True)[1].tolist()) == [15, 17, 21, 30]


# ---- end to end -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    """An ID set, and a corpus in which the labels 0 to 3 have 170, 25, 15 and 5 rows, and 20 rows have none."""
    root = tmp_path_factory.mktemp("sampling")
    ident = pictures(60, seed=1)
    write_parquet(root / "id" / "train.parquet", ident[:40], [i % 2 for i in range(40)], ["a", "b"])
    write_parquet(root / "id" / "test.parquet", ident[40:], [i % 2 for i in range(20)], ["a", "b"])
    labels = np.random.default_rng(3).permutation(np.repeat([0, 1, 2, 3, -1], [170, 25, 15, 5, 20])).tolist()
    write_parquet(root / "corpus.parquet", pictures(235, seed=2), labels, ["house", "tree", "chair", "cup"])
    return root


def config(world: Path, out: Path, **changes) -> BuildConfig:
    values = {"source": (str(world / "corpus.parquet"),), "id": str(world / "id"), "size": 60, "out": out}
    small = {"batch_rows": 64, "shard_rows": 25, "workers": 1, "calibration_images": 20, "protect": ("none",)}
    return BuildConfig(**{**values, **small, **changes})


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_build_samples_and_records(world, tmp_path, strategy):
    result = build(config(world, tmp_path / "a" / "mini.h5", sample=strategy))
    opened = outliers.OutlierSet.open(result.out)
    assert opened.num_rows == 60 and opened.manifest["config"]["sample"] == strategy
    assert opened.manifest["sampling"]["strategy"] == strategy.partition(":")[0]
    found = opened.read("cluster")
    assert found.dtype == np.int64 and found.min() >= 0 and found.max() < opened.manifest["sampling"]["clusters"]
    stage = opened.manifest["stages"][-1]
    assert stage["left"] == 60 and sum(stage["dropped"].values()) == stage["seen"] - 60
    assert ("outside the band" in stage["dropped"]) == strategy.startswith(("hard", "diverse"))
    counts = Counter(opened.read("label").tolist())
    if strategy == "stratified":  # 5 cups, then 13 or 14 of each
        assert counts[3] == 5 and sorted(counts[label] for label in (-1, 0, 1, 2)) == [13, 14, 14, 14]
    elif strategy == "uniform":
        assert counts[0] > 35
    elif strategy == "clusters":
        sizes = Counter(found.tolist())
        assert max(sizes.values()) <= 5  # of 15 clusters
    if strategy.startswith(("hard", "diverse")):
        band = opened.manifest["sampling"]["band"]
        likeness = opened.read(band["of"])
        assert band["from"] - 1e-6 <= likeness.min() and likeness.max() <= band["to"] + 1e-6


def test_builds_of_clusters_are_nested_on_any_number_of_workers(world, tmp_path):
    keys = []
    for size, workers in ((40, 1), (90, 3)):
        out = tmp_path / str(size) / "mini.h5"
        build(config(world, out, sample="clusters", size=size, workers=workers))
        keys.append(outliers.OutlierSet.open(out).read("key"))
    assert np.array_equal(keys[1][:40], keys[0])


def test_command_takes_the_options(world, tmp_path):
    command = ["build", "--source", str(world / "corpus.parquet"), "--id", str(world / "id"), "--size", "20"]
    command += ["--out", str(tmp_path / "mini.h5"), "--sample", "clusters", "--clusters", "7"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    manifest = outliers.read_manifest(tmp_path / "mini.h5")
    assert manifest["sampling"]["strata"] == {"all": 7, "drawn": 7, "least": 2, "most": 3}
    assert (manifest["config"]["sample"], manifest["config"]["clusters"]) == ("clusters", 7)
