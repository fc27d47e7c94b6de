"""The project's data: what the docstrings of installed packages say first, and a tokenizer trained on it."""

import ast
import importlib.util
import random
import re
from pathlib import Path
from typing import NamedTuple

from tokenizers import ByteLevelBPETokenizer
from tokenizers.processors import TemplateProcessing
from torch.utils.data import Dataset
from transformers import AutoTokenizer, PreTrainedTokenizerFast


KINDS = ("function", "method", "class")


class Docstring(NamedTuple):
    text: str  # its first sentence or two; the package's own name is masked
    name: str  # of the function, method or class
    kind: str
    package: str


def read_docstrings(packages: list[str], each: int, seed: int = 0) -> list[Docstring]:
    """`each` different docstrings of every package, in random order."""
    found = [docstring for package in packages for docstring in _of_package(package, each, seed)]
    random.Random(seed).shuffle(found)
    return found


def _of_package(package: str, each: int, seed: int) -> list[Docstring]:
    root = Path(importlib.util.find_spec(package).origin).parent
    files = sorted(path for path in root.rglob("*.py") if "test" not in path.relative_to(root).as_posix())
    random.Random(seed).shuffle(files)
    found: dict[str, Docstring] = {}
    for path in files:
        if len(found) < each:
            found |= {d.text: d for d in _of_file(path, package) if 4 <= len(d.text.split()) <= 30}
    return list(found.values())[:each]


def _of_file(path: Path, package: str) -> list[Docstring]:
    found, methods = [], set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ClassDef):
            methods |= {id(child) for child in node.body}
        elif not isinstance(node, ast.FunctionDef):
            continue
        if docstring := ast.get_docstring(node):
            text = re.sub(package, "it", " ".join(docstring.split("\n\n")[0].split()), flags=re.IGNORECASE)
            kind = "class" if isinstance(node, ast.ClassDef) else "method" if id(node) in methods else "function"
            found.append(Docstring(text, node.name, kind, package))
    return found


def get_tokenizer(model: str | None, texts: list[str]) -> PreTrainedTokenizerFast:
    """The tokenizer of a pretrained model, or without one a small one of these texts."""
    if model is not None:
        return AutoTokenizer.from_pretrained(model)
    trained = ByteLevelBPETokenizer(lowercase=True)  # the same every time; WordPiece breaks ties by chance
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "eos_token": "[SEP]"}
    trained.train_from_iterator(texts, vocab_size=4000, show_progress=False, special_tokens=[*special.values()])
    trained.post_processor = TemplateProcessing(single="$A [SEP]", special_tokens=[("[SEP]", 2)])
    return PreTrainedTokenizerFast(tokenizer_object=trained._tokenizer, **special)


class Docstrings(Dataset):
    """A data set class of the project's own: rows by index, under names of its own."""

    def __init__(self, docstrings: list[Docstring], tokenizer, packages: list[str] | None = None) -> None:
        self.docstrings, self.packages = docstrings, packages
        self.ids = tokenizer([d.text for d in docstrings], truncation=True, max_length=64)["input_ids"]

    def __len__(self) -> int:
        return len(self.docstrings)

    def __getitem__(self, index: int) -> dict:
        docstring = self.docstrings[index]
        row = {"text": docstring.text, "ids": self.ids[index], "kind": KINDS.index(docstring.kind)}
        if self.packages is not None:  # else nobody has said where it is from
            row["label"] = self.packages.index(docstring.package)
        return row
