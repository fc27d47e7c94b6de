"""Data for the recipes that tag words: one call from flags to three checked, memory-mapped splits."""

from tithe.recipes.corpus import CORPUS_NAME
from tithe.recipes.data_arguments import TaggingArguments
from tithe.recipes.harvest import harvest
from tithe.recipes.readers import Columns, DataError
from tithe.recipes.sources import read_tables
from tithe.recipes.tagging import TaggingData, assemble_tagging
from tithe.recipes.tagging_corpus import api_tagging_tables


__all__ = ["DataError", "TaggingArguments", "TaggingData", "load_tagging_data"]


def load_tagging_data(args: TaggingArguments) -> TaggingData:
    """Train, validation and test as `args` say; with no data named, the names in the embedded corpus.

    Reads CoNLL files, JSON, JSON Lines, Parquet and Arrow files with columns of lists, folders of them, what
    `save_to_disk` wrote, and data sets of the hub. Labels may be in IOB2, IOB1, IOBES or BILOU, as names or as
    positions in names. Missing splits are made from train by `args.split_seed`. Raises `DataError`,
    `FileNotFoundError` or `ImportError` (a missing extra), each in one line, before anything is trained.

    >>> import pathlib, tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp(), "people.conll")
    >>> _ = path.write_text("".join(f"Ann B-PER\\nLee I-PER\\nsaw O\\n{n} O\\n\\n" for n in range(20)))
    >>> data = load_tagging_data(TaggingArguments(train_file=str(path)))
    >>> data.names, data.train[0]["labels"], data.report["rows"]
    (['O', 'B-PER', 'I-PER'], [1, 2, 0, 0], {'train': 16, 'validation': 2, 'test': 2})
    """
    if args.train_file is None and args.dataset in (None, CORPUS_NAME):
        return assemble_tagging(api_tagging_tables(harvest()), Columns([], "labels", "words"), CORPUS_NAME, args)
    columns = Columns([], args.label_column, args.words_column, (args.word_field, args.label_field))
    name, tables = read_tables(args, columns)
    return assemble_tagging(tables, columns, name, args, args.tag_names)
