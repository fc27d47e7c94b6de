"""Data for the classification recipes: one call from flags to three checked, memory-mapped splits."""

from tithe.recipes.classification import ClassificationData, assemble
from tithe.recipes.corpus import CORPUS_NAME, load_api_classification
from tithe.recipes.data_arguments import DataArguments
from tithe.recipes.readers import Columns, DataError
from tithe.recipes.sources import read_tables


__all__ = ["ClassificationData", "DataArguments", "DataError", "load_classification_data"]


def load_classification_data(args: DataArguments) -> ClassificationData:
    """Train, validation and test as `args` say; with no data named, the embedded corpus.

    Missing splits are made from train, stratified by label, by `args.split_seed`. Raises `DataError`,
    `FileNotFoundError` or `ImportError` (a missing extra), each in one line, before anything is trained.

    >>> import json, pathlib, tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp(), "reviews.jsonl")
    >>> rows = [{"review": f"film number {n}", "label": ["bad", "good"][n % 2]} for n in range(40)]
    >>> _ = path.write_text("\\n".join(map(json.dumps, rows)))
    >>> data = load_classification_data(DataArguments(train_file=str(path), text_column="review"))
    >>> data.train[0], data.id2label
    ({'text': 'film number 1', 'label': 1}, {0: 'bad', 1: 'good'})
    >>> data.report["rows"]
    {'train': 32, 'validation': 4, 'test': 4}
    """
    if args.train_file is None and args.dataset in (None, CORPUS_NAME):
        return load_api_classification(args)
    texts = [args.text_column] if args.text_pair_column is None else [args.text_column, args.text_pair_column]
    columns = Columns(texts, args.label_column)
    name, tables = read_tables(args, columns)
    return assemble(tables, columns, name, args)
