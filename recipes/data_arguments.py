"""The flags that say which data a recipe trains on."""

from dataclasses import dataclass, field
from typing import Any, ClassVar


@dataclass
class SourceArguments:
    """Where the data of any task come from, and what is made of their splits.

    `needs_train` is whether a task can do nothing without data to train on.
    """

    needs_train: ClassVar[bool] = True

    dataset: str | None = field(
        default=None,
        metadata={
            "help": "Hub id, local folder or file, or `api-docs`, the embedded corpus, which is used if neither this "
            "nor `train_file` is given. A folder holds train, validation (or dev, valid, val) and test files of any "
            "format that `train_file` takes, or is what `save_to_disk` wrote."
        },
    )
    dataset_config: str | None = field(default=None, metadata={"help": "Configuration of the hub data set."})
    dataset_revision: str | None = field(default=None, metadata={"help": "Branch, tag or commit of the hub data set."})
    train_split: str | None = field(default=None, metadata={"help": "Split to train on; `train` if not given."})
    validation_split: str | None = field(
        default=None,
        metadata={
            "help": "Split to validate on, if it is not called validation, dev, valid or val; `none` makes one."
        },
    )
    test_split: str | None = field(
        default=None,
        metadata={
            "help": "Split to test on, if it is not called test; `none` makes one, as for tests without labels."
        },
    )
    train_file: str | None = field(
        default=None,
        metadata={
            "help": "JSON (.json), JSON Lines (.jsonl, .ndjson), CSV, TSV, Parquet or Arrow file, local or a URL such "
            "as s3://bucket/train.csv; also compressed (.gz, .bz2, .xz)."
        },
    )
    validation_file: str | None = field(default=None, metadata={"help": "Like `train_file`; made from it if missing."})
    test_file: str | None = field(default=None, metadata={"help": "Like `train_file`; made from it if missing."})
    storage_options: dict[str, Any] | None = field(
        default=None,
        metadata={"help": "JSON mapping for the file system behind a URL, such as '{\"anon\": true}' for s3://."},
    )
    validation_fraction: float = field(
        default=0.1, metadata={"help": "Share of train that becomes the validation split if there is none."}
    )
    test_fraction: float = field(
        default=0.1, metadata={"help": "Share of train that becomes the test split if there is none."}
    )
    split_seed: int = field(
        default=0, metadata={"help": "Seed of the splits that are made and of the subsets that are taken."}
    )
    max_train_samples: int | None = field(
        default=None, metadata={"help": "Take a subset of train of this size, stratified by class."}
    )
    max_eval_samples: int | None = field(
        default=None, metadata={"help": "Take subsets of validation and of test of this size, stratified by class."}
    )
    deduplicate: bool = field(
        default=False,
        metadata={
            "help": "Remove from train the rows whose text occurred before, occurs in validation or test, or carries "
            "different labels. They are counted in any case."
        },
    )

    def __post_init__(self) -> None:
        if self.dataset is not None and self.train_file is not None:
            raise ValueError(f"give `dataset` or `train_file`, not both: got {self.dataset!r} and {self.train_file!r}")
        for name in ("validation_file", "test_file"):
            if self.needs_train and getattr(self, name) is not None and self.train_file is None:
                raise ValueError(f"`{name}` needs `train_file`; for other data use `dataset`")
        for name in ("validation_fraction", "test_fraction"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(f"`{name}` must lie between 0 and 1, got {getattr(self, name)}")
        if self.validation_fraction + self.test_fraction >= 1:
            raise ValueError("`validation_fraction` and `test_fraction` leave nothing to train on; lower one")
        for name in ("max_train_samples", "max_eval_samples"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 1, got {getattr(self, name)}")
        if self.split_seed < 0:
            raise ValueError(f"`split_seed` must not be negative, got {self.split_seed}")


@dataclass
class DataArguments(SourceArguments):
    """Where the data come from, which columns count, and what is made of them."""

    text_column: str = field(default="text", metadata={"help": "Column of the text."})
    text_pair_column: str | None = field(
        default=None, metadata={"help": "Column of a second text that is classified together with the first."}
    )
    label_column: str = field(
        default="label", metadata={"help": "Column of the class: text, whole numbers, or true and false."}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if len({self.text_column, self.text_pair_column, self.label_column}) < 3:
            raise ValueError("`text_column`, `text_pair_column` and `label_column` must be three different columns")


@dataclass
class TaggingArguments(SourceArguments):
    """Where tagged sentences come from, and which columns or fields hold their words and labels."""

    words_column: str = field(default="tokens", metadata={"help": "Column of the words: a list of texts a row."})
    label_column: str = field(
        default="ner_tags",
        metadata={"help": "Column of the labels, one per word: names in IOB2, IOB1, IOBES or BILOU, or numbers."},
    )
    word_field: int = field(
        default=0,
        metadata={
            "help": "Which field of a line of a CoNLL file (.conll, .conllu, .iob, .iob2, .bio, .txt, .tsv) is the "
            "word, counted from 0; negative counts from the end."
        },
    )
    label_field: int = field(
        default=-1, metadata={"help": "Which field of a line of a CoNLL file is the label; -1 is the last."}
    )
    tag_names: list[str] | None = field(
        default=None,
        metadata={"help": "Names of labels that are numbers, in order, if the data set has none."},
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.words_column == self.label_column:
            raise ValueError(f"`words_column` and `label_column` must be two columns, got {self.words_column!r} twice")
        if self.word_field == self.label_field:
            raise ValueError(f"`word_field` and `label_field` must be two fields, got {self.word_field} twice")
        if self.tag_names is not None and len(set(self.tag_names)) < len(self.tag_names):
            raise ValueError(f"`tag_names` has a name twice: {self.tag_names}")
