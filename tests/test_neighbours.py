import faiss
import numpy as np

from curate import neighbours, sampling
from curate.embedders import thumbnail, unit_length


def test_nearest_is_the_largest_cosine():
    rng = np.random.default_rng(0)
    base, query = (unit_length(rng.normal(size=(n, 16))) for n in (300, 50))
    similarity, row = neighbours.IdIndex(base, np.arange(300) % 10).nearest(query)
    brute = query @ base.T
    assert np.array_equal(row, brute.argmax(axis=1))
    assert np.allclose(similarity, brute.max(axis=1), atol=1e-6)


def test_nearest_gives_the_same_bits_on_any_number_of_threads():
    rng = np.random.default_rng(1)
    base, query = (unit_length(rng.normal(size=(n, 192)).astype(np.float32)) for n in (2_000, 1_024))
    index, before = neighbours.IdIndex(base, np.zeros(2_000)), faiss.omp_get_max_threads()
    found = []
    for threads in (1, 2, 4):
        faiss.omp_set_num_threads(threads)
        found.append(index.nearest(query)[0].tobytes())
    faiss.omp_set_num_threads(before)
    assert len(set(found)) == 1


def test_thumbnail_is_the_mean_of_each_cell():
    images = np.random.default_rng(2).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    cells = images.astype(np.float64).reshape(3, 8, 4, 8, 4, 3).mean(axis=(2, 4)).reshape(3, -1)
    cells -= cells.mean(axis=1, keepdims=True)
    expected = cells / np.linalg.norm(cells, axis=1, keepdims=True)
    assert np.allclose(thumbnail(images), expected, atol=1e-5)


def test_thumbnail_of_a_blank_image_is_finite():
    assert not thumbnail(np.full((1, 32, 32, 3), 9, np.uint8)).any()


def test_uniform_samples_are_nested_without_repeats_and_unbiased():
    large, small = sampling.uniform(1_000, 600, seed=3), sampling.uniform(1_000, 100, seed=3)
    assert np.array_equal(large[:100], small)
    assert len(np.unique(large)) == 600
    assert len(sampling.uniform(50, 600, seed=3)) == 50
    counts = np.zeros(20)
    for seed in range(2_000):
        counts[sampling.uniform(20, 5, seed)] += 1
    # each row is drawn 500 times on average, with a standard deviation of 19.4
    assert np.abs(counts - 500).max() < 5 * 19.4
