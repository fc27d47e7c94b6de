"""Labels of words → labels of sub-tokens, for token classification."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from transformers import PreTrainedTokenizerBase

from .tag_schemes import split_tag


IGNORED = -100  # what the cross-entropy of torch leaves out
SCHEMES = ("all", "first")


def align_labels_with_tokens(
    labels: Sequence[int], word_ids: Sequence[int | None], *, names: Sequence[str], scheme: str = "all"
) -> list[int]:
    """Labels [t] of the sub-tokens of one row, from the labels [n] of its words.

    `word_ids` [t] is a fast tokenizer's: the word of each sub-token, None for special tokens. Special tokens get -100,
    the first sub-token of a word its label, and the later ones

    - with scheme "all": I-X after B-X or I-X, else O, so that an entity stays one entity in sub-tokens;
    - with scheme "first": -100, so that each word is scored once. Evaluate with this one: F1 is then that of words.

    `names` [c] are the names of the ids, in IOB2: they say which id is the I-X of a B-X. A word labelled -100 has no
    label, nor have its sub-tokens. Raises `ValueError` for an unknown scheme, a B-X among `names` without I-X (scheme
    "all"), a label that is no position in `names`, and word ids that are negative or beyond the labels.

    >>> align_labels_with_tokens([1, 0], [None, 0, 0, 1, 1, None], names=["O", "B-PER", "I-PER"])
    [-100, 1, 2, 0, 0, -100]
    >>> align_labels_with_tokens([1, 0], [None, 0, 0, 1, 1, None], names=["O", "B-PER", "I-PER"], scheme="first")
    [-100, 1, -100, 0, -100, -100]
    """
    later = _later_labels(tuple(names), scheme)
    bad = [label for label in labels if label != IGNORED and not 0 <= label < len(later)]
    if bad:
        raise ValueError(f"`labels` has {bad[0]}, which is no position in the {len(later)} `names` nor {IGNORED}")
    highest = max((word for word in word_ids if word is not None), default=-1)
    if highest >= len(labels):
        raise ValueError(f"`word_ids` names word {highest}, but `labels` has {len(labels)}; tokenize the same words")
    if any(word is not None and word < 0 for word in word_ids):
        raise ValueError("`word_ids` has a negative word; special tokens are None")
    aligned, before = [], None
    for word in word_ids:
        label = IGNORED if word is None else labels[word]
        aligned.append(later[label] if word == before and label != IGNORED else label)
        before = word
    return aligned


def tokenize_and_align(
    examples: Mapping[str, Sequence[Any]],
    tokenizer: PreTrainedTokenizerBase,
    *,
    names: Sequence[str],
    words_column: str = "words",
    label_column: str = "labels",
    max_length: int | None = None,
    scheme: str = "all",
) -> dict[str, list[Any]]:
    """Tokenize rows of words and align their labels, for `datasets.Dataset.map(..., batched=True)`.

    Gives the tokenizer's columns (`input_ids`, `attention_mask`, …), unpadded and truncated to `max_length` tokens
    (the tokenizer's own limit if None); `labels` as in `align_labels_with_tokens`, if `label_column` is there; and
    `words_cut`, the number of words of each row that have no sub-token: cut off, or of characters the tokenizer drops.
    Pass `remove_columns` to `map`: words and tokens differ in number.

    Raises `TypeError` for a slow tokenizer, `ValueError` for a missing column, naming those found, for labels that
    differ in number from the words (naming the row of the batch), and as `align_labels_with_tokens` does.

    ```python
    tokens = data.train.map(
        tokenize_and_align,
        batched=True,
        remove_columns=data.train.column_names,
        fn_kwargs={"tokenizer": tokenizer, "names": data.names},
    )
    ```
    """
    if not getattr(tokenizer, "is_fast", False):
        raise TypeError(
            f"`tokenizer` must be a fast one, which knows the word of each sub-token; {type(tokenizer).__name__} is "
            "slow: load it with `AutoTokenizer.from_pretrained(…)` and the `tokenizers` library's file beside it"
        )
    if words_column not in examples:
        raise ValueError(f"no column {words_column!r} (`words_column`); found {', '.join(map(repr, examples))}")
    rows = examples[words_column]
    encoded = tokenizer(
        [list(words) for words in rows], is_split_into_words=True, truncation=True, max_length=max_length
    )
    word_ids = [encoded.word_ids(row) for row in range(len(rows))]
    columns = {name: list(values) for name, values in encoded.items()}
    if label_column in examples:
        columns["labels"] = []
        for row, (words, labels) in enumerate(zip(rows, examples[label_column], strict=True)):
            if len(words) != len(labels):
                raise ValueError(f"row {row} of the batch: {len(words)} words but {len(labels)} labels")
            columns["labels"].append(align_labels_with_tokens(labels, word_ids[row], names=names, scheme=scheme))
    seen = [len({word for word in ids if word is not None}) for ids in word_ids]
    columns["words_cut"] = [len(words) - count for words, count in zip(rows, seen, strict=True)]
    return columns


@lru_cache(maxsize=32)
def _later_labels(names: tuple[str, ...], scheme: str) -> list[int]:
    """For each label the one of the later sub-tokens of its word."""
    if scheme not in SCHEMES:
        raise ValueError(f"`scheme` must be {' or '.join(map(repr, SCHEMES))}, got {scheme!r}")
    if scheme == "first":
        return [IGNORED] * len(names)
    ids = {name: number for number, name in enumerate(names)}
    later = []
    for name in names:
        prefix, kind = split_tag(name)
        if prefix not in "BIO":
            raise ValueError(f"`names` must be of the scheme IOB2, got {name!r}; see `to_iob2`")
        if prefix != "O" and f"I-{kind}" not in ids:
            raise ValueError(f"`names` has {name!r} but no 'I-{kind}', which later sub-tokens of such words need")
        later.append(ids[name] if prefix == "O" else ids[f"I-{kind}"])
    return later
