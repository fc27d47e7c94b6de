"""What projects bring along: model classes, rows, batches and labels with names of their own."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from tiny import CLASSES, make_model, make_pool
from torch import nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    PreTrainedModel,
    T5Config,
    T5ForConditionalGeneration,
    set_seed,
)

from tithe.models import attach_soft_prompt, read_signals
from tithe.trainers import (
    Answer,
    DistillationConfig,
    DistillationTrainer,
    ExpertLoopConfig,
    ExpertLoopTrainer,
    RoundSelectionConfig,
    RoundSelectionTrainer,
    classification_loss,
)
from tithe.trainers.distillation_tasks import active_items, task_of
from tithe.trainers.pool_data import PoolData
from tithe.trainers.row_numbers import KeepsRowNumbers, NumberedRows, columns_fingerprint


class Own(PreTrainedModel):
    """A head of its own, with arguments of its own, and a plain dict for its outputs."""

    config_class = BertConfig
    base_model_prefix = "body"
    main_input_name = "ids"
    _supports_sdpa = True

    def __init__(self, config):
        super().__init__(config)
        self.body = BertModel(config, add_pooling_layer=False)
        self.last = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    def forward(self, ids, shown, target=None):
        states = self.body(ids, shown).last_hidden_state  # the mask by its place
        weights = shown.unsqueeze(-1).to(states.dtype)
        logits = self.last((states * weights).sum(1) / weights.sum(1))
        loss = {} if target is None else {"loss": nn.functional.cross_entropy(logits, target)}
        return {**loss, "logits": logits}


class Rows(torch.utils.data.Dataset):
    """Rows by index, and nothing else; `label` is what they call their label, None for none."""

    def __init__(self, label="target", kind=dict):
        self.pool, self.label, self.kind = make_pool(), label, kind

    def __len__(self):
        return len(self.pool)

    def __getitem__(self, index):
        row = self.pool[index]
        found = {"ids": row["input_ids"]} | ({} if self.label is None else {self.label: row["label"]})
        return found if self.kind is dict else self.kind(*found.values())


@dataclass
class Record:
    ids: list
    target: int


def make_own(seed=0, **config):
    set_seed(seed)
    return Own(make_model(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, **config).config)


def batch_of(rows, label="target", name="target"):
    """As a project's collator: it knows what its rows hold, and asks for it."""
    rows = [vars(row) if isinstance(row, Record) else row for row in rows]
    width = max(len(row["ids"]) for row in rows)
    ids = [list(row["ids"]) + [0] * (width - len(row["ids"])) for row in rows]
    shown = [[1] * len(row["ids"]) + [0] * (width - len(row["ids"])) for row in rows]
    return {
        "ids": torch.tensor(ids),
        "shown": torch.tensor(shown),
        name: torch.tensor([row[label] for row in rows]),
    }


SETTINGS = {"use_cpu": True, "disable_tqdm": True, "report_to": "none", "save_strategy": "no", "logging_steps": 1}
NAMED = {"label_names": ["target"]}
SETTINGS |= {"per_device_train_batch_size": 4, "learning_rate": 3e-3, "remove_unused_columns": False}


class TestSelection:
    @pytest.mark.parametrize("strategy", ["k_center", "badge", "el2n", "margin_coverage", "bald"])
    def test_reads_a_model_whose_arguments_and_labels_have_other_names(self, tmp_path, strategy):
        args = RoundSelectionConfig(
            str(tmp_path),
            strategy=strategy,
            budget=12,
            num_train_epochs=2,
            rounds=2,
            label_names=["target"],
            **SETTINGS,
        )
        model = make_own()
        model.body.embeddings.dropout.p = 0.1
        trainer = RoundSelectionTrainer(model, args, data_collator=batch_of, train_dataset=Rows(), eval_dataset=Rows())
        trainer.train()
        assert len(np.unique(trainer.ledger.selected)) == 12
        assert trainer.evaluate()["eval_loss"] > 0

    def test_padding_has_no_part_in_embeddings(self):
        rows, model = Rows(), make_own().eval()
        found = read_signals(model, rows, {"embeddings"}, collate=batch_of, lengths=[0] * len(rows))["embeddings"]
        for place in (0, 7, 23):
            with torch.no_grad():
                states = model.body(torch.tensor([rows[place]["ids"]])).last_hidden_state[0]
            np.testing.assert_allclose(found[place], states.mean(0).numpy(), atol=1e-5)

    def test_rows_of_like_length_are_read_together(self, tmp_path):
        widths = []

        def watched(rows):
            widths.append(max(len(row["ids"]) for row in rows))
            return batch_of(rows)

        args = RoundSelectionConfig(str(tmp_path), strategy="k_center", label_names=["target"], **SETTINGS)
        trainer = RoundSelectionTrainer(make_own(), args, data_collator=watched, train_dataset=Rows())
        trainer.signals(trainer.train_dataset, {"embeddings"})
        assert widths == sorted(widths, reverse=True) and widths[0] > widths[-1]

    def test_rows_may_be_records(self, tmp_path):
        args = RoundSelectionConfig(str(tmp_path), strategy="k_center", budget=8, label_names=["target"], **SETTINGS)
        trainer = RoundSelectionTrainer(make_own(), args, data_collator=batch_of, train_dataset=Rows(kind=Record))
        trainer.train()
        assert len(trainer.ledger.selected) == 8

    def test_a_model_without_a_backbone_says_how_to_name_it(self):
        class Nameless(Own):
            base_model_prefix = ""

        model = Nameless(make_own().config)
        with pytest.raises(ValueError, match="`base_model_prefix`"):
            read_signals(model, Rows(), {"embeddings"}, collate=batch_of, lengths=[0] * 60)


class TestDistillation:
    def train(self, tmp_path, rows, **options):
        args = DistillationConfig(
            str(tmp_path), **{"task": "sequence classification", "num_train_epochs": 2, **SETTINGS, **options}
        )

        def collate(rows):
            return batch_of(rows, name="labels")

        teacher = make_own(1)
        teacher.last.weight.data *= 20
        trainer = DistillationTrainer(
            args=args, model_init=make_own_at_0, data_collator=collate, train_dataset=rows, teachers=teacher
        )
        trainer.train()
        return trainer

    @pytest.mark.parametrize("kind", [dict, Record])
    def test_a_student_and_a_teacher_of_ones_own(self, tmp_path, kind):
        cached = self.train(tmp_path / "a", Rows(kind=kind))
        live = self.train(tmp_path / "b", Rows(kind=kind), cache_teacher=False)
        losses = [[row["soft_loss"] for row in t.state.log_history if "soft_loss" in row] for t in (cached, live)]
        np.testing.assert_allclose(losses[0], losses[1], rtol=1e-4)
        assert losses[0][-1] < losses[0][0] and cached.teacher_cache_bytes

    def test_the_cache_knows_the_rows_by_their_own_names(self, tmp_path):
        rows = Rows()
        self.train(tmp_path, rows)
        rows.pool = make_pool(seed=1)
        with pytest.raises(ValueError, match="of something else"):
            self.train(tmp_path, rows)

    def test_what_says_no_task_is_refused(self, tmp_path):
        with pytest.raises(ValueError, match="`model` is a Own, whose class does not say its task"):
            self.train(tmp_path, Rows(), task=None)
        with pytest.raises(ValueError, match="`task` must be one of"):
            DistillationConfig(str(tmp_path), task="tagging")
        with pytest.raises(ValueError, match="must be called `labels`"):
            self.train(tmp_path, Rows(), label_names=["target"])

    def test_a_class_says_its_task_by_its_name_or_by_its_parent(self):
        config = make_own().config

        class OwnForTokenClassification(Own):
            pass

        class Derived(BertForSequenceClassification):
            pass

        assert task_of(OwnForTokenClassification(config)) == "token classification"
        assert task_of(Derived(config), declared="causal LM") == "sequence classification"
        assert task_of(Own(config), declared="token classification") == "token classification"

    def test_tokens_without_labels_need_a_mask(self):
        labels = torch.tensor([[-100, -100]])
        with pytest.raises(ValueError, match="say what is padding; it has ids"):
            active_items("token classification", labels, {"ids": torch.tensor([[1, 2]])})


def make_own_at_0():
    return make_own()


class TestExpertLoop:
    class Asked:
        shows, asks_teachers = (), False

        def label(self, query):
            return {int(row): Answer((int(row) % CLASSES), "asked") for row in query.rows}

    def loop(self, tmp_path, rows, collate, **options):
        settings = {"initial_pool_size": 6, "query_size": 6, "max_iterations": 1, "epochs_per_iteration": 1}
        args = ExpertLoopConfig(
            str(tmp_path),
            task="sequence classification",
            label_names=["target"],
            **{**settings, **SETTINGS, **options},
        )
        return ExpertLoopTrainer(make_own(), args, collate, rows, oracle=self.Asked())

    def test_a_label_is_hidden_whatever_it_is_called(self, tmp_path):
        seen = []

        def watched(rows):
            seen.extend(row["target"] for row in rows)
            return batch_of(rows)

        class Marked(Rows):
            def __getitem__(self, index):
                return super().__getitem__(index) | {"target": 77}

        trainer = self.loop(tmp_path, Marked(), watched)
        trainer.train()
        assert set(seen) == {-100, *range(CLASSES)}  # a collator may ask for it, and no row has the true one
        assert len(trainer.answers.labelled) == 12

    def test_rows_without_names_are_refused(self, tmp_path):
        with pytest.raises(TypeError, match="a row must be a mapping"):
            self.loop(tmp_path, Rows(kind=Record), batch_of)


class TestRows:
    def test_numbers_go_with_rows_of_any_kind(self):
        numbered = NumberedRows(Rows(kind=Record))
        batch = KeepsRowNumbers(batch_of)([numbered[4], numbered[2]])
        assert batch["row_numbers"].tolist() == [4, 2]
        torch.testing.assert_close(batch["ids"], batch_of([Rows()[4], Rows()[2]])["ids"])

    def test_equal_rows_have_one_fingerprint_whatever_they_hold(self):
        def rows(value):
            return [{"ids": [1], "about": {"of": [value, None]}, "more": [value, None]}]

        def both(value):
            made = rows(value)
            return PoolData(made).fingerprint(), columns_fingerprint(made, ["about", "more"])

        assert both("".join(["a", "b"])) == both("ab")
        assert both("ab")[0] != both("ba")[0] and both("ab")[1] != both("ba")[1]


def test_a_class_that_only_derives_gets_the_right_loss_and_one_with_its_own_forward_keeps_its_own():
    config = make_model().config

    class Derived(BertForSequenceClassification):
        pass

    class Weighted(BertForSequenceClassification):
        def forward(self, *args, **kwargs):
            return super().forward(*args, **kwargs)

    assert classification_loss(Derived(config)) is not None
    assert classification_loss(Weighted(config)) is None and classification_loss(Own(config)) is None


def test_an_encoder_with_a_prompt_may_be_given_its_mask_by_place():
    model = T5ForConditionalGeneration(T5Config(vocab_size=20, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2))
    attach_soft_prompt(model, 2)
    ids, mask = torch.tensor([[3, 4, 0]]), torch.tensor([[1, 1, 0]])
    encoder = model.eval().encoder
    by_place, by_name = encoder(ids, mask)[0], encoder(input_ids=ids, attention_mask=mask)[0]
    torch.testing.assert_close(by_place, by_name)
    assert not torch.allclose(by_place[:, :4], encoder(input_ids=ids)[0][:, :4])


def test_outputs_may_be_a_tuple():
    class AsTuple(Own):
        def forward(self, ids, shown):
            return (super().forward(ids, shown)["logits"],)

    rows, options = Rows(), {"collate": lambda rows: {k: v for k, v in batch_of(rows).items() if k != "target"}}
    found, expected = (
        read_signals(model, rows, {"probabilities"}, lengths=[0] * len(rows), **options)["probabilities"]
        for model in (AsTuple(make_own().config), make_own())
    )
    assert found.shape == expected.shape == (60, CLASSES)
    np.testing.assert_allclose(found.sum(1), 1, rtol=1e-5)
