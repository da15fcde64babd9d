"""The nearest descriptors against all inner products."""

import numpy as np
import pytest

from curate import candidates
from curate.candidates import Candidates
from curate.fingerprints import DIMENSIONS, UNIT, exact_unit, flip_descriptor


def descriptors(rng: np.random.Generator, count: int) -> np.ndarray:
    return (exact_unit(rng.normal(size=(count, DIMENSIONS)) + 0.3) / UNIT).astype(np.float32)


def by_all_products(queries: np.ndarray, rows: np.ndarray, most: int, sure: float) -> list[list[int]]:
    both = [queries.astype(float) @ rows.T, flip_descriptor(queries).astype(float) @ rows.T]
    near = np.maximum(*both)
    least = np.minimum(np.sort(np.concatenate(both, axis=1), axis=1)[:, -most], np.float32(sure))
    return [np.flatnonzero(line >= limit).tolist() for line, limit in zip(near, least, strict=True)]


@pytest.mark.parametrize(("count", "most", "segment"), [(40, 7, 1 << 17), (3000, 5, 1 << 17), (3000, 5, 1000)])
def test_the_nearest_are_those_of_all_inner_products(
    count: int, most: int, segment: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(candidates, "_SEGMENT", segment)
    monkeypatch.setattr(candidates, "_COLUMNS", 256)
    rng = np.random.default_rng(0)
    rows, queries = descriptors(rng, count), descriptors(rng, 30)
    rows[7:19] = rows[5]  # as near as one another: all of them or none
    queries[0], queries[1] = rows[5], flip_descriptor(rows[9:10])[0]
    found = [list(x) for x in Candidates(rows).search(queries, most, 0.9)]
    assert found == by_all_products(queries, rows, most, 0.9)
    assert set(found[0]) >= {5, *range(7, 19)} and 9 in found[1]


def test_all_that_are_sure_are_found_however_many() -> None:
    rng = np.random.default_rng(1)
    rows = descriptors(rng, 2000)
    rows[100:300] = rows[1] + (rng.random((200, DIMENSIONS)) < 0.02).astype(np.float32) / UNIT
    (found,) = Candidates(rows).search(rows[1:2], 10, 0.9)
    assert set(found) == {1, *range(100, 300)}


def test_a_small_set_is_looked_at_whole() -> None:
    rows = descriptors(np.random.default_rng(2), 6)
    assert [list(x) for x in Candidates(rows).search(rows[:2], 12, 0.9)] == [[0, 1, 2, 3, 4, 5]] * 2
