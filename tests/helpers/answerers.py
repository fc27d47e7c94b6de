"""Small causal models, a tokenizer and prompts, for the tests of answering; their answers differ in length."""

import torch
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    set_seed,
)

from tithe.recipes.small_model import train_tokenizer


WORDS = "one two three four five six seven eight nine ten".split()
INSTRUCTIONS = "one ten one nine one eight one seven one six one five. "
PROMPTS = [" ".join(WORDS[: 1 + i % 7]) for i in range(11)] + ["nine ten", "ten nine eight"]
SIZES = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
SIZES |= {"num_key_value_heads": 2, "max_position_embeddings": 128, "initializer_range": 0.4}
BOS, EOS = 2, 3
NAMES = ("llama", "qwen3", "window")


def make_tokenizer():
    tokenizer = train_tokenizer([" ".join(WORDS)])
    tokenizer.bos_token, tokenizer.eos_token = "[CLS]", "[SEP]"
    return tokenizer


def make_model(name, tokenizer, seed=4):
    """A model that writes words of the tokenizer, and now and then the end."""
    sizes = {**SIZES, "vocab_size": len(tokenizer), "bos_token_id": BOS, "eos_token_id": EOS, "pad_token_id": 0}
    set_seed(seed)
    model = {
        "llama": lambda: LlamaForCausalLM(LlamaConfig(**sizes)),
        "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**sizes, head_dim=8)),
        "window": lambda: MistralForCausalLM(MistralConfig(**sizes, sliding_window=6)),
    }[name]()
    words = torch.tensor([*tokenizer(" ".join(WORDS), add_special_tokens=False)["input_ids"], EOS])
    others = torch.ones(len(tokenizer), dtype=torch.bool)
    others[words] = False
    weight = model.lm_head.weight.data
    weight[others] *= 0.05  # else most of what it writes are single bytes
    weight[EOS] *= 0.9
    return model.eval()


def alone(model, tokenizer, prompt, stop=(), max_new_tokens=8):
    """By `generate`, of one prompt: the text cut at the stop strings, the number of tokens to there, what ended it."""
    ids = torch.tensor([[BOS, *tokenizer(prompt, add_special_tokens=False)["input_ids"]]])
    options = {"do_sample": False, "max_new_tokens": max_new_tokens}
    new = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), **options)[0, ids.shape[1] :].tolist()
    for count in range(1, len(new) + 1):
        text = tokenizer.decode(new[:count], skip_special_tokens=True)
        if new[count - 1] == EOS:
            return text.strip(), count, "eos"
        if any(string in text for string in stop):
            return text[: min(text.find(string) for string in stop if string in text)].strip(), count, "stop"
    return text.strip(), len(new), "length"
