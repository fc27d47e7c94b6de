"""Docstrings of installed libraries as a table: the raw material of the embedded corpus.

The sources are read with `ast`; nothing is imported. Only packages that Tithe's own dependencies bring are read, so a
corpus is there wherever Tithe is. The table is cached by the versions of the packages.
"""

import ast
import hashlib
import importlib.metadata
import importlib.util
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock
from tqdm import tqdm

from tithe.recipes.cache_folder import cache_dir
from tithe.recipes.caching import published


# Name of the library → its top-level module. The order fixes the order of the records.
LIBRARIES: dict[str, str] = {
    "torch": "torch",
    "transformers": "transformers",
    "datasets": "datasets",
    "accelerate": "accelerate",
    "peft": "peft",
    "huggingface_hub": "huggingface_hub",
    "numpy": "numpy",
    "scipy": "scipy",
    "pandas": "pandas",
    "scikit-learn": "sklearn",
    "matplotlib": "matplotlib",
    "pyarrow": "pyarrow",
    "sympy": "sympy",
    "mpmath": "mpmath",
    "networkx": "networkx",
    "nltk": "nltk",
    "rich": "rich",
    "Pygments": "pygments",
    "fonttools": "fontTools",
    "pillow": "PIL",
    "Jinja2": "jinja2",
    "Werkzeug": "werkzeug",
    "Markdown": "markdown",
    "fsspec": "fsspec",
    "aiohttp": "aiohttp",
    "tensorboard": "tensorboard",
    "setuptools": "setuptools",
    "pyparsing": "pyparsing",
}

# Part of the cache key: raise it when the records change for the same packages.
_HARVEST_VERSION = 1
_SKIPPED_FOLDERS = {
    "test", "tests", "testing", "vendor", "externals", "extern", "third_party", "site-packages", "__pycache__",
}  # fmt: skip
_SKIPPED_FILES = re.compile(r"(test_.*|.*_test|tests?|conftest|setup|__main__)\.py$")
# What ends a summary without a blank line before it: a heading, its underline, a field list, an entry of a parameter.
_SECTION = re.compile(
    r"\s*((Args?|Arguments|Parameters|Params|Returns?|Yields?|Raises|Examples?|Notes?)\b\s*:?\s*$|[-=]{3,}"
    r"|:\w+(\s[^:`]*)?:(?!`)|\w+ \(`[^`]+`.*\):)"
)
_ROLE = re.compile(r":[\w:+-]+:`([^`]*)`")
_LINK = re.compile(r"\[(`?[^\]`]+`?)\]\([^)]*\)|\[(`[^\]`]+`)\]")
_QUOTED = re.compile(r"(`{1,2})(.+?)\1")
_MARKED = re.compile(r":(?P<role>[\w:+-]+):`(?P<target>[^`]*)`|(?P<ticks>`{1,2})(?P<literal>.+?)(?P=ticks)")
_MARKUP = re.compile(r"\s*\[\w+\]_|`|\*{2}|</?[a-zA-Z][^<>]*>")


@dataclass(frozen=True)
class Record:
    """One documented function, class or method.

    `summary` is the first paragraph of the docstring on one line, with its Sphinx roles, links and backticks; `text`
    is the same without them. `signature` is `name(arguments) -> type` as the source has it; a class has its bases'.
    """

    library: str
    module: str
    qualname: str
    kind: str
    signature: str
    summary: str
    text: str


def harvest(libraries: Mapping[str, str] | None = None) -> pa.Table:
    """The records of `libraries` (default: `LIBRARIES`) that are installed, one row each, columns as in `Record`.

    Rows and their order depend on the packages' versions alone. The first call takes about half a minute for all of
    them; then the table comes from the cache folder. Tests, vendored code, private folders and private names are left
    out; private *files* are read, for there scipy or scikit-learn define the public names of a public folder.
    """
    libraries = LIBRARIES if libraries is None else libraries
    path = cache_dir() / f"api-docs-{_versions_key(libraries)}.parquet"
    with FileLock(f"{path}.lock"):
        table = _read_cached(path)
        if table is None:
            table = harvest_folders(_installed(libraries))
            with published(path) as temporary:
                pq.write_table(table, temporary)
    return table


def harvest_folders(folders: Mapping[str, Path]) -> pa.Table:
    """The records of packages that lie in `folders` (library name → folder of its top-level module), uncached.

    A file that does not parse is left out; how many were is in the metadata of the schema, under `unparsed`.
    """
    sources = [(library, root, path) for library, root in folders.items() for path in _sources(root)]
    records: list[Record] = []
    unparsed = 0
    for library, root, path in tqdm(sources, "harvesting API docs", disable=os.environ.get("RANK", "0") != "0"):
        try:
            tree = ast.parse(path.read_bytes())
        except (SyntaxError, ValueError):
            unparsed += 1
            continue
        module = ".".join(path.relative_to(root.parent).with_suffix("").parts).removesuffix(".__init__")
        records.extend(_records(tree, library, module))
    schema = pa.schema([(field.name, pa.string()) for field in fields(Record)], {"unparsed": str(unparsed)})
    return pa.Table.from_pylist([asdict(record) for record in records], schema=schema)


def plain_text(summary: str) -> str:
    """A summary without markup: the target of a role or link stays, roles, backticks, tags and citations go."""
    text = _ROLE.sub(lambda match: _role_target(match.group(1)), summary)
    text = _LINK.sub(lambda match: match.group(1) or match.group(2), text)
    text = _QUOTED.sub(
        lambda match: _role_target(match.group(2)) if match.group(2)[0] == "~" else match.group(2), text
    )
    return " ".join(_MARKUP.sub("", text).split())


def marked_pieces(summary: str) -> Iterator[tuple[str, str | None]]:
    """The text of a summary in pieces, without markup, each with its mark: a role ("class"), "literal", or None.

    Of a role with a domain ("py:class") the last part counts; literals are what stands between backticks. The pieces
    together are `plain_text` of the summary, up to blanks and to what looks like markup within a literal.

    >>> list(marked_pieces("Make a :class:`~shop.Tree` of ``order``."))
    [('Make a ', None), ('Tree', 'class'), (' of ', None), ('order', 'literal'), ('.', None)]
    """
    text, at = _LINK.sub(lambda match: match.group(1) or match.group(2), summary), 0
    for match in _MARKED.finditer(text):
        yield _MARKUP.sub("", text[at : match.start()]), None
        shown = match["literal"] or match["target"]
        if match["role"] or shown.startswith("~"):
            shown = _role_target(shown)
        yield shown.strip(" `"), (match["role"] or "literal").split(":")[-1]
        at = match.end()
    yield _MARKUP.sub("", text[at:]), None


def _role_target(target: str) -> str:
    # "title <target>" shows the title; "~a.b.C" shows C
    title = target.split("<")[0].strip() or target
    return title.split(".")[-1] if title.startswith("~") else title.lstrip("!")


def _versions_key(libraries: Mapping[str, str]) -> str:
    versions = [f"{_HARVEST_VERSION}", *(f"{name}={_version(name)}={module}" for name, module in libraries.items())]
    return hashlib.blake2b("\n".join(versions).encode(), digest_size=8).hexdigest()


def _version(library: str) -> str:
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return "absent"


def _installed(libraries: Mapping[str, str]) -> dict[str, Path]:
    specs = {library: importlib.util.find_spec(module) for library, module in libraries.items()}
    return {
        library: Path(next(iter(spec.submodule_search_locations)))
        for library, spec in specs.items()
        if spec is not None and spec.submodule_search_locations
    }


def _read_cached(path: Path) -> pa.Table | None:
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowInvalid):  # absent, or damaged: made again
        return None
    return table if table.column_names == [field.name for field in fields(Record)] else None


def _sources(root: Path) -> list[Path]:
    """Python files under `root`, sorted by their path, whatever order the file system lists them in."""
    found = []
    for folder, subfolders, names in os.walk(root):
        subfolders[:] = [n for n in subfolders if n not in _SKIPPED_FOLDERS and not n.startswith(("_", "."))]
        found += [Path(folder, name) for name in names if name.endswith(".py") and not _SKIPPED_FILES.match(name)]
    return sorted(found, key=lambda path: path.relative_to(root).as_posix())


def _records(tree: ast.Module, library: str, module: str) -> Iterator[Record]:
    def visit(body: list[ast.stmt], prefix: str) -> Iterator[Record]:
        for node in body:
            if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)) or node.name[0] == "_":
                continue
            summary = _first_paragraph(ast.get_docstring(node) or "")
            kind = "class" if isinstance(node, ast.ClassDef) else "method" if prefix else "function"
            if summary:
                yield Record(library, module, prefix + node.name, kind, _signature(node), summary, plain_text(summary))
            if isinstance(node, ast.ClassDef):
                yield from visit(node.body, f"{prefix}{node.name}.")

    return visit(tree.body, "")


def _first_paragraph(docstring: str) -> str:
    """The first paragraph on one line; empty where the docstring starts with a section or a directive."""
    lines = []
    for line in docstring.strip().splitlines():
        if not line.strip() or line.startswith("..") or _SECTION.match(line):
            break
        lines.append(line)
    return " ".join(" ".join(lines).split())


def _signature(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> str:
    if isinstance(node, ast.ClassDef):
        return f"{node.name}({', '.join(ast.unparse(base) for base in node.bases)})"
    returns = f" -> {ast.unparse(node.returns)}" if node.returns is not None else ""
    return f"{node.name}({ast.unparse(node.args)}){returns}"
