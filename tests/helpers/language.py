"""Tiny language models and tokenizers, made on the spot."""

import numpy as np
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    BertConfig,
    BertForMaskedLM,
    BertGenerationConfig,
    EncoderDecoderConfig,
    EncoderDecoderModel,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForMaskedLM,
    T5Config,
    T5ForConditionalGeneration,
    set_seed,
)


SPECIAL = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "mask_token": "<mask>", "unk_token": "<unk>"}
WORDS = [f"w{i}" for i in range(40)]
VOCABULARY = len(SPECIAL) + len(WORDS)
PAD, BOS, EOS, MASK = range(4)

LAYERS = {"num_hidden_layers": 2, "num_attention_heads": 2, "hidden_size": 16, "intermediate_size": 32}
IDS = {"vocab_size": VOCABULARY, "pad_token_id": PAD, "bos_token_id": BOS, "eos_token_id": EOS}


def make_tokenizer(kind: str, bos: bool = True, padding_side: str = "right") -> PreTrainedTokenizerFast:
    """One token a word. For masked models `<s> … </s>`, for seq2seq `… </s>`, for causal ones nothing around."""
    core = Tokenizer(models.WordLevel({t: i for i, t in enumerate([*SPECIAL.values(), *WORDS])}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    around = {"masked": "<s> $A </s>", "seq2seq": "$A </s>", "bart": "<s> $A </s>"}.get(kind)
    if around:
        tokens = [("<s>", BOS), ("</s>", EOS)]
        core.post_processor = processors.TemplateProcessing(single=around, special_tokens=tokens)
    special = {name: token for name, token in SPECIAL.items() if bos or name != "bos_token"}
    return PreTrainedTokenizerFast(tokenizer_object=core, padding_side=padding_side, **special)


def make_language_model(name: str, seed: int = 0):
    set_seed(seed)
    bart = {
        f"{part}_{what}": n for part in ("encoder", "decoder") for what, n in [("layers", 1), ("attention_heads", 2)]
    }
    bart |= {"d_model": 16, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "max_position_embeddings": 64}
    t5 = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2, "decoder_start_token_id": PAD}
    spread = {"initializer_range": 0.5}
    model = {
        "gpt2": lambda: GPT2LMHeadModel(GPT2Config(n_embd=16, n_layer=2, n_head=2, n_positions=64, **IDS, **spread)),
        "llama": lambda: LlamaForCausalLM(LlamaConfig(**LAYERS, **IDS, **spread, max_position_embeddings=64)),
        "opt": lambda: OPTForCausalLM(
            OPTConfig(
                **{**LAYERS, "ffn_dim": 32}, **IDS, init_std=0.5, word_embed_proj_dim=16, max_position_embeddings=64
            )
        ),
        "bert": lambda: BertForMaskedLM(BertConfig(**LAYERS, **IDS, **spread, max_position_embeddings=64)),
        "roberta": lambda: RobertaForMaskedLM(RobertaConfig(**LAYERS, **IDS, **spread, max_position_embeddings=66)),
        "t5": lambda: T5ForConditionalGeneration(T5Config(**t5, **IDS, initializer_factor=1.5)),
        "bart": lambda: BartForConditionalGeneration(
            BartConfig(**bart, **IDS, init_std=0.5, decoder_start_token_id=EOS, forced_eos_token_id=None)
        ),
        "encoder_decoder": lambda: EncoderDecoderModel(
            EncoderDecoderConfig.from_encoder_decoder_configs(
                BertGenerationConfig(**LAYERS, **IDS, **spread),
                BertGenerationConfig(**LAYERS, **IDS, **spread),
                decoder_start_token_id=BOS,
                pad_token_id=PAD,
            )
        ),
    }[name]()
    for parameter in model.parameters():  # norms and biases that do something
        parameter.data += 0.1 * np.random.randn() if parameter.dim() == 1 else 0
    return model.eval()


def make_texts(rows: int = 23, seed: int = 0, shortest: int = 1, longest: int = 12) -> list[str]:
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, rng.integers(shortest, longest + 1))) for _ in range(rows)]
