from itertools import islice

import numpy as np
import pytest
import torch
from accelerate.data_loader import SeedableRandomSampler
from datasets import Dataset

from tithe.trainers import RoundSampler
from tithe.trainers.sampler import LoopSampler, row_lengths


def batched(rows, size):
    rows = iter(rows)
    while batch := tuple(islice(rows, size)):
        yield batch


def drawn(sampler, epoch):
    sampler.set_epoch(epoch)
    return list(sampler)


@pytest.mark.parametrize(("num_samples", "selected"), [(12, 12), (12, 5), (12, 1), (100, 33)])
def test_each_row_as_often_as_any_other_to_within_one(num_samples, selected):
    sampler = RoundSampler(num_samples, seed=0)
    rows = np.arange(selected) * 7
    sampler.set_selected(rows)
    for epoch in range(3):
        counts = {row: 0 for row in rows.tolist()}
        for row in drawn(sampler, epoch):
            counts[row] += 1
        assert sum(counts.values()) == num_samples == len(sampler)
        assert max(counts.values()) - min(counts.values()) <= 1


def test_the_rest_varies_by_epoch():
    sampler = RoundSampler(6, seed=0)
    sampler.set_selected(np.arange(4))
    twice = {tuple(sorted(r for r in range(4) if drawn(sampler, e).count(r) == 2)) for e in range(10)}
    assert len(twice) > 1


def test_order_depends_on_seed_and_epoch_alone():
    first, second = RoundSampler(20, seed=3), RoundSampler(20, seed=3)
    first.set_selected(np.arange(20))
    second.set_selected(np.arange(20)[::-1])
    torch.manual_seed(99)
    drawn(second, 5)
    assert drawn(first, 2) == drawn(second, 2)
    assert drawn(first, 2) != drawn(first, 3)
    other = RoundSampler(20, seed=4)
    other.set_selected(np.arange(20))
    assert drawn(first, 2) != drawn(other, 2)


def test_with_everything_selected_it_is_the_stock_order():
    torch.manual_seed(42)
    stock = SeedableRandomSampler(list(range(31)))
    ours = RoundSampler(31, seed=42)
    ours.set_selected(np.arange(31))
    for epoch in range(3):
        stock.set_epoch(epoch)
        assert list(stock) == drawn(ours, epoch)


def test_grouping_by_length_keeps_the_draw_and_narrows_the_batches():
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 200, 3000)
    plain = RoundSampler(2000, seed=1)
    grouped = RoundSampler(2000, seed=1, lengths=lengths, group_size=16)
    for sampler in (plain, grouped):
        sampler.set_selected(np.arange(0, 3000, 2))
    assert sorted(drawn(plain, 1)) == sorted(drawn(grouped, 1))

    def padded(rows):
        return sum(lengths[list(b)].max() * len(b) for b in batched(rows, 16))

    total = lengths[drawn(plain, 1)].sum()
    assert padded(drawn(grouped, 1)) < 1.05 * total < 1.5 * total < padded(drawn(plain, 1))
    assert drawn(grouped, 1) == drawn(grouped, 1) != drawn(grouped, 2)
    batches = [lengths[list(b)].max() for b in batched(drawn(grouped, 1), 16)]
    assert batches != sorted(batches) and batches != sorted(batches, reverse=True)


def test_a_short_last_batch_stays_last():
    lengths = np.arange(1, 36)
    sampler = RoundSampler(35, seed=0, lengths=lengths, group_size=8)
    sampler.set_selected(np.arange(35))
    assert drawn(sampler, 0)[32:] == [2, 1, 0]


def test_sequential():
    sampler = RoundSampler(5, seed=0, shuffle=False)
    sampler.set_selected(np.array([9, 2, 5]))
    rows = drawn(sampler, 0)
    assert rows == sorted(rows) and set(rows) == {2, 5, 9}


def test_nothing_selected_yet():
    with pytest.raises(RuntimeError, match="nothing is selected yet"):
        iter(RoundSampler(5, seed=0))


def test_row_lengths():
    rows = [{"input_ids": [1] * n} for n in (3, 1, 2)]
    assert row_lengths(rows).tolist() == [3, 1, 2]
    table = Dataset.from_list(rows)
    assert row_lengths(table).tolist() == [3, 1, 2]
    assert row_lengths(table.select([2, 0])).tolist() == [2, 3]
    assert row_lengths(table.add_column("length", [7, 8, 9])).tolist() == [7, 8, 9]
    with pytest.raises(ValueError, match="tokenise the data first"):
        row_lengths(Dataset.from_dict({"text": ["a"]}))


class TestLoopSampler:
    def sampler(self, share, **options):
        sampler = LoopSampler.over(RoundSampler(10, seed=3, **options), share)
        sampler.set_selected(np.arange(4))
        sampler.set_unlabelled(np.arange(20, 28))
        return sampler

    def test_draws_both_kinds_each_row_as_often_as_any_other(self):
        sampler = self.sampler(12)
        for epoch in range(3):
            rows = drawn(sampler, epoch)
            assert len(rows) == len(sampler) == 22
            for some, number in ((range(4), 10), (range(20, 28), 12)):
                counts = [rows.count(row) for row in some]
                assert sum(counts) == number and max(counts) - min(counts) <= 1

    def test_without_unlabelled_rows_keeps_its_length(self):
        sampler = self.sampler(12)
        sampler.set_unlabelled(np.empty(0, dtype=np.int64))
        assert len(drawn(sampler, 0)) == 22 and set(drawn(sampler, 0)) == set(range(4))

    def test_without_a_share_is_a_round_sampler(self):
        plain = RoundSampler(10, seed=3)
        plain.set_selected(np.arange(4))
        assert [drawn(self.sampler(0), epoch) for epoch in range(3)] == [drawn(plain, epoch) for epoch in range(3)]


def test_the_longest_choice_counts():
    rows = [[[1, 2], [1, 2, 3]], [[1], [2]], [[1, 2, 3, 4], [1]]]
    assert row_lengths(Dataset.from_dict({"input_ids": rows})).tolist() == [3, 1, 4]
    assert row_lengths([{"input_ids": row} for row in rows]).tolist() == [3, 1, 4]
