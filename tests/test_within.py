"""Copies within a large set: the groups of the search that compares each row with all."""

from pathlib import Path

import numpy as np
import pytest
from skimage import data

from curate import dedup, sketch, within
from curate.copies import COPIES, CopyThreshold, synthetic_copies
from curate.dedup import find_groups
from curate.fingerprints import DIMENSIONS, copy_descriptor, flip_descriptor
from curate.leaks import ProtectedIndex
from curate.partitions import packed, partition
from curate.row_file import RowFile

THRESHOLD = CopyThreshold(0.85, {}, 0.0, 0, 0, {})


@pytest.fixture(scope="module")
def planted() -> np.ndarray:
    """250 textured tiles, and a copy of each kind of 20 of them."""
    photo = np.concatenate([data.astronaut(), data.coffee()[:400, :512]])
    cut = [photo[t : t + 32, x : x + 32] for t in range(0, 896, 32) for x in range(0, 512, 32)]
    tiles = np.stack([tile for tile in cut if tile.std() > 25])[:250]
    rng = np.random.default_rng(0)
    copies = [synthetic_copies(tiles[k * 20 : k * 20 + 20], kind, rng) for k, kind in enumerate(COPIES)]
    return np.concatenate([tiles, *copies])


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dedup, "FLAT", 100)


def test_groups_are_those_of_the_flat_search(planted: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    leaked = np.zeros(len(planted), bool)
    leaked[-15:] = True
    flat = find_groups(planted, None, THRESHOLD, leaked)
    monkeypatch.setattr(dedup, "FLAT", 100)
    found = find_groups(planted, None, THRESHOLD, leaked)
    assert flat.index == {"kind": "flat"}
    assert found.index["kind"] == "partitioned" and found.index["lists"] == 41 and found.index["recall"] > 0.9
    same = found.representative == flat.representative
    assert same.mean() > 0.98  # fewer candidates and lists: a copy may be missed
    copied = flat.representative != np.arange(len(planted))
    assert copied.sum() > 150 and same[copied].mean() > 0.95


class Nearest:
    """The rows whose pictures, mirrored or not, are nearest, each counted once as in lists: by all products."""

    def __init__(self, rows: np.ndarray) -> None:
        self.rows = rows.astype(float)

    def search(self, descriptors: np.ndarray, most: int, sure: float) -> list[np.ndarray]:
        near = np.maximum(descriptors @ self.rows.T, flip_descriptor(descriptors) @ self.rows.T)
        least = np.minimum(np.sort(near, axis=1)[:, -most], sure)
        return [np.flatnonzero(line >= limit) for line, limit in zip(near, least, strict=True)]


def test_with_every_list_and_candidate_the_groups_are_the_same(
    planted: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is left out then: every pair of the flat search is found, and no other."""
    monkeypatch.setattr(within, "CANDIDATES", 32)
    monkeypatch.setattr(sketch, "PROMISING", -1.0)
    descriptors = copy_descriptor(planted)
    lists = partition(descriptors, probes=10**6)
    index = ProtectedIndex(planted, THRESHOLD, candidates=Nearest(descriptors))
    flat = index.search(planted, descriptors, within=True)
    expected = {(min(p), max(p)) for p in zip(flat.query.tolist(), flat.protected.tolist(), strict=True)}
    for workers in (1, 2):
        found = within.find_pairs(planted, lists, THRESHOLD, workers)
        assert list(zip(found.low.tolist(), found.high.tolist(), strict=True)) == sorted(expected)
        np.testing.assert_array_equal(found.typical, flat.typical)
    grouped = dedup.group_pairs(planted, found, THRESHOLD)
    np.testing.assert_array_equal(grouped, dedup.group_pairs(planted, flat, THRESHOLD))


def test_groups_depend_neither_on_threads_nor_on_where_the_set_is(
    planted: np.ndarray, large: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(within, "BLOCK", 60)
    one = find_groups(planted, None, THRESHOLD, workers=1)
    images = RowFile(tmp_path / "images.bin", planted.shape[1:], np.uint8)
    images.append(planted)
    descriptors = RowFile(tmp_path / "descriptors.bin", (DIMENSIONS,), np.int16)
    descriptors.append(packed(copy_descriptor(planted)))
    two = find_groups(images, descriptors, THRESHOLD, workers=2, folder=tmp_path)
    np.testing.assert_array_equal(one.representative, two.representative)
    assert one.index == two.index


def test_recall_is_counted_over_the_copies(planted: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(within, "CANDIDATES", 4)
    descriptors = copy_descriptor(planted)
    assert within.measured_recall(planted, descriptors, partition(descriptors, probes=10**6)).partitioned == 1
    few = partition(descriptors, probes=1)
    found = within.measured_recall(planted, descriptors, few)
    assert found.flat > 0.9 and 0.5 < found.partitioned < 1


def test_mirrored_pixels_are_found_where_there_is_no_texture(planted: np.ndarray, large: None) -> None:
    ramp = np.broadcast_to(np.arange(100, 108, dtype=np.uint8).repeat(4)[None, :, None], (32, 32, 3))[None]
    images = np.concatenate([planted[:120], ramp, planted[120:200], ramp[:, :, ::-1]])
    assert within.equal_rows(images).keys() == {120, 201}
    assert find_groups(images, None, THRESHOLD).representative[201] == 120


def test_a_large_group_of_copies_is_one_group_with_few_pairs_kept(
    planted: np.ndarray, large: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = np.repeat(planted[:1], 150, axis=0)
    group[np.arange(150), np.arange(150) % 32, np.arange(150) // 32, 0] ^= 8  # all different in one pixel
    images = np.concatenate([planted[1:100], group])
    kept = []
    pairs_of = within.find_pairs

    def counted(*arguments: object) -> within.Pairs:
        kept.append(pairs_of(*arguments))  # type: ignore[arg-type]
        return kept[-1]

    monkeypatch.setattr(within, "find_pairs", counted)
    groups = find_groups(images, None, THRESHOLD).representative
    np.testing.assert_array_equal(groups[99:], 99)
    assert len(kept[0].low) <= 2 * dedup.KEPT * len(images) < 150 * 149 / 2


def test_a_sketch_tells_copies_from_other_pictures(planted: np.ndarray) -> None:
    rng = np.random.default_rng(1)
    templates = sketch.templates(planted[:60])
    reached = []
    for kind in COPIES:
        windows = sketch.windows(synthetic_copies(planted[:60], kind, rng))
        reached += [sketch.correlate(windows[k], templates[k : k + 1])[0] for k in range(60)]
        if kind == "flip":
            assert min(reached) > 0.85  # faint pictures reach less
    assert np.mean(np.array(reached) >= sketch.PROMISING) > 0.95
    windows = sketch.windows(planted[100:160])
    others = np.stack([sketch.correlate(window, templates) for window in windows])
    assert np.mean(others >= sketch.PROMISING) < 0.02


def test_a_sketch_is_pearson_of_the_best_window(planted: np.ndarray) -> None:
    grey = sketch.luminance(planted[:2])
    band = sketch._band(grey, *sketch._WINDOW_WEIGHTS)
    best = -1.0
    for kernel, mean in sketch._TEMPLATE_WEIGHTS:
        template = sketch._band(grey[1:], kernel, mean)[0]
        for view in (band[0], band[0][:, ::-1]):
            cut = [view[t : t + 12, x : x + 12] for t in range(5) for x in range(5)]
            best = max(best, *(float(np.corrcoef(window.ravel(), template.ravel())[0, 1]) for window in cut))
    found = sketch.correlate(sketch.windows(planted[:1])[0], sketch.templates(planted[1:2]))[0]
    assert found == pytest.approx(best, abs=0.03)
