"""The formulas of the shuffle quality, against every order of a small set and against orders that are drawn."""

import itertools

import numpy as np
import pytest
from scipy.stats import spearmanr

from srood.block_order import BlockOrder
from srood.shuffle_quality import shuffle_quality


def all_orders(blocks: int, of_block: int, of_window: int):
    """Every order that shuffled blocks can give, each as likely as the others."""
    for shuffled in itertools.permutations(range(blocks)):
        windows = []
        for start in range(0, blocks, of_window):
            held = shuffled[start : start + of_window]
            rows = [block * of_block + offset for block in held for offset in range(of_block)]
            windows.append(list(itertools.permutations(rows)))
        for parts in itertools.product(*windows):
            yield list(itertools.chain(*parts))


@pytest.mark.parametrize(("blocks", "of_block", "of_window"), [(4, 1, 2), (3, 2, 1), (4, 2, 2), (3, 2, 3)])
def test_rank_correlation_is_that_of_all_orders(blocks, of_block, of_window):
    rows = blocks * of_block
    orders = np.array(list(all_orders(blocks, of_block, of_window)))
    centred = np.arange(rows) - (rows - 1) / 2
    correlations = (orders - (rows - 1) / 2) @ centred / (centred @ centred)
    quality = shuffle_quality(BlockOrder((rows,), of_block, of_window, 0), 1)
    assert abs(correlations.mean()) < 1e-12
    assert quality.rank_correlation == pytest.approx(correlations.std(), rel=1e-12)
    assert quality.full_rank_correlation == pytest.approx((rows - 1) ** -0.5, rel=1e-12)


def test_blocks_of_a_batch_are_those_of_all_batches():
    rows = [block for block in range(4) for _ in range(3)]
    counts = [len({rows[row] for row in chosen}) for chosen in itertools.combinations(range(12), 5)]
    quality = shuffle_quality(BlockOrder((12,), 3, 4, 0), 5)
    assert quality.blocks_per_batch == quality.full_blocks_per_batch == pytest.approx(np.mean(counts), rel=1e-12)
    assert shuffle_quality(BlockOrder((12,), 3, 2, 0), 5).blocks_per_batch == pytest.approx(2)  # 5 of 2 blocks of 3


def test_orders_that_are_drawn_have_that_quality():
    shards, of_block, of_window, batch = (64, 64), 8, 4, 8
    quality = shuffle_quality(BlockOrder(shards, of_block, of_window, 0), batch)
    correlations, distinct = [], []
    for seed in range(600):
        drawn = BlockOrder(shards, of_block, of_window, seed).row_numbers(0, 128)
        correlations.append(spearmanr(np.arange(128), drawn).statistic)
        distinct += [len(set(part // of_block)) for part in drawn.reshape(-1, batch)]
    # the deviation of a deviation from 600 is about 1 / sqrt(1200), 3 %
    assert np.std(correlations) == pytest.approx(quality.rank_correlation, rel=0.12)
    assert abs(np.mean(correlations)) < 4 * quality.rank_correlation / 600**0.5
    assert np.mean(distinct) == pytest.approx(quality.blocks_per_batch, rel=0.01)
    assert quality.rank_correlation > 1.5 * quality.full_rank_correlation  # blocks cost something here
    assert quality.blocks_per_batch < quality.full_blocks_per_batch


def test_uneven_blocks_are_near_the_mean_ones():
    order = BlockOrder((100, 90, 30), 16, 4, 0)
    drawn = [BlockOrder(order.shard_rows, 16, 4, seed).row_numbers(0, 220) for seed in range(400)]
    found = np.std([spearmanr(np.arange(220), rows).statistic for rows in drawn])
    assert found == pytest.approx(shuffle_quality(order, 8).rank_correlation, rel=0.2)
