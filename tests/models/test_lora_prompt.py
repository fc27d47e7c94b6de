"""LoRA and a soft prompt in one model: what goes in, what comes out, what is saved, and what is handed on."""

import copy
import math

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from tokenizers import processors
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    BartConfig,
    BartForConditionalGeneration,
    BertConfig,
    BertForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
    MBartConfig,
    MBartForConditionalGeneration,
    Qwen3Config,
    Qwen3ForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
    set_seed,
)

from tithe.models import (
    add_lora_and_prompt,
    attach_soft_prompt,
    detach_soft_prompt,
    export_peft,
    export_plain,
    guard_4bit,
    load_lora_and_prompt,
    merge,
    prompt_weights,
    virtual_tokens_of,
)
from tithe.recipes.small_model import train_tokenizer


VOCABULARY, WIDTH, PROMPT, RANK = 120, 32, 5, 4
DECODERS = {
    "hidden_size": WIDTH,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
}
BARTS = {
    "d_model": WIDTH,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "max_position_embeddings": 64,
    "scale_embedding": True,
    "dropout": 0.0,
    "attention_dropout": 0.0,
}
T5S = {"d_model": WIDTH, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4, "decoder_start_token_id": 0}
SEQ2SEQ, CAUSAL = ("t5", "t5 untied", "bart", "mbart"), ("llama", "qwen3")


def make(kind, vocabulary=VOCABULARY):
    set_seed(0)
    sizes = {"vocab_size": vocabulary}
    if kind.startswith("t5"):
        config = T5Config(**T5S, **sizes, dropout_rate=0.0, tie_word_embeddings=kind == "t5")
        return T5ForConditionalGeneration(config)
    if kind == "bart":
        return BartForConditionalGeneration(BartConfig(**BARTS, **sizes))
    if kind == "mbart":
        return MBartForConditionalGeneration(MBartConfig(**BARTS, **sizes))
    if kind == "llama":
        return LlamaForCausalLM(LlamaConfig(**DECODERS, **sizes))
    return Qwen3ForCausalLM(Qwen3Config(**DECODERS, **sizes))


def adapted(kind, **options):
    """With LoRA and prompt that say something: untrained, LoRA is zero."""
    model = add_lora_and_prompt(make(kind), rank=RANK, virtual_tokens=PROMPT, **options)
    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data = 0.1 * torch.randn(parameter.shape, generator=generator)
    return model.eval()


def batch(kind, padded=True):
    generator = torch.Generator().manual_seed(2)
    ids = torch.randint(3, VOCABULARY, (3, 7), generator=generator)
    mask = torch.ones_like(ids)
    if padded and kind in CAUSAL:
        mask[0, :2] = 0
    elif padded:
        mask[0, 5:] = 0
    targets = torch.randint(3, VOCABULARY, (3, 7 if kind in CAUSAL else 4), generator=generator)
    return {"input_ids": ids, "attention_mask": mask, "labels": targets}


def by_hand(model, inputs):
    """Logits of the same model without hooks, fed with the prompt and the embeddings."""
    plain = merge(copy.deepcopy(model))
    weights = detach_soft_prompt(plain)
    rows = len(inputs["input_ids"])
    embedded = plain.get_input_embeddings()(inputs["input_ids"])
    embedded = torch.cat([weights.expand(rows, -1, -1), embedded], dim=1)
    mask = torch.cat([torch.ones(rows, PROMPT, dtype=torch.long), inputs["attention_mask"]], dim=1)
    if plain.config.is_encoder_decoder:
        return plain(inputs_embeds=embedded, attention_mask=mask, labels=inputs["labels"]).logits
    return plain(inputs_embeds=embedded, attention_mask=mask).logits[:, PROMPT:]


def generated(model, inputs, **options):
    given = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    return model.generate(**given, max_new_tokens=8, do_sample=False, **options)


@pytest.mark.parametrize("kind", [*SEQ2SEQ, *CAUSAL])
class TestEveryModel:
    def test_is_the_prompt_before_the_embeddings(self, kind):
        model, inputs = adapted(kind), batch(kind)
        with torch.no_grad():
            out = model(**inputs)
            expected = by_hand(model, inputs)
        assert out.logits.shape == (3, inputs["labels"].shape[1], VOCABULARY)
        assert torch.allclose(out.logits, expected, atol=2e-5)
        flat = torch.nn.functional.cross_entropy
        logits, labels = out.logits, inputs["labels"]
        if kind in CAUSAL:
            logits, labels = logits[:, :-1], labels[:, 1:]
        assert out.loss.item() == pytest.approx(flat(logits.flatten(0, 1), labels.flatten()).item(), rel=1e-5)

    def test_takes_masks_of_either_length_and_none(self, kind):
        model, inputs = adapted(kind), batch(kind, padded=False)
        longer = inputs | {"attention_mask": torch.ones(3, 7 + PROMPT, dtype=torch.long)}
        without = {name: value for name, value in inputs.items() if name != "attention_mask"}
        with torch.no_grad():
            expected = model(**inputs).logits
            assert torch.equal(model(**longer).logits, expected)
            assert torch.allclose(model(**without).logits, expected, atol=1e-6)

    @pytest.mark.parametrize("beams", [1, 3])
    def test_generates_the_same_with_and_without_cache(self, kind, beams):
        model, inputs = adapted(kind), batch(kind)
        found = generated(model, inputs, num_beams=beams, use_cache=True)
        assert torch.equal(found, generated(model, inputs, num_beams=beams, use_cache=False))
        alone = {name: value[1:2] for name, value in inputs.items()}  # no padding
        width = generated(model, alone, num_beams=beams).shape[1]
        assert torch.equal(found[1:2, :width], generated(model, alone, num_beams=beams))

    def test_trains_the_added_parameters_alone(self, kind):
        model = adapted(kind).train()
        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
        model(**batch(kind)).loss.backward()
        optimizer.step()
        changed = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
        assert changed == {name for name in before if "lora_" in name or "modules_to_save" in name}

    def test_checkpointing_gives_the_same_gradients(self, kind):
        found = []
        for reentrant in (None, True, False):
            model = adapted(kind).train()
            if reentrant is not None:
                model.enable_input_require_grads()
                model.gradient_checkpointing_enable({"use_reentrant": reentrant})
            model(**batch(kind), use_cache=False).loss.backward()
            found.append({name: p.grad for name, p in model.named_parameters() if p.requires_grad})
        for other in found[1:]:
            for name, gradient in found[0].items():
                assert torch.allclose(gradient, other[name], atol=1e-6), name

    def test_is_loaded_as_it_was_saved(self, kind, tmp_path):
        model, inputs = adapted(kind), batch(kind)
        model.save_pretrained(tmp_path)
        loaded = load_lora_and_prompt(make(kind), tmp_path).eval()
        again = copy.deepcopy(loaded)
        loaded.save_pretrained(tmp_path / "again")
        with torch.no_grad():
            expected = model(**inputs).logits
            assert torch.equal(loaded(**inputs).logits, expected)
            assert torch.equal(again(**inputs).logits, expected)
            assert torch.equal(load_lora_and_prompt(make(kind), tmp_path / "again").eval()(**inputs).logits, expected)
        assert not any(p.requires_grad for p in loaded.parameters())
        assert any(p.requires_grad for p in load_lora_and_prompt(make(kind), tmp_path, trainable=True).parameters())

    def test_a_copy_is_its_own(self, kind):
        model, inputs = adapted(kind), batch(kind)
        other = copy.deepcopy(model)
        with torch.no_grad():
            expected = model(**inputs).logits
            prompt_weights(other).zero_()
            assert torch.equal(model(**inputs).logits, expected)
            assert not torch.allclose(other(**inputs).logits, expected)

    def test_is_the_base_where_adapters_are_disabled(self, kind):
        model, inputs = adapted(kind), batch(kind)
        with torch.no_grad(), model.disable_adapter():
            assert torch.allclose(model(**inputs).logits, make(kind).eval()(**inputs).logits, atol=1e-6)

    def test_merges_into_the_base(self, kind):
        model, inputs = adapted(kind), batch(kind)
        with torch.no_grad():
            expected = model(**inputs).logits
            merged = merge(model)
            assert type(merged) is type(make(kind)) and virtual_tokens_of(merged) == PROMPT
            assert torch.allclose(merged(**inputs).logits, expected, atol=2e-5)

    def test_outlives_new_tokens(self, kind):
        model, inputs = adapted(kind), batch(kind)
        with torch.no_grad():
            expected = model(**inputs).logits
            model.get_base_model().resize_token_embeddings(VOCABULARY + 3)
            assert torch.allclose(model(**inputs).logits[..., :VOCABULARY], expected, atol=2e-5)

    def test_goes_to_plain_peft(self, kind, tmp_path):
        model, inputs = adapted(kind), batch(kind, padded=kind in SEQ2SEQ)  # PEFT miscounts positions beside padding
        folders = export_peft(model, tmp_path)
        assert [folder.name for folder in folders] == ["lora", "prompt"]
        peft = PeftModel.from_pretrained(make(kind), str(folders[0])).merge_and_unload()
        peft = PeftModel.from_pretrained(peft, str(folders[1])).eval()
        with torch.no_grad():
            logits, expected = peft(**inputs).logits, model(**inputs).logits
        assert torch.allclose(logits[:, -expected.shape[1] :], expected, atol=2e-5)
        ours, theirs = (generated(one, inputs, num_beams=3) for one in (model, peft))
        assert torch.equal(ours, theirs)

    def test_goes_to_plain_transformers(self, kind, tmp_path):
        model, inputs = adapted(kind), batch(kind)
        ids = export_plain(model, tmp_path)
        assert ids == list(range(VOCABULARY, VOCABULARY + PROMPT))
        auto = AutoModelForCausalLM if kind in CAUSAL else AutoModelForSeq2SeqLM
        plain = auto.from_pretrained(tmp_path).eval()
        assert not hasattr(plain, "peft_config") and virtual_tokens_of(plain) == 0
        prefixed = inputs | {
            "input_ids": torch.cat([torch.tensor(ids).expand(3, -1), inputs["input_ids"]], dim=1),
            "attention_mask": torch.cat([torch.ones(3, PROMPT, dtype=torch.long), inputs["attention_mask"]], dim=1),
        }
        if kind in CAUSAL:
            del prefixed["labels"]
        with torch.no_grad():
            expected = model(**inputs).logits
            found = plain(**prefixed).logits[:, -expected.shape[1] :, :VOCABULARY]
        assert torch.allclose(found, expected, atol=2e-5)
        ours, theirs = generated(model, inputs, num_beams=3), generated(plain, prefixed, num_beams=3)
        assert torch.equal(ours[:, -8:], theirs[:, -8:])
        asked = {"num_beams": 3, "return_dict_in_generate": True, "output_scores": True}
        ours, theirs = generated(model, inputs, **asked), generated(plain, prefixed, **asked)
        assert torch.allclose(ours.sequences_scores, theirs.sequences_scores, atol=1e-4), "the prompt's rows count"
        assert virtual_tokens_of(model) == PROMPT, "the model in memory stays as it is"


class TestStart:
    def test_from_the_vocabulary(self):
        base = make("bart")
        weights = prompt_weights(add_lora_and_prompt(base, virtual_tokens=PROMPT))
        table = base.get_input_embeddings()(torch.arange(VOCABULARY))  # scaled, as BART does
        rows = [int((table == row).all(-1).nonzero()) for row in weights]
        assert not set(rows) & {0, 1, 2}, "special tokens"
        other = prompt_weights(add_lora_and_prompt(make("bart"), virtual_tokens=PROMPT, seed=1))
        assert not torch.equal(weights, other)

    def test_from_a_text(self):
        tokenizer = train_tokenizer(["answer the question in one word"])
        base = make("t5", vocabulary=len(tokenizer))
        options = {"prompt_init": "text", "prompt_text": "answer the question", "tokenizer": tokenizer}
        weights = prompt_weights(add_lora_and_prompt(base, virtual_tokens=PROMPT, **options))
        ids = tokenizer("answer the question", add_special_tokens=False)["input_ids"]
        expected = (ids * math.ceil(PROMPT / len(ids)))[:PROMPT]
        assert torch.equal(weights, base.get_input_embeddings().weight[expected])

    def test_at_random(self):
        weights = prompt_weights(add_lora_and_prompt(make("t5"), virtual_tokens=50, prompt_init="random"))
        assert weights.abs().max() <= 0.5 and weights.std() == pytest.approx(12**-0.5, rel=0.05)

    def test_without_a_prompt_is_plain_lora(self):
        ours = add_lora_and_prompt(make("t5"), rank=RANK, virtual_tokens=0)
        plain = get_peft_model(make("t5"), LoraConfig(task_type="SEQ_2_SEQ_LM", r=RANK, target_modules=["q", "v"]))
        assert [name for name, _ in ours.named_parameters()] == [name for name, _ in plain.named_parameters()]
        assert prompt_weights(ours) is None

    def test_without_lora_trains_the_prompt_alone(self, tmp_path):
        model = add_lora_and_prompt(make("t5"), rank=0, virtual_tokens=PROMPT)
        assert model.get_nb_trainable_parameters()[0] == PROMPT * WIDTH
        assert [folder.name for folder in export_peft(model, tmp_path)] == ["prompt"]

    def test_counts_of_a_large_model(self):
        """ruT5-large, on the meta device: LoRA of rank 8 on query and value, and 20 virtual tokens."""
        sizes = {"d_model": 1024, "d_kv": 64, "d_ff": 4096, "num_layers": 24, "num_heads": 16}
        with torch.device("meta"):
            base = T5ForConditionalGeneration(T5Config(vocab_size=32128, **sizes))
            model = add_lora_and_prompt(base, rank=8, virtual_tokens=20)
        assert model.get_nb_trainable_parameters() == (2_379_776, 740_047_872)


class TestBadInput:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"rank": 0, "virtual_tokens": 0}, "nor both 0"),
            ({"rank": -1}, "must not be negative"),
            ({"prompt_init": "words"}, "vocabulary, text, random"),
            ({"prompt_init": "text"}, "needs `prompt_text` and `tokenizer`"),
        ],
    )
    def test_arguments(self, options, message):
        base = make("t5")
        with pytest.raises(ValueError, match=message):
            add_lora_and_prompt(base, **options)
        assert virtual_tokens_of(base) == 0, "what is refused changes nothing"

    def test_a_prompt_longer_than_the_positions(self):
        with pytest.raises(ValueError, match="needs? 65 positions; BartForConditionalGeneration has 64"):
            add_lora_and_prompt(make("bart"), virtual_tokens=64)

    def test_a_classifier(self):
        sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
        model = BertForSequenceClassification(BertConfig(vocab_size=50, **sizes))
        with pytest.raises(TypeError, match="encoder-decoder or a causal language model"):
            add_lora_and_prompt(model)

    def test_twice(self):
        with pytest.raises(TypeError, match="has adapters already"):
            add_lora_and_prompt(adapted("t5"))
        base = make("t5")
        attach_soft_prompt(base, 3)
        with pytest.raises(ValueError, match="has a soft prompt already"):
            attach_soft_prompt(base, 3)

    def test_an_adapter_of_another_base(self, tmp_path):
        adapted("t5").save_pretrained(tmp_path)
        wider = T5ForConditionalGeneration(T5Config(vocab_size=VOCABULARY, **T5S | {"d_model": 64}))
        with pytest.raises(ValueError, match="its prompt is 32 wide, the embeddings of this one 64"):
            load_lora_and_prompt(wider, tmp_path)
        deeper = T5ForConditionalGeneration(T5Config(vocab_size=VOCABULARY, **T5S | {"num_layers": 3}))
        with pytest.raises(ValueError, match="of another base"):
            load_lora_and_prompt(deeper, tmp_path)
        with pytest.raises(FileNotFoundError, match=r"adapter_config\.json is missing"):
            load_lora_and_prompt(make("t5"), tmp_path / "nowhere")

    def test_exports_without_adapters(self, tmp_path):
        for export in (export_peft, export_plain):
            with pytest.raises(TypeError, match="a model with adapters"):
                export(make("t5"), tmp_path)


def template(tokenizer):
    cls, sep = (("[CLS]", tokenizer.cls_token_id), ("[SEP]", tokenizer.sep_token_id))
    return {
        "none": None,
        "template": tokenizer.backend_tokenizer.post_processor,
        "bert": processors.BertProcessing(sep, cls),
        "roberta": processors.RobertaProcessing(sep, cls),
        "bytes": processors.ByteLevel(),
        "sequence": processors.Sequence([processors.ByteLevel(), processors.BertProcessing(sep, cls)]),
    }


@pytest.mark.parametrize("kind", ["none", "template", "bert", "roberta", "bytes", "sequence"])
def test_the_exported_tokenizer_puts_the_prompt_there_itself(kind, tmp_path):
    tokenizer = train_tokenizer(["one two three four five six seven"])
    tokenizer.backend_tokenizer.post_processor = template(tokenizer)[kind]
    base = make("t5", vocabulary=len(tokenizer))
    model = add_lora_and_prompt(base, virtual_tokens=PROMPT).eval()
    before, pair = tokenizer("two four one")["input_ids"], tokenizer("two four", "one")["input_ids"]
    ids = export_plain(model, tmp_path, tokenizer)
    plain, taught = AutoModelForSeq2SeqLM.from_pretrained(tmp_path).eval(), AutoTokenizer.from_pretrained(tmp_path)
    assert taught("two four one")["input_ids"] == [*ids, *before]
    assert taught("two four", "one")["input_ids"] == [*ids, *pair]
    assert tokenizer("two four one")["input_ids"] == before, "the tokenizer in memory stays as it is"
    assert taught.decode([*ids, *before], skip_special_tokens=True) == tokenizer.decode(
        before, skip_special_tokens=True
    )
    inputs = tokenizer(["two four one", "three"], padding=True, return_tensors="pt")
    theirs = taught(["two four one", "three"], padding=True, return_tensors="pt")
    options = {"max_new_tokens": 8, "num_beams": 3, "do_sample": False}
    given = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    other = {name: theirs[name] for name in ("input_ids", "attention_mask")}
    assert torch.equal(model.generate(**given, **options), plain.generate(**other, **options))


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("kind", ["t5", "llama"])
def test_a_quantised_base_keeps_its_gradients(kind, bits, tmp_path):
    pytest.importorskip("bitsandbytes")
    from transformers import BitsAndBytesConfig

    make(kind).save_pretrained(tmp_path)
    four = {"bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": torch.float32}
    config = BitsAndBytesConfig(load_in_8bit=True) if bits == 8 else BitsAndBytesConfig(load_in_4bit=True, **four)
    auto = AutoModelForCausalLM if kind in CAUSAL else AutoModelForSeq2SeqLM
    base = auto.from_pretrained(tmp_path, quantization_config=config, device_map="cpu")
    model = add_lora_and_prompt(base, rank=RANK, virtual_tokens=PROMPT)
    assert (guard_4bit(model) > 0) == (bits == 4)
    generated(model.eval(), batch(kind))  # the pass in eval mode after which the trap is shut
    model.train()
    model(**batch(kind)).loss.backward()
    gradients = [p.grad for name, p in model.named_parameters() if "lora_B" in name or "modules_to_save" in name]
    assert all(gradient.abs().max() > 0 for gradient in gradients)
    with pytest.raises(ValueError, match="quantised base"):
        export_plain(model, tmp_path / "plain")
