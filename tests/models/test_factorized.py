import copy
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model
from torch.nn import functional as F
from transformers import (
    AutoModel,
    AutoModelForTokenClassification,
    BartConfig,
    BartForConditionalGeneration,
    BertConfig,
    BertForMaskedLM,
    BertForTokenClassification,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
    Trainer,
    TrainingArguments,
)

from tithe.models import (
    FactorizedEmbedding,
    FactorizedHead,
    embedding_energy,
    embedding_modules,
    factorize_embeddings,
    merge_embeddings,
)


SPECIAL = {"vocab_size": 50, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
IDS = torch.arange(3, 17).reshape(2, 7)


def bert(**options):
    return BertConfig(**SIZES, vocab_size=50, max_position_embeddings=20, **options)


def llama(**options):
    return LlamaConfig(**SIZES, **SPECIAL, num_key_value_heads=1, **options)


def t5(**options):
    return T5Config(
        d_model=16, d_kv=8, num_heads=2, num_layers=1, d_ff=32, vocab_size=50, decoder_start_token_id=0, **options
    )


def bart():
    sides = {f"{side}_{key}": 2 for side in ("encoder", "decoder") for key in ("layers", "attention_heads")}
    widths = {"d_model": 16, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "max_position_embeddings": 20}
    return BartConfig(**sides, **widths, **SPECIAL, scale_embedding=True, decoder_start_token_id=2)


# Model class, config, and how many modules hold the table (embeddings of both sides, tied head).
MODELS = {
    "bert": (BertForTokenClassification, bert(num_labels=9), 1),
    "bert-mlm": (BertForMaskedLM, bert(), 2),
    "gpt2": (GPT2LMHeadModel, GPT2Config(n_embd=16, n_layer=1, n_head=2, **SPECIAL), 2),
    "llama-tied": (LlamaForCausalLM, llama(tie_word_embeddings=True), 2),
    "llama-untied": (LlamaForCausalLM, llama(tie_word_embeddings=False), 1),
    "gemma": (Gemma3ForCausalLM, Gemma3TextConfig(**SIZES, **SPECIAL, num_key_value_heads=1, head_dim=8), 2),
    "t5": (T5ForConditionalGeneration, t5(), 4),
    "bart": (BartForConditionalGeneration, bart(), 4),
}


@pytest.fixture(params=MODELS)
def case(request):
    torch.manual_seed(0)
    make, config, slots = MODELS[request.param]
    return make(copy.deepcopy(config)), slots


def logits(model):
    targets = {"decoder_input_ids": IDS} if model.config.is_encoder_decoder else {}
    with torch.no_grad():
        return model.eval()(input_ids=IDS, **targets).logits


def factorized_modules(model):
    kinds = (FactorizedEmbedding, FactorizedHead)
    return [module for _, module in model.named_modules(remove_duplicate=False) if isinstance(module, kinds)]


def test_full_rank_keeps_the_function_and_merge_restores_the_model(case):
    model, slots = case
    before, names, tied = logits(model), set(model.state_dict()), dict(model.all_tied_weights_keys)
    assert factorize_embeddings(model, rank=16) is model
    assert len(factorized_modules(model)) == slots
    torch.testing.assert_close(logits(model), before, atol=1e-5, rtol=1e-4)
    merge_embeddings(model)
    torch.testing.assert_close(logits(model), before, atol=1e-5, rtol=1e-4)
    assert set(model.state_dict()) == names and model.all_tied_weights_keys == tied
    assert "_tied_weights_keys" not in model.__dict__ and not hasattr(model.config, "quantization_config")


def test_low_rank_is_saved_and_loaded_by_transformers_alone(case, tmp_path):
    model, slots = case
    before = logits(model)
    factorize_embeddings(model, rank=4)
    expected = logits(model)
    assert not torch.allclose(expected, before, atol=1e-4)
    model.save_pretrained(tmp_path)
    loaded, report = type(model).from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values())
    assert torch.equal(logits(loaded), expected)
    assert loaded.num_parameters() == model.num_parameters() and len(factorized_modules(loaded)) == slots
    assert len({id(m.codes) for m in factorized_modules(loaded)}) == 1
    loaded.tie_weights()
    assert torch.equal(logits(loaded), expected)
    assert not getattr(loaded, "is_quantized", False) and not hasattr(loaded, "hf_quantizer")
    merge_embeddings(loaded).save_pretrained(tmp_path / "stock")
    stock = type(model).from_pretrained(tmp_path / "stock")
    assert not factorized_modules(stock)
    torch.testing.assert_close(logits(stock), expected, atol=1e-5, rtol=1e-4)


def test_the_product_is_the_best_of_its_rank():
    model = BertForMaskedLM(bert())
    table = model.get_input_embeddings().weight.detach().numpy().astype(float)
    energy = embedding_energy(model)
    words = factorize_embeddings(model, rank=5).get_input_embeddings()
    u, s, vt = np.linalg.svd(table, full_matrices=False)
    np.testing.assert_allclose(words.weight.detach().numpy(), (u[:, :5] * s[:5]) @ vt[:5], atol=1e-6)
    np.testing.assert_allclose(energy, (s**2).cumsum() / (s**2).sum(), atol=1e-6)
    np.testing.assert_allclose(words.reconstruction_error, np.sqrt(1 - energy[4].item()), atol=1e-6)
    np.testing.assert_allclose(words.reconstruction_error, np.sqrt((s[5:] ** 2).sum() / (s**2).sum()), atol=1e-6)


def test_embedding_and_head_against_their_table():
    torch.manual_seed(0)
    words = FactorizedEmbedding(30, 8, rank=3, padding_idx=0, scale=2.0)
    bias = torch.nn.Parameter(torch.randn(30))
    head, hidden = FactorizedHead(words, bias), torch.randn(2, 7, 8)
    torch.testing.assert_close(words(IDS), F.embedding(IDS, words.weight) * 2)
    torch.testing.assert_close(head(hidden), F.linear(hidden, words.weight, bias))
    assert head.weight.shape == words.weight.shape == (30, 8)
    words(torch.tensor([0, 5])).sum().backward()
    assert not words.codes.grad[0].any() and words.codes.grad[5].any() and not words.codes.grad[6].any()


def test_new_embeddings_have_the_usual_spread():
    torch.manual_seed(0)
    assert FactorizedEmbedding(2000, 64, rank=16).weight.std().item() == pytest.approx(0.02, rel=0.1)


def test_parameter_counts_on_the_meta_device():
    with torch.device("meta"):
        model = BertForTokenClassification(BertConfig(vocab_size=28_996, num_labels=9))
    assert model.num_parameters() == 107_726_601
    factorize_embeddings(model, rank=64)
    assert model.num_parameters() == 87_362_569
    assert model.get_input_embeddings().weight.shape == (28_996, 768)


@pytest.mark.parametrize("trainable", [True, False])
def test_dtype_padding_and_gradient_flag_are_kept(trainable):
    model = BertForTokenClassification(bert()).to(torch.bfloat16)
    model.get_input_embeddings().weight.requires_grad_(trainable)
    words = factorize_embeddings(model, rank=4).get_input_embeddings()
    assert {p.dtype for p in words.parameters()} == {torch.bfloat16}
    assert {p.requires_grad for p in words.parameters()} == {trainable}
    assert words.padding_idx == 0 and not words.codes[0].any()
    assert embedding_modules(model) == [model.bert.embeddings]
    plain = merge_embeddings(model).get_input_embeddings()
    assert plain.weight.requires_grad is trainable and plain.weight.dtype == torch.bfloat16 and plain.padding_idx == 0


def test_a_head_that_the_checkpoint_holds_on_its_own_stays_its_own(tmp_path):
    model = BertForMaskedLM(bert())
    head = model.cls.predictions.decoder
    head.weight = torch.nn.Parameter(torch.randn_like(head.weight))
    del model.all_tied_weights_keys["cls.predictions.decoder.weight"]
    expected = logits(factorize_embeddings(model, rank=4))
    model.save_pretrained(tmp_path)
    loaded = BertForMaskedLM.from_pretrained(tmp_path)
    assert torch.equal(logits(loaded), expected)
    assert torch.equal(logits(merge_embeddings(loaded)), logits(merge_embeddings(model)))


def test_another_class_and_dtype_load_the_checkpoint(tmp_path):
    model = factorize_embeddings(BertForMaskedLM(bert()), rank=4)
    model.save_pretrained(tmp_path)
    base = AutoModel.from_pretrained(tmp_path)
    assert torch.equal(base.get_input_embeddings().codes, model.get_input_embeddings().codes)
    classifier = AutoModelForTokenClassification.from_pretrained(tmp_path, dtype=torch.bfloat16, num_labels=3)
    assert classifier.get_input_embeddings().codes.dtype == torch.bfloat16
    assert logits(classifier).shape == (2, 7, 3)


def test_without_tithe_the_loss_of_the_embeddings_is_reported(tmp_path):
    factorize_embeddings(BertForTokenClassification(bert()), rank=4).save_pretrained(tmp_path)
    code = f"from transformers import AutoModelForTokenClassification as A; A.from_pretrained({str(tmp_path)!r})"
    loud = {name: value for name, value in os.environ.items() if name != "TRANSFORMERS_VERBOSITY"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, env=loud)
    said = done.stdout + done.stderr
    assert "got tithe.models.factorized" in said and "word_embeddings.weight" in said and "MISSING" in said


class Rows(torch.utils.data.Dataset):
    def __len__(self):
        return 8

    def __getitem__(self, i):
        return {"input_ids": IDS[i % 2], "labels": (IDS[i % 2] + i) % 3}


def trainer(model, folder):
    arguments = TrainingArguments(
        str(folder), max_steps=4, save_steps=2, per_device_train_batch_size=4, use_cpu=True, learning_rate=0.01,
        report_to=[], disable_tqdm=True,
    )  # fmt: skip
    return Trainer(model, arguments, train_dataset=Rows())


def test_trainer_trains_and_resumes_exactly(tmp_path):
    torch.manual_seed(0)
    model = factorize_embeddings(BertForTokenClassification(bert(num_labels=3, classifier_dropout=0.0)), rank=4)
    start = copy.deepcopy(model)
    trainer(model, tmp_path / "a").train()
    assert not torch.equal(model.bert.embeddings.word_embeddings.projection, start.get_input_embeddings().projection)
    trainer(start, tmp_path / "b").train(resume_from_checkpoint=str(tmp_path / "a" / "checkpoint-2"))
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, start.state_dict()[name]), name
    loaded = BertForTokenClassification.from_pretrained(tmp_path / "a" / "checkpoint-4")
    assert torch.equal(logits(loaded), logits(model))
    trainer(loaded, tmp_path / "c").train()


@pytest.mark.parametrize("inside", [False, True])
def test_lora_over_and_around_factorised_embeddings(tmp_path, inside):
    base, adapters = BertForTokenClassification(bert(num_labels=3)), LoraConfig(target_modules=["query"], r=2)
    if not inside:
        factorize_embeddings(base, rank=4)
    model = get_peft_model(base, adapters)
    if inside:
        factorize_embeddings(model, rank=4)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    expected = logits(model)
    model.save_pretrained(tmp_path / "adapter")
    model.unload().save_pretrained(tmp_path / "base")
    plain = BertForTokenClassification.from_pretrained(tmp_path / "base")
    assert not torch.allclose(logits(plain), expected)
    assert torch.equal(logits(PeftModel.from_pretrained(plain, str(tmp_path / "adapter"))), expected)


def test_what_cannot_be_factorised_is_refused():
    model = BertForTokenClassification(bert())
    for rank in (0, 17):
        with pytest.raises(ValueError, match=f"`rank` must be from 1 to 16 .* got {rank}"):
            factorize_embeddings(model, rank=rank)
    with pytest.raises(ValueError, match="no factorised embeddings"):
        merge_embeddings(model)
    factorize_embeddings(model, rank=4)
    with pytest.raises(ValueError, match="neither quantized nor factorised"):
        factorize_embeddings(model, rank=4)
    with pytest.raises(TypeError, match="FactorizedEmbedding"):
        model.resize_token_embeddings(60)
    adapted = get_peft_model(BertForTokenClassification(bert()), LoraConfig(target_modules=["word_embeddings"]))
    with pytest.raises(TypeError, match="take adapters off"):
        factorize_embeddings(adapted, rank=4)
    limited = BertForTokenClassification(bert())
    limited.get_input_embeddings().max_norm = 1.0
    with pytest.raises(ValueError, match="max_norm"):
        factorize_embeddings(limited, rank=4)


def test_token_counts_weigh_the_error():
    """Against the closed form: of all rank-r projections the one with the least weighted squared error."""
    torch.manual_seed(0)
    config = BertConfig(vocab_size=40, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
    model = transformers.BertModel(config)
    table = model.get_input_embeddings().weight.detach().double().clone()
    counts = torch.randint(0, 50, (40,))
    factorize_embeddings(model, rank=3, token_counts=counts)
    found = model.get_input_embeddings().weight.detach().double()
    root = (counts + 1).double().sqrt()[:, None]
    best = torch.linalg.svd(root * table, full_matrices=False)
    least = best.S[3:].square().sum()
    assert (root * (table - found)).square().sum().item() == pytest.approx(least.item(), rel=1e-5)
    error = model.get_input_embeddings().reconstruction_error
    assert error == pytest.approx((least / best.S.square().sum()).sqrt().item(), rel=1e-5)


@pytest.mark.parametrize("counts", [torch.ones(39), torch.full((40,), -1.0)])
def test_token_counts_that_do_not_fit(counts):
    config = BertConfig(vocab_size=40, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
    with pytest.raises(ValueError, match=r"`token_counts` must be \[40\]"):
        factorize_embeddings(transformers.BertModel(config), rank=3, token_counts=counts)
