"""The expert loop: labels out of reach until asked for, exact resume, teachers, oracles that wait, stopping rules."""

import json

import numpy as np
import pytest
import torch
from datasets import Dataset
from killing import KillAt, Killed
from transformers import BertConfig, BertForMultipleChoice, Trainer, TrainerCallback, set_seed

from tithe.trainers import (
    Answer,
    ColumnOracle,
    EnsembleOracle,
    ExpertLoopConfig,
    ExpertLoopTrainer,
    LabelsWanted,
    last_finished_checkpoint,
)


SIZES = {"initial_pool_size": 12, "query_size": 6, "max_iterations": 3, "epochs_per_iteration": 2}


@pytest.fixture
def make_loop(tmp_path, make_model, make_pool, collate):
    def make(folder="out", model=None, pool=None, teachers=(), trainer=None, **options):
        settings = {"use_cpu": True, "disable_tqdm": True, "report_to": "none", "learning_rate": 3e-3}
        settings |= {"per_device_train_batch_size": 4, "per_device_eval_batch_size": 16, "save_strategy": "no"}
        settings |= {"logging_steps": 1, **SIZES, **options}
        trainer = {"data_collator": collate, **(trainer or {})}
        return ExpertLoopTrainer(
            make_model() if model is None else model,
            ExpertLoopConfig(str(tmp_path / folder), **settings),
            train_dataset=make_pool() if pool is None else pool,
            teachers=teachers,
            **trainer,
        )

    return make


@pytest.fixture
def make_teacher(make_model):
    """With opinions of its own: a random head is near indifferent."""

    def make(seed=1):
        model = make_model(seed=seed)
        model.classifier.weight.data *= 300
        return model

    return make


def weights(trainer):
    return torch.cat([p.detach().flatten() for p in trainer.model.parameters()])


def asked(trainer):
    return [row for indices in trainer.ledger.indices for row in indices.tolist()]


def poisoned(pool, keep):
    """`pool` with wrong labels everywhere but in the rows `keep`."""
    labels = [label if row in keep else (label + 1) % 3 for row, label in enumerate(pool["label"])]
    return pool.remove_columns("label").add_column("label", labels)


class TestLabels:
    @pytest.mark.parametrize("strategy", ["margin", "badge", "k_center", "entropy_diversity"])
    @pytest.mark.parametrize("share", [None, 1.0])
    def test_that_nobody_asked_for_change_nothing(self, make_loop, make_model, make_pool, strategy, share):
        options = {"query_strategy": strategy}
        if share is not None:
            options["unlabelled_share"] = share
        teachers = [] if share is None else [make_model(seed=1), make_model(seed=2)]
        first = make_loop(teachers=teachers, **options)
        first.train()
        pool = poisoned(make_pool(), set(asked(first)))
        assert sum(a != b for a, b in zip(pool["label"], make_pool()["label"], strict=True)) == 60 - 30
        second = make_loop(
            "other", pool=pool, teachers=[] if share is None else [make_model(1), make_model(2)], **options
        )
        second.train()
        assert asked(first) == asked(second)
        assert torch.equal(weights(first), weights(second))

    def test_that_were_asked_for_do_change_it(self, make_loop, make_pool):
        first = make_loop()
        first.train()
        row = asked(first)[-1]
        labels = make_pool()["label"][:]
        labels[row] = (labels[row] + 1) % 3
        second = make_loop("other", pool=make_pool().remove_columns("label").add_column("label", labels))
        second.train()
        assert asked(first) == asked(second)
        assert not torch.equal(weights(first), weights(second))

    def test_are_in_no_data_set_that_the_trainer_holds(self, make_loop):
        trainer = make_loop()
        assert "label" not in trainer.train_dataset.column_names
        assert set(trainer.pool.labels().tolist()) == {-100}

    @pytest.mark.parametrize("strategy", ["el2n", "perplexity", "ifd"])
    def test_that_a_strategy_reads_are_refused(self, make_loop, strategy):
        with pytest.raises(ValueError, match="nobody has been asked for"):
            make_loop(query_strategy=strategy)

    def test_each_row_is_asked_for_once(self, make_loop, tmp_path):
        trainer = make_loop()
        trainer.train()
        rows = asked(trainer)
        assert len(rows) == len(set(rows)) == 30
        assert [row["size"] for row in trainer.ledger.rows] == [12, 18, 24, 30]
        entries = [json.loads(line) for line in (tmp_path / "out" / "answers.jsonl").read_text().splitlines()]
        assert [entry["row"] for entry in entries] == rows
        assert [entry["label"] for entry in entries] == [trainer.answers.labels[row] for row in rows]

    @pytest.mark.parametrize("proxy", [None, "linear"])
    def test_given_from_the_start_are_iteration_0(self, make_loop, make_pool, tmp_path, proxy):
        """As if the first query had asked for them; the labels of all other rows may be missing."""
        first = make_loop(proxy=proxy)
        first.train()
        given, oracle = asked(first)[:12], first.oracle
        labels = [label if row in given else -1 for row, label in enumerate(make_pool()["label"])]
        pool = make_pool().remove_columns("label").add_column("label", labels)
        options = {"proxy": proxy, "initial_pool_size": 99}
        second = make_loop("other", pool=pool, trainer={"oracle": oracle, "labelled_rows": given}, **options)
        second.train()
        assert asked(first) == asked(second)
        assert torch.equal(weights(first), weights(second))
        assert second.answers.count_by() == {"column": 18, "given": 12}
        assert second.args.initial_pool_size == 12 and second.budget == 30
        assert second.ledger.rows[0]["strategy"] == "given"

    @pytest.mark.parametrize(
        ("rows", "message"),
        [
            ([], "at least one"),
            ([1, 2, 1], "1 of them repeat"),
            ([0, 60], "from 0 to 59"),
            ([3, 4], "1 of `labelled_rows` have no label: the first is row 4"),
            ([0.5], "must be dataset indices"),
        ],
    )
    def test_given_are_checked(self, make_loop, make_pool, rows, message):
        labels = make_pool()["label"][:]
        labels[4] = -1
        pool = make_pool().remove_columns("label").add_column("label", labels)
        with pytest.raises(ValueError, match=message):
            make_loop(pool=pool, trainer={"labelled_rows": rows})

    def test_given_need_a_column(self, make_loop, make_pool):
        pool = make_pool().remove_columns("label")
        with pytest.raises(ValueError, match="no column `label`"):
            make_loop(pool=pool, trainer={"labelled_rows": [1], "oracle": ColumnOracle([0] * 60)})

    @pytest.mark.parametrize("proxy", [None, "linear"])
    def test_queries_wait_for_the_model(self, make_loop, proxy):
        """With a proxy, too, an iteration is asked for only when it begins: its labels depend on a person."""
        seen = []

        class Watches(ColumnOracle):
            def label(self, query):
                seen.append((query.iteration, trainer.state.global_step, len(query.rows)))
                return super().label(query)

        trainer = make_loop(proxy=proxy)
        trainer.oracle = Watches(trainer.oracle._labels)
        trainer.train()
        steps = trainer.state.max_steps // 4
        assert seen == [(0, 0, 12), (1, steps, 6), (2, 2 * steps, 6), (3, 3 * steps, 6)]


class TestSteps:
    def test_do_not_depend_on_how_many_labels_there_are(self, make_loop):
        trainer = make_loop()
        trainer.train()
        assert trainer.state.global_step == 4 * 2 * -(-30 // 4)

    def test_each_iteration_starts_from_the_initial_weights(self, make_loop, make_model):
        starts, moments = [], []

        class Look(TrainerCallback):
            def on_step_begin(self, args, state, control, model=None, optimizer=None, **kwargs):
                if state.global_step % (state.max_steps // 4) == 0:
                    moments.append(len(optimizer.state))
                    starts.append(torch.cat([p.detach().flatten().clone() for p in model.parameters()]))

        again = make_loop("again", trainer={"callbacks": [Look()]})
        again.train()
        initial = torch.cat([p.detach().flatten() for p in make_model().parameters()])
        assert len(starts) == 4 and all(torch.equal(start, initial) for start in starts)
        assert moments == [0, 0, 0, 0]  # nor does the optimizer remember another iteration's gradients

    def test_the_learning_rate_begins_anew_with_each_iteration(self, make_loop):
        trainer = make_loop(warmup_steps=0.25)
        trainer.train()
        rates = [log["learning_rate"] for log in trainer.state.log_history if "learning_rate" in log]
        stretches = np.array(rates).reshape(4, -1)
        assert (stretches == stretches[0]).all() and stretches[0, 0] == 0 and stretches[0].max() == 3e-3

    def test_warm_goes_on(self, make_loop):
        trainer = make_loop(iteration_start="warm")
        trainer.train()
        rates = [log["learning_rate"] for log in trainer.state.log_history if "learning_rate" in log]
        assert all(a > b for a, b in zip(rates, rates[1:], strict=False))

    def test_a_loop_that_asks_for_all_at_once_is_training_on_all(self, make_loop, make_model, make_pool, collate):
        """One iteration over the whole pool: the stock Trainer, loss for loss, in the loop's order of rows."""
        loop = make_loop(initial_pool_size=60, max_iterations=0, epochs_per_iteration=2)
        loop.train()
        stock = Trainer(make_model(), loop.args, data_collator=collate, train_dataset=make_pool())
        stock.train()
        ours, theirs = ([log["loss"] for log in t.state.log_history if "loss" in log] for t in (loop, stock))
        assert ours == theirs


class TestTeachers:
    def test_tell_the_oracle_what_they_think(self, make_loop, make_model, collate, make_pool):
        teachers, seen = [make_model(seed=1), make_model(seed=2)], []
        trainer = make_loop(teachers=teachers, teacher_weights=[3.0, 1.0], temperature=5.0)
        oracle = trainer.oracle

        class Watches(ColumnOracle):
            def label(self, query):
                seen.append(query)
                return oracle.label(query)

        trainer.oracle = Watches([])
        trainer.train()
        pool = make_pool()
        expected = []
        for teacher in (make_model(seed=1), make_model(seed=2)):
            batch = collate([pool[int(row)] for row in seen[1].rows])
            batch.pop("labels")
            with torch.no_grad():
                expected.append(teacher.eval()(**batch).logits.softmax(-1).numpy())
        np.testing.assert_allclose(seen[1].opinions, np.stack(expected), atol=1e-5)
        np.testing.assert_allclose(seen[1].ensemble, 0.75 * expected[0] + 0.25 * expected[1], atol=1e-5)

    def test_label_what_they_are_sure_of(self, make_loop, make_teacher):
        trainer = make_loop(teachers=[make_teacher(seed=1)])
        truth = trainer.oracle
        queries = []

        class Person:
            shows, asks_teachers = ("text",), False

            def label(self, query):
                queries.append(query)
                assert all(set(row) == {"text"} for row in query.shown)
                return {row: Answer(answer.label, "person") for row, answer in truth.label(query).items()}

        trainer.oracle = EnsembleOracle(0.6, Person())
        trainer.train()
        by = {entry["by"] for entry in trainer.answers.entries}
        assert by == {"ensemble", "person"}
        for query in queries:
            assert (query.ensemble.max(axis=1) < 0.6).all()

    def test_leave_rows_unlabelled_where_there_is_no_person(self, make_loop, make_teacher):
        trainer = make_loop(teachers=[make_teacher(seed=1)], trainer={"oracle": EnsembleOracle(0.6)})
        trainer.train()
        unlabelled = [entry["row"] for entry in trainer.answers.entries if entry["label"] is None]
        assert unlabelled and len(asked(trainer)) == 30
        assert set(trainer._sampler.selected.tolist()).isdisjoint(unlabelled)

    def test_teach_rows_that_have_no_label(self, make_loop, make_model):
        """Beside each labelled row an epoch draws two without a label; their loss is the soft one alone."""
        trainer = make_loop(teachers=[make_model(seed=1)], unlabelled_share=2.0, hard_weight=0.0)
        trainer.train()
        assert trainer.state.max_steps == 4 * 2 * -(-90 // 4)
        drawn = list(trainer._sampler)
        assert len(drawn) == 90
        labelled = set(trainer.answers.labelled.tolist())
        assert sum(row in labelled for row in drawn) == 30
        assert all(np.isfinite(log["soft_loss"]) for log in trainer.state.log_history if "soft_loss" in log)


OPTIONS = {"save_strategy": "steps", "save_steps": 5, "save_total_limit": 2, "query_strategy": "margin"}


def assert_same(first, second):
    assert torch.equal(weights(first), weights(second))
    assert first.answers.entries == second.answers.entries
    rows = [[{k: v for k, v in row.items() if k != "seconds"} for row in t.ledger.rows] for t in (first, second)]
    assert rows[0] == rows[1]


class TestResume:
    @pytest.mark.parametrize("start", ["initial", "warm"])
    @pytest.mark.parametrize(
        ("event", "step"),
        [
            ("on_step_end", 7),
            ("on_step_end", 24),  # the end of an iteration, before its checkpoint
            ("on_save", 24),  # right after it
            ("on_epoch_begin", 48),
            ("on_step_begin", 48),  # the next one asked for
            ("on_epoch_begin", 12),  # within an iteration
        ],
    )
    def test_after_a_kill_ends_at_the_same_weights(self, make_loop, make_model, event, step, start):
        options = {**OPTIONS, "iteration_start": start, "unlabelled_share": 0.5}
        whole = make_loop("whole", teachers=[make_model(seed=1)], **options)
        whole.train()
        cut = make_loop("cut", teachers=[make_model(seed=1)], trainer={"callbacks": [KillAt(step, event)]}, **options)
        with pytest.raises(Killed):
            cut.train()
        resumed = make_loop("cut", model=make_model(), teachers=[make_model(seed=1)], **options)
        last = last_finished_checkpoint(resumed.args.output_dir)
        resumed.train(resume_from_checkpoint=str(last) if last else None)
        assert_same(resumed, whole)

    def test_with_other_terms_is_refused(self, make_loop):
        make_loop(**OPTIONS).train()
        other = make_loop(**{**OPTIONS, "query_size": 5, "max_iterations": 3})
        with pytest.raises(ValueError, match="another run"):
            other.train(resume_from_checkpoint=True)


class Absent:
    """A person who answers from the second time on that a query is put."""

    shows, asks_teachers = (), False

    def __init__(self, oracle):
        self.oracle, self.put = oracle, set()

    def label(self, query):
        if query.iteration not in self.put:
            self.put.add(query.iteration)
            raise LabelsWanted(f"iteration {query.iteration}: fill in {len(query.rows)} labels")
        return self.oracle.label(query)


@pytest.mark.parametrize("start", ["initial", "warm"])
def test_a_run_that_waits_for_labels_goes_on_to_the_same_end(make_loop, start):
    options = {**OPTIONS, "iteration_start": start}
    whole = make_loop("whole", **options)
    whole.train()
    person = Absent(make_loop("x").oracle)
    for iteration in range(4):
        waits = make_loop("waits", trainer={"oracle": person}, **options)
        last = last_finished_checkpoint(waits.args.output_dir)
        with pytest.raises(LabelsWanted, match=f"iteration {iteration}"):
            waits.train(resume_from_checkpoint=str(last) if last else None)
    waits = make_loop("waits", trainer={"oracle": person}, **options)
    waits.train(resume_from_checkpoint=True)
    assert_same(waits, whole)


class TestStopping:
    def test_on_a_plateau(self, make_loop, make_pool):
        """A score that never gets better: the loop ends with the second iteration after the first."""
        trainer = make_loop(
            plateau_patience=2,
            plateau_delta=1e9,
            trainer={"eval_dataset": make_pool(rows=20, seed=5)},
        )
        trainer.train()
        assert trainer.stopping.stopped.startswith("plateau")
        assert len(trainer.ledger.rows) == 3 and trainer.state.global_step == 3 * 16
        curve = [(log["iteration"], log["labels"]) for log in trainer.state.log_history if "eval_loss" in log]
        assert curve == [(0, 12), (1, 18), (2, 24)]

    def test_other_evaluations_do_not_count(self, make_loop, make_pool):
        """Evaluated at every step, a plateau is still one score an iteration."""
        trainer = make_loop(
            plateau_patience=2,
            plateau_delta=1e9,
            eval_strategy="steps",
            eval_steps=1,
            trainer={"eval_dataset": make_pool(rows=20, seed=5)},
        )
        trainer.train()
        assert trainer.state.global_step == 3 * 16 and trainer.stopping.waited == 2

    def test_on_stable_predictions(self, make_loop):
        trainer = make_loop(stable_agreement=0.9, stable_window=2, learning_rate=0.0, initial_strategy="random")
        trainer.train()
        assert trainer.stopping.stopped.startswith("stable")
        assert trainer.stopping.agreements == [1.0, 1.0] and len(trainer.ledger.rows) == 3

    def test_a_run_killed_after_it_stopped_has_nothing_left_to_do(self, make_loop):
        options = {"stable_agreement": 0.9, "stable_window": 1, "learning_rate": 0.0, **OPTIONS}
        trainer = make_loop(**options)
        trainer.train()
        again = make_loop(**options)
        again.train(resume_from_checkpoint=True)
        assert again.state.global_step == trainer.state.global_step == 32
        assert again.stopping.stopped == trainer.stopping.stopped


class TestMultipleChoice:
    """Rows of four choices, of which the one whose tokens come from the upper half is right."""

    @staticmethod
    def model(seed=0):
        set_seed(seed)
        sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
        return BertForMultipleChoice(BertConfig(vocab_size=60, max_position_embeddings=32, **sizes))

    @staticmethod
    def pool(rows=60, seed=0):
        rng = np.random.default_rng(seed)
        labels = rng.integers(0, 4, rows)
        ids = [
            [rng.integers(30, 60, 5).tolist() if n == label else rng.integers(3, 30, 5).tolist() for n in range(4)]
            for label in labels
        ]
        masks = [[[1] * 5] * 4] * rows
        return Dataset.from_dict({"input_ids": ids, "attention_mask": masks, "label": labels.tolist()})

    @staticmethod
    def collate(rows):
        batch = {name: torch.tensor([row[name] for row in rows]) for name in ("input_ids", "attention_mask")}
        if "label" in rows[0]:
            batch["labels"] = torch.tensor([row["label"] for row in rows])
        return batch

    @pytest.mark.parametrize("strategy", ["margin", "k_center", "bald"])
    def test_is_learnt(self, make_loop, strategy):
        trainer = make_loop(
            model=self.model(),
            pool=self.pool(),
            query_strategy=strategy,
            epochs_per_iteration=6,
            teachers=[self.model(1)],
            soft_weight=0.1,
            hard_weight=0.9,
            trainer={"data_collator": self.collate, "eval_dataset": self.pool(40, seed=9)},
        )
        trainer.train()
        losses = [log["eval_loss"] for log in trainer.state.log_history if "eval_loss" in log]
        assert len(losses) == 4 and losses[-1] < 0.7 < 1.2 < np.log(4)
        assert trainer.answer_names == ["0", "1", "2", "3"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"initial_pool_size": 0}, "`initial_pool_size` must be at least 1"),
        ({"query_size": 0}, "`query_size` must be at least 1"),
        ({"max_iterations": 9}, "are 66 rows; the pool has 60"),
        ({"iteration_start": "cold"}, "`initial` or `warm`"),
        ({"query_strategy": "all"}, "`all` asks for every label"),
        ({"query_strategy": "margn"}, "margin"),
        ({"epochs_per_iteration": None, "num_train_epochs": 7}, "set `epochs_per_iteration`"),
        ({"unlabelled_share": 1.0}, "no `teachers`"),
        ({"plateau_patience": 1}, "needs an `eval_dataset`"),
        ({"hidden_weight": 1.0}, "reads its teachers once"),
        ({"stable_agreement": 1.5}, "at most 1"),
    ],
)
def test_bad_input_is_refused_before_training(make_loop, options, message):
    with pytest.raises(ValueError, match=message):
        make_loop(**options)


def test_a_pool_without_labels_needs_an_oracle(make_loop, make_pool):
    with pytest.raises(ValueError, match="no `oracle` to ask"):
        make_loop(pool=make_pool().remove_columns("label"))


def test_an_oracle_must_answer_all_and_nothing_else(make_loop):
    class Lazy(ColumnOracle):
        def label(self, query):
            return dict(list(super().label(query).items())[1:])

    class Wrong(ColumnOracle):
        def label(self, query):
            return {row: Answer(3, "x") for row in query.rows.tolist()}

    for oracle, message in ((Lazy([0] * 60), "left out 1"), (Wrong([0] * 60), "label 3; there are 3")):
        with pytest.raises(ValueError, match=message):
            make_loop(trainer={"oracle": oracle}).train()
