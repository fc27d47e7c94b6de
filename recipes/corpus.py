"""Views of the embedded corpus: tasks made of the docstrings of installed libraries."""

import collections
import hashlib
import re

import pyarrow as pa
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

from tithe.recipes.classification import ClassificationData, assemble
from tithe.recipes.data_arguments import DataArguments
from tithe.recipes.harvest import LIBRARIES, harvest
from tithe.recipes.readers import Columns


CORPUS_NAME = "api-docs"
MASK = "[library]"
MIN_WORDS = 4
MIN_CLASS_ROWS = 200
MAX_CLASS_ROWS = 2_000

# What a text calls a library besides its own name and its module's, which are masked in any case.
_ALIASES = {
    "torch": ("pytorch", "aten"),
    "transformers": ("hf", "hugging face", "huggingface"),
    "datasets": ("hf", "hugging face", "huggingface"),
    "accelerate": ("hf", "hugging face", "huggingface"),
    "peft": ("hf", "hugging face", "huggingface"),
    "huggingface_hub": ("hf", "hf_hub", "hugging face", "huggingface"),
    "numpy": ("np",),
    "pandas": ("pd",),
    "scikit-learn": ("scikit", "sk"),
    "matplotlib": ("mpl", "pyplot", "plt"),
    "pyarrow": ("arrow", "pa"),
    "mpmath": ("mp",),
    "networkx": ("nx",),
    "fonttools": ("font tools",),
    "tensorboard": ("tb",),
    "setuptools": ("distutils",),
}


def load_api_classification(args: DataArguments | None = None) -> ClassificationData:
    """Which library does a summary describe? The library's own names are replaced by `[library]`.

    Each text occurs once. Texts of fewer than `MIN_WORDS` words are left out, and so are those that several libraries
    share and libraries of fewer than `MIN_CLASS_ROWS` texts; of larger libraries `MAX_CLASS_ROWS` are kept. A text's
    hash decides whether it is kept and in which split it lies (80 / 10 / 10), so neither changes for a text when
    other texts come or go, and no text is in two splits. Of `args` only the subset sizes and the seed matter.
    """
    args = DataArguments() if args is None else args
    return assemble(api_classification_tables(harvest()), Columns(["text"], "label"), CORPUS_NAME, args)


def api_classification_tables(
    records: pa.Table, min_class_rows: int = MIN_CLASS_ROWS, max_class_rows: int = MAX_CLASS_ROWS
) -> dict[str, pa.Table]:
    """The splits of `load_api_classification`, from harvested records, as tables with columns `text` and `label`."""
    masks = {library: _mask_pattern(library) for library in set(records["library"].to_pylist())}
    texts: dict[str, tuple[str, str]] = {}
    libraries = collections.defaultdict(set)
    for library, summary in zip(records["library"].to_pylist(), records["text"].to_pylist(), strict=True):
        text = masks[library].sub(MASK, summary)
        if len(re.findall(r"[^\W\d_]+", text.replace(MASK, ""))) >= MIN_WORDS:
            key = " ".join(re.findall(r"\w+", text.lower()))
            texts.setdefault(key, (text, library))
            libraries[key].add(library)
    by_library = collections.defaultdict(list)
    for key, (text, library) in texts.items():
        if len(libraries[key]) == 1:
            by_library[library].append((hash_of(key), text))
    splits: dict[str, list[dict[str, str]]] = {"train": [], "validation": [], "test": []}
    for library, hashed in by_library.items():
        if len(hashed) >= min_class_rows:
            for number, text in sorted(hashed)[:max_class_rows]:
                splits[split_of(number)].append({"text": text, "label": library})
    schema = pa.schema({"text": pa.large_string(), "label": pa.string()})
    return {split: pa.Table.from_pylist(rows, schema) for split, rows in splits.items()}


def _mask_pattern(library: str) -> re.Pattern[str]:
    names = {library, library.replace("_", " "), LIBRARIES.get(library, library), *_ALIASES.get(library, ())}
    alternatives = "|".join(re.escape(name) for name in sorted(names, key=lambda name: (-len(name), name)))
    return re.compile(rf"(?<![a-z])(?:{alternatives})(?![a-z])", re.IGNORECASE)


def keywords_of(text: str) -> tuple[str, list[str]]:
    """The words of a text in lower case, joined by spaces, and those of them that are no stop words (scikit-learn's).

    >>> keywords_of("Return the mean of a tensor.")
    ('return the mean of a tensor', ['return', 'mean', 'tensor'])
    """
    words = re.findall(r"\w+", text.lower())
    return " ".join(words), [word for word in words if word not in ENGLISH_STOP_WORDS]


def hub_dataset(name: str | None) -> str | None:
    """What a model card names: the data set's id, but nothing for the embedded corpus, which lies on no hub."""
    return None if name == CORPUS_NAME else name


def hash_of(key: str) -> int:
    """64 bits of a hash of a text, the same in every process."""
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "big")


def split_of(number: int) -> str:
    """The split of a text with this hash: 80 / 10 / 10."""
    # the low digits, for the high ones decide who is kept
    return {8: "validation", 9: "test"}.get(number % 10, "train")
