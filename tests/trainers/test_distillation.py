import json
import shutil

import distilling as tiny
import numpy as np
import pytest
import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoModelForSequenceClassification, PreTrainedTokenizerFast, Trainer, TrainerCallback

from tithe.trainers import DistillationConfig, Teacher, last_finished_checkpoint


each_task = pytest.mark.parametrize("task", tiny.TASKS)


def log_softmax(x):
    x = x - x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def by_hand(task, student, teachers, batch, temperature, soft, hard, shares=None, average="probabilities"):
    """The loss of a batch in NumPy, from the models' logits."""
    labels, inputs = batch["labels"], {k: v for k, v in batch.items() if k != "labels"}

    def logits(model):
        with torch.no_grad():
            return model.eval()(**inputs, labels=labels).logits.double().numpy()

    ours, theirs, wanted = logits(student), [logits(t) for t in teachers], labels.numpy()
    if task == "causal":
        ours, theirs, wanted = ours[:, :-1], [t[:, :-1] for t in theirs], wanted[:, 1:]
    active = wanted != -100
    ours, theirs, wanted = ours[active], [t[active] for t in theirs], wanted[active]
    shares = shares or [1 / len(teachers)] * len(teachers)
    if average == "probabilities":
        p = sum(s * np.exp(log_softmax(t / temperature)) for s, t in zip(shares, theirs, strict=True))
    else:
        p = np.exp(log_softmax(sum(s * t for s, t in zip(shares, theirs, strict=True)) / temperature))
    kl = (p * (np.log(p) - log_softmax(ours / temperature))).sum()
    ce = -log_softmax(ours)[np.arange(len(wanted)), wanted].sum()
    return (hard * ce + soft * temperature**2 * kl) / active.sum()


def first_loss(trainer, batch, rows):
    """What `compute_loss` says of a batch of the rows with these numbers."""
    batch = {**batch, "row_numbers": torch.tensor(rows)}
    count = trainer._get_num_items_in_batch([batch], torch.device("cpu"))
    trainer.model.eval()
    return trainer.compute_loss(trainer.model, batch, num_items_in_batch=count).item()


class TestLoss:
    @each_task
    @pytest.mark.parametrize("weights", [(0.3, 0.7), (1.0, 0.0), (0.0, 1.0)])
    def test_is_its_formula(self, tmp_path, task, weights):
        soft, hard = weights
        teacher = tiny.make_model(task, seed=1, width=32)
        trainer = tiny.make_trainer(
            tmp_path, task, teachers=teacher, temperature=3.0, soft_weight=soft, hard_weight=hard
        )
        rows = [0, 3, 5]
        batch = tiny.collate([trainer.train_dataset[i] for i in rows])
        expected = by_hand(task, trainer.model, [teacher], batch, 3.0, soft, hard)
        assert first_loss(trainer, batch, rows) == pytest.approx(expected, rel=2e-5)

    @pytest.mark.parametrize("average", ["probabilities", "logits"])
    def test_of_an_ensemble_is_its_formula(self, tmp_path, average):
        teachers = [tiny.make_model("sequence", seed=s, width=w) for s, w in ((1, 32), (2, 16))]
        for teacher in teachers:
            teacher.classifier.weight.data *= 5  # the two averages are near equal where teachers are unsure
        trainer = tiny.make_trainer(
            tmp_path, "sequence", teachers=teachers, teacher_weights=[1.0, 3.0], teacher_average=average
        )
        batch = tiny.collate([trainer.train_dataset[i] for i in range(6)])
        found = first_loss(trainer, batch, list(range(6)))
        args = ("sequence", trainer.model, teachers, batch, 2.0, 0.5, 0.5, [0.25, 0.75])
        assert found == pytest.approx(by_hand(*args, average), rel=2e-5)
        other = {"probabilities": "logits", "logits": "probabilities"}[average]
        assert found != pytest.approx(by_hand(*args, other), rel=6e-5)

    @each_task
    def test_does_not_depend_on_accumulation(self, tmp_path, task):
        whole = tiny.make_trainer(tmp_path / "1", task)
        parts = tiny.make_trainer(tmp_path / "4", task, per_device_train_batch_size=1, gradient_accumulation_steps=4)
        whole.train()
        parts.train()
        assert len(tiny.history(whole)) == 12
        np.testing.assert_allclose(tiny.history(parts), tiny.history(whole), rtol=1e-5, atol=2e-6)

    @each_task
    def test_of_a_cached_teacher_is_that_of_a_live_one(self, tmp_path, task):
        live = tiny.make_trainer(tmp_path / "live", task)
        cached = tiny.make_trainer(tmp_path / "cached", task, cache_teacher=True)
        live.train()
        cached.train()
        np.testing.assert_allclose(tiny.history(cached), tiny.history(live), rtol=1e-5, atol=2e-6)
        items = 24 if task == "sequence" else sum(len(r) - 1 for r in live.train_dataset["labels"])
        classes = tiny.CLASSES if task in ("sequence", "token") else tiny.VOCABULARY
        assert cached.teacher_cache_bytes == items * classes * 4 + 25 * 8

    @pytest.mark.parametrize("task", ["seq2seq", "causal"])
    @pytest.mark.parametrize("cache", [False, True])
    def test_fused_is_the_dense_one(self, tmp_path, task, cache):
        options = {"cache_teacher": cache, "teacher_top_k": 7 if cache else None}
        dense = tiny.make_trainer(tmp_path / "dense", task, fused_loss=False, **options)
        fused = tiny.make_trainer(tmp_path / "fused", task, fused_loss=True, **options)
        dense.train()
        fused.train()
        np.testing.assert_allclose(tiny.history(fused), tiny.history(dense), rtol=2e-5, atol=2e-6)
        torch.testing.assert_close(tiny.weights(fused.model), tiny.weights(dense.model), rtol=1e-3, atol=1e-5)

    def test_evaluation_gives_the_hard_one(self, tmp_path):
        trainer = tiny.make_trainer(tmp_path, "token", per_device_eval_batch_size=24)
        rows = trainer.train_dataset
        expected = by_hand(
            "token", trainer.model, [trainer.model], tiny.collate([rows[i] for i in range(24)]), 1.0, 0.0, 1.0
        )
        assert trainer.evaluate(rows)["eval_loss"] == pytest.approx(expected, rel=1e-5)

    def test_of_rows_without_labels_is_soft_alone(self, tmp_path):
        rows = tiny.make_rows("token", unlabelled=24)
        trainer = tiny.make_trainer(tmp_path, "token", rows=rows, soft_weight=1.0)
        batch = tiny.collate([rows[0], rows[1]])
        count = trainer._get_num_items_in_batch([{**batch, "row_numbers": None}], torch.device("cpu"))
        assert count == batch["attention_mask"].sum()
        trainer.train()
        assert all(hard == 0 and soft > 0 for hard, soft in tiny.history(trainer, "hard_loss", "soft_loss"))

    def test_mixes_rows_with_and_without_labels(self, tmp_path):
        labelled = tiny.make_trainer(tmp_path / "a", "sequence", rows=tiny.make_rows("sequence", unlabelled=12))
        labelled.train()
        assert np.isfinite(tiny.history(labelled)).all()
        without = tiny.make_rows("sequence").remove_columns("labels")
        trainer = tiny.make_trainer(tmp_path / "b", "sequence", rows=without)
        trainer.train()
        assert all(hard == 0 for (hard,) in tiny.history(trainer, "hard_loss"))

    def test_falls_to_that_of_the_teacher(self, tmp_path):
        teacher = tiny.make_model("sequence", seed=1)
        trainer = tiny.make_trainer(
            tmp_path, "sequence", teachers=teacher, hard_weight=0.0, soft_weight=1.0, num_train_epochs=30
        )
        trainer.train()
        soft = [entry[0] for entry in tiny.history(trainer, "soft_loss")]
        assert np.mean(soft[-6:]) < 0.2 * np.mean(soft[:6])


class TestWithoutTeachers:
    def test_it_is_the_stock_trainer(self, tmp_path):
        rows = tiny.make_rows("causal")
        ours = tiny.make_trainer(tmp_path / "ours", "causal", teachers=[], rows=rows)
        ours.train()
        stock = Trainer(
            tiny.make_model("causal"),
            tiny.arguments(tmp_path / "stock"),
            data_collator=tiny.collate,
            train_dataset=rows,
        )
        stock.train()
        assert tiny.history(ours, "loss", "grad_norm") == tiny.history(stock, "loss", "grad_norm")
        assert torch.equal(tiny.weights(ours.model), tiny.weights(stock.model))

    def test_the_order_of_rows_is_the_stock_one(self, tmp_path):
        rows = tiny.make_rows("causal")
        ours = tiny.make_trainer(tmp_path / "ours", "causal", soft_weight=0.0, hard_weight=1.0, rows=rows)
        ours.train()
        stock = Trainer(
            tiny.make_model("causal"),
            tiny.arguments(tmp_path / "stock"),
            data_collator=tiny.collate,
            train_dataset=rows,
        )
        stock.train()
        np.testing.assert_allclose(
            tiny.history(ours, "loss", "grad_norm"), tiny.history(stock, "loss", "grad_norm"), rtol=1e-5
        )


class TestTeachers:
    def test_are_left_as_they_were_and_get_no_gradient(self, tmp_path):
        teacher = tiny.make_model("token", seed=1, width=32)
        before = tiny.weights(teacher).clone()
        trainer = tiny.make_trainer(tmp_path, "token", teachers=teacher)
        trainer.train()
        assert torch.equal(tiny.weights(teacher), before)
        assert not teacher.training and all(not p.requires_grad and p.grad is None for p in teacher.parameters())
        assert not any("teacher" in name for name in trainer.model.state_dict())

    def test_labels_are_matched_by_name(self, tmp_path):
        plain, turned = tiny.make_model("sequence", seed=1), tiny.make_model("sequence", seed=1)
        order = [2, 0, 1]
        for model in (plain, turned):
            model.config.id2label = {0: "a", 1: "b", 2: "c"}
        turned.config.id2label = {i: "abc"[j] for i, j in enumerate(order)}
        turned.classifier.weight.data = plain.classifier.weight.data[order].clone()
        turned.classifier.bias.data = plain.classifier.bias.data[order].clone()
        losses = []
        for number, teacher in enumerate((plain, turned)):
            student = tiny.make_model("sequence")
            student.config.id2label = {0: "a", 1: "b", 2: "c"}
            trainer = tiny.make_trainer(tmp_path / str(number), "sequence", teachers=teacher, student=student)
            trainer.train()
            losses.append(tiny.history(trainer))
        np.testing.assert_allclose(*losses, rtol=1e-6)

    def test_may_be_given_by_folder(self, tmp_path):
        teacher = tiny.make_model("sequence", seed=1, width=32)
        teacher.save_pretrained(tmp_path / "teacher")
        tokenizer("w").save_pretrained(tmp_path / "teacher")
        by_name = tiny.make_trainer(
            tmp_path / "a",
            "sequence",
            teachers=str(tmp_path / "teacher"),
            trainer={"processing_class": tokenizer("w")},
        )
        by_object = tiny.make_trainer(tmp_path / "b", "sequence", teachers=teacher)
        by_name.train()
        by_object.train()
        assert tiny.history(by_name) == tiny.history(by_object)

    def test_in_bfloat16_say_nearly_the_same(self, tmp_path):
        exact = tiny.make_trainer(tmp_path / "a", "token")
        half = tiny.make_trainer(
            tmp_path / "b", "token", teachers=tiny.make_model("token", seed=1, width=32).to(torch.bfloat16)
        )
        exact.train()
        half.train()
        np.testing.assert_allclose(tiny.history(half, "loss"), tiny.history(exact, "loss"), rtol=2e-2)


def tokenizer(first, size=40):
    """Words `a0` … in one order or, from another `first`, in another, so that ids differ."""
    words = [f"a{i}" for i in range(size)]
    if first != "w":
        words = words[::-1]
    vocabulary = {token: i for i, token in enumerate(["[PAD]", "[CLS]", "[SEP]", "[UNK]", *words])}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]", unk_token="[UNK]"
    )


class TestOtherTokenizers:
    """A teacher whose ids are permuted, and its embeddings with them, must teach the same."""

    def permuted(self, task):
        ours, theirs = tokenizer("w"), tokenizer("other")
        plain, other = tiny.make_model(task, seed=1), tiny.make_model(task, seed=1)
        places = [theirs.get_vocab()[token] for token, _ in sorted(ours.get_vocab().items(), key=lambda item: item[1])]
        table = plain.bert.embeddings.word_embeddings.weight.data
        other.bert.embeddings.word_embeddings.weight.data[places] = table[: len(places)].clone()
        return ours, theirs, plain, other

    @pytest.mark.parametrize("cache", [False, True])
    @pytest.mark.parametrize("task", ["sequence", "token"])
    def test_read_the_same_rows(self, tmp_path, task, cache):
        ours, theirs, plain, other = self.permuted(task)
        rng = np.random.default_rng(0)
        words = [[f"a{i}" for i in rng.integers(0, 40, rng.integers(3, 9))] for _ in range(24)]
        encoded = ours(words, is_split_into_words=True)
        rows = {"input_ids": encoded["input_ids"], "attention_mask": encoded["attention_mask"]}
        rows |= {"words": words, "text": [" ".join(row) for row in words]}
        if task == "sequence":
            rows["labels"] = [len(row) % 3 for row in words]
        else:
            rows["labels"] = [[-100, *(len(w) % 3 for w in row), -100] for row in words]
        found = []
        for number, teacher in enumerate((plain, Teacher(other, tokenizer=theirs))):
            trainer = tiny.make_trainer(
                tmp_path / str(number),
                task,
                teachers=teacher,
                rows=Dataset.from_dict(rows),
                cache_teacher=cache,
                trainer={"processing_class": ours},
            )
            trainer.train()
            found.append(tiny.history(trainer))
        np.testing.assert_allclose(*found, rtol=1e-5, atol=2e-6)

    def test_need_the_texts(self, tmp_path):
        ours, theirs, _, other = self.permuted("sequence")
        with pytest.raises(ValueError, match="no column 'text'"):
            tiny.make_trainer(
                tmp_path, "sequence", teachers=Teacher(other, tokenizer=theirs), trainer={"processing_class": ours}
            )


class Stop(TrainerCallback):
    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            raise KeyboardInterrupt


class TestResume:
    @pytest.mark.parametrize(
        ("task", "options"),
        [
            ("token", {"cache_teacher": True}),
            ("causal", {"cache_teacher": False, "fused_loss": True}),
            ("sequence", {"hidden_weight": 1.0, "cache_teacher": None}),
            ("token", {"cache_teacher": True, "train_sampling_strategy": "group_by_length"}),
        ],
    )
    def test_goes_on_to_the_same_weights(self, tmp_path, task, options):
        settings = {"save_strategy": "steps", "save_steps": 2, "num_train_epochs": 3, **options}
        whole = tiny.make_trainer(tmp_path / "whole", task, **settings)
        whole.train()
        stopped = tiny.make_trainer(tmp_path / "cut", task, trainer={"callbacks": [Stop(9)]}, **settings)
        with pytest.raises(KeyboardInterrupt):
            stopped.train()
        resumed = tiny.make_trainer(tmp_path / "cut", task, **settings)
        resumed.train(resume_from_checkpoint=True)
        assert last_finished_checkpoint(tmp_path / "cut").name == "checkpoint-18"
        assert torch.equal(tiny.weights(resumed.model), tiny.weights(whole.model))


class TestCache:
    def trained(self, folder, **options):
        trainer = tiny.make_trainer(folder, "token", cache_teacher=True, **options)
        trainer.train()
        return trainer

    def test_is_the_default_for_several_epochs(self, tmp_path):
        several = tiny.make_trainer(tmp_path, "token", cache_teacher=None)
        one = tiny.make_trainer(tmp_path, "token", cache_teacher=None, num_train_epochs=1)
        inner = tiny.make_trainer(tmp_path, "token", cache_teacher=None, hidden_weight=1.0)
        assert (several.caches_teacher, one.caches_teacher, inner.caches_teacher) == (True, False, False)

    def test_is_read_back_and_the_teacher_not_run_again(self, tmp_path):
        first = self.trained(tmp_path)
        teacher = tiny.make_model("token", seed=1, width=32)
        teacher.forward = lambda **inputs: pytest.fail("the teacher ran")
        again = tiny.make_trainer(tmp_path, "token", teachers=teacher, cache_teacher=True)
        again.train()
        assert tiny.history(again) == tiny.history(first)

    @pytest.mark.parametrize(
        ("change", "term"),
        [({"temperature": 3.0}, "temperature"), ({"teacher_top_k": 1}, "top_k"), ({"seed": 5}, None)],
    )
    def test_of_the_largest_with_other_settings_is_refused(self, tmp_path, change, term):
        self.trained(tmp_path, teacher_top_k=2)
        trainer = tiny.make_trainer(tmp_path, "token", cache_teacher=True, **{"teacher_top_k": 2, **change})
        if term is None:
            trainer.train()
            return
        with pytest.raises(ValueError, match=rf"something else \({term}: .*delete it"):
            trainer.train()

    @pytest.mark.parametrize("change", [{"temperature": 3.0}, {"teacher_average": "logits"}, {"soft_weight": 0.9}])
    def test_of_all_classes_serves_other_settings(self, tmp_path, change):
        """Another temperature, say, costs no second pass of the teachers, and gives what a pass would."""
        teachers = [tiny.make_model("token", seed=seed, width=32) for seed in (1, 2)]
        tiny.make_trainer(tmp_path, "token", teachers=teachers, cache_teacher=True).train()
        for teacher in (teachers := [tiny.make_model("token", seed=seed, width=32) for seed in (1, 2)]):
            teacher.forward = lambda **inputs: pytest.fail("the teacher ran")
        again = tiny.make_trainer(tmp_path, "token", teachers=teachers, cache_teacher=True, **change)
        again.train()
        teachers = [tiny.make_model("token", seed=seed, width=32) for seed in (1, 2)]
        live = tiny.make_trainer(tmp_path / "live", "token", teachers=teachers, cache_teacher=False, **change)
        live.train()
        np.testing.assert_allclose(tiny.history(again), tiny.history(live), rtol=1e-5, atol=2e-6)

    def test_of_another_teacher_or_other_data_is_refused(self, tmp_path):
        self.trained(tmp_path)
        other = tiny.make_trainer(tmp_path, "token", teachers=tiny.make_model("token", seed=2), cache_teacher=True)
        with pytest.raises(ValueError, match="teacher 0"):
            other.train()
        rows = tiny.make_rows("token").to_dict()
        rows["labels"][5][2] = (rows["labels"][5][2] + 1) % 3
        changed = tiny.make_trainer(tmp_path, "token", rows=Dataset.from_dict(rows), cache_teacher=True)
        with pytest.raises(ValueError, match="data"):
            changed.train()

    @pytest.mark.parametrize("name", ["offsets", "log_probabilities"])
    def test_that_is_corrupted_is_refused(self, tmp_path, name):
        self.trained(tmp_path)
        path = tmp_path / "teacher_cache" / f"{name}.npy"
        data = bytearray(path.read_bytes())
        data[-3] ^= 1
        path.write_bytes(bytes(data))
        with pytest.raises(ValueError, match=f"corrupted.*{name}"):
            tiny.make_trainer(tmp_path, "token", cache_teacher=True).train()

    def test_goes_on_after_a_kill(self, tmp_path, monkeypatch):
        monkeypatch.setattr("tithe.trainers.teacher_cache._BATCHES_A_SHARD", 1)
        whole = self.trained(tmp_path / "whole")
        calls = []

        def reading(teacher, limit):
            forward = teacher.forward

            def counted(**inputs):
                calls.append(1)
                if len(calls) > limit:
                    raise KeyboardInterrupt
                return forward(**inputs)

            teacher.forward = counted
            return teacher

        killed = reading(tiny.make_model("token", seed=1, width=32), 2)
        # The signature of `forward` decides what it is given.
        killed.forward.__wrapped__ = type(killed).forward.__get__(killed)
        with pytest.raises(KeyboardInterrupt):
            tiny.make_trainer(tmp_path / "cut", "token", teachers=killed, cache_teacher=True).train()
        assert not (tmp_path / "cut" / "teacher_cache" / "cache.json").exists()
        calls.clear()
        rest = reading(tiny.make_model("token", seed=1, width=32), 99)
        rest.forward.__wrapped__ = type(rest).forward.__get__(rest)
        resumed = tiny.make_trainer(tmp_path / "cut", "token", teachers=rest, cache_teacher=True)
        resumed.train()
        assert len(calls) == 1
        assert torch.equal(tiny.weights(resumed.model), tiny.weights(whole.model))
        for name in ("offsets", "log_probabilities"):
            files = [tmp_path / run / "teacher_cache" / f"{name}.npy" for run in ("whole", "cut")]
            assert files[0].read_bytes() == files[1].read_bytes()
        shutil.rmtree(tmp_path / "cut")

    def test_notices_labels_that_move(self, tmp_path):
        trainer = tiny.make_trainer(tmp_path, "token", cache_teacher=True)
        inner, turns = trainer.data_collator, []

        def masks_more(rows):
            batch = inner(rows)
            turns.append(1)
            if len(turns) > 4:
                batch["labels"][:, 1] = -100
            return batch

        trainer.data_collator = masks_more
        with pytest.raises(ValueError, match="items when the teachers read it"):
            trainer.train()


class TestInnerStates:
    def test_losses_are_their_formulas(self, tmp_path):
        teacher = tiny.make_model("sequence", seed=1)
        student = tiny.make_model("sequence")
        trainer = tiny.make_trainer(
            tmp_path,
            "sequence",
            teachers=teacher,
            student=student,
            hidden_weight=1.0,
            attention_weight=1.0,
            num_train_epochs=1,
            max_steps=1,
            layer_map='{"1": 2}',
        )
        before = {name: value.clone() for name, value in student.state_dict().items()}
        seen = []
        inner = trainer.data_collator
        trainer.data_collator = lambda rows: seen.append(inner(rows)) or seen[-1]
        trainer.train()
        student.load_state_dict(before)
        batch = {name: value for name, value in seen[0].items() if name in ("input_ids", "attention_mask")}
        with torch.no_grad():
            ours, theirs = (
                m.eval()(**batch, output_hidden_states=True, output_attentions=True) for m in (student, teacher)
            )
        mask = batch["attention_mask"].bool()
        gap = (ours.hidden_states[1] - theirs.hidden_states[2])[mask]
        pairs = (mask[:, :, None] & mask[:, None])[:, None]
        square = ((ours.attentions[0] - theirs.attentions[1]) * pairs).square().mean(1).sum((1, 2)) / mask.sum(1)
        found = tiny.history(trainer, "hidden_loss", "attention_loss")[0]
        assert found[0] == pytest.approx(gap.square().mean(-1).sum().item() / mask.sum().item(), rel=1e-4, abs=2e-6)
        assert found[1] == pytest.approx(square.sum().item() / mask.sum().item(), rel=1e-4, abs=2e-6)

    def test_projections_are_trained_and_not_saved(self, tmp_path):
        trainer = tiny.make_trainer(
            tmp_path, "sequence", hidden_weight=1.0, save_strategy="steps", save_steps=6, num_train_epochs=2
        )
        trainer.train()
        assert (tmp_path / "checkpoint-12" / "distillation_projections.safetensors").exists()
        assert len(list(trainer.model.parameters())) == len(list(tiny.make_model("sequence").parameters()))
        trainer.save_model(tmp_path / "saved")
        for folder in ("saved", "checkpoint-12"):
            _, report = AutoModelForSequenceClassification.from_pretrained(tmp_path / folder, output_loading_info=True)
            assert not report["missing_keys"] and not report["unexpected_keys"]

    @each_task
    def test_accumulation_does_not_change_them(self, tmp_path, task):
        if task == "seq2seq":
            with pytest.raises(ValueError, match="no decoder"):
                tiny.make_trainer(tmp_path, task, hidden_weight=1.0)
            return
        names = ("loss", "grad_norm", "hidden_loss", "attention_loss")
        options = {"hidden_weight": 1.0, "attention_weight": 100.0}
        whole = tiny.make_trainer(tmp_path / "1", task, **options)
        parts = tiny.make_trainer(
            tmp_path / "4", task, per_device_train_batch_size=1, gradient_accumulation_steps=4, **options
        )
        whole.train()
        parts.train()
        np.testing.assert_allclose(tiny.history(parts, *names), tiny.history(whole, *names), rtol=1e-4, atol=2e-6)


class TestBadInput:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"temperature": 0.0}, "`temperature` must be above 0, got 0.0"),
            ({"soft_weight": 0.0, "hard_weight": 0.0}, "both 0"),
            ({"soft_weight": -1.0}, "`soft_weight` must be at least 0"),
            ({"teacher_average": "votes"}, "`teacher_average` must be"),
            ({"teacher_top_k": 0}, "`teacher_top_k` must be at least 1"),
            ({"teacher_dtype": "half precision"}, "torch dtype"),
            ({"hidden_weight": 1.0, "cache_teacher": True}, "need the teacher live"),
        ],
    )
    def test_config(self, tmp_path, options, message):
        with pytest.raises(ValueError, match=message):
            DistillationConfig(output_dir=str(tmp_path), use_cpu=True, **options)

    @pytest.mark.parametrize(
        ("teacher", "message"),
        [
            (lambda: tiny.make_model("token"), "for token classification, the student for sequence"),
            (lambda: tiny.make_model("sequence", classes=4), "only the teacher LABEL_3"),
            (lambda: tiny.make_model("sequence", vocabulary=30), "another tokenizer; pass"),
            (lambda: tiny.make_model("sequence").bert, "distillation is for models of"),
            (lambda: Teacher(tiny.make_model("sequence"), weight=0.0), "must be above 0"),
        ],
    )
    def test_teachers(self, tmp_path, teacher, message):
        with pytest.raises(ValueError, match=message):
            tiny.make_trainer(tmp_path, "sequence", teachers=teacher())

    def test_vocabularies(self, tmp_path):
        with pytest.raises(ValueError, match="vocabulary of 90, the student one of 60"):
            tiny.make_trainer(tmp_path, "causal", teachers=tiny.make_model("causal", vocabulary=90))

    def test_number_of_weights(self, tmp_path):
        with pytest.raises(ValueError, match="2 weights for 1 teachers"):
            tiny.make_trainer(tmp_path, "sequence", teacher_weights=[1.0, 2.0])

    def test_the_student_as_its_own_teacher(self, tmp_path):
        model = tiny.make_model("sequence")
        with pytest.raises(ValueError, match="the student itself"):
            tiny.make_trainer(tmp_path, "sequence", teachers=model, student=model)

    def test_types(self, tmp_path):
        with pytest.raises(TypeError, match="models, names or `Teacher`s"):
            tiny.make_trainer(tmp_path, "sequence", teachers=[3])

    def test_layer_maps(self, tmp_path):
        with pytest.raises(ValueError, match="has 1: 5, but the student has layers 0 to 2"):
            tiny.make_trainer(tmp_path, "sequence", hidden_weight=1.0, layer_map=json.dumps({1: 5}))
