"""Every block of the README and of the documentation runs as it is written, but for those that say why they do not."""

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from documentation import ROOT, Block, Runner, blocks_of

from tithe.recipes.cli import RECIPES


PAGES = {
    path.relative_to(ROOT).as_posix(): path for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
}
BLOCKS = {name: blocks_of(path, name) for name, path in PAGES.items()}
# How many blocks of a page are only read: one more is to be seen here.
NOT_RUN = {"README.md": 2, "docs/launching.md": 1, "docs/model_cards.md": 1, "docs/moving.md": 4}
NOT_RUN |= {"docs/quick_start.md": 2, "docs/tracking.md": 2}

# What shortens the recipes of the README's table, which run for minutes, on the small corpus: the same commands else.
SHORT = {
    "data_selection": "--num_train_epochs 1 --rounds 3",
    "compare_strategies": "--num_train_epochs 1 --rounds 3",
    "distill_ner": "--teacher_epochs 1 --num_train_epochs 1 --max_train_samples 200 --max_eval_samples 50",
    "distill_lm": "--teacher_epochs 1 --num_train_epochs 1 --max_train_samples 200 --max_eval_samples 50",
    "expert_loop": "--max_train_samples 400 --max_eval_samples 50 --teacher_rows 100 --teacher_epochs 1 "
    "--supervised_epochs 1 --initial_pool_size 40 --query_size 20 --max_iterations 2 --epochs_per_iteration 1",
    "prompt_tune": "--base_epochs 1 --num_train_epochs 1 --max_train_samples 200 --max_eval_samples 20",
    "slm_qa": "--base_epochs 1 --num_train_epochs 1 --max_train_samples 200 --max_eval_samples 20",
    "tune": "--trials 2 --trial_epochs 1 --num_train_epochs 1 --rounds 3",
    "evaluate_model": "",
}


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
    return pytest.mark.parametrize("name", [name for name, blocks in BLOCKS.items() if run_of(blocks, *kinds)])


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


@pytest.mark.slow
def test_make_demo_ends_with_the_path_of_a_report(runner, tmp_path):
    """As the README has it, in this environment and on the small corpus."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt", "recipes"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "venv" / "bin").mkdir(parents=True)
    (tmp_path / "venv" / "bin" / "accelerate").symlink_to(Path(sys.executable).parent / "accelerate")
    (tmp_path / "venv" / "bin" / ".installed").touch()
    done = subprocess.run(
        ["make", "demo", "VENV=venv"], cwd=tmp_path, env=runner.environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout.splitlines()[-1] == "report: runs/data_selection/report.html"
    assert (tmp_path / "runs" / "data_selection" / "report.html").is_file()


def commands_of_the_table() -> list[str]:
    """The commands in the README's table of recipes, in its order."""
    return re.findall(r"^\| `(accelerate launch [^`]+)`", PAGES["README.md"].read_text(encoding="utf-8"), re.MULTILINE)


def test_the_table_of_recipes_has_them_all():
    assert {command.split()[2].split("/")[1].removesuffix(".py") for command in commands_of_the_table()} == set(SHORT)
    assert set(SHORT) == set(RECIPES)


@pytest.mark.slow
def test_the_commands_of_the_table_of_recipes_run(runner):
    shortened = [f"{command} {SHORT[command.split('/')[1].split('.')[0]]}" for command in commands_of_the_table()]
    blocks = [Block("README.md", number, "bash", command) for number, command in enumerate(shortened)]
    status, printed = runner.run(blocks, "table")
    assert status == 0, printed[-4000:]


def test_the_russian_readme_has_the_blocks_and_the_commands_of_the_english_one():
    path = ROOT / "README.ru.md"
    russian = [(block.language, block.text, block.kind) for block in blocks_of(path, path.name)]
    assert russian == [(block.language, block.text, block.kind) for block in BLOCKS["README.md"]]
    text = path.read_text(encoding="utf-8")
    assert all(f"| `{command}` |" in text for command in commands_of_the_table())


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
