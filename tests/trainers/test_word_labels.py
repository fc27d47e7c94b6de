"""Labels of words on sub-tokens: hand-worked rows, a brute-force reference, a real tokenizer in `datasets.map`."""

import numpy as np
import pytest
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertForTokenClassification,
    DataCollatorForTokenClassification,
    PreTrainedTokenizerFast,
    Trainer,
    TrainingArguments,
    set_seed,
)

from tithe.evaluation import EntityMetrics, entity_metrics, keep_predictions
from tithe.trainers import align_labels_with_tokens, tokenize_and_align


# the I-X of a B-X is neither its neighbour nor of a fixed parity
NAMES = ["I-LOC", "B-PER", "O", "B-LOC", "I-PER"]
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "Ann", "##e", "##tte", "lives", "in", "Par", "##is"]


@pytest.fixture
def tokenizer():
    backend = Tokenizer(models.WordPiece({token: n for n, token in enumerate(VOCABULARY)}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="[UNK]", pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]"
    )


EXAMPLES = {
    "words": [["Annette", "lives", "in", "Paris"], ["Paris", "Paris"], []],
    "labels": [[1, 2, 2, 3], [3, 0], []],
}


def test_names_decide_what_continues_an_entity():
    word_ids = [None, 0, 0, 1, 2, 2, 2, 3, 3, None]
    labels = [NAMES.index(tag) for tag in ["B-PER", "I-PER", "B-LOC", "O"]]
    assert [NAMES[k] if k >= 0 else None for k in align_labels_with_tokens(labels, word_ids, names=NAMES)] == [
        None, "B-PER", "I-PER", "I-PER", "B-LOC", "I-LOC", "I-LOC", "O", "O", None,
    ]  # fmt: skip
    first = align_labels_with_tokens(labels, word_ids, names=NAMES, scheme="first")
    assert first == [-100, 1, -100, 4, 3, -100, -100, 2, -100, -100]


@pytest.mark.parametrize("scheme", ["all", "first"])
def test_against_a_rule_per_token(scheme):
    rng = np.random.default_rng(0)
    for _ in range(100):
        labels = rng.choice([-100, 0, 1, 2, 3, 4], rng.integers(1, 9)).tolist()
        word_ids = [None, *np.repeat(np.arange(len(labels)), rng.integers(0, 4, len(labels))).tolist(), None]
        expected = []
        for at, word in enumerate(word_ids):
            name = None if word is None or labels[word] == -100 else NAMES[labels[word]]
            is_first = at == 0 or word_ids[at - 1] != word
            if name is not None and not is_first:
                name = None if scheme == "first" else "O" if name == "O" else "I-" + name[2:]
            expected.append(-100 if name is None else NAMES.index(name))
        assert align_labels_with_tokens(labels, word_ids, names=NAMES, scheme=scheme) == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"labels": [5]}, "`labels` has 5"),
        ({"labels": [-1]}, "`labels` has -1"),
        ({"word_ids": [0, 1]}, "`word_ids` names word 1, but `labels` has 1"),
        ({"word_ids": [-1]}, "negative word"),
        ({"scheme": "last"}, "`scheme` must be 'all' or 'first', got 'last'"),
        ({"names": ["O", "B-PER"]}, "has 'B-PER' but no 'I-PER'"),
        ({"names": ["O", "S-PER"]}, "IOB2, got 'S-PER'"),
        ({"names": ["O", "PERSON"]}, "'PERSON' is no label"),
    ],
)
def test_bad_input_is_refused(arguments, message):
    good = {"labels": [0], "word_ids": [None, 0], "names": ["O", "B-PER", "I-PER"], "scheme": "all"}
    with pytest.raises(ValueError, match=message):
        align_labels_with_tokens(**{**good, **arguments})


def test_a_tag_set_without_i_serves_the_scheme_first():
    assert align_labels_with_tokens([1], [0, 0], names=["O", "B-PER"], scheme="first") == [1, -100]


def test_tokenized_rows(tokenizer):
    dataset = Dataset.from_dict(EXAMPLES)
    tokens = dataset.map(
        tokenize_and_align, batched=True, remove_columns=["words", "labels"],
        fn_kwargs={"tokenizer": tokenizer, "names": NAMES},
    )  # fmt: skip
    assert tokenizer.convert_ids_to_tokens(tokens[0]["input_ids"]) == [
        "[CLS]", "Ann", "##e", "##tte", "lives", "in", "Par", "##is", "[SEP]",
    ]  # fmt: skip
    assert tokens[0]["labels"] == [-100, 1, 4, 4, 2, 2, 3, 0, -100]
    assert tokens[1]["labels"] == [-100, 3, 0, 0, 0, -100]
    assert tokens[2]["labels"] == [-100, -100]
    assert tokens["words_cut"] == [0, 0, 0]
    assert all(len(row["labels"]) == len(row["attention_mask"]) for row in tokens)


def test_words_that_are_cut_off_are_counted(tokenizer):
    cut = tokenize_and_align(EXAMPLES, tokenizer, names=NAMES, max_length=6)
    assert cut["words_cut"] == [2, 0, 0]
    assert cut["labels"][0] == [-100, 1, 4, 4, 2, -100]
    blank = {"words": [["Ann", " ", "in"]], "labels": [[1, 4, 2]]}
    lost = tokenize_and_align(blank, tokenizer, names=NAMES)
    assert (lost["words_cut"], lost["labels"]) == ([1], [[-100, 1, 2, -100]])


def test_rows_without_labels_are_tokenized_alone(tokenizer):
    columns = tokenize_and_align({"tokens": EXAMPLES["words"]}, tokenizer, names=NAMES, words_column="tokens")
    assert "labels" not in columns and columns["words_cut"] == [0, 0, 0]


def test_bad_examples_are_refused(tokenizer):
    with pytest.raises(ValueError, match=r"no column 'words' \(`words_column`\); found 'text', 'labels'"):
        tokenize_and_align({"text": [], "labels": []}, tokenizer, names=NAMES)
    with pytest.raises(ValueError, match="row 1 of the batch: 2 words but 1 labels"):
        tokenize_and_align({"words": [["in"], ["in", "in"]], "labels": [[2], [2]]}, tokenizer, names=NAMES)
    with pytest.raises(TypeError, match="`tokenizer` must be a fast one"):
        tokenize_and_align(EXAMPLES, lambda words: words, names=NAMES)


def test_a_trainer_scores_words(tokenizer, tmp_path):
    rows = {
        "words": [["Annette", "lives", "in", "Paris"], ["Paris", "in", "Ann"], ["in"], ["Anne", "Paris"]],
        "labels": [[1, 2, 2, 3], [3, 2, 1], [2], [1, 4]],
    }
    tokens = Dataset.from_dict(rows).map(
        tokenize_and_align, batched=True, remove_columns=["words", "labels"],
        fn_kwargs={"tokenizer": tokenizer, "names": NAMES, "scheme": "first"},
    )  # fmt: skip
    set_seed(3)
    config = BertConfig(
        vocab_size=len(VOCABULARY), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        num_labels=len(NAMES), initializer_range=1.0,
    )  # fmt: skip
    model = BertForTokenClassification(config).eval()
    trainer = Trainer(
        model,
        TrainingArguments(str(tmp_path), per_device_eval_batch_size=2, report_to="none", use_cpu=True),
        eval_dataset=tokens,
        data_collator=DataCollatorForTokenClassification(tokenizer),
        compute_metrics=EntityMetrics(NAMES),
        preprocess_logits_for_metrics=keep_predictions,
    )
    measured = trainer.evaluate()
    predictions = []
    for words in rows["words"]:  # word by word, one sentence at a time
        encoded = tokenizer(words, is_split_into_words=True, return_tensors="pt")
        classes = model(**encoded).logits[0].argmax(-1).tolist()
        ids = encoded.word_ids(0)
        predictions.append([NAMES[classes[ids.index(word)]] for word in range(len(words))])
    expected = entity_metrics(predictions, [[NAMES[k] for k in labels] for labels in rows["labels"]])
    assert {name: measured[f"eval_{name}"] for name in expected} == expected
    assert expected["entities"] == 5 and 0 < expected["accuracy"] < 1
