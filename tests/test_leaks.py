"""Leaks: planted copies are found, different pictures are not, and neither batches nor threads matter."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from skimage import data

from curate import alignment, leaks
from curate.copies import COPIES, CopyThreshold, synthetic_copies
from curate.fingerprints import copy_descriptor
from curate.leaks import ProtectedIndex, aligned_similarity, calibrate_copies

THRESHOLD = CopyThreshold(0.856, {}, 0.0, 0, 0, {})


@pytest.fixture(scope="module")
def tiles() -> np.ndarray:
    """300 textured 32x32 tiles of photographs; they do not overlap."""
    photos = [data.astronaut(), data.coffee(), data.chelsea()]
    cut = [p[t : t + 32, x : x + 32] for p in photos for t in range(0, 288, 32) for x in range(0, 416, 32)]
    stacked = np.stack([tile for tile in cut if tile.std() > 15])
    return stacked[np.linspace(0, len(stacked) - 1, 300).astype(int)]


@pytest.fixture(scope="module")
def index(tiles: np.ndarray) -> ProtectedIndex:
    return ProtectedIndex(tiles[:200], THRESHOLD)


@pytest.fixture(scope="module")
def real(srood_data: Path) -> dict[str, np.ndarray]:
    def read(name: str, rows: int) -> np.ndarray:
        column = pq.read_table(srood_data / name, columns=["image"])["image"].slice(0, rows).to_pylist()
        decoded = [Image.open(io.BytesIO(x["bytes"])).convert("RGB").resize((32, 32), 2) for x in column]
        return np.stack([np.asarray(x) for x in decoded])

    return {
        "protected": read("cifar10/test.parquet", 4000),
        "corpus": read("tiny-imagenet/corpus.parquet", 1500),
    }


def _jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))


def _planted(images: np.ndarray, kind: str) -> np.ndarray:
    """Copies made here, without the code under test."""
    rng = np.random.default_rng(5)
    out = []
    for image in images:
        if "flip" in kind:
            image = image[:, ::-1]
        if "shift" in kind:
            top, left = rng.integers(0, 7, 2)
            image = np.pad(image, ((3, 3), (3, 3), (0, 0)), "edge")[top : top + 32, left : left + 32]
        if "bright" in kind:
            image = np.clip(image * 1.2, 0, 255).astype(np.uint8)
        if "jpeg" in kind:
            image = _jpeg(np.ascontiguousarray(image), 60)
        out.append(image)
    return np.stack(out)


def _found(index: ProtectedIndex, copies: np.ndarray, rows: np.ndarray) -> float:
    matches = index.search(copies)
    return len(np.unique(matches.query[rows[matches.query] == matches.protected])) / len(copies)


@pytest.mark.parametrize("kind", ["flip", "shift", "jpeg", "bright", "flip+shift+jpeg"])
def test_planted_copies_of_cifar10_are_found_among_4000(real: dict[str, np.ndarray], kind: str) -> None:
    if "index" not in real:
        real["index"] = ProtectedIndex(real["protected"], THRESHOLD)  # type: ignore[assignment]
    rows = np.arange(0, 4000, 20)
    assert _found(real["index"], _planted(real["protected"][rows], kind), rows) >= 0.95  # type: ignore[arg-type]


def test_unrelated_rows_are_kept(real: dict[str, np.ndarray]) -> None:
    matches = ProtectedIndex(real["protected"], THRESHOLD).search(real["corpus"])
    assert len(np.unique(matches.query)) / len(real["corpus"]) < 0.004
    assert 0 < matches.largest_left.max() < THRESHOLD.similarity


def test_search_is_brute_force_over_all_pairs_and_alignments(tiles: np.ndarray) -> None:
    """Every pair by `aligned_similarity`, on so few images that all are candidates."""
    protected = tiles[:40]
    queries = np.concatenate([_planted(tiles[:20], "flip+shift"), tiles[100:110]])
    matches = ProtectedIndex(protected, THRESHOLD).search(queries)
    every = aligned_similarity(
        np.repeat(queries, 40, axis=0), np.tile(protected, (30, 1, 1, 1)), np.repeat(matches.typical, 40)
    ).reshape(30, 40)
    every[(queries[:, None, :, ::-1] == protected).all(axis=(2, 3, 4))] = 1  # a shift by nothing: the mirrored pixels
    expected = np.argwhere(every >= THRESHOLD.similarity)
    got = sorted(zip(matches.query.tolist(), matches.protected.tolist(), strict=True))
    assert got == sorted(map(tuple, expected.tolist())) and len(got) >= 15
    np.testing.assert_array_equal(every[matches.query, matches.protected], matches.similarity)


def test_correlation_is_pearson_of_the_best_window(tiles: np.ndarray) -> None:
    """The unscaled alignment of an image with its own shifted window, against numpy.corrcoef."""
    band = alignment._band(alignment.luminance(tiles[:2]), alignment._WINDOW_WEIGHTS, alignment._WINDOW_WEIGHTS)
    template = alignment.templates(tiles[1:2])[:, [alignment.SCALES.index((24.0, 24.0))]]
    best = max(
        np.corrcoef(view[t : t + 24, x : x + 24].ravel(), band[1, 4:28, 4:28].ravel())[0, 1]
        for view in (band[0], band[0][:, ::-1])
        for t in range(9)
        for x in range(9)
    )
    assert alignment.correlate(alignment.windows(tiles[:1])[0], template)[0] == pytest.approx(best, abs=0.03)


def test_results_do_not_depend_on_batches_threads_or_order(tiles: np.ndarray, index: ProtectedIndex) -> None:
    queries = np.concatenate([synthetic_copies(tiles[:100], "shift", np.random.default_rng(0)), tiles[200:]])
    whole = index.search(queries, copy_descriptor(queries))
    parts = [index.search(queries[k : k + 7]) for k in range(0, len(queries), 7)]
    shift = np.concatenate([p.query + 7 * k for k, p in enumerate(parts)])
    np.testing.assert_array_equal(shift, whole.query)
    for name in ("protected", "similarity", "kind", "typical", "largest_left"):
        np.testing.assert_array_equal(np.concatenate([getattr(p, name) for p in parts]), getattr(whole, name))
    alone = ProtectedIndex(tiles[:200], THRESHOLD, workers=1).search(queries[::-1])
    np.testing.assert_array_equal(alone.largest_left[::-1], whole.largest_left)
    assert len(alone.query) == len(whole.query)


def test_exact_copies_are_named_so_even_where_there_is_no_texture(tiles: np.ndarray) -> None:
    blank = np.full((1, 32, 32, 3), 200, np.uint8)
    index = ProtectedIndex(np.concatenate([tiles[:50], blank]), THRESHOLD)
    other = np.full((1, 32, 32, 3), 90, np.uint8)
    matches = index.search(np.concatenate([blank, other, tiles[7:8], tiles[7:8, :, ::-1]]))
    assert list(zip(matches.query.tolist(), matches.protected.tolist(), matches.kind.tolist(), strict=True)) == [
        (0, 50, "exact"),
        (2, 7, "exact"),
        (3, 7, "near"),
    ]
    assert matches.similarity[0] == 1


def test_mirrored_pixels_are_a_copy_even_where_there_is_no_texture(tiles: np.ndarray) -> None:
    ramp = np.broadcast_to(np.arange(100, 108, dtype=np.uint8).repeat(4)[None, :, None], (32, 32, 3))[None]
    index = ProtectedIndex(np.concatenate([tiles[:50], ramp]), THRESHOLD)
    matches = index.search(np.concatenate([ramp[:, :, ::-1], ramp[:, ::-1] + np.uint8(90)]))
    assert aligned_similarity(ramp[:, :, ::-1], ramp)[0] < 0.5  # so that correlation did not find it
    found = zip(matches.query, matches.protected, matches.kind, matches.similarity, strict=True)
    assert [tuple(row) for row in found] == [(0, 50, "near", 1.0)]


def test_a_set_full_of_copies_does_not_raise_the_threshold_beyond_use(tiles: np.ndarray) -> None:
    """Half of the images are copies of others: they are no evidence of how alike different pictures are."""
    textured = tiles[tiles.std(axis=(1, 2, 3)) > 25][:120]
    rng = np.random.default_rng(4)
    copies = [synthetic_copies(textured[k::4], kind, rng) for k, kind in enumerate(("shift", "light", "jpeg", "scale"))]
    found = calibrate_copies(np.concatenate([textured, *copies]))
    assert found.different > 0.3 and found.similarity < 0.95  # and not 0.99, which finds next to nothing


def test_a_group_larger_than_the_candidate_list_is_found_whole(tiles: np.ndarray) -> None:
    many = leaks.CANDIDATES + 40
    group = np.repeat(tiles[:1], many, axis=0)
    group[np.arange(many), np.arange(many) % 32, np.arange(many) // 32, 0] ^= 8  # all different in one pixel
    matches = ProtectedIndex(np.concatenate([tiles[1:150], group]), THRESHOLD).search(tiles[:1])
    np.testing.assert_array_equal(np.sort(matches.protected), 149 + np.arange(many))


def test_calibration_reproduces_its_curve(tiles: np.ndarray) -> None:
    found = calibrate_copies(tiles, seed=1)
    assert found == calibrate_copies(tiles, seed=1)
    assert CopyThreshold.from_dict(json.loads(json.dumps(found.to_dict()))) == found
    for name in ("copies", "different"):
        assert (np.diff(found.curve[name]) <= 0).all() and found.curve[name][0] <= 1
    assert (np.diff(found.curve["similarity"]) > 0).all()
    assert set(found.recall) == set(COPIES)
    at = np.searchsorted(found.curve["similarity"], found.similarity)
    recall = np.mean(list(found.recall.values()))  # each kind has as many copies
    assert found.curve["copies"][at] - 1e-9 <= recall <= found.curve["copies"][at - 1] + 1e-9
    assert found.curve["different"][at] <= found.different <= found.curve["different"][at - 1]
    assert found.recall["flip"] == 1
    assert found.recall["light"] >= 0.75  # a fifth of the tiles is nearly plain
    assert found.different <= 0.03


def test_unknown_kinds_and_unequal_lengths_are_refused(tiles: np.ndarray) -> None:
    with pytest.raises(ValueError, match="kind of copy"):
        synthetic_copies(tiles[:1], "turn", np.random.default_rng(0))
    with pytest.raises(ValueError, match="cannot be paired"):
        aligned_similarity(tiles[:1], tiles[:2])


def test_halves_give_the_products_with_every_window_and_its_mirror_image(tiles: np.ndarray) -> None:
    """By multiplying out what the even and odd parts stand for."""
    window, template = alignment.windows(tiles[:1])[0], alignment.templates(tiles[1:4], 2)
    left, right = (window[0] + window[1]) / 2, (window[0] - window[1]) / 2  # the right half is mirrored
    halves = template.reshape(6, 2, -1).astype(float)
    plain = halves[:, 0] @ left.T + halves[:, 1] @ right.T
    mirrored = halves[:, 0] @ right.T + halves[:, 1] @ left.T
    best = np.maximum(plain, mirrored).max(axis=1).reshape(3, 2).max(axis=1) / (480 * 4096)
    np.testing.assert_array_equal(alignment.correlate(window, template), best.astype(np.float32))

    def summed(flat: np.ndarray) -> np.ndarray:
        return flat.reshape(*flat.shape[:-1], 12, 2, 6, 2).sum(axis=(-3, -1)).reshape(*flat.shape[:-1], 72)

    plain = summed(halves[:, 0]) @ summed(left).T + summed(halves[:, 1]) @ summed(right).T
    mirrored = summed(halves[:, 0]) @ summed(right).T + summed(halves[:, 1]) @ summed(left).T
    best = np.maximum(plain, mirrored).max(axis=1).reshape(3, 2).max(axis=1) / (480 * 4096) / 4
    found = alignment.rough_correlate(alignment.rough(window), alignment.rough_templates(template))
    np.testing.assert_array_equal(found, best.astype(np.float32))


def test_the_look_at_half_the_resolution_loses_no_copy(tiles: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    every = CopyThreshold(0.5, {}, 0.0, 0, 0, {})
    index = ProtectedIndex(tiles, every)
    copies = np.concatenate([_planted(tiles[:60], kind) for kind in ("flip", "shift", "jpeg")])
    with_it = index.search(copies)
    monkeypatch.setattr(leaks, "ROUGHLY", len(tiles))
    without = index.search(copies)
    for name in ("query", "protected", "similarity", "kind"):
        np.testing.assert_array_equal(getattr(with_it, name), getattr(without, name))
    assert len(with_it.query) > 150
