"""The batch that fits: the search alone against memory that is a formula, and real training within a real limit."""

import os
import subprocess
import sys

import pytest
import tiny
from transformers import TrainerCallback, TrainingArguments

from tithe.evaluation import MemoryLeft
from tithe.trainers import ReliableTrainer, find_batch_size, keep_global_batch
from tithe.trainers.batch_size import BatchTry, _Search


class Formula(_Search):
    """Training that takes `base` bytes and `per_row` for each row, on a machine with `limit` bytes."""

    def __init__(self, base, per_row, limit, margin=0.0, deadly=True):
        args = TrainingArguments("out", use_cpu=True)
        super().__init__(None, args, [{"input_ids": [1] * 7}], margin, None, 1)
        self.base, self.per_row, self.limit, self.deadly = base, per_row, limit, deadly
        self.static, self.trained = base, []

    def _set_limit(self):
        self.left, self.allowed = MemoryLeft(self.limit, "the test"), int(self.limit * (1 - self.margin))
        self.is_deadly, self.most = self.deadly, self.allowed if self.deadly else self.limit

    def _train(self, rows):
        need = self.base + self.per_row * rows
        self.trained.append(rows)
        assert need <= self.limit or not self.deadly, "killed by the system"
        return (need, 1.0) if need <= self.limit else (None, 0.0)


class TestSearch:
    @pytest.mark.parametrize("deadly", [True, False])
    @pytest.mark.parametrize("true", [1, 2, 3, 5, 7, 8, 9, 31, 64, 100, 333, 1000])
    @pytest.mark.parametrize("base", [0, 10_000])
    def test_comes_within_a_sixteenth_and_never_passes_the_limit(self, true, base, deadly):
        search = Formula(base, 100, base + 100 * true + 50, deadly=deadly)
        found = search.run(4096)
        assert found <= true
        # Memory may grow faster than it has: of the last stretch a fifth is left to that where one would be killed.
        assert found >= true * 15 / 16 - 1 - (deadly and true / 8)
        assert max(search.trained) <= true or not deadly

    def test_leaves_the_margin_free(self):
        assert Formula(0, 100, 10_000, margin=0.25).run(4096) in range(64, 76)

    @pytest.mark.parametrize("at_most", [1, 2, 13, 64])
    def test_tries_no_more_rows_than_asked_for(self, at_most):
        search = Formula(0, 1, 10**9)
        assert search.run(at_most) == at_most
        assert max(search.trained) == at_most

    def test_doubles_and_bisects(self):
        search = Formula(1000, 100, 1000 + 100 * 11 + 50, deadly=False)
        search.run(4096)
        assert [each.rows for each in search.tries] == [1, 2, 4, 8, 16, 12, 10, 11]
        assert [each.rows for each in search.tries if each.fits] == [1, 2, 4, 8, 10, 11]
        assert search.tries[4] == BatchTry(16, False, 1000 + 100 * 16, None)  # expected, and not tried

    def test_not_even_one_row(self):
        with pytest.raises(ValueError, match=r"not even one row of 7 tokens .* \(the test, 0% left free\): shorten"):
            Formula(1000, 100, 1050, deadly=False).run(16)


class TestGlobalBatch:
    @pytest.mark.parametrize("processes", [1, 2, 3])
    @pytest.mark.parametrize("largest", [1, 3, 8, 24, 1000])
    @pytest.mark.parametrize("share", [1, 2, 12, 32, 60])
    def test_is_kept(self, share, largest, processes):
        per_device, accumulation = keep_global_batch(share * processes, largest=largest, processes=processes)
        assert per_device * accumulation * processes == share * processes
        assert per_device <= largest
        assert not [rows for rows in range(per_device + 1, min(largest, share) + 1) if share % rows == 0]

    def test_that_cannot_be_divided(self):
        with pytest.raises(ValueError, match="5 rows cannot be divided over 2 processes"):
            keep_global_batch(5, largest=4, processes=2)


class Shapes(TrainerCallback):
    def __init__(self):
        self.steps = []

    def on_step_end(self, args, state, control, **kwargs):
        self.steps.append((args.per_device_train_batch_size, args.gradient_accumulation_steps, state.global_step))


@pytest.fixture
def maker(tmp_path):
    """Makes trainers of a tiny model; `maker.batches` are the shapes of all batches, `watch` what was trained."""

    class Maker:
        watch, batches, made = Shapes(), [], 0
        breaks_above, error = None, None

        def __call__(self, args, rows):
            self.made += 1
            return ReliableTrainer(
                tiny.make_model(), args, train_dataset=rows, data_collator=self.collate, callbacks=[self.watch]
            )

        def collate(self, rows):
            batch = tiny.collate(rows)
            self.batches.append(tuple(batch["input_ids"].shape))
            if self.breaks_above is not None and len(rows) > self.breaks_above:
                raise self.error
            return batch

    return Maker()


def arguments(tmp_path, **options):
    return TrainingArguments(str(tmp_path), use_cpu=True, disable_tqdm=True, report_to="none", **options)


class TestTraining:
    def test_is_of_the_longest_row_with_gradients_and_moments(self, maker, tmp_path):
        args = arguments(tmp_path, eval_strategy="epoch", save_strategy="epoch", load_best_model_at_end=True)
        before, rows = dict(vars(args)), tiny.make_pool(20)
        longest = max(map(len, rows["input_ids"]))
        found = find_batch_size(maker, args, rows, at_most=5)
        assert (found.rows, found.length) == (5, longest)
        assert [each.rows for each in found.tries] == [1, 2, 4, 5]
        assert all(each.fits and each.seconds > 0 for each in found.tries)
        assert {width for _, width in maker.batches} == {longest}
        assert set(maker.watch.steps) == {(rows, 2, step) for rows in (1, 2, 4, 5) for step in (1, 2)}
        assert maker.made == 5  # once to load what any training needs
        assert vars(args) == before
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize(
        "error",
        [
            MemoryError(),
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
            RuntimeError("std::bad_alloc"),
            RuntimeError("could not create a primitive"),
        ],
    )
    def test_running_out_of_memory_is_an_answer(self, maker, tmp_path, error):
        maker.breaks_above, maker.error = 5, error
        found = find_batch_size(maker, arguments(tmp_path), tiny.make_pool(20), at_most=64)
        assert found.rows == 5
        assert [each.rows for each in found.tries if not each.fits] == [8, 6]

    @pytest.mark.parametrize(
        ("above", "words"), [(1, "the sizes of tensors must match"), (0, "could not create a primitive")]
    )
    def test_any_other_error_is_told(self, maker, tmp_path, above, words):
        maker.breaks_above, maker.error = above, RuntimeError(words)
        with pytest.raises(RuntimeError, match=words):
            find_batch_size(maker, arguments(tmp_path), tiny.make_pool(20), at_most=4)

    def test_several_processes_hold_gradients_twice(self, maker, tmp_path, monkeypatch):
        monkeypatch.setattr(_Search, "_steps", lambda self, rows, before: 2**50)  # bytes of gradients
        assert find_batch_size(maker, arguments(tmp_path), tiny.make_pool(20), at_most=1).rows == 1
        with pytest.raises(ValueError, match="not even one row"):
            find_batch_size(maker, arguments(tmp_path), tiny.make_pool(20), at_most=1, processes=2)

    def test_bad_input(self, maker, tmp_path):
        args, rows = arguments(tmp_path), tiny.make_pool(4)
        for options in ({"at_most": 0}, {"margin": 1.0}):
            with pytest.raises(ValueError, match="`at_most` must be at least 1 and `margin` from 0 to 1"):
                find_batch_size(maker, args, rows, **options)
        with pytest.raises(ValueError, match="`dataset` has no rows"):
            find_batch_size(maker, args, rows.select([]))
        with pytest.raises(ValueError, match=r"not even one row of \d+ tokens .*the limit given"):
            find_batch_size(maker, args, rows, memory_limit=2**20)


LIMITED = """
import resource, sys
import tiny
from transformers import BertConfig, BertForSequenceClassification, TrainingArguments
from tithe.trainers import ReliableTrainer, find_batch_size

def make(args, rows):
    return ReliableTrainer(BertForSequenceClassification(config), args, train_dataset=rows, data_collator=tiny.collate)

config = BertConfig(hidden_size=384, num_hidden_layers=4, intermediate_size=1536, num_attention_heads=6, num_labels=3)
rows = tiny.make_pool(1).select([0])
rows = rows.map(lambda row: {"input_ids": [7] * 96, "attention_mask": [1] * 96})
args = TrainingArguments(sys.argv[1], use_cpu=True, disable_tqdm=True, report_to="none", save_strategy="no")
import psutil
limit = psutil.Process().memory_info().vms + int(sys.argv[2]) * 2**20
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
if len(sys.argv) == 3:
    print(find_batch_size(make, args, rows, at_most=256).rows)
else:
    args.per_device_train_batch_size, args.gradient_accumulation_steps, args.max_steps = int(sys.argv[3]), 2, 2
    make(args, rows.select([0] * 4 * int(sys.argv[3]))).train()
"""


def limited(folder, *words):
    return subprocess.run(
        [sys.executable, "-c", LIMITED, str(folder), *map(str, words)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
    )


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="limits of address space")
def test_under_a_limit_of_the_shell_it_is_near_the_most_that_trains(tmp_path):
    """A process that was given as many rows trains; one that is given a third more runs out of memory."""
    process = limited(tmp_path, 1500)
    assert process.returncode == 0, process.stderr[-3000:]
    rows = int(process.stdout.splitlines()[-1])
    assert limited(tmp_path, 1500, rows).returncode == 0
    beyond = limited(tmp_path, 1500, round(rows / 0.75))
    assert beyond.returncode != 0
    assert "allocate memory" in beyond.stderr or "MemoryError" in beyond.stderr or "bad_alloc" in beyond.stderr
