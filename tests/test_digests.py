"""Digests against a Python set."""

import hashlib

import numpy as np

from curate.digests import Digests, hexadecimal, raw


def test_digests_are_a_set_of_sixteen_bytes_each() -> None:
    texts = [hashlib.sha256(str(k).encode()).hexdigest() for k in range(5000)]
    texts[7] = texts[3][:16] + texts[7][16:]  # eight bytes in common
    values = np.array(texts, "S64")
    seen, known = Digests(), set()
    rng = np.random.default_rng(0)
    for _ in range(200):
        some = values[rng.permutation(5000)[: rng.integers(0, 60)]]
        assert seen.holds(some).tolist() == [value in known for value in some.tolist()]
        new = some[~seen.holds(some)]
        seen.add(new)
        known.update(new.tolist())
    seen.add(values[~seen.holds(values)])
    assert len(seen) == 5000 and seen.holds(values).all() and not seen.holds(np.array(["0" * 64], "S64")).any()
    assert seen.nbytes == 16 * 5000 and len(seen._tiers) < 13


def test_raw_and_back() -> None:
    values = np.array([hashlib.sha256(bytes([k])).hexdigest() for k in range(9)], "S64")
    assert raw(values).shape == (9, 32) and bytes(raw(values)[2]) == hashlib.sha256(b"\2").digest()
    np.testing.assert_array_equal(hexadecimal(raw(values)), values)
    assert hexadecimal(raw(values)[:0]).shape == (0,)
