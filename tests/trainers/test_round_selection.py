"""One `train()` call, constant epochs, a selection that grows as announced, and `Trainer` where all is selected."""

import json
import shutil
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch.utils.data import IterableDataset
from transformers import EarlyStoppingCallback, Trainer, TrainingArguments

from tithe.selection import STRATEGIES, KCenter, Selection
from tithe.trainers import Ledger, RoundSelectionConfig, RoundSelectionTrainer, classification_loss


class Watch:
    """Notes which rows every step trains on, by their texts' place in the pool."""

    def __init__(self, trainer):
        self.epochs, self._trainer = {}, trainer
        collate, places = (
            trainer.data_collator,
            {tuple(ids): i for i, ids in enumerate(trainer.train_dataset["input_ids"])},
        )

        def watched(rows):
            if trainer.model.training and not self.reading:
                self.epochs.setdefault(trainer._sampler.epoch, []).extend(places[tuple(r["input_ids"])] for r in rows)
            return collate(rows)

        def read_with(*args, original=trainer.read_with):
            self.reading = True
            found = original(*args)
            self.reading = False
            return found

        self.reading = False
        trainer.data_collator, trainer.read_with = watched, read_with


def weights(trainer):
    return {name: p.detach().clone() for name, p in trainer.model.named_parameters()}


def equal(first, second):
    return all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("strategy", sorted(set(STRATEGIES) - {"all"}))
@pytest.mark.parametrize(("rounds", "epochs", "budget"), [(1, 2, 24), (3, 3, 25), (2, 5, 7)])
def test_unique_rows_trained_on_are_the_budget(make_trainer, make_model, strategy, rounds, epochs, budget):
    beside = {"committee": [make_model(1), make_model(2)]} if strategy == "committee" else {}
    options = {"rounds": rounds, "num_train_epochs": epochs, "budget": budget}
    trainer = make_trainer(strategy=strategy, trainer=beside, **options)
    watch = Watch(trainer)
    trainer.train()
    sizes = [row["size"] for row in trainer.ledger.rows]
    assert sizes == [round(budget * (r + 1) / rounds) for r in range(rounds)]
    assert [row["added"] for row in trainer.ledger.rows] == np.diff([0, *sizes]).tolist()
    trained = {row for rows in watch.epochs.values() for row in rows}
    assert trained == set(trainer.ledger.selected.tolist()) and len(trained) == budget
    for epoch, rows in watch.epochs.items():
        assert len(rows) == budget
        number = epoch * rounds // epochs
        selected = np.concatenate(trainer.ledger.indices[: number + 1])
        counts = np.bincount(rows, minlength=len(trainer.train_dataset))
        assert set(np.flatnonzero(counts)) == set(selected.tolist())
        assert counts[selected].max() - counts[selected].min() <= 1
    assert trainer.state.global_step == epochs * -(-budget // 4) == trainer.state.max_steps


def test_steps_and_schedule_do_not_depend_on_the_strategy(make_trainer):
    rates = []
    for strategy in ("random", "k_center", "edfs_lite"):
        trainer = make_trainer(strategy=strategy)
        trainer.train()
        rates.append([log["learning_rate"] for log in trainer.state.log_history if "learning_rate" in log])
    assert rates[0] == rates[1] == rates[2] and len(rates[0]) == 18


@pytest.mark.parametrize("accumulation", [1, 4])
def test_all_is_the_stock_trainer_bit_for_bit(make_trainer, make_model, make_pool, collate, tmp_path, accumulation):
    shared = {"gradient_accumulation_steps": accumulation, "seed": 7, "max_grad_norm": 0.1, "logging_steps": 1}
    pool = make_pool(61)
    ours = make_trainer(strategy="all", model=make_model(), pool=pool, **shared)
    ours.train()
    arguments = TrainingArguments(
        output_dir=str(tmp_path / "stock"),
        use_cpu=True,
        disable_tqdm=True,
        report_to="none",
        learning_rate=3e-3,
        per_device_train_batch_size=4,
        save_strategy="no",
        **shared,
    )
    model = make_model()
    stock = Trainer(
        model, arguments, train_dataset=pool, data_collator=collate, compute_loss_func=classification_loss(model)
    )
    stock.train()

    def logs(trainer):
        return [(log["loss"], log["grad_norm"]) for log in trainer.state.log_history if "loss" in log]

    assert logs(ours) == logs(stock) and len(logs(ours)) == 3 * -(-61 // (4 * accumulation))
    assert equal(weights(ours), weights(stock))
    assert ours.ledger.rows[0]["ignores_budget"] and ours.ledger.rows[0]["size"] == 61


@pytest.mark.parametrize(("batch", "accumulation"), [(2, 4), (4, 2)])
def test_accumulation_does_not_change_the_trajectory(make_trainer, batch, accumulation):
    def losses(batch, accumulation):
        options = {"per_device_train_batch_size": batch, "gradient_accumulation_steps": accumulation}
        trainer = make_trainer(model=None, strategy="random", optim="sgd", learning_rate=0.1, **options)
        for module in trainer.model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        trainer.train()
        return [(log["loss"], log["grad_norm"]) for log in trainer.state.log_history if "loss" in log]

    np.testing.assert_allclose(losses(batch, accumulation), losses(8, 1), rtol=1e-5)


def test_reading_the_pool_does_not_touch_training(make_trainer):
    """Two strategies that choose the same rows train the same, whether or not signals were read for them."""

    @dataclass(frozen=True)
    class FirstRows:
        needs: frozenset = frozenset()

        def select(self, pool, k, rng):
            return Selection(indices=np.sort(pool.ids)[:k], scores=np.zeros(len(pool.ids)))

    blind = make_trainer(strategy=FirstRows())  # a trainer seeds when it is made, so each is trained at once
    blind.train()
    everything = frozenset({"probabilities", "embeddings", "el2n", "texts", "labels"})
    reading = make_trainer(strategy=FirstRows(everything), initial_strategy=None)
    reading.train()
    assert equal(weights(blind), weights(reading))
    assert reading.ledger.rows[0]["coverage_radius"] > 0 and blind.ledger.rows[0]["coverage_radius"] is None


def test_first_round_is_cold_where_predictions_mean_nothing(make_trainer):
    for options, names in (
        ({}, ["Random", "EdfsLite", "EdfsLite"]),
        ({"initial_strategy": "k_center"}, ["KCenter", "EdfsLite", "EdfsLite"]),
        ({"initial_strategy": None}, ["EdfsLite"] * 3),
        ({"strategy": "k_center"}, ["KCenter"] * 3),
    ):
        trainer = make_trainer(**options)
        trainer.train()
        assert [row["strategy"].partition("(")[0] for row in trainer.ledger.rows] == names


def test_rounds_are_logged_and_left_on_disk(make_trainer, tmp_path):
    trainer = make_trainer(strategy="k_center")
    trainer.train()
    rows = [json.loads(line) for line in (tmp_path / "out" / "rounds.jsonl").read_text().splitlines()]
    assert [row["round"] for row in rows] == [0, 1, 2] and [row["step"] for row in rows] == [0, 6, 12]
    for row in rows:
        assert set(row["seconds"]) == {"scoring", "selecting"} and min(row["seconds"].values()) > 0
        assert sum(row["class_balance"].values()) == row["size"]
        assert np.isfinite(row["mean_score"])
    radii = [row["coverage_radius"] for row in rows]
    assert 0 < radii[2] < 2
    logged = [log for log in trainer.state.log_history if "round/size" in log]
    assert [log["round/size"] for log in logged] == [8, 16, 24]
    assert [log["round/coverage_radius"] for log in logged] == radii
    shares = np.array(list(rows[-1]["class_balance"].values())) / 24
    assert logged[-1]["round/class_balance"] == pytest.approx(-(shares * np.log(shares)).sum() / np.log(3))
    ledger = Ledger.load(tmp_path / "out")
    assert ledger.selected.tolist() == trainer.ledger.selected.tolist()
    labels = np.array(trainer.train_dataset["label"])
    assert rows[-1]["class_balance"] == {str(c): int((labels[ledger.selected] == c).sum()) for c in range(3)}


def test_scores_cover_the_data_set(make_trainer):
    trainer = make_trainer(strategy="edfs_lite")
    trainer.train()
    for number, scores in enumerate(trainer.ledger.scores):
        earlier = [row for rows in trainer.ledger.indices[:number] for row in rows.tolist()]
        assert len(scores) == 60 and np.isnan(scores[earlier]).all()
        if number:
            assert np.isfinite(scores[trainer.ledger.indices[number]]).all()


def test_seeds_differ_and_repeat(make_trainer):
    chosen = []
    for seed in (0, 0, 1):
        trainer = make_trainer(strategy="random", seed=seed)
        trainer.train()
        chosen.append(trainer.ledger.selected.tolist())
    assert chosen[0] == chosen[1] != chosen[2]


def test_best_model_and_early_stopping_work_with_rounds(make_trainer, make_pool):
    scores = iter([0.2, 0.9, 0.5, 0.4, 0.3, 0.2, 0.1, 0.0])
    trainer = make_trainer(
        strategy="entropy_diversity",
        num_train_epochs=8,
        rounds=4,
        eval_strategy="epoch",
        save_strategy="epoch",
        load_best_model_at_end=True,
        metric_for_best_model="quality",
        greater_is_better=True,
        trainer={
            "eval_dataset": make_pool(20, seed=5),
            "compute_metrics": lambda _: {"quality": next(scores)},
            "callbacks": [EarlyStoppingCallback(2)],
        },
    )
    trainer.train()
    assert trainer.state.epoch == 4 and trainer.state.best_metric == 0.9
    assert trainer.state.best_model_checkpoint.endswith("checkpoint-12")
    assert [row["round"] for row in trainer.ledger.rows] == [0, 1]


def test_head_learning_rate(make_trainer):
    trainer = make_trainer(head_learning_rate=0.02, weight_decay=0.1, lr_scheduler_type="constant", max_steps=3)
    before = weights(trainer)
    trainer.train()
    groups = {(g["lr"], g["weight_decay"]) for g in trainer.optimizer.param_groups}
    assert groups == {(3e-3, 0.1), (3e-3, 0.0), (0.02, 0.1), (0.02, 0.0)}
    moved = {n: (p - before[n]).abs().max().item() for n, p in weights(trainer).items()}
    assert moved["classifier.bias"] > 4 * moved["bert.pooler.dense.bias"] > 0
    assert trainer.optimizer_cls_and_kwargs is None


def test_model_init_starts_every_training_afresh(make_trainer, make_model, make_pool, collate, tmp_path):
    args = make_trainer().args
    trainer = RoundSelectionTrainer(
        args=args, model_init=lambda: make_model(3), train_dataset=make_pool(), data_collator=collate
    )
    trainer.train()
    first, chosen = weights(trainer), trainer.ledger.selected.tolist()
    trainer.train()
    assert equal(first, weights(trainer)) and trainer.ledger.selected.tolist() == chosen


def test_evaluation_keeps_logits_only(make_trainer, make_pool):
    trainer = make_trainer(trainer={"eval_dataset": make_pool(10)})
    trainer.model.config.output_hidden_states = True
    output = trainer.predict(make_pool(10))
    assert output.predictions.shape == (10, 3) and np.isfinite(output.metrics["test_loss"])


def test_adapters_are_trained_and_resumed(make_trainer, make_model, tmp_path):
    def build(out):
        config = LoraConfig(target_modules=["query", "value"], modules_to_save=["classifier"], lora_dropout=0.1)
        model = get_peft_model(make_model(), config)
        options = {"save_strategy": "steps", "save_steps": 4, "head_learning_rate": 0.01}
        return make_trainer(out, model=model, strategy="edfs_lite", **options)

    whole = build(tmp_path / "whole")
    base = weights(whole)["base_model.model.bert.pooler.dense.weight"]
    whole.train()
    assert torch.equal(base, weights(whole)["base_model.model.bert.pooler.dense.weight"])
    shutil.copytree(tmp_path / "whole" / "checkpoint-8", tmp_path / "again" / "checkpoint-8")
    again = build(tmp_path / "again")
    again.train(resume_from_checkpoint=True)
    assert equal(weights(whole), weights(again))
    assert whole.ledger.selected.tolist() == again.ledger.selected.tolist()


def test_length_grouping(make_trainer):
    trainer = make_trainer(train_sampling_strategy="group_by_length", strategy="random", rounds=1, budget=48)
    widths = []
    collate = trainer.data_collator
    trainer.data_collator = lambda rows: widths.append([len(r["input_ids"]) for r in rows]) or collate(rows)
    trainer.train()
    assert max(max(w) - min(w) for w in widths) <= 3 < 8


def test_max_steps_decides_the_epochs(make_trainer):
    trainer = make_trainer(strategy="random", max_steps=9, rounds=2)  # 6 steps an epoch
    trainer.train()
    assert trainer.state.global_step == 9 and [row["step"] for row in trainer.ledger.rows] == [0, 6]
    with pytest.raises(ValueError, match="`rounds` is 3, but there are 2 epochs"):
        make_trainer(strategy="random", max_steps=9, rounds=3).train()


def test_a_nan_loss_ends_training_before_it_reaches_the_weights(make_trainer):
    trainer = make_trainer(strategy="random")
    with torch.no_grad():
        trainer.model.classifier.weight[0, 0] = float("nan")
    before = weights(trainer)["bert.pooler.dense.weight"]
    with pytest.raises(FloatingPointError, match="the training loss is nan at step 1: lower `learning_rate`"):
        trainer.train()
    assert torch.equal(before, weights(trainer)["bert.pooler.dense.weight"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"budget": 0}, "`budget` must be above 0"),
        ({"budget": -0.1}, "`budget` must be above 0"),
        ({"budget": float("nan")}, "`budget` must be above 0"),
        ({"budget": 61}, "`budget` is 61 rows, the pool has 60"),
        ({"budget": 1.5}, "`budget` above 1 is a number of rows"),
        ({"budget": 0.001}, "`budget` 0.001 of a pool of 60 rows is none"),
        ({"rounds": 0}, "`rounds` must be at least 1, got 0"),
        ({"rounds": 4}, "`rounds` is 4, but there are 3 epochs"),
        ({"rounds": 3, "budget": 2}, "`rounds` is 3, but the budget is 2 rows"),
        ({"strategy": "k_centre"}, "k_center"),
        ({"strategy_kwargs": {"bucket": 3}}, "buckets"),
        ({"strategy_kwargs": "[1]"}, "`strategy_kwargs` must be a JSON object"),
        ({"strategy_kwargs": "{"}, "`strategy_kwargs` is not JSON"),
        ({"initial_strategy": "edfs_lite"}, "`initial_strategy` EdfsLite.* reads probabilities"),
        ({"dataloader_persistent_workers": True, "dataloader_num_workers": 1}, "`dataloader_persistent_workers`"),
        ({"train_sampling_strategy": "batch_rebalance"}, "use group_by_length"),
    ],
)
def test_bad_arguments_are_refused_before_training(make_trainer, options, message):
    with pytest.raises(ValueError, match=message):
        make_trainer(**options)


@dataclass(frozen=True)
class Wanting:
    needs: frozenset = frozenset()
    give: int = 1

    def select(self, pool, k, rng):
        indices = pool.ids[:k] if self.give == 1 else np.resize(pool.ids[: k // 2], k)
        return Selection(indices=indices, scores=np.zeros(len(pool.ids)))


class EL2NLike(Wanting):
    """Needs what labels are compared with."""

    def __init__(self):
        super().__init__(frozenset({"el2n"}))


def test_what_a_strategy_needs_is_checked_before_training(make_trainer, make_pool):
    with pytest.raises(ValueError, match=r"Wanting needs \['gloss'\], which this trainer does not read"):
        make_trainer(strategy=Wanting(frozenset({"gloss"})))
    with pytest.raises(ValueError, match=r"EL2NLike.* needs one class index per row"):
        make_trainer(strategy=EL2NLike(), pool=make_pool().remove_columns("label"))
    with pytest.raises(ValueError, match="needs one class index per row"):
        make_trainer(strategy=Wanting(frozenset({"labels"})), pool=make_pool().remove_columns("label"))
    with pytest.raises(ValueError, match="needs `pool_text_column` 'body'; `train_dataset` has"):
        make_trainer(strategy=Wanting(frozenset({"texts"})), pool_text_column="body")
    with pytest.raises(TypeError, match="`strategy` must be a name or have `needs`"):
        make_trainer(strategy=object())


def test_a_strategy_that_repeats_rows_is_caught(make_trainer):
    with pytest.raises(ValueError, match="`indices` must be unique"):
        make_trainer(strategy=Wanting(give=2)).train()


def test_a_strategy_that_gives_too_few_rows_is_caught(make_trainer):
    @dataclass(frozen=True)
    class Stingy:
        needs: frozenset = frozenset()

        def select(self, pool, k, rng):
            return Selection(indices=pool.ids[: k - 1], scores=np.zeros(len(pool.ids)))

    with pytest.raises(ValueError, match="was asked for 8 distinct candidates and gave 7 rows"):
        make_trainer(strategy=Stingy()).train()


def test_texts_and_labels_reach_the_strategy(make_trainer):
    @dataclass(frozen=True)
    class Reader:
        needs: frozenset = frozenset({"texts", "labels"})

        def select(self, pool, k, rng):
            for i, row in enumerate(pool.ids.tolist()):
                assert pool.texts[i] == texts[row] and pool.labels[i] == labels[row]
            return Selection(indices=pool.ids[-k:], scores=np.zeros(len(pool.ids)))

    trainer = make_trainer(strategy=Reader())
    texts, labels = trainer.train_dataset["text"][:], trainer.train_dataset["label"][:]
    trainer.train()
    assert trainer.ledger.selected.min() >= 36


def test_wrong_types_say_what_was_meant(make_trainer, make_model, make_pool, tmp_path):
    with pytest.raises(TypeError, match=r"did you mean `train_dataset=dataset\['train'\]`"):
        make_trainer(pool={"train": make_pool()})
    with pytest.raises(TypeError, match="`args` must be a `RoundSelectionConfig`, got `TrainingArguments`"):
        RoundSelectionTrainer(make_model(), TrainingArguments(str(tmp_path)), train_dataset=make_pool())
    with pytest.raises(ValueError, match="`train_dataset` is empty"):
        make_trainer(pool=make_pool().select([]))

    class Stream(IterableDataset):
        def __iter__(self):
            yield from make_pool()

    with pytest.raises(TypeError, match="a pool is read as a whole"):
        make_trainer(pool=Stream(), max_steps=3)


def test_a_list_of_rows_is_a_pool_too(make_trainer, make_pool):
    from_table = make_trainer(strategy="edfs_lite")
    from_table.train()
    from_list = make_trainer(strategy="edfs_lite", pool=list(make_pool()))
    from_list.train()
    assert from_list.ledger.selected.tolist() == from_table.ledger.selected.tolist()
    assert equal(weights(from_list), weights(from_table))


def test_the_strategy_argument_overrides_the_name(make_model, make_pool, make_trainer):
    args = make_trainer(strategy="random").args
    assert type(RoundSelectionTrainer(make_model(), args, None, make_pool(), strategy="k_center").strategy) is KCenter
    args.strategy_kwargs = {"stratified": True}
    assert RoundSelectionTrainer(make_model(), args, None, make_pool(), strategy="random").strategy.stratified
    with pytest.raises(ValueError, match="`strategy_kwargs` .* belong to `args.strategy` random"):
        RoundSelectionTrainer(make_model(), args, None, make_pool(), strategy="k_center")


def test_config_reads_json_and_names():
    config = RoundSelectionConfig(
        "out", use_cpu=True, strategy="edfs_lite", strategy_kwargs='{"buckets": 3}', initial_strategy="None"
    )
    assert config.strategy_kwargs == {"buckets": 3} and config.initial_strategy is None
