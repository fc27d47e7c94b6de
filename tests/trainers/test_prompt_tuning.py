"""LoRA and a soft prompt under the trainer: the parent where nothing is added, exact resume, generation, bad input."""

import json
from pathlib import Path

import numpy as np
import prompting
import pytest
import torch
from killing import KillAt, Killed
from safetensors.torch import load_file
from transformers import (
    DataCollatorForSeq2Seq,
    LlamaConfig,
    LlamaForCausalLM,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
)

from tithe.models import add_lora_and_prompt, load_lora_and_prompt, prompt_weights, virtual_tokens_of
from tithe.trainers import PTDataCollator, PTSeq2SeqConfig, PTSeq2SeqTrainer, last_finished_checkpoint


COMMON = {"use_cpu": True, "disable_tqdm": True, "report_to": "none", "logging_steps": 1, "learning_rate": 1e-2}
COMMON |= {"per_device_train_batch_size": 4, "per_device_eval_batch_size": 8, "num_train_epochs": 2}
ADDED = {"lora_rank": 4, "virtual_tokens": 5}


def make_trainer(folder, model=None, rows=24, trainer=None, **options):
    options = {**COMMON, **ADDED, "save_strategy": "no", **options}
    given = {"train_dataset": prompting.make_rows(rows), "eval_dataset": prompting.make_rows(10, seed=1)}
    return PTSeq2SeqTrainer(
        prompting.make_base() if model is None else model,
        PTSeq2SeqConfig(str(folder), **options),
        processing_class=prompting.make_tokenizer(),
        **{**given, **(trainer or {})},
    )


def losses(trainer):
    return [(log["loss"], log["grad_norm"]) for log in trainer.state.log_history if "loss" in log]


def added(trainer):
    return {name: p.detach().clone() for name, p in trainer.model.named_parameters() if p.requires_grad}


class TestTraining:
    def test_with_nothing_added_is_the_parent(self, tmp_path):
        ours = make_trainer(tmp_path / "ours", lora_rank=0, virtual_tokens=0)
        ours.train()
        tokenizer, base = prompting.make_tokenizer(), prompting.make_base()
        plain = Seq2SeqTrainer(
            base,
            Seq2SeqTrainingArguments(str(tmp_path / "plain"), save_strategy="no", **COMMON),
            DataCollatorForSeq2Seq(tokenizer),
            train_dataset=prompting.make_rows(24),
        )
        plain.train()
        np.testing.assert_allclose(losses(ours), losses(plain), rtol=1e-6)
        assert len(losses(ours)) == 12

    def test_learns_and_leaves_the_base_alone(self, tmp_path):
        trainer = make_trainer(tmp_path, num_train_epochs=20, learning_rate=3e-2)
        before = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
        trainer.train()
        changed = {n for n, p in trainer.model.named_parameters() if not torch.equal(p.detach(), before[n])}
        assert changed == set(added(trainer)) and {n for n in changed if "soft_prompt" in n}
        found = [loss for loss, _ in losses(trainer)]
        assert np.mean(found[-6:]) < 0.8 * np.mean(found[:6])

    @pytest.mark.parametrize("smoothing", [0.0, 0.1])
    def test_accumulation_is_a_larger_batch(self, tmp_path, smoothing):
        """The heads of T5 and BART return a local mean, which the parent multiplies by the steps accumulated."""
        options = {"label_smoothing_factor": smoothing}
        whole = make_trainer(tmp_path / "whole", prompting.make_base(0.0), per_device_train_batch_size=8, **options)
        parts = make_trainer(
            tmp_path / "parts",
            prompting.make_base(0.0),
            per_device_train_batch_size=2,
            gradient_accumulation_steps=4,
            **options,
        )
        whole.train()
        parts.train()
        np.testing.assert_allclose(losses(whole), losses(parts), rtol=1e-4)

    def test_model_init_is_adapted_too(self, tmp_path):
        given = {"train_dataset": prompting.make_rows(8), "processing_class": prompting.make_tokenizer()}
        args = PTSeq2SeqConfig(str(tmp_path), **COMMON, **ADDED, save_strategy="no")
        trainer = PTSeq2SeqTrainer(args=args, model_init=lambda: prompting.make_base(), **given)
        trainer.train()
        assert virtual_tokens_of(trainer.model) == 5

    def test_takes_up_saved_adapters(self, tmp_path):
        first = make_trainer(tmp_path / "first")
        first.train()
        first.save_model()
        loaded = load_lora_and_prompt(prompting.make_base(), tmp_path / "first", trainable=True)
        second = make_trainer(tmp_path / "second", loaded, virtual_tokens=50)
        assert second.model is loaded
        expected = prompt_weights(first.model).clone()
        assert torch.equal(prompt_weights(loaded), expected)
        second.train()
        assert not torch.equal(prompt_weights(second.model), expected)

    def test_a_causal_model(self, tmp_path):
        tokenizer = prompting.make_tokenizer()
        sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4}
        model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), pad_token_id=0, **sizes))
        rows = prompting.make_rows(16)
        joined = [
            {"input_ids": row["input_ids"] + row["labels"], "labels": [-100] * len(row["input_ids"]) + row["labels"]}
            for row in rows
        ]
        trainer = make_trainer(tmp_path, model, trainer={"train_dataset": joined, "eval_dataset": joined})
        trainer.train()
        assert len(losses(trainer)) == 8
        with torch.no_grad():
            batch = trainer.data_collator(joined[:3])
            logits = trainer.model.eval()(**batch).logits[:, :-1]
        expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch["labels"][:, 1:].flatten())
        assert trainer.evaluate(joined[:3])["eval_loss"] == pytest.approx(expected.item(), rel=1e-5)


class TestCheckpoints:
    @pytest.mark.parametrize("step", [5, 6, 9])
    @pytest.mark.parametrize(
        "options",
        [{}, {"lora_rank": 0}, {"virtual_tokens": 0}, {"train_sampling_strategy": "group_by_length"}],
        ids=["both", "prompt", "lora", "grouped"],
    )
    def test_resume_exactly(self, tmp_path, step, options):
        """With dropout; killed within an epoch and at its end."""
        saving = {"save_strategy": "steps", "save_steps": 3, "num_train_epochs": 2, **options}
        whole = make_trainer(tmp_path / "whole", **saving)
        whole.train()
        killed = make_trainer(tmp_path / "killed", trainer={"callbacks": [KillAt(step)]}, **saving)
        with pytest.raises(Killed):
            killed.train()
        resumed = make_trainer(tmp_path / "killed", **saving)
        resumed.train(resume_from_checkpoint=True)
        expected, found = added(whole), added(resumed)
        assert expected.keys() == found.keys()
        assert all(torch.equal(expected[name], found[name]) for name in expected)

    def test_hold_what_was_added_alone(self, tmp_path):
        trainer = make_trainer(tmp_path, save_strategy="epoch")
        trainer.train()
        folder = last_finished_checkpoint(tmp_path)
        tensors = load_file(folder / "adapter_model.safetensors")
        assert sum(t.numel() for t in tensors.values()) == trainer.model.get_nb_trainable_parameters()[0]
        assert not (folder / "model.safetensors").exists()

    def test_the_best_is_loaded_at_the_end(self, tmp_path):
        options = {"save_strategy": "epoch", "eval_strategy": "epoch", "load_best_model_at_end": True}
        options |= {"metric_for_best_model": "eval_loss", "greater_is_better": True}  # so that it is not the last
        trainer = make_trainer(tmp_path, num_train_epochs=3, **options)
        trainer.train()
        scores = [log["eval_loss"] for log in trainer.state.log_history if "eval_loss" in log]
        assert np.argmax(scores) == 0
        best = load_file(Path(trainer.state.best_model_checkpoint) / "adapter_model.safetensors")
        assert torch.equal(prompt_weights(trainer.model), next(t for n, t in best.items() if "soft_prompt" in n))
        assert trainer.evaluate()["eval_loss"] == pytest.approx(max(scores), rel=1e-6)


class TestEvaluation:
    @pytest.mark.parametrize("beams", [1, 3])
    def test_generates_as_the_model_does_alone(self, tmp_path, beams):
        trainer = make_trainer(
            tmp_path, predict_with_generate=True, generation_max_length=7, generation_num_beams=beams
        )
        rows = prompting.make_rows(10, seed=1)
        found = trainer.predict(rows).predictions
        for row, prediction in zip(rows, found, strict=True):
            ids, mask = (torch.tensor([row[name]]) for name in ("input_ids", "attention_mask"))
            alone = trainer.model.generate(input_ids=ids, attention_mask=mask, max_length=7, num_beams=beams)[0]
            kept = [i for i in prediction.tolist() if i >= 0]
            assert kept[: len(alone)] == alone.tolist()

    def test_scores_are_those_of_compute_metrics(self, tmp_path):
        seen = []

        def compute(predictions):
            seen.append(predictions)
            return {"length": float((predictions.predictions >= 0).sum(1).mean())}

        options = {"predict_with_generate": True, "generation_max_length": 6, "eval_strategy": "epoch"}
        trainer = make_trainer(tmp_path, trainer={"compute_metrics": compute}, **options)
        pad = prompting.make_tokenizer().pad_token_id
        trainer.model.generation_config.suppress_tokens = [pad]  # which is all that some random weights say
        trainer.train()
        assert len(seen) == 2 and "eval_length" in trainer.evaluate()
        for given in seen:  # token ids, and not logits; the parent pads them
            assert given.predictions.ndim == 2 and given.predictions.dtype.kind == "i"
            assert set(given.predictions[:, 6:].flatten().tolist()) <= {pad, -100}
            assert not set(given.predictions[:, 1:6].flatten().tolist()) <= {pad, -100}


class TestCollator:
    def test_pads_each_to_its_longest(self):
        tokenizer = prompting.make_tokenizer()
        rows = [{"input_ids": [5, 6, 7], "attention_mask": [1] * 3, "labels": [8]}]
        rows.append({"input_ids": [5], "attention_mask": [1], "labels": [8, 9]})
        batch = PTDataCollator(tokenizer)(rows)
        pad = tokenizer.pad_token_id
        assert batch["input_ids"].tolist() == [[5, 6, 7], [5, pad, pad]]
        assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
        assert batch["labels"].tolist() == [[8, -100], [8, 9]]
        wider = PTDataCollator(tokenizer, pad_to_multiple_of=4)(rows)
        assert wider["input_ids"].shape == wider["labels"].shape == (2, 4)
        tokenizer.padding_side = "left"
        assert PTDataCollator(tokenizer)(rows)["labels"].tolist() == [[-100, 8], [8, 9]]

    def test_without_labels(self):
        rows = [{"input_ids": [5, 6], "attention_mask": [1, 1]}]
        assert set(PTDataCollator(prompting.make_tokenizer())(rows)) == {"input_ids", "attention_mask"}


class TestBadInput:
    def test_an_empty_target(self, tmp_path):
        for rows in (prompting.make_rows(4).to_list(), prompting.make_rows(4)):
            empty = [dict(row) for row in rows]
            empty[2]["labels"] = []
            if not isinstance(rows, list):
                empty = type(rows).from_list(empty)
            with pytest.raises(ValueError, match="row 2 of `train_dataset` has an empty target"):
                make_trainer(tmp_path, trainer={"train_dataset": empty})
            with pytest.raises(ValueError, match=r"row 2 of `eval_dataset\['other'\]` has an empty target"):
                make_trainer(tmp_path, trainer={"eval_dataset": {"other": empty}})

    def test_inputs_longer_than_the_prompt_leaves_room_for(self, tmp_path):
        from transformers import BartConfig, BartForConditionalGeneration

        sizes = {"d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "max_position_embeddings": 12}
        heads = {"encoder_attention_heads": 4, "decoder_attention_heads": 4}
        model = BartForConditionalGeneration(
            BartConfig(
                vocab_size=len(prompting.make_tokenizer()), encoder_ffn_dim=64, decoder_ffn_dim=64, **sizes, **heads
            )
        )
        with pytest.raises(ValueError, match="the prompt leaves 7 positions"):
            make_trainer(tmp_path, model)

    def test_generation_of_a_causal_model_in_evaluation(self, tmp_path):
        sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4}
        model = LlamaForCausalLM(LlamaConfig(vocab_size=50, **sizes))
        with pytest.raises(ValueError, match="needs an encoder-decoder, got LlamaForCausalLM"):
            make_trainer(tmp_path, model, predict_with_generate=True)

    def test_fp16_of_a_t5(self, tmp_path, monkeypatch):
        trainer = make_trainer(tmp_path)
        trainer.args.fp16 = True
        with pytest.warns(UserWarning, match="t5 overflows in fp16"):
            trainer._check()

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"lora_rank": -1}, "`lora_rank` must not be negative"),
            ({"lora_dropout": 1.0}, "below 1"),
            ({"prompt_init": "text"}, "needs `prompt_text`"),
            ({"prompt_init": "zeros"}, "vocabulary, text, random"),
        ],
    )
    def test_arguments(self, tmp_path, options, message):
        with pytest.raises(ValueError, match=message):
            make_trainer(tmp_path, **options)

    def test_args_of_another_kind(self, tmp_path):
        with pytest.raises(TypeError, match="must be a `PTSeq2SeqConfig`"):
            PTSeq2SeqTrainer(prompting.make_base(), Seq2SeqTrainingArguments(str(tmp_path)))


def test_a_model_with_a_prompt_is_a_peft_model_for_everybody(tmp_path):
    """What the trainer saves, `load_lora_and_prompt` loads; the config says what was added."""
    trainer = make_trainer(tmp_path)
    trainer.train()
    trainer.save_model()
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert config["peft_type"] == "LORA" and config["r"] == 4 and config["modules_to_save"] == ["soft_prompt"]
    loaded = load_lora_and_prompt(prompting.make_base(), tmp_path).eval()
    batch = trainer.data_collator([prompting.make_rows(3)[i] for i in range(3)])
    with torch.no_grad():
        assert torch.equal(loaded(**batch).logits, trainer.model.eval()(**batch).logits)


def test_an_adapted_model_is_not_adapted_again(tmp_path):
    model = add_lora_and_prompt(prompting.make_base(), rank=2, virtual_tokens=3)
    assert make_trainer(tmp_path, model).model is model
