"""Every block of the README and of the documentation runs as it is written, but for those that say why they do not."""

from collections import Counter

import pytest
from documentation import ROOT, Block, Runner, blocks_of


PAGES = {
    path.relative_to(ROOT).as_posix(): path for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
}
BLOCKS = {name: blocks_of(path, name) for name, path in PAGES.items()}
# How many blocks of a page are only read: one more is to be seen here.
NOT_RUN = {"docs/launching.md": 1, "docs/moving.md": 4, "docs/quick_start.md": 2}


def run_of(blocks: list[Block], *kinds: str | None) -> list[Block]:
    return [block for block in blocks if block.kind in kinds]


@pytest.fixture(scope="module", params=[True], ids=["forks"])
def runner(request, tmp_path_factory):
    made = Runner(tmp_path_factory.mktemp("documentation"), fork=request.param)
    yield made
    made.close()


real_commands = pytest.mark.parametrize("runner", [False], ids=["commands"], indirect=True, scope="module")


def pages(*kinds: str | None):
    """The pages with such blocks, each as a case."""
    old = pytest.mark.xfail(reason="the README has blocks that are not whole", strict=True)
    found = [name for name, blocks in BLOCKS.items() if run_of(blocks, *kinds)]
    return pytest.mark.parametrize("name", [pytest.param(n, marks=old if n == "README.md" else ()) for n in found])


@pages(None)
def test_the_blocks_of_a_page_run(runner, name):
    status, printed = runner.run(run_of(BLOCKS[name], None), name.replace("/", "-"))
    assert status == 0, printed[-4000:]


@pytest.mark.slow
@real_commands
@pages(None, "slow")
def test_the_blocks_of_a_page_run_with_commands_of_their_own(runner, name):
    status, printed = runner.run(run_of(BLOCKS[name], None, "slow"), name.replace("/", "-"))
    assert status == 0, printed[-4000:]


def test_blocks_that_are_only_read_are_known():
    found = Counter(block.page for blocks in BLOCKS.values() for block in run_of(blocks, "not run"))
    assert found == NOT_RUN


def test_blocks_are_found_with_what_is_said_of_them(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "text\n\n```python\nx = 1\n\ny = 2\n```\n\n<!-- not run: needs a GPU -->\n```bash\nls\n```\n"
        "- item\n\n    ```python\n    if x:\n        pass\n    ```\n\n```text\n<!-- not run: is text -->\n```\n"
    )
    first, second, third = blocks_of(page, "page")
    assert first == Block("page", 4, "python", "x = 1\n\ny = 2")
    assert second == Block("page", 11, "bash", "ls", "not run", "needs a GPU")
    assert third == Block("page", 16, "python", "if x:\n    pass")


@pytest.mark.parametrize("text", ["<!-- slow: of no block -->\n\n```bash\nls\n```\n", "```python\nx = 1\n"])
def test_a_comment_without_a_block_and_a_block_without_an_end_are_errors(tmp_path, text):
    page = tmp_path / "page.md"
    page.write_text(text)
    with pytest.raises(ValueError, match="page:1: the"):
        blocks_of(page, "page")


@pytest.mark.parametrize(
    ("language", "text", "told"),
    [
        ("python", "assert x == 2, 'x is other'", "AssertionError: x is other"),
        ("bash", "accelerate launch recipes/data_selection.py --bugdet 1 | cat\necho on", "did you mean"),
        ("bash", "python -c 'import sys; sys.exit(3)'\necho on", "page:7 ended with 3"),
    ],
)
def test_a_block_that_fails_is_told(runner, language, text, told):
    before = Block("page", 2, "python", "x = 1")
    status, printed = runner.run([before, Block("page", 7, language, text)], f"fails-{abs(hash(text))}")
    assert status != 0 and told.lower() in printed.lower() and "\non\n" not in printed


def test_blocks_share_names_and_folder(runner):
    blocks = [
        Block("page", 1, "python", "from pathlib import Path\nPath('made').write_text('by Python')"),
        Block("page", 4, "bash", "grep Python made && tithe > recipes.txt"),
        Block("page", 9, "python", "assert 'data_selection' in Path('recipes.txt').read_text()"),
    ]
    assert runner.run(blocks, "shares")[0] == 0
