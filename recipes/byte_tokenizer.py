"""A tokenizer for models that write: what it decodes is the text, blanks included."""

from collections.abc import Sequence

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast


END, PAD = "<|endoftext|>", "<|padding|>"


def train_byte_tokenizer(
    texts: Sequence[str], vocabulary: int = 8000, longest: int = 512, *, ends: bool = False
) -> PreTrainedTokenizerFast:
    """Byte-level BPE that loses nothing, trained on `texts`.

    Args:
        vocabulary: tokens at most.
        longest: the model's longest input, in tokens.
        ends: whether a text's tokens end with the end-of-sequence token, as those of encoder-decoders do.
    """
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[END, PAD],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    core.train_from_iterator(texts, trainer)
    if ends:
        end = (END, core.token_to_id(END))
        core.post_processor = processors.TemplateProcessing(single=f"$A {END}", special_tokens=[end])
    return PreTrainedTokenizerFast(
        tokenizer_object=core, model_max_length=longest, eos_token=END, bos_token=END, pad_token=PAD
    )
