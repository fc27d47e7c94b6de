"""The embedded corpus: harvest of a small tree and of a real library, its cache, and the view of it."""

import importlib.metadata
import re
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tithe.recipes import harvest as harvesting
from tithe.recipes.corpus import MASK, api_classification_tables, load_api_classification
from tithe.recipes.data import DataArguments, load_classification_data
from tithe.recipes.harvest import LIBRARIES, harvest, harvest_folders, plain_text


SOURCE = '''
"""Module docstring, which is no record."""

class Tree(Base, metaclass=Meta):
    """A balanced tree of :class:`~shop.Node` objects,
    kept in ``order``.

    More about it.
    """

    def grow(self, by: int = 1, *rest, **options) -> "Tree":
        """Grow the tree.
        Args:
            by: How far.
        """

    def _hidden(self):
        """Private, so left out."""

    async def shrink(self):
        """Shrink the tree."""


def plant(seed):
    """:func:`Plant <shop.plant>` a seed, see `the docs`."""
    def inner():
        """Local functions are no API."""


def silent(x):
    pass


def listed(x):
    """Args:
        x: Starts with its arguments.
    """
'''


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TITHE_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    root = tmp_path / "site" / "shop"
    files = {
        "__init__.py": 'def top():\n    """Of the package itself."""\n',
        "garden/trees.py": SOURCE,
        "_defined_here.py": 'def public():\n    """A public name of a private file."""\n',
        "broken.py": "def broken(:\n",
        "latin.py": b'def latin():\n    """N\xe9ver parsed."""\n',
        "tests/helpers.py": 'def skipped():\n    """In a folder of tests."""\n',
        "test_trees.py": 'def skipped():\n    """In a test file."""\n',
        "_vendor/other.py": 'def skipped():\n    """Vendored or private."""\n',
        "externals/other.py": 'def skipped():\n    """Vendored."""\n',
        "notes.txt": "def skipped(): pass",
    }
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return root


def test_harvest_of_a_tree(shop: Path) -> None:
    table = harvest_folders({"Shop": shop})
    rows = table.to_pylist()
    assert [(row["module"], row["qualname"], row["kind"]) for row in rows] == [
        ("shop", "top", "function"),
        ("shop._defined_here", "public", "function"),
        ("shop.garden.trees", "Tree", "class"),
        ("shop.garden.trees", "Tree.grow", "method"),
        ("shop.garden.trees", "Tree.shrink", "method"),
        ("shop.garden.trees", "plant", "function"),
    ]
    assert {row["library"] for row in rows} == {"Shop"}
    tree, grow, shrink, plant = rows[2:]
    assert tree["summary"] == "A balanced tree of :class:`~shop.Node` objects, kept in ``order``."
    assert tree["text"] == "A balanced tree of Node objects, kept in order."
    assert tree["signature"] == "Tree(Base)"
    assert grow["summary"] == "Grow the tree."
    assert grow["signature"] == "grow(self, by: int=1, *rest, **options) -> 'Tree'"
    assert shrink["signature"] == "shrink(self)"
    assert plant["text"] == "Plant a seed, see the docs."
    assert table.schema.metadata[b"unparsed"] == b"2"


def test_harvest_does_not_depend_on_the_order_of_the_file_system(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = harvest_folders({"Shop": shop})
    walk = harvesting.os.walk

    def backwards(root: Path):
        for folder, subfolders, names in walk(root):
            subfolders.reverse()
            yield folder, subfolders, sorted(names, reverse=True)

    monkeypatch.setattr(harvesting.os, "walk", backwards)
    assert harvest_folders({"Shop": shop}).equals(expected)


@pytest.mark.parametrize(
    ("summary", "text"),
    [
        ("Call :py:meth:`~a.b.C.run` or :func:`title <a.f>`.", "Call run or title."),
        ("Uses [`~transformers.Trainer`] and [`pipeline`].", "Uses Trainer and pipeline."),
        ("See [the docs](https://x.org/y) or `~.Axes.plot` [1]_.", "See the docs or plot."),
        ("If ``a < b`` and `c > d` then *x*.", "If a < b and c > d then *x*."),
        ("A <Tip>hint</Tip> in **bold**.", "A hint in bold."),
        (":class:`!Plain` text", "Plain text"),
    ],
)
def test_plain_text(summary: str, text: str) -> None:
    assert plain_text(summary) == text


def test_real_library_is_cached_by_its_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = harvest({"rich": "rich"})
    names = set(table["qualname"].to_pylist())
    assert {"Table", "Table.add_column", "Progress"} <= names and len(table) > 300
    (cached,) = (tmp_path / "cache").glob("api-docs-*.parquet")

    pq.write_table(table.slice(0, 5), cached)
    assert len(harvest({"rich": "rich"})) == 5  # read from the cache

    cached.write_bytes(cached.read_bytes()[:100])
    assert harvest({"rich": "rich"}).equals(table)  # damaged, so harvested anew
    assert pq.read_table(cached).equals(table)

    pq.write_table(pa.table({"other": [1]}), cached)
    assert harvest({"rich": "rich"}).equals(table)

    version = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda name: version(name) + ".post1")
    harvest({"rich": "rich"})
    assert len(list((tmp_path / "cache").glob("api-docs-*.parquet"))) == 2


def test_processes_that_start_at_once_agree(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "from tithe.recipes import harvest\n"
        "from tithe.recipes.corpus import load_api_classification\n"
        "harvest.LIBRARIES = {'rich': 'rich', 'fsspec': 'fsspec'}\n"
        "data = load_api_classification()\n"
        "print(data.fingerprint, len(data.train['text'][:]))\n"
    )
    running = [subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    printed = [process.communicate()[0] for process in running]
    assert [process.returncode for process in running] == [0, 0]
    assert printed[0] == printed[1] != ""
    left = [path.name for path in (tmp_path / "cache").rglob(".*")]
    assert left == []  # no temporary file stays


def test_absent_library_is_left_out() -> None:
    assert len(harvest({"no-such-library": "no_such_module"})) == 0


def test_libraries_are_dependencies_of_tithe() -> None:
    """A library that only some machines have would make the corpus another one there."""
    required, pending = set(), ["tithe"]
    while pending:
        name = re.sub(r"[-_.]+", "-", pending.pop()).lower()
        if name in required:
            continue
        required.add(name)
        try:
            requirements = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:  # of a platform that this is not
            continue
        # datasets asks for fsspec[http], which brings aiohttp: an extra that the core needs
        wanted = [r for r in requirements if "extra ==" not in r or (name == "fsspec" and "aiohttp" in r)]
        pending += [re.match(r"[\w.-]+", requirement)[0] for requirement in wanted]  # type: ignore[index]
    assert {re.sub(r"[-_.]+", "-", name).lower() for name in LIBRARIES} <= required


def records(**texts: list[str]) -> pa.Table:
    rows = [{"library": library, "text": text} for library, found in texts.items() for text in found]
    return pa.Table.from_pylist(rows)


def labelled(tables: dict[str, pa.Table]) -> list[tuple[str, str]]:
    return [(row["text"], row["label"]) for table in tables.values() for row in table.to_pylist()]


def test_view_masks_the_names_of_the_library_itself() -> None:
    table = records(
        numpy=[
            "Make NumPy arrays with np.zeros or numpy.ones from pandas frames",
            "The ``__array_numpy__`` of an input",
        ],
        torch=[
            "Move PyTorch tensors as torch.Tensor to np arrays here",
            "A torchvision transform with torch_function inside",
        ],
    )
    table = table.append_column("module", table["library"])
    assert set(labelled(api_classification_tables(table, 1, 10))) == {
        (f"Make {MASK} arrays with {MASK}.zeros or {MASK}.ones from pandas frames", "numpy"),
        (f"The ``__array_{MASK}__`` of an input", "numpy"),
        (f"Move {MASK} tensors as {MASK}.Tensor to np arrays here", "torch"),
        (f"A torchvision transform with {MASK}_function inside", "torch"),
    }


def test_view_drops_what_is_short_shared_or_rare() -> None:
    table = records(
        numpy=[
            "Only three words",
            "Return the sum of elements.",
            "Sort the rows of numpy arrays",
            "sort the rows of np arrays!",
        ],
        scipy=["return the sum of elements", "Solve a linear system of equations"],
        rich=["Draw a table with many columns"],
    )
    assert sorted(labelled(api_classification_tables(table, 1, 10))) == [
        ("Draw a table with many columns", "rich"),
        ("Solve a linear system of equations", "scipy"),
        (f"Sort the rows of {MASK} arrays", "numpy"),
    ]
    assert labelled(api_classification_tables(table, 2, 10)) == []


def test_view_caps_classes_and_splits_by_the_hash_of_the_text() -> None:
    words = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa"]
    texts = [f"The {a} of the {b} by {c}" for a in words for b in words for c in words]
    tables = api_classification_tables(records(numpy=texts, scipy=[f"{text} again" for text in texts[:300]]), 200, 500)
    sizes = {split: len(table) for split, table in tables.items()}
    assert sum(sizes.values()) == 800 and 600 < sizes["train"] < 680 and min(sizes.values()) > 50
    labels = [label for _, label in labelled(tables)]
    assert labels.count("numpy") == 500 and labels.count("scipy") == 300
    # the split of a text stays what it is when other texts go
    fewer = api_classification_tables(records(scipy=[f"{text} again" for text in texts[:250]]), 200, 500)
    for split in tables:
        assert set(fewer[split]["text"].to_pylist()) <= set(tables[split]["text"].to_pylist())


def test_embedded_corpus_is_what_is_loaded_without_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    small = {"rich": "rich", "fsspec": "fsspec", "Jinja2": "jinja2"}
    monkeypatch.setattr(harvesting, "LIBRARIES", small)
    data = load_api_classification()
    assert set(data.id2label.values()) == set(small) and data.name == "api-docs"
    assert data.report["made"] == []
    assert {key: n for key, n in data.report["duplicates"].items() if n} == {}
    for row in data.test:
        name = data.id2label[row["label"]]
        assert not re.search(rf"(?<![a-z]){small[name]}(?![a-z])", row["text"], re.IGNORECASE)
    assert load_classification_data(DataArguments()).fingerprint == data.fingerprint
    named = load_classification_data(DataArguments(dataset="api-docs", max_train_samples=60))
    assert len(named.train) == 60 and named.test["text"][:] == data.test["text"][:]
